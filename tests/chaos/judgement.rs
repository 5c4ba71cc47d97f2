//! The judgement: compares the promises with the answers to the users and with the final state.
//!
//! The order of operations is that of the users: an operation precedes another if its answer
//! arrived before the other was sent. Of two overlapping operations, either may have taken effect
//! first. An operation with an unknown outcome may have taken effect at any time after it was sent,
//! but it must not undo an operation that began after its failure: a delete that was answered 503
//! never removes a later upload.
//!
//! A replica that cannot reach the catalog shows the avatars that it has in memory. So a read may show
//! an older state, but none that had ended [`READ_STALENESS`] before it began.
//!
//! A loss is the period from the moment at which the catalog restarts with an older state until it
//! is rebuilt. Reads in that period may give an older avatar or none. All other promises hold
//! during it too: a version is never assigned twice, and after the rebuild the newest acknowledged
//! upload is current.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use crate::client::Avatar;
use crate::history::{Act, Op, Outcome};

/// A violation of a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Violation {
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

impl Violation {
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

    fn description(self) -> &'static str {
        match self {
            Self::UploadLost => "acknowledged uploads that cannot be read",
            Self::DeletedReadable => "deleted avatars that can still be read",
            Self::Orphan => "objects in the bucket that no record names",
            Self::ObjectMissing => "objects of records that are missing or cut short",
            Self::VersionBackwards => "versions that decreased",
            Self::VersionTwice => "versions that were assigned twice",
            Self::NeverUploaded => "avatars that were refused or never sent",
            Self::ReplicasDisagree => "subjects about which the replicas disagree",
            Self::SumsDiffer => "totals that differ from the records",
            Self::Outstanding => "uploads that the sweep has not finished",
            Self::WrongAnswer => "answers that the API does not define",
            Self::PartPromise => "promises of this part that did not hold",
            Self::EndedByItself => "processes that ended by themselves",
        }
    }
}

/// The state at the end, when everything works again and the sweep has finished.
#[derive(Clone, Debug, Default)]
pub(crate) struct FinalState {
    /// The avatar of each subject, as each replica reports it.
    pub(crate) reported: Vec<BTreeMap<String, Option<Avatar>>>,
    /// All objects in the bucket, with their lengths.
    pub(crate) objects: BTreeMap<String, u64>,
    /// Descriptions of images of current avatars that a replica does not serve.
    pub(crate) unreadable: Vec<String>,
    /// The totals of the catalog: avatars, objects and bytes; `None` if it does not report them.
    pub(crate) sums: [Option<u64>; 3],
    /// The entries in pending and retired.
    pub(crate) outstanding: Vec<String>,
    /// Processes that ended although the run did not kill them.
    pub(crate) ended: Vec<String>,
    /// The periods in which the catalog may have lacked its latest writes.
    pub(crate) losses: Vec<Range<Duration>>,
}

/// All violations, with their evidence.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    violations: BTreeMap<Violation, BTreeSet<String>>,
    suspects: Vec<Suspect>,
}

/// A replaced avatar whose images are gone too early. This is a loss, unless a delete removed them.
#[derive(Clone, Debug)]
struct Suspect {
    subject: String,
    /// When the avatar was uploaded.
    since: Duration,
    lost: String,
}

impl Verdict {
    pub(crate) fn add(&mut self, violation: Violation, what: impl Into<String>) {
        self.violations
            .entry(violation)
            .or_default()
            .insert(what.into());
    }

    /// Adds a possible loss, which is none if a delete ended after `since`.
    pub(crate) fn suspect(&mut self, subject: &str, since: Duration, lost: String) {
        let subject = subject.to_owned();
        self.suspects.push(Suspect {
            subject,
            since,
            lost,
        });
    }

    /// Adds all violations of another verdict.
    pub(crate) fn merge(&mut self, other: Self) {
        for (violation, what) in other.violations {
            self.violations.entry(violation).or_default().extend(what);
        }
        self.suspects.extend(other.suspects);
    }

    pub(crate) fn count(&self, violation: Violation) -> usize {
        self.violations.get(&violation).map_or(0, BTreeSet::len)
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    /// All violations with their evidence.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Violation, &str)> {
        self.violations
            .iter()
            .flat_map(|(violation, what)| what.iter().map(|what| (*violation, what.as_str())))
    }

