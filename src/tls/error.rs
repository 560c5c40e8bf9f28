//! [`TlsError`]: why a TLS connection failed, in words for a plugin's author and for the administrator of the box.
//!
//! No text depends on `Debug` alone: a build with `-Zfmt-debug=none` loses details in brackets or after a colon, and no
//! message.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error, OtherError, PeerIncompatible, PeerMisbehaved};

use super::verify::CertificateRefusal;
use super::{TlsRole, TlsVersion};

/// Names of a certificate that an error lists at most.
const MAX_NAMES: usize = 4;
/// Length of an error in characters at most. Parts of it come from the peer.
const MAX_LENGTH: usize = 300;
/// What is supported, for errors that may come from a server that supports nothing of it.
const SUPPORTED: &str = "supported are TLS 1.2 and 1.3 with ECDHE, AES-GCM or ChaCha20-Poly1305, and RSA, P-256, P-384 or \
                         Ed25519 keys";
/// What is supported of clients.
const SUPPORTED_CLIENTS: &str = "supported are TLS 1.2 and 1.3 with ECDHE, and AES-GCM or ChaCha20-Poly1305";
/// What helps with a server that supports nothing of it. docs/tls.md has an example.
pub(super) const STUNNEL: &str = "stunnel can stand before it";
/// The earliest plausible time, 2024-01-01. A box without a battery-backed clock starts with an earlier one.
const MIN_PLAUSIBLE_TIME: Duration = Duration::from_secs(1_704_067_200);

/// Why there is no TLS connection. Displays as one line of printable ASCII that begins with `SSL_ERROR`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsError {
    message: Box<str>,
}

impl TlsError {
    /// An error with this message. Characters other than printable ASCII become `?`, and a long message is cut.
    pub(crate) fn new(message: impl AsRef<str>) -> Self {
        let printable = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
        Self { message: message.as_ref().chars().take(MAX_LENGTH).map(printable).collect::<String>().into() }
    }

    /// The message up to its first comma: without the parts that differ from one attempt to the next, such as the time.
    pub(crate) fn summary(&self) -> &str {
        self.message.split(", ").next().unwrap_or_default()
    }

    /// The error for an error of rustls. `role`: our end. `negotiated`: the version of TLS that the server has chosen, if it
    /// has.
    pub(super) fn from_rustls(error: &Error, role: TlsRole, negotiated: Option<TlsVersion>) -> Self {
        Self::from_rustls_at(error, role, negotiated, SystemTime::now())
    }

    /// The error for a peer that has closed during the handshake. The arguments are those of [`TlsError::from_rustls`].
    pub(super) fn closed(role: TlsRole, negotiated: Option<TlsVersion>) -> Self {
        // A client has seen the certificate then.
        let hint = if role == TlsRole::Server && negotiated.is_some() { ": it may refuse our certificate" } else { "" };
        Self::new(format!("closed by the {} during the handshake{hint}", role.peer()))
    }

