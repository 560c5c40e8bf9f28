//! The options for TLS.

use super::values::{list, one_of, text};
use super::{OptionSpec, Parameters, Refused, Targets};
use crate::tls::{TlsSettings, TlsVersion, Verify};

fn settings_of(parameters: &mut Parameters) -> &mut TlsSettings {
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
            let settings = settings_of(parameters);
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
            settings_of(parameters).verify =
                Verify::pinned(list(value)?.iter().map(Box::as_ref)).ok_or(Refused::Value)?;
            Ok(())
        },
    ),
    OptionSpec::new("TLSV", "1.2|1.3", Targets::Tls, "1.2", "lowest version of TLS", |parameters, value| {
        settings_of(parameters).min_version = one_of(value, &[("1.2", TlsVersion::V12), ("1.3", TlsVersion::V13)])?;
        Ok(())
    }),
    OptionSpec::new(
        "SNIH",
        "name",
        Targets::Tls,
        "the host",
        "server name to ask for and to verify",
        |parameters, value| {
            settings_of(parameters).server_name = Some(text(value)?);
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
            settings_of(parameters).ca_file = Some(text(value)?);
            Ok(())
        },
    ),
    OptionSpec::new("CERT", "file", Targets::Tls, "-", "the client's certificate, likewise", |parameters, value| {
        settings_of(parameters).certificate = Some(text(value)?);
        Ok(())
    }),
    OptionSpec::new("PKEY", "file", Targets::Tls, "-", "its private key, likewise", |parameters, value| {
        settings_of(parameters).private_key = Some(text(value)?);
        Ok(())
    }),
];
