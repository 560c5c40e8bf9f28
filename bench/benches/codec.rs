//! Speed of reading and writing WebSocket frames, compared with tungstenite in the same run: masked binary frames of 64
//! KiB and masked texts of 40 bytes, as a server reads and a client writes them.
//!
//!     cargo bench -p bench --bench codec
//!
//! Both implementations read from and write to memory. Both get fresh bytes for each run, since both unmask in place.

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::time::Duration;

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use sockproxyd::benchmarks::{Decoded, FrameReader, FrameWriter};
use tungstenite::protocol::Role as TheirRole;
use tungstenite::{Bytes, Message, Utf8Bytes, WebSocket};

/// Buffer size of one read.
const READ: usize = 16 * 1024;

struct Case {
    name: &'static str,
    is_text: bool,
    payload: Vec<u8>,
    count: usize,
}

fn cases() -> [Case; 2] {
    let text = b"{\"sensor\":\"kitchen\",\"temperature\":21.25}".to_vec();
    assert_eq!(text.len(), 40);
    [
        Case { name: "binary 64 KiB", is_text: false, payload: vec![0xa5; 65_536], count: 64 },
        Case { name: "text 40 bytes", is_text: true, payload: text, count: 10_000 },
    ]
}

/// The messages of a case as a client writes them.
fn encoded(case: &Case) -> Vec<u8> {
    let mut client = FrameWriter::new(true);
    for _ in 0..case.count {
        client.write(&case.payload, case.is_text);
    }
    client.frames().to_vec()
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
fn decode(server: &mut FrameReader, bytes: &[u8], buffer: &mut [u8], mut take: impl FnMut(Decoded<'_>)) {
    let mut transport = Memory { bytes, at: 0 };
    while let Ok(count) = transport.read(buffer) {
        server.read(&mut buffer[..count], &mut take);
    }
}

fn read(criterion: &mut Criterion) {
    for case in cases() {
        let bytes = encoded(&case);
        let mut group = group(criterion, format!("read {}", case.name), &case);
        let mut server = FrameReader::default();
        let mut buffer = vec![0; READ];
        group.bench_function("ours", |bencher| {
            bencher.iter(|| {
                let (mut messages, mut length) = (0, 0);
                decode(&mut server, &bytes, &mut buffer, |decoded| match decoded {
                    Decoded::Data(piece) => length += black_box(piece).len(),
                    Decoded::End => messages += 1,
                });
                assert_eq!((messages, length), (case.count, case.count * case.payload.len()));
            });
        });
        // Assembles whole messages, as tungstenite does: the cost for a framing that needs them.
        let mut whole = Vec::new();
        group.bench_function("ours, assembled", |bencher| {
            bencher.iter(|| {
                let (mut messages, mut length) = (0, 0);
                decode(&mut server, &bytes, &mut buffer, |decoded| match decoded {
                    Decoded::Data(piece) => whole.extend_from_slice(piece),
                    Decoded::End => {
                        (messages, length) = (messages + 1, length + black_box(&whole).len());
                        whole.clear();
                    }
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
        // Plain: without masks, and so without what draws the keys.
        for (masked, theirs, name) in [(true, TheirRole::Client, "masked"), (false, TheirRole::Server, "plain")] {
            let mut ours = FrameWriter::new(masked);
            group.bench_function(format!("ours, {name}"), |bencher| {
                bencher.iter(|| {
                    for _ in 0..case.count {
                        ours.write(&case.payload, case.is_text);
                        let written = black_box(ours.frames()).len();
                        ours.handle_sent(written);
                    }
                });
            });
            let mut tungstenite = WebSocket::from_raw_socket(Memory { bytes: &[], at: 0 }, theirs, None);
            // Made once: only a count of references is copied with it.
            let message = match case.is_text {
                false => Message::Binary(Bytes::from(case.payload.clone())),
                true => Message::Text(Utf8Bytes::try_from(case.payload.clone()).expect("UTF-8")),
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
