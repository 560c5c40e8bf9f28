//! [`ServerRules`]: which requests a listener accepts.

use std::fmt;

use super::refusal::Refusal;
use super::request::UpgradeRequest;

/// Which requests a listener accepts (`PATH`, `ORIG`, `SUBP`, `AUTH`).
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct ServerRules {
    /// The only path, without a query. `None`: any.
    pub path: Option<Box<str>>,
    /// Patterns of origins, see [`UpgradeRequest::is_origin_allowed`]. `None`: [`UpgradeRequest::is_same_origin`].
    pub origins: Option<Vec<Box<str>>>,
    /// The subprotocols, in the order of preference. A client must offer one of them, if there are any.
    pub subprotocols: Vec<Box<str>>,
    /// User and password of basic authentication. `None`: no check.
    pub credentials: Option<(Box<str>, Box<str>)>,
}

impl ServerRules {
    /// True if the listener has the path of `request`.
    pub(crate) fn has_path(&self, request: &UpgradeRequest) -> bool {
        self.path.as_deref().is_none_or(|path| path == request.path())
    }

    /// Returns the subprotocol to choose, if the listener has any; or why `request` is refused.
    pub(crate) fn check(&self, request: &UpgradeRequest) -> Result<Option<&str>, Refusal> {
        if !self.has_path(request) {
            return Err(Self::no_such_path());
        }
        // RFC 6455 section 10.2: a server that is not meant for every page SHOULD verify the origin.
        let is_origin_allowed = match &self.origins {
            Some(patterns) => request.is_origin_allowed(patterns),
            None => request.is_same_origin(),
        };
        if !is_origin_allowed {
            return Err(Refusal::new(403, "Pages of this origin may not connect here."));
        }
        if let Some((user, password)) = &self.credentials
            && !request.has_credentials(user, password)
        {
            return Err(Refusal::new(401, "A user name and a password are needed."));
        }
        match request.choose(&self.subprotocols) {
            None if !self.subprotocols.is_empty() => {
                Err(Refusal::new(400, "The client offers no subprotocol of this port."))
            }
            chosen => Ok(chosen),
        }
    }

    /// The refusal of a request for a path that no listener of the port has.
    pub(crate) fn no_such_path() -> Refusal {
        Refusal::new(404, "This port has no such path.")
    }

    /// Bytes of memory held.
    pub(crate) fn held(&self) -> usize {
        let list = |texts: &[Box<str>]| texts.iter().map(|text| text.len() + size_of::<Box<str>>()).sum::<usize>();
        let credentials = self.credentials.as_ref().map_or(0, |(user, password)| user.len() + password.len());
        let path = self.path.as_deref().map_or(0, str::len);
        path + self.origins.as_deref().map_or(0, list) + list(&self.subprotocols) + credentials
    }
}

impl fmt::Debug for ServerRules {
    /// Without credentials, which are secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerRules")
            .field("path", &self.path)
            .field("origins", &self.origins)
            .field("subprotocols", &self.subprotocols)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pieces::head_of;
    use crate::websocket::handshake::{RequestProgress, ServerHandshake};

    fn request(lines: &[&str]) -> Box<UpgradeRequest> {
        let fixed = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"];
        let key = ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="];
        let head = head_of(&[lines, &fixed, &key].concat(), "\r\n");
        match ServerHandshake::new().handle_input(&head) {
            RequestProgress::Received(request) => request,
            other => panic!("{other:?}"),
        }
    }

    fn refusal(rules: &ServerRules, lines: &[&str]) -> u16 {
        rules.check(&request(lines)).unwrap_err().code()
    }

    const PLAIN: [&str; 2] = ["GET /a?b HTTP/1.1", "Host: box:8080"];

    fn plain_with(line: &str) -> [&str; 3] {
        [PLAIN[0], PLAIN[1], line]
    }

    #[test]
    fn the_path_is_compared_exactly_and_without_the_query() {
        let request = request(&PLAIN);
        for (path, has) in
            [(None, true), (Some("/a"), true), (Some("/"), false), (Some("/A"), false), (Some("/a/"), false)]
        {
            let rules = ServerRules { path: path.map(Into::into), ..ServerRules::default() };
            assert_eq!(rules.has_path(&request), has, "{path:?}");
            assert_eq!(rules.check(&request).map_err(|refusal| refusal.code()), if has { Ok(None) } else { Err(404) });
        }
    }

