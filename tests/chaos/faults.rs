//! The faults and their times: a schedule that follows from a seed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use crate::fleet::{Dependency, Fleet, REPLICAS};
use crate::history::History;
use crate::process::Program;
use crate::proxy::Link;

/// A program of the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    Replica(usize),
    Dependency(Dependency),
}

/// A fault that lasts for some time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// SIGKILL; the program is started again at the end of the fault.
    Kill(Victim),
    /// SIGSTOP; SIGCONT follows at the end of the fault.
    Stop(Victim),
    /// A network fault on the link from one replica, or from all, to a dependency.
    Link {
        from: Option<usize>,
        to: Dependency,
        link: Link,
    },
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replica(number) => write!(f, "replica {number}"),
            Self::Dependency(which) => f.write_str(which.name()),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(victim) => write!(f, "kill {victim}"),
            Self::Stop(victim) => write!(f, "stop {victim}"),
            Self::Link { from, to, link } => match from {
                Some(from) => write!(f, "{link:?} from replica {from} to {}", to.name()),
                None => write!(f, "{link:?} to {}", to.name()),
            },
        }
    }
}

/// A fault with its time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    /// When the fault begins, relative to the begin of the schedule.
    at: Duration,
    lasts: Duration,
    fault: Fault,
}

/// Two series of faults that run in parallel, one of programs and one of links. Each series has one
/// fault at a time.
pub(crate) struct Schedule([Vec<Event>; 2]);

impl Schedule {
    /// Makes a schedule of this length. One in ten faults lasts at least `long`.
    pub(crate) fn new(rng: &mut Rng, length: Duration, long: Duration) -> Self {
        Self([program_fault, link_fault].map(|fault| {
            let mut events = Vec::new();
            let mut at = millis(rng, 200..1500);
            loop {
                let lasts = match rng.u32(0..10) {
                    0 => long + millis(rng, 0..2000),
                    _ => millis(rng, 20..2500),
                };
                if at + lasts > length {
                    return events;
                }
                let fault = fault(rng);
                events.push(Event { at, lasts, fault });
                at += lasts + millis(rng, 200..1800);
            }
        }))
    }

    /// The number of faults.
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    /// Runs the whole schedule.
    pub(crate) async fn run(&self, fleet: &Arc<Fleet>, history: &Arc<History>) {
        let begun = tokio::time::Instant::now();
        let series = self.0.iter().map(|events| async move {
            for event in events {
                tokio::time::sleep_until(begun + event.at).await;
                history.log(format_args!("fault: {} for {:?}", event.fault, event.lasts));
                begin(fleet, event.fault).await;
                tokio::time::sleep_until(begun + event.at + event.lasts).await;
                history.log(format_args!("over: {}", event.fault));
                end(fleet, event.fault).await;
            }
        });
        futures_util::future::join_all(series).await;
    }
}

/// Begins a fault.
pub(crate) async fn begin(fleet: &Fleet, fault: Fault) {
    match fault {
        Fault::Kill(victim) => program(fleet, victim).kill().await,
        Fault::Stop(victim) => program(fleet, victim).stop().await,
        Fault::Link { from, to, link } => fleet.set_link(from, to, link),
    }
}

/// Ends a fault.
pub(crate) async fn end(fleet: &Fleet, fault: Fault) {
    match fault {
        Fault::Kill(victim) => program(fleet, victim).start().await,
        Fault::Stop(victim) => program(fleet, victim).resume().await,
        Fault::Link { from, to, .. } => fleet.set_link(from, to, Link::Pass),
    }
}

fn program(fleet: &Fleet, victim: Victim) -> &Program {
    match victim {
        Victim::Replica(number) => fleet.replica(number),
        Victim::Dependency(which) => fleet.dependency(which),
    }
}

fn program_fault(rng: &mut Rng) -> Fault {
    let victim = match rng.u32(0..10) {
        0..5 => Victim::Replica(rng.usize(0..REPLICAS)),
        5..8 => Victim::Dependency(Dependency::Redis),
        _ => Victim::Dependency(Dependency::Bucket),
    };
    if rng.bool() {
        Fault::Kill(victim)
    } else {
        Fault::Stop(victim)
    }
}

fn link_fault(rng: &mut Rng) -> Fault {
    let from = (rng.u32(0..4) > 0).then(|| rng.usize(0..REPLICAS));
    let to = Dependency::ALL[rng.usize(0..2)];
    let link = match rng.u32(0..10) {
        0 | 1 => Link::Delay(millis(rng, 5..300)),
        2 | 3 => Link::Reset,
        4 | 5 => Link::Cut(rng.usize(1..6000)),
        _ => Link::Blackhole,
    };
    Fault::Link { from, to, link }
}

fn millis(rng: &mut Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(rng.u64(range))
}
