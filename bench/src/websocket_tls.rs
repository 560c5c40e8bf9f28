//! The measurements of WebSocket and TLS; [`crate::run`] has the order and the others.

use std::io;
use std::time::Duration;

use testkit::tls::{Identity, Validity};

use crate::codec::Codec;
use crate::connection_pair::{PairOpener, RemoteKind};
use crate::echo::{Load, echo};
use crate::handshake_flood::HandshakeFlood;
use crate::load;
use crate::reconnect_burst::{BurstKind, ReconnectBurst};
use crate::report::{Report, Unit};
use crate::run::{Bench, NO_LUUP, settle};
use crate::rustls_baseline::RustlsBaseline;
use crate::setup_exchange::exchange_many;
use crate::stats::micros;
use crate::targets::{Kind, Target};
use crate::tls_handshakes::{self, HandshakeStats, Server, rustls_handshakes};

/// Connections of the bridge measurement.
const BRIDGE_CONNECTIONS: usize = 16;
/// Connections of the idle measurement.
const IDLE: usize = 1000;
/// Handshakes at once while the round trips of another connection are timed.
const CONCURRENT: usize = 20;
/// Plugins that ask for handshakes: enough that one is always waiting.
const PLUGINS: usize = 4 * tls_handshakes::THREADS;

impl Bench {
    /// Messages through the bridge and back: first as bytes, where each read makes a message, then with framing.
    pub(crate) fn bridge(&mut self) -> io::Result<()> {
        for (framed, label) in [(false, ""), (true, ", framed")] {
            let kinds = self.kinds.iter().filter(|kind| kind.bridges().is_some());
            let kinds = kinds.cloned().map(|kind| match kind {
                Kind::Websocat { path, .. } => Kind::Websocat { path, lines: framed },
                other => other,
            });
            let targets = kinds.map(|kind| Target::start(&kind, NO_LUUP)).collect::<io::Result<Vec<_>>>()?;
            for round in 1..=self.rounds {
                for (size, in_flight, bytes) in BRIDGE {
                    let name = format!("{bytes}{label}, {BRIDGE_CONNECTIONS} conn");
                    eprintln!("round {round} of {}: bridge echo {name}", self.rounds);
                    let time = Duration::from_millis(if self.quick { 500 } else { 1500 });
                    let load = Load { size, in_flight, time };
                    for target in &targets {
                        self.attempt(target, &name, |report| bridge_once(target, &name, framed, load, report));
                    }
                }
            }
        }
        Ok(())
    }

    /// Messages of WebSocket clients to a TCP server and back.
    pub(crate) fn serve(&mut self) -> io::Result<()> {
        let kinds = self.kinds.iter().filter(|kind| kind.bridges().is_some());
        let targets = kinds.map(Target::start_serving).collect::<io::Result<Vec<_>>>()?;
        for round in 1..=self.rounds {
            for (connections, size, in_flight, bytes) in SERVE {
                let name = format!("{bytes}, {connections} conn");
                eprintln!("round {round} of {}: serve echo {name}", self.rounds);
                let time = Duration::from_millis(if self.quick { 500 } else { 1500 });
                let load = Load { size, in_flight, time };
                for target in &targets {
                    if connections <= target.kind.serves() {
                        self.attempt(target, &name, |report| serve_once(target, &name, connections, load, report));
                    }
                }
            }
        }
        Ok(())
    }

    /// Memory of idle WebSocket connections.
    pub(crate) fn idle(&mut self) -> io::Result<()> {
        let identity = Identity::self_signed(&["127.0.0.1"], Validity::Now);
        let secure = RemoteKind::SecureWebSocket(tls_handshakes::server_config(&identity));
        for round in 1..=self.rounds {
            for kind in self.kinds.clone().iter().filter(|kind| matches!(kind, Kind::Ours { .. })) {
                for (remote, name) in [(&RemoteKind::WebSocket, "idle ws"), (&secure, "idle wss")] {
                    eprintln!("round {round} of {}: {name}", self.rounds);
                    let target = Target::start(kind, NO_LUUP)?;
                    self.attempt(&target, name, |report| {
                        let opener: PairOpener = target.opener();
                        // The first connection makes the daemon set up what later ones share.
                        let first = opener.open_to(remote, "VRFY=none DEFL=off")?;
                        settle();
                        let before = target.memory();
                        let open = |_| opener.open_to(remote, "VRFY=none DEFL=off");
                        let pairs = (0..IDLE).map(open).collect::<io::Result<Vec<_>>>()?;
                        settle();
                        let mut add = |what: &str| {
                            if let (Some(before), Some(now)) = (before, target.memory()) {
                                let each = now.pss.saturating_sub(before.pss) as f64 / IDLE as f64;
                                report.add(&format!("{name}, PSS each{what}"), Unit::Kilobytes, kind.name(), each);
                            }
                        };
                        add("");
                        if matches!(remote, RemoteKind::WebSocket) {
                            let load = Load { size: 128, in_flight: 1, time: Duration::ZERO };
                            echo(&pairs, (Codec::Mesg, Codec::Server), load)?;
                            settle();
                            add(" after a message");
                        }
                        drop(first);
                        Ok(())
                    });
                }
            }
        }
        Ok(())
    }

