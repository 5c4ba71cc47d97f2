//! Outages: one dependency fails at a time. This part checks the answers during the outage, and how
//! soon everything works again.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cameo_testing::photos;
use tokio::task::JoinSet;

use crate::client::{Answer, Client};
use crate::control::{Control, TRIES};
use crate::faults::{Fault, Victim, begin, end};
use crate::fleet::{Dependency, Fleet, REPLICAS};
use crate::proxy::Link;

/// How long an upload may take if the store does not answer: 15 s for one operation with all its
/// attempts (`storage::RetryPolicy`), 2 s to remove the manifest, and 2 s for a busy machine.
const STORE_DEADLINE: Duration = Duration::from_secs(15 + 2 + 2);
/// How long four attempts and the pauses between them, 350 ms at most, may take where each attempt
/// fails at once.
const FOUR_ATTEMPTS: Duration = Duration::from_secs(2);
/// How long a replica waits for Redis: 300 ms to connect and 500 ms for an answer, once for the
/// limits and once for the first step of the catalog. The rest allows for a busy machine.
const CATALOG_DEADLINE: Duration = Duration::from_secs(2);
/// How soon the service must work again.
const RECOVERY_TIME: Duration = Duration::from_secs(2);
/// How long a replica may take to work on a busy machine, before anything is measured.
const TIMEOUT: Duration = Duration::from_mins(1);
/// The interval between requests of each kind during an outage.
const REQUEST_INTERVAL: Duration = Duration::from_millis(500);

/// The kind of a request, which decides what it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestKind {
    Upload,
    Delete,
    /// The avatar as JSON, which needs only the catalog, unless it is in memory.
    Json,
    /// An image by its own path, which needs only the store, unless it is in memory.
    File,
    /// The avatar as an image, which needs both, unless it is in memory.
    Image,
}