    fn from_rustls_at(error: &Error, role: TlsRole, negotiated: Option<TlsVersion>, now: SystemTime) -> Self {
        let peer = role.peer();
        Self::new(match error {
            Error::InvalidCertificate(CertificateError::Other(OtherError(other))) => {
                match other.downcast_ref::<CertificateRefusal>() {
                    Some(refusal) => refusal.message(negotiated),
                    None => other.to_string(),
                }
            }
            Error::InvalidCertificate(error) => certificate_message(error, now),
            Error::AlertReceived(alert) => match role {
                TlsRole::Client => alert_of_server(*alert, negotiated),
                TlsRole::Server => alert_of_client(*alert),
            },
            Error::PeerIncompatible(
                PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::SupportedVersionsExtensionRequired,
            ) => match role {
                TlsRole::Client => format!("no common version of TLS: the server's is too old; {STUNNEL}"),
                TlsRole::Server => format!("the client is too old: {SUPPORTED_CLIENTS}"),
            },
            // RFC 5246 section 7.4.1.4.1: TLS 1.1 has no such extension, and rustls looks at it before the version.
            Error::PeerIncompatible(PeerIncompatible::SignatureAlgorithmsExtensionRequired)
                if role == TlsRole::Server =>
            {
                format!("the client is too old: {SUPPORTED_CLIENTS}")
            }
            Error::PeerIncompatible(detail) => {
                let message = with_detail("no common ground", detail);
                match role {
                    TlsRole::Client => format!("{message}: {SUPPORTED}; {STUNNEL}"),
                    TlsRole::Server => format!("{message}: {SUPPORTED_CLIENTS}"),
                }
            }
            Error::PeerMisbehaved(
                PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme
                | PeerMisbehaved::SignedKxWithWrongAlgorithm
                | PeerMisbehaved::SelectedUnofferedCipherSuite
                | PeerMisbehaved::SelectedUnofferedKxGroup
                | PeerMisbehaved::IllegalHelloRetryRequestWithUnofferedNamedGroup,
            ) => format!("the server chose what was not offered: {SUPPORTED}; {STUNNEL}"),
            Error::PeerMisbehaved(detail) => with_detail(&format!("the {peer} broke the protocol"), detail),
            Error::InvalidMessage(_) => format!("the {peer} sent an invalid TLS message"),
            Error::PeerSentOversizedRecord => format!("the {peer} sent a TLS message that is too long"),
            Error::FailedToGetRandomBytes => "this box gives no random bytes".into(),
            error => error.to_string(),
        })
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SSL_ERROR {}", self.message)
    }
}

impl std::error::Error for TlsError {}

/// `message: detail`, or `message` alone if the build leaves `Debug` output empty.
fn with_detail(message: &str, detail: &dyn fmt::Debug) -> String {
    let detail = format!("{detail:?}");
    if detail.is_empty() { message.into() } else { format!("{message}: {detail}") }
}

/// Why a certificate is refused, in words.
pub(super) fn certificate_message(error: &CertificateError, now: SystemTime) -> String {
    match error {
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("certificate expired at {}, {}", Timestamp(*not_after), clock_message(now))
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("certificate not valid before {}, {}", Timestamp(*not_before), clock_message(now))
        }
        CertificateError::Expired => format!("certificate expired, {}", clock_message(now)),
        CertificateError::NotValidYet => format!("certificate not yet valid, {}", clock_message(now)),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names = presented[..presented.len().min(MAX_NAMES)].join(", ");
            let names = if names.is_empty() { "no name" } else { &names };
            let more = if presented.len() > MAX_NAMES { ", ..." } else { "" };
            format!("certificate is not for {}, but for {names}{more}", expected.to_str())
        }
        CertificateError::NotValidForName => "certificate is not for this name".into(),
        CertificateError::BadEncoding => "certificate cannot be read".into(),
        CertificateError::BadSignature => "bad signature".into(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "certificate is not for servers".into()
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "certificate's kind of key or signature is not supported".into()
        }
        CertificateError::Other(OtherError(error)) => error.to_string(),
        error => with_detail("certificate refused", error),
    }
}

/// What an alert of the server says. `negotiated`: see [`TlsError::from_rustls`].
fn alert_of_server(alert: AlertDescription, negotiated: Option<TlsVersion>) -> String {
    use AlertDescription as Alert;
    match alert {
        Alert::ProtocolVersion => format!("no common version of TLS: the server refuses ours; {STUNNEL}"),
        // RFC 5246 section 7.4.6: so a server says that it wants a certificate. What it agreed to stands by then.
        Alert::HandshakeFailure if negotiated.is_some() => {
            "the server breaks off the handshake (handshake_failure): it may want a certificate from us".into()
        }
        Alert::HandshakeFailure | Alert::InsufficientSecurity => {
            let name = if alert == Alert::HandshakeFailure { "handshake_failure" } else { "insufficient_security" };
            format!("the server finds no common ground ({name}): {SUPPORTED}; {STUNNEL}")
        }
        Alert::CertificateRequired => "the server wants a certificate from us".into(),
        alert if is_about_certificate(alert) => {
            format!("the server refuses our certificate ({})", alert_name(alert))
        }
        Alert::UnrecognisedName => "the server knows no such name (unrecognized_name)".into(),
        _ => format!("the server says {}", alert_name(alert)),
    }
}

