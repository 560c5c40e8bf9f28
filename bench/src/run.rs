//! The measurements in order. Each runs through all relays in turn, several rounds long.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use testkit::luup::{Behaviour, Luup};
use testkit::process::{self, BackgroundLoad};

use crate::cpu_warmer::CpuWarmer;
use crate::load::{self, Direction, QueueDepth};
use crate::lua_clients::{BARE, LUWS};
use crate::notify::{self, Plan, Scenario};
use crate::report::{MUSL, Report, Unit};
use crate::stats::{micros, millis, quantile};
use crate::targets::{Kind, Target};

/// The command line's settings.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// sockproxyd.
    pub ours: Option<PathBuf>,
    /// sockproxyd, statically linked with musl.
    pub musl: Option<PathBuf>,
    /// sockproxyd for mipsel.
    pub mipsel: Option<PathBuf>,
    /// The original Lua daemon.
    pub original: Option<PathBuf>,
    /// The program websocat.
    pub websocat: Option<PathBuf>,
    /// The program websockify.
    pub websockify: Option<PathBuf>,
    /// LuWS, a script.
    pub luws: Option<PathBuf>,
    /// Fewer and shorter rounds.
    pub quick: bool,
    /// Runs only the measurement of this name.
    pub only: Option<String>,
}

/// One of the measurements.
type Measurement = fn(&mut Bench) -> io::Result<()>;

const MEASUREMENTS: [(&str, Measurement); 13] = [
    ("bulk", Bench::bulk),
    ("pingpong", Bench::ping_pong),
    ("connections", Bench::connections),
    ("hold", Bench::hold),
    ("notify", Bench::notify),
    ("bridge", Bench::bridge),
    ("serve", Bench::serve),
    ("idle", Bench::idle),
    ("tls", Bench::tls),
    ("flood", Bench::flood),
    ("status", Bench::status_page),
    ("attacks", Bench::attacks),
    ("lua", Bench::lua),
];

/// Bulk runs: direction, connections, and how far the sender may be ahead.
const BULK: [(Direction, usize, QueueDepth); 6] = [
    (Direction::ToRemote, 1, QueueDepth::Bounded),
    (Direction::ToPlugin, 1, QueueDepth::Bounded),
    (Direction::ToRemote, 8, QueueDepth::Bounded),
    (Direction::ToPlugin, 8, QueueDepth::Bounded),
    (Direction::ToRemote, 1, QueueDepth::Unbounded),
    (Direction::ToPlugin, 1, QueueDepth::Unbounded),
];

/// The relays, the number of rounds, and the results.
pub(crate) struct Bench {
    pub(crate) quick: bool,
    pub(crate) rounds: usize,
    pub(crate) kinds: Vec<Kind>,
    /// LuWS, a script.
    pub(crate) luws: Option<PathBuf>,
    pub(crate) report: Report,
}

/// Runs the selected measurements and prints the report, as Markdown, on stdout. Progress goes to stderr. False if a
/// measurement failed.
pub fn run(settings: &Settings) -> io::Result<bool> {
    process::raise_descriptor_limit();
    let mut kinds = vec![Kind::Direct, Kind::Socat, Kind::Haproxy { splice: false }, Kind::Haproxy { splice: true }];
    kinds.extend(settings.original.clone().map(|path| Kind::Original { path }));
    kinds.extend(settings.ours.clone().map(|path| Kind::Ours { name: "sockproxyd", path }));
    kinds.extend(settings.musl.clone().map(|path| Kind::Ours { name: MUSL, path }));
    kinds.extend(settings.mipsel.clone().map(|path| Kind::Emulated { emulator: "qemu-mipsel-static", path }));
    kinds.extend(settings.websocat.clone().map(|path| Kind::Websocat { path, lines: false }));
    kinds.extend(settings.websockify.clone().map(|path| Kind::Websockify { path }));
    kinds.extend([Kind::Rustls, Kind::RustlsBaseline]);
    let rounds = if settings.quick { 3 } else { 5 };
    let columns = kinds.iter().map(Kind::name).chain([LUWS, BARE]).collect();
    let report = Report::new(columns, rounds);
    let mut bench = Bench { quick: settings.quick, rounds, kinds, luws: settings.luws.clone(), report };

    let wanted = |name: &str| settings.only.as_deref().is_none_or(|only| name == only);
    let chosen: Vec<_> = MEASUREMENTS.iter().filter(|(name, _)| wanted(name)).collect();
    if chosen.is_empty() {
        let names: Vec<_> = MEASUREMENTS.iter().map(|(name, _)| *name).collect();
        return Err(io::Error::other(format!("no such measurement; there are {}", names.join(", "))));
    }
    let background = BackgroundLoad::start();
    for (_, measurement) in chosen {
        measurement(&mut bench)?;
    }
    print!("{}", bench.report.markdown(background.processors()));
    Ok(bench.report.is_complete())
}

