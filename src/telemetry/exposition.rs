//! The text formats of metrics.

use std::collections::HashMap;

/// A text format for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// The text format of Prometheus, version 0.0.4
    /// (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
    Prometheus,
    /// The text format of `OpenMetrics` 1.0
    /// (<https://prometheus.io/docs/specs/om/open_metrics_spec/>).
    OpenMetrics,
}

impl Exposition {
    /// The media type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Converts an `OpenMetrics` text into the text format of Prometheus. The text may hold counters,
/// gauges, histograms and untyped metrics, without exemplars and time stamps.
///
/// Samples are the same in both formats. The lines about them differ: in the format of Prometheus, a
/// counter has the name of its samples, which ends in `_total`; there are no units and no end mark;
/// and help texts do not escape quotation marks.
pub(super) fn prometheus_text(open_metrics: &str) -> String {
    let types: HashMap<_, _> = open_metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .collect();
    let name_of = |family: &str| match types.get(family) {
        Some(&"counter") => format!("{family}_total"),
        _ => family.to_owned(),
    };
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines() {
        let described = |keyword| line.strip_prefix(keyword)?.split_once(' ');
        if let Some((family, help)) = described("# HELP ") {
            let help = without_escaped_quotes(help);
            text.extend(["# HELP ", &name_of(family), " ", &help]);
        } else if let Some((family, kind)) = described("# TYPE ") {
            let kind = if kind == "unknown" { "untyped" } else { kind };
            text.extend(["# TYPE ", &name_of(family), " ", kind]);
        } else if line.starts_with('#') {
            continue;
        } else {
            text.push_str(line);
        }
        text.push('\n');
    }
    text
}

/// Replaces `\"` by `"` in a help text. `\\` and `\n` stay.
fn without_escaped_quotes(help: &str) -> String {
    let mut text = String::with_capacity(help.len());
    let mut rest = help.chars();
    while let Some(character) = rest.next() {
        match (character, rest.clone().next()) {
            ('\\', Some('"')) => {}
            ('\\', Some(escaped)) => {
                text.extend([character, escaped]);
                rest.next();
            }
            _ => text.push(character),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_get_the_name_of_their_samples_and_units_and_the_end_mark_are_left_out() {
        let open_metrics = r#"# HELP requests Those \"answered\", \\ and\nmore.
# TYPE requests counter
requests_total{path="/a \"b\"\n\\"} 3
# HELP seconds Time.
# TYPE seconds histogram
# UNIT seconds seconds
seconds_bucket{le="+Inf"} 1
seconds_sum 0.5
seconds_count 1
# HELP up Whether.
# TYPE up gauge
up 1
# HELP odd Odd.
# TYPE odd unknown
odd 1
# EOF
"#;
        let expected = r#"# HELP requests_total Those "answered", \\ and\nmore.
# TYPE requests_total counter
requests_total{path="/a \"b\"\n\\"} 3
# HELP seconds Time.
# TYPE seconds histogram
seconds_bucket{le="+Inf"} 1
seconds_sum 0.5
seconds_count 1
# HELP up Whether.
# TYPE up gauge
up 1
# HELP odd Odd.
# TYPE odd untyped
odd 1
"#;
        assert_eq!(prometheus_text(open_metrics), expected);
    }
}
