//! What passes between a browser and each kind of target.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread;

use testkit::device::{Device, Kind, UdpEcho};
use testkit::ports::Reserved;
use testkit::process::raise_descriptor_limit;
use testkit::random::Random;
use testkit::tls::Identity;
use testkit::websocket::{BINARY, CLOSE, CONTINUATION, PING, PONG, Peer, Server, TEXT, close_of, masked_frame_of};

use super::Served;
use crate::support::{StatClient, Writer, accepted, cache, curl, daemon, read_frame, skipped_under_emulation};

/// Sends `bytes` in messages of random lengths, some of them in fragments with pings between.
fn send_messages(client: &mut Peer, mut bytes: &[u8], random: &mut Random) {
    while !bytes.is_empty() {
        let length = [1, 5, 125, 126, 1000, 65_535, 65_536, 200_000][random.below(8) as usize].min(bytes.len());
        let (message, rest) = bytes.split_at(length);
        if random.below(3) == 0 {
            let (first, last) = message.split_at(length / 2);
            client.send(&masked_frame_of(BINARY, first)).unwrap();
            client.send_masked(PING, b"within").unwrap();
            client.send_masked(CONTINUATION, last).unwrap();
        } else {
            client.send_masked(BINARY, message).unwrap();
        }
        bytes = rest;
    }
}

/// Reads `count` bytes of binary messages.
fn read_messages(client: &mut Peer, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < count {
        match read_frame(client) {
            (BINARY, payload) => bytes.extend(payload),
            (PONG, payload) => assert_eq!(payload, b"within"),
            other => panic!("{other:?}"),
        }
    }
    bytes
}

/// An echo at `path` returns everything.
fn check_echo(served: &Served, path: &str, seed: u64) {
    let mut client = served.opened(path);
    let mut random = Random::new(seed);
    let bytes = random.bytes(1_500_000);
    let mut sender = Peer::new(client.stream().try_clone().unwrap());
    let sent = bytes.clone();
    let sending = thread::spawn(move || send_messages(&mut sender, &sent, &mut random));
    assert!(read_messages(&mut client, bytes.len()) == bytes, "other bytes");
    sending.join().unwrap();
    client.send_masked(CLOSE, &close_of(1000, "bye")).unwrap();
    loop {
        match read_frame(&mut client) {
            (PONG, _) => {}
            other => break assert_eq!(other, (CLOSE, close_of(1000, ""))),
        }
    }
    assert_eq!(client.rest().unwrap(), b"");
}

#[test]
fn bytes_pass_both_ways_over_tcp_and_tls() {
    let device = Device::start(Kind::Echo);
    let identity = Identity::loopback();
    let secure = testkit::tls::TlsDevice::echo(identity.any_server());
    for limits in ["", "[limits]\nbuffer=2048\nbuffers=65536\n"] {
        let served = Served::configured(
            limits,
            &[
                format!("/tcp CONN {}", device.addr()),
                format!("/tls CONN {} PRTO=tls PINS={} CTIM=30000", secure.addr(), identity.pin()),
            ],
        );
        check_echo(&served, "/tcp", 1);
        check_echo(&served, "/tls", 2);
    }
}

#[test]
fn datagrams_are_messages() {
    let device = UdpEcho::start();
    let served = Served::start(&[format!("/a CONN {} PRTO=udp", device.addr())]);
    let mut client = served.opened("/a");
    for payload in [&b"hello"[..], b"", &[7; 9000], &[8; 65_507], b"x"] {
        client.send_masked(TEXT, payload).unwrap();
        assert_eq!(read_frame(&mut client), (BINARY, payload.to_vec()));
    }
    // A message in fragments is one datagram, too.
    client.send(&masked_frame_of(BINARY, b"one ")).unwrap();
    client.send_masked(CONTINUATION, b"datagram").unwrap();
    assert_eq!(read_frame(&mut client), (BINARY, b"one datagram".to_vec()));
    client.send_masked(BINARY, &[0; 65_508]).unwrap();
    let (opcode, payload) = read_frame(&mut client);
    assert_eq!((opcode, &payload[..2]), (CLOSE, &1009u16.to_be_bytes()[..]));
}

