//! The command line: options in their order, what is printed, errors and their exit status.

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

/// A run that must be refused: status 2, nothing on standard output, one line that names the program.
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
    for option in
        ["-c", "-a", "-p", "-L", "-N", "-V", "-D", "-t", "-h", "--version", "--probe", "--supervise", "--sample-config"]
    {
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
fn errors_of_a_file_name_it_and_the_line() {
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
fn a_file_that_cannot_be_read_is_refused() {
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

#[test]
fn the_sample_configuration_can_be_loaded_as_it_is_and_with_every_key_uncommented() {
    let scratch = Scratch::new();
    let sample = printed(&["--sample-config"]);
    let path = scratch.write("sample.cf", &sample);
    assert_eq!(run(&["-t", "-c", &path]).status, Some(0));
    // Keys stand behind a semicolon and one blank, text behind more.
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
fn what_comes_later_holds() {
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
fn both_letters_say_where_luup_is() {
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
fn the_log_goes_where_it_is_told() {
    let scratch = Scratch::new();
    let (log, port) = (scratch.path("log"), Reserved::new().unwrap());
    let daemon = daemon().port(port.port()).args(&["-L", &log]).spawn();
    let plugin = wait_listening(port.addr());
    assert!(scratch.read("log").contains(plugin.pid()), "{}", scratch.read("log"));
    assert_eq!(daemon.log_text(), "", "and nowhere else");
}

#[test]
fn debug_says_more() {
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
fn an_address_that_is_taken_is_an_error_of_one_line() {
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
    let file = scratch.write("direct.cf", format!("[direct]\n{port}=CONN 127.0.0.1:1\n"));
    error(run(&["-a", "127.0.0.1", "-p", "0", "-c", &file]));
    // With the log elsewhere the error is still said here.
    let log = scratch.path("log");
    let run = run(&["-a", "127.0.0.1", "-p", &port, "-L", &log]);
    assert!(scratch.read("log").contains("in use"), "{run:?}");
    error(run);
}

#[test]
fn an_address_that_is_not_here_is_an_error() {
    assert!(refused(&["-a", "192.0.2.77", "-p", "0"]).len() > 10);
}

#[test]
fn where_the_log_cannot_be_written_standard_error_gets_it() {
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

    // When the stick is there, HUP is enough.
    let daemon = daemon().args(&["-L", &path]).start();
    std::fs::create_dir(scratch.path("stick")).unwrap();
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    eventually("it is there", || scratch.read("stick/log").contains("read anew").then_some(()));
}

#[test]
fn a_probe_asks_whether_the_proxy_is_there() {
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
    // The kernel accepts for one that hangs.
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    failed(&hangs.local_addr().unwrap().to_string(), "timeout");
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let server = std::thread::spawn(move || other.accept().unwrap().0.write_all(b"220 mail\r\n").unwrap());
    failed(&address, "220 mail");
    server.join().unwrap();
}

/// A probe of that port that is under way, with so many seconds.
fn asking(port: u16, seconds: u32) -> Child {
    let port = port.to_string();
    let mut command = command(&["-a", "127.0.0.1", "-p", &port, &format!("--probe={seconds}")]);
    command.stderr(Stdio::piped()).spawn().unwrap()
}

/// What a probe came to: its status, and what it says.
fn answer(asking: Child) -> (Option<i32>, String) {
    let output = asking.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

const GREETED: (Option<i32>, String) = (Some(0), String::new());

#[test]
fn a_patient_probe_asks_until_the_proxy_is_there() {
    let there = daemon().start();
    assert_eq!(answer(asking(there.port(), 2)), GREETED);

    // Nobody is there at first.
    let later = Reserved::new().unwrap();
    let probe = asking(later.port(), 60);
    let _daemon = daemon().port(later.port()).start();
    assert_eq!(answer(probe), GREETED);

    // Somebody else is, who says something or hangs, and makes way when he has been asked.
    for says in ["220 mail\r\n", ""] {
        let taken = Reserved::new().unwrap();
        let stranger = taken.listen().unwrap();
        let probe = asking(taken.port(), 60);
        let mut asked = stranger.accept().unwrap().0;
        asked.write_all(says.as_bytes()).unwrap();
        drop(stranger);
        let _daemon = daemon().port(taken.port()).start();
        assert_eq!(answer(probe), GREETED, "{says:?}");
    }
}

#[test]
fn a_patient_probe_gives_up_when_its_seconds_have_passed() {
    let nobody = Reserved::new().unwrap();
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let ports = [nobody.port(), hangs.local_addr().unwrap().port(), other.local_addr().unwrap().port()];
    let asked = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&asked);
    std::thread::spawn(move || {
        for caller in other.incoming() {
            counted.fetch_add(1, Ordering::Relaxed);
            let _ = caller.unwrap().write_all(b"220 mail\r\n");
        }
    });
    let began = Instant::now();
    let probes = ports.map(|port| asking(port, 2));
    for (probe, why) in probes.into_iter().zip(["refused", "timeout", "220 mail"]) {
        let (status, said) = answer(probe);
        let one_line = said.lines().count() == 1 && said.starts_with("sockproxyd: ") && said.contains(why);
        assert!(status == Some(1) && one_line, "{why}: {status:?} {said}");
    }
    // The last pause may end it a little earlier.
    assert!(began.elapsed() >= Duration::from_millis(1700), "{:?}", began.elapsed());
    assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());
    assert!(asked.load(Ordering::Relaxed) > 1, "it did not ask again");
}

#[test]
fn a_port_is_free_again_at_once() {
    let port = Reserved::new().unwrap();
    for _ in 0..5 {
        let daemon = daemon().port(port.port()).start();
        let (mut plugin, remote): (Plugin, _) = echo_mode(&daemon, "");
        // The daemon closes first: its side lingers.
        drop(daemon);
        assert!(plugin.at_end() && crate::support::ends(&remote));
    }
}
