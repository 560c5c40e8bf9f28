//! Notification requests: their exact bytes, and the events that cause them.

use std::io::Write;
use std::time::{Duration, Instant};

use testkit::device::{Device, Kind};
use testkit::luup::{Behaviour, Luup, Request};
use testkit::plugin::Plugin;
use testkit::ports::Reserved;

use crate::support::{LIMIT, StatClient, daemon, echo_mode, with_luup};

/// The requests with this pid.
fn of<'a>(requests: &'a [Request], pid: &str) -> Vec<&'a Request> {
    requests.iter().filter(|request| request.pid() == pid).collect()
}

/// Waits for the next request, which must be the only one.
#[track_caller]
fn only_request(luup: &Luup) -> Request {
    let mut requests = luup.wait_for(1, LIMIT);
    assert_eq!(requests.len(), 1, "{requests:#?}");
    luup.clear_requests();
    requests.remove(0)
}

#[test]
fn the_request_equals_that_of_the_original_daemon() {
    let (luup, daemon) = with_luup("");
    let (mut plugin, mut remote) =
        echo_mode(&daemon, "NTFY=123/urn:example-com:serviceId:Example1/HandleReceive/1716057f6c0");
    remote.write_all(b"x").unwrap();
    let request = only_request(&luup);
    let head = String::from_utf8(request.head.clone()).unwrap();
    let line = head.lines().next().unwrap();
    assert_eq!(
        line,
        "GET /data_request?id=action&output_format=json&DeviceNum=123\
         &serviceId=urn%3aexample-com%3aserviceId%3aExample1&action=HandleReceive&Pid=1716057f6c0 HTTP/1.1"
    );
    assert_eq!(request.header("User-Agent"), Some("sockproxyd-1"));
    assert_eq!(request.header("Host"), Some(&*format!("127.0.0.1:{}", luup.port())));
    assert_eq!(request.header("Connection").map(str::to_ascii_lowercase).as_deref(), Some("close"));
    assert!(head.ends_with("\r\n\r\n") && request.header("Content-Length").is_none(), "{head:?}");
    assert_eq!(plugin.bytes(1), b"x");
}

#[test]
fn the_greetings_pid_is_sent_if_the_plugin_gives_none() {
    let (luup, daemon) = with_luup("");
    for options in ["NTFY=7/s/a", "NTFY=7/s/a/"] {
        let (plugin, remote) = echo_mode(&daemon, options);
        drop(remote);
        assert_eq!(only_request(&luup).pid(), plugin.pid());
    }
}

#[test]
fn missing_parts_have_defaults_and_empty_parts_stay_empty() {
    let (luup, daemon) = with_luup("");
    const SERVICE: &str = "urn:toggledbits-com:serviceId:SockProxy1";
    const ACTION: &str = "HandleReceiveData";
    for (option, service, action) in [
        ("NTFY=12", SERVICE, ACTION),
        ("NTFY=12/svc", "svc", ACTION),
        ("NTFY=12/svc/act", "svc", "act"),
        ("NTFY=12//act", "", "act"),
    ] {
        let (_plugin, remote) = echo_mode(&daemon, option);
        drop(remote);
        let request = only_request(&luup);
        assert_eq!((request.device(), request.service(), request.action()), (Some(12), service, action), "{option}");
    }
}

#[test]
fn the_command_is_equivalent_to_the_option() {
    let (luup, daemon) = with_luup("");
    for (command, query) in [
        ("NTFY 12 svc act pid", "DeviceNum=12&serviceId=svc&action=act&Pid=pid"),
        ("NTFY 12 a/b c:d e/f", "DeviceNum=12&serviceId=a%2fb&action=c%3ad&Pid=e%2ff"),
        ("NTFY 12 svc act pid more words", "DeviceNum=12&serviceId=svc&action=act&Pid=pid"),
    ] {
        let mut plugin = daemon.plugin();
        assert_eq!(plugin.command(command), "OK NTFY");
        assert_eq!(plugin.command("QUIT"), "OK QUIT");
        assert_eq!(only_request(&luup).query, format!("id=action&output_format=json&{query}"));
    }
}

#[test]
fn all_but_unreserved_characters_are_percent_encoded_in_lower_case() {
    let (luup, daemon) = with_luup("");
    let kept = "ABCXYZabcxyz0189_.~-";
    let mut given = kept.as_bytes().to_vec();
    let mut expected = kept.to_owned();
    // Blanks, slashes and line ends are separators; every other byte is allowed.
    for byte in (1..=255u8).filter(|byte| !kept.as_bytes().contains(byte)) {
        if !byte.is_ascii_alphanumeric() && !b" \t\n\r\x0b\x0c/".contains(&byte) {
            given.push(byte);
            expected.push_str(&format!("%{byte:02x}"));
        }
    }
    let mut plugin = daemon.plugin();
    let closed = Reserved::new().unwrap();
    let parts = [&b"5"[..], &given, &given, &given].join(&b'/');
    plugin.send(&[format!("CONN {} NTFY=", closed.addr()).as_bytes(), &parts, b"\n"].concat());
    assert_eq!(plugin.line(), "ERR CONN connection refused");
    let request = only_request(&luup);
    let common = "id=action&output_format=json&DeviceNum=5";
    assert_eq!(request.query, format!("{common}&serviceId={expected}&action={expected}&Pid={expected}"));
}

