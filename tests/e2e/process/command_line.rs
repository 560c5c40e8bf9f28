//! The command line: the order of options, output, errors and exit status.

use std::io::Write;
use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use testkit::daemon::Daemon;
use testkit::device::{Device, Kind};
use testkit::luup::Luup;
use testkit::plugin::Plugin;
use testkit::ports::Reserved;

use crate::support::{LIMIT, Run, Scratch, accepted, command, daemon, echo_mode, eventually, run, wait_listening};

/// Runs with wrong arguments. Expects status 2, no output on stdout, and one line on stderr that begins with the
/// program's name.
#[track_caller]
fn refused(args: &[&str]) -> String {
    let run = run(args);
    assert_eq!((run.status, &*run.out), (Some(2), ""), "{args:?}: {run:?}");
    assert_eq!(run.err.lines().count(), 1, "{args:?}: {run:?}");
    run.err.strip_prefix("sockproxyd: ").unwrap_or_else(|| panic!("{run:?}")).trim_end().to_owned()
}

#[track_caller]
fn printed(args: &[&str]) -> String {
    let run = run(args);
    assert_eq!((run.status, &*run.err), (Some(0), ""), "{args:?}");
    run.out
}

#[test]
fn version_and_help() {
    assert_eq!(printed(&["--version"]), "sockproxyd 0.1.0\n");
    let help = printed(&["-h"]);
    assert_eq!(printed(&["--help"]), help);
    for option in [
        "-c",
        "-a",
        "-p",
        "-L",
        "-N",
        "-V",
        "-D",
        "-t",
        "-h",
        "--version",
        "--probe",
        "--make-cert",
        "--supervise",
        "--sample-config",
    ] {
        assert!(help.contains(option), "{option} is not in the help:\n{help}");
    }
}

#[test]
fn bad_options_are_refused() {
    for args in [&["-x"][..], &["--port", "7"], &["word"], &["-p"], &["-D=1"], &["-p", "7", "x"], &["--probe", "2"]] {
        let error = refused(args);
        assert!(error.contains("-h for help"), "{args:?}: {error}");
    }
    for args in ["--probe=", "--probe=0", "--probe=3601", "--probe=1.5", "--probe=soon"] {
        let error = refused(&[args]);
        assert!(error.contains("whole seconds from 1 to 3600"), "{args}: {error}");
    }
}

#[test]
fn bad_values_are_refused_with_their_option() {
    for (args, option) in [
        (["-p", "x"], "-p"),
        (["-p", "65536"], "-p"),
        (["-p", "-1"], "-p"),
        (["-N", "ftp://h"], "-N"),
        (["-V", "nothing"], "-V"),
        (["-a", ""], "-a"),
        (["-L", ""], "-L"),
    ] {
        let error = refused(&args);
        assert!(error.starts_with(&format!("{option}: ")), "{error}");
    }
}

#[test]
fn configuration_errors_name_the_file_and_the_line() {
    let scratch = Scratch::new();
    for (text, line, about) in [
        ("[host]\nport=x\n", 2, "port"),
        ("\n; comment\n[host]\n\nprot=7\n", 5, "prot"),
        ("[host]\r\nip=*\r\nport=99999\r\n", 3, "port"),
        ("[hosts]\n", 1, "hosts"),
        ("port=7\n", 1, "port"),
        ("[host]\nport\n", 2, "port"),
        ("[host]\nallow=192.168.0.0/33\n", 2, "192.168.0.0/33"),
        ("[host]\ntargets=a:b\n", 2, "a:b"),
        ("[limits]\nsetup=0\n", 2, "setup"),
        ("[limits]\nconnections=many\n", 2, "connections"),
        ("[direct]\nx=CONN a:1\n", 2, "x"),
        ("[direct]\n8125=CONN nowhere\n", 2, "Invalid host:port"),
        ("[direct]\n8125=a:1 BAD=1\n", 2, "BAD=1"),
        ("[host\nport=7\n", 1, "section"),
    ] {
        let path = scratch.write("bad.cf", text);
        for args in [&["-c", &path][..], &["-t", "-c", &path]] {
            let error = refused(args);
            let place = format!("{path}:{line}: ");
            assert!(error.starts_with(&place) && error.contains(about), "{text:?}: {error}");
        }
    }
}

#[test]
fn an_unreadable_configuration_is_refused() {
    let scratch = Scratch::new();
    for path in [scratch.path("missing.cf"), scratch.path("")] {
        assert!(refused(&["-c", &path]).starts_with(&path));
    }
}

