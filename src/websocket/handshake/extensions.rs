//! Negotiation of extensions (RFC 6455 section 9.1). There is one: permessage-deflate (RFC 7692 section 7.1).

use std::fmt;

use super::fields::{Fields, is_token, quoted};
use crate::websocket::Deflate;

/// The header.
pub const HEADER: &str = "Sec-WebSocket-Extensions";
/// The window that the peer is asked to keep to, in bits: what inflating costs is this and 11 KiB.
const OFFERED_WINDOW_BITS: u8 = 12;
/// What nothing said means.
const LARGEST_WINDOW_BITS: u8 = 15;

/// What a client offers. Small windows and nothing kept between messages, since the box is small; a server that cannot
/// keep to a small window declines, and nothing is compressed.
pub fn client_offer() -> String {
    format!(
        "permessage-deflate; client_max_window_bits; server_max_window_bits={OFFERED_WINDOW_BITS}; \
         server_no_context_takeover; client_no_context_takeover"
    )
}

/// Why extensions are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExtensionError {
    /// Not of the form that RFC 6455 gives it.
    Malformed,
    /// Not offered, or said twice: its name.
    Unexpected(String),
    /// A parameter that is unknown, was not offered, is repeated, or has a bad value: its name.
    Parameter(String),
}

impl fmt::Display for ExtensionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => write!(f, "malformed {HEADER}"),
            Self::Unexpected(name) => write!(f, "extension not offered: {name}"),
            Self::Parameter(name) => write!(f, "bad extension parameter: {name}"),
        }
    }
}

/// Reads what a server has taken of [`client_offer`]; with `offered` false it may have taken nothing.
pub fn read_answer(fields: Fields<'_>, offered: bool) -> Result<Option<Deflate>, ExtensionError> {
    let mut agreed = None;
    for extension in parse(fields)? {
        if !offered || extension.name != "permessage-deflate" || agreed.is_some() {
            return Err(ExtensionError::Unexpected(quoted(extension.name.as_bytes())));
        }
        let parameters = Parameters::read(&extension.parameters, true)?;
        let server_window = match parameters.server_window {
            Some(Some(bits)) if bits > OFFERED_WINDOW_BITS => {
                return Err(ExtensionError::Parameter(SERVER_WINDOW.into()));
            }
            // Servers that have never heard of the parameter take an offer with it all the same.
            window => window.flatten().unwrap_or(LARGEST_WINDOW_BITS),
        };
        agreed = Some(Deflate {
            peer_window_bits: server_window,
            peer_no_context_takeover: parameters.server_no_takeover,
            own_window_bits: parameters.client_window.flatten().unwrap_or(LARGEST_WINDOW_BITS),
            own_no_context_takeover: parameters.client_no_takeover,
        });
    }
    Ok(agreed)
}

/// What a client offers and a server can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// How large the client lets the server's window be, where it says.
    server_window: Option<u8>,
    /// How large the client's window may be said to be at most, where it lets the server say.
    client_window: Option<u8>,
}

impl Proposal {
    /// What a server answers: the smallest memory that the client lets it have.
    pub fn answer(self) -> String {
        let mut answer = String::from("permessage-deflate; server_no_context_takeover; client_no_context_takeover");
        if let Some(bits) = self.server_window {
            answer.extend([format!("; {SERVER_WINDOW}={bits}")]);
        }
        if let Some(bits) = self.client_window {
            answer.extend([format!("; {CLIENT_WINDOW}={bits}")]);
        }
        answer
    }
}

impl From<Proposal> for Deflate {
    /// What the server has agreed to.
    fn from(proposal: Proposal) -> Self {
        Self {
            peer_window_bits: proposal.client_window.unwrap_or(LARGEST_WINDOW_BITS),
            peer_no_context_takeover: true,
            own_window_bits: proposal.server_window.unwrap_or(LARGEST_WINDOW_BITS),
            own_no_context_takeover: true,
        }
    }
}

