//! Points in time, for the catalog and the API.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A point in time, in whole milliseconds since 1970-01-01 UTC. It is displayed as RFC 3339 in UTC, to
/// the second.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The time of the system clock. Only the outer layers of the program call this; inner functions
    /// receive the time as an argument.
    pub fn now() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self::from_unix_ms(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// The time this many milliseconds after 1970-01-01 UTC.
    pub const fn from_unix_ms(unix_ms: u64) -> Self {
        Self(unix_ms)
    }

    /// Milliseconds since 1970-01-01 UTC.
    pub const fn unix_ms(self) -> u64 {
        self.0
    }

    /// The time `by` later, or the last time that can be represented.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// The duration from `earlier` to this time; zero if this time is earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// The text is not a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a time is written as in RFC 3339, such as 2030-01-31T09:30:00Z")]
pub struct InvalidTimestamp;

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    /// Parses RFC 3339 with any offset. A time before 1970 becomes the first one that can be
    /// represented.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| InvalidTimestamp)?;
        let unix_ms = time.unix_timestamp_nanos() / 1_000_000;
        Ok(Self(u64::try_from(unix_ms).unwrap_or_default()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = i64::try_from(self.0 / 1000).unwrap_or(i64::MAX);
        let text = OffsetDateTime::from_unix_timestamp(seconds)
            .ok()
            .and_then(|time| time.format(&Rfc3339).ok())
            .ok_or(fmt::Error)?;
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_as_rfc_3339_in_utc_to_the_second() {
        let time = Timestamp::from_unix_ms(1_769_851_800_123);
        assert_eq!(time.to_string(), "2026-01-31T09:30:00Z");
    }

    #[test]
    fn a_time_is_parsed_as_rfc_3339() {
        let time = Timestamp::from_unix_ms(1_769_851_800_123);
        for text in ["2026-01-31T09:30:00.123Z", "2026-01-31T10:30:00.1234+01:00"] {
            assert_eq!(text.parse(), Ok(time), "{text}");
        }
        assert_eq!("1901-01-31T09:30:00Z".parse(), Ok(Timestamp::default()));
        for bad in [
            "",
            "tomorrow",
            "2026-01-31",
            "2026-01-31 09:30",
            "1769851800",
        ] {
            assert_eq!(bad.parse::<Timestamp>(), Err(InvalidTimestamp), "{bad}");
        }
    }

    #[test]
    fn arithmetic_saturates() {
        let late = Timestamp::from_unix_ms(u64::MAX).plus(Duration::from_secs(1));
        assert_eq!(late.unix_ms(), u64::MAX);
        assert_eq!(Timestamp::from_unix_ms(5).since(late), Duration::ZERO);
    }
}
