//! What was promised, held against what users were told and what is there in the end.
//!
//! Time is the users': an operation comes before another where its answer was there before the
//! other was asked. Of two that overlap either may have come first. One without a clear answer may
//! have happened at any moment from its asking on, but not against anything asked for after it
//! had failed: a delete that was answered 503 never takes away a later upload.
//!
//! A loss is the time from the moment at which the catalog came back older until it is rebuilt.
//! Reads in that time may give an older avatar or none. Everything else holds during it, too: a
//! version is never given out twice, and after the rebuild the newest acknowledged upload is
//! current.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use crate::client::Avatar;
use crate::history::{Act, Op, Outcome};

/// What must never happen, however often it was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Broken {
    UploadLost,
    DeletedReadable,
    Orphan,
    ObjectMissing,
    VersionBackwards,
    VersionTwice,
    NeverUploaded,
    ReplicasDisagree,
    SumsDiffer,
    Outstanding,
    WrongAnswer,
    PartPromise,
    EndedByItself,
}

impl Broken {
    pub(crate) const ALL: [Self; 13] = [
        Self::UploadLost,
        Self::DeletedReadable,
        Self::Orphan,
        Self::ObjectMissing,
        Self::VersionBackwards,
        Self::VersionTwice,
        Self::NeverUploaded,
        Self::ReplicasDisagree,
        Self::SumsDiffer,
        Self::Outstanding,
        Self::WrongAnswer,
        Self::PartPromise,
        Self::EndedByItself,
    ];

    fn words(self) -> &'static str {
        match self {
            Self::UploadLost => "acknowledged uploads that cannot be read",
            Self::DeletedReadable => "deleted avatars that can still be read",
            Self::Orphan => "objects in the bucket that no record names",
            Self::ObjectMissing => "objects of records that are missing or cut short",
            Self::VersionBackwards => "versions that went backwards",
            Self::VersionTwice => "versions that were given out twice",
            Self::NeverUploaded => "avatars that were refused, or that nobody sent",
            Self::ReplicasDisagree => "subjects of which the replicas tell different things",
            Self::SumsDiffer => "sums that differ from the records",
            Self::Outstanding => "uploads still on the sweep's list",
            Self::WrongAnswer => "answers that the API does not have",
            Self::PartPromise => "promises of this part that did not hold",
            Self::EndedByItself => "programs that ended by themselves",
        }
    }
}

/// What is there once everything works again and the sweep has had its time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Remains {
    /// What each replica tells of each subject.
    pub(crate) told: Vec<BTreeMap<String, Option<Avatar>>>,
    /// Every object in the bucket, with its length.
    pub(crate) objects: BTreeMap<String, u64>,
    /// Images of current avatars that a replica does not give, in words.
    pub(crate) unreadable: Vec<String>,
    /// Avatars, objects and bytes, as the catalog has added them up, where it tells them.
    pub(crate) sums: [Option<u64>; 3],
    /// Uploads in pending and retired.
    pub(crate) outstanding: Vec<String>,
    /// Programs that ended though nobody killed them.
    pub(crate) ended: Vec<String>,
    /// When the catalog may have lacked its latest writes.
    pub(crate) losses: Vec<Range<Duration>>,
}

/// Every broken promise, with what shows it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    broken: BTreeMap<Broken, BTreeSet<String>>,
    suspects: Vec<Suspect>,
}

/// An avatar that was replaced and whose images went early: lost, unless a delete took them.
#[derive(Clone, Debug)]
struct Suspect {
    subject: String,
    /// When it was uploaded.
    since: Duration,
    lost: String,
}

impl Verdict {
    pub(crate) fn add(&mut self, broken: Broken, what: impl Into<String>) {
        self.broken.entry(broken).or_default().insert(what.into());
    }

    /// Remembers what only a delete after `since` can have taken away.
    pub(crate) fn suspect(&mut self, subject: &str, since: Duration, lost: String) {
        let subject = subject.to_owned();
        self.suspects.push(Suspect {
            subject,
            since,
            lost,
        });
    }

    /// Takes in what another has found.
    pub(crate) fn join(&mut self, other: Self) {
        for (broken, what) in other.broken {
            self.broken.entry(broken).or_default().extend(what);
        }
        self.suspects.extend(other.suspects);
    }

    pub(crate) fn count(&self, broken: Broken) -> usize {
        self.broken.get(&broken).map_or(0, BTreeSet::len)
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.broken.is_empty()
    }

