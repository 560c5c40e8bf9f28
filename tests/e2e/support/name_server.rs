//! A name server on a loopback address, and a daemon whose C library queries this server alone.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use testkit::daemon::Builder;

use super::{LIMIT, may_mount, with_mounts};

/// The answer for a name.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Addresses(Vec<IpAddr>),
    ServerFailure,
    Silence,
}

/// The name server. Dropping it ends its thread.
pub(crate) struct NameServer {
    addr: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    names: HashMap<String, Answer>,
    /// Names that were queried.
    asked: Vec<String>,
}

impl NameServer {
    /// Starts a server. None, with the reason printed, if this machine does not permit it.
    pub(crate) fn start() -> Option<NameServer> {
        if !may_mount() {
            return None;
        }
        // The port is fixed, so a free address is searched.
        let mut hosts = (1..=250).map(|last| Ipv4Addr::new(127, 53, std::process::id() as u8, last));
        let bound = hosts.find_map(|host| match UdpSocket::bind((host, 53)) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => None,
            other => Some(other),
        });
        let socket = match bound.expect("a free address") {
            Ok(socket) => socket,
            Err(error) => {
                println!("skipped: no name server on port 53: {error}");
                return None;
            }
        };
        let addr = socket.local_addr().expect("address");
        let shared = Arc::<Shared>::default();
        let serving = Arc::clone(&shared);
        let thread = std::thread::spawn(move || serving.serve(&socket));
        Some(NameServer { addr, shared, thread: Some(thread) })
    }

    /// Sets the answer for `name`. Names without an answer do not exist.
    pub(crate) fn set(&self, name: &str, answer: Answer) {
        self.shared.state.lock().expect("names").names.insert(name.to_owned(), answer);
    }

    /// As [`NameServer::set`], with addresses.
    pub(crate) fn set_addresses(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().expect("an address")).collect();
        self.set(name, Answer::Addresses(addresses));
    }

    /// Waits until `name` has been queried.
    #[track_caller]
    pub(crate) fn wait_asked(&self, name: &str) {
        let asked = |state: &mut State| !state.asked.iter().any(|asked| asked == name);
        let guard = self.shared.state.lock().expect("names");
        let (_guard, waited) = self.shared.changed.wait_timeout_while(guard, LIMIT, asked).expect("names");
        assert!(!waited.timed_out(), "no query for {name}");
    }

    /// A daemon that queries this server.
    pub(crate) fn daemon(&self) -> Builder {
        let daemon = super::daemon()
            .file("resolv.conf", format!("nameserver {}\noptions timeout:30 attempts:1\n", self.addr.ip()).as_bytes())
            .file("hosts", b"127.0.0.1 localhost\n")
            .file("nsswitch.conf", b"hosts: files dns\n");
        let mounts = "for file in resolv.conf hosts nsswitch.conf; do \
            if [ -e /etc/$file ]; then mount --bind $file /etc/$file; fi; done";
        with_mounts(daemon, mounts)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        // An empty datagram ends the thread.
        UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(b"", self.addr)).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Shared {
    fn serve(&self, socket: &UdpSocket) {
        let mut query = [0u8; 512];
        loop {
            let Ok((length, asker)) = socket.recv_from(&mut query) else { continue };
            if length == 0 {
                return;
            }
            let mut state = self.state.lock().expect("names");
            let Some((name, answer)) = answer(&query[..length], &state.names) else { continue };
            state.asked.push(name);
            drop(state);
            self.changed.notify_all();
            if let Some(answer) = answer {
                socket.send_to(&answer, asker).ok();
            }
        }
    }
}

/// Parses a query with one question (RFC 1035 section 4). Returns the name, and the answer if there is one.
fn answer(query: &[u8], names: &HashMap<String, Answer>) -> Option<(String, Option<Vec<u8>>)> {
    const HEADER: usize = 12;
    let (mut name, mut at) = (Vec::new(), HEADER);
    while let length @ 1.. = usize::from(*query.get(at)?) {
        name.push(std::str::from_utf8(query.get(at + 1..at + 1 + length)?).ok()?);
        at += 1 + length;
    }
    let question = query.get(HEADER..at + 5)?;
    let wants_v6 = question.get(question.len() - 4..question.len() - 2)? == [0, 28];
    let name = name.join(".").to_ascii_lowercase();
    let (code, addresses) = match names.get(&name) {
        Some(Answer::Addresses(addresses)) => (0, &addresses[..]),
        Some(Answer::ServerFailure) => (2, &[][..]),
        Some(Answer::Silence) => return Some((name, None)),
        None => (3, &[][..]),
    };
    let matching: Vec<&IpAddr> = addresses.iter().filter(|address| address.is_ipv6() == wants_v6).collect();
    let mut reply = query[..2].to_vec();
    reply.extend([0x81, 0x80 | code, 0, 1, 0, matching.len() as u8, 0, 0, 0, 0]);
    reply.extend(question);
    for address in matching {
        // The name of the question, type and class, and a TTL of 0.
        reply.extend([0xc0, HEADER as u8, 0, if wants_v6 { 28 } else { 1 }, 0, 1, 0, 0, 0, 0]);
        let bytes = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        reply.extend([0, bytes.len() as u8]);
        reply.extend(bytes);
    }
    Some((name, Some(reply)))
}
