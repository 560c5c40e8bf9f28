//! An HTTP request as the stand-in received it.

use std::time::Instant;

/// A recorded request.
#[derive(Clone, Debug)]
pub struct Request {
    /// When the last byte of the head was read.
    pub arrival: Instant,
    /// The head as received, with its blank line.
    pub head: Vec<u8>,
    /// `GET`, ...
    pub method: String,
    /// The target up to `?`, as received.
    pub path: String,
    /// The target after `?`, still percent-encoded; empty if there is none.
    pub query: String,
    /// The query's parameters in order, percent-decoded (`+` stays `+`).
    pub params: Vec<(String, String)>,
    /// The headers in order, names as received.
    pub headers: Vec<(String, String)>,
}

impl Request {
    /// Parses a head that ends in a blank line; None if the request line is malformed.
    pub fn parse(head: &[u8], arrival: Instant) -> Option<Request> {
        let text = String::from_utf8_lossy(head);
        let mut lines = text.split("\r\n");
        let mut words = lines.next()?.split(' ');
        let (method, target) = (words.next()?, words.next()?);
        if !words.next()?.starts_with("HTTP/1.") || words.next().is_some() {
            return None;
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Some(Request {
            arrival,
            head: head.to_vec(),
            method: method.to_string(),
            path: path.to_string(),
            query: query.to_string(),
            params: query
                .split('&')
                .filter(|pair| !pair.is_empty())
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(name, value)| (decode(name), decode(value)))
                .collect(),
            headers: lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_string(), value.trim().to_string()))
                .collect(),
        })
    }

    /// The value of the first parameter called `name`.
    pub fn param(&self, name: &str) -> Option<&str> {
        find(&self.params, |n| n == name)
    }

    /// The value of the first header called `name`, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, |n| n.eq_ignore_ascii_case(name))
    }

    /// `DeviceNum`, if it is an integer.
    pub fn device(&self) -> Option<i64> {
        self.param("DeviceNum")?.parse().ok()
    }

    /// `Pid`, or the empty string.
    pub fn pid(&self) -> &str {
        self.param("Pid").unwrap_or("")
    }

    /// `action`, or the empty string.
    pub fn action(&self) -> &str {
        self.param("action").unwrap_or("")
    }

    /// `serviceId`, or the empty string.
    pub fn service(&self) -> &str {
        self.param("serviceId").unwrap_or("")
    }

    /// `Event`, if there is one.
    pub fn event(&self) -> Option<&str> {
        self.param("Event")
    }
}

fn find(pairs: &[(String, String)], wanted: impl Fn(&str) -> bool) -> Option<&str> {
    pairs.iter().find(|(name, _)| wanted(name)).map(|(_, value)| value.as_str())
}

/// Percent-decodes; what is not `%` and two hex digits stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3).and_then(|two| std::str::from_utf8(two).ok());
        match digits.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) if bytes[at] == b'%' => {
                out.push(byte);
                at += 3;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notification_is_taken_apart() {
        let head = b"GET /data_request?id=action&DeviceNum=12&serviceId=urn%3ax-com&action=A+b&Pid=1f&x HTTP/1.1\r\n\
            Host: 127.0.0.1:3480\r\nuser-agent: sockproxyd-1\r\n\r\n";
        let request = Request::parse(head, Instant::now()).unwrap();
        assert_eq!(request.method, "GET");
        assert_eq!(request.path, "/data_request");
        assert_eq!(request.device(), Some(12));
        assert_eq!(request.service(), "urn:x-com");
        assert_eq!(request.action(), "A+b");
        assert_eq!(request.pid(), "1f");
        assert_eq!(request.param("x"), Some(""));
        assert_eq!(request.event(), None);
        assert_eq!(request.params[0].0, "id");
        assert_eq!(request.header("User-Agent"), Some("sockproxyd-1"));
        assert_eq!(request.headers.len(), 2);
        assert_eq!(request.head, head);
    }

    #[test]
    fn a_malformed_request_line_is_refused() {
        for head in ["\r\n\r\n", "GET /\r\n\r\n", "GET / x HTTP/1.1\r\n\r\n", "GET / FTP/1.1\r\n\r\n"] {
            assert!(Request::parse(head.as_bytes(), Instant::now()).is_none(), "{head:?}");
        }
    }

    #[test]
    fn malformed_percent_encodings_stay() {
        assert_eq!(decode("a%3Ab%3a%%4%zz%C3%A4%"), "a:b:%%4%zzä%");
    }
}