    /// Everything that shows it.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Broken, &str)> {
        self.broken
            .iter()
            .flat_map(|(broken, what)| what.iter().map(|what| (*broken, what.as_str())))
    }

    /// What shows it, a few of each.
    pub(crate) fn evidence(&self) -> impl Iterator<Item = String> {
        self.broken.iter().flat_map(|(broken, what)| {
            let few = what.iter().take(8);
            few.map(move |what| format!("{}: {what}", broken.words()))
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for broken in Broken::ALL {
            writeln!(f, "  {:<54} {:>5}", broken.words(), self.count(broken))?;
        }
        Ok(())
    }
}

/// Judges a run by what was found on the way, by its history and by what remains.
pub(crate) fn judge(on_the_way: Verdict, ops: &[Op], remains: &Remains) -> Verdict {
    let mut verdict = on_the_way;
    for suspect in std::mem::take(&mut verdict.suspects) {
        let mut ops = ops.iter().filter(|op| op.subject == suspect.subject);
        if !ops.any(|op| op.act == Act::Delete && op.ended >= suspect.since) {
            verdict.add(Broken::UploadLost, suspect.lost);
        }
    }
    let mut subjects: BTreeMap<&str, Vec<&Op>> = BTreeMap::new();
    for op in ops {
        subjects.entry(&op.subject).or_default().push(op);
    }
    let told = remains.told.first().cloned().unwrap_or_default();
    for (subject, ops) in &subjects {
        let current = told.get(*subject).cloned().flatten();
        judge_end(subject, ops, current.as_ref(), &mut verdict);
        judge_uniqueness(subject, ops, &mut verdict);
        let is_older = |op: &&Op| op.act == Act::Read && op.overlaps(&remains.losses);
        let (_, ops): (Vec<_>, Vec<_>) = ops.iter().copied().partition(is_older);
        judge_versions(subject, &ops, &mut verdict);
        judge_answers(subject, &ops, &remains.losses, &mut verdict);
    }
    for (subject, avatar) in &told {
        if avatar.is_some() && !subjects.contains_key(subject.as_str()) {
            verdict.add(Broken::NeverUploaded, subject);
        }
    }
    judge_objects(&told, remains, &mut verdict);
    for other in &remains.told {
        for (subject, avatar) in other {
            if told.get(subject) != Some(avatar) {
                verdict.add(Broken::ReplicasDisagree, subject);
            }
        }
    }
    let current = told.values().flatten();
    let sums = current.fold([0; 3], |[avatars, objects, bytes], avatar| {
        let (count, size) = (
            avatar.images.len() as u64,
            avatar.images.values().sum::<u64>(),
        );
        [avatars + 1, objects + count, bytes + size]
    });
    let mut told_sums = remains.sums.into_iter().zip(sums);
    if told_sums.any(|(told, sum)| told.is_some_and(|told| told != sum)) {
        let differ = format!("{:?} where the records have {sums:?}", remains.sums);
        verdict.add(Broken::SumsDiffer, differ);
    }
    for (broken, found) in [
        (Broken::UploadLost, &remains.unreadable),
        (Broken::Outstanding, &remains.outstanding),
        (Broken::EndedByItself, &remains.ended),
    ] {
        for what in found {
            verdict.add(broken, what);
        }
    }
    verdict
}

/// The acknowledged upload with the highest version.
fn newest<'a>(uploads: impl Iterator<Item = &'a Op>) -> Option<(&'a Op, &'a Avatar)> {
    let acknowledged = uploads.filter_map(|op| match &op.outcome {
        Outcome::Uploaded(avatar) => Some((op, avatar)),
        _ => None,
    });
    acknowledged.max_by_key(|(_, avatar)| avatar.version)
}

/// Whether some delete may have taken this upload away before anything after `by`.
fn may_be_deleted(ops: &[&Op], upload: &Op, by: Option<&Op>) -> bool {
    ops.iter().any(|op| {
        op.act == Act::Delete
            && !op.precedes(upload)
            && by.is_none_or(|by| !by.precedes(op))
            && !matches!(op.outcome, Outcome::Refused(_))
    })
}

/// A delete that was acknowledged, begun after this upload was over.
fn was_deleted<'a>(ops: &[&'a Op], upload: &Op) -> Option<&'a Op> {
    let mut deletes = ops.iter().filter(|op| op.outcome == Outcome::Deleted);
    deletes.find(|delete| upload.precedes(delete)).copied()
}

/// What is current in the end is what was acknowledged last, or something later.
fn judge_end(subject: &str, ops: &[&Op], current: Option<&Avatar>, verdict: &mut Verdict) {
    let newest = newest(ops.iter().copied());
    let Some(current) = current else {
        if let Some((upload, avatar)) = newest
            && !may_be_deleted(ops, upload, None)
        {
            let gone = format!("{subject}: v{} {} is gone", avatar.version, avatar.id);
            verdict.add(Broken::UploadLost, gone);
        }
        return;
    };
    if let Some((_, avatar)) = newest
        && (avatar.version > current.version
            || avatar.version == current.version && avatar.id != current.id)
    {
        let (lost, has) = (avatar.version, current.version);
        let lost = format!("{subject}: v{lost} was acknowledged, v{has} is current");
        verdict.add(Broken::UploadLost, lost);
    }
    let origin = ops
        .iter()
        .find(|op| op.dimensions().as_ref() == Some(&current.dimensions));
    let Some(origin) = origin else {
        let nobody = format!("{subject}: nobody sent {}", current.dimensions);
        return verdict.add(Broken::NeverUploaded, nobody);
    };
    match &origin.outcome {
        Outcome::Uploaded(avatar) if avatar == current => {}
        Outcome::Unknown(_) => {}
        other => {
            let differs = format!("{subject}: {} was answered {other:?}", current.dimensions);
            verdict.add(Broken::NeverUploaded, differs);
        }
    }
    if was_deleted(ops, origin).is_some() {
        let back = format!("{subject}: v{} is back", current.version);
        verdict.add(Broken::DeletedReadable, back);
    }
}

