//! Event time: instants as records carry them. The clock of the machine is in `clock.rs`.

use crate::{Error, ErrorKind};
use serde::de::{Deserialize, Deserializer, Visitor};
use serde::{Serialize, de};
use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;
use std::time::Duration;

/// Milliseconds since 1970-01-01T00:00:00Z. Deliberately not `From<i64>`: the unit is always named.
///
/// serde writes it as an integer, and reads that; from text formats such as JSON also RFC 3339, with any offset, as in
/// `"2026-01-31T13:00:00+01:00"`. Fractions below the millisecond are cut off, towards the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Default)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Before every record: the watermark at the start, and the time of records that have none.
    pub const MIN: Self = Self(i64::MIN);
    /// After every record: the watermark at the end of the input.
    pub const MAX: Self = Self(i64::MAX);

    /// From milliseconds since 1970.
    #[must_use]
    pub const fn from_millis(ms: i64) -> Self {
        Self(ms)
    }

    /// From seconds since 1970. Saturates.
    #[must_use]
    pub const fn from_secs(s: i64) -> Self {
        Self(s.saturating_mul(1000))
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }
}

/// Whole milliseconds; saturates.
fn millis(d: Duration) -> i64 {
    i64::try_from(d.as_millis()).unwrap_or(i64::MAX)
}

impl Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, d: Duration) -> Self {
        Self(self.0.saturating_add(millis(d)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;
    fn sub(self, d: Duration) -> Self {
        Self(self.0.saturating_sub(millis(d)))
    }
}

impl From<std::time::SystemTime> for Timestamp {
    /// Instants before 1970 become negative; what does not fit saturates.
    fn from(t: std::time::SystemTime) -> Self {
        match t.duration_since(std::time::UNIX_EPOCH) {
            Ok(since) => Self(millis(since)),
            Err(before) => Self(millis(before.duration()).saturating_neg()),
        }
    }
}

impl From<jiff::Timestamp> for Timestamp {
    fn from(t: jiff::Timestamp) -> Self {
        let below = t.as_nanosecond().rem_euclid(1_000_000);
        Self(i64::try_from((t.as_nanosecond() - below) / 1_000_000).unwrap_or(i64::MAX))
    }
}

#[cfg(feature = "chrono")]
impl<Z: chrono::TimeZone> From<chrono::DateTime<Z>> for Timestamp {
    fn from(t: chrono::DateTime<Z>) -> Self {
        Self(t.timestamp_millis())
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with milliseconds; `-inf` and `+inf` for [`MIN`](Self::MIN) and [`MAX`](Self::MAX); the number
    /// of milliseconds beyond the years -9999 to 9999.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (*self, jiff::Timestamp::from_millisecond(self.0)) {
            (Self::MIN, _) => f.write_str("-inf"),
            (Self::MAX, _) => f.write_str("+inf"),
            (_, Ok(t)) => write!(f, "{t:.3}"),
            (_, Err(_)) => write!(f, "{} ms", self.0),
        }
    }
}

impl FromStr for Timestamp {
    type Err = Error;
    /// Reads RFC 3339.
    fn from_str(text: &str) -> Result<Self, Error> {
        text.parse::<jiff::Timestamp>().map(Self::from).map_err(|e| {
            let what = format!("`{text}` is no instant: write RFC 3339, as in `2026-01-31T12:00:00.000Z`");
            Error::new(ErrorKind::Usage, what).because(e)
        })
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Instant;
        impl Visitor<'_> for Instant {
            type Value = Timestamp;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("milliseconds since 1970 as an integer, or an instant as in RFC 3339")
            }
            fn visit_i64<E: de::Error>(self, ms: i64) -> Result<Timestamp, E> {
                Ok(Timestamp(ms))
            }
            fn visit_u64<E: de::Error>(self, ms: u64) -> Result<Timestamp, E> {
                i64::try_from(ms).map(Timestamp).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(ms), &self))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Timestamp, E> {
                text.parse().map_err(E::custom)
            }
        }
        if from.is_human_readable() { from.deserialize_any(Instant) } else { i64::deserialize(from).map(Self) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{TIGHT, any_text, bounded, cases, damaged_text};
    use proptest::prelude::*;

    #[test]
    fn is_read_as_an_integer_and_as_text() {
        let noon = Timestamp::from_millis(1_769_860_800_123);
        for json in [
            "1769860800123",
            r#""2026-01-31T12:00:00.123Z""#,
            r#""2026-01-31T13:30:00.1239+01:30""#,
            r#""2026-01-31 07:00:00.123-05:00""#,
        ] {
            assert_eq!(serde_json::from_str::<Timestamp>(json).unwrap(), noon, "{json}");
        }
        assert_eq!(serde_json::to_string(&noon).unwrap(), "1769860800123");
        assert_eq!(noon.to_string(), "2026-01-31T12:00:00.123Z");
        for json in ["18446744073709551615", r#""yesterday""#, "1.5", "null", r#""2026-01-31T12:00:00""#] {
            assert!(serde_json::from_str::<Timestamp>(json).is_err(), "{json}");
        }
        let error = "2026".parse::<Timestamp>().unwrap_err();
        assert!(error.to_string().contains("write RFC 3339"), "{error}");
    }

    #[test]
    fn instants_before_1970_and_beyond_the_calendar() {
        let before = "1969-12-31T23:59:59.9991Z".parse::<Timestamp>().unwrap();
        assert_eq!((before.as_millis(), before.to_string().as_str()), (-1, "1969-12-31T23:59:59.999Z"));
        let texts = [Timestamp::MIN, Timestamp::MAX, Timestamp::from_millis(i64::MAX - 1)].map(|t| t.to_string());
        assert_eq!(texts, ["-inf", "+inf", "9223372036854775806 ms"]);
    }

    proptest! {
        #![proptest_config(cases(1000))]

        #[test]
        fn any_text_is_taken(text in prop_oneof![any_text(), damaged_text(Just("2026-01-31T13:30:00.1239+01:30".into()))]) {
            let _ = bounded(text.len(), TIGHT, || text.parse::<Timestamp>())?;
            let json = serde_json::to_string(&text).unwrap();
            let _ = bounded(json.len(), TIGHT, || serde_json::from_str::<Timestamp>(&json))?;
            let _ = bounded(text.len(), TIGHT, || serde_json::from_str::<Timestamp>(&text))?;
        }

        #[test]
        fn what_is_shown_is_read_back(ms in -300_000_000_000_000i64..250_000_000_000_000) {
            let time = Timestamp::from_millis(ms);
            prop_assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
            let mut bytes = Vec::new();
            crate::codec::encode(&time, &mut bytes).unwrap();
            prop_assert_eq!(crate::codec::decode::<Timestamp>(&bytes).unwrap(), time);
        }
    }
}
