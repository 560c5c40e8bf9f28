//! Speed of reading and writing WebSocket frames, compared with fastwebsockets and tungstenite in the same run: masked
//! messages as a server reads them, and messages as a client and a server write them. Then unmasking beside a copy, and
//! compression beside zlib-rs.
//!
//!     cargo bench -p bench --bench codec
//!
//! All read from and write to memory, and check what they read: headers, masks, UTF-8. All get fresh bytes for each run,
//! since all unmask in place. What is written is copied, as a socket copies it. Times are those of the processor, so that other
//! programs disturb less.

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use fastwebsockets::{Frame, OpCode, Payload, Role as FastRole, WebSocket as FastWebSocket};
use flate2::{Compress, Compression, FlushCompress};
use nix::time::{ClockId, clock_gettime};
use sockproxyd::benchmarks::{Decoded, FrameReader, FrameWriter, unmask};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tungstenite::protocol::Role as TungsteniteRole;
use tungstenite::{Bytes, Message, Utf8Bytes, WebSocket};

/// Buffer size of one read.
const READ: usize = 16 * 1024;

/// Measures the time that this thread has had a processor for.
struct CpuTime;

impl CpuTime {
    fn now() -> Duration {
        clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock of this thread").into()
    }
}

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        Self::now()
    }

    fn end(&self, start: Duration) -> Duration {
        Self::now() - start
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        const { &WallTime }.formatter()
    }
}

struct Case {
    name: &'static str,
    is_text: bool,
    payload: Vec<u8>,
    count: usize,
}

/// `length` bytes of a list of sensors.
fn json(length: usize, unit: &str) -> Vec<u8> {
    let mut out = String::new();
    let mut state = 1u32;
    while out.len() < length + 4 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (room, value) = (state >> 27, f64::from(state >> 20 & 511) / 10.0);
        out += &format!("{{\"id\":\"sensor.room_{room}\",\"state\":\"{value}\",\"unit\":\"{unit}\"}},");
    }
    let end = (length..).find(|at| out.is_char_boundary(*at)).unwrap_or(length);
    out.truncate(end);
    out.into_bytes()
}

fn cases() -> [Case; 4] {
    let text = b"{\"sensor\":\"kitchen\",\"temperature\":21.25}".to_vec();
    assert_eq!(text.len(), 40);
    [
        Case { name: "text 40 bytes", is_text: true, payload: text, count: 10_000 },
        Case { name: "text 64 KiB", is_text: true, payload: json(65_536, "C"), count: 64 },
        Case { name: "text 64 KiB with degree signs", is_text: true, payload: json(65_536, "°C"), count: 64 },
        Case { name: "binary 64 KiB", is_text: false, payload: vec![0xa5; 65_536], count: 64 },
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

/// A transport that reads from memory and copies what is written to it.
struct Memory<'a> {
    bytes: &'a [u8],
    at: usize,
    sink: Vec<u8>,
}

impl<'a> Memory<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, sink: vec![0; 1 << 17] }
    }

    fn next(&mut self, room: usize) -> &'a [u8] {
        let count = room.min(self.bytes.len() - self.at).min(READ);
        self.at += count;
        &self.bytes[self.at - count..self.at]
    }

    fn store(&mut self, bytes: &[u8]) -> usize {
        self.sink[..bytes.len()].copy_from_slice(bytes);
        black_box(&mut self.sink);
        bytes.len()
    }
}

impl Read for Memory<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.next(buffer.len());
        buffer[..bytes.len()].copy_from_slice(bytes);
        if bytes.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(bytes.len()) }
    }
}

impl Write for Memory<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(self.store(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Memory<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // No bytes are the end: the benchmark's loop ends by that error.
        let bytes = self.next(buffer.remaining());
        buffer.put_slice(bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Memory<'_> {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(self.store(bytes)))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(pieces.iter().map(|piece| self.store(piece)).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The result of a future that never waits.
fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => unreachable!("memory never blocks"),
    }
}

fn group<'a>(criterion: &'a mut Criterion<CpuTime>, name: String, bytes: usize) -> BenchmarkGroup<'a, CpuTime> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Bytes(bytes as u64));
    group
}

/// Reads everything, and calls `take` for each event.
#[inline]
fn decode(server: &mut FrameReader, bytes: &[u8], buffer: &mut [u8], mut take: impl FnMut(Decoded<'_>)) {
    let mut at = 0;
    while at < bytes.len() {
        let count = buffer.len().min(bytes.len() - at);
        buffer[..count].copy_from_slice(&bytes[at..at + count]);
        at += count;
        server.read(&mut buffer[..count], &mut take);
    }
}

fn read(criterion: &mut Criterion<CpuTime>) {
    for case in cases() {
        let bytes = encoded(&case);
        let mut group = group(criterion, format!("read {}", case.name), case.payload.len() * case.count);
        let expected = (case.count, case.count * case.payload.len());
        let mut server = FrameReader::default();
        let mut buffer = vec![0; READ];
        group.bench_function("ours", |bencher| {
            bencher.iter(|| {
                let (mut messages, mut length) = (0, 0);
                decode(&mut server, &bytes, &mut buffer, |decoded| match decoded {
                    Decoded::Data(piece) => length += black_box(piece).len(),
                    Decoded::End => messages += 1,
                });
                assert_eq!((messages, length), expected);
            });
        });
        // Assembles whole messages, as the others do: the cost for a framing that needs them.
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
                assert_eq!((messages, length), expected);
            });
        });
        group.bench_function("fastwebsockets", |bencher| {
            bencher.iter(|| {
                let mut server = FastWebSocket::after_handshake(Memory::new(&bytes), FastRole::Server);
                let (mut messages, mut length) = (0, 0);
                while let Ok(frame) = ready(server.read_frame()) {
                    length += black_box(frame).payload.len();
                    messages += 1;
                }
                assert_eq!((messages, length), expected);
            });
        });
        let mut server = WebSocket::from_raw_socket(Memory::new(&bytes), TungsteniteRole::Server, None);
        group.bench_function("tungstenite", |bencher| {
            bencher.iter(|| {
                server.get_mut().at = 0;
                let (mut messages, mut length) = (0, 0);
                while let Ok(message) = server.read() {
                    length += black_box(message).len();
                    messages += 1;
                }
                assert_eq!((messages, length), expected);
            });
        });
    }
}

