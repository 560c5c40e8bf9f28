//! The daemon with the system calls of Linux 2.6.37: newer ones fail with ENOSYS. Kernels before 3.17 lack
//! getrandom(2), so random numbers come from /dev/urandom, through descriptors that libraries keep open. Also the
//! daemon on a system without /dev or /proc.

use std::fs::{read_dir, read_link};
use std::process::Command;

use testkit::daemon::{Builder, Daemon};
use testkit::device::{Device, Kind, UdpEcho};
use testkit::luup::Luup;
use testkit::old_kernel::behind_filter;
use testkit::tls::{Identity, TlsDevice};
use testkit::websocket::Server;

use crate::support::{LIMIT, LONG_TIMEOUTS, daemon, may_mount, skipped_under_emulation, with_mounts};

/// The ways to start the daemon: with a supervisor or without, with a configuration file or without.
const STARTS: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

/// True, with the reason printed, if the daemon cannot run behind the filter.
fn skipped() -> bool {
    if skipped_under_emulation("newer system calls are the emulator's") {
        return true;
    }
    let filtered = behind_filter(&mut Command::new("true")).status();
    if let Err(error) = &filtered {
        println!("skipped: no filter of system calls here: {error}");
    }
    filtered.is_err()
}

fn start(builder: Builder, supervised: bool, configured: bool) -> Daemon {
    let builder = if configured { builder.config("[host]\nallow=127.0.0.1\n") } else { builder };
    builder.args(if supervised { &["--supervise"] } else { &[] }).start()
}

/// The supervisor and the daemon proper, or the daemon alone.
fn processes(daemon: &Daemon) -> Vec<u32> {
    [vec![daemon.pid()], daemon.children()].concat()
}

/// Connects a plugin to an echo server of each kind, and exchanges a line.
#[track_caller]
fn connect_to_each_kind(daemon: &Daemon) {
    let identity = Identity::loopback();
    let (tcp, udp) = (Device::start(Kind::Echo), UdpEcho::start());
    let tls = TlsDevice::echo(identity.any_server());
    let (ws, wss) = (Server::echo(), Server::echo_secure(identity.any_server()));
    let name = format!("localhost:{}", tcp.port());
    for (target, options) in [
        (tcp.addr().to_string(), String::new()),
        (name, String::new()),
        (udp.addr().to_string(), "PRTO=udp".to_owned()),
        (udp.addr().to_string(), "PRTO=udp BIND=0 MTTL=4".to_owned()),
        (tls.addr().to_string(), format!("PRTO=tls {LONG_TIMEOUTS}").replace(" RQTM=60000", "")),
        (ws.url("/"), "FRAM=LINE".to_owned()),
        (wss.url("/"), format!("FRAM=LINE {LONG_TIMEOUTS}")),
    ] {
        let mut plugin = daemon.plugin();
        plugin.conn(&target, &options);
        assert_eq!(plugin.command("hello"), "hello", "{target} {options}");
    }
}

#[test]
fn every_kind_of_remote_is_reached_however_it_is_started() {
    if skipped() {
        return;
    }
    for (supervised, configured) in STARTS {
        let daemon = start(daemon().old_kernel(), supervised, configured);
        let started = processes(&daemon);
        connect_to_each_kind(&daemon);
        assert_eq!(processes(&daemon), started, "supervised: {supervised}, configured: {configured}");
    }
}

#[test]
fn luup_is_notified_however_it_is_started() {
    if skipped() {
        return;
    }
    for (supervised, configured) in STARTS {
        let luup = Luup::start();
        let daemon = start(daemon().old_kernel().luup(&luup.url()), supervised, configured);
        let device = Device::start(Kind::Source { bytes: 10, seed: 1 });
        let mut plugin = daemon.plugin();
        plugin.conn(device.addr(), "NTFY=5/urn:x/Act/1");
        // The end of the stream may be told by a notification of its own.
        luup.wait_for(1, LIMIT);
    }
}

#[test]
fn inherited_descriptors_are_closed_and_those_of_libraries_stay_open() {
    if skipped() {
        return;
    }
    let within = "exec 3>lock 4>lock 5>lock 9>lock; exec \"$@\"";
    let daemon = start(daemon().within(within).old_kernel(), true, true);
    connect_to_each_kind(&daemon);
    let lock = daemon.dir().join("lock");
    for pid in processes(&daemon) {
        let open = read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        let open: Vec<_> = open.filter_map(|entry| read_link(entry.path()).ok()).collect();
        assert!(!open.contains(&lock), "of {pid}: {open:?}");
        assert!(open.iter().any(|file| file.ends_with("urandom")), "of {pid}: {open:?}");
    }
}

#[test]
fn without_random_numbers_it_ends_with_a_message() {
    if skipped() || !may_mount() {
        return;
    }
    for supervised in [false, true] {
        let daemon = with_mounts(daemon(), "mount -t tmpfs none /dev").old_kernel();
        let mut daemon = daemon.args(if supervised { &["--supervise"] } else { &[] }).spawn();
        assert_eq!(daemon.wait_exit(LIMIT).and_then(|status| status.code()), Some(2), "supervised: {supervised}");
        daemon.wait_for_log(LIMIT, |line| line.contains("no random numbers") && line.contains("/dev/urandom"));
    }
}

#[test]
fn neither_dev_nor_proc_is_needed_where_the_kernel_has_getrandom() {
    if skipped_under_emulation("the emulator needs /proc") || !may_mount() {
        return;
    }
    if std::env::var("SOCKPROXYD").is_ok_and(|words| words.contains("old-kernel")) {
        println!("skipped: all daemons run behind the filter");
        return;
    }
    let daemon = with_mounts(daemon(), "mount -t tmpfs none /dev\nmount -t tmpfs none /proc");
    connect_to_each_kind(&start(daemon, true, true));
}