#[test]
fn a_configuration_can_be_checked() {
    let scratch = Scratch::new();
    let path =
        scratch.write("good.cf", "[HOST]\nIP=127.0.0.1\nDebug\n# comment\n[Direct]\n8125=CONN mail.example.com:25\n");
    let Run { status, err, .. } = run(&["-c", &path, "-t"]);
    assert_eq!((status, &*err), (Some(0), ""));
}

/// Files that a firmware upgrade has lost, and a key that is not one.
#[test]
fn a_check_and_the_start_look_at_the_files_of_certificates() {
    let scratch = Scratch::new();
    let directory = scratch.path("keys");
    std::fs::create_dir(&directory).unwrap();
    let key = scratch.write("keys/no.key", "no key");
    let (direct, serve) = (Reserved::new().unwrap(), Reserved::new().unwrap());
    let (direct, serve) = (direct.port(), serve.port());
    let text = format!(
        "[host]\nip=127.0.0.1\nport=0\n[tls]\ndirectory={directory}\nca={directory}/gone-ca.pem\n\
         [direct]\n{direct}=CONN 127.0.0.1:9 PRTO=tls CAFL=gone-too.pem VRFY=peer\n\
         [serve]\n{serve}=/a CERT=no.key CONN 127.0.0.1:9\n{serve}=/b CERT=no.key CONN 127.0.0.1:9\n"
    );
    let path = scratch.write("tls.cf", &text);
    let expected = [
        &*format!("SSL_ERROR ca {directory}/gone-ca.pem: No such file or directory (os error 2)"),
        &*format!("port {serve}: SSL_ERROR CERT no.key: there is no certificate in it"),
    ];
    let Run { status, out, err } = run(&["-t", "-c", &path]);
    assert_eq!((status, &*out), (Some(0), "configuration is valid\n"));
    let warnings: Vec<_> = err.lines().filter_map(|line| line.strip_prefix("sockproxyd: warning: ")).collect();
    assert_eq!(warnings, expected, "{err}");
    std::fs::remove_file(&key).unwrap();
    let daemon = daemon().config(&text).start();
    daemon.wait_for_log(LIMIT, |line| line.ends_with(expected[0]));
    daemon.wait_for_log(LIMIT, |line| line.contains(&format!("port {serve}: SSL_ERROR CERT no.key: No such file")));
}

#[test]
fn the_sample_configuration_loads_as_it_is_and_with_every_key_uncommented() {
    let scratch = Scratch::new();
    let sample = printed(&["--sample-config"]);
    let path = scratch.write("sample.cf", &sample);
    assert_eq!(run(&["-t", "-c", &path]).status, Some(0));
    // A key follows a semicolon and one blank; text follows more blanks.
    let is_key =
        |line: &str| line.strip_prefix("; ").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphanumeric()));
    let (head, body) = sample.split_once("\n[host]").unwrap();
    let uncommented: Vec<&str> = body.lines().map(|line| if is_key(line) { &line[2..] } else { line }).collect();
    let text = format!("{head}\n[host]{}\n", uncommented.join("\n"));
    for key in ["ip=", "port=", "vera=", "log=", "debug", "allow=", "setup=30", "8125=CONN"] {
        assert!(text.lines().any(|line| line.starts_with(key)), "{key} is not in\n{text}");
    }
    let path = scratch.write("uncommented.cf", &text);
    let run = run(&["-t", "-c", &path]);
    assert_eq!(run.status, Some(0), "{run:?}");
}

#[test]
fn later_options_take_precedence() {
    let scratch = Scratch::new();
    let (one, two) = (Reserved::new().unwrap(), Reserved::new().unwrap());
    let file = scratch.write("two.cf", format!("[host]\nport={}\nip=127.0.0.1\n", two.port()));
    let first = one.port().to_string();
    for (args, port) in [
        (&["-a", "127.0.0.1", "-c", &file, "-p", &first][..], one.port()),
        (&["-a", "127.0.0.1", "-p", &first, "-c", &file], two.port()),
        (&["-a", "127.0.0.9", "-p", &first, "-p", "1", "-c", &file, "-p", &first], one.port()),
    ] {
        let daemon = daemon().bare().args(args).start();
        assert_eq!(daemon.addr(), ([127, 0, 0, 1], port).into(), "{args:?}");
    }
}

