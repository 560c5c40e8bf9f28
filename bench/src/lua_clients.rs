//! The processor time of a Lua plugin for each message over wss: with LuWS and LuaSec, and with the client library in LuWS's place,
//! through the proxy and without it. `lua/client_cpu.lua` is the plugin. The time of the peer, of the proxy and of this program is
//! not counted.

use std::io;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use testkit::daemon::Daemon;
use testkit::ports::Reserved;
use testkit::tls::Identity;
use testkit::websocket::{CLOSE, Peer, Server, TEXT, frame_of};

use crate::report::{Report, Unit};
use crate::run::Bench;
use crate::targets::Kind;

/// The plugin with the calls of LuaSocket alone that every library needs.
pub const BARE: &str = "bare LuaSocket";
/// The plugin with LuWS and LuaSec.
pub const LUWS: &str = "LuWS";

/// The workloads, in the plugin's order.
const WORKLOADS: [&str; 5] = ["send", "echo", "bulk receive", "bulk receive, binary", "paced receive"];
/// Bytes of a message that the plugin receives.
const LENGTH: usize = 1024;

/// One run of the plugin.
struct Run {
    /// Its arguments.
    side: &'static str,
    more: &'static [&'static str],
    column: &'static str,
    /// What its values are, as the ends of the rows' names.
    rows: &'static [&'static str],
}

const PROXY: &str = "through the proxy";
const ALONE: &str = "without the proxy";
const EACH: &str = "each notified";
const PACED: &str = "notified each 0.1 s";

/// The runs of a round. The values of LuWS are beside those of the library with the proxy and without it.
const RUNS: [Run; 7] = [
    Run { side: "bare", more: &[], column: BARE, rows: &[PROXY] },
    Run { side: "luws", more: &[], column: LUWS, rows: &[PROXY, ALONE] },
    Run { side: "proxy", more: &[], column: "sockproxyd", rows: &[PROXY] },
    Run { side: "alone", more: &[], column: "sockproxyd", rows: &[ALONE] },
    Run { side: "luws-notified", more: &[], column: LUWS, rows: &[EACH] },
    Run { side: "proxy-notified", more: &["pace=0"], column: "sockproxyd", rows: &[EACH] },
    // The library's default, for which a plugin that asks and waits would take 0.1 s a message.
    Run { side: "proxy-notified", more: &["only=paced receive"], column: "sockproxyd", rows: &[PACED] },
];

impl Bench {
    /// Processor time of a Lua plugin for each message.
    pub(crate) fn lua(&mut self) -> io::Result<()> {
        let Some(luws) = self.luws.clone() else {
            eprintln!("skipped: the measurement lua needs --luws");
            return Ok(());
        };
        let ours =
            self.kinds.iter().find_map(|kind| if let Kind::Ours { path, .. } = kind { Some(path) } else { None });
        let ours = ours.cloned().ok_or_else(|| io::Error::other("the measurement lua needs --ours"))?;
        let server = Server::start_secure(Identity::loopback().any_server(), |mut peer| serve(&mut peer));
        for rows in [PROXY, ALONE, EACH, PACED] {
            for workload in WORKLOADS {
                self.report.row(&row(workload, rows), Unit::CpuPerEvent);
            }
        }
        for round in 1..=self.rounds {
            for run in &RUNS {
                eprintln!("round {round} of {}: Lua, {} {}", self.rounds, run.side, run.more.join(" "));
                if let Err(e) = run_once(run, &server, &ours, &luws, &mut self.report) {
                    eprintln!("Lua: {}: {e}", run.side);
                    self.report.failure(&format!("Lua {}", run.side), run.column, &e.to_string());
                }
            }
        }
        Ok(())
    }
}

fn row(workload: &str, rows: &str) -> String {
    format!("Lua {workload}, {rows}")
}

/// Runs the plugin, with a proxy of its own, and adds its values.
fn run_once(run: &Run, server: &Server, ours: &Path, luws: &Path, report: &mut Report) -> io::Result<()> {
    let luup = Reserved::new()?;
    let url = format!("http://127.0.0.1:{}", luup.port());
    let daemon = Daemon::builder_of(ours).luup(&url).try_start().map_err(io::Error::other)?;
    let output = Command::new("lua5.1")
        .args(["client_cpu.lua", &format!("side={}", run.side), &format!("luws={}", luws.display())])
        .args([("server", server.addr().port()), ("proxy", daemon.port()), ("luup", luup.port())].map(argument))
        .args(run.more)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/lua"))
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let (workload, values) = parse(line).ok_or_else(|| io::Error::other(format!("unexpected output: {line}")))?;
        for rows in run.rows {
            let name = row(workload, rows);
            report.add(&name, Unit::CpuPerEvent, run.column, values[0]);
            if let [_, luup, requests] = values[..] {
                report.add(&format!("{name}: Luup's server"), Unit::CpuPerEvent, run.column, luup);
                report.add(&format!("{name}: requests"), Unit::Count, run.column, requests);
            }
        }
    }
    Ok(())
}

fn argument((name, port): (&str, u16)) -> String {
    format!("{name}={port}")
}

/// The name and the numbers of a line.
fn parse(line: &str) -> Option<(&str, Vec<f64>)> {
    let (name, numbers) = line.split_once(": ")?;
    let values = numbers.split(' ').map(|word| word.parse().ok()).collect::<Option<Vec<_>>>()?;
    (values.len() == 1 || values.len() == 3).then_some((name, values))
}

/// The peer: reads messages with "s", sends those with "e" back, and sends as many as "push COUNT MICROSECONDS OPCODE" says, at
/// this interval.
fn serve(peer: &mut Peer) -> io::Result<()> {
    peer.upgrade()?;
    loop {
        let frame = peer.frame()?;
        match (frame.opcode, frame.payload.first()) {
            (CLOSE, _) => {
                peer.send_frame(CLOSE, &frame.payload)?;
                return peer.end();
            }
            (_, Some(b'e')) => peer.send_frame(TEXT, &frame.payload)?,
            (_, Some(b'p')) => push(peer, &String::from_utf8_lossy(&frame.payload))?,
            _ => {}
        }
    }
}

fn push(peer: &mut Peer, command: &str) -> io::Result<()> {
    let mut numbers = command.split(' ').filter_map(|word| word.parse::<u32>().ok());
    let (Some(count), Some(interval), Some(opcode)) = (numbers.next(), numbers.next(), numbers.next()) else {
        return Ok(());
    };
    let frame = frame_of(0x80 | opcode as u8, &[b'y'; LENGTH]);
    if interval == 0 {
        return peer.send(&frame.repeat(count as usize));
    }
    let start = Instant::now();
    for sent in 1..=count {
        let due = Duration::from_micros(interval.into()) * sent;
        thread::sleep(due.saturating_sub(start.elapsed()));
        peer.send(&frame)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_plugin_are_parsed() {
        assert_eq!(parse("bulk receive: 5.25"), Some(("bulk receive", vec![5.25])));
        assert_eq!(parse("send: 1.5 20.25 30"), Some(("send", vec![1.5, 20.25, 30.0])));
        for line in ["send", "send: ", "send: x", "send: 1 2", "send: 1 2 3 4"] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
