//! The examples of docs/discovery.md, as they stand there: the machine and its network have the addresses of the document.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use testkit::daemon::Daemon;
use testkit::netns::Netns;

use crate::support::{announce, daemon, may_have_networks, member, shared_socket};

const SSDP: &str = "239.255.255.250:1900";
const MDNS: &str = "224.0.0.251:5353";
const COIOT: &str = "224.0.1.187:5683";

const FOUND: &str = "HTTP/1.1 200 OK\r\nST: upnp:rootdevice\r\nLOCATION: http://192.168.1.20/description.xml\r\n\r\n";
const NOTIFY: &str =
    "NOTIFY * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nNTS: ssdp:alive\r\nNT: upnp:rootdevice\r\n\r\n";
/// A packet of CoAP: version 1, non-confirmable, code 0.30, and a path.
const STATE: &[u8] = b"\x50\x1e\x00\x01\xb3cit\x01s\xff{\"G\":[[0,112,1]]}";

/// The machine of the document, its proxy on the port of the document, and the network's device.
fn home() -> Option<(Daemon, Netns, Netns)> {
    if !may_have_networks() {
        return None;
    }
    let (machine, device) = (Netns::new(), Netns::new());
    machine.connect("eth0", "192.168.1.5/24", &device, "eth0", "192.168.1.20/24");
    machine.ip("route add default via 192.168.1.20");
    let daemon = daemon().port(2504).luup("http://127.0.0.1:3480").within(&machine.script()).start();
    Some((daemon, machine, device))
}

/// The sockets of a device: of SSDP, mDNS and broadcasts.
fn sockets(device: &Netns) -> [UdpSocket; 3] {
    let address = "192.168.1.20";
    let sockets =
        [member(device, SSDP, address), member(device, MDNS, address), shared_socket(device, "0.0.0.0:48899")];
    for socket in &sockets {
        socket.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
    }
    sockets
}

/// A device of every kind: it answers, and announces itself all the time, until `stop` is set.
fn serve(device: &Netns, [ssdp, mdns, module]: [UdpSocket; 3], stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        if let Some((question, from)) = receive(&ssdp)
            && question.starts_with(b"M-SEARCH")
        {
            ssdp.send_to(FOUND.as_bytes(), from).unwrap();
        }
        // The answer has the question's name, and says that it is an answer.
        if let Some((mut packet, _)) = receive(&mdns)
            && packet.ends_with(b"\x04_hue\x04_tcp\x05local\0\0\x0c\0\x01")
        {
            packet[2] = 0x84;
            mdns.send_to(&packet, MDNS).unwrap();
        }
        if let Some((question, from)) = receive(&module)
            && question == b"HF-A11ASSISTHREAD"
        {
            module.send_to(b"192.168.1.20,ACCF23456789,HF-LPB100", from).unwrap();
        }
        announce(device, "192.168.1.20:1900", SSDP, NOTIFY.as_bytes());
        announce(device, "192.168.1.20:5683", COIOT, STATE);
    }
}

fn receive(socket: &UdpSocket) -> Option<(Vec<u8>, SocketAddr)> {
    let mut buffer = [0; 2000];
    let (length, from) = socket.recv_from(&mut buffer).ok()?;
    Some((buffer[..length].to_vec(), from))
}

/// Runs `test` while the device serves.
fn with_device(device: &Netns, test: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        /// Ends the device's thread, which the scope waits for, after a panic, too.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        // The first question must find it listening.
        let sockets = sockets(device);
        scope.spawn(|| serve(device, sockets, &stop));
        let _stop = Stop(&stop);
        test();
    });
}

#[test]
fn the_lua_examples_find_the_device() {
    let Some((_daemon, machine, device)) = home() else { return };
    with_device(&device, || {
        for interpreter in ["lua5.1", "lua5.4"] {
            let has_socket = Command::new(interpreter).args(["-e", "require 'socket'"]).output();
            if !has_socket.is_ok_and(|output| output.status.success()) {
                println!("skipped: no {interpreter} with LuaSocket");
                continue;
            }
            let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lua");
            let mut command = machine.command(interpreter);
            let output = command.arg("docs_discovery.lua").current_dir(directory).output().unwrap();
            let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success() && out == "ok\n", "{interpreter}: {out}{err}");
        }
    });
}

#[test]
fn the_command_for_the_shell_shows_the_announcements() {
    if Command::new("nc").arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        println!("skipped: no nc");
        return;
    }
    let Some((_daemon, machine, device)) = home() else { return };
    let document = include_str!("../../../docs/discovery.md");
    let line = document.lines().find_map(|line| line.strip_prefix("    ( echo ")).expect("the command");
    with_device(&device, || {
        let mut shell = machine
            .command("sh")
            .args(["-c", &format!("( echo {line}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(shell.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line == "NOTIFY * HTTP/1.1\r" || line == "NOTIFY * HTTP/1.1"), "no announcement");
        // The end of its input ends cat and nc.
        drop(shell.stdin.take());
        drop(lines);
        shell.kill().unwrap();
        shell.wait().unwrap();
    });
}
