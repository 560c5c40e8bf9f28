//! Why LSTN and ACPT fail, in the words of the replies.

use testkit::daemon::Daemon;
use testkit::device::{Device, Kind};
use testkit::ports::Reserved;

use crate::support::{Listener, accepted_by, configured, eventually, listening, plugin_from, started};

/// The answer to LSTN, after which the proxy closes.
#[track_caller]
fn refused(daemon: &Daemon, arguments: &str) -> String {
    let mut plugin = daemon.plugin();
    let answer = plugin.command(&format!("LSTN {arguments}"));
    assert!(plugin.at_end(), "{answer}");
    answer
}

#[test]
fn lstn_with_bad_arguments() {
    let daemon = started();
    for (arguments, answer) in [
        ("", "ERR LSTN Invalid port"),
        ("0", "ERR LSTN Invalid port"),
        ("65536", "ERR LSTN Invalid port"),
        ("localhost:8080", "ERR LSTN Invalid port"),
        ("8080 x", "ERR LSTN Invalid option x"),
        ("8080 FRAM=LINE", "ERR LSTN Invalid option FRAM=LINE"),
        ("8080 HDRS=X:secret", "ERR LSTN Invalid option HDRS"),
        ("8080 PRTO=udp", "ERR LSTN Invalid protocol udp"),
        ("8080 PATH=/a", "ERR LSTN Invalid option PATH=/a"),
        ("8080 PRTO=ws PATH=a", "ERR LSTN Invalid option PATH=a"),
        ("8080 PRTO=ws AUTH=secret", "ERR LSTN Invalid option AUTH"),
        ("8080 PRTO=ws ORIG=%zz", "ERR LSTN Invalid option ORIG=%zz"),
        ("192.0.2.1:8080", "ERR LSTN Cannot assign requested address"),
    ] {
        assert_eq!(refused(&daemon, arguments), answer, "{arguments}");
    }
}

#[test]
fn lstn_on_a_port_that_is_taken() {
    let daemon = started();
    let device = Device::start(Kind::Silent);
    assert_eq!(refused(&daemon, &device.addr().to_string()), "ERR LSTN address already in use");
    assert_eq!(refused(&daemon, &daemon.port().to_string()), "ERR LSTN address already in use", "the proxy's own");
    let listener = Listener::new(&daemon, "PRTO=ws PATH=/a");
    let port = listener.port();
    assert_eq!(refused(&daemon, &format!("{port} PRTO=tcp")), "ERR LSTN address already in use");
    let _shares = listening(daemon.plugin(), port, "PRTO=ws PATH=/b");
}

#[test]
fn lstn_on_a_privileged_port() {
    if std::net::TcpListener::bind("127.0.0.1:1").is_ok() {
        println!("skipped: this user may have every port");
        return;
    }
    assert_eq!(refused(&started(), "1"), "ERR LSTN permission denied");
}

#[test]
fn lstn_from_an_address_that_may_not_listen() {
    let daemon = configured("[host]\nlisten=127.0.0.2\n");
    let port = Reserved::new().unwrap();
    assert_eq!(refused(&daemon, &port.port().to_string()), "ERR LSTN Not allowed");
    let mut other = plugin_from("127.0.0.2", daemon.addr());
    other.line();
    listening(other, port.port(), "");
}

#[test]
fn a_path_belongs_to_the_address_that_has_it() {
    let daemon = configured("[host]\nlisten=127.0.0.0/8\n");
    let listener = Listener::new(&daemon, "PRTO=ws PATH=/a");
    let mut other = plugin_from("127.0.0.2", daemon.addr());
    other.line();
    assert_eq!(other.command(&format!("LSTN {} PRTO=ws PATH=/a", listener.port())), "ERR LSTN Path in use");
    assert!(other.at_end());
    let mut other = plugin_from("127.0.0.2", daemon.addr());
    other.line();
    listening(other, listener.port(), "PRTO=ws PATH=/b");
}

#[test]
fn an_owner_may_say_only_deny_and_quit() {
    let daemon = started();
    for command in ["STAT", "CONN 127.0.0.1:9", "ACPT 1", "LSTN 8080", "CAPA", "hello"] {
        let mut listener = Listener::new(&daemon, "");
        assert_eq!(listener.owner.command(command), "ERR INVALID COMMAND", "{command}");
        assert!(listener.owner.at_end());
    }
    let mut listener = Listener::new(&daemon, "");
    assert_eq!(listener.owner.command("\n \ndeny 99"), "ERR DENY No such id");
    assert_eq!(listener.owner.command("quit"), "OK QUIT");
}

#[test]
fn acpt_with_bad_options() {
    let daemon = started();
    let mut listener = Listener::new(&daemon, "");
    let (_client, words) = listener.arrival();
    let id = &words[0];
    for (options, why) in [
        ("CTIM=5", "Invalid option CTIM=5"),
        ("PRTO=tcp", "Invalid option PRTO=tcp"),
        ("VRFY=none", "Invalid option VRFY=none"),
        ("AUTH=u:secret", "Invalid option AUTH"),
        ("FRAM=MESG", "Invalid option FRAM=MESG"),
        ("PNGI=5", "Invalid option PNGI=5"),
        ("KEEP=5", "Invalid option KEEP=5: it needs NTFY with a pid of 8 characters or more"),
    ] {
        let mut plugin = daemon.plugin();
        assert_eq!(plugin.command(&format!("ACPT {id} {options}")), format!("ERR ACPT {why}"));
        assert!(plugin.at_end());
    }
    accepted_by(&daemon, id, "BLKS=5 RTIM=0 NTFY=5/s/a PACE=1 EVNT=on");
    for id in ["", "0", "ffffffff", id] {
        assert_eq!(daemon.plugin().command(&format!("ACPT {id}")), "ERR ACPT No such id", "{id}");
    }
}

/// As its other ports: no connection that the configuration or a server has asked for leads back into the proxy.
#[test]
fn a_listeners_port_is_one_of_the_proxys_own() {
    let (direct, port) = (Reserved::new().unwrap(), Reserved::new().unwrap());
    let config = format!("[direct]\n{}=CONN {}\n", direct.port(), port.addr());
    let daemon = crate::support::daemon().config(&config).listeners(2).start();
    let answer = || String::from_utf8(testkit::plugin::Plugin::connect_raw(direct.addr()).unwrap().rest()).unwrap();
    assert_eq!(answer(), "ERR CONN connection refused\n");
    let mut owner = listening(daemon.plugin(), port.port(), "");
    assert_eq!(answer(), "ERR CONN connection to the proxy itself\n");
    assert_eq!(owner.command("QUIT"), "OK QUIT");
    drop(owner);
    eventually("the port is closed", || (answer() == "ERR CONN connection refused\n").then_some(()));
}
