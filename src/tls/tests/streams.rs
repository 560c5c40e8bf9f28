//! Tests of [`TlsStream`] over an in-memory stream with short reads and writes.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::rc::Rc;

use testkit::random::Random;

use super::*;
use crate::net::socket::Stream;
use crate::testing::seeds::for_each_seed;
use crate::tls::TlsStream;

/// The stream below, seen from the client.
#[derive(Debug, Default)]
pub(super) struct MemoryWire {
    pub(super) inbound: VecDeque<u8>,
    pub(super) outbound: Vec<u8>,
    /// Bytes that it takes before it blocks.
    pub(super) window: usize,
    /// Bytes read or written in one call at most; 0: no limit.
    pub(super) max: usize,
    /// The server has closed its direction.
    pub(super) ended: bool,
    /// The client has closed its direction.
    pub(super) shut: bool,
    /// It has returned `WouldBlock` since the flag was last cleared.
    pub(super) blocked: bool,
}

#[derive(Clone, Debug)]
pub(super) struct WireStream(pub(super) Rc<RefCell<MemoryWire>>);

impl Stream for WireStream {
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut wire = self.0.borrow_mut();
        if wire.inbound.is_empty() {
            wire.blocked |= !wire.ended;
            return if wire.ended { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) };
        }
        let max = if wire.max == 0 { usize::MAX } else { wire.max };
        let length = buffer.len().min(wire.inbound.len()).min(max);
        wire.inbound.drain(..length).zip(buffer).for_each(|(byte, place)| *place = byte);
        Ok(length)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut wire = self.0.borrow_mut();
        assert!(!wire.shut, "bytes sent after shutdown");
        let max = if wire.max == 0 { usize::MAX } else { wire.max };
        let length = bytes.len().min(wire.window).min(max);
        if length == 0 {
            wire.blocked = true;
            return Err(ErrorKind::WouldBlock.into());
        }
        wire.window -= length;
        wire.outbound.extend_from_slice(&bytes[..length]);
        Ok(length)
    }

    fn shutdown_write(&mut self) {
        assert!(!std::mem::replace(&mut self.0.borrow_mut().shut, true), "shutdown called twice");
    }
}

/// A client's stream and the server at the other end of its wire.
struct Pair {
    stream: TlsStream<WireStream>,
    wire: Rc<RefCell<MemoryWire>>,
    server: ServerConnection,
}

impl Pair {
    fn new(versions: &[&'static SupportedProtocolVersion]) -> Self {
        let identity = Identity::self_signed(&["a.example"], Validity::Now);
        let config = Arc::new(identity.server(versions, None));
        let Finished { client, server, received } =
            handshake(&TlsContext::new(None, None), "a.example", &unverified(), &config);
        received.unwrap();
        let wire = Rc::new(RefCell::new(MemoryWire { window: usize::MAX, ..MemoryWire::default() }));
        Self { stream: TlsStream::new(WireStream(Rc::clone(&wire)), client.unwrap(), Vec::new()), wire, server }
    }

    /// Moves the bytes that the server wants to send to the wire.
    fn deliver(&mut self) {
        let written = drain(&mut self.server);
        self.wire.borrow_mut().inbound.extend(written);
    }

    fn server_write(&mut self, bytes: &[u8]) {
        self.server.writer().write_all(bytes).unwrap();
        self.deliver();
    }

    /// Passes the client's bytes to the server and returns the plain bytes.
    fn receive(&mut self) -> Vec<u8> {
        let sent = std::mem::take(&mut self.wire.borrow_mut().outbound);
        let mut received = Vec::new();
        let mut sent = &sent[..];
        while !sent.is_empty() {
            self.server.read_tls(&mut sent).unwrap();
            self.server.process_new_packets().unwrap();
            match self.server.reader().read_to_end(&mut received) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => panic!("{error}"),
                _ => {}
            }
        }
        received
    }

    fn recv(&mut self, max: usize) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; max];
        let length = self.stream.recv(&mut buffer)?;
        buffer.truncate(length);
        Ok(buffer)
    }

    fn kind(&mut self) -> ErrorKind {
        self.recv(100).unwrap_err().kind()
    }
}

