//! The options for TLS.

use super::OptionDefault::{Unset, Value};
use super::values::{list, one_of, text};
use super::{OptionScope, OptionSpec, Parameters, ValueError, apply_defaults};
use crate::protocol::tls_settings::{TlsSettings, TlsVerify, TlsVersion};

impl Default for TlsSettings {
    /// The settings that the default texts of the options give.
    fn default() -> Self {
        let unset = Self {
            verify: TlsVerify::None,
            min_version: TlsVersion::V12,
            server_name: None,
            ca_file: None,
            certificate: None,
            private_key: None,
        };
        let mut parameters = Parameters { tls: Some(Box::new(unset)), ..Parameters::UNSET };
        apply_defaults(OPTIONS, &mut parameters);
        *parameters.tls.unwrap_or_else(|| unreachable!())
    }
}

fn settings(parameters: &mut Parameters) -> &mut TlsSettings {
    parameters.tls.get_or_insert_default()
}

/// The options for TLS.
pub(super) static OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(
        "VRFY",
        "peer|none",
        OptionScope::Tls,
        Value("peer"),
        "verify the certificate's chain, name and validity period",
        |parameters, value| {
            let verify = one_of(value, &[("peer", TlsVerify::Peer), ("none", TlsVerify::None)])?;
            let settings = settings(parameters);
            // PINS is stricter than both values, and holds in any order of the options.
            if !matches!(settings.verify, TlsVerify::Pins(_)) {
                settings.verify = verify;
            }
            Ok(())
        },
    )
    .connects(),
    OptionSpec::new(
        "PINS",
        "sha256/<hex>[,...]",
        OptionScope::Tls,
        Unset("-"),
        "accept only certificates with these fingerprints; their chain, name and validity period are not verified",
        |parameters, value| {
            settings(parameters).verify =
                TlsVerify::pinned(list(value)?.iter().map(Box::as_ref)).ok_or(ValueError::Invalid)?;
            Ok(())
        },
    )
    .connects(),
    OptionSpec::new("TLSV", "1.2|1.3", OptionScope::Tls, Value("1.2"), "lowest version of TLS", |parameters, value| {
        settings(parameters).min_version = one_of(value, &[("1.2", TlsVersion::V12), ("1.3", TlsVersion::V13)])?;
        Ok(())
    })
    .connects(),
    OptionSpec::new(
        "SNIH",
        "name",
        OptionScope::Tls,
        Unset("the host"),
        "server name to request and to verify",
        |parameters, value| {
            settings(parameters).server_name = Some(text(value)?);
            Ok(())
        },
    )
    .connects(),
    OptionSpec::new(
        "CAFL",
        "file",
        OptionScope::Tls,
        Unset("-"),
        "additional certificate authorities: a PEM file in the configured directory",
        |parameters, value| {
            settings(parameters).ca_file = Some(text(value)?);
            Ok(())
        },
    )
    .connects(),
    OptionSpec::new(
        "CERT",
        "file",
        OptionScope::Tls,
        Unset("-"),
        "client certificate: a PEM file in the configured directory",
        |parameters, value| {
            settings(parameters).certificate = Some(text(value)?);
            Ok(())
        },
    )
    .connects(),
    OptionSpec::new(
        "PKEY",
        "file",
        OptionScope::Tls,
        Unset("-"),
        "private key of the client certificate: a PEM file in the configured directory",
        |parameters, value| {
            settings(parameters).private_key = Some(text(value)?);
            Ok(())
        },
    )
    .connects(),
];
