//! The stream behind the handshake, over a wire that takes and gives what it likes.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::rc::Rc;

use testkit::random::Random;

use super::*;
use crate::net::socket::Stream;
use crate::tls::TlsStream;

/// The stream below, as the client sees it.
#[derive(Debug, Default)]
struct Wire {
    inbound: VecDeque<u8>,
    outbound: Vec<u8>,
    /// How much it takes before it is full.
    window: usize,
    /// The most it gives or takes in one call; 0 is no bound.
    most: usize,
    /// The server has closed its side of the wire.
    ended: bool,
    /// The client has closed its side of the wire.
    shut: bool,
    /// It has said that it would block, since somebody looked.
    blocked: bool,
}

#[derive(Clone, Debug)]
struct End(Rc<RefCell<Wire>>);

impl Stream for End {
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut wire = self.0.borrow_mut();
        if wire.inbound.is_empty() {
            wire.blocked |= !wire.ended;
            return if wire.ended { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) };
        }
        let most = if wire.most == 0 { usize::MAX } else { wire.most };
        let length = buffer.len().min(wire.inbound.len()).min(most);
        wire.inbound.drain(..length).zip(buffer).for_each(|(byte, place)| *place = byte);
        Ok(length)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut wire = self.0.borrow_mut();
        assert!(!wire.shut, "sent behind the end");
        let most = if wire.most == 0 { usize::MAX } else { wire.most };
        let length = bytes.len().min(wire.window).min(most);
        if length == 0 {
            wire.blocked = true;
            return Err(ErrorKind::WouldBlock.into());
        }
        wire.window -= length;
        wire.outbound.extend_from_slice(&bytes[..length]);
        Ok(length)
    }

    fn shutdown_write(&mut self) {
        assert!(!std::mem::replace(&mut self.0.borrow_mut().shut, true), "shut twice");
    }
}

/// A client's stream and the server at the other end of its wire.
struct Pair {
    stream: TlsStream<End>,
    wire: Rc<RefCell<Wire>>,
    server: ServerConnection,
}

impl Pair {
    fn new(versions: &[&'static SupportedProtocolVersion]) -> Self {
        let identity = Identity::self_signed(&["a.example"], Validity::Now);
        let config = Arc::new(identity.server(versions, None));
        let Shaken { client, server, heard } = shake(&House::new(None, None), "a.example", &unverified(), &config);
        heard.unwrap();
        let wire = Rc::new(RefCell::new(Wire { window: usize::MAX, ..Wire::default() }));
        Self { stream: TlsStream::new(End(Rc::clone(&wire)), client.unwrap(), Vec::new()), wire, server }
    }

    /// Carries what the server has to say.
    fn deliver(&mut self) {
        let said = drain(&mut self.server);
        self.wire.borrow_mut().inbound.extend(said);
    }

    fn say(&mut self, bytes: &[u8]) {
        self.server.writer().write_all(bytes).unwrap();
        self.deliver();
    }

    /// What the server hears of what the client has sent.
    fn hear(&mut self) -> Vec<u8> {
        let sent = std::mem::take(&mut self.wire.borrow_mut().outbound);
        let mut heard = Vec::new();
        let mut sent = &sent[..];
        while !sent.is_empty() {
            self.server.read_tls(&mut sent).unwrap();
            self.server.process_new_packets().unwrap();
            match self.server.reader().read_to_end(&mut heard) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => panic!("{error}"),
                _ => {}
            }
        }
        heard
    }

    fn recv(&mut self, most: usize) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; most];
        let length = self.stream.recv(&mut buffer)?;
        buffer.truncate(length);
        Ok(buffer)
    }

    fn kind(&mut self) -> ErrorKind {
        self.recv(100).unwrap_err().kind()
    }
}

