//! Outages: one thing fails at a time. What callers are told meanwhile, what goes on, and how soon
//! everything is back.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::client::{Answer, Client};
use crate::control::{Control, TRIES};
use crate::faults::{Fault, Victim, begin, end};
use crate::fleet::{Dependency, Fleet, REPLICAS};
use crate::photos;
use crate::proxy::Way;

/// How long an upload may take if the store does not answer: 15 s for one operation with all its
/// attempts (`storage::RetryPolicy`), 2 s to remove the manifest, and 2 s for a busy machine.
const STORE_DEADLINE: Duration = Duration::from_secs(15 + 2 + 2);
/// How long four attempts and the pauses between them, 350 ms at most, may take where each attempt
/// fails at once.
const FOUR_ATTEMPTS: Duration = Duration::from_secs(2);
/// How long Redis is waited for: 300 ms to connect and 500 ms for an answer, by the limits and by
/// the first step of the catalog; and some leave.
const CATALOG_DEADLINE: Duration = Duration::from_secs(2);
/// How soon the service is to be back.
const BACK: Duration = Duration::from_secs(2);
/// How long a replica may take to come back on a busy machine, before anything is measured.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often each kind of request is made while something is down.
const EVERY: Duration = Duration::from_millis(500);

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Upload,
    Delete,
    /// The avatar as JSON: the catalog alone.
    Json,
    /// An image by its own address: the store alone.
    File,
    /// The avatar as an image: both.
    Image,
}

impl Asked {
    const ALL: [Self; 5] = [
        Self::Upload,
        Self::Delete,
        Self::Json,
        Self::File,
        Self::Image,
    ];

    fn needs(self, dependency: Dependency) -> bool {
        match self {
            Self::Json => dependency == Dependency::Redis,
            Self::File => dependency == Dependency::Bucket,
            Self::Upload | Self::Delete | Self::Image => true,
        }
    }
}

/// One thing that fails, and for how long.
struct Outage {
    fault: Fault,
    down: Dependency,
    /// The replicas that it is down for.
    to: Vec<usize>,
    lasts: Duration,
    /// How long an answer may take that says so.
    deadline: Duration,
}

/// What was seen of one.
struct Seen {
    name: String,
    /// How many answers said 503, and how long the slowest took.
    refused: usize,
    slowest: Duration,
    /// How many answers went on as if nothing were.
    served: usize,
    /// How long after its return the last replica did everything again.
    back: Duration,
    /// What was not as promised.
    faults: Vec<String>,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (slowest, back) = (self.slowest.as_secs_f64(), self.back.as_secs_f64());
        write!(
            f,
            "  {:<38} {:>5} {:>8.2} s {:>7} {:>7.2} s",
            self.name, self.refused, slowest, self.served, back
        )
    }
}

const HEAD: &str =
    "  outage                                   503s    slowest   served  back after";

/// Tries every outage, one after the other, and prints what was seen; gives what was not as
/// promised.
pub(crate) async fn run(folder: &Path) -> Vec<String> {
    // As it is set up by default, but for the limits.
    let settings = [
        ("CAMEO_LIMITS__UPLOAD", "100000/s".to_owned()),
        ("CAMEO_LIMITS__DELETE", "100000/s".to_owned()),
    ];
    let fleet = Arc::new(Fleet::start(folder, &settings).await);
    println!("{HEAD}");
    let mut faults = Vec::new();
    for outage in outages() {
        let seen = measure(&fleet, &outage).await;
        println!("{seen}");
        faults.extend(seen.faults);
    }
    faults
}

/// Tries it out; again where it was not as promised, but the machine was too busy to tell.
async fn measure(fleet: &Arc<Fleet>, outage: &Outage) -> Seen {
    for _ in 1..TRIES {
        let control = Control::start(fleet, outage.down);
        let seen = try_out(fleet, outage).await;
        match control.was_busy() {
            Some(busy) if !seen.faults.is_empty() => {
                println!(
                    "  (again, the machine is busy: {busy:?}) {}",
                    seen.faults[0]
                );
            }
            _ => return seen,
        }
    }
    try_out(fleet, outage).await
}

fn outages() -> Vec<Outage> {
    let everybody = || (0..REPLICAS).collect::<Vec<_>>();
    let mut outages = Vec::new();
    for down in Dependency::ALL {
        let victim = Victim::Dependency(down);
        let way = |from, way| Fault::Way {
            from,
            to: down,
            way,
        };
        let all = [
            (Fault::Kill(victim), everybody()),
            (Fault::Stop(victim), everybody()),
            (way(None, Way::Reset), everybody()),
            (way(None, Way::Blackhole), everybody()),
            (way(Some(0), Way::Blackhole), vec![0]),
        ];
        for (fault, to) in all {
            // Longer than the deadline, where nobody says that it is down.
            let silent = !matches!(fault, Fault::Kill(_))
                && !matches!(
                    fault,
                    Fault::Way {
                        way: Way::Reset,
                        ..
                    }
                );
            let (deadline, lasts) = match (down, silent) {
                (Dependency::Redis, _) => (CATALOG_DEADLINE, Duration::from_secs(4)),
                (Dependency::Bucket, false) => (FOUR_ATTEMPTS, Duration::from_secs(4)),
                (Dependency::Bucket, true) => {
                    (STORE_DEADLINE, STORE_DEADLINE + Duration::from_secs(1))
                }
            };
            outages.push(Outage {
                fault,
                down,
                to,
                lasts,
                deadline,
            });
        }
    }
    outages
}