/// Versions rise from each operation to every one that was asked for after its answer.
fn judge_versions(subject: &str, ops: &[&Op], verdict: &mut Verdict) {
    let mut by_end: Vec<_> = ops.iter().filter(|op| op.version().is_some()).collect();
    let mut by_begin = by_end.clone();
    by_end.sort_by_key(|op| op.ended);
    by_begin.sort_by_key(|op| op.begun);
    let (mut over, mut highest) = (by_end.into_iter().peekable(), None);
    for op in by_begin {
        while let Some(before) = over.next_if(|before| before.precedes(op)) {
            highest = highest.max(before.version());
        }
        let rises = match op.act {
            // An equal one was given out twice, which is counted by itself.
            Act::Read | Act::Upload { .. } => op.version() >= highest,
            Act::Delete => true,
        };
        if !rises {
            let (version, highest) = (op.version().unwrap_or(0), highest.unwrap_or(0));
            let back = format!("{subject}: v{version} after v{highest}, in {:?}", op.act);
            verdict.add(Broken::VersionBackwards, back);
        }
    }
}

/// Each version belongs to one upload.
fn judge_uniqueness(subject: &str, ops: &[&Op], verdict: &mut Verdict) {
    let mut owners: BTreeMap<u64, &str> = BTreeMap::new();
    for op in ops {
        if let Outcome::Uploaded(avatar) | Outcome::Seen(avatar) = &op.outcome {
            let owner = owners.entry(avatar.version).or_insert(&avatar.id);
            if *owner != avatar.id {
                let version = avatar.version;
                let twice = format!("{subject}: v{version} is {owner} and {}", avatar.id);
                verdict.add(Broken::VersionTwice, twice);
            }
        }
    }
}

/// What users were shown on the way: nothing lost, nothing that had been deleted.
fn judge_answers(subject: &str, ops: &[&Op], losses: &[Range<Duration>], verdict: &mut Verdict) {
    for op in ops {
        match &op.outcome {
            // A delete, too, may have found nothing.
            Outcome::Nothing if op.overlaps(losses) => {}
            Outcome::Nothing => {
                let before = ops.iter().copied().filter(|upload| upload.precedes(op));
                if let Some((upload, avatar)) = newest(before)
                    && !may_be_deleted(&without(ops, op), upload, Some(op))
                {
                    let lost = format!("{subject}: 404 where v{} was", avatar.version);
                    verdict.add(Broken::UploadLost, lost);
                }
            }
            Outcome::Seen(avatar) => {
                let origin = ops.iter().find(|upload| {
                    matches!(&upload.outcome, Outcome::Uploaded(one) if one.id == avatar.id)
                });
                let deleted = origin.and_then(|origin| was_deleted(ops, origin));
                if deleted.is_some_and(|delete| delete.precedes(op)) {
                    let seen = format!("{subject}: v{} was shown", avatar.version);
                    verdict.add(Broken::DeletedReadable, seen);
                }
            }
            _ => {}
        }
    }
}

fn without<'a>(ops: &[&'a Op], one: &Op) -> Vec<&'a Op> {
    let others = ops.iter().copied();
    others.filter(|op| !std::ptr::eq(*op, one)).collect()
}

/// The bucket holds what the records name, whole, and nothing else.
fn judge_objects(
    told: &BTreeMap<String, Option<Avatar>>,
    remains: &Remains,
    verdict: &mut Verdict,
) {
    let mut named = BTreeSet::new();
    for avatar in told.values().flatten() {
        let manifest = format!("private/avatars/{}/manifest.json", avatar.id);
        if !remains.objects.contains_key(&manifest) {
            verdict.add(Broken::ObjectMissing, &manifest);
        }
        named.insert(manifest);
        for (key, length) in &avatar.images {
            if remains.objects.get(key) != Some(length) {
                verdict.add(Broken::ObjectMissing, key);
            }
            named.insert(key.clone());
        }
    }
    for key in remains.objects.keys() {
        if !named.contains(key) {
            verdict.add(Broken::Orphan, key);
        }
    }
}
