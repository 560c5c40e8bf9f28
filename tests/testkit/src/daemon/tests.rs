//! The builder and its waits, with shell scripts in place of a daemon.

use super::*;
use std::os::unix::process::ExitStatusExt;

const LONG: Duration = Duration::from_secs(20);

fn script(text: &str) -> Builder {
    let mut builder = Daemon::builder("/bin/sh").bare();
    builder.program = vec!["/bin/sh".into(), "-c".into(), text.into(), "script".into()];
    builder
}

#[test]
fn ports_are_read_from_the_log() {
    let daemon = script("echo x listening on 127.0.0.1:1234 >&2; echo listening on [::1]:77 >&2; exec sleep 60")
        .listeners(2)
        .start();
    assert_eq!(daemon.port(), 1234);
    assert_eq!(daemon.listening()[1], "[::1]:77".parse().unwrap());
    assert!(daemon.memory().rss > 0 && daemon.descriptors() >= 3);
    assert!(daemon.cpu_time() < LONG);
}

#[test]
fn the_exit_status_and_the_last_output_are_seen() {
    let mut daemon = script("echo help; echo bad >&2; exit 2").spawn();
    assert_eq!(daemon.wait_exit(LONG).unwrap().code(), Some(2));
    daemon.wait_for_log(LONG, |line| line == "bad");
    daemon.wait_for_log(LONG, |line| line == "help");
}

#[test]
fn signals_arrive_and_drop_ends_all_processes() {
    let mut daemon = script("echo listening on 127.0.0.1:1 >&2; exec sleep 60").start();
    assert!(daemon.wait_exit(Duration::from_millis(5)).is_none());
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit(LONG).unwrap().signal(), Some(15));

    let daemon = script("sleep 60 & echo listening on 127.0.0.1:1 >&2; wait").start();
    let (pid, children, dir) = (daemon.pid(), daemon.children(), daemon.dir().to_path_buf());
    assert_eq!(children.len(), 1);
    drop(daemon);
    assert!(process::memory(pid).is_none() && !dir.exists());
    let start = Instant::now();
    while fs::read_to_string(format!("/proc/{}/cmdline", children[0])).is_ok_and(|c| c.contains("sleep")) {
        assert!(start.elapsed() < LONG, "the child is still running");
        thread::yield_now();
    }
}

#[test]
fn files_and_configuration_are_in_its_directory() {
    let daemon = script("cat \"$2\" extra >&2; echo listening on 127.0.0.1:1 >&2; exec sleep 60")
        .config("log={dir}/log\n")
        .file("extra", b"more\n")
        .start();
    let expected = format!("log={}/log", daemon.dir().display());
    daemon.wait_for_log(LONG, |line| line == expected);
    daemon.wait_for_log(LONG, |line| line == "more");
}

#[test]
fn a_wrapping_script_sets_the_environment() {
    let inner = script("ulimit -n >&2; echo listening on 127.0.0.1:1 >&2; exec sleep 60");
    let daemon = inner.within("ulimit -n 77; exec \"$@\"").start();
    daemon.wait_for_log(LONG, |line| line == "77");
    assert!(process::children(daemon.pid()).is_empty(), "the script is a process of its own");
}

#[test]
#[should_panic(expected = "does not listen")]
fn start_fails_at_once_if_the_daemon_exits() {
    script("echo address in use >&2; exit 2").start();
}
