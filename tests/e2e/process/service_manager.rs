//! What systemd is told: sd_notify(3), by datagrams.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::time::ClockId;
use nix::unistd::Pid;
use testkit::ports::Reserved;

use crate::support::{LIMIT, Scratch, daemon, eventually};

/// The socket of a service manager.
struct Inbox(UnixDatagram);

impl Inbox {
    fn new(socket: UnixDatagram) -> Self {
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        Self(socket)
    }

    #[track_caller]
    fn next(&self) -> String {
        let mut bytes = [0; 200];
        let length = self.0.recv(&mut bytes).expect("a datagram");
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    fn is_empty(&self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let empty = self.0.recv(&mut [0; 200]).is_err();
        self.0.set_nonblocking(false).unwrap();
        empty
    }
}

#[test]
fn systemd_is_told_of_the_start_of_reloads_and_of_the_end() {
    let scratch = Scratch::new();
    let path = scratch.path("notify");
    let abstract_name = format!("sockproxyd-e2e-{}", std::process::id());
    let abstract_address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
    for (name, socket) in [
        (path.clone(), UnixDatagram::bind(&path).unwrap()),
        (format!("@{abstract_name}"), UnixDatagram::bind_addr(&abstract_address).unwrap()),
    ] {
        let inbox = Inbox::new(socket);
        let mut daemon = daemon().env("NOTIFY_SOCKET", &name).config("").start();
        assert_eq!(inbox.next(), "READY=1");
        let now = || Duration::from(ClockId::CLOCK_MONOTONIC.now().unwrap()).as_micros();
        let before = now();
        for config in ["[limits]\nkept=10\n", "[no such section]\n"] {
            std::fs::write(daemon.dir().join("sockproxyd.conf"), config).unwrap();
            daemon.signal(Signal::SIGHUP);
            let reloading = inbox.next();
            let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("RELOADING=1");
            assert!((before..=now()).contains(&time.parse().unwrap()), "{reloading}");
            assert_eq!(inbox.next(), "READY=1", "also after a configuration that is invalid");
        }
        assert!(inbox.is_empty(), "there is no watchdog");
        daemon.signal(Signal::SIGTERM);
        assert_eq!(inbox.next(), "STOPPING=1");
        assert_eq!(daemon.wait_exit(LIMIT).unwrap().code(), Some(0));
    }
}

#[test]
fn the_watchdog_is_told_that_an_idle_daemon_runs() {
    let scratch = Scratch::new();
    let path = scratch.path("notify");
    let inbox = Inbox::new(UnixDatagram::bind(&path).unwrap());
    let environment = |time: &str| daemon().env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", time);
    let running = environment("200000").within("export WATCHDOG_PID=$$; exec \"$@\"").start();
    let first: Vec<String> = (0..4).map(|_| inbox.next()).collect();
    assert_eq!(first, ["READY=1", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1"]);
    drop(running);
    while !inbox.is_empty() {}
    // sd_watchdog_enabled(3): the watchdog is another process's.
    let _other = environment("1").env("WATCHDOG_PID", "1").start();
    assert_eq!(inbox.next(), "READY=1");
    assert!(inbox.is_empty());
}

#[test]
fn a_service_manager_that_is_away_or_reads_nothing_delays_nothing() {
    let scratch = Scratch::new();
    let path = scratch.path("notify");
    let full = UnixDatagram::bind(&path).unwrap();
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send_to(b"x", &path).is_ok() {}
    for name in [path.as_str(), "/no/such/socket", "@no-such-socket", "relative", ""] {
        let daemon = daemon().env("NOTIFY_SOCKET", name).env("WATCHDOG_USEC", "1000").start();
        assert!(daemon.plugin().command("CAPA").starts_with("OK CAPA"), "{name}");
    }
    drop(full);
}

#[test]
fn under_a_supervisor_the_daemon_itself_notifies() {
    let scratch = Scratch::new();
    let path = scratch.path("notify");
    let inbox = Inbox::new(UnixDatagram::bind(&path).unwrap());
    let port = Reserved::new().unwrap();
    let mut daemon = daemon().port(port.port()).arg("--supervise").env("NOTIFY_SOCKET", &path).start();
    assert_eq!(inbox.next(), "READY=1");
    let child = eventually("the supervisor has a child", || daemon.children().first().copied());
    kill(Pid::from_raw(child as i32), Signal::SIGKILL).unwrap();
    assert_eq!(inbox.next(), "READY=1", "the next daemon");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(inbox.next(), "STOPPING=1");
    assert!(daemon.wait_exit(LIMIT).is_some() && inbox.is_empty());
}
