//! STAT's table with the columns of the original daemon, and STAT JSON.

use std::io::{Read, Write};

use serde_json::json;
use testkit::daemon::Daemon;
use testkit::device::{Device, Kind, UdpEcho};
use testkit::plugin::Plugin;
use testkit::ports::BlackHole;
use testkit::websocket::Server;

use crate::support::{LIMIT, PID, StatClient, accepted, echo_mode, eventually, started, with_luup, wss_connected};

const HEADER: &str = " ID       St Idle |Uptim Client           Remote                 #recv  #xmit Notify";

/// STAT's table without its header, requested by `plugin`.
#[track_caller]
fn table(plugin: &mut Plugin) -> Vec<String> {
    // The reply to the second command marks the end of the table.
    plugin.send(b"STAT\nBLKS 1\n");
    assert_eq!(plugin.line(), HEADER);
    std::iter::from_fn(|| Some(plugin.line()).filter(|line| line != "OK BLKS")).collect()
}

/// The row of a pid.
#[track_caller]
fn row(daemon: &Daemon, pid: &str) -> String {
    let rows = table(&mut daemon.plugin());
    rows.iter().find(|row| row[1..].starts_with(pid)).unwrap_or_else(|| panic!("no {pid} in {rows:#?}")).clone()
}

/// `row` with `MMmSS` in place of its times.
fn without_times(row: &str) -> String {
    let mut row = row.to_owned();
    for at in [13, 19] {
        let time = &row[at..at + 5];
        let digits = time.bytes().filter(u8::is_ascii_digit).count();
        assert!(digits == 4 && time.as_bytes()[2] == b'm', "{time:?} is no time in {row:?}");
        row.replace_range(at..at + 5, "MMmSS");
    }
    row
}

#[track_caller]
fn assert_row(row: &str, mark: char, pid: &str, state: u8, remote: &str, counts: (u64, u64), notify: &str) {
    let (recv, xmit) = counts;
    let expected =
        format!("{mark}{pid:<8} {state:<2} MMmSS|MMmSS {:<16} {remote:<21} {recv:>6} {xmit:>6} {notify}", "127.0.0.1");
    assert_eq!(without_times(row), expected);
}

#[test]
fn a_connection_in_setup_mode_byte_for_byte() {
    let daemon = started();
    let (mut asker, other) = (daemon.plugin(), daemon.plugin());
    let rows = table(&mut asker);
    assert_eq!(rows.len(), 2, "{rows:#?}");
    assert_row(&rows[0], '*', asker.pid(), 1, "", (0, 0), "");
    assert_row(&rows[1], ' ', other.pid(), 1, "", (0, 0), "");
    assert_eq!(rows[0].matches("00m0").count(), 2, "both times are below ten seconds: {}", rows[0]);
}

#[test]
fn a_connection_in_echo_mode_byte_for_byte() {
    let daemon = started();
    let device = Device::start(Kind::Manual);
    let mut plugin = daemon.plugin();
    plugin.conn(device.addr(), "NTFY=659/urn:toggledbits-com:serviceId:HTDLC1/HandleReceive/0");
    let mut remote = accepted(&device);
    plugin.send(&[b'x'; 584]);
    remote.read_exact(&mut [0; 584]).unwrap();
    remote.write_all(&[b'y'; 1_234_567]).unwrap();
    plugin.bytes(1_234_567);
    let notify = "659/urn:toggledbits-com:serviceId:HTDLC1/HandleReceive/0";
    let remote = device.addr().to_string();
    assert_row(&row(&daemon, plugin.pid()), ' ', plugin.pid(), 2, &remote, (1_234_567, 584), notify);
}

#[test]
fn the_notify_column() {
    let daemon = started();
    const SERVICE: &str = "urn:toggledbits-com:serviceId:SockProxy1";
    for (option, shown) in [
        ("NTFY=12", format!("12/{SERVICE}/HandleReceiveData/<pid>")),
        ("NTFY=12/s/a", "12/s/a/<pid>".to_owned()),
        ("NTFY=12//a/p", "12//a/p".to_owned()),
        ("NTFY=1.5/s/a/p", "1.5/s/a/p".to_owned()),
        ("NTFY=0/s/a/p", String::new()),
        ("NTFY=-1/s/a/p", String::new()),
        ("", String::new()),
    ] {
        let (plugin, _remote) = echo_mode(&daemon, option);
        let row = row(&daemon, plugin.pid());
        let expected = shown.replace("<pid>", plugin.pid());
        assert_eq!(row.rsplit_once(' ').unwrap().1, expected, "{option}: {row:?}");
    }
}