impl Bench {
    fn start_all(&self) -> io::Result<Vec<Target>> {
        let kinds = self.kinds.iter().filter(|kind| kind.relays_bytes());
        kinds.map(|kind| Target::start(kind, NO_LUUP)).collect()
    }

    /// Runs `work`; an error becomes a note in the report, and the other columns go on.
    pub(crate) fn attempt(&mut self, target: &Target, what: &str, work: impl FnOnce(&mut Report) -> io::Result<()>) {
        if let Err(e) = work(&mut self.report) {
            eprintln!("{what}: {}: {e}", target.kind.name());
            self.report.failure(what, target.kind.name(), &e.to_string());
        }
    }

    fn bulk(&mut self) -> io::Result<()> {
        let time = Duration::from_millis(if self.quick { 120 } else { 250 });
        let targets = self.start_all()?;
        for round in 1..=self.rounds {
            for (direction, count, depth) in BULK {
                let label = if direction == Direction::ToRemote { "to remote" } else { "to plugin" };
                let deep = if depth == QueueDepth::Unbounded { ", deep queue" } else { "" };
                let name = format!("bulk {label}, {count} conn{deep}");
                eprintln!("round {round} of {}: {name}", self.rounds);
                // Several short runs: the scheduler places the processes anew in each.
                for target in [&targets; 3].into_iter().flatten() {
                    self.attempt(target, &name, |report| {
                        bulk_once(target, &name, (direction, count, depth), time, report)
                    });
                }
            }
        }
        Ok(())
    }

    fn ping_pong(&mut self) -> io::Result<()> {
        let count = if self.quick { 3_000 } else { 10_000 };
        let two_writes = if self.quick { 30 } else { 60 };
        let _warmer = CpuWarmer::start()?;
        let targets = self.start_all()?;
        for round in 1..=self.rounds {
            eprintln!("round {round} of {}: ping-pong", self.rounds);
            for size in [64, 1400] {
                for target in &targets {
                    let name = format!("ping-pong {size} B");
                    self.attempt(target, &name, |report| {
                        let mut pair = target.opener().open("")?;
                        let times = micros(&load::ping_pong(&mut pair, size, count)?);
                        report.add_quantiles(&name, Unit::Micros, target.kind.name(), &times);
                        Ok(())
                    });
                }
            }
            for target in &targets {
                let name = "two writes, one answer";
                self.attempt(target, name, |report| {
                    let mut pair = target.opener().open("")?;
                    let times = micros(&load::two_writes(&mut pair, two_writes)?);
                    report.add_quantiles(name, Unit::Micros, target.kind.name(), &times);
                    Ok(())
                });
            }
        }
        Ok(())
    }

    /// Connects a second, with processors that may sleep and with awake ones, and memory; each round starts a new process.
    fn connections(&mut self) -> io::Result<()> {
        for round in 1..=self.rounds {
            eprintln!("round {round} of {}: connects and memory", self.rounds);
            for kind in self.kinds.clone().into_iter().filter(Kind::relays_bytes) {
                let target = Target::start(&kind, NO_LUUP)?;
                let (name, column) = ("1000 connections", kind.name());
                self.attempt(&target, name, |report| {
                    let count = kind.connections(1000);
                    settle();
                    let idle = target.memory();
                    let (rate, mut pairs) = load::connects(&target.opener(), count)?;
                    report.add("connects", Unit::PerSecond, column, rate);
                    load::check_all(&mut pairs, 64)?;
                    settle();
                    if let (Some(idle), Some(full)) = (idle, target.memory()) {
                        let each = |full: u64, idle: u64| full.saturating_sub(idle) as f64 / count as f64;
                        report.add("idle, RSS", Unit::Kilobytes, column, idle.rss as f64);
                        report.add("idle, PSS", Unit::Kilobytes, column, idle.pss as f64);
                        report.add("per connection, RSS", Unit::Kilobytes, column, each(full.rss, idle.rss));
                        report.add("per connection, PSS", Unit::Kilobytes, column, each(full.pss, idle.pss));
                    }
                    drop(pairs);
                    // Twice, since the wake-ups of sleeping processors are most of the time of a short dialogue.
                    let _warmer = CpuWarmer::start()?;
                    settle();
                    let (rate, _pairs) = load::connects(&target.opener(), count)?;
                    report.add("connects, processors awake", Unit::PerSecond, column, rate);
                    Ok(())
                });
            }
        }
        Ok(())
    }

