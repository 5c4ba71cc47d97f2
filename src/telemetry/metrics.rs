//! What the program counts and measures of itself, as Prometheus reads it (`docs/metrics.md` lists
//! it all).
//!
//! One [`Metrics`] is made with the program and handed to whoever has something to tell: nothing is
//! global, so that several programs in one process, as in tests, do not count for one another. What
//! stands rather than happens (memory, waits) is asked for when it is read, and not kept up.
//!
//! Every label has few values, none of which a client chooses.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::exposition::{Exposition, prometheus_text};
use crate::avatar::{SourceFormat, Timestamp};

/// The bounds of every duration's buckets, in seconds.
const SECONDS: [f64; 13] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// The methods that are told apart.
const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"];

type Labels<const N: usize> = [(&'static str, Cow<'static, str>); N];
type Counters<const N: usize> = Family<Labels<N>, Counter>;
type Gauges<const N: usize> = Family<Labels<N>, Gauge>;
type Histograms<const N: usize> = Family<Labels<N>, Histogram, fn() -> Histogram>;

/// What the program counts and measures of itself. Clones count together.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    requests: Counters<3>,
    request_seconds: Histograms<2>,
    changes: Counters<2>,
    decisions: Counters<3>,
    falls_back: Gauge,
    missing_objects: Counter,
    imaging_seconds: Histograms<1>,
    workers: Gauge,
    workers_busy: Gauge,
    wait_seconds: Histogram,
    waiting: Gauge,
    memory_reserved: Gauges<1>,
    memory_budget: Gauges<1>,
    operations: Counters<3>,
    operation_seconds: Histograms<2>,
    store_retries: Counter,
    store_breaker_open: Gauge,
    clock_skew: Gauge<f64, AtomicU64>,
    sweep_claimed: Counter,
    sweep_avatars: Counter,
    sweep_objects: Counter,
    sweep_undeletable: Counter,
    sweep_failures: Counter,
    sweep_success: Gauge,
    resident: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Nothing counted yet.
    pub fn new() -> Self {
        let mut all = Registering(Registry::default());
        let inner = Inner {
            requests: all.counters("cameo_http_requests", "Requests answered"),
            request_seconds: all.histograms(
                "cameo_http_request_duration_seconds",
                "Time from a request's head to its answer's",
            ),
            changes: all.counters("cameo_changes", "Uploads and deletes answered"),
            decisions: all.counters("cameo_limit_decisions", "Attempts counted against a limit"),
            falls_back: all.gauge(
                "cameo_limits_fallback_active",
                "1 while Redis should count the limits, but does not",
            ),
            missing_objects: all.counter(
                "cameo_missing_objects",
                "Reads of an image that its record names, but the store does not have",
            ),
            imaging_seconds: all.histograms(
                "cameo_imaging_duration_seconds",
                "Time a worker took for a picture, whatever became of it",
            ),
            workers: all.gauge("cameo_imaging_workers", "Threads that process pictures"),
            workers_busy: all.gauge("cameo_imaging_workers_busy", "Of them, those taken"),
            wait_seconds: all.histogram(
                "cameo_upload_wait_duration_seconds",
                "Time an upload waited for memory and for a worker, all its waits together",
            ),
            waiting: all.gauge(
                "cameo_uploads_waiting",
                "Uploads that wait for memory or for a worker",
            ),
            memory_reserved: all.gauges(
                "cameo_memory_reserved_bytes",
                "Memory reserved for uploads under way",
            ),
            memory_budget: all.gauges("cameo_memory_budget_bytes", "Memory that may be reserved"),
            operations: all.counters(
                "cameo_backend_operations",
                "Operations of the store and of the catalog, retries not counted apart",
            ),
            operation_seconds: all.histograms(
                "cameo_backend_operation_duration_seconds",
                "Time such an operation took, with its retries",
            ),
            store_retries: all.counter(
                "cameo_store_retries",
                "Attempts at an operation of the store after its first",
            ),
            store_breaker_open: all.gauge(
                "cameo_store_breaker_open",
                "1 while a store that keeps failing is left alone",
            ),
            clock_skew: all.gauge_of_seconds(
                "cameo_catalog_clock_skew_seconds",
                "How far the catalog's clock is ahead of this machine's; 0 while it is unknown",
            ),
            sweep_claimed: all.counter("cameo_sweep_claimed", "Avatars that sweeps took up"),
            sweep_avatars: all.counter("cameo_sweep_removed", "Avatars that sweeps removed"),
            sweep_objects: all.counter(
                "cameo_sweep_removed_objects",
                "Publicly readable objects that sweeps removed",
            ),
            sweep_undeletable: all.counter(
                "cameo_sweep_avatar_failures",
                "Attempts of sweeps to remove an avatar that failed; it comes due again",
            ),
            sweep_failures: all.counter("cameo_sweep_failures", "Sweeps that did not end well"),
            sweep_success: all.gauge(
                "cameo_sweep_last_success_timestamp_seconds",
                "When a sweep last ended well, in Unix time",
            ),
            resident: all.gauge(
                "process_resident_memory_bytes",
                "Memory of the process that is resident; 0 where the system does not tell",
            ),
            registry: {
                let build: Gauges<1> = all.gauges("cameo_build_info", "1, with the version");
                set(&build, &[of("version", env!("CARGO_PKG_VERSION"))], 1);
                let started = all.gauge(
                    "process_start_time_seconds",
                    "When the process started, in Unix time",
                );
                started.set((Timestamp::now().unix_ms() / 1000).cast_signed());
                all.0
            },
        };
        let metrics = Self(Arc::new(inner));
        metrics.begin_at_zero();
        metrics
    }

    /// Makes what may not happen for long, so that its first time is seen as an increase.
    fn begin_at_zero(&self) {
        for action in ["upload", "delete"] {
            count(
                &self.0.changes,
                &[of("action", action), of("outcome", "done")],
                0,
            );
            for (source, verdict) in [
                ("redis", "allowed"),
                ("redis", "denied"),
                ("local", "allowed"),
                ("local", "denied"),
                ("none", "denied"),
            ] {
                let labels = [
                    of("action", action),
                    of("source", source),
                    of("verdict", verdict),
                ];
                count(&self.0.decisions, &labels, 0);
            }
        }
        for format in SourceFormat::ALL {
            drop(
                self.0
                    .imaging_seconds
                    .get_or_create(&[of("format", format.name())]),
            );
        }
    }

    /// A request was answered: by the route of this template, if it has one.
    pub fn answered(&self, method: &str, route: &str, status: u16, elapsed: Duration) {
        let method = METHODS.into_iter().find(|known| *known == method);
        let method = of("method", method.unwrap_or("other"));
        let route = match route {
            "" => of("route", "none"),
            route => ("route", Cow::Owned(route.to_owned())),
        };
        let class = match status / 100 {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        };
        observe(
            &self.0.request_seconds,
            &[method.clone(), route.clone()],
            elapsed,
        );
        count(&self.0.requests, &[method, route, of("status", class)], 1);
    }

    /// An upload or a delete was answered: `done`, or a problem's code.
    pub fn changed(&self, action: &'static str, outcome: &'static str) {
        count(
            &self.0.changes,
            &[of("action", action), of("outcome", outcome)],
            1,
        );
    }

    /// An attempt was counted against a limit.
    pub fn decided(&self, action: &'static str, source: &'static str, verdict: &'static str) {
        let labels = [
            of("action", action),
            of("source", source),
            of("verdict", verdict),
        ];
        count(&self.0.decisions, &labels, 1);
    }

    /// Whether the limits are not counted where they should be.
    pub fn set_limits_fall_back(&self, active: bool) {
        self.0.falls_back.set(active.into());
    }

    /// A record names an object that is not there.
    pub fn missed_an_object(&self) {
        self.0.missing_objects.inc();
    }

    /// A worker is done with a picture.
    pub fn processed(&self, format: SourceFormat, elapsed: Duration) {
        observe(
            &self.0.imaging_seconds,
            &[of("format", format.name())],
            elapsed,
        );
    }

    /// An upload has waited so long, and goes on.
    pub fn waited(&self, elapsed: Duration) {
        self.0.wait_seconds.observe(elapsed.as_secs_f64());
    }

    /// How many uploads wait, and how many of the workers are taken.
    pub fn set_queue(&self, waiting: usize, busy: usize, workers: usize) {
        set_to(&self.0.waiting, waiting as u64);
        set_to(&self.0.workers_busy, busy as u64);
        set_to(&self.0.workers, workers as u64);
    }

    /// How much of a budget of memory is reserved, in bytes.
    pub fn set_memory(&self, purpose: &'static str, reserved: u64, budget: u64) {
        set(&self.0.memory_reserved, &[of("use", purpose)], reserved);
        set(&self.0.memory_budget, &[of("use", purpose)], budget);
    }

    /// Measures the operations of the backend of this name.
    pub fn operations(&self, backend: &'static str) -> Operations {
        Operations {
            metrics: self.clone(),
            backend,
        }
    }

    /// The store is asked once more.
    pub fn retried(&self) {
        self.0.store_retries.inc();
    }

    /// Whether the store is left alone.
    pub fn set_breaker(&self, open: bool) {
        self.0.store_breaker_open.set(open.into());
    }

    /// How far the catalog's clock is ahead of this machine's.
    pub fn set_clock_skew(&self, seconds: f64) {
        self.0.clock_skew.set(seconds);
    }

    /// A sweep took up so many avatars.
    pub fn sweep_claimed(&self, avatars: usize) {
        self.0.sweep_claimed.inc_by(avatars as u64);
    }

    /// A sweep removed an avatar with so many objects.
    pub fn sweep_removed(&self, objects: usize) {
        self.0.sweep_avatars.inc();
        self.0.sweep_objects.inc_by(objects as u64);
    }

    /// A sweep could not remove an avatar, which comes due again.
    pub fn sweep_failed_to_remove(&self) {
        self.0.sweep_undeletable.inc();
    }

    /// A sweep ended: well, at this time, or not.
    pub fn sweep_ended(&self, well_at: Option<Timestamp>) {
        match well_at {
            Some(at) => set_to(&self.0.sweep_success, at.unix_ms() / 1000),
            None => drop(self.0.sweep_failures.inc()),
        }
    }

    /// All metrics in a text format.
    ///
    /// # Errors
    /// The formatter's, which writing to memory does not give.
    pub fn text(&self, format: Exposition) -> Result<String, fmt::Error> {
        set_to(&self.0.resident, resident_bytes().unwrap_or(0));
        let mut text = String::new();
        encode(&mut text, &self.0.registry)?;
        Ok(match format {
            Exposition::OpenMetrics => text,
            Exposition::Prometheus => prometheus_text(&text),
        })
    }
}