/// Reads what a client offers: the first offer of permessage-deflate that can be taken (RFC 7692 section 7.1), or none.
/// What is not understood is passed over; what has no form is an error.
pub fn read_offer(fields: Fields<'_>) -> Result<Option<Proposal>, ExtensionError> {
    let extensions = parse(fields)?;
    let mut offers = extensions.iter().filter(|extension| extension.name == "permessage-deflate");
    Ok(offers.find_map(|extension| {
        let parameters = Parameters::read(&extension.parameters, false).ok()?;
        let client_window = parameters.client_window.map(|bits| bits.unwrap_or(LARGEST_WINDOW_BITS));
        Some(Proposal {
            server_window: parameters.server_window.flatten(),
            client_window: client_window.map(|bits| bits.min(OFFERED_WINDOW_BITS)),
        })
    }))
}

const SERVER_WINDOW: &str = "server_max_window_bits";
const CLIENT_WINDOW: &str = "client_max_window_bits";
const SERVER_NO_TAKEOVER: &str = "server_no_context_takeover";
const CLIENT_NO_TAKEOVER: &str = "client_no_context_takeover";

/// One extension as it is said.
struct Extension<'h> {
    name: &'h str,
    /// Names, and values where there is a `=`.
    parameters: Vec<(&'h str, Option<String>)>,
}

/// The parameters of permessage-deflate.
#[derive(Default)]
struct Parameters {
    server_no_takeover: bool,
    client_no_takeover: bool,
    /// `Some(None)`: said without a value.
    server_window: Option<Option<u8>>,
    client_window: Option<Option<u8>>,
}

impl Parameters {
    /// Reads them. In an answer each window needs its value; in an offer, the client's does not.
    fn read(said: &[(&str, Option<String>)], is_answer: bool) -> Result<Self, ExtensionError> {
        let mut parameters = Self::default();
        for (name, value) in said {
            let bad = || ExtensionError::Parameter(quoted(name.as_bytes()));
            let value = value.as_deref();
            let is_new = match *name {
                SERVER_NO_TAKEOVER if value.is_none() => !std::mem::replace(&mut parameters.server_no_takeover, true),
                CLIENT_NO_TAKEOVER if value.is_none() => !std::mem::replace(&mut parameters.client_no_takeover, true),
                SERVER_WINDOW => {
                    let bits = value.and_then(window_bits).ok_or_else(bad)?;
                    parameters.server_window.replace(Some(bits)).is_none()
                }
                CLIENT_WINDOW => {
                    let bits = match value {
                        None if is_answer => return Err(bad()),
                        None => None,
                        Some(value) => Some(window_bits(value).ok_or_else(bad)?),
                    };
                    parameters.client_window.replace(bits).is_none()
                }
                _ => false,
            };
            if !is_new {
                return Err(bad());
            }
        }
        Ok(parameters)
    }
}

/// 8 to 15, without leading zeros (RFC 7692 section 7.1.2).
fn window_bits(value: &str) -> Option<u8> {
    (8..=15).find(|bits| bits.to_string() == value)
}

/// Reads all extensions that are said, in order.
fn parse(fields: Fields<'_>) -> Result<Vec<Extension<'_>>, ExtensionError> {
    let mut extensions = Vec::new();
    for value in fields.all(HEADER) {
        let mut cursor = Cursor(std::str::from_utf8(value).map_err(|_| ExtensionError::Malformed)?);
        while !cursor.at_end() {
            // Empty members count for nothing.
            if cursor.skip(',') {
                continue;
            }
            let mut extension = Extension { name: cursor.token()?, parameters: Vec::new() };
            while cursor.skip(';') {
                let name = cursor.token()?;
                let value = if cursor.skip('=') { Some(cursor.value()?) } else { None };
                extension.parameters.push((name, value));
            }
            extensions.push(extension);
            if !cursor.at_end() && !cursor.skip(',') {
                return Err(ExtensionError::Malformed);
            }
        }
    }
    Ok(extensions)
}

/// What is still to be read. Blanks between words mean nothing.
struct Cursor<'h>(&'h str);

impl<'h> Cursor<'h> {
    fn at_end(&mut self) -> bool {
        self.0 = self.0.trim_start_matches([' ', '\t']);
        self.0.is_empty()
    }

    fn skip(&mut self, mark: char) -> bool {
        self.0 = self.0.trim_start_matches([' ', '\t']);
        let rest = self.0.strip_prefix(mark);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn token(&mut self) -> Result<&'h str, ExtensionError> {
        let text = self.0.trim_start_matches([' ', '\t']);
        let end = text.bytes().position(|byte| !is_token(&[byte])).unwrap_or(text.len());
        let (token, rest) = text.split_at(end);
        self.0 = rest;
        if token.is_empty() { Err(ExtensionError::Malformed) } else { Ok(token) }
    }