    /// TLS handshakes a second.
    pub(crate) fn tls(&mut self) -> io::Result<()> {
        let time = Duration::from_millis(if self.quick { 700 } else { 2000 });
        let server = Server::start(PLUGINS + 2)?;
        let authority = server.authority();
        let kinds = self.kinds.iter().filter(|kind| matches!(kind, Kind::Ours { .. }));
        let start = |kind| Target::start_trusting(kind, NO_LUUP, Some(&authority));
        let targets = kinds.map(start).collect::<io::Result<Vec<_>>>()?;
        for round in 1..=self.rounds {
            eprintln!("round {round} of {}: TLS handshakes", self.rounds);
            let add = |bench: &mut Bench, stats: HandshakeStats, column: &str, cpu: Option<Duration>| {
                let rate = stats.count as f64 / stats.time.as_secs_f64();
                bench.report.add(HANDSHAKES, Unit::PerSecond, column, rate);
                if let Some(cpu) = cpu {
                    let each = cpu.as_secs_f64() * 1e6 / stats.count as f64;
                    bench.report.add("CPU per TLS handshake", Unit::CpuPerEvent, column, each);
                }
            };
            let stats = rustls_handshakes(&server, time)?;
            add(self, stats, Kind::Rustls.name(), Some(stats.cpu));
            let baseline = RustlsBaseline::start(&server)?;
            let stats = exchange_many(baseline.port()?, &server.conn(""), PLUGINS, time)?;
            add(self, stats, Kind::RustlsBaseline.name(), Some(baseline.cpu_time()));
            drop(baseline);
            for target in &targets {
                let Some(port) = target.port() else { continue };
                let conn = server.conn("");
                // Warms up: the daemon starts its threads and reads the authority.
                exchange_many(port, &conn, PLUGINS, time / 10)?;
                let (counted, cpu, threads) =
                    (server.full_handshakes()?, target.cpu_time(), target.threads_cpu_time("tls"));
                let stats = exchange_many(port, &conn, PLUGINS, time)?;
                let since = |now: Option<Duration>, before: Option<Duration>| Some(now?.saturating_sub(before?));
                let cpu = since(target.cpu_time(), cpu);
                if let Some(threads) = since(target.threads_cpu_time("tls"), threads) {
                    let each = threads.as_secs_f64() * 1e6 / stats.count as f64;
                    let name = "CPU per TLS handshake, TLS threads alone";
                    self.report.add(name, Unit::CpuPerEvent, target.kind.name(), each);
                }
                server.wait_full_handshakes(counted + stats.count)?;
                add(self, stats, target.kind.name(), cpu);
            }
        }
        Ok(())
    }

