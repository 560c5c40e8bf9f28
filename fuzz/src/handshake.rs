//! The opening handshake: any input from a server, a client or a plugin, in any pieces, has the same result. Accepted
//! options of a plugin make exactly one request, which a server reads as intended.
//!
//! Input: the split, the side that is fuzzed, the offer, and the bytes.

use sockproxyd::testing::pieces::{read_request, read_response};
use sockproxyd::websocket::handshake::{
    AcceptOptions, ClientHandshake, HandshakeProgress, MAX_FIELDS, MAX_HEAD, Offer, Refusal, RequestProgress,
    ServerHandshake, UpgradeRequest, Url,
};

use super::input::{Input, expand, pieces};

/// The nonce of RFC 6455 section 1.3, and the answer to it.
const NONCE: [u8; 16] = *b"the sample nonce";
const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The body of the target.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (split, kind, flags) = (input.byte(), input.byte(), input.byte());
    let text = expand(input.rest());
    match kind % 4 {
        0 => client(&text, split, flags),
        1 => server(&text, split, flags),
        2 => urls(&text),
        _ => offers(&text, flags),
    }
}

/// Fuzzes the response of a server.
fn client(text: &[u8], split: u8, flags: u8) {
    let mut offer = Offer { deflate: flags & 1 != 0, keep_head: true, ..Offer::default() };
    if flags & 2 != 0 {
        offer.set_subprotocols([&b"chat"[..], b"superchat"]).expect("two tokens");
    }
    let url = Url::parse(b"ws://h/").expect("a URL");
    let read = |pieces: &[&[u8]]| {
        let mut handshake = ClientHandshake::new(&url, &offer, NONCE, true);
        handshake.handle_transmitted(usize::MAX);
        read_response(&mut handshake, pieces)
    };
    let whole = read(&[text]);
    assert_eq!(read(&pieces(text, split)), whole, "the result depends on the split");
    match whole {
        HandshakeProgress::Pending => assert!(text.len() <= MAX_HEAD, "{} bytes are buffered", text.len()),
        HandshakeProgress::Redirect { location } => {
            if let Ok(url) = url.join(&location) {
                check_url(&url);
            }
        }
        HandshakeProgress::Failed(failure) => assert!(is_line(&failure.to_string()), "{failure:?}"),
        HandshakeProgress::Upgraded(upgraded) => {
            let head = upgraded.head.expect("keep_head was set");
            assert!(text.ends_with(&[&head[..], &upgraded.rest].concat()), "bytes are lost between head and rest");
            assert!(
                head.windows(ACCEPT.len()).any(|window| window == ACCEPT),
                "the response lacks the right Sec-WebSocket-Accept"
            );
            assert!(upgraded.subprotocol.is_none_or(|chosen| offer.subprotocols.contains(&chosen)));
            if let Some(deflate) = upgraded.deflate {
                assert!(offer.deflate);
                assert!((8..=15).contains(&deflate.peer_window_bits) && (8..=15).contains(&deflate.own_window_bits));
            }
        }
    }
}

/// Fuzzes the request of a client.
fn server(text: &[u8], split: u8, flags: u8) {
    let read = |pieces: &[&[u8]]| {
        let mut handshake = ServerHandshake::new();
        let arrival = read_request(&mut handshake, pieces);
        (arrival, handshake)
    };
    let (whole, mut handshake) = read(&[text]);
    assert_eq!(read(&pieces(text, split)).0, whole, "the result depends on the split");
    match whole {
        RequestProgress::Pending => {
            assert!(text.trim_ascii_start().len() <= MAX_HEAD, "{} bytes are buffered", text.len());
            assert!(handshake.transmit().is_empty());
        }
        RequestProgress::Refused(refusal) => {
            assert!(is_line(&refusal.to_string()), "{refusal:?}");
            assert_eq!(handshake.transmit().is_empty(), refusal.code() == 0);
        }
        RequestProgress::Received(request) => {
            assert!(
                text.ends_with(&[&request.head[..], &request.rest].concat()),
                "bytes are lost between head and rest"
            );
            assert!(request.resource.starts_with('/') && request.path().starts_with('/'));
            let answer = AcceptOptions {
                subprotocol: request.subprotocols.last().map(|name| &**name),
                deflate: flags & 1 != 0,
                ..AcceptOptions::default()
            };
            let deflate = handshake.accept(&request, &answer).expect("it was offered");
            assert!(deflate.is_none() || answer.deflate);
            check_head(handshake.transmit(), "HTTP/1.1 101 Switching Protocols");
            handshake.refuse(Refusal::with_phrase(403, request.resource.as_bytes()));
            assert!(handshake.transmit().starts_with(b"HTTP/1.1 403 /"));
        }
    }
}

