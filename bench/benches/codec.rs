//! Speed of reading and writing WebSocket frames, compared with tungstenite in the same run: masked binary frames of 64
//! KiB and masked texts of 40 bytes, as a server reads and a client writes them.
//!
//!     cargo bench -p bench --bench codec
//!
//! Both implementations read from and write to memory. Both get fresh bytes for each run, since both unmask in place.

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use sockproxyd::websocket::{Connection, Control, Entropy, Event, Kind, Role, WebSocketSettings};
use tungstenite::protocol::Role as TheirRole;
use tungstenite::{Bytes, Message, Utf8Bytes, WebSocket};

/// Buffer size of one read.
const READ: usize = 16 * 1024;

struct Case {
    name: &'static str,
    kind: Kind,
    payload: Vec<u8>,
    count: usize,
}

fn cases() -> [Case; 2] {
    let text = b"{\"sensor\":\"kitchen\",\"temperature\":21.25}".to_vec();
    assert_eq!(text.len(), 40);
    [
        Case { name: "binary 64 KiB", kind: Kind::Binary, payload: vec![0xa5; 65_536], count: 64 },
        Case { name: "text 40 bytes", kind: Kind::Text, payload: text, count: 10_000 },
    ]
}

/// A fast source of masking keys, which are not part of the measurement. tungstenite draws its keys from ChaCha, which
/// does count for it: see `write`.
struct Keys(u32);

impl Entropy for Keys {
    fn mask(&mut self) -> [u8; 4] {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0.to_be_bytes()
    }
}

fn connection(role: Role) -> Connection {
    let settings = WebSocketSettings {
        role,
        mask: true,
        control: Control::Auto,
        max_message: 1 << 20,
        deflate: None,
        ping_interval: None,
    };
    Connection::new(settings, Instant::now())
}

/// The messages of a case, encoded by a client.
fn encoded(case: &Case) -> Vec<u8> {
    let mut client = connection(Role::Client);
    let mut keys = Keys(1);
    for _ in 0..case.count {
        client.send(case.kind, &case.payload, true, &mut keys).expect("the connection is open");
    }
    client.poll_transmit(&mut keys).to_vec()
}

/// A transport that reads from memory and discards writes.
struct Memory<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Read for Memory<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(self.bytes.len() - self.at).min(READ);
        buffer[..count].copy_from_slice(&self.bytes[self.at..self.at + count]);
        self.at += count;
        if count == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(count) }
    }
}

impl Write for Memory<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(black_box(bytes).len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn group<'a>(criterion: &'a mut Criterion, name: String, case: &Case) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Bytes((case.payload.len() * case.count) as u64));
    group
}

/// Reads everything, and calls `take` for each event.
#[inline]
fn events(server: &mut Connection, bytes: &[u8], buffer: &mut [u8], now: Instant, mut take: impl FnMut(Event<'_>)) {
    let mut transport = Memory { bytes, at: 0 };
    while let Ok(count) = transport.read(buffer) {
        let mut at = 0;
        loop {
            let (taken, event) = server.handle_input(&mut buffer[at..count], now);
            at += taken;
            match event {
                Some(event) => take(event),
                None if taken == 0 => break,
                None => {}
            }
        }
    }
}

fn read(criterion: &mut Criterion) {
    for case in cases() {
        let bytes = encoded(&case);
        let mut group = group(criterion, format!("read {}", case.name), &case);
        let mut server = connection(Role::Server);
        let mut buffer = vec![0; READ];
        let now = Instant::now();
        group.bench_function("ours", |bencher| {
            bencher.iter(|| {
                let (mut messages, mut length) = (0, 0);
                events(&mut server, &bytes, &mut buffer, now, |event| match event {
                    Event::Data(piece) => length += black_box(piece).len(),
                    Event::End => messages += 1,
                    _ => {}
                });
                assert_eq!((messages, length), (case.count, case.count * case.payload.len()));
            });
        });
        // Assembles whole messages, as tungstenite does: the cost for a framing that needs them.
        let mut whole = Vec::new();
        group.bench_function("ours, assembled", |bencher| {
            bencher.iter(|| {
                let (mut messages, mut length) = (0, 0);
                events(&mut server, &bytes, &mut buffer, now, |event| match event {
                    Event::Data(piece) => whole.extend_from_slice(piece),
                    Event::End => {
                        (messages, length) = (messages + 1, length + black_box(&whole).len());
                        whole.clear();
                    }
                    _ => {}
                });
                assert_eq!((messages, length), (case.count, case.count * case.payload.len()));
            });
        });
        let mut server = WebSocket::from_raw_socket(Memory { bytes: &bytes, at: 0 }, TheirRole::Server, None);
        group.bench_function("tungstenite", |bencher| {
            bencher.iter(|| {
                server.get_mut().at = 0;
                let (mut messages, mut length) = (0, 0);
                while let Ok(message) = server.read() {
                    length += black_box(message).len();
                    messages += 1;
                }
                assert_eq!((messages, length), (case.count, case.count * case.payload.len()));
            });
        });
    }
}

fn write(criterion: &mut Criterion) {
    for case in cases() {
        let mut group = group(criterion, format!("write {}", case.name), &case);
        for (role, theirs, name) in [
            (Role::Client, TheirRole::Client, "masked"),
            // Without masks, and so without the cost of keys.
            (Role::Server, TheirRole::Server, "plain"),
        ] {
            let mut ours = connection(role);
            let mut keys = Keys(1);
            group.bench_function(format!("ours, {name}"), |bencher| {
                bencher.iter(|| {
                    for _ in 0..case.count {
                        ours.send(case.kind, &case.payload, true, &mut keys).expect("the connection is open");
                        let written = black_box(ours.poll_transmit(&mut keys)).len();
                        ours.handle_transmitted(written);
                    }
                });
            });
            let mut tungstenite = WebSocket::from_raw_socket(Memory { bytes: &[], at: 0 }, theirs, None);
            // Created once: a clone copies only a reference count.
            let message = match case.kind {
                Kind::Binary => Message::Binary(Bytes::from(case.payload.clone())),
                Kind::Text => Message::Text(Utf8Bytes::try_from(case.payload.clone()).expect("UTF-8")),
            };
            group.bench_function(format!("tungstenite, {name}"), |bencher| {
                bencher.iter(|| {
                    for _ in 0..case.count {
                        tungstenite.send(message.clone()).expect("the connection is open");
                    }
                });
            });
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = read, write
}
criterion_main!(benches);
