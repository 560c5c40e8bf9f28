//! Numbers as Lua 5.1 reads them with `tonumber` and prints them with `%.14g`.
//!
//! Plugins were written for a daemon that was a Lua script, so `0x10`, `1e3`, `1.5` and `inf` are numbers in commands.

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
        // Rust's parser accepts the same grammar, and in addition a second sign.
        None if lower.starts_with(['+', '-']) => return None,
        None => lower.parse().ok()?,
    };
    Some(if negative { -magnitude } else { magnitude })
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
    const PRECISION: i32 = 14;
    let scientific = format!("{:.*e}", (PRECISION - 1) as usize, value);
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..PRECISION).contains(&exponent) {
        let decimals = (PRECISION - 1 - exponent).max(0) as usize;
        return without_trailing_zeros(&format!("{value:.decimals$}")).into();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", without_trailing_zeros(mantissa), exponent.abs())
}

fn without_trailing_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn rejects_what_lua_rejects() {
        for text in ["", " ", "x", "12x", "1 2", "--1", "+-1", "0x", "0xg", "1e", "0x1p", "e3", "\u{fc}"] {
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
            (1.0 / 3.0, "0.33333333333333"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(format(value), text);
        }
    }
}