    /// 5000 open connections, each with the right bytes in both directions.
    fn hold(&mut self) -> io::Result<()> {
        let idle_time = Duration::from_secs(if self.quick { 3 } else { 10 });
        eprintln!("5000 connections");
        for kind in self.kinds.clone() {
            if !matches!(kind, Kind::Ours { .. }) {
                continue;
            }
            let target = Target::start(&kind, NO_LUUP)?;
            let column = kind.name();
            self.attempt(&target, "5000 connections", |report| {
                let mut pairs = target.opener().open_many(5000, "")?;
                settle();
                let idle = target.memory();
                load::check_all(&mut pairs, 4096)?;
                report.add("5000 held, 4 KiB right in both directions", Unit::Count, column, pairs.len() as f64);
                settle();
                if let (Some(idle), Some(after)) = (idle, target.memory()) {
                    report.add("5000 held, PSS before the bytes", Unit::Kilobytes, column, idle.pss as f64);
                    report.add("5000 held, PSS after the bytes", Unit::Kilobytes, column, after.pss as f64);
                }
                let cpu = target.cpu_time();
                std::thread::sleep(idle_time);
                if let (Some(cpu), Some(after)) = (cpu, target.cpu_time()) {
                    let spent = after.saturating_sub(cpu).as_secs_f64() * 1e6 / idle_time.as_secs_f64();
                    report.add("5000 held, CPU per idle second", Unit::Micros, column, spent);
                }
                drop(pairs);
                settle();
                if let Some(after) = target.memory() {
                    report.add("5000 closed, PSS", Unit::Kilobytes, column, after.pss as f64);
                }
                Ok(())
            });
        }
        Ok(())
    }

    fn notify(&mut self) -> io::Result<()> {
        let scenarios = [
            (Scenario::Idle, "notification"),
            (Scenario::Busy, "notification, 20 busy"),
            (Scenario::BusyNotifying, "notification, 20 busy notifying"),
            (Scenario::Hanging, "notification, a device hangs"),
        ];
        for (_, name) in scenarios {
            for row in [", p50", ", p99", ": last of 20"] {
                self.report.row(&format!("{name}{row}"), Unit::Millis);
            }
            self.report.row(&format!("{name}: lost"), Unit::Count);
        }
        for round in 1..=self.rounds {
            for (scenario, name) in scenarios {
                eprintln!("round {round} of {}: {name}", self.rounds);
                for kind in self.kinds.clone().iter().filter(|kind| kind.notifies()) {
                    let slow = matches!(kind, Kind::Original { .. });
                    // The original takes a second for each notification and loses some under load: one round shows
                    // that.
                    if slow && round > 1 {
                        continue;
                    }
                    let busy = matches!(scenario, Scenario::Busy | Scenario::BusyNotifying);
                    let plan = Plan {
                        samples: match (slow, self.quick) {
                            (true, _) => 3,
                            (false, true) => 60,
                            (false, false) => 200,
                        },
                        bursts: match (slow, busy) {
                            (_, true) => 0,
                            (true, _) => usize::from(!self.quick && scenario == Scenario::Idle),
                            (false, _) => 10,
                        },
                        limit: Duration::from_secs(if slow { 3 } else { 5 }),
                    };
                    let luup = Luup::start();
                    let target = Target::start(kind, &luup.url())?;
                    self.attempt(&target, name, |report| {
                        let latencies = notify::measure(&target.opener(), &luup, scenario, plan)?;
                        let column = kind.name();
                        report.add_quantiles(name, Unit::Millis, column, &millis(&latencies.single));
                        if let Some(last) = quantile(&millis(&latencies.burst_last), 0.5) {
                            report.add(&format!("{name}: last of 20"), Unit::Millis, column, last);
                        }
                        report.add(&format!("{name}: lost"), Unit::Count, column, latencies.lost as f64);
                        luup.set_behaviour(Behaviour::Ok);
                        Ok(())
                    });
                }
            }
        }
        Ok(())
    }
}

/// One bulk run over new connections: its rate, and its processor time.
fn bulk_once(
    target: &Target,
    name: &str,
    (direction, count, depth): (Direction, usize, QueueDepth),
    time: Duration,
    report: &mut Report,
) -> io::Result<()> {
    let column = target.kind.name();
    let pairs = target.opener().open_many(count, "")?;
    let before = target.cpu_time();
    let transferred = load::bulk(&pairs, direction, depth, time)?;
    let after = target.cpu_time();
    let rate = transferred.bytes as f64 / 1e6 / transferred.time.as_secs_f64();
    report.add(name, Unit::Rate, column, rate);
    if let (Some(before), Some(after)) = (before, after) {
        let cost = after.saturating_sub(before).as_secs_f64() / (transferred.bytes as f64 / 1e9);
        report.add(&name.replace("bulk", "CPU per GB"), Unit::CpuPerGb, column, cost);
    }
    Ok(())
}

/// A Luup address that refuses connections.
pub(crate) const NO_LUUP: &str = "http://127.0.0.1:9";

/// Waits for a process to release what it no longer needs; no event reports that.
pub(crate) fn settle() {
    std::thread::sleep(Duration::from_millis(300));
}
