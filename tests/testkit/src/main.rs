//! The lab's stand-ins and load generator, for people and scripts: see [`USAGE`].

mod bench;
mod stand_ins;

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use lexopt::prelude::*;

const USAGE: &str = "\
lab luup [--port P]                     a stand-in Luup; prints each request
lab device [--port P] [--interval MS]   a device that talks by itself (5000) and answers lines
lab load WHAT --via WAY --backend PORT [--connections N] [--seconds S] [--deep]
          [--size BYTES] [--count N]   
                                        one load: up, down, pingpong, twowrites or connects;
                                        WAY is direct, plain:PORT or conn:PORT
lab bench [--ours PATH] [--musl PATH] [--mipsel PATH] [--original PATH] [--websocat PATH]
          [--websockify PATH] [--quick] [--only NAME]
                                        everything, compared: bulk, pingpong, connections, hold, notify,
                                        bridge, idle, tls, storm";

fn main() -> ExitCode {
    match dispatch() {
        Ok(complete) => ExitCode::from(u8::from(!complete)),
        Err(e) => {
            eprintln!("lab: {e}");
            ExitCode::from(2)
        }
    }
}

/// False where something could not be measured.
fn dispatch() -> Result<bool, Box<dyn std::error::Error>> {
    let mut args = lexopt::Parser::from_env();
    match args.next()? {
        Some(Value(word)) if word == "luup" => stand_ins::luup(port_and_interval(args)?.0)?,
        Some(Value(word)) if word == "device" => {
            let (port, interval) = port_and_interval(args)?;
            stand_ins::device(port, interval)?;
        }
        // For ourselves only: see the benchmark's `awake`, `storm` and `crowd`.
        Some(Value(word)) if word == "spin" => bench::spin(args.value()?.parse()?),
        Some(Value(word)) if word == "storm" => bench::storm(args.value()?.parse()?, args.value()?.parse()?)?,
        Some(Value(word)) if word == "server" => bench::serve(args.value()?.parse()?)?,
        Some(Value(word)) if word == "load" => load(args)?,
        Some(Value(word)) if word == "bench" => return Ok(bench::run(&bench_settings(args)?)?),
        Some(Long("help") | Short('h')) => println!("{USAGE}"),
        Some(other) => return Err(other.unexpected().into()),
        None => return Err(USAGE.into()),
    }
    Ok(true)
}

fn port_and_interval(mut args: lexopt::Parser) -> Result<(u16, Duration), lexopt::Error> {
    let (mut port, mut interval) = (0, 5000);
    while let Some(arg) = args.next()? {
        match arg {
            Long("port") => port = args.value()?.parse()?,
            Long("interval") => interval = args.value()?.parse()?,
            other => return Err(other.unexpected()),
        }
    }
    Ok((port, Duration::from_millis(interval)))
}

fn bench_settings(mut args: lexopt::Parser) -> Result<bench::Settings, lexopt::Error> {
    let mut settings = bench::Settings::default();
    while let Some(arg) = args.next()? {
        match arg {
            Long("ours") => settings.ours = Some(PathBuf::from(args.value()?)),
            Long("musl") => settings.musl = Some(PathBuf::from(args.value()?)),
            Long("mipsel") => settings.mipsel = Some(PathBuf::from(args.value()?)),
            Long("websocat") => settings.websocat = Some(PathBuf::from(args.value()?)),
            Long("websockify") => settings.websockify = Some(PathBuf::from(args.value()?)),
            Long("original") => settings.original = Some(PathBuf::from(args.value()?)),
            Long("quick") => settings.quick = true,
            Long("only") => settings.only = Some(args.value()?.string()?),
            other => return Err(other.unexpected()),
        }
    }
    Ok(settings)
}

/// One load through something that runs already.
fn load(mut args: lexopt::Parser) -> Result<(), Box<dyn std::error::Error>> {
    let (mut what, mut via, mut backend) = (None, bench::Via::Direct, 0u16);
    let mut flight = bench::Flight::Bounded;
    let (mut connections, mut seconds, mut size, mut count) = (1usize, 1.0f64, 64usize, 1000usize);
    while let Some(arg) = args.next()? {
        match arg {
            Value(word) if what.is_none() => what = Some(word.string()?),
            Long("via") => via = args.value()?.string()?.parse()?,
            Long("backend") => backend = args.value()?.parse()?,
            Long("connections") => connections = args.value()?.parse()?,
            Long("seconds") => seconds = args.value()?.parse()?,
            Long("deep") => flight = bench::Flight::Deep,
            Long("size") => size = args.value()?.parse()?,
            Long("count") => count = args.value()?.parse()?,
            other => return Err(other.unexpected().into()),
        }
    }
    lab::process::raise_descriptor_limit();
    let listener = TcpListener::bind(("127.0.0.1", backend))?;
    let opener = bench::Opener { via, backend: &listener };
    let quantiles = |times: &[Duration]| {
        let times = bench::micros(times);
        let at = |p| bench::quantile(&times, p).unwrap_or(f64::NAN);
        println!("p50 {:.1} us, p99 {:.1} us", at(0.5), at(0.99));
    };
    match what.as_deref() {
        Some(way @ ("up" | "down")) => {
            let lanes = opener.open_many(connections, "")?;
            let way = if way == "up" { bench::Way::Up } else { bench::Way::Down };
            let moved = bench::bulk(&lanes, way, flight, Duration::try_from_secs_f64(seconds)?)?;
            println!("{:.0} MB/s", moved.bytes as f64 / 1e6 / moved.time.as_secs_f64());
        }
        Some("pingpong") => quantiles(&bench::ping_pong(&mut opener.open("")?, size, count)?),
        Some("twowrites") => quantiles(&bench::two_writes(&mut opener.open("")?, count)?),
        Some("connects") => println!("{:.0} connects/s", bench::connects(&opener, count)?.0),
        _ => return Err(io::Error::other(USAGE).into()),
    }
    Ok(())
}
