//! `sockproxyd --status`, and the formats of STAT that it asks for.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use testkit::daemon::Daemon;

use crate::support::{command, echo_mode, run, started};

fn arguments(daemon: &Daemon, more: &[&'static str]) -> Vec<String> {
    let mut arguments = vec!["-a".into(), "127.0.0.1".into(), "-p".into(), daemon.port().to_string()];
    arguments.extend(more.iter().map(|&argument| argument.to_owned()));
    arguments
}

/// What the program prints with these arguments.
#[track_caller]
fn printed(daemon: &Daemon, more: &[&'static str]) -> String {
    let arguments = arguments(daemon, more);
    let run = run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!((run.status, &*run.err), (Some(0), ""), "{}", run.out);
    run.out
}

#[test]
fn each_format_shows_the_connections() {
    let daemon = started();
    let (mut plugin, _remote) = echo_mode(&daemon, "");
    plugin.send(b"12345");
    let target = _remote.local_addr().unwrap().to_string();
    let text = printed(&daemon, &["--status"]);
    assert_eq!(printed(&daemon, &["--status=text"]).lines().count(), text.lines().count());
    assert!(text.lines().any(|line| line.starts_with(plugin.pid()) && line.ends_with(&target)), "{text}");
    assert!(!text.contains('\x1b'), "colour is for terminals\n{text}");
    let json: serde_json::Value = serde_json::from_str(&printed(&daemon, &["--status=json"])).unwrap();
    let ids: Vec<&str> =
        json["connections"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert!(ids.contains(&plugin.pid()), "{ids:?}");
    let metrics = printed(&daemon, &["--status=prometheus"]);
    let labels = format!("{{id=\"{}\",target=\"{target}\",protocol=\"tcp\"}}", plugin.pid());
    assert!(metrics.contains(&format!("\nsockproxyd_connection_sent_bytes_total{labels} 5\n")), "{metrics}");
    assert!(metrics.contains("\nsockproxyd_connections{state=\"echo\"} 1\n"), "{metrics}");
}

#[test]
fn watch_prints_the_status_again_on_one_connection() {
    let daemon = started();
    let arguments = arguments(&daemon, &["--status=json", "--watch"]);
    let mut command = command(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines: Vec<String> =
        BufReader::new(child.stdout.take().unwrap()).lines().take(2).map(|line| line.unwrap()).collect();
    let id = |line: &str| {
        let status: serde_json::Value = serde_json::from_str(line).unwrap();
        status["connections"][0]["id"].as_str().unwrap().to_owned()
    };
    assert_eq!(id(&lines[0]), id(&lines[1]));
    // Its reader has gone: the next print ends it, which is no error.
    assert!(child.wait().unwrap().success());
}

#[test]
fn what_is_no_proxy_is_an_error_of_one_line() {
    let closed = testkit::ports::Reserved::new().unwrap();
    let run = run(&["-a", "127.0.0.1", "-p", &closed.port().to_string(), "--status"]);
    assert_eq!(run.status, Some(1));
    assert!(
        run.err.starts_with("sockproxyd: no greeting from 127.0.0.1:") && run.err.lines().count() == 1,
        "{}",
        run.err
    );
}
