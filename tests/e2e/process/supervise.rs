//! `--supervise`: a parent that restarts the daemon when it dies.

use std::io::Write;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::daemon::Daemon;
use testkit::plugin::Plugin;
use testkit::ports::Reserved;

use crate::support::{LIMIT, daemon, echo_mode, ends, eventually, plugin_from};

/// A supervised daemon on a fixed port.
fn supervised(config: &str) -> (Daemon, Reserved) {
    let port = Reserved::new().unwrap();
    let daemon = daemon().config(config).port(port.port()).arg("--supervise").start();
    (daemon, port)
}

/// The process id of the daemon proper.
#[track_caller]
fn child(daemon: &Daemon) -> Pid {
    let child = eventually("the supervisor has a child", || daemon.children().first().copied());
    Pid::from_raw(child as i32)
}

/// Kills the daemon proper, and waits until another one listens in its place.
#[track_caller]
fn kill_child(daemon: &Daemon, port: &Reserved) {
    let old = child(daemon);
    kill(old, Signal::SIGKILL).unwrap();
    eventually("another child", || {
        let new = *daemon.children().first()?;
        (new as i32 != old.as_raw()).then_some(())
    });
    eventually("the daemon listens", || Plugin::connect_raw(port.addr()).ok()?.try_line().ok());
}

#[test]
fn a_supervised_daemon_serves() {
    let (daemon, _port) = supervised("");
    let (mut plugin, mut remote) = echo_mode(&daemon, "");
    remote.write_all(b"hello").unwrap();
    assert_eq!(plugin.bytes(5), b"hello");
    assert_eq!(daemon.children().len(), 1);
}

#[test]
fn a_killed_daemon_is_restarted() {
    let (daemon, port) = supervised("");
    let (mut plugin, remote) = echo_mode(&daemon, "");
    kill_child(&daemon, &port);
    assert!(plugin.at_end() && ends(&remote), "connections of the killed daemon stay open");
    daemon.wait_for_log(LIMIT, |line| line.contains("SIGKILL") || line.contains("killed"));
    kill_child(&daemon, &port);
    assert!(Plugin::connect(port.addr()).command("CAPA").starts_with("OK CAPA"));
}

#[test]
fn stop_restarts_a_supervised_daemon() {
    let (mut daemon, port) = supervised("");
    for _ in 0..2 {
        let old = child(&daemon);
        assert_eq!(Plugin::connect(port.addr()).command("STOP"), "OK STOP");
        eventually("another child", || (*daemon.children().first()? as i32 != old.as_raw()).then_some(()));
        eventually("the daemon listens", || Plugin::connect_raw(port.addr()).ok()?.try_line().ok());
    }
    daemon.wait_for_log(LIMIT, |line| line.contains("the daemon was told to end; restarting it in"));
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit(LIMIT).expect("the supervisor exits").code(), Some(0));
    assert!(Plugin::connect_raw(port.addr()).is_err());
}

#[test]
fn a_signal_to_both_processes_ends_both() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (mut daemon, port) = supervised("");
        // As a terminal does. The daemon often is the first to end.
        kill(child(&daemon), signal).unwrap();
        daemon.signal(signal);
        assert_eq!(daemon.wait_exit(LIMIT).expect("the supervisor exits").code(), Some(0), "{signal}");
        assert!(Plugin::connect_raw(port.addr()).is_err());
    }
}

#[test]
fn term_and_int_end_daemon_and_supervisor() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (mut daemon, port) = supervised("");
        let child = child(&daemon);
        daemon.signal(signal);
        assert_eq!(daemon.wait_exit(LIMIT).expect("the supervisor exits").code(), Some(0), "{signal}");
        assert!(kill(child, None).is_err(), "{signal}: the daemon is still running");
        assert!(Plugin::connect_raw(port.addr()).is_err());
    }
}

