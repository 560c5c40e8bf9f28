//! What a line of `[serve]` says of the browser's side: which requests are taken, and how. Its target is as of CONN.

use std::time::Duration;

use super::options::listen;
use super::options::values::text;
use super::tls_settings::ServerTlsSettings;
use super::{first_word, number};
use crate::websocket::handshake::ServerRules;

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
    pub(crate) fn parse(mut line: &[u8]) -> Result<(Self, &[u8]), String> {
        let mut rules = ServerRules::default();
        let (mut certificate, mut key) = (None, None);
        let (mut deflate, mut ping_interval) = (false, Some(PING_INTERVAL));
        loop {
            let (word, rest) = first_word(line);
            if word.is_empty() {
                return Err("CONN and a target are needed".into());
            }
            if word.eq_ignore_ascii_case(b"CONN") {
                line = rest;
                break;
            }
            line = rest;
            if word.starts_with(b"/") {
                let path = listen::path(word).map_err(|_| "the path has a character that no path has")?;
                rules.path = Some(path);
                continue;
            }
            let equals = word.iter().position(|&b| b == b'=');
            let (name, value) = equals.map_or((word, None), |at| (&word[..at], Some(&word[at + 1..])));
            let invalid = || format!("Invalid option {}", String::from_utf8_lossy(name));
            let value = value.filter(|value| !value.is_empty()).ok_or_else(invalid)?;
            let known = match name {
                // A gap in the list is a slip.
                b"ORIG" if value.split(|&b| b == b',').any(<[u8]>::is_empty) => None,
                b"ORIG" => listen::origins(value).ok().map(|patterns| rules.origins = Some(patterns)),
                b"SUBP" => listen::subprotocols(value).ok().map(|names| rules.subprotocols = names),
                b"AUTH" => listen::credentials(value).ok().map(|credentials| rules.credentials = Some(credentials)),
                b"CERT" => text(value).ok().map(|file| certificate = Some(file)),
                b"PKEY" => text(value).ok().map(|file| key = Some(file)),
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
        Ok((Self { rules, tls, deflate, ping_interval }, line))
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