#[test]
fn a_second_file_overrides_the_first_and_keeps_the_rest() {
    let scratch = Scratch::new();
    let port = Reserved::new().unwrap();
    let one = scratch.write("one.cf", format!("[host]\nport={}\nip=127.0.0.9\n", port.port()));
    let two = scratch.write("two.cf", "[host]\nip=127.0.0.1\n");
    let daemon = daemon().bare().args(&["-c", &one, "-c", &two]).start();
    assert_eq!(daemon.addr(), port.addr());
}

#[test]
fn both_options_set_the_url_of_luup() {
    let (old, luup) = (Luup::start(), Luup::start());
    for letter in ["-N", "-V"] {
        let daemon = daemon().luup(&old.url()).args(&[letter, &luup.url()]).start();
        let (plugin, remote) = echo_mode(&daemon, "NTFY=5/s/a/p");
        drop((plugin, remote));
        luup.wait_for(1, LIMIT);
        luup.clear_requests();
    }
    assert_eq!(old.count(), 0);
}

#[test]
fn the_log_goes_to_the_configured_file() {
    let scratch = Scratch::new();
    let (log, port) = (scratch.path("log"), Reserved::new().unwrap());
    let daemon = daemon().port(port.port()).args(&["-L", &log]).spawn();
    let plugin = wait_listening(port.addr());
    eventually("the log has a line", || scratch.read("log").contains(plugin.pid()).then_some(()));
    assert_eq!(daemon.log_text(), "", "log lines on standard error");
}

#[test]
fn debug_logs_more() {
    let talk = |daemon: &Daemon| {
        let device = Device::start(Kind::Manual);
        let mut plugin = daemon.plugin();
        plugin.conn(device.addr(), "");
        accepted(&device).write_all(b"x").unwrap();
        assert_eq!(plugin.rest(), b"x");
        daemon.wait_for_log(LIMIT, |line| line.contains("closed"));
        daemon.log_lines().iter().filter(|line| line.contains("DEBUG")).count()
    };
    assert_eq!(talk(&daemon().start()), 0);
    assert!(talk(&daemon().arg("-D").start()) > 0);
    assert!(talk(&daemon().config("[host]\ndebug\n").start()) > 0);
}

#[test]
fn an_address_in_use_is_an_error_of_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let error = |run: Run| {
        assert_eq!(run.status, Some(2), "{run:?}");
        let last = run.err.lines().last().unwrap_or_default().to_owned();
        assert!(last.starts_with("sockproxyd: ") && last.contains(&port) && last.contains("in use"), "{run:?}");
    };
    error(run(&["-a", "127.0.0.1", "-p", &port]));
    error(run(&["-a", "127.0.0.1", "-p", &port, "--supervise"]));
    let scratch = Scratch::new();
    // With the log in a file the error also appears on standard error.
    let log = scratch.path("log");
    let run = run(&["-a", "127.0.0.1", "-p", &port, "-L", &log]);
    assert!(scratch.read("log").contains("in use"), "{run:?}");
    error(run);
}

#[test]
fn an_address_of_another_machine_is_an_error() {
    assert!(refused(&["-a", "192.0.2.77", "-p", "0"]).len() > 10);
}

