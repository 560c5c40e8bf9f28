//! Shutdown as remotes see it: a close frame with 1001, close_notify.

use std::io::Read;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use testkit::daemon::Daemon;
use testkit::tls::{Identity, TlsDevice};
use testkit::websocket::{CLOSE, Frame, TEXT, close_of};

use crate::support::{
    LIMIT, read_frame, started, wait_until_acknowledged, websocket_connected, with_luup, wss_connected,
};

/// Ends the daemon by signal or by STOP, and waits until it has exited.
#[track_caller]
fn end(daemon: &mut Daemon, by_signal: bool) {
    let start = Instant::now();
    if by_signal {
        daemon.signal(Signal::SIGTERM);
    } else {
        assert_eq!(daemon.plugin().command("STOP"), "OK STOP");
    }
    assert_eq!(daemon.wait_exit(LIMIT).expect("the daemon exits").code(), Some(0));
    // Two seconds, plus time for a loaded machine.
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[test]
fn websockets_are_closed_with_1001() {
    for by_signal in [true, false] {
        let (luup, mut daemon) = with_luup("");
        let (mut plugin, mut plain) = websocket_connected(&daemon, "NTFY=5/s/a/p");
        let (_secure_plugin, mut secure) = wss_connected(&daemon, "");
        // This connection is parked.
        let (parked_plugin, mut parked) = wss_connected(&daemon, "KEEP=300 NTFY=6/s/a/pid-of-8-characters");
        drop(parked_plugin);
        let answering = std::thread::spawn(move || {
            for peer in [&mut plain, &mut secure, &mut parked] {
                assert_eq!(read_frame(peer), (CLOSE, close_of(1001, "")));
                peer.send_frame(CLOSE, &close_of(1001, "")).unwrap();
                peer.end().expect("close_notify over TLS");
            }
        });
        end(&mut daemon, by_signal);
        assert!(plugin.at_end());
        answering.join().unwrap();
        luup.wait_for(2, LIMIT);
    }
}

#[test]
fn shutdown_does_not_wait_for_a_websocket_that_does_not_answer() {
    let mut daemon = started();
    let (_plugin, mut plain) = websocket_connected(&daemon, "");
    let (_secure_plugin, mut secure) = wss_connected(&daemon, "");
    end(&mut daemon, true);
    assert_eq!(read_frame(&mut plain), (CLOSE, close_of(1001, "")));
    assert_eq!(plain.rest().unwrap(), b"");
    assert_eq!(read_frame(&mut secure), (CLOSE, close_of(1001, "")));
    assert_eq!(secure.rest().expect("close_notify"), b"");
}

#[test]
fn the_plugins_bytes_precede_the_close_and_a_slow_remote_does_not_delay_it() {
    let mut daemon = started();
    let (mut plugin, mut peer) = websocket_connected(&daemon, "");
    plugin.send(b"TEXT 5\nfirst");
    let Frame { opcode, payload, .. } = peer.frame().unwrap();
    assert_eq!((opcode, &*payload), (TEXT, &b"first"[..]));
    // The remote stops reading, and all buffers towards it are full.
    let message = [&b"BINA 60000\n"[..], &[7; 60_000]].concat();
    plugin.stream().set_nonblocking(true).unwrap();
    let mut full = 0;
    while full < 20 {
        match std::io::Write::write(&mut plugin.stream(), &message) {
            Ok(_) => full = 0,
            Err(_) => {
                full += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
    // A plugin that does not read the remote's bytes does not delay it either.
    let (unread, sending_peer) = websocket_connected(&daemon, "FRAM=RAW");
    let text = testkit::websocket::frame_of(0x82, &[1; 10_000]);
    let mut peer_stream = sending_peer.stream();
    peer_stream.set_nonblocking(true).unwrap();
    while std::io::Write::write(&mut peer_stream, &text).is_ok() {}
    end(&mut daemon, true);
    drop(unread);
}

#[test]
fn tls_remotes_get_close_notify() {
    for config in [Identity::loopback().any_server(), Identity::loopback().tls12_server()] {
        let mut daemon = started();
        let (sender, ends) = channel();
        let device = TlsDevice::start(config, move |mut stream| {
            let mut received = Vec::new();
            // Without close_notify this is an error.
            let _ = sender.send(stream.read_to_end(&mut received).map(|_| received));
        });
        let mut plugin = daemon.plugin();
        plugin.conn(device.addr(), "PRTO=tls VRFY=none CTIM=30000");
        plugin.send(b"last words");
        wait_until_acknowledged(plugin.stream());
        end(&mut daemon, true);
        assert_eq!(ends.recv_timeout(LIMIT).unwrap().expect("close_notify"), b"last words");
    }
}