#[test]
fn bytes_pass_in_order_over_a_wire_with_short_reads_and_writes() {
    for_each_seed("tls::tests::streams", 30, |seed| {
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
        let (mut written, mut got) = (Vec::new(), Vec::new());
        let (mut sent, mut received) = (Vec::new(), Vec::new());
        for number in 0..300 {
            pair.wire.borrow_mut().max = [0, 0, 1 + pick(5), 1 + pick(5000)][pick(4)];
            match pick(5) {
                0 if written.len() < 300_000 => {
                    let bytes = vec![number as u8; pick(sizes[pick(4)]).max(1)];
                    // The server buffers at most 64 KiB of plain bytes.
                    written.extend_from_slice(&bytes);
                    pair.server_write(&bytes);
                    if seed % 2 == 0 && pick(3) == 0 {
                        pair.server.refresh_traffic_keys().unwrap();
                        pair.deliver();
                    }
                }
                1 => {
                    let max = pick(sizes[pick(5)]).max(1);
                    pair.wire.borrow_mut().blocked = false;
                    match pair.recv(max) {
                        Ok(bytes) => got.extend(bytes),
                        Err(error) if error.kind() == ErrorKind::Interrupted => {}
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
                                "a short write without WouldBlock below"
                            );
                            sent.extend_from_slice(&bytes[..taken]);
                        }
                        Err(error) => assert!(error.kind() == ErrorKind::WouldBlock && pair.wire.borrow().blocked),
                    }
                    assert!(pair.stream.unsent() <= limit + 16 * 1024 + 1000, "{} bytes unsent", pair.stream.unsent());
                }
                3 => {
                    pair.wire.borrow_mut().window += pick(sizes[pick(5)]);
                    let done = pair.stream.flush().unwrap();
                    assert_eq!(done, pair.stream.unsent() == 0);
                }
                _ => received.extend(pair.receive()),
            }
            assert!(written.starts_with(&got) && sent.starts_with(&received));
            // A buffer that has grown may be twice as long as what it holds: here the rest of a record.
            assert!(pair.stream.held() <= 2 * (pair.stream.unsent() + 40_000), "{} bytes held", pair.stream.held());
        }
        pair.wire.borrow_mut().window = usize::MAX;
        assert!(pair.stream.flush().unwrap());
        received.extend(pair.receive());
        loop {
            match pair.recv(10_000) {
                Ok(bytes) => got.extend(bytes),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    break;
                }
            }
        }
        assert_eq!((got == written, received == sent), (true, true), "received, sent");
        pair.stream.flush().unwrap();
        assert!((1000..4000).contains(&pair.stream.held()), "an idle connection holds its state alone");
    });
}

#[test]
fn close_notify_ends_the_incoming_direction() {
    for versions in [V12, V13] {
        let mut pair = Pair::new(versions);
        pair.server.writer().write_all(b"last bytes").unwrap();
        pair.server.send_close_notify();
        pair.deliver();
        // The wire stays open and causes no event; the caller reads on.
        assert_eq!(pair.recv(100).unwrap(), b"last bytes");
        assert_eq!(pair.recv(100).unwrap(), b"");
        assert_eq!(pair.recv(100).unwrap(), b"");
        // The outgoing direction stays open.
        assert_eq!(pair.stream.send(b"thanks").unwrap(), 6);
        pair.stream.shutdown_write();
        assert_eq!(pair.receive(), b"thanks");
        assert!(pair.wire.borrow().shut);
    }
}

#[test]
fn an_end_without_close_notify_is_an_error() {
    for versions in [V12, V13] {
        let mut pair = Pair::new(versions);
        pair.server_write(b"half a sen");
        pair.wire.borrow_mut().ended = true;
        assert_eq!(pair.recv(100).unwrap(), b"half a sen");
        for _ in 0..2 {
            let error = pair.recv(100).unwrap_err();
            assert_eq!(
                (error.kind(), error.to_string().as_str()),
                (ErrorKind::UnexpectedEof, "closed without close_notify")
            );
        }
        // Also within a record.
        let mut pair = Pair::new(versions);
        pair.server_write(b"cut off");
        pair.wire.borrow_mut().inbound.pop_back();
        pair.wire.borrow_mut().ended = true;
        assert_eq!(pair.kind(), ErrorKind::UnexpectedEof);
    }
}