#[test]
fn an_unwritable_log_goes_to_standard_error() {
    let scratch = Scratch::new();
    let path = scratch.path("stick/log");
    for log in [&path, &scratch.path("")] {
        let daemon = daemon().args(&["-L", log]).start();
        let line = daemon.wait_for_log(LIMIT, |line| line.contains("WARN"));
        assert!(line.contains(log) && line.contains("standard error"), "{line}");
        let plugin = daemon.plugin();
        daemon.wait_for_log(LIMIT, |line| line.contains(plugin.pid()));
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let run = run(&["-a", "127.0.0.1", "-p", &taken.local_addr().unwrap().port().to_string(), "-L", &path]);
    assert_eq!((run.status, run.err.lines().count()), (Some(2), 2), "a warning, and one line of error: {run:?}");

    // After the folder has appeared, HUP opens the log.
    let daemon = daemon().args(&["-L", &path]).start();
    std::fs::create_dir(scratch.path("stick")).unwrap();
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    eventually("the log file exists", || scratch.read("stick/log").contains("read anew").then_some(()));
}

#[test]
fn a_probe_reports_whether_the_proxy_answers() {
    let probe = |args: &[&str]| run(&[args, &["--probe"]].concat());
    let daemon = daemon().start();
    let port = daemon.port().to_string();
    for address in ["127.0.0.1", "*", "0.0.0.0", "localhost"] {
        let run = probe(&["-a", address, "-p", &port]);
        assert_eq!((run.status, run.err.as_str(), run.out.as_str()), (Some(0), "", ""), "{address}");
    }
    let scratch = Scratch::new();
    let file = scratch.write("proxy.cf", format!("[host]\nip=127.0.0.1\nport={port}\n"));
    assert_eq!(probe(&["-c", &file]).status, Some(0));
    assert_eq!(probe(&["-c", &scratch.path("missing.cf")]).status, Some(2));

    let failed = |address: &str, why: &str| {
        let (host, port) = address.rsplit_once(':').unwrap();
        let run = probe(&["-a", host, "-p", port]);
        let one_line = run.err.lines().count() == 1 && run.err.starts_with("sockproxyd: ") && run.err.contains(why);
        assert!(run.status == Some(1) && one_line, "{why}: {run:?}");
    };
    failed(&Reserved::new().unwrap().addr().to_string(), "refused");
    // A proxy that hangs: the kernel accepts for it.
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    failed(&hangs.local_addr().unwrap().to_string(), "timeout");
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let server = std::thread::spawn(move || other.accept().unwrap().0.write_all(b"220 mail\r\n").unwrap());
    failed(&address, "220 mail");
    server.join().unwrap();
}

/// Starts a probe of `port` with a timeout of `seconds`.
fn start_probe(port: u16, seconds: u32) -> Child {
    let port = port.to_string();
    let mut command = command(&["-a", "127.0.0.1", "-p", &port, &format!("--probe={seconds}")]);
    command.stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for a probe; returns its status and output.
fn finish_probe(probe: Child) -> (Option<i32>, String) {
    let output = probe.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

const GREETED: (Option<i32>, String) = (Some(0), String::new());

#[test]
fn a_probe_with_a_timeout_retries_until_the_proxy_answers() {
    let running = daemon().start();
    assert_eq!(finish_probe(start_probe(running.port(), 2)), GREETED);

    // At first the port is closed.
    let later = Reserved::new().unwrap();
    let probe = start_probe(later.port(), 60);
    let _daemon = daemon().port(later.port()).start();
    assert_eq!(finish_probe(probe), GREETED);

    // At first another server has the port. It sends something or hangs, and closes the port after the first probe.
    for says in ["220 mail\r\n", ""] {
        let taken = Reserved::new().unwrap();
        let other_server = taken.listen().unwrap();
        let probe = start_probe(taken.port(), 60);
        let mut asked = other_server.accept().unwrap().0;
        asked.write_all(says.as_bytes()).unwrap();
        drop(other_server);
        let _daemon = daemon().port(taken.port()).start();
        assert_eq!(finish_probe(probe), GREETED, "{says:?}");
    }
}

#[test]
fn a_probe_with_a_timeout_gives_up_in_time() {
    let closed = Reserved::new().unwrap();
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let ports = [closed.port(), hangs.local_addr().unwrap().port(), other.local_addr().unwrap().port()];
    let asked = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&asked);
    std::thread::spawn(move || {
        for caller in other.incoming() {
            counted.fetch_add(1, Ordering::Relaxed);
            let _ = caller.unwrap().write_all(b"220 mail\r\n");
        }
    });
    let began = Instant::now();
    let probes = ports.map(|port| start_probe(port, 2));
    for (probe, why) in probes.into_iter().zip(["refused", "timeout", "220 mail"]) {
        let (status, output) = finish_probe(probe);
        let one_line = output.lines().count() == 1 && output.starts_with("sockproxyd: ") && output.contains(why);
        assert!(status == Some(1) && one_line, "{why}: {status:?} {output}");
    }
    // The last pause may shorten it a little.
    assert!(began.elapsed() >= Duration::from_millis(1700), "{:?}", began.elapsed());
    assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());
    assert!(asked.load(Ordering::Relaxed) > 1, "no second attempt");
}

#[test]
fn a_port_can_be_bound_again_at_once() {
    let port = Reserved::new().unwrap();
    for _ in 0..5 {
        let daemon = daemon().port(port.port()).start();
        let (mut plugin, remote): (Plugin, _) = echo_mode(&daemon, "");
        // The daemon closes first, so its side is in TIME_WAIT.
        drop(daemon);
        assert!(plugin.at_end() && crate::support::ends(&remote));
    }
}