    /// A few pieces of evidence for each violation, as lines.
    pub(crate) fn evidence(&self) -> impl Iterator<Item = String> {
        self.violations.iter().flat_map(|(violation, what)| {
            let few = what.iter().take(8);
            few.map(move |what| format!("{}: {what}", violation.description()))
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for violation in Violation::ALL {
            writeln!(
                f,
                "  {:<54} {:>5}",
                violation.description(),
                self.count(violation)
            )?;
        }
        Ok(())
    }
}

/// How old the state may be that a read shows. No outage of a run lasts longer.
const READ_STALENESS: Duration = Duration::from_secs(30);

/// The operations of a run. Each read begins at the time of the oldest state that it may show.
fn with_stale_reads(ops: &[Op]) -> Vec<Op> {
    let mut ops = ops.to_vec();
    for op in ops.iter_mut().filter(|op| op.act == Act::Read) {
        op.begun = op.begun.saturating_sub(READ_STALENESS);
    }
    ops
}

/// Judges a run by the violations that were found during it, its history and its final state.
pub(crate) fn judge(during_run: Verdict, ops: &[Op], state: &FinalState) -> Verdict {
    let mut verdict = during_run;
    for suspect in std::mem::take(&mut verdict.suspects) {
        let mut ops = ops.iter().filter(|op| op.subject == suspect.subject);
        if !ops.any(|op| op.act == Act::Delete && op.ended >= suspect.since) {
            verdict.add(Violation::UploadLost, suspect.lost);
        }
    }
    let ops = with_stale_reads(ops);
    let mut subjects: BTreeMap<&str, Vec<&Op>> = BTreeMap::new();
    for op in &ops {
        subjects.entry(&op.subject).or_default().push(op);
    }
    let avatars = state.reported.first().cloned().unwrap_or_default();
    for (subject, ops) in &subjects {
        let current = avatars.get(*subject).cloned().flatten();
        judge_end(subject, ops, current.as_ref(), &mut verdict);
        judge_uniqueness(subject, ops, &mut verdict);
        let is_older = |op: &&Op| op.act == Act::Read && op.overlaps(&state.losses);
        let (_, ops): (Vec<_>, Vec<_>) = ops.iter().copied().partition(is_older);
        judge_versions(subject, &ops, &mut verdict);
        judge_answers(subject, &ops, &state.losses, &mut verdict);
    }
    for (subject, avatar) in &avatars {
        if avatar.is_some() && !subjects.contains_key(subject.as_str()) {
            verdict.add(Violation::NeverUploaded, subject);
        }
    }
    judge_objects(&avatars, state, &mut verdict);
    for other in &state.reported {
        for (subject, avatar) in other {
            if avatars.get(subject) != Some(avatar) {
                verdict.add(Violation::ReplicasDisagree, subject);
            }
        }
    }
    let current = avatars.values().flatten();
    let sums = current.fold([0; 3], |[avatars, objects, bytes], avatar| {
        let (count, size) = (
            avatar.images.len() as u64,
            avatar.images.values().sum::<u64>(),
        );
        [avatars + 1, objects + count, bytes + size]
    });
    let mut sums_reported = state.sums.into_iter().zip(sums);
    if sums_reported.any(|(reported, sum)| reported.is_some_and(|reported| reported != sum)) {
        let differ = format!("{:?} where the records have {sums:?}", state.sums);
        verdict.add(Violation::SumsDiffer, differ);
    }
    for (violation, found) in [
        (Violation::UploadLost, &state.unreadable),
        (Violation::Outstanding, &state.outstanding),
        (Violation::EndedByItself, &state.ended),
    ] {
        for what in found {
            verdict.add(violation, what);
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

/// Whether a delete may have removed this upload before the end of `by`, or at any time without
/// `by`.
fn may_be_deleted(ops: &[&Op], upload: &Op, by: Option<&Op>) -> bool {
    ops.iter().any(|op| {
        op.act == Act::Delete
            && !op.precedes(upload)
            && by.is_none_or(|by| !by.precedes(op))
            && !matches!(op.outcome, Outcome::Refused(_))
    })
}

/// An acknowledged delete that began after this upload had ended.
fn was_deleted<'a>(ops: &[&'a Op], upload: &Op) -> Option<&'a Op> {
    let mut deletes = ops.iter().filter(|op| op.outcome == Outcome::Deleted);
    deletes.find(|delete| upload.precedes(delete)).copied()
}

/// Checks that the newest acknowledged upload, or a later one, is current at the end.
fn judge_end(subject: &str, ops: &[&Op], current: Option<&Avatar>, verdict: &mut Verdict) {
    let newest = newest(ops.iter().copied());
    let Some(current) = current else {
        if let Some((upload, avatar)) = newest
            && !may_be_deleted(ops, upload, None)
        {
            let gone = format!("{subject}: v{} {} is gone", avatar.version, avatar.id);
            verdict.add(Violation::UploadLost, gone);
        }
        return;
    };
    if let Some((_, avatar)) = newest
        && (avatar.version > current.version
            || avatar.version == current.version && avatar.id != current.id)
    {
        let (lost, has) = (avatar.version, current.version);
        let lost = format!("{subject}: v{lost} was acknowledged, v{has} is current");
        verdict.add(Violation::UploadLost, lost);
    }
    let origin = ops
        .iter()
        .find(|op| op.dimensions().as_ref() == Some(&current.dimensions));
    let Some(origin) = origin else {
        let nobody = format!("{subject}: {} was never sent", current.dimensions);
        return verdict.add(Violation::NeverUploaded, nobody);
    };
    match &origin.outcome {
        Outcome::Uploaded(avatar) if avatar == current => {}
        Outcome::Unknown(_) => {}
        other => {
            let differs = format!("{subject}: {} was answered {other:?}", current.dimensions);
            verdict.add(Violation::NeverUploaded, differs);
        }
    }
    if was_deleted(ops, origin).is_some() {
        let back = format!(
            "{subject}: v{} is current after its delete",
            current.version
        );
        verdict.add(Violation::DeletedReadable, back);
    }
}

/// Checks that no operation has a lower version than an operation that preceded it.
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
            // An equal version was assigned twice, which is another violation.
            Act::Read | Act::Upload { .. } => op.version() >= highest,
            Act::Delete => true,
        };
        if !rises {
            let (version, highest) = (op.version().unwrap_or(0), highest.unwrap_or(0));
            let back = format!("{subject}: v{version} after v{highest}, in {:?}", op.act);
            verdict.add(Violation::VersionBackwards, back);
        }
    }
}