/// Measures the operations of the store or of the catalog.
#[derive(Clone)]
pub struct Operations {
    metrics: Metrics,
    backend: &'static str,
}

impl Operations {
    /// Waits for an operation, and counts and measures it. One that is dropped is not counted.
    ///
    /// # Errors
    /// The operation's.
    pub async fn measure<T, E>(
        &self,
        operation: &'static str,
        answer: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let begun = std::time::Instant::now();
        let answer = answer.await;
        let outcome = if answer.is_ok() { "ok" } else { "error" };
        let Inner {
            operations,
            operation_seconds,
            ..
        } = &*self.metrics.0;
        let [backend, operation] = [of("backend", self.backend), of("operation", operation)];
        let labels = [backend.clone(), operation.clone()];
        observe(operation_seconds, &labels, begun.elapsed());
        count(operations, &[backend, operation, of("outcome", outcome)], 1);
        answer
    }
}

/// Makes metrics and registers them.
struct Registering(Registry);

impl Registering {
    fn counters<const N: usize>(&mut self, name: &str, help: &str) -> Counters<N> {
        let family = Counters::default();
        self.0.register(name, help, family.clone());
        family
    }

    fn counter(&mut self, name: &str, help: &str) -> Counter {
        let counter = Counter::default();
        self.0.register(name, help, counter.clone());
        counter
    }

