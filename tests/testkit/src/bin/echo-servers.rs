//! One echo server for each kind of remote, for tests that have no other tools than a shell. Prints a line
//! `KIND TARGET` for each, with the target as CONN takes it, and serves until it is killed.

use std::io::{self, Write};
use std::thread;

use testkit::device::{Device, Kind, UdpEcho};
use testkit::tls::{Identity, TlsDevice};
use testkit::websocket::Server;

fn main() -> io::Result<()> {
    let identity = Identity::loopback();
    let tcp = Device::start(Kind::Echo);
    let udp = UdpEcho::start();
    let tls = TlsDevice::echo(identity.any_server());
    let ws = Server::echo();
    let wss = Server::echo_secure(identity.any_server());
    let mut out = io::stdout();
    writeln!(
        out,
        "tcp {}\nudp {}\ntls {}\nws {}\nwss {}",
        tcp.addr(),
        udp.addr(),
        tls.addr(),
        ws.url("/"),
        wss.url("/")
    )?;
    out.flush()?;
    loop {
        thread::park();
    }
}
