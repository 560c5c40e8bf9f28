//! The fields of a header block: which are there, and the lists that their values are (RFC 9110 section 5.6).

use httparse::Header;

/// True for a token (RFC 9110 section 5.6.2): the form of names.
pub fn is_token(text: &[u8]) -> bool {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(is_token)
}

/// A parsed header block.
#[derive(Clone, Copy)]
pub struct Fields<'h>(pub &'h [Header<'h>]);

impl<'h> Fields<'h> {
    /// The values of all fields of that name, without blanks around them; `name` in any case.
    pub fn all(self, name: &str) -> impl Iterator<Item = &'h [u8]> {
        self.0.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value.trim_ascii())
    }

    /// The value of the only field of that name.
    pub fn single(self, name: &str) -> Single<'h> {
        let mut all = self.all(name);
        match (all.next(), all.next()) {
            (None, _) => Single::None,
            (Some(value), None) => Single::One(value),
            (Some(_), Some(_)) => Single::Many,
        }
    }

    /// The members of a list that may stand in several fields. Empty members count for nothing.
    pub fn list(self, name: &str) -> impl Iterator<Item = &'h [u8]> {
        self.all(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|member| !member.is_empty())
    }

    /// True where a list has `member`, in any case.
    pub fn list_has(self, name: &str, member: &str) -> bool {
        self.list(name).any(|known| known.eq_ignore_ascii_case(member.as_bytes()))
    }
}

/// A field that may stand once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Single<'h> {
    /// It does not stand there.
    None,
    /// It stands once.
    One(&'h [u8]),
    /// It stands more than once.
    Many,
}

/// What a peer said, made fit for a line of ours: other characters than visible ASCII and blanks become `?`, and not
/// much of it.
pub fn quoted(text: &[u8]) -> String {
    const LONGEST: usize = 64;
    let show = |&byte: &u8| match byte {
        b' '..=b'~' => char::from(byte),
        b'\t' => ' ',
        _ => '?',
    };
    text.trim_ascii().iter().take(LONGEST).map(show).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field<'h>(name: &'h str, value: &'h str) -> Header<'h> {
        Header { name, value: value.as_bytes() }
    }

    #[test]
    fn finds_fields_in_any_case() {
        let headers = [field("Host", " a "), field("X", "1"), field("x", "2")];
        let fields = Fields(&headers);
        assert_eq!(fields.single("hOST"), Single::One(b"a"));
        assert_eq!(fields.single("X"), Single::Many);
        assert_eq!(fields.single("Y"), Single::None);
        assert_eq!(fields.all("X").collect::<Vec<_>>(), [b"1", b"2"]);
    }

    #[test]
    fn joins_lists() {
        let headers = [field("Connection", "keep-alive, ,"), field("connection", "\tUpGrade ,x")];
        let fields = Fields(&headers);
        assert_eq!(fields.list("Connection").collect::<Vec<_>>(), [&b"keep-alive"[..], b"UpGrade", b"x"]);
        assert!(fields.list_has("Connection", "upgrade"));
        assert!(!fields.list_has("Connection", "up"), "members are compared whole");
    }

    #[test]
    fn knows_tokens() {
        for good in ["a", "graphql-ws", "v1.2", "!#$%&'*+-.^_`|~09AZaz"] {
            assert!(is_token(good.as_bytes()), "{good}");
        }
        for bad in ["", " ", "a b", "a,b", "a/b", "a:b", "a\"", "ä", "a\0", "a\r\n", "(", "@"] {
            assert!(!is_token(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn quotes_on_a_line() {
        assert_eq!(quoted(b" Not\tFound\xff\r\n!"), "Not Found???!");
        assert_eq!(quoted(&[b'x'; 1000]).len(), 64);
    }
}
