//! The metrics of the program, in the formats of Prometheus. `docs/metrics.md` lists all of them.
//!
//! The composition root creates one [`Metrics`] and gives a clone to every part that counts. Nothing
//! is global, so that several programs in one process (as in tests) do not share counters. Gauges of a
//! present state (memory, waits) are set when they are read.
//!
//! Every label has few values, and a client chooses none of them.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::exposition::{Exposition, prometheus_text};
use super::families::{Counters, Gauges, Histograms, Registering, count, observe, of, set, set_to};
use crate::avatar::{SourceFormat, Timestamp};

/// The methods with a label value of their own.
const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"];

/// All metrics of the program. Clones share them.
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
    moderation_requests: Counters<1>,
    moderation_seconds: Histogram,
    audit_lost: Counter,
    audit_reopen_failures: Counter,
    cache_bytes: Gauges<1>,
    key_fetches: Counters<2>,
    keys: Gauges<1>,
    keys_fetched_at: Gauges<1>,
    imaging_seconds: Histograms<1>,
    worker_ends: Counters<1>,
    zygote_starts: Counter,
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
    /// Creates all metrics, at zero.
    #[allow(clippy::too_many_lines)] // one entry for each metric
    pub fn new() -> Self {
        let mut all = Registering::default();
        let inner = Inner {
            requests: all.counters("cameo_http_requests", "Answered requests"),
            request_seconds: all.histograms(
                "cameo_http_request_duration_seconds",
                "Time from the head of a request to the head of its answer",
            ),
            changes: all.counters("cameo_changes", "Answered uploads and deletes"),
            decisions: all.counters(
                "cameo_limit_decisions",
                "Requests counted against a rate limit",
            ),
            falls_back: all.gauge(
                "cameo_limits_fallback_active",
                "1 while Redis should count the limits but does not answer",
            ),
            missing_objects: all.counter(
                "cameo_missing_objects",
                "Reads of an image that a record names but the store does not have",
            ),
            moderation_requests: all.counters(
                "cameo_moderation_requests",
                "Pictures that were sent to the moderation service, by verdict",
            ),
            moderation_seconds: all.histogram(
                "cameo_moderation_duration_seconds",
                "Time from sending a picture to its verdict, or to the failure",
            ),
            audit_lost: all.counter(
                "cameo_audit_records_lost",
                "Audit records that are in the log but not in the audit file",
            ),
            audit_reopen_failures: all.counter(
                "cameo_audit_reopen_failures",
                "Rotations after which the audit file could not be opened again",
            ),
            cache_bytes: all.gauges(
                "cameo_cache_bytes",
                "Memory of the records and images that are kept for readers",
            ),
            key_fetches: all.counters(
                "cameo_auth_key_fetches",
                "Attempts to fetch the keys of an issuer of tokens",
            ),
            keys: all.gauges(
                "cameo_auth_keys",
                "Keys in the last set of an issuer that can be used",
            ),
            keys_fetched_at: all.gauges(
                "cameo_auth_keys_last_success_timestamp_seconds",
                "Unix time at which the keys of an issuer were last fetched; 0 if they never were",
            ),
            imaging_seconds: all.histograms(
                "cameo_imaging_duration_seconds",
                "Time that a worker spent on a picture, successful or not",
            ),
            worker_ends: all.counters(
                "cameo_imaging_processes_ended",
                "Imaging processes that ended, by how",
            ),
            zygote_starts: all.counter(
                "cameo_imaging_zygote_starts",
                "Starts of the process that starts imaging processes",
            ),
            workers: all.gauge("cameo_imaging_workers", "Threads that process pictures"),
            workers_busy: all.gauge(
                "cameo_imaging_workers_busy",
                "Threads that process a picture now",
            ),
            wait_seconds: all.histogram(
                "cameo_upload_wait_duration_seconds",
                "Time that an upload waited for memory and for a worker, summed over its waits",
            ),
            waiting: all.gauge(
                "cameo_uploads_waiting",
                "Uploads that wait for memory or for a worker",
            ),
            memory_reserved: all.gauges(
                "cameo_memory_reserved_bytes",
                "Memory reserved for bodies as their bytes arrive, and for decoding",
            ),
            memory_budget: all.gauges("cameo_memory_budget_bytes", "Memory that can be reserved"),
            operations: all.counters(
                "cameo_backend_operations",
                "Operations of the store and the catalog; an operation and its retries count once",
            ),
            operation_seconds: all.histograms(
                "cameo_backend_operation_duration_seconds",
                "Duration of an operation, retries included",
            ),
            store_retries: all.counter(
                "cameo_store_retries",
                "Attempts at an operation of the store after the first one",
            ),
            store_breaker_open: all.gauge(
                "cameo_store_breaker_open",
                "1 while the circuit breaker of the store is open",
            ),
            clock_skew: all.gauge_of_seconds(
                "cameo_catalog_clock_skew_seconds",
                "How far the clock of the catalog is ahead of this machine's; 0 if it is unknown",
            ),
            sweep_claimed: all.counter(
                "cameo_sweep_claimed",
                "Avatars that sweeps claimed for removal",
            ),
            sweep_avatars: all.counter("cameo_sweep_removed", "Avatars that sweeps removed"),
            sweep_objects: all.counter(
                "cameo_sweep_removed_objects",
                "Publicly readable objects that sweeps removed",
            ),
            sweep_undeletable: all.counter(
                "cameo_sweep_avatar_failures",
                "Failed attempts of sweeps to remove an avatar, which is due again later",
            ),
            sweep_failures: all.counter("cameo_sweep_failures", "Failed sweeps"),
            sweep_success: all.gauge(
                "cameo_sweep_last_success_timestamp_seconds",
                "Unix time of the last successful sweep",
            ),
            resident: all.gauge(
                "process_resident_memory_bytes",
                "Resident memory of the process; 0 if the system does not report it",
            ),
            registry: {
                let build: Gauges<1> =
                    all.gauges("cameo_build_info", "Always 1, with the version as a label");
                set(&build, &[of("version", env!("CARGO_PKG_VERSION"))], 1);
                let started = all.gauge(
                    "process_start_time_seconds",
                    "Unix time at which the process started",
                );
                started.set((Timestamp::now().unix_ms() / 1000).cast_signed());
                all.into_registry()
            },
        };
        let metrics = Self(Arc::new(inner));
        metrics.begin_at_zero();
        metrics
    }

    /// Creates the series of rare events at zero, so that the first event shows as an increase.
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
        for verdict in ["allow", "reject", "none"] {
            count(&self.0.moderation_requests, &[of("verdict", verdict)], 0);
        }
        for format in SourceFormat::ALL {
            drop(
                self.0
                    .imaging_seconds
                    .get_or_create(&[of("format", format.name())]),
            );
        }
    }

    /// Counts an answered request. `route` is the template of its route, or empty.
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

    /// Counts an answered upload or delete. The outcome is `done` or the code of a problem.
    pub fn changed(&self, action: &'static str, outcome: &'static str) {
        count(
            &self.0.changes,
            &[of("action", action), of("outcome", outcome)],
            1,
        );
    }

    /// Counts a decision of a rate limit.
    pub fn decided(&self, action: &'static str, source: &'static str, verdict: &'static str) {
        let labels = [
            of("action", action),
            of("source", source),
            of("verdict", verdict),
        ];
        count(&self.0.decisions, &labels, 1);
    }

    /// Sets whether Redis should count the limits but does not answer.
    pub fn set_limits_fall_back(&self, active: bool) {
        self.0.falls_back.set(active.into());
    }

    /// Counts a read of an object that a record names but the store does not have.
    pub fn missed_an_object(&self) {
        self.0.missing_objects.inc();
    }

    /// Counts a picture that was sent to the moderation service. The verdict is `allow`, `reject` or
    /// `none`.
    pub fn moderated(&self, verdict: &'static str, elapsed: Duration) {
        count(&self.0.moderation_requests, &[of("verdict", verdict)], 1);
        self.0.moderation_seconds.observe(elapsed.as_secs_f64());
    }

    /// Counts an audit record that the audit file does not have.
    pub fn lost_audit_record(&self) {
        self.0.audit_lost.inc();
    }

    /// Counts a rotation after which the audit file could not be opened again.
    pub fn failed_to_reopen_audit_file(&self) {
        self.0.audit_reopen_failures.inc();
    }

    /// Sets the memory of the cached records and of the cached images.
    pub fn set_cache_bytes(&self, records: u64, images: u64) {
        set(&self.0.cache_bytes, &[of("kind", "records")], records);
        set(&self.0.cache_bytes, &[of("kind", "images")], images);
    }

    /// Creates the metrics of an issuer whose keys are fetched. The configuration names the issuer.
    pub fn expect_key_fetches(&self, issuer: &str) {
        let issuer = || ("issuer", Cow::Owned(issuer.to_owned()));
        for outcome in ["ok", "error"] {
            count(&self.0.key_fetches, &[issuer(), of("outcome", outcome)], 0);
        }
        set(&self.0.keys, &[issuer()], 0);
        set(&self.0.keys_fetched_at, &[issuer()], 0);
    }

    /// Counts an attempt to fetch the keys of an issuer.
    pub fn fetched_keys(&self, issuer: &str, succeeded: bool) {
        let issuer = ("issuer", Cow::Owned(issuer.to_owned()));
        let outcome = if succeeded { "ok" } else { "error" };
        count(&self.0.key_fetches, &[issuer, of("outcome", outcome)], 1);
    }

    /// Sets the number of keys of an issuer, and when they were fetched.
    pub fn set_keys(&self, issuer: &str, keys: usize, at: Timestamp) {
        let issuer = || ("issuer", Cow::Owned(issuer.to_owned()));
        set(&self.0.keys, &[issuer()], keys as u64);
        set(&self.0.keys_fetched_at, &[issuer()], at.unix_ms() / 1000);
    }

    /// Records the time that a worker spent on a picture.
    pub fn processed(&self, format: SourceFormat, elapsed: Duration) {
        observe(
            &self.0.imaging_seconds,
            &[of("format", format.name())],
            elapsed,
        );
    }

    /// Counts an imaging process that ended in this way.
    #[cfg_attr(
        not(target_os = "linux"),
        allow(dead_code, reason = "only Linux has imaging processes")
    )]
    pub fn worker_ended(&self, end: &'static str) {
        count(&self.0.worker_ends, &[of("end", end)], 1);
    }

    /// Creates the counter of imaging processes that end in this way.
    #[cfg_attr(
        not(target_os = "linux"),
        allow(dead_code, reason = "only Linux has imaging processes")
    )]
    pub fn expect_worker_end(&self, end: &'static str) {
        count(&self.0.worker_ends, &[of("end", end)], 0);
    }

    /// Counts a start of the process that starts imaging processes.
    #[cfg_attr(
        not(target_os = "linux"),
        allow(dead_code, reason = "only Linux has imaging processes")
    )]
    pub fn zygote_started(&self) {
        self.0.zygote_starts.inc();
    }

    /// Records the time that an upload waited before it was processed.
    pub fn waited(&self, elapsed: Duration) {
        self.0.wait_seconds.observe(elapsed.as_secs_f64());
    }

    /// Sets the numbers of waiting uploads, busy workers and workers.
    pub fn set_queue(&self, waiting: usize, busy: usize, workers: usize) {
        set_to(&self.0.waiting, waiting as u64);
        set_to(&self.0.workers_busy, busy as u64);
        set_to(&self.0.workers, workers as u64);
    }

    /// Sets the reserved bytes and all bytes of a memory pool.
    pub fn set_memory(&self, purpose: &'static str, reserved: u64, budget: u64) {
        set(&self.0.memory_reserved, &[of("use", purpose)], reserved);
        set(&self.0.memory_budget, &[of("use", purpose)], budget);
    }

    /// The metrics of the operations of a backend.
    pub fn operations(&self, backend: &'static str) -> Operations {
        Operations {
            metrics: self.clone(),
            backend,
        }
    }

    /// Counts a retry of an operation of the store.
    pub fn retried(&self) {
        self.0.store_retries.inc();
    }

    /// Sets whether the circuit breaker of the store is open.
    pub fn set_breaker(&self, open: bool) {
        self.0.store_breaker_open.set(open.into());
    }

    /// Sets how far the clock of the catalog is ahead of this machine's, in seconds.
    pub fn set_clock_skew(&self, seconds: f64) {
        self.0.clock_skew.set(seconds);
    }

    /// Counts avatars that a sweep claimed.
    pub fn sweep_claimed(&self, avatars: usize) {
        self.0.sweep_claimed.inc_by(avatars as u64);
    }

    /// Counts an avatar that a sweep removed, and its publicly readable objects.
    pub fn sweep_removed(&self, objects: usize) {
        self.0.sweep_avatars.inc();
        self.0.sweep_objects.inc_by(objects as u64);
    }

    /// Counts an avatar that a sweep could not remove.
    pub fn sweep_failed_to_remove(&self) {
        self.0.sweep_undeletable.inc();
    }

    /// Counts the end of a sweep. `succeeded_at` is `None` if the sweep failed.
    pub fn sweep_ended(&self, succeeded_at: Option<Timestamp>) {
        match succeeded_at {
            Some(at) => set_to(&self.0.sweep_success, at.unix_ms() / 1000),
            None => drop(self.0.sweep_failures.inc()),
        }
    }

    /// Writes all metrics in a text format.
    ///
    /// # Errors
    /// Those of the formatter. Writing to memory causes none.
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

/// Measures the operations of one backend: the store or the catalog.
#[derive(Clone)]
pub struct Operations {
    metrics: Metrics,
    backend: &'static str,
}

impl Operations {
    /// Waits for an operation, counts it and records its duration. An operation that is dropped is not
    /// counted.
    ///
    /// # Errors
    /// Those of the operation.
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

/// The resident memory of the process, from `/proc`; `None` if the system has no such file.
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
    fn a_client_cannot_choose_label_values() {
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
    fn two_programs_in_one_process_count_separately() {
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