#[test]
fn connections_are_listed_in_order_of_arrival() {
    let daemon = started();
    let mut plugins: Vec<Plugin> = (0..20).map(|_| daemon.plugin()).collect();
    let rows = table(&mut plugins[7]);
    assert_eq!(rows.len(), plugins.len());
    for (row, plugin) in rows.iter().zip(&plugins) {
        assert_eq!(row[1..].split(' ').next(), Some(plugin.pid()), "{rows:#?}");
    }
    assert!(rows[7].starts_with('*') && rows.iter().filter(|row| row.starts_with('*')).count() == 1, "{rows:#?}");
}

#[test]
fn a_conn_in_progress_is_shown_with_its_target() {
    let daemon = started();
    let hole = BlackHole::new().unwrap();
    let mut plugin = daemon.plugin();
    plugin.send(format!("CONN {} CTIM=600000\n", hole.addr()).as_bytes());
    let remote = hole.addr().to_string();
    let row =
        eventually("the CONN is in progress", || Some(row(&daemon, plugin.pid())).filter(|row| row.contains(&remote)));
    assert_row(&row, ' ', plugin.pid(), 1, &remote, (0, 0), "");
}

#[test]
fn a_name_is_shown_as_the_plugin_wrote_it() {
    let daemon = started();
    let device = Device::start(Kind::Silent);
    let mut plugin = daemon.plugin();
    let target = format!("localhost:{}", device.port());
    plugin.conn(&target, "");
    assert_row(&row(&daemon, plugin.pid()), ' ', plugin.pid(), 2, &target, (0, 0), "");
}

#[test]
fn control_characters_from_a_plugin_do_not_break_the_table() {
    let daemon = started();
    let device = Device::start(Kind::Silent);
    let mut plugin = daemon.plugin();
    plugin.send(format!("CONN {} NTFY=5/a\x0bb/c\x07d/e\x1b[2Jf\n", device.addr()).as_bytes());
    assert!(plugin.line().starts_with("OK CONN "));
    let row = row(&daemon, plugin.pid());
    assert!(row.bytes().all(|byte| byte >= b' '), "{row:?}");
}

#[test]
fn closed_connections_are_not_shown() {
    let daemon = started();
    let mut asker = daemon.plugin();
    let pairs: Vec<_> = (0..5).map(|_| echo_mode(&daemon, "")).collect();
    assert_eq!(table(&mut asker).len(), 6);
    drop(pairs);
    eventually("the connections are closed", || (table(&mut asker).len() == 1).then_some(()));
}

#[test]
fn json_contains_the_table_and_more() {
    let (luup, daemon) = with_luup("[limits]\nconnections=77\nsenders=5\n");
    let (mut plugin, mut remote) = echo_mode(&daemon, "NTFY=5/svc/act/mine");
    plugin.send(b"abc");
    remote.read_exact(&mut [0; 3]).unwrap();
    remote.write_all(b"wxyz!").unwrap();
    assert_eq!(plugin.bytes(5), b"wxyz!");
    luup.wait_for(1, LIMIT);
    let setup = daemon.plugin();
    let mut stat = StatClient::new(daemon.addr());
    stat.wait_notified();
    let status = stat.status();
    assert_eq!(status["version"], "0.1.0");
    assert_eq!(status["protocol"], 1);
    assert!(status["build"].as_u64().unwrap() > 23068);
    assert!(status["uptime"].as_f64().unwrap() > 0.0);
    assert_eq!(status["accepted"], 3);
    assert_eq!(status["refused"], 0);
    let request = &luup.requests()[0];
    let notification = "5".len() + request.path.len() + "?".len() + request.query.len();
    let buffered = status["buffered"].as_u64().unwrap() as usize;
    assert!(buffered > notification, "device and request of the next notification, and what sessions hold");
    assert!(buffered < notification + 1000, "{buffered}");
    assert_eq!((&status["limits"]["connections"], &status["limits"]["senders"]), (&json!(77), &json!(5)));
    assert_eq!(status["listeners"], json!([{"address": daemon.addr().to_string(), "target": null}]));
    let mut notifications = status["notifications"].clone();
    let latency = notifications.as_object_mut().unwrap().remove("latency").and_then(|latency| latency.as_f64());
    assert!(latency.is_some_and(|seconds| seconds > 0.0 && seconds < 60.0), "{status:#}");
    let expected = json!({"sent": 1, "delivered": 1, "failed": 0, "retried": 0, "dropped": 0, "pending": 0});
    assert_eq!(notifications, expected);
    let echo = stat.connection(plugin.pid()).unwrap();
    for (key, value) in [
        ("state", json!("echo")),
        ("client", json!("127.0.0.1")),
        ("target", json!(remote.local_addr().unwrap().to_string())),
        ("protocol", json!("tcp")),
        ("received", json!(5)),
        ("sent", json!(3)),
        ("notify", json!("5/svc/act/mine")),
        ("notification", json!("delivered")),
    ] {
        assert_eq!(echo[key], value, "{key} in {echo:#}");
    }
    assert!(echo["buffered"].as_u64().unwrap() < 500, "the target and the notification's action: {echo:#}");
    assert!(echo["uptime"].as_f64().unwrap() >= echo["idle"].as_f64().unwrap());
    assert_eq!(stat.connection(setup.pid()).unwrap()["state"], "setup");
}

