//! The options for TLS.

use super::values::{list, one_of, text};
use super::{OptionSpec, Parameters, Refused, Targets};
use crate::tls::{Settings, Verify, Version};

fn settings(parameters: &mut Parameters) -> &mut Settings {
    parameters.tls.get_or_insert_default()
}

/// The options for TLS.
pub static OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(
        "VRFY",
        "peer|none",
        Targets::Tls,
        "peer",
        "verify the certificate's chain, name and expiry",
        |parameters, value| {
            let verify = one_of(value, &[("peer", Verify::Peer), ("none", Verify::None)])?;
            let settings = settings(parameters);
            // Pins are stricter than both.
            if !matches!(settings.verify, Verify::Pins(_)) {
                settings.verify = verify;
            }
            Ok(())
        },
    ),
    OptionSpec::new(
        "PINS",
        "sha256/<hex>[,...]",
        Targets::Tls,
        "-",
        "accept exactly these certificates, in place of chain, name and expiry",
        |parameters, value| {
            let pins: Option<Vec<_>> = list(value)?.iter().map(|pin| fingerprint(pin)).collect();
            settings(parameters).verify = Verify::Pins(pins.filter(|pins| !pins.is_empty()).ok_or(Refused::Value)?);
            Ok(())
        },
    ),
    OptionSpec::new("TLSV", "1.2|1.3", Targets::Tls, "1.2", "lowest version of TLS", |parameters, value| {
        settings(parameters).lowest = one_of(value, &[("1.2", Version::V12), ("1.3", Version::V13)])?;
        Ok(())
    }),
    OptionSpec::new(
        "SNIH",
        "name",
        Targets::Tls,
        "the host",
        "server name to ask for and to verify",
        |parameters, value| {
            settings(parameters).server_name = Some(text(value)?);
            Ok(())
        },
    ),
    OptionSpec::new(
        "CAFL",
        "file",
        Targets::Tls,
        "-",
        "further certificate authorities: a PEM file of the configured directory",
        |parameters, value| {
            settings(parameters).ca_file = Some(text(value)?);
            Ok(())
        },
    ),
    OptionSpec::new("CERT", "file", Targets::Tls, "-", "the client's certificate, likewise", |parameters, value| {
        settings(parameters).certificate = Some(text(value)?);
        Ok(())
    }),
    OptionSpec::new("PKEY", "file", Targets::Tls, "-", "its private key, likewise", |parameters, value| {
        settings(parameters).private_key = Some(text(value)?);
        Ok(())
    }),
];

/// Reads `sha256/` and 64 hexadecimal digits, between which colons may stand as openssl(1) prints them.
fn fingerprint(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text
        .strip_prefix("sha256/")?
        .chars()
        .filter(|&c| c != ':')
        .map(|c| c.to_digit(16).map(|digit| digit as u8))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
    (digits.len() == 64).then_some(bytes)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints() {
        let plain = format!("sha256/{}ff", "0a".repeat(31));
        let mut expected = [10; 32];
        expected[31] = 255;
        assert_eq!(fingerprint(&plain), Some(expected));
        assert_eq!(fingerprint(&format!("sha256/{}FF", "0A:".repeat(31))), Some(expected));
        for bad in ["", "sha256/", "sha1/00", &plain[..plain.len() - 1], &format!("{plain}00"), "sha256/zz"] {
            assert_eq!(fingerprint(bad), None, "{bad}");
        }
    }
}