fn write(criterion: &mut Criterion<CpuTime>) {
    for case in cases() {
        // Plain: without masks, and so without what draws the keys.
        for (is_masked, name) in [(true, "masked"), (false, "plain")] {
            let name = format!("write {name} {}", case.name);
            let mut group = group(criterion, name, case.payload.len() * case.count);
            let mut ours = FrameWriter::new(is_masked);
            let mut memory = Memory::new(&[]);
            group.bench_function("ours", |bencher| {
                bencher.iter(|| {
                    for _ in 0..case.count {
                        let write = &mut |header: &[u8], payload: &[u8]| memory.store(header) + memory.store(payload);
                        ours.write_uncopied(&case.payload, case.is_text, write);
                        let frames = ours.frames();
                        if !frames.is_empty() {
                            let written = memory.store(frames);
                            ours.handle_sent(written);
                        }
                    }
                });
            });
            let role = if is_masked { FastRole::Client } else { FastRole::Server };
            let mut fast = FastWebSocket::after_handshake(Memory::new(&[]), role);
            let opcode = if case.is_text { OpCode::Text } else { OpCode::Binary };
            group.bench_function("fastwebsockets", |bencher| {
                bencher.iter(|| {
                    for _ in 0..case.count {
                        let frame = Frame::new(true, opcode, None, Payload::Borrowed(&case.payload));
                        ready(fast.write_frame(frame)).expect("the connection is open");
                    }
                });
            });
            let role = if is_masked { TungsteniteRole::Client } else { TungsteniteRole::Server };
            let mut tungstenite = WebSocket::from_raw_socket(Memory::new(&[]), role, None);
            // Made once: only a count of references is copied with it.
            let message = match case.is_text {
                false => Message::Binary(Bytes::from(case.payload.clone())),
                true => Message::Text(Utf8Bytes::try_from(case.payload.clone()).expect("UTF-8")),
            };
            group.bench_function("tungstenite", |bencher| {
                bencher.iter(|| {
                    for _ in 0..case.count {
                        tungstenite.send(message.clone()).expect("the connection is open");
                    }
                });
            });
        }
    }
}

fn mask(criterion: &mut Criterion<CpuTime>) {
    for length in [READ, 65_536] {
        let mut group = group(criterion, format!("mask {length} bytes"), length);
        let (source, mut bytes) = (vec![0xa5; length], vec![0; length]);
        group.bench_function("unmask in place", |bencher| bencher.iter(|| unmask(black_box(&mut bytes), [1, 2, 3, 4])));
        group.bench_function("copy", |bencher| bencher.iter(|| bytes.copy_from_slice(black_box(&source))));
    }
}

fn compress(criterion: &mut Criterion<CpuTime>) {
    for (name, payload) in [
        ("JSON 600 bytes", json(600, "C")),
        ("JSON 4 KiB", json(4096, "C")),
        ("JSON 64 KiB", json(65_536, "C")),
        ("prose 4 KiB", include_bytes!("../../docs/protocol.md")[..4096].to_vec()),
        ("noise 64 KiB", {
            let mut state = 1u64;
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            };
            (0..65_536).map(|_| next()).collect()
        }),
    ] {
        let mut ours = FrameWriter::compressing();
        ours.write(&payload, false);
        let length = ours.frames().len();
        ours.handle_sent(length);
        let mut zlib = Compress::new(Compression::new(1), false);
        let mut out = Vec::with_capacity(payload.len() + 1024);
        zlib.compress_vec(&payload, &mut out, FlushCompress::Sync).expect("it compresses");
        println!("{name}: {} bytes, frame of {length} bytes, zlib-rs {}", payload.len(), out.len());
        let mut group = group(criterion, format!("compress {name}"), payload.len());
        group.bench_function("ours", |bencher| {
            bencher.iter(|| {
                ours.write(&payload, false);
                let written = black_box(ours.frames()).len();
                ours.handle_sent(written);
            });
        });
        group.bench_function("zlib-rs, level 1", |bencher| {
            bencher.iter(|| {
                // As without context takeover.
                zlib.reset();
                out.clear();
                zlib.compress_vec(black_box(&payload), &mut out, FlushCompress::Sync).expect("it compresses");
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = read, write, mask, compress
}
criterion_main!(benches);
