//! The limits of two replicas together: what is configured, to the one.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::client::Answer;
use crate::fleet::{Fleet, REPLICAS};
use crate::photos;

/// Uploads allowed at once; the next one three minutes later.
const UPLOADS: usize = 20;
const UPLOAD_LIMIT: (&str, &str) = ("CAMEO_LIMITS__UPLOAD", "20/h");
const USERS: usize = 3;
/// Deletes allowed at once, and one more each second.
const DELETES: usize = 60;
const DELETE_LIMIT: (&str, &str) = ("CAMEO_LIMITS__DELETE", "60/min");
/// How often it is counted where Redis was not there to count.
const TRIES: usize = 4;
/// How long deletes are tried.
const TRIED: Duration = Duration::from_secs(5);

/// What was let through.
pub(crate) struct Counted {
    /// Of each user's uploads, tried all at once through both replicas.
    uploads: Vec<usize>,
    /// Of one user's deletes, tried without a pause through both replicas.
    deletes: usize,
    /// How many of those may be, at least and at most, by when they were sent and answered.
    deletes_due: [usize; 2],
}

impl Counted {
    pub(crate) fn is_right(&self) -> bool {
        let [least, most] = self.deletes_due;
        self.uploads.iter().all(|count| *count == UPLOADS) && (least..=most).contains(&self.deletes)
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            uploads,
            deletes,
            deletes_due: [least, most],
        } = self;
        write!(
            f,
            "  limits of {REPLICAS} replicas: of {} uploads at once {uploads:?} were let through, \
             {UPLOADS} are allowed;\n  of deletes in {} s {deletes}, {least} to {most} are allowed",
            2 * UPLOADS,
            TRIED.as_secs(),
        )
    }
}

/// Counts; again where it is not right because a replica took Redis for dead, as its log tells, and
/// counted for itself: on a machine so busy that Redis is silent for half a second.
pub(crate) async fn run(folder: &Path) -> Counted {
    let limits = [UPLOAD_LIMIT, DELETE_LIMIT].map(|(name, value)| (name, value.to_owned()));
    let fleet = Fleet::start(folder, &limits).await;
    let (mut number, mut fell_back) = (1, 0);
    loop {
        let counted = count(&fleet, number).await;
        let before = std::mem::replace(&mut fell_back, count_fallbacks(&fleet));
        if counted.is_right() || fell_back == before || number == TRIES {
            return counted;
        }
        println!("  (again, Redis was silent for too long) {counted}");
        number += 1;
    }
}

/// How often a replica has begun to count for itself.
fn count_fallbacks(fleet: &Fleet) -> usize {
    let replicas = (0..REPLICAS).map(|number| fleet.replica(number));
    replicas
        .map(|replica| replica.said("redis does not count the limits"))
        .sum()
}

async fn count(fleet: &Fleet, number: usize) -> Counted {
    let users = (0..USERS).map(|user| uploads(fleet, format!("user-{number}-{user}")));
    let uploads = join_all(users).await;
    let (deletes, deletes_due) = deletes(fleet, &format!("nobody-{number}")).await;
    Counted {
        uploads,
        deletes,
        deletes_due,
    }
}

async fn uploads(fleet: &Fleet, subject: String) -> usize {
    let picture = photos::png(100, 100);
    let clients = fleet.clients_of(&subject);
    let tries = (0..2 * UPLOADS).map(|number| {
        let client = &clients[number % REPLICAS];
        let (subject, picture) = (&subject, picture.clone());
        async move { client.upload(subject, picture).await }
    });
    let answers = join_all(tries).await;
    // One that is not answered at all is let through, for all that anyone knows.
    let refused =
        |answer: &reqwest::Result<Answer>| answer.as_ref().is_ok_and(|answer| answer.status == 429);
    answers.iter().filter(|answer| !refused(answer)).count()
}

async fn deletes(fleet: &Fleet, subject: &str) -> (usize, [usize; 2]) {
    let clients = fleet.clients_of(subject);
    let begun = Instant::now();
    let tries = join_all(clients.iter().map(|client| {
        async move {
            let mut through = 0;
            // When the first answer was there, when the last request was sent, and the longest that
            // one took.
            let (mut first, mut last, mut longest) = (None, Instant::now(), Duration::ZERO);
            while begun.elapsed() < TRIED {
                last = Instant::now();
                let answer = client.delete(subject).await;
                through += usize::from(answer.is_ok_and(|answer| answer.status != 429));
                longest = longest.max(last.elapsed());
                first.get_or_insert_with(Instant::now);
            }
            (through, first.unwrap(), last, longest)
        }
    }))
    .await;
    let whole = begun.elapsed();
    let through = tries.iter().map(|(through, ..)| through).sum();
    let first = tries.iter().map(|(_, first, ..)| *first).min().unwrap();
    let last = tries.iter().map(|(_, _, last, _)| *last).max().unwrap();
    let longest = tries.iter().map(|(.., longest)| *longest).max().unwrap();
    let sure = last.duration_since(first).saturating_sub(longest);
    let due = |time: Duration| DELETES + time.as_secs() as usize;
    (through, [due(sure), due(whole)])
}
