//! Shared by all tests: starting the daemon, connections through it, checked data, and waiting.

mod data;
mod keep;
mod lan;
mod listen;
mod mounts;
mod name_server;
mod nginx;
mod process;
mod scripted_server;
mod stat_client;
mod strace;
mod tls;
mod udp;
mod websocket;

pub(crate) use data::{
    Reader, Writer, both_ways, keep_alive_is_on, read_to_end, unacknowledged, wait_until_acknowledged,
};
pub(crate) use keep::{PID, attached, remote_closes_while_parked, wait_parked};
pub(crate) use lan::{NO_LUUP, from_neighbour, on_all_addresses, on_lan, on_loopback};
pub(crate) use listen::{Listener, WsClient, accepted_by, client_of, listening};
pub(crate) use mounts::{may_mount, with_mounts};
pub(crate) use name_server::{Answer, NameServer};
pub(crate) use nginx::{Nginx, cache};
pub(crate) use process::{Run, Scratch, command, curl, run};
pub(crate) use scripted_server::ScriptedServer;
pub(crate) use stat_client::{StatClient, stat_json};
pub(crate) use strace::{Calls, Strace};
pub(crate) use tls::{tls_answered, tls_connected};
pub(crate) use udp::{announce, may_have_networks, member, shared_socket};
pub(crate) use websocket::{
    LONG_TIMEOUTS, conn_answer, expect_ok, read_close_code, read_frame, read_message, read_message_text,
    redirecting_server, scripted_answer, send_last_messages_and_reset, send_message, websocket_connected,
    websocket_requested, wss_connected,
};

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};
use testkit::daemon::{Builder, Daemon};
use testkit::device::{Device, Kind};
use testkit::luup::Luup;
use testkit::plugin::Plugin;

/// Time limit for what should happen at once, large enough for a loaded machine or an emulator.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// The binary under test, unless SOCKPROXYD names another.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_sockproxyd");

/// A builder of the daemon.
pub(crate) fn daemon() -> Builder {
    Daemon::builder(BINARY)
}

/// Starts the daemon with its defaults; its Luup is a port that refuses.
#[track_caller]
pub(crate) fn started() -> Daemon {
    daemon().start()
}

/// Starts the daemon with this configuration file.
#[track_caller]
pub(crate) fn configured(text: &str) -> Daemon {
    daemon().config(text).start()
}

/// Starts a stand-in for Luup, and a daemon that notifies it, with this configuration file.
#[track_caller]
pub(crate) fn with_luup(config: &str) -> (Luup, Daemon) {
    let luup = Luup::start();
    let daemon = daemon().config(config).luup(&luup.url()).start();
    (luup, daemon)
}

/// The emulator that the daemon runs under, if any.
fn emulator() -> Option<String> {
    let command = std::env::var("SOCKPROXYD").ok()?;
    let first = command.split_whitespace().next()?;
    first.rsplit('/').next()?.starts_with("qemu-").then(|| first.to_owned())
}

/// True if the daemon runs under an emulator: /proc then shows the emulator's memory and descriptors.
pub(crate) fn emulated() -> bool {
    emulator().is_some()
}

/// True under an emulator, for tests that read the process's /proc. Prints that the test is skipped, and why.
pub(crate) fn skipped_under_emulation(why: &str) -> bool {
    if emulated() {
        println!("skipped: under an emulator {why}");
    }
    emulated()
}

/// True under QEMU's user mode before version 8 for MIPS: SO_ERROR gives the guest the host's errno, which differs from
/// that of MIPS. The standard library's connect asks for it, which sends notifications.
pub(crate) fn emulator_mixes_up_errors() -> bool {
    static MIXES: OnceLock<bool> = OnceLock::new();
    *MIXES.get_or_init(|| {
        let Some(emulator) = emulator().filter(|emulator| emulator.contains("qemu-mips")) else { return false };
        let version = Command::new(emulator).arg("--version").output().expect("the emulator");
        let version = String::from_utf8_lossy(&version.stdout).into_owned();
        let major = version.split(" version ").nth(1).and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
        major.is_some_and(|major| major < 8)
    })
}

/// A plugin in echo mode and the remote that it is connected to.
#[track_caller]
pub(crate) fn echo_mode(daemon: &Daemon, options: &str) -> (Plugin, TcpStream) {
    let device = Device::start(Kind::Manual);
    let mut plugin = daemon.plugin();
    plugin.conn(device.addr(), options);
    (plugin, accepted(&device))
}

/// Accepts the next connection to a [`Kind::Manual`] device. Reads from it have the timeout [`LIMIT`].
#[track_caller]
pub(crate) fn accepted(device: &Device) -> TcpStream {
    let remote = device.accept(LIMIT);
    remote.set_read_timeout(Some(LIMIT)).expect("socket");
    remote.set_nodelay(true).expect("socket");
    remote
}

/// Connects a plugin from `source`, an address of this machine, without reading the greeting.
#[track_caller]
pub(crate) fn plugin_from(source: &str, to: SocketAddr) -> Plugin {
    let source: IpAddr = source.parse().expect("an address");
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("socket");
    socket.bind(&SocketAddr::new(source, 0).into()).expect("bind");
    socket.connect(&to.into()).expect("connect to the daemon");
    Plugin::from_stream(socket.into())
}

/// Polls `check` until it returns a value: for states without an event, such as those in /proc and STAT.
///
/// # Panics
/// If it returns none within [`LIMIT`].
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(start.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Calls `meanwhile` while the daemon is stopped (SIGSTOP), so that it then finds all events at once.
pub(crate) fn while_stopped(daemon: &Daemon, meanwhile: impl FnOnce()) {
    daemon.signal(Signal::SIGSTOP);
    eventually("the daemon is stopped", || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
        stat.rsplit_once(") ").unwrap().1.starts_with('T').then_some(())
    });
    meanwhile();
    daemon.signal(Signal::SIGCONT);
}

/// Waits until a daemon whose log is not on standard error listens. Returns a plugin that has read the greeting.
#[track_caller]
pub(crate) fn wait_listening(addr: SocketAddr) -> Plugin {
    eventually("the daemon listens", || TcpStream::connect(addr).ok().map(|_| ()));
    Plugin::connect(addr)
}

/// Waits for `time`, and checks that a connection in setup mode stays silent meanwhile.
#[track_caller]
pub(crate) fn wait_quietly(daemon: &Daemon, time: Duration) {
    assert!(stays_quiet(daemon.plugin().stream(), time));
}

/// Processor time that the daemon uses during `time` without any traffic.
#[track_caller]
pub(crate) fn processor_time(daemon: &Daemon, time: Duration) -> Duration {
    let before = daemon.cpu_time();
    wait_quietly(daemon, time);
    daemon.cpu_time() - before
}

/// True if the remote's stream ends or is reset before any further byte.
pub(crate) fn ends(remote: &TcpStream) -> bool {
    use std::io::{ErrorKind, Read};
    let mut remote = remote;
    match remote.read(&mut [0u8; 1]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

/// True if the remote's stream stays open and silent for `time`.
pub(crate) fn stays_quiet(remote: &TcpStream, time: Duration) -> bool {
    remote.set_read_timeout(Some(time)).expect("socket");
    let peeked = remote.peek(&mut [0u8; 1]);
    remote.set_read_timeout(Some(LIMIT)).expect("socket");
    matches!(peeked, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}