impl RequestKind {
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

/// A fault of a dependency, and its duration.
struct Outage {
    fault: Fault,
    down: Dependency,
    /// The replicas that cannot use the dependency.
    to: Vec<usize>,
    lasts: Duration,
    /// How long a refusal may take.
    deadline: Duration,
}

/// The observations of one outage.
struct Observed {
    name: String,
    /// The number of 503 answers, and the time of the slowest.
    refused: usize,
    slowest: Duration,
    /// The number of successful answers.
    served: usize,
    /// The time from the return of the dependency until all replicas work fully again.
    back: Duration,
    /// Descriptions of the promises that did not hold.
    faults: Vec<String>,
}

impl fmt::Display for Observed {
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

/// Runs every outage, one after the other, and prints the figures. Returns descriptions of the
/// promises that did not hold.
pub(crate) async fn run(folder: &Path) -> Vec<String> {
    // The default settings, except for the limits.
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

/// Measures an outage. If a promise did not hold while the machine was too busy, measures it again.
async fn measure(fleet: &Arc<Fleet>, outage: &Outage) -> Observed {
    for _ in 1..TRIES {
        let control = Control::start(fleet, outage.down);
        let seen = run_outage(fleet, outage).await;
        match control.was_busy() {
            Some(busy) if !seen.faults.is_empty() => {
                println!(
                    "  (repeated, because the machine is busy: {busy:?}) {}",
                    seen.faults[0]
                );
            }
            _ => return seen,
        }
    }
    run_outage(fleet, outage).await
}

fn outages() -> Vec<Outage> {
    let everybody = || (0..REPLICAS).collect::<Vec<_>>();
    let mut outages = Vec::new();
    for down in Dependency::ALL {
        let victim = Victim::Dependency(down);
        let link = |from, link| Fault::Link {
            from,
            to: down,
            link,
        };
        let all = [
            (Fault::Kill(victim), everybody()),
            (Fault::Stop(victim), everybody()),
            (link(None, Link::Reset), everybody()),
            (link(None, Link::Blackhole), everybody()),
            (link(Some(0), Link::Blackhole), vec![0]),
        ];
        for (fault, to) in all {
            // A silent outage lasts longer than the deadline.
            let silent = !matches!(fault, Fault::Kill(_))
                && !matches!(
                    fault,
                    Fault::Link {
                        link: Link::Reset,
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

async fn run_outage(fleet: &Arc<Fleet>, outage: &Outage) -> Observed {
    let name = outage.fault.to_string();
    let kept = upload_kept_avatar(fleet).await;
    begin(fleet, outage.fault).await;
    // Requests that are in progress when the fault begins may still be answered.
    let begun = Instant::now();
    let mut asked = JoinSet::new();
    while begun.elapsed() < outage.lasts {
        for replica in 0..REPLICAS {
            for what in RequestKind::ALL {
                let (client, kept) = (fleet.client(replica), kept.clone());
                asked.spawn(async move {
                    let begun = Instant::now();
                    let answer = ask(&client, what, &kept).await;
                    (replica, what, begun.elapsed(), Instant::now(), answer)
                });
            }
        }
        tokio::time::sleep(REQUEST_INTERVAL).await;
    }
    let healed = Instant::now();
    end(fleet, outage.fault).await;
    while !fleet.accepts_writes(outage.down).await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let returned = Instant::now();
    let back = futures_util::future::join_all((0..REPLICAS).map(|replica| {
        let (client, kept) = (fleet.client(replica), kept.clone());
        async move { works_again(&client, &kept, returned).await }
    }));
    let back = back.await.into_iter().max().unwrap();

    let mut seen = Observed {
        name,
        refused: 0,
        slowest: Duration::ZERO,
        served: 0,
        back,
        faults: Vec::new(),
    };
    if back > RECOVERY_TIME {
        let late = format!("{}: back after {back:?}", seen.name);
        seen.faults.push(late);
    }
    while let Some(answer) = asked.join_next().await {
        let (replica, what, took, at, answer) = answer.unwrap();
        let hit = outage.to.contains(&replica) && what.needs(outage.down);
        let judged = judge(what, hit && at < healed, hit, outage.down, answer);
        let judged = match judged {
            Ok(false) if took > outage.deadline => Err(format!("503 after {took:?}")),
            judged => judged,
        };
        match judged {
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
        let nobody = format!("{}: no request was refused", seen.name);
        seen.faults.push(nobody);
    }
    seen
}

/// Whether a request was served (`true`) or properly refused (`false`), or what is wrong with its
/// answer. `down`: its dependency was down during the whole request. `hit`: during a part of it.
fn judge(
    what: RequestKind,
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
    // The deleted avatar does not exist, so the answer is 404 and needs only the catalog.
    let served = match what {
        RequestKind::Delete => answer.status == 404,
        _ => answer.status == 200,
    };
    let may_be_served = match what {
        RequestKind::Upload => false,
        RequestKind::Delete => dependency == Dependency::Bucket,
        // They may come from memory.
        RequestKind::Json | RequestKind::File | RequestKind::Image => true,
    };
    if served {
        return if down && !may_be_served {
            Err(format!("{} while it was down", answer.status))
        } else {
            Ok(true)
        };
    }
    if !hit {
        return Err(format!(
            "{} {} although its dependencies are up",
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

/// An avatar that stays unchanged: its subject and the key of one of its images.
#[derive(Clone)]
struct KeptAvatar {
    subject: String,
    key: String,
}

/// Uploads an avatar through each replica, which shows that earlier faults are over.
async fn upload_kept_avatar(fleet: &Fleet) -> KeptAvatar {
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
                begun.elapsed() < TIMEOUT,
                "replica {replica} accepts no upload"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
    }
    let key = key.expect("an avatar has images");
    KeptAvatar { subject, key }
}

async fn ask(client: &Client, what: RequestKind, kept: &KeptAvatar) -> reqwest::Result<Answer> {
    static UPLOADS: AtomicU32 = AtomicU32::new(0);
    match what {
        RequestKind::Upload => {
            let number = UPLOADS.fetch_add(1, Ordering::Relaxed);
            client.upload(&format!("new-{number}"), picture()).await
        }
        RequestKind::Delete => client.delete("nobody").await,
        RequestKind::Json => client.avatar(&kept.subject).await,
        RequestKind::File => client.file(&kept.key).await,
        RequestKind::Image => client.image(&kept.subject).await,
    }
}

/// The time from `since` until a replica answers every kind of request again.
async fn works_again(client: &Client, kept: &KeptAvatar, since: Instant) -> Duration {
    for what in RequestKind::ALL {
        loop {
            let answer = ask(client, what, kept).await;
            let wanted = if what == RequestKind::Delete {
                404
            } else {
                200
            };
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
