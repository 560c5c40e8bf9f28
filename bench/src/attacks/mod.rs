//! An innocent plugin beside an attacker: how long the plugin's CONN and its notifications take, and how many fail.
//!
//! The daemon, the plugin, its remotes and Luup are in one network namespace, and the attacker in another: the box and the
//! neighbour of [`testkit::lan`]. The daemon has the default limits, and 4 MiB of buffers whatever the machine's memory is.
//!
//! - [`innocent`]: what is timed
//! - [`load`]: the attacks, in a helper process

mod innocent;
pub mod load;

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use testkit::daemon::Daemon;
use testkit::lan::{self, NEIGHBOUR_V4};
use testkit::luup::{Behaviour, Luup};
use testkit::netns::{self, Netns};
use testkit::process;

use self::innocent::Measured;
use crate::helper_process::HelperProcess;
use crate::report::{Report, Unit};
use crate::run::Bench;
use crate::stats::millis;
use crate::targets::Kind;

/// A network whose packets the attacker's machine drops.
const DEAD_NETWORK: &str = "198.51.100.0/24";
/// A name with 16 addresses in [`DEAD_NETWORK`].
const DEAD_NAME: &str = "dead.example";
/// The Luup device of the attacker's notifications.
const ATTACKED_DEVICE: i64 = 66;
/// The `id` of the requests that the attacker wants Luup to get.
const FORBIDDEN_ID: &str = "forbidden";

/// Starts the daemon with the descriptor limits of a usual system, and with the files of its directory in place of those
/// in /etc, which decide about names.
const SCRIPT: &str = "ulimit -Sn 1024; ulimit -Hn 4096; exec unshare -m sh -ec '\
    for file in resolv.conf hosts host.conf nsswitch.conf; do \
    if [ -e /etc/$file ]; then mount --bind $file /etc/$file; fi; done; exec \"$@\"' sh \"$@\"";

impl Bench {
    /// Each attack once, since a median over rounds would hide a failure in one of them.
    pub(crate) fn attacks(&mut self) -> io::Result<()> {
        if !netns::available() {
            return Ok(());
        }
        let time = Duration::from_secs(if self.quick { 3 } else { 10 });
        for kind in self.kinds.clone() {
            let Kind::Ours { name: column, path } = kind else { continue };
            for attack in load::names() {
                eprintln!("attack {attack}: {column}");
                match beside(attack, &path, time) {
                    Ok(outcome) => outcome.report(attack, column, &mut self.report),
                    Err(error) => {
                        self.report.failure(&format!("attack {attack}"), column, &error.to_string());
                    }
                }
            }
        }
        Ok(())
    }
}

/// What an attack did.
struct Outcome {
    measured: Measured,
    /// True if the daemon has ended.
    ended: bool,
    /// The daemon's memory at the end of the attack, in kB.
    pss: Option<u64>,
    /// Connections that the attacker made, or its requests.
    attempts: u64,
}

impl Outcome {
    fn report(&self, attack: &str, column: &str, report: &mut Report) {
        let (name, measured) = (format!("attack {attack}"), &self.measured);
        report.add_quantiles(&format!("{name}, CONN to OK"), Unit::Millis, column, &millis(&measured.conn));
        report.add_quantiles(&format!("{name}, notification"), Unit::Millis, column, &millis(&measured.notification));
        report.add_quantiles(&format!("{name}, ATCH to OK"), Unit::Millis, column, &millis(&measured.attach));
        let failed = measured.failures.len();
        let mut count = |row: &str, value: f64| report.add(&format!("{name}: {row}"), Unit::Count, column, value);
        count("refused or failed", failed as f64);
        count("dialogues, notifications and ATCH", (measured.succeeded() + failed) as f64);
        count("attempts of the attacker", self.attempts as f64);
        count("forbidden effects", f64::from(u8::from(self.ended)) + measured.forbidden as f64);
        if let Some(pss) = self.pss {
            report.add(&format!("{name}, PSS"), Unit::Kilobytes, column, pss as f64);
        }
        for (reason, count) in measured.reasons() {
            eprintln!("attack {attack}: {count} times {reason}");
        }
        if self.ended {
            eprintln!("attack {attack}: the daemon has ended");
        }
    }
}

/// Measures `time` long beside an attack.
fn beside(attack: &'static str, program: &Path, time: Duration) -> io::Result<Outcome> {
    let (home, attacker) = (Netns::new(), Netns::new());
    lan::connect(&home, &attacker);
    home.ip(&format!("route add {DEAD_NETWORK} via {}", NEIGHBOUR_V4[0]));
    attacker.ip(&format!("route add blackhole {DEAD_NETWORK}"));
    // Threads and processes that are started inside stay inside.
    home.run(|| {
        // Luup listens on all addresses, as it does on a box.
        let luup = Luup::start_at(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)))?;
        luup.set_device(ATTACKED_DEVICE, Behaviour::Status(503, String::new()));
        let dead: String = (1..=16).map(|last| format!("198.51.100.{last} {DEAD_NAME}\n")).collect();
        let builder = Daemon::builder_of(program)
            .bare()
            .config(&format!("[host]\nport=0\nvera=http://127.0.0.1:{}\n[limits]\nbuffers=4194304\n", luup.port()))
            .file("hosts", format!("127.0.0.1 localhost\n{dead}").as_bytes())
            .file("host.conf", b"multi on\n")
            .file("nsswitch.conf", b"hosts: files dns\n")
            .file("resolv.conf", format!("nameserver {}\n", NEIGHBOUR_V4[0]).as_bytes())
            .within(SCRIPT);
        let mut daemon = builder.try_start().map_err(io::Error::other)?;
        let port = daemon.port();
        let start = || {
            let (port, luup_port) = (port.to_string(), luup.port().to_string());
            let mut helper = HelperProcess::start_in(&attacker, &["attack", attack, &port, &luup_port])?;
            match helper.line()?.trim_end() {
                "started" => Ok(helper),
                _ => Err(io::Error::other("the attack does not start")),
            }
        };
        let (measured, helper) = innocent::measure(port, &luup, time, start)?;
        let pss = process::memory(daemon.pid()).map(|memory| memory.pss);
        let ended = daemon.wait_exit(Duration::ZERO).is_some();
        Ok(Outcome { measured, ended, pss, attempts: helper.finish("")? })
    })
}
