//! What went wrong with TLS, in words for a plugin's author and for the owner of the box.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error, OtherError, PeerIncompatible};

/// As many of a certificate's names are told.
const MOST_NAMES: usize = 4;
/// As long may a line get. What comes from the other side is not trusted to be short.
const LONGEST: usize = 300;
/// 2024-01-01. A clock that says less has not been set since the box was started: it has no battery.
const SENSIBLE: Duration = Duration::from_secs(1_704_067_200);

/// Why there is no TLS connection: one line, beginning with `SSL_ERROR`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    what: Box<str>,
}

impl Failure {
    /// `what` went wrong. Only printable characters of it are told.
    pub fn new(what: impl AsRef<str>) -> Self {
        let printable = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
        Self { what: what.as_ref().chars().take(LONGEST).map(printable).collect::<String>().into() }
    }

    /// What it is, without what differs from one time to the next.
    pub fn gist(&self) -> &str {
        self.what.split(", ").next().unwrap_or_default()
    }

    /// What rustls has to say.
    pub fn of(error: &Error) -> Self {
        Self::at(error, SystemTime::now())
    }

    fn at(error: &Error, now: SystemTime) -> Self {
        Self::new(match error {
            Error::InvalidCertificate(error) => of_certificate(error, now),
            Error::AlertReceived(alert) => of_alert(*alert),
            Error::PeerIncompatible(
                PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::SupportedVersionsExtensionRequired,
            ) => "no common version of TLS: the server's is too old".into(),
            Error::PeerIncompatible(what) => format!("no common ground: {what:?}"),
            Error::InvalidMessage(_) => "the server does not speak TLS, or wrongly".into(),
            Error::FailedToGetRandomBytes => "this box gives no randomness".into(),
            error => error.to_string(),
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SSL_ERROR {}", self.what)
    }
}

impl std::error::Error for Failure {}

/// What is wrong with the certificate and key that a plugin names.
pub fn of_client_certificate(error: &Error) -> Failure {
    match error {
        Error::InconsistentKeys(_) => Failure::new("CERT and PKEY do not belong together"),
        error => Failure::new(format!("CERT and PKEY: {error}")),
    }
}

/// What the server said instead of TLS, judged by its first bytes.
pub fn of_first_bytes(bytes: &[u8]) -> Option<Failure> {
    if bytes.starts_with(b"HTTP/") {
        return Some(Failure::new("the server speaks plain HTTP on this port"));
    }
    if b"HTTP/".starts_with(bytes) {
        return None;
    }
    // Handshake and alert, the only things that a server may begin with.
    let is_tls = matches!(bytes, [0x15 | 0x16] | [0x15 | 0x16, 3, ..]);
    (!is_tls).then(|| Failure::new("the server does not speak TLS on this port"))
}

fn of_certificate(error: &CertificateError, now: SystemTime) -> String {
    match error {
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("certificate expired at {}, {}", Stamp(*not_after), clock(now))
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("certificate not valid before {}, {}", Stamp(*not_before), clock(now))
        }
        CertificateError::Expired => format!("certificate expired, {}", clock(now)),
        CertificateError::NotValidYet => format!("certificate not yet valid, {}", clock(now)),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<&str> = presented.iter().take(MOST_NAMES).map(|name| bare(name)).collect();
            let more = if presented.len() > MOST_NAMES { ", ..." } else { "" };
            let names = if names.is_empty() { "nobody".into() } else { names.join(", ") };
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
        error => format!("certificate refused: {error}"),
    }
}

/// webpki says `DnsName("example.com")`.
fn bare(name: &str) -> &str {
    name.split_once('(').map_or(name, |(_, rest)| rest.trim_end_matches(')')).trim_matches('"')
}

fn of_alert(alert: AlertDescription) -> String {
    use AlertDescription as Alert;
    match alert {
        Alert::ProtocolVersion => "no common version of TLS: the server refuses ours".into(),
        Alert::HandshakeFailure => "the server finds no common ground (handshake_failure)".into(),
        Alert::CertificateRequired => "the server wants a certificate from us".into(),
        Alert::UnknownCA
        | Alert::BadCertificate
        | Alert::CertificateUnknown
        | Alert::CertificateExpired
        | Alert::CertificateRevoked
        | Alert::UnsupportedCertificate
        | Alert::AccessDenied => {
            format!("the server refuses our certificate ({alert:?})")
        }
        Alert::UnrecognisedName => "the server knows no such name (unrecognized_name)".into(),
        alert => format!("the server says {alert:?}"),
    }
}

/// What the clock says, and whether to believe it.
fn clock(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let date = Stamp(UnixTime::since_unix_epoch(since));
    if since < SENSIBLE {
        format!("but the clock of this box says {date}: it is not set yet")
    } else {
        format!("the clock says {date}")
    }
}

/// A point in time as RFC 3339 writes it, in UTC.
struct Stamp(UnixTime);

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (year, month, day) = civil(seconds / 86400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        write!(f, "{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// The date that is `days` after 1970-01-01, counted in years that begin in March (Howard Hinnant's algorithm).
fn civil(days: u64) -> (u64, u64, u64) {
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
    fn dates() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_704_067_200, "2024-01-01T00:00:00Z"),
            (4_102_444_799, "2099-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(Stamp(UnixTime::since_unix_epoch(Duration::from_secs(seconds))).to_string(), date);
        }
    }

    #[test]
    fn a_box_that_has_not_set_its_clock_says_so() {
        let error: Error = CertificateError::NotValidYetContext {
            time: UnixTime::since_unix_epoch(Duration::from_secs(60)),
            not_before: UnixTime::since_unix_epoch(SENSIBLE),
        }
        .into();
        assert_eq!(
            Failure::at(&error, UNIX_EPOCH + Duration::from_secs(60)).to_string(),
            "SSL_ERROR certificate not valid before 2024-01-01T00:00:00Z, but the clock of this box says \
             1970-01-01T00:01:00Z: it is not set yet"
        );
        assert_eq!(
            Failure::at(&error, UNIX_EPOCH + SENSIBLE).to_string(),
            "SSL_ERROR certificate not valid before 2024-01-01T00:00:00Z, the clock says 2024-01-01T00:00:00Z"
        );
    }

    #[test]
    fn what_the_other_side_says_makes_no_lines_and_no_volumes() {
        let error = Failure::new(format!("a\r\nb\u{1b}{}", "x".repeat(10_000))).to_string();
        assert!(error.starts_with("SSL_ERROR a??b?xxx") && error.len() <= LONGEST + 10, "{error}");
        assert_eq!(bare("DnsName(\"a.example\")"), "a.example");
        assert_eq!(bare("IpAddress(127.0.0.1)"), "127.0.0.1");
        assert_eq!(bare("odd"), "odd");
    }

    #[test]
    fn first_bytes() {
        for (bytes, words) in [
            (&b"HTTP/1.1 400 Bad Request\r\n"[..], Some("plain HTTP")),
            (b"SSH-2.0-dropbear\r\n", Some("does not speak TLS")),
            (b"\x16\x02\x00\x00\x01", Some("does not speak TLS")),
            (b"\x16\x03\x03\x00\x01", None),
            (b"\x15\x03\x03\x00\x02", None),
            (b"\x16", None),
            (b"HTT", None),
            (b"", None),
        ] {
            let told = of_first_bytes(bytes).map(|failure| failure.to_string());
            match words {
                Some(words) => assert!(told.as_ref().is_some_and(|told| told.contains(words)), "{bytes:?}: {told:?}"),
                None => assert_eq!(told, None, "{bytes:?}"),
            }
        }
    }
}