/// What an alert of a client says.
fn alert_of_client(alert: AlertDescription) -> String {
    use AlertDescription as Alert;
    let name = alert_name(alert);
    match alert {
        Alert::ProtocolVersion => "no common version of TLS: the client refuses ours".into(),
        Alert::HandshakeFailure | Alert::InsufficientSecurity => {
            format!("the client finds no common ground ({name}): {SUPPORTED_CLIENTS}")
        }
        alert if is_about_certificate(alert) => format!("the client refuses our certificate ({name})"),
        _ => format!("the client says {name}"),
    }
}

/// True if an alert says that our certificate is refused.
fn is_about_certificate(alert: AlertDescription) -> bool {
    use AlertDescription as Alert;
    matches!(
        alert,
        Alert::UnknownCA
            | Alert::BadCertificate
            | Alert::CertificateUnknown
            | Alert::CertificateExpired
            | Alert::CertificateRevoked
            | Alert::UnsupportedCertificate
            | Alert::AccessDenied
    )
}

/// The name of an alert as rustls has it, or its number.
fn alert_name(alert: AlertDescription) -> String {
    alert.as_str().map_or_else(|| format!("alert {}", u8::from(alert)), Into::into)
}

/// The time of the box's clock, and whether it is plausible.
fn clock_message(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let date = Timestamp(UnixTime::since_unix_epoch(since));
    if since < MIN_PLAUSIBLE_TIME {
        format!("but the clock of this box says {date}: it is not set yet")
    } else {
        format!("the clock says {date}")
    }
}

/// A point in time; displays in the form of RFC 3339, in UTC.
struct Timestamp(UnixTime);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (year, month, day) = civil_from_days(seconds / 86400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        write!(f, "{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// Returns year, month and day of the date `days` after 1970-01-01. Howard Hinnant's algorithm, which counts in years that
/// begin in March.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_rfc_3339() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_704_067_200, "2024-01-01T00:00:00Z"),
            (4_102_444_799, "2099-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(Timestamp(UnixTime::since_unix_epoch(Duration::from_secs(seconds))).to_string(), date);
        }
    }

    #[test]
    fn an_implausible_clock_is_named_in_the_error() {
        let error: Error = CertificateError::NotValidYetContext {
            time: UnixTime::since_unix_epoch(Duration::from_secs(60)),
            not_before: UnixTime::since_unix_epoch(MIN_PLAUSIBLE_TIME),
        }
        .into();
        assert_eq!(
            TlsError::from_rustls_at(&error, TlsRole::Client, None, UNIX_EPOCH + Duration::from_secs(60)).to_string(),
            "SSL_ERROR certificate not valid before 2024-01-01T00:00:00Z, but the clock of this box says \
             1970-01-01T00:01:00Z: it is not set yet"
        );
        assert_eq!(
            TlsError::from_rustls_at(&error, TlsRole::Client, None, UNIX_EPOCH + MIN_PLAUSIBLE_TIME).to_string(),
            "SSL_ERROR certificate not valid before 2024-01-01T00:00:00Z, the clock says 2024-01-01T00:00:00Z"
        );
    }

    #[test]
    fn messages_are_one_short_line() {
        let error = TlsError::new(format!("a\r\nb\u{1b}{}", "x".repeat(10_000))).to_string();
        assert!(error.starts_with("SSL_ERROR a??b?xxx") && error.len() <= MAX_LENGTH + 10, "{error}");
    }
}
