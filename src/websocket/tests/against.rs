//! Tests against tungstenite: each end reads what the other writes, in both directions.

use std::io::{self, Read, Write};

use proptest::prelude::*;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::{Message, WebSocket};

use super::*;

/// An in-memory transport with separate input and output.
#[derive(Default)]
struct MemoryTransport {
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Read for MemoryTransport {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = buffer.len().min(self.input.len());
        buffer[..count].copy_from_slice(&self.input[..count]);
        self.input.drain(..count);
        Ok(count)
    }
}

impl Write for MemoryTransport {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn other_end(role: Role, input: Vec<u8>) -> WebSocket<MemoryTransport> {
    let role = match role {
        Role::Client => tungstenite::protocol::Role::Client,
        Role::Server => tungstenite::protocol::Role::Server,
    };
    WebSocket::from_raw_socket(MemoryTransport { input, output: Vec::new() }, role, None)
}

/// One action of the writing end.
#[derive(Clone, Debug)]
enum PeerAction {
    /// A message in fragments, cut at these places.
    Message(Kind, Vec<u8>, Vec<prop::sample::Index>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
}

fn action() -> impl Strategy<Value = PeerAction> {
    let payload = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..200),
        1 => (any::<u8>(), prop::sample::select(vec![125usize, 126, 127, 4095, 4096, 4097, 65_535, 65_536]))
            .prop_map(|(byte, length)| vec![byte; length]),
    ];
    let cuts = || prop::collection::vec(any::<prop::sample::Index>(), 0..4);
    prop_oneof![
        2 => (payload, cuts()).prop_map(|(payload, cuts)| PeerAction::Message(Kind::Binary, payload, cuts)),
        3 => (".{0,80}", cuts()).prop_map(|(text, cuts)| PeerAction::Message(Kind::Text, text.into_bytes(), cuts)),
        1 => prop::collection::vec(any::<u8>(), 0..=125).prop_map(PeerAction::Ping),
        1 => prop::collection::vec(any::<u8>(), 0..=125).prop_map(PeerAction::Pong),
    ]
}

/// The fragments of a message.
fn fragments<'a>(payload: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
    at.extend([0, payload.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &payload[pair[0]..pair[1]]).collect()
}

/// The role of our end.
fn roles() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Client), Just(Role::Server)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn tungstenite_reads_our_frames(role in roles(), actions in prop::collection::vec(action(), 1..8)) {
        let mut connection = Connection::new(settings(role), Instant::now());
        let entropy = &mut Counting::default();
        for action in &actions {
            match action {
                PeerAction::Message(kind, payload, cuts) => {
                    let fragments = fragments(payload, cuts);
                    for (at, fragment) in fragments.iter().enumerate() {
                        connection.send(*kind, fragment, at + 1 == fragments.len(), entropy).unwrap();
                    }
                }
                PeerAction::Ping(payload) => connection.send_ping(payload, entropy).unwrap(),
                PeerAction::Pong(payload) => connection.send_pong(payload, entropy).unwrap(),
            }
        }
        connection.close(4321, "ciao", Instant::now(), entropy);
        let other = if role == Role::Client { Role::Server } else { Role::Client };
        let mut other_end = other_end(other, drain(&mut connection));
        for action in actions {
            let expected = match action {
                PeerAction::Message(Kind::Binary, payload, _) => Message::binary(payload),
                PeerAction::Message(Kind::Text, payload, _) => Message::text(String::from_utf8(payload).unwrap()),
                PeerAction::Ping(payload) => Message::Ping(payload.into()),
                PeerAction::Pong(payload) => Message::Pong(payload.into()),
            };
            prop_assert_eq!(other_end.read().unwrap(), expected);
        }
        match other_end.read().unwrap() {
            Message::Close(Some(frame)) => {
                prop_assert_eq!((u16::from(frame.code), frame.reason.as_str()), (4321, "ciao"));
            }
            other => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn we_read_the_frames_of_tungstenite(
        role in roles(),
        actions in prop::collection::vec(action(), 1..8),
        sizes in prop::collection::vec(1usize..5000, 1..5),
    ) {
        let other = if role == Role::Client { Role::Server } else { Role::Client };
        let mut other_end = other_end(other, Vec::new());
        let mut expected = Vec::new();
        for action in actions {
            match action {
                PeerAction::Message(kind, payload, cuts) => {
                    expected.extend(message(kind, &payload));
                    let fragments = fragments(&payload, &cuts);
                    for (at, fragment) in fragments.iter().enumerate() {
                        let opcode = match (at, kind) {
                            (0, Kind::Text) => Data::Text,
                            (0, Kind::Binary) => Data::Binary,
                            _ => Data::Continue,
                        };
                        let fin = at + 1 == fragments.len();
                        let frame = Frame::message(fragment.to_vec(), OpCode::Data(opcode), fin);
                        other_end.send(Message::Frame(frame)).unwrap();
                    }
                }
                PeerAction::Ping(payload) => {
                    expected.push(OwnedEvent::Ping(payload.clone()));
                    other_end.send(Message::Ping(payload.into())).unwrap();
                }
                PeerAction::Pong(payload) => {
                    expected.push(OwnedEvent::Pong(payload.clone(), false));
                    other_end.send(Message::Pong(payload.into())).unwrap();
                }
            }
        }
        other_end.close(None).unwrap();
        expected.push(OwnedEvent::Closed(1005, String::new()));
        let output = std::mem::take(&mut other_end.get_mut().output);
        let mut pieces = Vec::new();
        let mut rest = &output[..];
        for size in sizes.iter().cycle() {
            let (piece, tail) = rest.split_at(rest.len().min(*size));
            pieces.push(piece);
            rest = tail;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(events(&settings(role), pieces), expected);
    }
}