    #[test]
    fn without_patterns_a_page_must_be_of_the_same_host_and_port() {
        let rules = ServerRules::default();
        for (host, origin, allowed) in [
            ("box:8080", "http://BOX:8080", true),
            ("box", "http://box", true),
            ("box:80", "http://box", true),
            ("box:443", "https://box", true),
            ("box", "https://box", true),
            ("[::1]:8080", "http://[::1]:8080", true),
            ("box:8080", "http://box", false),
            ("box:8080", "http://box:80801", false),
            ("box:443", "http://box", false),
            ("box:8080", "null", false),
            ("box:8080", "http://evil", false),
            ("192.168.0.5:8080", "http://192.168.0.5:8080", true),
            ("Box.LAN:8080", "http://box.lan:8080", true),
            ("box.home.arpa.", "http://box.home.arpa.", true),
            ("box.home.example:443", "https://box.home.example", true),
            // Its name may resolve to this machine (DNS rebinding).
            ("evil.example:8080", "http://evil.example:8080", false),
            ("192.168.0.5.evil.example:8080", "http://192.168.0.5.evil.example:8080", false),
            ("lan.example", "http://lan.example", false),
            ("home.arpa.example", "http://home.arpa.example", false),
            ("box:8080", "", false),
            ("box:8080", "box:8080", false),
        ] {
            let (host, origin) = (format!("Host: {host}"), format!("Origin: {origin}"));
            let request = request(&[PLAIN[0], &host, &origin]);
            assert_eq!(rules.check(&request).is_ok(), allowed, "{host} {origin}");
        }
        assert_eq!(rules.check(&request(&PLAIN)), Ok(None), "no browser");
    }

    #[test]
    fn origins_match_patterns() {
        let rules = ServerRules { origins: Some(vec!["http://*.lan".into()]), ..ServerRules::default() };
        assert_eq!(rules.check(&request(&plain_with("Origin: http://a.lan"))), Ok(None));
        assert_eq!(refusal(&rules, &plain_with("Origin: http://box:8080")), 403, "not even of the same host");
        let any = ServerRules { origins: Some(vec!["*".into()]), ..ServerRules::default() };
        assert_eq!(any.check(&request(&plain_with("Origin: null"))), Ok(None));
    }

    #[test]
    fn credentials_are_needed_where_they_are_set() {
        let rules = ServerRules { credentials: Some(("u".into(), "p:q".into())), ..ServerRules::default() };
        assert_eq!(rules.check(&request(&plain_with("Authorization: Basic dTpwOnE="))), Ok(None));
        assert_eq!(refusal(&rules, &plain_with("Authorization: Basic dTpw")), 401);
        assert_eq!(refusal(&rules, &PLAIN), 401);
        let shown = format!("{rules:?}");
        assert!(!shown.contains("p:q"), "{shown}");
    }

    #[test]
    fn the_first_subprotocol_that_the_client_offers_is_chosen() {
        let offer = plain_with("Sec-WebSocket-Protocol: a, b");
        let rules = |subprotocols: &[&str]| {
            let subprotocols = subprotocols.iter().map(|&name| name.into()).collect();
            ServerRules { subprotocols, ..ServerRules::default() }
        };
        assert_eq!(rules(&["x", "b", "a"]).check(&request(&offer)), Ok(Some("b")));
        assert_eq!(rules(&[]).check(&request(&offer)), Ok(None));
        assert_eq!(refusal(&rules(&["x"]), &offer), 400);
        assert_eq!(refusal(&rules(&["x"]), &PLAIN), 400);
    }

    #[test]
    fn the_path_is_checked_before_the_credentials() {
        let rules = ServerRules {
            path: Some("/x".into()),
            origins: Some(Vec::new()),
            credentials: Some(("u".into(), "p".into())),
            ..ServerRules::default()
        };
        assert_eq!(refusal(&rules, &plain_with("Origin: http://evil")), 404);
        let rules = ServerRules { path: None, ..rules };
        assert_eq!(
            refusal(&rules, &plain_with("Origin: http://evil")),
            403,
            "a foreign page is not asked for a password"
        );
    }
}
