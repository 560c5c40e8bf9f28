//! What is measured of WebSocket and TLS: see [`super::run`] for the order and the rest.

use std::io;
use std::time::Duration;

use lab::tls::{Identity, Validity};

use super::crowd::{Crowd, Wish};
use super::dialogues::by_dialogues;
use super::echo::{Load, echo};
use super::handshakes::{self, Server, by_rustls};
use super::lane::{Far, Opener};
use super::load;
use super::report::{Report, Unit};
use super::run::{Bench, NO_LUUP, settle};
use super::same_work::SameWork;
use super::speech::Speech;
use super::stats::micros;
use super::storm::Storm;
use super::targets::{Kind, Target};

/// Connections of the bridge.
const LANES: usize = 16;
/// Idle connections.
const IDLE: usize = 1000;
/// Handshakes at once while somebody else's round trips are timed.
const AT_ONCE: usize = 20;
/// Plugins that ask for handshakes: enough that there is always one that waits.
const PLUGINS: usize = 4 * handshakes::THREADS;

impl Bench {
    /// Messages through the bridge and back: as bytes, of which what is read at once is a message, and each for itself.
    pub(super) fn bridge(&mut self) -> io::Result<()> {
        for (apart, told) in [(false, ""), (true, ", apart")] {
            let kinds = self.kinds.iter().filter(|kind| kind.bridges().is_some());
            let kinds = kinds.cloned().map(|kind| match kind {
                Kind::Websocat { path, .. } => Kind::Websocat { path, lines: apart },
                other => other,
            });
            let targets = kinds.map(|kind| Target::start(&kind, NO_LUUP)).collect::<io::Result<Vec<_>>>()?;
            for round in 1..=self.rounds {
                for (size, flight, bytes) in BRIDGE {
                    let name = format!("{bytes}{told}, {LANES} conn");
                    eprintln!("round {round} of {}: bridge echo {name}", self.rounds);
                    let time = Duration::from_millis(if self.quick { 500 } else { 1500 });
                    let load = Load { size, flight, time };
                    for target in &targets {
                        self.attempt(target, &name, |report| bridge_once(target, &name, apart, load, report));
                    }
                }
            }
        }
        Ok(())
    }

