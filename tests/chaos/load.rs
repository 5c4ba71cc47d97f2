//! The load: many concurrent users of a few avatars, through all replicas.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use cameo_testing::photos;
use fastrand::Rng;
use tokio::task::JoinSet;

use crate::bucket::DirectStore;
use crate::client::{Answer, Client};
use crate::fleet::Fleet;
use crate::history::{Act, History, Op, Outcome};
use crate::judgement::{Verdict, Violation};

pub(crate) const WORKERS: usize = 16;
pub(crate) const SUBJECTS: usize = 60;
/// The number of subjects that all users prefer, so that their operations conflict.
const FAVOURITES: usize = 6;
/// The edges of uploaded pictures. No two uploads have the same pair of edges.
const EDGES: std::ops::Range<u32> = 100..340;

/// Users that send requests until [`stop`](Self::stop).
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    users: JoinSet<Verdict>,
}

impl Load {
    pub(crate) fn start(
        fleet: &Arc<Fleet>,
        history: &Arc<History>,
        grace: Duration,
        rng: &mut Rng,
    ) -> Self {
        let all = 0..fleet.replicas();
        Self::through(all.collect(), fleet, history, grace, rng)
    }

    /// Starts users that use only these replicas.
    pub(crate) fn through(
        replicas: Vec<usize>,
        fleet: &Arc<Fleet>,
        history: &Arc<History>,
        grace: Duration,
        rng: &mut Rng,
    ) -> Self {
        let clients = replicas.into_iter();
        let clients: Vec<_> = clients
            .map(|number| (number, fleet.client(number)))
            .collect();
        let stop = Arc::new(AtomicBool::new(false));
        let pictures = Arc::new(AtomicU32::new(0));
        let mut users = JoinSet::new();
        for number in 0..WORKERS {
            let user = User {
                number,
                rng: rng.fork(),
                clients: clients.clone(),
                fleet: Arc::clone(fleet),
                history: Arc::clone(history),
                grace,
                pictures: Arc::clone(&pictures),
                verdict: Verdict::default(),
            };
            users.spawn(user.work(Arc::clone(&stop)));
        }
        Self { stop, users }
    }

    /// Stops the users after their current operations. Returns the violations that they found.
    pub(crate) async fn stop(mut self) -> Verdict {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Verdict::default();
        while let Some(verdict) = self.users.join_next().await {
            all.merge(verdict.unwrap());
        }
        all
    }
}

/// All subjects that the users use.
pub(crate) fn subjects() -> impl Iterator<Item = String> {
    (0..SUBJECTS).map(subject)
}

fn subject(number: usize) -> String {
    format!("user-{number:02}")
}

struct User {
    number: usize,
    rng: Rng,
    /// The replicas that this user uses, with their numbers.
    clients: Vec<(usize, Client)>,
    fleet: Arc<Fleet>,
    history: Arc<History>,
    /// How long the images of a replaced avatar stay readable.
    grace: Duration,
    /// The number of pictures that all users together have made.
    pictures: Arc<AtomicU32>,
    verdict: Verdict,
}

