//! What a line of `[serve]` says of the browser's side: which requests are taken, and how. Its target is as of CONN.

use std::time::Duration;

use super::tls_settings::ServerTlsSettings;
use super::{first_word, number, percent};
use crate::websocket::handshake::{MAX_TEXTS, Offer, ServerRules};

/// Silence of a browser after which it is sent a ping, by default: half a minute finds most of the middleboxes that drop
/// silent connections, and browsers that are gone.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// The browser's side of a WebSocket port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServeSettings {
    /// The path, ORIG, SUBP and AUTH: which requests are taken.
    pub rules: ServerRules,
    /// CERT and PKEY: the port speaks TLS (wss). `None`: it does not.
    pub tls: Option<ServerTlsSettings>,
    /// DEFL: compression is accepted.
    pub deflate: bool,
    /// PNGI: silence of a browser after which it is sent a ping. `None`: never.
    pub ping_interval: Option<Duration>,
}

impl ServeSettings {
    /// Parses `[/path] [KEY=value ...]` up to the word CONN, and returns what follows that. The error is the reason, without
    /// secrets.
    pub(crate) fn parse(mut text: &[u8]) -> Result<(Self, &[u8]), String> {
        let mut rules = ServerRules::default();
        let (mut certificate, mut key) = (None, None);
        let (mut deflate, mut ping_interval) = (false, Some(PING_INTERVAL));
        loop {
            let (word, rest) = first_word(text);
            if word.is_empty() {
                return Err("CONN and a target are needed".into());
            }
            if word.eq_ignore_ascii_case(b"CONN") {
                text = rest;
                break;
            }
            text = rest;
            if word.starts_with(b"/") {
                let path = std::str::from_utf8(word).ok().filter(|_| is_path(word));
                rules.path = Some(path.ok_or("the path has a character that no path has")?.into());
                continue;
            }
            let equals = word.iter().position(|&b| b == b'=');
            let (name, value) = equals.map_or((word, None), |at| (&word[..at], Some(&word[at + 1..])));
            let invalid = || format!("Invalid option {}", String::from_utf8_lossy(name));
            let value = value.ok_or_else(invalid)?;
            let known = match name {
                b"ORIG" => list(value).map(|patterns| rules.origins = Some(patterns)),
                b"SUBP" => list(value).and_then(|names| {
                    let mut offer = Offer::default();
                    offer.set_subprotocols(names.iter().map(|name| name.as_bytes())).ok()?;
                    rules.subprotocols = offer.subprotocols;
                    Some(())
                }),
                b"AUTH" => percent::decode(value).and_then(|credentials| {
                    let mut offer = Offer::default();
                    offer.set_auth(&credentials).ok()?;
                    rules.credentials = offer.auth;
                    Some(())
                }),
                b"CERT" => decoded(value).map(|file| certificate = Some(file)),
                b"PKEY" => decoded(value).map(|file| key = Some(file)),
                b"DEFL" => [&b"off"[..], b"on"].iter().position(|word| *word == value).map(|at| deflate = at == 1),
                b"PNGI" => number::parse(value).map(|seconds| ping_interval = super::options::time_limit(seconds, 1.0)),
                _ => None,
            };
            known.ok_or_else(invalid)?;
        }
        let tls = match (certificate, key) {
            (Some(certificate), key) => Some(ServerTlsSettings { certificate, key }),
            (None, Some(_)) => return Err("PKEY needs CERT".into()),
            (None, None) => None,
        };
        Ok((Self { rules, tls, deflate, ping_interval }, text))
    }

    /// The scheme of the port's URL.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "wss" } else { "ws" }
    }

    /// The path as logs and STAT show it: `*` for any.
    pub(crate) fn shown_path(&self) -> &str {
        self.rules.path.as_deref().unwrap_or("*")
    }
}

/// True if a request may have this path.
fn is_path(path: &[u8]) -> bool {
    path.iter().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(byte))
}

/// Percent-encoded UTF-8 text without CR, LF and NUL, and not empty.
fn decoded(value: &[u8]) -> Option<Box<str>> {
    let decoded = percent::decode(value)?;
    let is_line = !decoded.is_empty() && !decoded.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0));
    String::from_utf8(decoded).ok().filter(|_| is_line).map(Into::into)
}

/// Such texts separated by commas, 1 to [`MAX_TEXTS`] of them. A comma inside a text is written as `%2c`.
fn list(value: &[u8]) -> Option<Vec<Box<str>>> {
    let texts: Option<Vec<_>> = value.split(|&b| b == b',').map(decoded).collect();
    texts.filter(|texts| texts.len() <= MAX_TEXTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(ServeSettings, String), String> {
        ServeSettings::parse(text.as_bytes())
            .map(|(settings, rest)| (settings, String::from_utf8(rest.to_vec()).unwrap()))
    }

    #[test]
    fn a_path_and_options_come_before_conn() {
        let (plain, rest) = parse("/dev conn box:23 BLKS=5").unwrap();
        assert_eq!((plain.rules.path.as_deref(), rest.as_str()), (Some("/dev"), "box:23 BLKS=5"));
        assert_eq!((plain.scheme(), plain.deflate, plain.ping_interval), ("ws", false, Some(PING_INTERVAL)));
        assert!(plain.rules.origins.is_none() && plain.rules.credentials.is_none());
        let (all, rest) =
            parse("/a ORIG=http://*.lan,null SUBP=x,y%2e AUTH=u:p%20q CERT=a.pem PKEY=a.key DEFL=on PNGI=0 CONN h:1")
                .unwrap();
        assert_eq!(rest, "h:1");
        assert_eq!(all.rules.origins, Some(vec!["http://*.lan".into(), "null".into()]));
        assert_eq!(all.rules.subprotocols, ["x".into(), "y.".into()]);
        assert_eq!(all.rules.credentials, Some(("u".into(), "p q".into())));
        assert_eq!((all.scheme(), all.deflate, all.ping_interval), ("wss", true, None));
        assert_eq!(all.tls.unwrap().key.as_deref(), Some("a.key"));
        let (any, _) = parse("CONN h:1").unwrap();
        assert_eq!((any.rules.path.as_deref(), any.shown_path()), (None, "*"));
    }

    #[test]
    fn errors_name_the_option_and_no_secret() {
        for (text, error) in [
            ("/a", "CONN and a target are needed"),
            ("", "CONN and a target are needed"),
            ("/a?b CONN h:1", "the path has a character that no path has"),
            ("/a h:1", "Invalid option h:1"),
            ("/a X=y CONN h:1", "Invalid option X"),
            ("/a AUTH=hidden CONN h:1", "Invalid option AUTH"),
            ("/a AUTH=u:%0a CONN h:1", "Invalid option AUTH"),
            ("/a ORIG= CONN h:1", "Invalid option ORIG"),
            ("/a SUBP=a,a CONN h:1", "Invalid option SUBP"),
            ("/a SUBP=%xx CONN h:1", "Invalid option SUBP"),
            ("/a DEFL=maybe CONN h:1", "Invalid option DEFL"),
            ("/a PNGI=x CONN h:1", "Invalid option PNGI"),
            ("/a CERT= CONN h:1", "Invalid option CERT"),
            ("/a PKEY=k CONN h:1", "PKEY needs CERT"),
        ] {
            assert_eq!(parse(text).unwrap_err(), error, "{text}");
        }
    }
}