    /// Memory of idle bridges.
    pub(super) fn idle(&mut self) -> io::Result<()> {
        let identity = Identity::self_signed(&["127.0.0.1"], Validity::Now);
        let secure = Far::SecureWebSocket(handshakes::server_config(&identity));
        for round in 1..=self.rounds {
            for kind in self.kinds.clone().iter().filter(|kind| matches!(kind, Kind::Ours { .. })) {
                for (far, name) in [(&Far::WebSocket, "idle ws"), (&secure, "idle wss")] {
                    eprintln!("round {round} of {}: {name}", self.rounds);
                    let target = Target::start(kind, NO_LUUP)?;
                    self.attempt(&target, name, |report| {
                        let opener: Opener = target.opener();
                        // What the first one makes is for all.
                        let first = opener.open_to(far, "VRFY=none DEFL=off")?;
                        settle();
                        let before = target.memory();
                        let open = |_| opener.open_to(far, "VRFY=none DEFL=off");
                        let lanes = (0..IDLE).map(open).collect::<io::Result<Vec<_>>>()?;
                        settle();
                        let mut add = |what: &str| {
                            if let (Some(before), Some(now)) = (before, target.memory()) {
                                let each = now.pss.saturating_sub(before.pss) as f64 / IDLE as f64;
                                report.add(&format!("{name}, PSS each{what}"), Unit::Kilobytes, kind.name(), each);
                            }
                        };
                        add("");
                        if matches!(far, Far::WebSocket) {
                            let load = Load { size: 128, flight: 1, time: Duration::ZERO };
                            echo(&lanes, (Speech::Mesg, Speech::Server), load)?;
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

    /// Handshakes a second.
    pub(super) fn tls(&mut self) -> io::Result<()> {
        let time = Duration::from_millis(if self.quick { 700 } else { 2000 });
        let server = Server::start(PLUGINS + 2)?;
        let authority = server.authority();
        let kinds = self.kinds.iter().filter(|kind| matches!(kind, Kind::Ours { .. }));
        let start = |kind| Target::start_trusting(kind, NO_LUUP, Some(&authority));
        let targets = kinds.map(start).collect::<io::Result<Vec<_>>>()?;
        for round in 1..=self.rounds {
            eprintln!("round {round} of {}: TLS handshakes", self.rounds);
            let add = |bench: &mut Bench, made: handshakes::Made, column: &str, cpu: Option<Duration>| {
                let rate = made.count as f64 / made.time.as_secs_f64();
                bench.report.add(HANDSHAKES, Unit::PerSecond, column, rate);
                if let Some(cpu) = cpu {
                    let each = cpu.as_secs_f64() * 1e6 / made.count as f64;
                    bench.report.add("CPU per TLS handshake", Unit::CpuPerEvent, column, each);
                }
            };
            let made = by_rustls(&server, time)?;
            add(self, made, Kind::Rustls.name(), Some(made.cpu));
            let same = SameWork::start(&server)?;
            let made = by_dialogues(same.port()?, &server.conn(""), PLUGINS, time)?;
            add(self, made, Kind::SameWork.name(), Some(same.cpu_time()));
            drop(same);
            for target in &targets {
                let Some(port) = target.port() else { continue };
                let conn = server.conn("");
                // The threads are there, and have read the authority.
                by_dialogues(port, &conn, PLUGINS, time / 10)?;
                let (counted, cpu, threads) = (server.made()?, target.cpu_time(), target.threads_cpu_time("tls"));
                let made = by_dialogues(port, &conn, PLUGINS, time)?;
                let since = |now: Option<Duration>, before: Option<Duration>| Some(now?.saturating_sub(before?));
                let cpu = since(target.cpu_time(), cpu);
                if let Some(threads) = since(target.threads_cpu_time("tls"), threads) {
                    let each = threads.as_secs_f64() * 1e6 / made.count as f64;
                    let name = "CPU per TLS handshake, its threads alone";
                    self.report.add(name, Unit::CpuPerEvent, target.kind.name(), each);
                }
                server.wait_made(counted + made.count)?;
                add(self, made, target.kind.name(), cpu);
            }
        }
        Ok(())
    }

    /// Round trips of another connection alone, while twenty plugins at once have a connection or a handshake made, and
    /// in a storm of handshakes that never ends. The processors are not kept awake: to the kernel that is work, and it looks
    /// for no idle one where all are at work.
    pub(super) fn storm(&mut self) -> io::Result<()> {
        let count = if self.quick { 2_000 } else { 10_000 };
        let kinds = self.kinds.iter().filter(|kind| matches!(kind, Kind::Ours { .. } | Kind::Emulated { .. }));
        let targets = kinds.map(|kind| Target::start(kind, NO_LUUP)).collect::<io::Result<Vec<_>>>()?;
        for round in 1..=self.rounds {
            for target in &targets {
                let (column, port) = (target.kind.name(), target.port().unwrap_or_default());
                eprintln!("round {round} of {}: round trips beside handshakes, {column}", self.rounds);
                self.attempt(target, "round trips beside handshakes", |report| {
                    let mut lane = target.opener().open("")?;
                    let mut add = |name, times: &[_]| report.add_quantiles(name, Unit::Micros, column, &micros(times));
                    add("ping-pong alone", &load::ping_pong(&mut lane, 64, count)?);
                    let mut crowd = Crowd::start(port, AT_ONCE)?;
                    add("ping-pong beside 20 connects", &crowd.round_trips(&mut lane, Wish::Connection, count)?);
                    add("ping-pong beside 20 handshakes", &crowd.round_trips(&mut lane, Wish::Handshake, count)?);
                    crowd.end()?;
                    let storm = Storm::start(port, AT_ONCE)?;
                    add("ping-pong in an endless storm", &load::ping_pong(&mut lane, 64, count)?);
                    report.add("handshakes in the storm", Unit::PerSecond, column, storm.end()?);
                    Ok(())
                });
            }
        }
        Ok(())
    }
}

/// One run over new connections: its rate and what a message cost.
fn bridge_once(target: &Target, name: &str, apart: bool, load: Load, report: &mut Report) -> io::Result<()> {
    let Some(mut speaks) = target.kind.bridges() else { return Ok(()) };
    let mut options = "FRAM=RAW";
    if apart && matches!(target.kind, Kind::Ours { .. }) {
        (speaks.0, options) = (Speech::Mesg, "FRAM=MESG");
    }
    let open = |_| target.opener().open_to(&Far::WebSocket, options);
    let lanes = (0..LANES).map(open).collect::<io::Result<Vec<_>>>()?;
    // Warms up.
    echo(&lanes, speaks, Load { time: load.time / 10, ..load })?;
    let before = target.cpu_time();
    let echoed = echo(&lanes, speaks, load)?;
    let after = target.cpu_time();
    let (column, count) = (target.kind.name(), echoed.messages as f64);
    report.add(&format!("bridge echo {name}"), Unit::PerSecond, column, count / echoed.time.as_secs_f64());
    if let (Some(before), Some(after)) = (before, after) {
        let each = after.saturating_sub(before).as_secs_f64() * 1e6 / count;
        report.add(&format!("bridge CPU each, {name}"), Unit::CpuPerEvent, column, each);
    }
    Ok(())
}

/// Runs over the bridge: size of a message, how many are under way on each connection, and what the row says.
const BRIDGE: [(usize, usize, &str); 3] =
    [(128, 1, "128 B"), (128, 32, "128 B, 32 under way"), (64 * 1024, 1, "64 KiB")];

/// The row of handshakes a second.
const HANDSHAKES: &str = "TLS 1.3 handshakes, full";