#[test]
fn bytes_pass_in_order_whatever_the_wire_does() {
    for seed in 0..30 {
        let random = RefCell::new(Random::new(seed));
        let pick = |below: usize| {
            let mut number = [0; 4];
            random.borrow_mut().fill(&mut number);
            u32::from_le_bytes(number) as usize % below
        };
        let mut pair = Pair::new(if seed % 2 == 0 { V13 } else { V12 });
        pair.wire.borrow_mut().window = 0;
        let limit = [1, 100, 5000, 100_000][pick(4)];
        pair.stream.set_send_limit(limit);
        let sizes = [3, 100, 2000, 20_000, 70_000];
        let (mut said, mut got) = (Vec::new(), Vec::new());
        let (mut sent, mut heard) = (Vec::new(), Vec::new());
        for number in 0..300 {
            pair.wire.borrow_mut().most = [0, 0, 1 + pick(5), 1 + pick(5000)][pick(4)];
            match pick(5) {
                0 if said.len() < 300_000 => {
                    let bytes = vec![number as u8; pick(sizes[pick(4)]).max(1)];
                    // The server's own buffers are 64 KiB.
                    said.extend_from_slice(&bytes);
                    pair.say(&bytes);
                    if seed % 2 == 0 && pick(3) == 0 {
                        pair.server.refresh_traffic_keys().unwrap();
                        pair.deliver();
                    }
                }
                1 => {
                    let most = pick(sizes[pick(5)]).max(1);
                    pair.wire.borrow_mut().blocked = false;
                    match pair.recv(most) {
                        Ok(bytes) => {
                            let short = bytes.len() < most && !pair.stream.has_more();
                            assert!(!short || pair.wire.borrow().blocked, "a short read without a reason");
                            got.extend(bytes);
                        }
                        Err(error) if error.kind() == ErrorKind::Interrupted => assert!(pair.stream.has_more()),
                        Err(error) => assert!(error.kind() == ErrorKind::WouldBlock && pair.wire.borrow().blocked),
                    }
                }
                2 => {
                    let bytes = vec![number as u8; pick(sizes[pick(5)])];
                    pair.wire.borrow_mut().blocked = false;
                    match pair.stream.send(&bytes) {
                        Ok(taken) => {
                            assert!(
                                taken == bytes.len() || pair.wire.borrow().blocked,
                                "a short write without a reason"
                            );
                            sent.extend_from_slice(&bytes[..taken]);
                        }
                        Err(error) => assert!(error.kind() == ErrorKind::WouldBlock && pair.wire.borrow().blocked),
                    }
                    assert!(pair.stream.unsent() <= limit + 16 * 1024 + 1000, "{} wait", pair.stream.unsent());
                }
                3 => {
                    pair.wire.borrow_mut().window += pick(sizes[pick(5)]);
                    let done = pair.stream.flush().unwrap();
                    assert_eq!(done, pair.stream.unsent() == 0);
                }
                _ => heard.extend(pair.hear()),
            }
            assert!(said.starts_with(&got) && sent.starts_with(&heard));
            assert!(pair.stream.held() <= pair.stream.unsent() + 40_000, "{} held", pair.stream.held());
        }
        pair.wire.borrow_mut().window = usize::MAX;
        assert!(pair.stream.flush().unwrap());
        heard.extend(pair.hear());
        while let Ok(bytes) = pair.recv(10_000) {
            got.extend(bytes);
        }
        assert_eq!((got == said, heard == sent), (true, true), "seed {seed}");
        pair.stream.flush().unwrap();
        assert_eq!(pair.stream.held(), 0, "an idle connection holds nothing");
    }
}

#[test]
fn the_end_that_the_server_announces_is_the_end() {
    for versions in [V12, V13] {
        let mut pair = Pair::new(versions);
        pair.server.writer().write_all(b"last words").unwrap();
        pair.server.send_close_notify();
        pair.deliver();
        // The wire stays open, and so announces nothing: the stream itself must say that there is more to it.
        assert!(!pair.stream.has_more());
        assert_eq!(pair.recv(100).unwrap(), b"last words");
        assert!(pair.stream.has_more());
        assert_eq!(pair.recv(100).unwrap(), b"");
        assert_eq!(pair.recv(100).unwrap(), b"");
        // The other direction goes on.
        assert_eq!(pair.stream.send(b"thanks").unwrap(), 6);
        pair.stream.shutdown_write();
        assert_eq!(pair.hear(), b"thanks");
        assert!(pair.wire.borrow().shut);
    }
}

