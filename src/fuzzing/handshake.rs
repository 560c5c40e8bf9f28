//! The opening handshake: whatever a server, a client or a plugin says, in whatever pieces, the same comes of it; what a
//! plugin may ask for makes a request that a server understands as it was meant, and never two.
//!
//! Input: how it is split, what is fuzzed, what was offered, and what is said.

use crate::testing::pieces::{read_request, read_response};
use crate::websocket::handshake::{
    AcceptOptions, ClientHandshake, CompressionOffer, HandshakeProgress, MAX_FIELDS, MAX_HEAD, Offer, Refusal,
    RequestProgress, ServerHandshake, UpgradeRequest, Url,
};

use super::input::{Input, expand, pieces};

/// The nonce of RFC 6455 section 1.3, and the answer to it.
const NONCE: [u8; 16] = *b"the sample nonce";
const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The target's body.
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

/// The compression that is offered.
fn compression(flags: u8) -> CompressionOffer {
    match flags & 5 {
        1 => CompressionOffer::SmallWindows,
        5 => CompressionOffer::Plain,
        _ => CompressionOffer::None,
    }
}

/// A server's answer.
fn client(text: &[u8], split: u8, flags: u8) {
    let mut offer = Offer { deflate: compression(flags), keep_head: true, ..Offer::default() };
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
    assert_eq!(read(&pieces(text, split)), whole, "the split matters");
    match whole {
        HandshakeProgress::Pending => assert!(text.len() <= MAX_HEAD, "{} bytes are held", text.len()),
        HandshakeProgress::Redirect { location } => {
            if let Ok(url) = url.join(&location) {
                check_url(&url);
            }
        }
        HandshakeProgress::OfferRefused(error) => {
            assert!(offer.deflate != CompressionOffer::None);
            assert!(error.to_string().starts_with("BAD_HTTP_STATUS 400") && is_line(&error.to_string()), "{error:?}");
        }
        HandshakeProgress::Failed(failure) => assert!(is_line(&failure.to_string()), "{failure:?}"),
        HandshakeProgress::Upgraded(upgraded) => {
            let head = upgraded.head.expect("it was to be kept");
            assert!(text.ends_with(&[&head[..], &upgraded.rest].concat()), "every byte is somebody's");
            assert!(head.windows(ACCEPT.len()).any(|window| window == ACCEPT), "it does not know our key");
            assert!(upgraded.subprotocol.is_none_or(|chosen| offer.subprotocols.contains(&chosen)));
            if let Some(deflate) = upgraded.deflate {
                assert!(offer.deflate != CompressionOffer::None);
                assert!((8..=15).contains(&deflate.peer_window_bits) && (8..=15).contains(&deflate.own_window_bits));
            }
        }
    }
}

/// A client's request.
fn server(text: &[u8], split: u8, flags: u8) {
    let read = |pieces: &[&[u8]]| {
        let mut handshake = ServerHandshake::new();
        let arrival = read_request(&mut handshake, pieces);
        (arrival, handshake)
    };
    let (whole, mut handshake) = read(&[text]);
    assert_eq!(read(&pieces(text, split)).0, whole, "the split matters");
    match whole {
        RequestProgress::Pending => {
            assert!(text.trim_ascii_start().len() <= MAX_HEAD, "{} bytes are held", text.len());
            assert!(handshake.transmit().is_empty());
        }
        RequestProgress::Refused(refusal) => {
            assert!(is_line(&refusal.to_string()), "{refusal:?}");
            assert_eq!(handshake.transmit().is_empty(), refusal.code() == 0);
        }
        RequestProgress::Page(_) => unreachable!("the port has no pages"),
        RequestProgress::Received(request) => {
            assert!(text.ends_with(&[&request.head[..], &request.rest].concat()), "every byte is somebody's");
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

/// A URL, and, behind a NUL, where it redirects to.
fn urls(text: &[u8]) {
    let mut parts = text.splitn(2, |&byte| byte == 0);
    let (first, second) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let Ok(url) = Url::parse(first) else { return };
    check_url(&url);
    let Ok(location) = std::str::from_utf8(second) else { return };
    if let Ok(next) = url.join(location) {
        check_url(&next);
        assert!(url.same_host(&next) || location.contains("//"), "only an authority leads elsewhere");
        assert!(!(url.secure && !next.secure && url.same_host(&next)), "no way down");
    }
}

/// What may be asked for is heard.
fn offers(text: &[u8], flags: u8) {
    let mut offer = Offer { deflate: compression(flags), ..Offer::default() };
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
        // A server may have its own mind about these.
        let odd_host = offer.headers.iter().any(|header| is("Host")(header) && header.1.is_empty());
        let origins = offer.headers.iter().filter(|header| is("Origin")(header)).count();
        let many = handshake.transmit().len() > MAX_HEAD || offer.headers.len() + 10 > MAX_FIELDS;
        if trusted && (odd_host || origins > 1) || many {
            continue;
        }
        let request = heard(handshake.transmit());
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
            assert_eq!(request.has_credentials(user, password), trusted, "credentials are for one host");
        }
    }
}

fn heard(request: &[u8]) -> UpgradeRequest {
    match ServerHandshake::new().handle_input(request) {
        RequestProgress::Received(request) => {
            assert!(request.rest.is_empty(), "one request is two");
            *request
        }
        other => panic!("{other:?} to {:?}", String::from_utf8_lossy(request)),
    }
}

/// It says what it was made of, and breaks no request.
fn check_url(url: &Url) {
    let shown = url.to_string();
    assert_eq!(Url::parse(shown.as_bytes()).as_ref(), Ok(url), "{shown}");
    let handshake = ClientHandshake::new(url, &Offer::default(), NONCE, true);
    check_head(handshake.transmit(), &format!("GET {} HTTP/1.1", url.resource));
    if handshake.transmit().len() <= MAX_HEAD {
        let request = heard(handshake.transmit());
        assert_eq!((&request.resource, &*request.host), (&url.resource, &*url.host_header()));
    }
}

/// A header block with that first line, of lines that end in CR LF, and nothing behind its empty line.
fn check_head(bytes: &[u8], first: &str) {
    let text = std::str::from_utf8(bytes).expect("we write UTF-8");
    let block = text.strip_suffix("\r\n\r\n").expect("an empty line at the end");
    let mut lines = block.split("\r\n");
    assert_eq!(lines.next(), Some(first));
    for line in lines {
        assert!(!line.contains(['\r', '\n', '\0']), "{line:?}");
        let (name, _) = line.split_once(": ").expect("a name and a value");
        assert!(!name.is_empty() && !name.contains([' ', '\t']), "{line:?}");
    }
}

/// True where a plugin reads it as one line.
fn is_line(text: &str) -> bool {
    !text.chars().any(char::is_control)
}
