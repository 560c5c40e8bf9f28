//! The benchmark program: see [`USAGE`]. `scripts/bench` builds and runs it.
//!
//! Each measurement sends the same work through a direct connection, socat, haproxy, the original Lua daemon and
//! sockproxyd, in turn and in one run, so that the ratios hold on any machine.
//!
//! - [`run`]: the measurements in order; [`websocket_tls`] has those of WebSocket and TLS
//! - [`targets`]: starts each relay that is measured
//! - [`connection_pair`], [`mod@load`], [`echo`], [`codec`], [`notify`], [`setup_exchange`], [`tls_handshakes`],
//!   [`rustls_baseline`], [`reconnect_burst`], [`handshake_flood`]: the load
//! - [`status_page`]: what an open page of the status costs
//! - [`lua_clients`]: what a plugin in Lua takes
//! - [`attacks`]: what an innocent plugin notices of attacks from another machine
//! - [`cpu_warmer`], [`helper_process`]: processes beside the load
//! - [`report`], [`stats`]: the table of results

mod attacks;
mod codec;
mod connection_pair;
mod cpu_warmer;
mod echo;
mod handshake_flood;
mod helper_process;
mod load;
mod lua_clients;
mod notify;
mod reconnect_burst;
mod report;
mod run;
mod rustls_baseline;
mod setup_exchange;
mod stats;
mod status_page;
mod targets;
mod tls_handshakes;
mod websocket_tls;

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use lexopt::prelude::*;

use self::connection_pair::{PairOpener, Via};
use self::load::{Direction, QueueDepth};
use self::run::Settings;

const USAGE: &str = "\
bench all [--ours PATH] [--musl PATH] [--mipsel PATH] [--original PATH] [--websocat PATH]
          [--websockify PATH] [--luws PATH] [--quick] [--only NAME]
                              runs all measurements, or the one called NAME: bulk, pingpong, connections,
                              hold, notify, bridge, serve, idle, tls, flood, status, attacks or lua
bench load LOAD --via VIA --backend PORT [--connections N] [--seconds S] [--deep]
          [--size BYTES] [--count N]
                              runs one load: to-remote, to-plugin, pingpong, twowrites or connects;
                              VIA is direct, plain:PORT or conn:PORT";

fn main() -> ExitCode {
    match dispatch() {
        Ok(complete) => ExitCode::from(u8::from(!complete)),
        Err(e) => {
            eprintln!("bench: {e}");
            ExitCode::from(2)
        }
    }
}

/// Runs what the command line asks for. False if something could not be measured.
fn dispatch() -> Result<bool, Box<dyn std::error::Error>> {
    let mut args = lexopt::Parser::from_env();
    match args.next()? {
        Some(Value(word)) if word == "all" => return Ok(run::run(&settings(args)?)?),
        Some(Value(word)) if word == "load" => load(args)?,
        // Internal: the child processes of attacks, cpu_warmer, handshake_flood and reconnect_burst.
        Some(Value(word)) if word == "attack" => {
            attacks::load::run(&args.value()?.string()?, args.value()?.parse()?, args.value()?.parse()?)?;
        }
        Some(Value(word)) if word == "spin" => cpu_warmer::spin(args.value()?.parse()?),
        Some(Value(word)) if word == "flood" => {
            handshake_flood::run_flood(args.value()?.parse()?, args.value()?.parse()?)?;
        }
        Some(Value(word)) if word == "server" => reconnect_burst::run_server(args.value()?.parse()?)?,
        Some(Long("help") | Short('h')) => println!("{USAGE}"),
        Some(other) => return Err(other.unexpected().into()),
        None => return Err(USAGE.into()),
    }
    Ok(true)
}

fn settings(mut args: lexopt::Parser) -> Result<Settings, lexopt::Error> {
    let mut settings = Settings::default();
    while let Some(arg) = args.next()? {
        match arg {
            Long("ours") => settings.ours = Some(PathBuf::from(args.value()?)),
            Long("musl") => settings.musl = Some(PathBuf::from(args.value()?)),
            Long("mipsel") => settings.mipsel = Some(PathBuf::from(args.value()?)),
            Long("websocat") => settings.websocat = Some(PathBuf::from(args.value()?)),
            Long("websockify") => settings.websockify = Some(PathBuf::from(args.value()?)),
            Long("original") => settings.original = Some(PathBuf::from(args.value()?)),
            Long("luws") => settings.luws = Some(PathBuf::from(args.value()?)),
            Long("quick") => settings.quick = true,
            Long("only") => settings.only = Some(args.value()?.string()?),
            other => return Err(other.unexpected()),
        }
    }
    Ok(settings)
}

/// Runs one load through a relay that is already running.
fn load(mut args: lexopt::Parser) -> Result<(), Box<dyn std::error::Error>> {
    let (mut what, mut via, mut backend) = (None, Via::Direct, 0u16);
    let mut depth = QueueDepth::Bounded;
    let (mut connections, mut seconds, mut size, mut count) = (1usize, 1.0f64, 64usize, 1000usize);
    while let Some(arg) = args.next()? {
        match arg {
            Value(word) if what.is_none() => what = Some(word.string()?),
            Long("via") => via = args.value()?.string()?.parse()?,
            Long("backend") => backend = args.value()?.parse()?,
            Long("connections") => connections = args.value()?.parse()?,
            Long("seconds") => seconds = args.value()?.parse()?,
            Long("deep") => depth = QueueDepth::Unbounded,
            Long("size") => size = args.value()?.parse()?,
            Long("count") => count = args.value()?.parse()?,
            other => return Err(other.unexpected().into()),
        }
    }
    testkit::process::raise_descriptor_limit();
    let listener = TcpListener::bind(("127.0.0.1", backend))?;
    let opener = PairOpener { via, backend: &listener };
    let print_quantiles = |times: &[Duration]| {
        let times = stats::micros(times);
        let at = |p| stats::quantile(&times, p).unwrap_or(f64::NAN);
        println!("p50 {:.1} us, p99 {:.1} us", at(0.5), at(0.99));
    };
    match what.as_deref() {
        Some(word @ ("to-remote" | "to-plugin")) => {
            let direction = if word == "to-remote" { Direction::ToRemote } else { Direction::ToPlugin };
            let pairs = opener.open_many(connections, "")?;
            let transferred = load::bulk(&pairs, direction, depth, Duration::try_from_secs_f64(seconds)?)?;
            println!("{:.0} MB/s", transferred.bytes as f64 / 1e6 / transferred.time.as_secs_f64());
        }
        Some("pingpong") => print_quantiles(&load::ping_pong(&mut opener.open("")?, size, count)?),
        Some("twowrites") => print_quantiles(&load::two_writes(&mut opener.open("")?, count)?),
        Some("connects") => println!("{:.0} connects/s", load::connects(&opener, count)?.0),
        _ => return Err(io::Error::other(USAGE).into()),
    }
    Ok(())
}
