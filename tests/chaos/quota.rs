//! The rate limits of two replicas: together they allow exactly the configured number.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use cameo_testing::photos;
use futures_util::future::join_all;

use crate::client::Answer;
use crate::fleet::{Fleet, REPLICAS};

/// The number of uploads allowed at once. The next one is allowed three minutes later.
const UPLOADS: usize = 20;
const UPLOAD_LIMIT: (&str, &str) = ("CAMEO_LIMITS__UPLOAD", "20/h");
const USERS: usize = 3;
/// The number of deletes allowed at once. One more becomes available each second.
const DELETES: usize = 60;
const DELETE_LIMIT: (&str, &str) = ("CAMEO_LIMITS__DELETE", "60/min");
/// How often a wrong count is repeated if Redis did not count.
const TRIES: usize = 4;
/// How long the user sends deletes.
const DELETING_TIME: Duration = Duration::from_secs(5);

/// The numbers of allowed requests.
pub(crate) struct Counted {
    /// For each user: allowed uploads, of those sent all at once through both replicas.
    uploads: Vec<usize>,
    /// Allowed deletes of one user, sent without a pause through both replicas.
    deletes: usize,
    /// The minimum and maximum of deletes that are due, by the times of requests and answers.
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
            "  limits of {REPLICAS} replicas: of {} uploads at once {uploads:?} succeeded, {UPLOADS} \
             are due;\n  of deletes in {} s {deletes} succeeded, {least} to {most} are due",
            2 * UPLOADS,
            DELETING_TIME.as_secs(),
        )
    }
}

/// Counts the allowed requests. On a busy machine Redis may not answer for half a second; then a
/// replica counts for itself and logs that. A wrong count with such a log line is repeated.
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
        println!("  (repeated, because Redis did not answer in time) {counted}");
        number += 1;
    }
}

/// How often replicas began to count for themselves.
fn count_fallbacks(fleet: &Fleet) -> usize {
    let replicas = (0..REPLICAS).map(|number| fleet.replica(number));
    replicas
        .map(|replica| replica.count_log_lines("redis cannot count the rate limits"))
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
    // A request without an answer may have been allowed, so it counts as allowed.
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
            // The time of the first answer, the time of the last request, and the longest request.
            let (mut first, mut last, mut longest) = (None, Instant::now(), Duration::ZERO);
            while begun.elapsed() < DELETING_TIME {
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