#[test]
fn messages_to_a_websocket_keep_their_kinds_and_codes() {
    let (sender, peers) = std::sync::mpsc::channel();
    let server = Server::start(move |mut peer| {
        peer.upgrade()?;
        sender.send(peer).ok();
        Ok(())
    });
    let served = Served::start(&[format!("/a CONN {} MAXM=200000", server.url("/x"))]);
    let mut client = served.opened("/a");
    let mut remote = peers.recv().unwrap();
    for (opcode, payload) in
        [(TEXT, "gr\u{fc}\u{df} dich".into()), (BINARY, vec![0xff; 5]), (TEXT, Vec::new()), (BINARY, vec![1; 150_000])]
    {
        let _: &Vec<u8> = &payload;
        client.send_masked(opcode, &payload).unwrap();
        assert_eq!(read_frame(&mut remote), (opcode, payload.clone()));
        remote.send_frame(opcode, &payload).unwrap();
        assert_eq!(read_frame(&mut client), (opcode, payload));
    }
    client.send_masked(CLOSE, &close_of(4001, "bye")).unwrap();
    assert_eq!(read_frame(&mut remote), (CLOSE, close_of(4001, "bye")));
    assert_eq!(read_frame(&mut client), (CLOSE, close_of(4001, "")));
    remote.send_frame(CLOSE, &close_of(4001, "")).unwrap();
    assert_eq!(remote.rest().unwrap(), b"");
    assert_eq!(client.rest().unwrap(), b"");

    let mut client = served.opened("/a");
    let mut remote = peers.recv().unwrap();
    remote.send_frame(CLOSE, &close_of(4002, "ende")).unwrap();
    assert_eq!(read_frame(&mut client), (CLOSE, close_of(4002, "ende")));
    assert_eq!(read_frame(&mut remote), (CLOSE, close_of(4002, "")));
}

#[test]
fn a_browser_that_does_not_read_holds_the_target_back() {
    let device = Device::start(Kind::Manual);
    let served = Served::start(&[format!("/a CONN {}", device.addr())]);
    let mut client = served.opened("/a");
    let remote = accepted(&device);
    let mut writer = Writer::new(&remote, 3);
    let held = writer.write_until_blocked();
    assert!(served.daemon.memory().rss < 60 << 20);
    let reader = thread::spawn(move || read_messages(&mut client, held as usize + 3_000_000).len());
    writer.write(3_000_000);
    assert_eq!(reader.join().unwrap(), held as usize + 3_000_000);
}

#[test]
fn a_target_that_does_not_read_holds_the_browser_back() {
    let device = Device::start(Kind::Manual);
    let served = Served::start(&[format!("/a CONN {}", device.addr())]);
    let client = served.opened("/a");
    let mut remote = accepted(&device);
    let mut stream: TcpStream = client.stream().try_clone().unwrap();
    stream.set_nonblocking(true).unwrap();
    let frame = masked_frame_of(0x80 | BINARY, &[9; 50_000]);
    let mut sent = 0;
    let mut blocked = 0;
    while blocked < 20 && sent < 256 << 20 {
        match stream.write(&frame[sent % frame.len()..]) {
            Ok(written) => (sent, blocked) = (sent + written, 0),
            Err(_) => {
                blocked += 1;
                thread::sleep(std::time::Duration::from_millis(10));
            }
        }
    }
    assert!(sent < 256 << 20, "nothing holds the browser back");
    stream.set_nonblocking(false).unwrap();
    let whole = sent.div_ceil(frame.len());
    let rest = frame[sent % frame.len()..].to_vec();
    let writer = thread::spawn(move || {
        if sent % 50_014 > 0 {
            stream.write_all(&rest).unwrap();
        }
    });
    let mut bytes = vec![0; whole * 50_000];
    remote.read_exact(&mut bytes).unwrap();
    assert!(bytes.iter().all(|&byte| byte == 9));
    writer.join().unwrap();
}

