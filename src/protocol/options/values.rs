//! Parsers for the values of options.

use std::num::NonZeroU32;
use std::time::Duration;

use super::ValueError;
use crate::protocol::{number, percent};

/// The time limit of a connection attempt if the plugin asks for none: an attempt must end some time.
pub(super) const MAX_CONNECT_TIMEOUT: Duration = Duration::from_secs(600);

/// Longer time limits count as none: ten years, which can be added to an instant without overflow.
const MAX_TIME_LIMIT: Duration = Duration::from_secs(10 * 365 * 86400);

/// Calls `set` with the number that `value` holds. A value that is not a number is ignored, as in the Lua daemon.
pub(super) fn lenient(value: &[u8], set: impl FnOnce(f64)) -> Result<(), ValueError> {
    if let Some(number) = number::parse(value) {
        set(number);
    }
    Ok(())
}

/// A time limit of `number` times `unit` seconds. `None`, no limit: 0, negative, less than a nanosecond, more than ten
/// years, infinite or NaN.
pub(crate) fn time_limit(number: f64, unit: f64) -> Option<Duration> {
    let seconds = number * unit;
    let limit = (seconds > 0.0 && seconds < MAX_TIME_LIMIT.as_secs_f64()).then(|| Duration::from_secs_f64(seconds));
    limit.filter(|limit| !limit.is_zero())
}

/// A block size, clamped to 1..=65536 bytes. `None`, no limit: 0, negative or NaN.
pub(crate) fn block_size(bytes: f64) -> Option<NonZeroU32> {
    if bytes > 0.0 { NonZeroU32::new(bytes.clamp(1.0, 65536.0) as u32) } else { None }
}

/// The meaning of one of several words, in any case.
pub(super) fn one_of<T: Clone>(value: &[u8], words: &[(&str, T)]) -> Result<T, ValueError> {
    let value = text(value)?;
    words
        .iter()
        .find(|(word, _)| value.eq_ignore_ascii_case(word))
        .map(|(_, means)| means.clone())
        .ok_or(ValueError::Invalid)
}

/// The value of an option that is on or off.
pub(super) fn switch(value: &[u8]) -> Result<bool, ValueError> {
    one_of(value, &[("on", true), ("off", false)])
}

/// Decodes percent-encoding.
pub(super) fn decoded(value: &[u8]) -> Result<Vec<u8>, ValueError> {
    percent::decode(value).ok_or(ValueError::Invalid)
}

/// Percent-encoded UTF-8 text without CR, LF and NUL.
pub(in crate::protocol) fn text(value: &[u8]) -> Result<Box<str>, ValueError> {
    let decoded = decoded(value)?;
    if decoded.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        return Err(ValueError::Invalid);
    }
    String::from_utf8(decoded).map(String::into_boxed_str).map_err(|_| ValueError::Invalid)
}

/// Such texts separated by commas. A comma inside a text is written as `%2c`.
pub(super) fn list(value: &[u8]) -> Result<Vec<Box<str>>, ValueError> {
    value.split(|&b| b == b',').filter(|part| !part.is_empty()).map(text).collect()
}