/// Fuzzes a URL and, after a NUL, the Location of a redirect.
fn urls(text: &[u8]) {
    let mut parts = text.splitn(2, |&byte| byte == 0);
    let (first, second) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let Ok(url) = Url::parse(first) else { return };
    check_url(&url);
    let Ok(location) = std::str::from_utf8(second) else { return };
    if let Ok(next) = url.join(location) {
        check_url(&next);
        assert!(url.same_host(&next) || location.contains("//"), "only an authority changes the host");
        assert!(!(url.secure && !next.secure && url.same_host(&next)), "a redirect from wss to ws");
    }
}

/// Fuzzes the options of a plugin: the server must read what was set.
fn offers(text: &[u8], flags: u8) {
    let mut offer = Offer { deflate: flags & 1 != 0, ..Offer::default() };
    let mut lines = text.split(|&byte| byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (auth, origin, agent, subprotocols) = (line(), line(), line(), line());
    let is_authorized = offer.set_auth(auth).is_ok();
    let has_origin = flags & 2 != 0 && offer.set_origin(origin).is_ok();
    let _ = offer.set_user_agent(agent);
    let _ = offer.set_subprotocols(subprotocols.split(|&byte| byte == b','));
    for header in lines {
        let _ = offer.add_header(header);
    }
    let is = |name: &'static str| move |(theirs, _): &(Box<str>, Box<str>)| theirs.eq_ignore_ascii_case(name);
    let replaces = |name| offer.headers.iter().any(is(name));
    let url = Url::parse(b"wss://[::1]:8443/a?b").expect("a URL");
    for trusted in [true, false] {
        let handshake = ClientHandshake::new(&url, &offer, NONCE, trusted);
        check_head(handshake.transmit(), "GET /a?b HTTP/1.1");
        // A server may refuse these requests.
        let odd_host = offer.headers.iter().any(|header| is("Host")(header) && header.1.is_empty());
        let origins = offer.headers.iter().filter(|header| is("Origin")(header)).count();
        let many = handshake.transmit().len() > MAX_HEAD || offer.headers.len() + 10 > MAX_FIELDS;
        if trusted && (odd_host || origins > 1) || many {
            continue;
        }
        let request = read_one_request(handshake.transmit());
        assert_eq!(request.resource, url.resource);
        assert_eq!(request.subprotocols, offer.subprotocols);
        if !(trusted && replaces("Host")) {
            assert_eq!(*request.host, url.host_header());
        }
        if !(trusted && replaces("Origin")) {
            let origin = offer.origin.as_deref().filter(|_| has_origin).map(|origin| origin.trim_matches([' ', '\t']));
            assert_eq!(request.origin.as_deref(), origin);
        }
        if let Some((user, password)) = offer.auth.as_ref().filter(|_| is_authorized && !replaces("Authorization")) {
            assert_eq!(request.has_credentials(user, password), trusted, "credentials are sent to one host only");
        }
    }
}

fn read_one_request(request: &[u8]) -> UpgradeRequest {
    match ServerHandshake::new().handle_input(request) {
        RequestProgress::Received(request) => {
            assert!(request.rest.is_empty(), "bytes follow the request");
            *request
        }
        other => panic!("{other:?} to {:?}", String::from_utf8_lossy(request)),
    }
}

/// Checks that a URL is displayed as it was parsed, and makes a valid request.
fn check_url(url: &Url) {
    let shown = url.to_string();
    assert_eq!(Url::parse(shown.as_bytes()).as_ref(), Ok(url), "{shown}");
    let handshake = ClientHandshake::new(url, &Offer::default(), NONCE, true);
    check_head(handshake.transmit(), &format!("GET {} HTTP/1.1", url.resource));
    if handshake.transmit().len() <= MAX_HEAD {
        let request = read_one_request(handshake.transmit());
        assert_eq!((&request.resource, &*request.host), (&url.resource, &*url.host_header()));
    }
}

/// Checks a header block: its first line, CR LF at each line end, and no bytes after the empty line.
fn check_head(bytes: &[u8], first: &str) {
    let text = std::str::from_utf8(bytes).expect("the request is UTF-8");
    let block = text.strip_suffix("\r\n\r\n").expect("an empty line at the end");
    let mut lines = block.split("\r\n");
    assert_eq!(lines.next(), Some(first));
    for line in lines {
        assert!(!line.contains(['\r', '\n', '\0']), "{line:?}");
        let (name, _) = line.split_once(": ").expect("a name and a value");
        assert!(!name.is_empty() && !name.contains([' ', '\t']), "{line:?}");
    }
}

/// True if a plugin reads `text` as one line.
fn is_line(text: &str) -> bool {
    !text.chars().any(char::is_control)
}
