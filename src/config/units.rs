//! Values with units: sizes, times, rates, colours.

use std::num::NonZeroU32;
use std::time::Duration;

/// A rate limit (GCRA): so many requests at once, and the same number again, evenly spread, in each
/// period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Number of requests.
    pub count: NonZeroU32,
    /// The period.
    pub per: Duration,
}

impl Quota {
    /// The time after which one more request is allowed, in seconds with at most three decimals:
    /// `12`, `0.1`.
    pub fn interval_in_seconds(&self) -> String {
        let millis = (self.per / self.count.get()).as_millis().max(1);
        let text = format!("{}.{:03}", millis / 1000, millis % 1000);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

/// Reads a size such as `"5MiB"`, in bytes. Decimal units are refused, because many people read 5 MB
/// as 5 MiB.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text[number.len()..].to_ascii_lowercase();
    let binary = unit.is_empty() || unit == "b" || unit.contains('i');
    match text.parse::<bytesize::ByteSize>() {
        Ok(size) if binary => Ok(size.as_u64()),
        Ok(_) => {
            let prefix = unit[..1].to_ascii_uppercase();
            let meant = format!("{}{prefix}iB", number.trim_end());
            Err(format!(
                "is {text:?}, which some read as decimal and some as binary; give a binary unit, \
                 such as {meant:?}"
            ))
        }
        Err(_) => Err(format!("is {text:?}; give a size such as \"5MiB\"")),
    }
}

/// Reads a time such as `"30s"`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| format!("is {text:?}; give a time such as \"30s\", \"5m\" or \"1h\""))
}

/// Reads a rate such as `"5/min"`.
pub(super) fn quota(text: &str) -> Result<Quota, String> {
    let parsed = || {
        let (count, unit) = text.split_once('/')?;
        let per = match unit.trim() {
            "s" | "sec" | "second" => 1,
            "min" | "minute" | "m" => 60,
            "h" | "hour" => 60 * 60,
            "d" | "day" => 24 * 60 * 60,
            _ => return None,
        };
        let count = count.trim().parse().ok()?;
        Some(Quota {
            count,
            per: Duration::from_secs(per),
        })
    };
    parsed().ok_or_else(|| format!("is {text:?}; give a number per s, min, h or d: \"5/min\""))
}

/// Reads a colour such as `"#7a5c48"`, as red, green, blue.
pub(super) fn color(text: &str) -> Result<[u8; 3], String> {
    let parsed = || {
        let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6)?;
        let bytes = data_encoding::HEXLOWER_PERMISSIVE
            .decode(digits.as_bytes())
            .ok()?;
        bytes.try_into().ok()
    };
    parsed().ok_or_else(|| format!("is {text:?}; give a colour such as \"#ffffff\""))
}