    fn gauges<const N: usize>(&mut self, name: &str, help: &str) -> Gauges<N> {
        let family = Gauges::default();
        self.0.register(name, help, family.clone());
        family
    }

    fn gauge(&mut self, name: &str, help: &str) -> Gauge {
        let gauge = Gauge::default();
        self.0.register(name, help, gauge.clone());
        gauge
    }

    fn gauge_of_seconds(&mut self, name: &str, help: &str) -> Gauge<f64, AtomicU64> {
        let gauge = Gauge::default();
        self.0.register(name, help, gauge.clone());
        gauge
    }

    fn histograms<const N: usize>(&mut self, name: &str, help: &str) -> Histograms<N> {
        let family = Histograms::new_with_constructor(durations as fn() -> Histogram);
        self.0.register(name, help, family.clone());
        family
    }

    fn histogram(&mut self, name: &str, help: &str) -> Histogram {
        let histogram = durations();
        self.0.register(name, help, histogram.clone());
        histogram
    }
}

fn durations() -> Histogram {
    Histogram::new(SECONDS)
}

fn of(name: &'static str, value: &'static str) -> (&'static str, Cow<'static, str>) {
    (name, Cow::Borrowed(value))
}

fn count<const N: usize>(family: &Counters<N>, labels: &Labels<N>, by: u64) {
    family.get_or_create(labels).inc_by(by);
}

fn observe<const N: usize>(family: &Histograms<N>, labels: &Labels<N>, elapsed: Duration) {
    family.get_or_create(labels).observe(elapsed.as_secs_f64());
}

fn set<const N: usize>(family: &Gauges<N>, labels: &Labels<N>, value: u64) {
    set_to(&family.get_or_create(labels), value);
}

fn set_to(gauge: &Gauge, value: u64) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}

/// How much of the process's memory is resident, where the system tells as Linux does.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_chooses_is_no_label() {
        let metrics = Metrics::new();
        let size = |metrics: &Metrics| {
            metrics
                .text(Exposition::Prometheus)
                .unwrap()
                .lines()
                .count()
        };
        metrics.answered("BREW", "", 404, Duration::ZERO);
        let before = size(&metrics);
        for method in ["A", "B", "get"] {
            metrics.answered(method, "", 404, Duration::ZERO);
        }
        assert_eq!(size(&metrics), before);
        let text = metrics.text(Exposition::Prometheus).unwrap();
        let line = "cameo_http_requests_total{method=\"other\",route=\"none\",status=\"4xx\"} 4";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn two_programs_do_not_count_for_one_another() {
        let (one, other) = (Metrics::new(), Metrics::new());
        one.missed_an_object();
        assert!(
            one.clone()
                .text(Exposition::Prometheus)
                .unwrap()
                .contains("cameo_missing_objects_total 1")
        );
        assert!(
            other
                .text(Exposition::Prometheus)
                .unwrap()
                .contains("cameo_missing_objects_total 0")
        );
    }
}
