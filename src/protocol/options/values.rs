//! The forms that values of options take.

use std::time::Duration;

use super::Refused;
use crate::protocol::{FOR_EVER, number, percent};

/// No limit for a connection attempt means this: something must end it.
pub(super) const LONGEST_CONNECT: Duration = Duration::from_secs(600);

/// A number that is none is ignored.
pub(super) fn lenient(value: &[u8], set: impl FnOnce(f64)) -> Result<(), Refused> {
    if let Some(number) = number::parse(value) {
        set(number);
    }
    Ok(())
}

/// A limit of `number` times `unit` seconds; 0, less (than a nanosecond, too), infinite and no number at all mean none.
pub fn limit(number: f64, unit: f64) -> Option<Duration> {
    let seconds = number * unit;
    let limit = (seconds > 0.0 && seconds < FOR_EVER.as_secs_f64()).then(|| Duration::from_secs_f64(seconds));
    limit.filter(|limit| !limit.is_zero())
}

/// A block size brought into 1..65536; 0, less and no number at all mean none.
pub fn block_size(bytes: f64) -> Option<u32> {
    (bytes > 0.0).then(|| bytes.clamp(1.0, 65536.0) as u32)
}

/// One of several words, in any case.
pub(super) fn one_of<T: Clone>(value: &[u8], words: &[(&str, T)]) -> Result<T, Refused> {
    let value = text(value)?;
    words
        .iter()
        .find(|(word, _)| value.eq_ignore_ascii_case(word))
        .map(|(_, means)| means.clone())
        .ok_or(Refused::Value)
}

/// What percent-encoding stands for.
pub(super) fn decoded(value: &[u8]) -> Result<Vec<u8>, Refused> {
    percent::decode(value).ok_or(Refused::Value)
}

/// Percent-encoded text without what would end a line or a string.
pub(super) fn text(value: &[u8]) -> Result<Box<str>, Refused> {
    let decoded = decoded(value)?;
    if decoded.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        return Err(Refused::Value);
    }
    String::from_utf8(decoded).map(String::into_boxed_str).map_err(|_| Refused::Value)
}

/// Several such texts between commas; a comma of theirs is `%2c`.
pub(super) fn list(value: &[u8]) -> Result<Vec<Box<str>>, Refused> {
    value.split(|&b| b == b',').filter(|part| !part.is_empty()).map(text).collect()
}