impl User {
    async fn work(mut self, stop: Arc<AtomicBool>) -> Verdict {
        while !stop.load(Ordering::Relaxed) {
            let op = self.act().await;
            let pause = match op.outcome {
                Outcome::Refused(_) | Outcome::Unknown(_) => self.rng.u64(20..150),
                _ => self.rng.u64(0..30),
            };
            match &op.outcome {
                Outcome::Uploaded(_) => self.check_replaced_avatar(&op).await,
                Outcome::Deleted => self.check_deleted_avatar(&op).await,
                _ => {}
            }
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        self.verdict
    }

    async fn act(&mut self) -> Op {
        let among = if self.rng.f32() < 0.3 {
            FAVOURITES
        } else {
            SUBJECTS
        };
        let subject = subject(self.rng.usize(0..among));
        let chosen = self.rng.usize(0..self.clients.len());
        let act = match self.rng.u32(0..100) {
            0..60 => self.picture(),
            60..75 => Act::Delete,
            _ => Act::Read,
        };
        let (replica, client) = &self.clients[chosen];
        let by = (self.number, *replica);
        let (op, wrong) = perform(client, &self.history, by, &subject, act).await;
        if let Some(wrong) = wrong {
            self.verdict.add(Violation::WrongAnswer, wrong);
        }
        op
    }

    /// An upload of a picture that no other upload of the run has.
    fn picture(&self) -> Act {
        let number = self.pictures.fetch_add(1, Ordering::Relaxed);
        let edges = EDGES.end - EDGES.start;
        Act::Upload {
            width: EDGES.start + number % edges,
            height: EDGES.start + number / edges % edges,
        }
    }

    /// Checks that the images of the avatar that this upload replaced are still there.
    async fn check_replaced_avatar(&mut self, op: &Op) {
        let Outcome::Uploaded(avatar) = &op.outcome else {
            return;
        };
        let uploads = self.history.uploads_of(&op.subject);
        // If the previous version belongs to another upload, that one may have replaced the avatar
        // earlier.
        let before = uploads
            .iter()
            .find(|(_, one)| one.version + 1 == avatar.version);
        let Some((upload, before)) = before else {
            return;
        };
        let prefix = format!("public/avatars/{}/", before.id);
        let objects = self.fleet.store.objects(&prefix).await;
        let late = self.history.now() > op.begun + self.grace;
        if late || objects == before.images {
            return;
        }
        // A delete ends the grace period, also one in progress. The judgement knows all deletes.
        let lost = format!(
            "{}: {} is gone within its grace period",
            op.subject, before.id
        );
        self.verdict.suspect(&op.subject, upload.begun, lost);
    }

    /// Checks that no object of the deleted avatars is left when the delete has answered.
    async fn check_deleted_avatar(&mut self, delete: &Op) {
        // The catalog may have lost the deleted avatar. `rebuild` decides about it.
        if delete.overlaps(&self.history.losses()) {
            return;
        }
        for left in objects_left_after(&self.fleet.store, &self.history, delete).await {
            self.verdict.add(Violation::DeletedReadable, left);
        }
    }
}

/// Performs one operation as a user and adds it to the history. `by` has the numbers of the user
/// and the replica. Also returns what is wrong with the answer, if anything.
pub(crate) async fn perform(
    client: &Client,
    history: &History,
    by: (usize, usize),
    subject: &str,
    act: Act,
) -> (Op, Option<String>) {
    let begun = history.now();
    let answer = match act {
        Act::Upload { width, height } => client.upload(subject, photos::png(width, height)).await,
        Act::Delete => client.delete(subject).await,
        Act::Read => client.avatar(subject).await,
    };
    let ended = history.now();
    let (outcome, wrong) = match answer {
        Ok(answer) => classify(act, &answer),
        Err(error) => {
            let late = format!("{act:?} of {subject} was not answered");
            let unknown = Outcome::Unknown("the connection broke".to_owned());
            (unknown, error.is_timeout().then_some(late))
        }
    };
    let op = Op {
        subject: subject.to_owned(),
        act,
        begun,
        ended,
        outcome,
    };
    history.add(by.0, by.1, op.clone());
    (op, wrong)
}

/// The outcome that an answer states, and what is wrong with the answer if the API does not define
/// it.
pub(crate) fn classify(act: Act, answer: &Answer) -> (Outcome, Option<String>) {
    let code = answer.code();
    let outcome = match (answer.status, code.as_str(), act) {
        (200, _, Act::Upload { .. }) => answer.avatar().map(Outcome::Uploaded),
        (200, _, Act::Read) => answer.avatar().map(Outcome::Seen),
        (200, _, Act::Delete) => Some(Outcome::Deleted),
        (404, "avatar_not_found", Act::Delete | Act::Read) => Some(Outcome::NotFound),
        // Refused before the commit, or by the commit.
        (409, "superseded", Act::Upload { .. })
        | (503, "storage_unavailable" | "overloaded", Act::Upload { .. })
        | (503, "catalog_unavailable", Act::Read) => Some(Outcome::Refused(code.clone())),
        // Reading JSON does not need the store, except while the replica starts.
        (503, "storage_unavailable", Act::Read) if answer.is_from_startup() => {
            Some(Outcome::Refused(code.clone()))
        }
        (503, "catalog_unavailable", Act::Upload { .. })
        | (503, "catalog_unavailable" | "storage_unavailable", Act::Delete) => {
            Some(Outcome::Unknown(code.clone()))
        }
        _ => None,
    };
    let has_retry_after =
        answer.status != 503 || answer.header("retry-after").parse::<u32>().is_ok();
    let is_wrong =
        !has_retry_after || outcome.is_none() || answer.header("x-request-id").is_empty();
    let wrong = is_wrong.then(|| {
        let body = String::from_utf8_lossy(&answer.body);
        format!("{act:?}: {} {body}", answer.status)
    });
    let unknown = || Outcome::Unknown(format!("{} {code}", answer.status));
    (outcome.unwrap_or_else(unknown), wrong)
}

/// Describes the objects that are left of the last three avatars before a delete.
pub(crate) async fn objects_left_after(
    store: &DirectStore,
    history: &History,
    delete: &Op,
) -> Vec<String> {
    let mut uploads = history.uploads_of(&delete.subject);
    uploads.retain(|(upload, _)| upload.precedes(delete));
    uploads.sort_by_key(|(_, avatar)| avatar.version);
    let mut left = Vec::new();
    for (_, avatar) in uploads.iter().rev().take(3) {
        for root in ["public", "private"] {
            let prefix = format!("{root}/avatars/{}/", avatar.id);
            for (key, _) in store.objects(&prefix).await {
                left.push(format!("{}: {key} exists after its delete", delete.subject));
            }
        }
    }
    left
}