#[test]
fn an_end_that_nobody_announced_is_an_error() {
    for versions in [V12, V13] {
        let mut pair = Pair::new(versions);
        pair.say(b"half a sen");
        pair.wire.borrow_mut().ended = true;
        assert_eq!(pair.recv(100).unwrap(), b"half a sen");
        assert!(pair.stream.has_more());
        for _ in 0..2 {
            let error = pair.recv(100).unwrap_err();
            assert_eq!(
                (error.kind(), error.to_string().as_str()),
                (ErrorKind::UnexpectedEof, "closed without close_notify")
            );
        }
        // In the middle of a record, too.
        let mut pair = Pair::new(versions);
        pair.say(b"cut off");
        pair.wire.borrow_mut().inbound.pop_back();
        pair.wire.borrow_mut().ended = true;
        assert_eq!(pair.kind(), ErrorKind::UnexpectedEof);
    }
}

#[test]
fn our_end_is_announced_behind_everything_else() {
    for versions in [V12, V13] {
        let mut pair = Pair::new(versions);
        pair.wire.borrow_mut().window = 10;
        assert_eq!(pair.stream.send(b"last words").unwrap(), 10);
        pair.stream.shutdown_write();
        pair.stream.shutdown_write();
        assert!(!pair.wire.borrow().shut, "there is something to be sent yet");
        assert!(!pair.stream.flush().unwrap());
        assert_eq!(pair.stream.send(b"more").unwrap_err().kind(), ErrorKind::BrokenPipe);
        pair.wire.borrow_mut().window = 1000;
        assert!(pair.stream.flush().unwrap());
        assert!(pair.wire.borrow().shut);
        let sent = std::mem::take(&mut pair.wire.borrow_mut().outbound);
        hear(&mut pair.server, &sent).unwrap();
        let mut heard = Vec::new();
        pair.server.reader().read_to_end(&mut heard).expect("an end that was announced");
        assert_eq!(heard, b"last words");
        assert!(pair.stream.flush().unwrap());
    }
}

#[test]
fn a_forged_record_ends_the_stream_and_the_server_hears_so() {
    for versions in [V12, V13] {
        let mut pair = Pair::new(versions);
        pair.say(b"one");
        pair.say(b"two");
        *pair.wire.borrow_mut().inbound.back_mut().unwrap() ^= 1;
        assert_eq!(pair.recv(100).unwrap(), b"one");
        assert!(pair.stream.has_more());
        assert_eq!(pair.kind(), ErrorKind::InvalidData);
        assert_eq!(pair.kind(), ErrorKind::InvalidData);
        assert_eq!(pair.stream.send(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        pair.stream.shutdown_write();
        let sent = std::mem::take(&mut pair.wire.borrow_mut().outbound);
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac);
        assert_eq!(hear(&mut pair.server, &sent), Err(alert));
    }
}

#[test]
fn what_comes_with_the_handshakes_last_bytes_is_not_lost() {
    let identity = Identity::self_signed(&["a.example"], Validity::Now);
    let house = House::new(None, None);
    let (pending, hello) = begin(&house, "a.example", &unverified()).unwrap();
    let mut config = identity.server(V13, None);
    config.send_half_rtt_data = true;
    let mut server = ServerConnection::new(Arc::new(config)).unwrap();
    hear(&mut server, &hello).unwrap();
    // A server of TLS 1.3 may speak before it has heard the client's last word.
    server.writer().write_all(b"220 ready\r\n").unwrap();
    server.send_close_notify();
    let Step { to_send, outcome: Outcome::Done(connection) } = pending.advance(&drain(&mut server)) else { panic!() };
    let wire = Rc::new(RefCell::new(Wire::default()));
    let mut stream = TlsStream::new(End(Rc::clone(&wire)), connection, to_send);
    assert!(stream.has_more());
    let mut buffer = [0; 100];
    assert_eq!(stream.recv(&mut buffer).unwrap(), 11);
    assert_eq!(&buffer[..11], b"220 ready\r\n");
    assert_eq!(stream.recv(&mut buffer).unwrap(), 0);
    // What the handshake left unsent goes first.
    assert!(!stream.flush().unwrap());
    wire.borrow_mut().window = 10_000;
    assert_eq!(stream.send(b"hello").unwrap(), 5);
    let sent = std::mem::take(&mut wire.borrow_mut().outbound);
    hear(&mut server, &sent).unwrap();
    let mut heard = [0; 5];
    server.reader().read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"hello");
}