#[test]
fn close_notify_follows_all_bytes() {
    for versions in [V12, V13] {
        let mut pair = Pair::new(versions);
        pair.wire.borrow_mut().window = 10;
        assert_eq!(pair.stream.send(b"last bytes").unwrap(), 10);
        pair.stream.shutdown_write();
        pair.stream.shutdown_write();
        assert!(!pair.wire.borrow().shut, "bytes still wait to be sent");
        assert!(!pair.stream.flush().unwrap());
        assert_eq!(pair.stream.send(b"more").unwrap_err().kind(), ErrorKind::BrokenPipe);
        pair.wire.borrow_mut().window = 1000;
        assert!(pair.stream.flush().unwrap());
        assert!(pair.wire.borrow().shut);
        let sent = std::mem::take(&mut pair.wire.borrow_mut().outbound);
        receive(&mut pair.server, &sent).unwrap();
        let mut received = Vec::new();
        pair.server.reader().read_to_end(&mut received).expect("the server should see close_notify");
        assert_eq!(received, b"last bytes");
        assert!(pair.stream.flush().unwrap());
    }
}

#[test]
fn a_forged_record_ends_the_stream_with_an_alert() {
    for versions in [V12, V13] {
        let mut pair = Pair::new(versions);
        pair.server_write(b"one");
        pair.server_write(b"two");
        *pair.wire.borrow_mut().inbound.back_mut().unwrap() ^= 1;
        assert_eq!(pair.recv(100).unwrap(), b"one");
        assert_eq!(pair.kind(), ErrorKind::InvalidData);
        assert_eq!(pair.kind(), ErrorKind::InvalidData);
        assert_eq!(pair.stream.send(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        pair.stream.shutdown_write();
        let sent = std::mem::take(&mut pair.wire.borrow_mut().outbound);
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac);
        assert_eq!(receive(&mut pair.server, &sent), Err(alert));
    }
}

#[test]
fn what_comes_after_our_close_notify_is_never_answered() {
    // rustls#959: rustls asserts in debug builds that it sends no alert after close_notify, and would send one.
    for versions in [V12, V13] {
        for kind in 0..3 {
            let mut pair = Pair::new(versions);
            pair.stream.shutdown_write();
            let sent = pair.wire.borrow().outbound.len();
            match kind {
                0 => pair.wire.borrow_mut().inbound.extend(b"220 ready\r\n220 ready\r\n"),
                1 => {
                    pair.server_write(b"forged");
                    *pair.wire.borrow_mut().inbound.back_mut().unwrap() ^= 1;
                }
                _ if versions == V12 => continue,
                _ => {
                    pair.server.refresh_traffic_keys().unwrap();
                    pair.server_write(b"after a key update");
                    assert_eq!(pair.recv(100).unwrap(), b"after a key update");
                    assert_eq!(pair.kind(), ErrorKind::WouldBlock);
                }
            }
            if kind < 2 {
                assert_eq!(pair.kind(), ErrorKind::InvalidData, "kind {kind}");
            }
            // The wire insists that nothing is sent after its end.
            assert!(pair.stream.flush().unwrap());
            assert_eq!((pair.stream.unsent(), pair.wire.borrow().outbound.len()), (0, sent), "kind {kind}");
        }
    }
}

#[test]
fn bytes_that_come_with_the_end_of_the_handshake_are_kept() {
    let identity = Identity::self_signed(&["a.example"], Validity::Now);
    let context = TlsContext::new(None, None);
    let (pending, hello) = begin(&context, "a.example", &unverified()).unwrap();
    let mut config = identity.server(V13, None);
    config.send_half_rtt_data = true;
    let mut server = ServerConnection::new(Arc::new(config)).unwrap();
    receive(&mut server, &hello).unwrap();
    // A TLS 1.3 server may send application data before it has received the client's Finished.
    server.writer().write_all(b"220 ready\r\n").unwrap();
    server.send_close_notify();
    let TlsStep { to_send, outcome: TlsOutcome::Done(connection) } = pending.advance(&drain(&mut server)) else {
        panic!()
    };
    let wire = Rc::new(RefCell::new(MemoryWire::default()));
    let mut stream = TlsStream::new(WireStream(Rc::clone(&wire)), connection, to_send);
    let mut buffer = [0; 100];
    assert_eq!(stream.recv(&mut buffer).unwrap(), 11);
    assert_eq!(&buffer[..11], b"220 ready\r\n");
    assert_eq!(stream.recv(&mut buffer).unwrap(), 0);
    // Unsent bytes of the handshake are sent first.
    assert!(!stream.flush().unwrap());
    wire.borrow_mut().window = 10_000;
    assert_eq!(stream.send(b"hello").unwrap(), 5);
    let sent = std::mem::take(&mut wire.borrow_mut().outbound);
    receive(&mut server, &sent).unwrap();
    let mut received = [0; 5];
    server.reader().read_exact(&mut received).unwrap();
    assert_eq!(&received, b"hello");
}

#[test]
fn a_tls_1_3_server_may_refuse_the_client_after_the_handshake() {
    let clients = Authority::new("clients");
    let identity = Identity::self_signed(&["a.example"], Validity::Now);
    let config = Arc::new(identity.server(V13, Some(&clients)));
    let Finished { client, mut server, received } =
        handshake(&TlsContext::new(None, None), "a.example", &unverified(), &config);
    assert!(received.is_err());
    let wire =
        Rc::new(RefCell::new(MemoryWire { inbound: drain(&mut server).into(), window: 1000, ..MemoryWire::default() }));
    // `handshake` has already passed on the alert if it came with the server's last flight.
    let error = match client {
        Ok(connection) => {
            TlsStream::new(WireStream(wire), connection, Vec::new()).recv(&mut [0; 10]).unwrap_err().to_string()
        }
        Err(error) => error.to_string(),
    };
    assert_eq!(error, "SSL_ERROR the server wants a certificate from us");
}

#[test]
fn a_relay_passes_on_close_notify_although_no_event_reports_it() {
    use crate::net::endpoint::{Endpoint, SocketEndpoint};
    use crate::net::readiness::Readiness;
    use crate::relay::memory_budget::MemoryBudget;
    use crate::relay::stream::StreamRelay;
    use crate::testing::TestContext;
    let Pair { stream, wire, mut server } = Pair::new(V13);
    let plugin_wire = Rc::new(RefCell::new(MemoryWire { window: usize::MAX, ..MemoryWire::default() }));
    let mut plugin = SocketEndpoint::new(WireStream(Rc::clone(&plugin_wire)), Readiness::FRESH);
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
fn one_call_does_bounded_work_for_records_without_use() {
    let mut pair = Pair::new(V13);
    // One record per byte.
    (0..3000).for_each(|_| pair.server_write(b"x"));
    let before = pair.wire.borrow().inbound.len();
    let got = pair.recv(64 * 1024).unwrap().len();
    let received = before - pair.wire.borrow().inbound.len();
    assert!(got > 0 && received <= 16 * 1024, "{got} bytes of {received} at once");
    let mut rest = 0;
    while let Ok(bytes) = pair.recv(64 * 1024) {
        rest += bytes.len();
    }
    assert_eq!(got + rest, 3000);
    // A key update yields no plain bytes.
    pair.server.refresh_traffic_keys().unwrap();
    pair.deliver();
    assert_eq!(pair.kind(), ErrorKind::Interrupted);
    assert_eq!(pair.kind(), ErrorKind::WouldBlock);
}

#[test]
fn where_memory_is_short_a_record_waits_until_there_is_memory_for_all_of_it() {
    for versions in [V12, V13] {
        let mut pair = Pair::new(versions);
        // Tickets, and whatever else the server sends first.
        pair.deliver();
        assert_eq!(pair.kind(), ErrorKind::WouldBlock);
        pair.server_write(&[7; 500]);
        pair.server_write(&[8; 10_000]);
        pair.server_write(&[9; 500]);
        let idle = pair.stream.held();
        pair.stream.set_receive_limit(1024);
        assert_eq!(pair.recv(20_000).unwrap(), [7; 500], "a short one needs no more than the reserve");
        assert!(pair.stream.waits_for_memory());
        assert_eq!(pair.kind(), ErrorKind::WouldBlock);
        assert_eq!(pair.stream.held() - idle, 5, "the header alone is received");
        pair.stream.set_receive_limit(9000);
        assert!(pair.stream.waits_for_memory(), "it is not enough");
        pair.stream.set_receive_limit(11_000);
        assert!(!pair.stream.waits_for_memory());
        let got = [pair.recv(20_000).unwrap(), pair.recv(20_000).unwrap_or_default()].concat();
        assert_eq!(got, [&[8; 10_000][..], &[9; 500]].concat());
        assert_eq!((pair.kind(), pair.stream.held()), (ErrorKind::WouldBlock, idle));
    }
}