#[test]
fn five_hundred_browsers_at_once() {
    const MANY: usize = 500;
    if skipped_under_emulation("it is slow") || raise_descriptor_limit() < 5 * MANY as u64 {
        return;
    }
    let device = Device::start(Kind::Echo);
    let served = Served::configured("[limits]\nperaddress=600\n", &[format!("/a CONN {}", device.addr())]);
    let mut clients: Vec<Peer> = (0..MANY).map(|_| served.opened("/a")).collect();
    for round in 0..3u8 {
        for (number, client) in clients.iter_mut().enumerate() {
            client.send_masked(BINARY, &[round, number as u8]).unwrap();
        }
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(read_frame(client), (BINARY, vec![round, number as u8]));
        }
    }
}

/// What a client of tests/peers prints that has sent messages to an echo.
#[track_caller]
fn output_of(mut client: Command) -> String {
    client.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers"));
    let output = client.output().unwrap_or_else(|e| panic!("{client:?}: {e} (scripts/test installs it)"));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The client of Node's `ws`.
#[track_caller]
fn node_client(url: &str) -> String {
    let mut command = Command::new("node");
    command.arg("ws_client.js").arg(url);
    command.env("NODE_PATH", cache().join("ws/node_modules")).env("NODE_TLS_REJECT_UNAUTHORIZED", "0");
    output_of(command)
}

/// The client of Python's `websockets`.
#[track_caller]
fn python_client(url: &str) -> String {
    let mut command = Command::new(cache().join("websocket-peer/bin/python"));
    command.arg("websockets_client.py").arg(url);
    output_of(command)
}

#[test]
fn clients_of_node_and_python_with_and_without_compression() {
    let device = Device::start(Kind::Echo);
    let target = device.addr();
    let served = Served::start(&[format!("/plain CONN {target}"), format!("/deflate DEFL=on CONN {target}")]);
    for (path, extensions) in [("/plain", "none"), ("/deflate", "permessage-deflate")] {
        let url = format!("ws://{}{path}", served.addr());
        for shown in [node_client(&url), python_client(&url)] {
            let expected = format!("same bytes, extensions: {extensions}, closed 1000");
            assert_eq!(shown, expected, "{}", served.daemon.log_text());
        }
    }
}

#[test]
fn a_port_that_speaks_tls() {
    let device = Device::start(Kind::Echo);
    let (port, identity) = (Reserved::new().unwrap(), Identity::loopback());
    let config = format!(
        "[tls]\ndirectory={{dir}}\n[serve]\n{0}=/a CERT=box.pem PKEY=box.key CONN {1}\n{0}=/b CERT=box.pem PKEY=box.key CONN 127.0.0.1:1\n",
        port.port(),
        device.addr()
    );
    let files = [("box.pem", identity.pem()), ("box.key", identity.key_pem())];
    let builder = files.iter().fold(daemon(), |builder, (name, text)| builder.file(name, text.as_bytes()));
    let daemon = builder.config(&config).listeners(3).start();
    assert_eq!(
        node_client(&format!("wss://{}/a", port.addr())),
        "same bytes, extensions: none, closed 1000",
        "{}",
        daemon.log_text()
    );
    let shown = |url: String| curl(&["-k", "-H", "Connection: Upgrade", &url]).out;
    assert!(shown(format!("https://{}/a", port.addr())).starts_with("This is a WebSocket port"));
    assert!(shown(format!("http://{}/a", port.addr())).contains("TLS"), "a plain request is told so");
    // One that sends nothing, or leaves in the middle, disturbs nobody.
    let mut half = TcpStream::connect(port.addr()).unwrap();
    half.write_all(b"\x16\x03\x01").unwrap();
    drop(half);
    StatClient::new(daemon.addr()).wait_connections(0);
}