async fn try_out(fleet: &Arc<Fleet>, outage: &Outage) -> Seen {
    let name = outage.fault.to_string();
    let kept = keep_one(fleet).await;
    begin(fleet, outage.fault).await;
    // Requests under way when it begins may still be answered.
    let begun = Instant::now();
    let mut asked = JoinSet::new();
    while begun.elapsed() < outage.lasts {
        for replica in 0..REPLICAS {
            for what in Asked::ALL {
                let (client, kept) = (fleet.client(replica), kept.clone());
                asked.spawn(async move {
                    let begun = Instant::now();
                    let answer = ask(&client, what, &kept).await;
                    (replica, what, begun.elapsed(), Instant::now(), answer)
                });
            }
        }
        tokio::time::sleep(EVERY).await;
    }
    let healed = Instant::now();
    end(fleet, outage.fault).await;
    while !fleet.answers(outage.down).await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let returned = Instant::now();
    let back = futures_util::future::join_all((0..REPLICAS).map(|replica| {
        let (client, kept) = (fleet.client(replica), kept.clone());
        async move { works_again(&client, &kept, returned).await }
    }));
    let back = back.await.into_iter().max().unwrap();

    let mut seen = Seen {
        name,
        refused: 0,
        slowest: Duration::ZERO,
        served: 0,
        back,
        faults: Vec::new(),
    };
    if back > BACK {
        let late = format!("{}: back after {back:?}", seen.name);
        seen.faults.push(late);
    }
    while let Some(answer) = asked.join_next().await {
        let (replica, what, took, at, answer) = answer.unwrap();
        let hit = outage.to.contains(&replica) && what.needs(outage.down);
        let told = judge(what, hit && at < healed, hit, outage.down, answer);
        let told = match told {
            Ok(false) if took > outage.deadline => Err(format!("503 after {took:?}")),
            told => told,
        };
        match told {
            Ok(true) => seen.served += 1,
            Ok(false) => {
                seen.refused += 1;
                seen.slowest = seen.slowest.max(took);
            }
            Err(wrong) => {
                let wrong = format!("{}: replica {replica}: {what:?}: {wrong}", seen.name);
                seen.faults.push(wrong);
            }
        }
    }
    if seen.refused == 0 {
        let nobody = format!("{}: nobody noticed it", seen.name);
        seen.faults.push(nobody);
    }
    seen
}

/// Whether a request was served, or refused as it should be; or what is wrong with its answer.
/// `down`: what it needs was down all the time. `hit`: it was down for some of it.
fn judge(
    what: Asked,
    down: bool,
    hit: bool,
    dependency: Dependency,
    answer: reqwest::Result<Answer>,
) -> Result<bool, String> {
    let answer = answer.map_err(|error| error.to_string())?;
    let code = match dependency {
        Dependency::Redis => "catalog_unavailable",
        Dependency::Bucket => "storage_unavailable",
    };
    // Nobody else's avatar is deleted: there is none, which takes the catalog alone to tell.
    let served = match what {
        Asked::Delete => answer.status == 404,
        _ => answer.status == 200,
    };
    let exempt = what == Asked::Delete && dependency == Dependency::Bucket;
    if served {
        return if down && !exempt {
            Err(format!("{} while it was down", answer.status))
        } else {
            Ok(true)
        };
    }
    if !hit {
        return Err(format!(
            "{} {} though it needs nothing that is down",
            answer.status,
            answer.code()
        ));
    }
    if (answer.status, answer.code().as_str()) != (503, code) {
        return Err(format!("{} {}", answer.status, answer.code()));
    }
    if answer.header("retry-after").parse::<u32>().is_err() {
        return Err("503 without Retry-After".to_owned());
    }
    Ok(false)
}

/// An avatar that stays: whose, and one of its images.
#[derive(Clone)]
struct Kept {
    subject: String,
    key: String,
}

/// One that each replica takes: what came before is over.
async fn keep_one(fleet: &Fleet) -> Kept {
    let subject = "kept".to_owned();
    let mut key = None;
    for replica in 0..REPLICAS {
        let begun = Instant::now();
        key = loop {
            let uploaded = fleet.client(replica).upload(&subject, picture()).await;
            let avatar = uploaded.ok().and_then(|answer| answer.avatar());
            if let Some(avatar) = avatar {
                break avatar.images.into_keys().next();
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "replica {replica} takes nothing"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
    }
    let key = key.expect("an avatar has images");
    Kept { subject, key }
}

async fn ask(client: &Client, what: Asked, kept: &Kept) -> reqwest::Result<Answer> {
    static UPLOADS: AtomicU32 = AtomicU32::new(0);
    match what {
        Asked::Upload => {
            let number = UPLOADS.fetch_add(1, Ordering::Relaxed);
            client.upload(&format!("new-{number}"), picture()).await
        }
        Asked::Delete => client.delete("nobody").await,
        Asked::Json => client.avatar(&kept.subject).await,
        Asked::File => client.file(&kept.key).await,
        Asked::Image => client.image(&kept.subject).await,
    }
}

/// How long after `since` a replica does everything again.
async fn works_again(client: &Client, kept: &Kept, since: Instant) -> Duration {
    for what in Asked::ALL {
        loop {
            let answer = ask(client, what, kept).await;
            let wanted = if what == Asked::Delete { 404 } else { 200 };
            if answer.is_ok_and(|answer| answer.status == wanted) {
                break;
            }
            if since.elapsed() > Duration::from_secs(30) {
                return since.elapsed();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    since.elapsed()
}

fn picture() -> Vec<u8> {
    photos::png(100, 100)
}