    /// Round trips of one connection: alone, while twenty other plugins connect or make a handshake at once, and during
    /// an endless flood of handshakes. Runs without [`crate::cpu_warmer`]: to the scheduler a spinner is work, so it
    /// would find no idle processor to move a process to.
    pub(crate) fn flood(&mut self) -> io::Result<()> {
        let count = if self.quick { 2_000 } else { 10_000 };
        let kinds = self.kinds.iter().filter(|kind| matches!(kind, Kind::Ours { .. } | Kind::Emulated { .. }));
        let targets = kinds.map(|kind| Target::start(kind, NO_LUUP)).collect::<io::Result<Vec<_>>>()?;
        for round in 1..=self.rounds {
            for target in &targets {
                let (column, port) = (target.kind.name(), target.port().unwrap_or_default());
                eprintln!("round {round} of {}: round trips beside handshakes, {column}", self.rounds);
                self.attempt(target, "round trips beside handshakes", |report| {
                    let mut pair = target.opener().open("")?;
                    let mut add = |name, times: &[_]| report.add_quantiles(name, Unit::Micros, column, &micros(times));
                    add("ping-pong alone", &load::ping_pong(&mut pair, 64, count)?);
                    let mut burst = ReconnectBurst::start(port, CONCURRENT)?;
                    add("ping-pong beside 20 connects", &burst.round_trips(&mut pair, BurstKind::Connection, count)?);
                    add("ping-pong beside 20 handshakes", &burst.round_trips(&mut pair, BurstKind::Handshake, count)?);
                    burst.finish()?;
                    let flood = HandshakeFlood::start(port, CONCURRENT)?;
                    add("ping-pong in a handshake flood", &load::ping_pong(&mut pair, 64, count)?);
                    report.add("handshakes in the flood", Unit::PerSecond, column, flood.finish()?);
                    Ok(())
                });
            }
        }
        Ok(())
    }
}

/// One run over new connections: its rate, and the processor time of a message.
fn bridge_once(target: &Target, name: &str, framed: bool, load: Load, report: &mut Report) -> io::Result<()> {
    let Some(mut codecs) = target.kind.bridges() else { return Ok(()) };
    let mut options = "FRAM=RAW";
    if framed && matches!(target.kind, Kind::Ours { .. }) {
        (codecs.0, options) = (Codec::Mesg, "FRAM=MESG");
    }
    let open = |_| target.opener().open_to(&RemoteKind::WebSocket, options);
    let pairs = (0..BRIDGE_CONNECTIONS).map(open).collect::<io::Result<Vec<_>>>()?;
    // Warms up.
    echo(&pairs, codecs, Load { time: load.time / 10, ..load })?;
    let before = target.cpu_time();
    let echoed = echo(&pairs, codecs, load)?;
    let after = target.cpu_time();
    let (column, count) = (target.kind.name(), echoed.messages as f64);
    report.add(&format!("bridge echo {name}"), Unit::PerSecond, column, count / echoed.time.as_secs_f64());
    if let (Some(before), Some(after)) = (before, after) {
        let each = after.saturating_sub(before).as_secs_f64() * 1e6 / count;
        report.add(&format!("bridge CPU each, {name}"), Unit::CpuPerEvent, column, each);
    }
    Ok(())
}

/// Runs over the bridge: bytes in a message, messages in flight on each connection, and the label of the row.
const BRIDGE: [(usize, usize, &str); 3] =
    [(128, 1, "128 B"), (128, 32, "128 B, 32 in flight"), (64 * 1024, 1, "64 KiB")];

/// As [`bridge_once`], for WebSocket clients of a TCP server.
fn serve_once(target: &Target, name: &str, connections: usize, load: Load, report: &mut Report) -> io::Result<()> {
    let codecs = match target.kind {
        Kind::Direct => (Codec::Raw, Codec::Raw),
        _ => (Codec::Client, Codec::Raw),
    };
    let pairs = target.opener().open_many(connections, "")?;
    // Warms up.
    echo(&pairs, codecs, Load { time: load.time / 10, ..load })?;
    let before = target.cpu_time();
    let echoed = echo(&pairs, codecs, load)?;
    let after = target.cpu_time();
    let (column, count) = (target.kind.name(), echoed.messages as f64);
    report.add(&format!("serve echo {name}"), Unit::PerSecond, column, count / echoed.time.as_secs_f64());
    if let (Some(before), Some(after)) = (before, after) {
        let each = after.saturating_sub(before).as_secs_f64() * 1e6 / count;
        report.add(&format!("serve CPU each, {name}"), Unit::CpuPerEvent, column, each);
    }
    Ok(())
}

/// Runs over a WebSocket port: connections, bytes in a message, messages in flight on each, and the label of the row.
const SERVE: [(usize, usize, usize, &str); 5] = [
    (16, 128, 1, "128 B"),
    (16, 128, 32, "128 B, 32 in flight"),
    (16, 64 * 1024, 1, "64 KiB"),
    (500, 128, 1, "128 B"),
    (500, 64 * 1024, 1, "64 KiB"),
];

/// The name of the row of handshakes a second.
const HANDSHAKES: &str = "TLS 1.3 handshakes, full";
