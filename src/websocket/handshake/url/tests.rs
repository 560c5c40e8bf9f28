//! Tests of URLs and redirects.

use super::*;

fn displayed(text: &str) -> Result<String, UrlError> {
    Url::parse(text.as_bytes()).map(|url| url.to_string())
}

#[test]
fn rfc_6455_section_3_urls_are_split_into_their_parts() {
    let url = Url::parse(b"WSS://Example.COM:8443/a%2Fb/?q=%41+#".split_last().unwrap().1).unwrap();
    assert!(url.secure);
    assert_eq!((&*url.host, url.port, &*url.resource), ("Example.COM", 8443, "/a%2Fb/?q=%41+"));
    for (url, secure, port) in [("ws://h", false, 80), ("wss://h", true, 443), ("ws://h:/", false, 80)] {
        let url = Url::parse(url.as_bytes()).unwrap();
        assert_eq!((url.secure, url.port, &*url.resource), (secure, port, "/"));
    }
    assert_eq!(&*Url::parse(b"ws://h?x").unwrap().resource, "/?x", "an empty path is /");
}

#[test]
fn a_parsed_url_displays_as_written() {
    for text in ["ws://h/", "wss://h/x?y", "ws://h:81/", "wss://h:80/", "ws://[::1]/", "ws://[fe80::1%25eth0]:1/"] {
        assert_eq!(displayed(text).as_deref(), Ok(text));
    }
    assert_eq!(displayed("ws://[fe80::1%eth0]").as_deref(), Ok("ws://[fe80::1%25eth0]/"), "a bare zone");
}

#[test]
fn rfc_6455_section_3_fragments_are_refused() {
    for bad in ["ws://h/#", "ws://h/#x", "ws://h#x", "ws://h/?x#y"] {
        assert_eq!(displayed(bad), Err(UrlError::Invalid), "{bad}");
    }
}

#[test]
fn malformed_urls_and_other_schemes_are_refused() {
    for bad in [
        "",
        "h",
        "h/",
        "ws:",
        "ws:/h",
        "ws:h",
        "ws://",
        "ws:///x",
        "ws://:80",
        "ws://h:x",
        "ws://h:0",
        "ws://h:65536",
        "ws://h:+1",
        "ws://h:99999999999999",
        "ws://u@h",
        "ws://u:p@h/",
        "ws://h:80:80",
        "ws://h h/",
        "ws://h/ x",
        "ws://h/\u{7f}",
        "ws://h/\r\nX: y",
        "ws://h/\0",
        "ws://h\\x",
        "ws://h/\u{e4}",
        "ws://\u{e4}/",
        "ws://h%41/",
        "ws://[::1",
        "ws://[::1]x",
        "ws://[1.2.3.4]",
        "ws://[h]",
        "ws://[]",
        "ws://[::1%]",
        "ws://[::1%a/b]",
        "ws://::1/",
        " ws://h",
        "ws://[::1]@h",
        "1s://h",
        "://h",
    ] {
        assert_eq!(displayed(bad), Err(UrlError::Invalid), "{bad}");
    }
    for other in ["http://h", "https://h/", "wsss://h", "ftp://h", "file:///x", "h:80"] {
        assert_eq!(displayed(other), Err(UrlError::Schema), "{other}");
    }
    assert_eq!(HandshakeError::from(UrlError::Schema).to_string(), "INVALID_SCHEMA");
    assert_eq!(UrlError::Invalid.to_string(), "INVALID_URL");
}

#[test]
fn absolute_locations_are_followed() {
    let base = Url::parse(b"wss://h:1/a/b?c").unwrap();
    for (location, whole) in [
        ("ws://x/y", "ws://x/y"),
        ("http://x", "ws://x/"),
        ("HTTPS://x:8443/y?z", "wss://x:8443/y?z"),
        ("//x/y", "wss://x/y"),
        ("//x:2", "wss://x:2/"),
        (" https://x/#frag", "wss://x/"),
    ] {
        assert_eq!(base.join(location).map(|url| url.to_string()).as_deref(), Ok(whole), "{location}");
    }
    for bad in ["http://u:p@x/", "http:x", "http://", "/a b", "/\r\n", "/\u{e4}", "///x"] {
        assert_eq!(base.join(bad), Err(UrlError::Invalid), "{bad}");
    }
    for other in ["ftp://x", "mailto:x", "x:y"] {
        assert_eq!(base.join(other), Err(UrlError::Schema), "{other}");
    }
}

#[test]
fn rfc_3986_section_5_4_relative_locations_are_followed() {
    let base = Url::parse(b"ws://a/b/c/d;p?q").unwrap();
    for (location, resource) in [
        ("g", "/b/c/g"),
        ("./g", "/b/c/g"),
        ("g/", "/b/c/g/"),
        ("/g", "/g"),
        ("?y", "/b/c/d;p?y"),
        ("g?y", "/b/c/g?y"),
        ("#s", "/b/c/d;p?q"),
        ("g#s", "/b/c/g"),
        ("g?y#s", "/b/c/g?y"),
        (";x", "/b/c/;x"),
        ("g;x?y#s", "/b/c/g;x?y"),
        ("", "/b/c/d;p?q"),
        (".", "/b/c/"),
        ("./", "/b/c/"),
        ("..", "/b/"),
        ("../", "/b/"),
        ("../g", "/b/g"),
        ("../..", "/"),
        ("../../", "/"),
        ("../../g", "/g"),
        ("../../../g", "/g"),
        ("../../../../g", "/g"),
        ("/./g", "/g"),
        ("/../g", "/g"),
        ("g.", "/b/c/g."),
        (".g", "/b/c/.g"),
        ("g..", "/b/c/g.."),
        ("..g", "/b/c/..g"),
        ("./../g", "/b/g"),
        ("./g/.", "/b/c/g/"),
        ("g/./h", "/b/c/g/h"),
        ("g/../h", "/b/c/h"),
        ("g;x=1/./y", "/b/c/g;x=1/y"),
        ("g;x=1/../y", "/b/c/y"),
        ("g?y/./x", "/b/c/g?y/./x"),
        ("g?y/../x", "/b/c/g?y/../x"),
        ("g#s/../x", "/b/c/g"),
        ("g?y:z", "/b/c/g?y:z"),
        ("/g:h", "/g:h"),
    ] {
        let url = base.join(location).unwrap();
        assert_eq!((&*url.host, &*url.resource), ("a", resource), "{location}");
    }
    let bare = Url::parse(b"ws://a?x").unwrap();
    assert_eq!(&*bare.join("g").unwrap().resource, "/g");
}

#[test]
fn headers_may_go_to_the_same_host_only() {
    let same = |a: &str, b: &str| Url::parse(a.as_bytes()).unwrap().same_host(&Url::parse(b.as_bytes()).unwrap());
    assert!(same("ws://h/a", "ws://H:80/b"));
    assert!(same("ws://h", "wss://h"), "from ws to wss on the default ports");
    for (from, to) in [
        ("ws://h", "ws://x"),
        ("ws://h", "ws://h:81"),
        ("wss://h", "ws://h"),
        ("wss://h:1", "ws://h:1"),
        ("ws://h:81", "wss://h"),
        ("ws://h", "wss://h:8443"),
        ("ws://h:1", "wss://h:1"),
    ] {
        assert!(!same(from, to), "{from} {to}");
    }
}
