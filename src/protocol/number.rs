//! Numbers as Lua 5.1 reads them with `tonumber` and prints them with `%.14g`.
//!
//! Plugins were written for a daemon that was a Lua script, so `0x10`, `1e3`, `1.5` and `inf` are numbers in commands.

use std::num::IntErrorKind;

use super::trim;

/// Parses a number as Lua's `tonumber` does: decimal or hexadecimal, with fraction and exponent, `inf` and `nan`, with
/// white space around it. `None`: `text` is not a number.
pub(crate) fn parse(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(trim(text)).ok()?;
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let magnitude = match lower.strip_prefix("0x") {
        Some(hex) => parse_hex(hex)?,
        None => parse_decimal(&lower)?,
    };
    Some(if negative { -magnitude } else { magnitude })
}

/// Parses `12`, `1.5`, `1e3`, `inf`, `nan`, without sign. Up to 15 digits with up to 22 zeros are exact. Otherwise the last
/// bits may differ from those of the standard library's parser, whose tables are 1 % of the binary for firmware.
fn parse_decimal(text: &str) -> Option<f64> {
    match text {
        "inf" | "infinity" => return Some(f64::INFINITY),
        "nan" => return Some(f64::NAN),
        _ => {}
    }
    let (mantissa, exponent) = match text.split_once('e') {
        Some((mantissa, exponent)) => (mantissa, parse_exponent(exponent)?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut value = 0u64;
    let mut exponent = exponent - i64::try_from(fraction.len()).ok()?;
    for byte in whole.bytes().chain(fraction.bytes()) {
        let digit = char::from(byte).to_digit(10)?;
        match value.checked_mul(10).and_then(|value| value.checked_add(digit.into())) {
            // All digits that a double can hold.
            Some(sum) if value < 10u64.pow(18) => value = sum,
            _ => exponent += 1,
        }
    }
    let mut value = value as f64;
    // The range of doubles, and the digits of `value`.
    let mut zeros = exponent.unsigned_abs().min(400);
    while zeros > 0 {
        // Powers of ten are exact up to this one.
        let step = zeros.min(22);
        let power = (0..step).fold(1.0, |power, _| power * 10.0);
        value = if exponent < 0 { value / power } else { value * power };
        zeros -= step;
    }
    Some(value)
}

/// Parses what follows `e`. An exponent beyond all doubles is the largest or smallest of 32 bits.
fn parse_exponent(text: &str) -> Option<i64> {
    match text.parse::<i32>() {
        Ok(exponent) => Some(exponent.into()),
        Err(error) => match error.kind() {
            IntErrorKind::PosOverflow => Some(i32::MAX.into()),
            IntErrorKind::NegOverflow => Some(i32::MIN.into()),
            _ => None,
        },
    }
}

/// Parses what follows `0x`: `1f`, `1.8`, `1p4`.
fn parse_hex(text: &str) -> Option<f64> {
    let (mantissa, exponent) = match text.split_once('p') {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut value = 0.0;
    for digit in whole.chars() {
        value = value * 16.0 + f64::from(digit.to_digit(16)?);
    }
    let mut weight = 1.0 / 16.0;
    for digit in fraction.chars() {
        value += f64::from(digit.to_digit(16)?) * weight;
        weight /= 16.0;
    }
    Some(value * f64::from(exponent).exp2())
}

/// Formats a number as Lua 5.1 does (`%.14g`): `12`, `1.5`, `1e+17`, `inf`.
pub(crate) fn format(value: f64) -> String {
    if value.is_nan() {
        return if value.is_sign_negative() { "-nan" } else { "nan" }.into();
    }
    if value.is_infinite() {
        return if value < 0.0 { "-inf" } else { "inf" }.into();
    }
    if value == 0.0 {
        return if value.is_sign_negative() { "-0" } else { "0" }.into();
    }
    let (digits, exponent) = significant_digits(value.abs());
    let digits = digits.to_string();
    let mut text = String::from(if value < 0.0 { "-" } else { "" });
    if (-4..PRECISION).contains(&exponent) {
        // The digits before the point: none of a fraction.
        let whole = usize::try_from(exponent + 1).unwrap_or(0);
        let zeros = "0".repeat(usize::try_from(-1 - exponent).unwrap_or(0));
        let leading = if whole == 0 { "0" } else { "" };
        text += without_trailing_zeros(&format!("{leading}{}.{zeros}{}", &digits[..whole], &digits[whole..]));
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        text += without_trailing_zeros(&format!("{}.{}", &digits[..1], &digits[1..]));
        text += &format!("e{sign}{:02}", exponent.abs());
    }
    text
}

/// Significant digits that Lua prints.
const PRECISION: i32 = 14;

/// The 14 significant digits of a positive number, rounded, and the decimal exponent of the first one.
///
/// The standard library's formatting of doubles would do, but is 1 % of the binary for firmware.
fn significant_digits(value: f64) -> (u64, i32) {
    const MIN: u128 = 10u128.pow(PRECISION as u32 - 1);
    const MAX: u128 = 10 * MIN - 1;
    let bits = value.to_bits();
    let fraction = bits & ((1 << 52) - 1);
    // The value is number * 2^binary * 10^decimal. Subnormal numbers have no implicit bit.
    let (mut number, mut binary) = match (bits >> 52) as i32 {
        0 => (u128::from(fraction), -1074),
        exponent => (u128::from(fraction | 1 << 52), exponent - 1075),
    };
    let mut decimal = 0;
    // At least 120 bits stay, so that what is lost here changes no digit.
    while binary != 0 {
        match (binary > 0, number >> 124 == 0) {
            (true, true) => (number, binary) = (number << 1, binary - 1),
            (true, false) => (number, decimal) = (number / 10, decimal + 1),
            (false, true) => (number, decimal) = (number * 10, decimal - 1),
            (false, false) => (number, binary) = (number >> 1, binary + 1),
        }
    }
    while number < MIN {
        (number, decimal) = (number * 10, decimal - 1);
    }
    let mut unit = 1;
    while number / unit > MAX {
        (unit, decimal) = (unit * 10, decimal + 1);
    }
    let mut digits = number / unit;
    let rest = number - digits * unit;
    // Half of the last digit goes to the even one, as in C.
    if 2 * rest > unit || (2 * rest == unit && digits % 2 == 1) {
        digits += 1;
        if digits > MAX {
            (digits, decimal) = (digits / 10, decimal + 1);
        }
    }
    (digits as u64, decimal + PRECISION - 1)
}

fn without_trailing_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{format as format_number, parse};

    #[test]
    fn parses_what_lua_parses() {
        for (text, value) in [
            ("0", 0.0),
            ("12", 12.0),
            (" 12\t\r", 12.0),
            ("0x10", 16.0),
            ("-0x10", -16.0),
            ("0x1.8p1", 3.0),
            ("1e3", 1000.0),
            ("1.5", 1.5),
            (".5", 0.5),
            ("5.", 5.0),
            ("+7", 7.0),
            ("-1", -1.0),
            ("inf", f64::INFINITY),
            ("-INF", f64::NEG_INFINITY),
        ] {
            assert_eq!(parse(text.as_bytes()), Some(value), "{text}");
        }
        assert!(parse(b"nan").unwrap().is_nan());
    }

    #[test]
    fn parses_numbers_that_no_double_holds() {
        for (text, value) in [
            ("1e400", f64::INFINITY),
            ("1e99999999999", f64::INFINITY),
            ("1e-99999999999", 0.0),
            ("0e999", 0.0),
            ("1e-400", 0.0),
            ("123456789012345678901234567890", 123456789012345678901234567890.0),
        ] {
            assert_eq!(parse(text.as_bytes()), Some(value), "{text}");
        }
        let zeros = "0".repeat(500);
        assert_eq!(parse(format!("0.{zeros}1e501").as_bytes()), Some(1.0));
        assert_eq!(parse(format!("1{zeros}e-500").as_bytes()), Some(1.0));
    }

    proptest! {
        #[test]
        fn parses_up_to_15_digits_as_the_standard_library(digits in 0u64..1_000_000_000_000_000, exponent in -22i32..=22) {
            let text = format!("{digits}e{exponent}");
            prop_assert_eq!(parse(text.as_bytes()), text.parse().ok());
        }

        #[test]
        fn parses_all_digits_closely(value in proptest::num::f64::POSITIVE | proptest::num::f64::NORMAL) {
            let parsed = parse(format!("{value:e}").as_bytes()).unwrap();
            prop_assert!((parsed - value).abs() <= value.abs() * 1e-14, "{} instead of {}", parsed, value);
        }

        #[test]
        fn formats_as_the_standard_library(value in proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL) {
            let printed = format_number(value);
            prop_assert_eq!(printed.parse::<f64>().unwrap(), format!("{value:.13e}").parse::<f64>().unwrap());
        }

        #[test]
        fn formats_halves_as_the_standard_library(value in 0u64..2_000_000_000_000_000) {
            let value = value as f64 / 8.0;
            let printed = format_number(value);
            prop_assert_eq!(printed.parse::<f64>().unwrap(), format!("{value:.13e}").parse::<f64>().unwrap());
        }
    }

    #[test]
    fn rejects_what_lua_rejects() {
        for text in [
            "", " ", "x", "12x", "1 2", "--1", "+-1", "0x", "0xg", "1e", "1e+", "1e++1", ".", ".e1", "1.5.2",
            "infinit", "0x1p", "e3", "\u{fc}",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse(b"\xff"), None);
    }

    #[test]
    fn formats_as_lua_does() {
        for (value, text) in [
            (0.0, "0"),
            (12.0, "12"),
            (1.5, "1.5"),
            (1e17, "1e+17"),
            (1e14, "1e+14"),
            (12345678901234.0, "12345678901234"),
            (0.1, "0.1"),
            (1e-5, "1e-05"),
            (-3.0, "-3"),
            (-1.5e-9, "-1.5e-09"),
            (0.000123, "0.000123"),
            (99999999999999.5, "1e+14"),
            (1e300, "1e+300"),
            (5e-324, "4.9406564584125e-324"),
            (1.0 / 3.0, "0.33333333333333"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(format_number(value), text);
        }
    }
}
