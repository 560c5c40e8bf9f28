//! [`Fields`]: access to the fields of a header block, and to their lists (RFC 9110 section 5.6).

use httparse::Header;

/// True if `text` is a token (RFC 9110 section 5.6.2), the form of names.
pub(super) fn is_token(text: &[u8]) -> bool {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(is_token)
}

/// A parsed header block.
#[derive(Clone, Copy)]
pub(super) struct Fields<'h>(pub &'h [Header<'h>]);

impl<'h> Fields<'h> {
    /// Returns the values of all fields with this name, trimmed. Names are compared without case.
    pub(super) fn all(self, name: &str) -> impl Iterator<Item = &'h [u8]> {
        self.0.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value.trim_ascii())
    }

    /// Returns the value of the field with this name if there is exactly one.
    pub(super) fn single(self, name: &str) -> Single<'h> {
        let mut all = self.all(name);
        match (all.next(), all.next()) {
            (None, _) => Single::None,
            (Some(value), None) => Single::One(value),
            (Some(_), Some(_)) => Single::Many,
        }
    }

    /// Returns the members of a list, which may span several fields. RFC 9110 section 5.6.1.2: empty members are
    /// ignored.
    pub(super) fn list(self, name: &str) -> impl Iterator<Item = &'h [u8]> {
        self.all(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|member| !member.is_empty())
    }

    /// True if the list has `member`, without case.
    pub(super) fn list_has(self, name: &str, member: &str) -> bool {
        self.list(name).any(|known| known.eq_ignore_ascii_case(member.as_bytes()))
    }
}

/// The result of [`Fields::single`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Single<'h> {
    /// There is no such field.
    None,
    /// The value of the only field.
    One(&'h [u8]),
    /// There is more than one.
    Many,
}

/// Makes a peer's text fit for one line of ours: at most 64 characters, and `?` for all but visible ASCII and blanks.
pub(super) fn printable(text: &[u8]) -> String {
    printable_up_to(64, text)
}

/// The same, with `limit` characters at most.
pub(super) fn printable_up_to(limit: usize, text: &[u8]) -> String {
    let show = |&byte: &u8| match byte {
        b' '..=b'~' => char::from(byte),
        b'\t' => ' ',
        _ => '?',
    };
    text.trim_ascii().iter().take(limit).map(show).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field<'h>(name: &'h str, value: &'h str) -> Header<'h> {
        Header { name, value: value.as_bytes() }
    }

    #[test]
    fn names_are_compared_without_case() {
        let headers = [field("Host", " a "), field("X", "1"), field("x", "2")];
        let fields = Fields(&headers);
        assert_eq!(fields.single("hOST"), Single::One(b"a"));
        assert_eq!(fields.single("X"), Single::Many);
        assert_eq!(fields.single("Y"), Single::None);
        assert_eq!(fields.all("X").collect::<Vec<_>>(), [b"1", b"2"]);
    }

    #[test]
    fn lists_span_several_fields() {
        let headers = [field("Connection", "keep-alive, ,"), field("connection", "\tUpGrade ,x")];
        let fields = Fields(&headers);
        assert_eq!(fields.list("Connection").collect::<Vec<_>>(), [&b"keep-alive"[..], b"UpGrade", b"x"]);
        assert!(fields.list_has("Connection", "upgrade"));
        assert!(!fields.list_has("Connection", "up"), "members are compared whole");
    }

    #[test]
    fn tokens_are_rfc_9110_section_5_6_2() {
        for good in ["a", "graphql-ws", "v1.2", "!#$%&'*+-.^_`|~09AZaz"] {
            assert!(is_token(good.as_bytes()), "{good}");
        }
        for bad in ["", " ", "a b", "a,b", "a/b", "a:b", "a\"", "ä", "a\0", "a\r\n", "(", "@"] {
            assert!(!is_token(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn printed_text_is_one_short_line() {
        assert_eq!(printable(b" Not\tFound\xff\r\n!"), "Not Found???!");
        assert_eq!(printable(&[b'x'; 1000]).len(), 64);
    }
}