#[test]
fn json_shows_the_last_ends_without_secrets() {
    let daemon = started();
    let mut stat = StatClient::new(daemon.addr());
    assert_eq!(stat.status()["ended"], json!([]));
    let end = |stat: &mut StatClient, plugin: Plugin| {
        let pid = plugin.pid().to_owned();
        drop(plugin);
        stat.wait_ended(&pid);
        pid
    };
    let mut pids: Vec<String> = Vec::new();
    for _ in 0..32 {
        let (plugin, remote) = echo_mode(&daemon, "");
        drop(remote);
        pids.insert(0, end(&mut stat, plugin));
    }
    let server = Server::echo();
    let mut plugin = daemon.plugin();
    plugin.conn(server.url("/path?token=secret"), &format!("KEEP=300 AUTH=user:secret NTFY=5/s/a/{PID}"));
    plugin.send(b"CLOS 1000 0\n");
    pids.insert(0, end(&mut stat, plugin));
    let ended = stat.status()["ended"].take();
    let shown: Vec<&str> = ended.as_array().unwrap().iter().map(|end| end["id"].as_str().unwrap()).collect();
    assert_eq!(shown, pids[..32], "32, the last one first");
    let last = &ended[0];
    assert_eq!((&last["target"], &last["protocol"]), (&json!(server.url("/path")), &json!("ws")), "{last}");
    assert_eq!(last["reason"], "plugin closed the connection");
    assert!(last["ago"].as_f64().unwrap() < ended[31]["ago"].as_f64().unwrap(), "{ended}");
    for secret in ["secret", PID, &PID[..4]] {
        assert!(!ended.to_string().contains(secret), "{secret} in {ended}");
    }
}

#[test]
fn json_and_the_log_show_how_long_each_step_of_connecting_has_taken() {
    let daemon = started();
    let mut stat = StatClient::new(daemon.addr());
    let (setup, (tcp, remote), (secure, peer)) =
        (daemon.plugin(), echo_mode(&daemon, ""), wss_connected(&daemon, "VRFY=none"));
    let nothing = json!({"name": null, "connect": null, "tls": null, "upgrade": null});
    assert_eq!(stat.connection(setup.pid()).unwrap()["times"], nothing);
    let times = |connection: &serde_json::Value| {
        ["name", "connect", "tls", "upgrade"]
            .map(|step| connection["times"][step].as_f64().is_some_and(|time| time < 30.0))
    };
    assert_eq!(times(&stat.connection(tcp.pid()).unwrap()), [false, true, false, false]);
    let shown = stat.connection(secure.pid()).unwrap();
    assert_eq!(times(&shown)[1..], [true; 3], "{shown:#}");
    let pids = [tcp.pid(), secure.pid()].map(str::to_owned);
    drop((tcp, remote, secure, peer));
    for (pid, steps) in pids.iter().zip([&["connect"][..], &["connect", "tls", "upgrade"]]) {
        let end = stat.wait_ended(pid);
        daemon.wait_for_log(LIMIT, |line| {
            let mut words = line.split(&[';', ',']).map(|part| part.trim().split(' ').next().unwrap_or_default());
            line.contains(&format!("{pid} closed: ")) && steps.iter().all(|step| words.any(|word| word == *step))
        });
        assert!(times(&end)[1], "{end}");
        assert_eq!(times(&end)[2..], [steps.len() > 1; 2], "{end}");
    }
}

#[test]
fn json_shows_udp() {
    let daemon = started();
    let device = UdpEcho::start();
    let mut plugin = daemon.plugin();
    plugin.conn(device.addr(), "PRTO=udp");
    plugin.send(b"1234");
    assert_eq!(plugin.bytes(4), b"1234");
    let shown = StatClient::new(daemon.addr()).connection(plugin.pid()).unwrap();
    assert_eq!((&shown["protocol"], &shown["received"], &shown["sent"]), (&json!("udp"), &json!(4), &json!(4)));
}

#[test]
fn json_is_valid_with_any_bytes_from_plugins() {
    let daemon = started();
    let device = Device::start(Kind::Silent);
    let mut plugin = daemon.plugin();
    plugin.send(&[format!("CONN {} NTFY=5/", device.addr()).as_bytes(), b"\"\\\x01\xff\xfe/{}[],:/\"\n"].concat());
    assert!(plugin.line().starts_with("OK CONN "));
    assert!(StatClient::new(daemon.addr()).connection(plugin.pid()).is_some());
}

#[test]
fn a_table_of_500_connections_is_complete() {
    let daemon = started();
    let mut plugins: Vec<Plugin> = (0..500).map(|_| daemon.plugin()).collect();
    let rows = table(&mut plugins[0]);
    assert_eq!(rows.len(), plugins.len());
}