#[test]
fn device_numbers_are_formatted_as_in_lua() {
    let (luup, daemon) = with_luup("");
    for (given, formatted) in
        [("12", "12"), ("0x10", "16"), ("1e3", "1000"), ("1.5", "1.5"), ("1e17", "1e+17"), ("0", "0")]
    {
        let (_plugin, remote) = echo_mode(&daemon, &format!("NTFY={given}/s/a/p"));
        drop(remote);
        assert_eq!(only_request(&luup).param("DeviceNum"), Some(formatted), "{given}");
    }
}

#[test]
fn luups_url_can_have_a_path_and_a_final_slash() {
    let luup = Luup::start();
    for (base, path) in
        [("/", "/data_request"), ("/port_3480", "/port_3480/data_request"), ("/a/b/", "/a/b/data_request")]
    {
        let daemon = daemon().luup(&format!("{}{base}", luup.url())).start();
        let (_plugin, remote) = echo_mode(&daemon, "NTFY=1/s/a/p");
        drop(remote);
        assert_eq!(only_request(&luup).path, path);
    }
}

#[test]
fn data_is_readable_when_its_notification_arrives() {
    let (luup, daemon) = with_luup("");
    let (mut plugin, mut remote) = echo_mode(&daemon, "NTFY=5/s/a");
    for _ in 0..50 {
        remote.write_all(b"news").unwrap();
        only_request(&luup);
        assert!(!plugin.is_quiet(), "a notification without readable data");
        assert_eq!(plugin.bytes(4), b"news");
    }
}

#[test]
fn a_datagram_is_notified() {
    let (luup, daemon) = with_luup("");
    let device = testkit::device::UdpEcho::start();
    let mut plugin = daemon.plugin();
    plugin.conn(device.addr(), "PRTO=udp NTFY=5/s/a/udp EVNT=on");
    assert_eq!(only_request(&luup).event(), Some("connected"));
    plugin.send(b"hello");
    assert_eq!(only_request(&luup).event(), Some("data"));
    assert_eq!(plugin.bytes(5), b"hello");
    drop(plugin);
    assert_eq!(only_request(&luup).event(), Some("closed"));
}

#[test]
fn bytes_from_the_plugin_cause_no_notification() {
    let (luup, daemon) = with_luup("");
    let (mut plugin, mut remote) = echo_mode(&daemon, "NTFY=5/s/a EVNT=on");
    assert_eq!(only_request(&luup).event(), Some("connected"));
    plugin.send(b"I am the plugin");
    std::io::Read::read_exact(&mut remote, &mut [0; 15]).unwrap();
    drop(remote);
    assert_eq!(only_request(&luup).event(), Some("closed"));
}