#[test]
fn term_at_any_moment_ends_daemon_and_supervisor() {
    for milliseconds in [0, 1, 3, 10, 30, 100, 200] {
        let port = Reserved::new().unwrap();
        let mut daemon = daemon().port(port.port()).arg("--supervise").spawn();
        // The delay is no wait: it selects a moment during the start.
        std::thread::sleep(Duration::from_millis(milliseconds));
        daemon.signal(Signal::SIGTERM);
        let status =
            daemon.wait_exit(LIMIT).unwrap_or_else(|| panic!("still running, TERM {milliseconds} ms after the start"));
        // Before it has installed its signal handlers, the default action ends it.
        let ended = status.code() == Some(0) || std::os::unix::process::ExitStatusExt::signal(&status) == Some(15);
        assert!(ended, "{milliseconds} ms: {status:?}");
        assert!(Plugin::connect_raw(port.addr()).is_err());
    }
}

#[test]
fn term_during_a_restart_ends_daemon_and_supervisor() {
    for milliseconds in [0, 5, 150, 200, 205, 220] {
        let (mut daemon, port) = supervised("");
        kill(child(&daemon), Signal::SIGKILL).unwrap();
        // The delay is no wait: it selects a moment during the pause and the new start.
        std::thread::sleep(Duration::from_millis(milliseconds));
        daemon.signal(Signal::SIGTERM);
        let status = daemon.wait_exit(LIMIT).unwrap_or_else(|| panic!("still running, TERM {milliseconds} ms later"));
        assert_eq!(status.code(), Some(0), "{milliseconds} ms");
        assert!(Plugin::connect_raw(port.addr()).is_err());
    }
}

#[test]
fn a_restarted_daemon_reads_the_current_configuration() {
    let (daemon, port) = supervised("[host]\nallow=127.0.0.1\n");
    assert_eq!(plugin_from("127.0.0.2", port.addr()).line(), "ERR ACCESS Not allowed");
    let file = daemon.dir().join("sockproxyd.conf");
    std::fs::write(&file, "[host]\nallow=127.0.0.1,127.0.0.2\n").unwrap();
    kill_child(&daemon, &port);
    assert!(plugin_from("127.0.0.2", port.addr()).line().starts_with("OK "));
    // If the file is broken, the first configuration applies, so that the system keeps working.
    std::fs::write(&file, "[host]\nallow=nonsense\n").unwrap();
    kill_child(&daemon, &port);
    assert_eq!(plugin_from("127.0.0.2", port.addr()).line(), "ERR ACCESS Not allowed");
}

#[test]
fn inherited_descriptors_are_closed() {
    let port = Reserved::new().unwrap();
    let within = "exec 3>lock 9>lock; exec \"$@\"";
    let daemon = daemon().port(port.port()).within(within).arg("--supervise").start();
    let lock = daemon.dir().join("lock");
    assert!(lock.exists());
    for pid in [daemon.pid(), daemon.children()[0]] {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        let held = open.filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|target| target == lock)).count();
        assert_eq!(held, 0, "of {pid}");
    }
}

#[test]
fn hup_and_usr1_are_passed_on() {
    let (daemon, port) = supervised("[host]\nallow=127.0.0.1\n");
    assert_eq!(plugin_from("127.0.0.2", port.addr()).line(), "ERR ACCESS Not allowed");
    std::fs::write(daemon.dir().join("sockproxyd.conf"), "[host]\nallow=127.0.0.1,127.0.0.2\n").unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log(LIMIT, |line| line.contains("read anew"));
    assert!(plugin_from("127.0.0.2", port.addr()).line().starts_with("OK "));
    daemon.signal(Signal::SIGUSR1);
    daemon.wait_for_log(LIMIT, |line| line.contains("#recv"));
}

#[test]
fn a_killed_supervisor_takes_the_daemon_with_it() {
    let (mut daemon, port) = supervised("");
    daemon.signal(Signal::SIGKILL);
    daemon.wait_exit(LIMIT).expect("a killed process ends");
    eventually("the port is free", || Plugin::connect_raw(port.addr()).err());
}

#[test]
fn a_bad_configuration_is_not_retried() {
    let run = crate::support::run(&["--supervise", "-p", "x"]);
    assert_eq!(run.status, Some(2), "{run:?}");
}