/// Checks that each version belongs to one upload.
fn judge_uniqueness(subject: &str, ops: &[&Op], verdict: &mut Verdict) {
    let mut owners: BTreeMap<u64, &str> = BTreeMap::new();
    for op in ops {
        if let Outcome::Uploaded(avatar) | Outcome::Seen(avatar) = &op.outcome {
            let owner = owners.entry(avatar.version).or_insert(&avatar.id);
            if *owner != avatar.id {
                let version = avatar.version;
                let twice = format!("{subject}: v{version} is {owner} and {}", avatar.id);
                verdict.add(Violation::VersionTwice, twice);
            }
        }
    }
}

/// Checks the answers during the run: no avatar is lost, and no deleted avatar is shown.
fn judge_answers(subject: &str, ops: &[&Op], losses: &[Range<Duration>], verdict: &mut Verdict) {
    for op in ops {
        match &op.outcome {
            // During a loss, a read or a delete may find no avatar.
            Outcome::NotFound if op.overlaps(losses) => {}
            Outcome::NotFound => {
                let before = ops.iter().copied().filter(|upload| upload.precedes(op));
                if let Some((upload, avatar)) = newest(before)
                    && !may_be_deleted(&without(ops, op), upload, Some(op))
                {
                    let lost = format!("{subject}: 404 where v{} was", avatar.version);
                    verdict.add(Violation::UploadLost, lost);
                }
            }
            Outcome::Seen(avatar) => {
                let origin = ops.iter().find(|upload| {
                    matches!(&upload.outcome, Outcome::Uploaded(one) if one.id == avatar.id)
                });
                let deleted = origin.and_then(|origin| was_deleted(ops, origin));
                if deleted.is_some_and(|delete| delete.precedes(op)) {
                    let seen = format!("{subject}: v{} was shown", avatar.version);
                    verdict.add(Violation::DeletedReadable, seen);
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

/// Checks that the bucket holds exactly the objects that the records name, in full length.
fn judge_objects(
    avatars: &BTreeMap<String, Option<Avatar>>,
    state: &FinalState,
    verdict: &mut Verdict,
) {
    let mut named = BTreeSet::new();
    for avatar in avatars.values().flatten() {
        let manifest = format!("private/avatars/{}/manifest.json", avatar.id);
        if !state.objects.contains_key(&manifest) {
            verdict.add(Violation::ObjectMissing, &manifest);
        }
        named.insert(manifest);
        for (key, length) in &avatar.images {
            if state.objects.get(key) != Some(length) {
                verdict.add(Violation::ObjectMissing, key);
            }
            named.insert(key.clone());
        }
    }
    for key in state.objects.keys() {
        if !named.contains(key) {
            verdict.add(Violation::Orphan, key);
        }
    }
}