/// Each way to end a connection causes exactly one closing notice.
#[test]
fn every_end_is_notified_once() {
    let (luup, daemon) = with_luup("[limits]\nsetup=1\nhalfclose=1\n");
    // An action for each end: the proxy holds back the ends of short-lived connections of the same action.
    let actions = std::cell::Cell::new(0);
    let action = || {
        actions.set(actions.get() + 1);
        format!("a{}", actions.get())
    };
    let echo = |options: &str| echo_mode(&daemon, &format!("NTFY=5/s/{}/p EVNT=on {options}", action()));
    let setup = || {
        let mut plugin = daemon.plugin();
        assert_eq!(plugin.command(&format!("NTFY 5 s {} p", action())), "OK NTFY");
        plugin
    };
    let closed = Reserved::new().unwrap();
    type End<'a> = &'a dyn Fn() -> Option<Plugin>;
    let ends: [(&str, bool, End<'_>); 10] = [
        ("the remote ends", true, &|| Some(echo("").0)),
        ("the plugin closes", true, &|| {
            let (plugin, remote) = echo("");
            drop(plugin);
            assert!(crate::support::ends(&remote));
            None
        }),
        ("the plugin resets", true, &|| {
            let (plugin, remote) = echo("");
            plugin.reset();
            assert!(crate::support::ends(&remote));
            None
        }),
        ("the remote resets", true, &|| {
            let (plugin, remote) = echo("");
            testkit::device::reset(&remote);
            Some(plugin)
        }),
        ("the remote is silent", true, &|| {
            let (mut plugin, _remote) = echo("RTIM=300");
            assert!(plugin.at_end());
            Some(plugin)
        }),
        ("QUIT after NTFY", false, &|| {
            let mut plugin = setup();
            assert_eq!(plugin.command("QUIT"), "OK QUIT");
            None
        }),
        ("the plugin closes after NTFY", false, &|| {
            drop(setup());
            None
        }),
        ("silence after NTFY", false, &|| {
            assert!(setup().at_end());
            None
        }),
        ("an invalid command after NTFY", false, &|| {
            assert_eq!(setup().command("what?"), "ERR INVALID COMMAND");
            None
        }),
        ("a failed CONN", false, &|| {
            let mut plugin = daemon.plugin();
            let answer = plugin.command(&format!("CONN {} NTFY=5/s/{}/p", closed.addr(), action()));
            assert_eq!(answer, "ERR CONN connection refused");
            None
        }),
    ];
    for (why, connected, end) in ends {
        let _plugin = end();
        let count = if connected { 2 } else { 1 };
        let requests = luup.wait_for(count, LIMIT);
        let events: Vec<_> = requests.iter().map(Request::event).collect();
        let expected = if connected { vec![Some("connected"), Some("closed")] } else { vec![None] };
        assert_eq!(events, expected, "{why}");
        // A second notice would arrive before the daemon has removed the connection.
        StatClient::new(daemon.addr()).wait_connections(0);
        StatClient::new(daemon.addr()).wait_notified();
        assert_eq!(luup.count(), count, "{why}");
        luup.clear_requests();
    }
}

/// The device accepts and closes at once, and the plugin reconnects when it is notified: `arduinoWebSockets#807`.
#[test]
fn the_ends_of_short_lived_connections_are_held_back_and_not_lost() {
    let (luup, daemon) = with_luup("");
    let start = Instant::now();
    let connect = |action: &str| drop(echo_mode(&daemon, &format!("NTFY=5/s/{action}")));
    connect("a");
    for (number, earliest) in [(1, 0), (2, 1), (3, 3)] {
        let requests = luup.wait_for(number, LIMIT);
        assert_eq!(requests.len(), number);
        assert!(start.elapsed() >= Duration::from_secs(earliest), "{number} after {:?}", start.elapsed());
        connect("a");
    }
    connect("b");
    assert_eq!(luup.wait_for(4, Duration::from_secs(4))[3].action(), "b", "another action does not wait");
    assert_eq!(luup.wait_for(5, LIMIT).len(), 5);
    assert!(start.elapsed() >= Duration::from_secs(7));
}

#[test]
fn parts_of_ntfy_that_are_too_long_are_refused() {
    let (luup, daemon) = with_luup("");
    let closed = Reserved::new().unwrap();
    let long = "x".repeat(1024);
    for (line, answer) in [
        (format!("NTFY 5 s a {long}"), "ERR NTFY Invalid length"),
        (format!("CONN {} NTFY=5/s/a/{long}", closed.addr()), "ERR CONN Invalid option NTFY"),
    ] {
        let mut plugin = daemon.plugin();
        assert_eq!(plugin.command(&line), answer);
        assert!(plugin.at_end());
    }
    let mut plugin = daemon.plugin();
    assert_eq!(plugin.command(&format!("NTFY 5 s a {}", &long[3..])), "OK NTFY");
    assert_eq!(plugin.command("QUIT"), "OK QUIT");
    assert_eq!(luup.wait_for(1, LIMIT).len(), 1);
}

#[test]
fn the_end_is_notified_as_soon_as_the_plugin_can_read_it() {
    let (luup, daemon) = with_luup("[limits]\nhalfclose=3600\n");
    let (mut plugin, remote) = echo_mode(&daemon, "NTFY=5/s/a/p EVNT=on");
    assert_eq!(only_request(&luup).event(), Some("connected"));
    remote.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(only_request(&luup).event(), Some("closed"));
    assert!(plugin.at_end());
}

#[test]
fn stop_and_sigterm_send_closing_notices() {
    for stop in [true, false] {
        let (luup, mut daemon) = with_luup("");
        let pairs: Vec<_> = (0..5).map(|n| echo_mode(&daemon, &format!("NTFY={n}/s/a/p{n}"))).collect();
        if stop {
            assert_eq!(daemon.plugin().command("STOP"), "OK STOP");
        } else {
            daemon.signal(nix::sys::signal::Signal::SIGTERM);
        }
        let requests = luup.wait_for(pairs.len(), LIMIT);
        let mut pids: Vec<_> = requests.iter().map(Request::pid).collect();
        pids.sort_unstable();
        assert_eq!(pids, ["p0", "p1", "p2", "p3", "p4"]);
        assert_eq!(daemon.wait_exit(LIMIT).unwrap().code(), Some(0));
    }
}

#[test]
fn devices_from_0_on_are_notified() {
    let (luup, daemon) = with_luup("");
    let pairs: Vec<_> = ["0/s/a/zero", "-1/s/a/below", "x/s/a/word", "/s/a/empty", "nan/s/a/nan", "-inf/s/a/inf"]
        .iter()
        .map(|ntfy| echo_mode(&daemon, &format!("NTFY={ntfy} EVNT=on")))
        .chain([echo_mode(&daemon, "")])
        .collect();
    for (mut plugin, mut remote) in pairs {
        remote.write_all(b"x").unwrap();
        assert_eq!(plugin.bytes(1), b"x");
    }
    let mut stat = StatClient::new(daemon.addr());
    stat.wait_connections(0);
    stat.wait_notified();
    let requests = luup.requests();
    assert!(!requests.is_empty());
    assert_eq!(of(&requests, "zero").len(), requests.len(), "{requests:#?}");
}

#[test]
fn events_are_sent_only_with_evnt() {
    let (luup, daemon) = with_luup("");
    for options in ["", "EVNT=off", "EVNT=on EVNT=off", "EVNT=OFF"] {
        let (mut plugin, mut remote) = echo_mode(&daemon, &format!("NTFY=5/s/a/p {options}"));
        remote.write_all(b"x").unwrap();
        assert_eq!(only_request(&luup).event(), None, "an event without EVNT");
        assert_eq!(plugin.bytes(1), b"x");
        drop(remote);
        assert_eq!(only_request(&luup).event(), None);
    }
    for options in ["EVNT=on", "EVNT=ON"] {
        let (mut plugin, mut remote) = echo_mode(&daemon, &format!("NTFY=5/s/a/p {options}"));
        let connected = only_request(&luup);
        assert!(connected.query.ends_with("&Pid=p&Event=connected"), "{}", connected.query);
        remote.write_all(b"x").unwrap();
        assert_eq!(only_request(&luup).event(), Some("data"));
        assert_eq!(plugin.bytes(1), b"x");
        drop(plugin);
        assert_eq!(only_request(&luup).event(), Some("closed"));
    }
}

#[test]
fn the_connected_event_follows_ok_conn() {
    let (luup, daemon) = with_luup("");
    let device = Device::start(Kind::Silent);
    let mut plugin = daemon.plugin();
    plugin.send(format!("CONN {} NTFY=5/s/a/p EVNT=on\n", device.addr()).as_bytes());
    assert_eq!(only_request(&luup).event(), Some("connected"));
    assert!(!plugin.is_quiet());
    assert_eq!(plugin.line(), "OK CONN p");
}

#[test]
fn a_burst_during_a_request_causes_one_more() {
    let (luup, daemon) = with_luup("");
    let (mut plugin, mut remote) = echo_mode(&daemon, "NTFY=5/s/a/p");
    luup.push_next(Behaviour::Slow(Duration::from_millis(800)));
    remote.write_all(b"x").unwrap();
    luup.wait_for(1, LIMIT);
    // All events during the first request are notified by one request.
    for _ in 0..20 {
        remote.write_all(b"x").unwrap();
        plugin.bytes(1);
    }
    luup.wait_for(2, LIMIT);
    StatClient::new(daemon.addr()).wait_notified();
    assert_eq!(luup.count(), 2);
    drop(remote);
    luup.wait_for(3, LIMIT);
}

#[test]
fn a_device_has_one_request_at_a_time_and_devices_run_in_parallel() {
    let (luup, daemon) = with_luup("");
    luup.set_behaviour(Behaviour::Slow(Duration::from_millis(100)));
    let pairs: Vec<_> = (0..12).map(|n| echo_mode(&daemon, &format!("NTFY={}/s/a/p{n}", n % 3))).collect();
    for (_, remote) in &pairs {
        (&mut &*remote).write_all(b"x").unwrap();
    }
    let requests = luup.wait_for(pairs.len(), LIMIT);
    assert!((0..3).all(|device| luup.max_concurrent(device) == 1));
    assert!((0..12).all(|n| of(&requests, &format!("p{n}")).len() == 1));
}

#[test]
fn a_notification_takes_less_than_300_ms() {
    let (luup, daemon) = with_luup("");
    let (mut plugin, mut remote) = echo_mode(&daemon, "NTFY=5/s/a/p");
    let mut best = LIMIT;
    for _ in 0..10 {
        let start = Instant::now();
        remote.write_all(b"x").unwrap();
        best = best.min(only_request(&luup).arrival - start);
        plugin.bytes(1);
    }
    assert!(best < Duration::from_millis(300), "the best of ten took {best:?}");
}
