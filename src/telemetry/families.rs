//! Creates the metrics of the registry, and changes those with labels.

use std::borrow::Cow;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// The bounds of every duration's buckets, in seconds.
const SECONDS: [f64; 13] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Names and values of labels.
pub(super) type Labels<const N: usize> = [(&'static str, Cow<'static, str>); N];
pub(super) type Counters<const N: usize> = Family<Labels<N>, Counter>;
pub(super) type Gauges<const N: usize> = Family<Labels<N>, Gauge>;
pub(super) type Histograms<const N: usize> = Family<Labels<N>, Histogram, fn() -> Histogram>;

/// Creates metrics and registers them.
#[derive(Default)]
pub(super) struct Registering(Registry);

impl Registering {
    pub(super) fn counters<const N: usize>(&mut self, name: &str, help: &str) -> Counters<N> {
        let family = Counters::default();
        self.0.register(name, help, family.clone());
        family
    }

    pub(super) fn counter(&mut self, name: &str, help: &str) -> Counter {
        let counter = Counter::default();
        self.0.register(name, help, counter.clone());
        counter
    }

    pub(super) fn gauges<const N: usize>(&mut self, name: &str, help: &str) -> Gauges<N> {
        let family = Gauges::default();
        self.0.register(name, help, family.clone());
        family
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str) -> Gauge {
        let gauge = Gauge::default();
        self.0.register(name, help, gauge.clone());
        gauge
    }

    pub(super) fn gauge_of_seconds(&mut self, name: &str, help: &str) -> Gauge<f64, AtomicU64> {
        let gauge = Gauge::default();
        self.0.register(name, help, gauge.clone());
        gauge
    }

    pub(super) fn histograms<const N: usize>(&mut self, name: &str, help: &str) -> Histograms<N> {
        let family = Histograms::new_with_constructor(durations as fn() -> Histogram);
        self.0.register(name, help, family.clone());
        family
    }

    pub(super) fn histogram(&mut self, name: &str, help: &str) -> Histogram {
        let histogram = durations();
        self.0.register(name, help, histogram.clone());
        histogram
    }

    /// The registry of the metrics so far.
    pub(super) fn into_registry(self) -> Registry {
        self.0
    }
}

fn durations() -> Histogram {
    Histogram::new(SECONDS)
}

/// A label.
pub(super) fn of(name: &'static str, value: &'static str) -> (&'static str, Cow<'static, str>) {
    (name, Cow::Borrowed(value))
}

/// Adds to the counter with these labels, which exists from then on.
pub(super) fn count<const N: usize>(family: &Counters<N>, labels: &Labels<N>, by: u64) {
    family.get_or_create(labels).inc_by(by);
}

/// Adds a duration to the histogram with these labels.
pub(super) fn observe<const N: usize>(
    family: &Histograms<N>,
    labels: &Labels<N>,
    elapsed: Duration,
) {
    family.get_or_create(labels).observe(elapsed.as_secs_f64());
}

/// Sets the gauge with these labels.
pub(super) fn set<const N: usize>(family: &Gauges<N>, labels: &Labels<N>, value: u64) {
    set_to(&family.get_or_create(labels), value);
}

/// Sets a gauge.
pub(super) fn set_to(gauge: &Gauge, value: u64) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}