    /// A token, bare or quoted; inside quotes a backslash makes any character itself. Unquoted it must still be a token
    /// (RFC 6455 section 9.1).
    fn value(&mut self) -> Result<String, ExtensionError> {
        if !self.skip('"') {
            return self.token().map(Into::into);
        }
        let mut value = String::new();
        let mut characters = self.0.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    self.0 = &self.0[at + 1..];
                    return if is_token(value.as_bytes()) { Ok(value) } else { Err(ExtensionError::Malformed) };
                }
                '\\' => value.extend(characters.next().map(|(_, character)| character)),
                character => value.push(character),
            }
        }
        Err(ExtensionError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(value: &str) -> Result<Option<Deflate>, ExtensionError> {
        let headers = [httparse::Header { name: HEADER, value: value.as_bytes() }];
        read_answer(Fields(&headers), true)
    }

    fn agreed(value: &str) -> (u8, bool, u8, bool) {
        let deflate = answer(value).unwrap().unwrap();
        (
            deflate.peer_window_bits,
            deflate.peer_no_context_takeover,
            deflate.own_window_bits,
            deflate.own_no_context_takeover,
        )
    }

    #[test]
    fn rfc_7692_section_7_1_what_is_not_said_has_its_default() {
        assert_eq!(agreed("permessage-deflate"), (15, false, 15, false));
        assert_eq!(agreed("permessage-deflate; server_no_context_takeover"), (15, true, 15, false));
        assert_eq!(agreed("permessage-deflate; client_no_context_takeover"), (15, false, 15, true));
    }

    #[test]
    fn rfc_7692_section_7_1_2_windows_are_8_to_15_without_leading_zeros() {
        for bits in 8..=15u8 {
            assert_eq!(agreed(&format!("permessage-deflate; client_max_window_bits={bits}")).2, bits);
        }
        for bad in ["0", "7", "16", "08", "+9", "9 9", "", "a", "300", "-8", "８"] {
            for side in [SERVER_WINDOW, CLIENT_WINDOW] {
                assert!(answer(&format!("permessage-deflate; {side}={bad}")).is_err(), "{side}={bad}");
            }
        }
    }

    #[test]
    fn rfc_7692_section_7_1_2_1_the_servers_window_is_not_larger_than_offered() {
        for bits in 8..=OFFERED_WINDOW_BITS {
            assert_eq!(agreed(&format!("permessage-deflate; server_max_window_bits={bits}")).0, bits);
        }
        for bits in OFFERED_WINDOW_BITS + 1..=15 {
            let error = answer(&format!("permessage-deflate; server_max_window_bits={bits}")).unwrap_err();
            assert_eq!(error, ExtensionError::Parameter(SERVER_WINDOW.into()));
        }
    }

    #[test]
    fn rfc_7692_section_7_1_values_are_where_they_belong() {
        for bad in [
            "server_no_context_takeover=1",
            "client_no_context_takeover=\"\"",
            "server_max_window_bits",
            "client_max_window_bits",
            "made_up",
            "Server_No_Context_Takeover",
        ] {
            let error = answer(&format!("permessage-deflate; {bad}")).unwrap_err();
            assert!(matches!(error, ExtensionError::Parameter(_) | ExtensionError::Malformed), "{bad}: {error}");
        }
    }

    #[test]
    fn rfc_7692_section_7_1_parameters_stand_once() {
        for twice in [
            "server_no_context_takeover",
            "client_no_context_takeover",
            "server_max_window_bits=9",
            "client_max_window_bits=9",
        ] {
            let error = answer(&format!("permessage-deflate; {twice}; {twice}")).unwrap_err();
            assert_eq!(error, ExtensionError::Parameter(twice.split('=').next().unwrap().into()));
        }
    }

    #[test]
    fn rfc_6455_section_9_1_only_what_was_offered_and_once() {
        for bad in ["x-webkit-deflate-frame", "permessage-deflate, permessage-deflate", "PERMESSAGE-DEFLATE", "mux"] {
            assert!(matches!(answer(bad), Err(ExtensionError::Unexpected(_))), "{bad}");
        }
        let headers = [httparse::Header { name: HEADER, value: b"permessage-deflate" }];
        assert!(matches!(read_answer(Fields(&headers), false), Err(ExtensionError::Unexpected(_))));
        let twice = [headers[0], headers[0]];
        assert!(matches!(read_answer(Fields(&twice), true), Err(ExtensionError::Unexpected(_))));
    }

    #[test]
    fn rfc_6455_section_9_1_the_form() {
        assert_eq!(agreed(" permessage-deflate ;\tserver_max_window_bits = \"1\\0\" ").0, 10);
        assert_eq!(agreed(", ,permessage-deflate,").0, 15);
        assert_eq!(answer(""), Ok(None));
        for bad in [
            ";",
            "permessage-deflate;",
            "permessage-deflate; =",
            "permessage-deflate server_no_context_takeover",
            "permessage-deflate; server_max_window_bits=",
            "permessage-deflate; server_max_window_bits=\"9",
            "permessage-deflate; server_max_window_bits=\"9\\",
            "permessage-deflate; server_max_window_bits=\"\"",
            "permessage-deflate; server_max_window_bits=\"9 \"",
            "permessage-deflate; server_max_window_bits=9\"",
            "permessage-déflate",
            "\"permessage-deflate\"",
        ] {
            assert_eq!(answer(bad), Err(ExtensionError::Malformed), "{bad}");
        }
    }

    fn offered(value: &str) -> Result<Option<String>, ExtensionError> {
        let headers = [httparse::Header { name: HEADER, value: value.as_bytes() }];
        read_offer(Fields(&headers)).map(|proposal| proposal.map(Proposal::answer))
    }

    #[test]
    fn our_two_sides_agree() {
        let proposal = client_offer();
        let headers = [httparse::Header { name: HEADER, value: proposal.as_bytes() }];
        let server = Deflate::from(read_offer(Fields(&headers)).unwrap().unwrap());
        let client = answer(&offered(&proposal).unwrap().unwrap()).unwrap().unwrap();
        assert_eq!((client.peer_window_bits, client.own_window_bits), (12, 12));
        assert!(client.peer_no_context_takeover && client.own_no_context_takeover);
        let mirrored = Deflate {
            peer_window_bits: client.own_window_bits,
            peer_no_context_takeover: client.own_no_context_takeover,
            own_window_bits: client.peer_window_bits,
            own_no_context_takeover: client.peer_no_context_takeover,
        };
        assert_eq!(server, mirrored);
    }

    #[test]
    fn rfc_7692_section_7_1_a_server_takes_the_first_offer_that_it_can() {
        let plain = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        for (offer, taken) in [
            ("permessage-deflate", Some("")),
            ("permessage-deflate; client_max_window_bits", Some("; client_max_window_bits=12")),
            ("permessage-deflate; client_max_window_bits=9", Some("; client_max_window_bits=9")),
            ("permessage-deflate; client_max_window_bits=15", Some("; client_max_window_bits=12")),
            ("permessage-deflate; server_max_window_bits=10", Some("; server_max_window_bits=10")),
            ("permessage-deflate; server_max_window_bits=15", Some("; server_max_window_bits=15")),
            ("permessage-deflate; server_no_context_takeover; client_no_context_takeover", Some("")),
            ("mux; max-channels=4; x, permessage-deflate", Some("")),
            (
                "permessage-deflate; made_up, permessage-deflate; server_max_window_bits=9",
                Some("; server_max_window_bits=9"),
            ),
            ("permessage-deflate; server_max_window_bits", None),
            ("permessage-deflate; server_max_window_bits=16", None),
            ("permessage-deflate; client_max_window_bits=7", None),
            ("permessage-deflate; client_max_window_bits; client_max_window_bits", None),
            ("permessage-deflate; server_no_context_takeover=1", None),
            ("x-webkit-deflate-frame", None),
            ("", None),
        ] {
            assert_eq!(offered(offer), Ok(taken.map(|more| [plain, more].concat())), "{offer}");
        }
        assert_eq!(offered("permessage-deflate;"), Err(ExtensionError::Malformed));
    }
}