#[test]
fn a_server_of_1_3_refuses_us_behind_the_handshake() {
    let clients = Authority::new("clients");
    let identity = Identity::self_signed(&["a.example"], Validity::Now);
    let config = Arc::new(identity.server(V13, Some(&clients)));
    let Shaken { client, mut server, heard } = shake(&House::new(None, None), "a.example", &unverified(), &config);
    assert!(heard.is_err());
    let wire = Rc::new(RefCell::new(Wire { inbound: drain(&mut server).into(), window: 1000, ..Wire::default() }));
    // `shake` has carried the alert already, if it came with the last flight.
    let told = match client {
        Ok(connection) => TlsStream::new(End(wire), connection, Vec::new()).recv(&mut [0; 10]).unwrap_err().to_string(),
        Err(failure) => failure.to_string(),
    };
    assert_eq!(told, "SSL_ERROR the server wants a certificate from us");
}

#[test]
fn a_relay_passes_on_an_end_that_no_event_announces() {
    use crate::net::endpoint::{Endpoint, SocketEndpoint};
    use crate::net::readiness::Readiness;
    use crate::relay::memory_budget::MemoryBudget;
    use crate::relay::stream::StreamRelay;
    use crate::testing::TestContext;
    let Pair { stream, wire, mut server } = Pair::new(V13);
    let plugin_wire = Rc::new(RefCell::new(Wire { window: usize::MAX, ..Wire::default() }));
    let mut plugin = SocketEndpoint::new(End(Rc::clone(&plugin_wire)), Readiness::FRESH);
    let mut remote = SocketEndpoint::new(stream, Readiness::FRESH);
    let mut cx = TestContext::new(MemoryBudget::new(100_000, 10_000), 10_000);
    let mut relay = StreamRelay::new(cx.now, Vec::new(), &mut cx.budget);
    relay.run(&mut plugin, &mut remote, &mut cx.relay());
    assert!(!remote.is_readable());
    server.writer().write_all(b"last words").unwrap();
    server.send_close_notify();
    let sent = drain(&mut server);
    wire.borrow_mut().inbound.extend(sent);
    remote.assume_readable();
    relay.run(&mut plugin, &mut remote, &mut cx.relay());
    assert_eq!(plugin_wire.borrow().outbound, b"last words");
    assert!(plugin_wire.borrow().shut, "the plugin was not told of the end");
}

#[test]
fn one_call_does_not_work_for_ever_on_what_is_of_no_use() {
    let mut pair = Pair::new(V13);
    // A record each.
    (0..3000).for_each(|_| pair.say(b"x"));
    let before = pair.wire.borrow().inbound.len();
    let got = pair.recv(64 * 1024).unwrap().len();
    let received = before - pair.wire.borrow().inbound.len();
    assert!(got > 0 && received <= 16 * 1024, "{got} bytes of {received} at once");
    assert!(pair.stream.has_more());
    let mut rest = 0;
    while let Ok(bytes) = pair.recv(64 * 1024) {
        rest += bytes.len();
    }
    assert_eq!((got + rest, pair.stream.has_more()), (3000, false));
    // Of new keys, nothing is to be seen.
    pair.server.refresh_traffic_keys().unwrap();
    pair.deliver();
    assert_eq!(pair.kind(), ErrorKind::Interrupted);
    assert_eq!(pair.kind(), ErrorKind::WouldBlock);
}
