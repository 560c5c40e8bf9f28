//! A stand-in for Luup's HTTP server: records every request and answers as told.
//!
//! Owns its listener and one short-lived thread a request. It knows nothing of the daemon. It answers
//! `Connection: close` always, as Vera does.

mod request;

pub use request::Request;

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::ports::Reserved;

/// What to do with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// `200 OK` with Luup's usual answer to an action.
    Ok,
    /// Never answer; the connection stays until the client goes (or the stand-in ends).
    Hang,
    /// As `Ok`, after this long.
    Slow(Duration),
    /// This status and body.
    Status(u16, String),
    /// `200 OK` and a body `ERROR: <text>`, as Vera says it when the action fails.
    Error(String),
    /// Close the connection without an answer.
    CloseWithoutAnswer,
}

/// The stand-in. Ends its threads when dropped.
pub struct Luup {
    shared: Arc<Shared>,
    reserved: Reserved,
    acceptor: Mutex<Option<Acceptor>>,
}

struct Acceptor {
    listener: TcpListener,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    requests: Vec<Request>,
    malformed: usize,
    standing: Option<Behaviour>,
    by_device: HashMap<i64, Behaviour>,
    next: VecDeque<Behaviour>,
    /// Requests taken and not yet answered, by an id of ours.
    in_flight: HashMap<u64, InFlight>,
    next_id: u64,
    max_concurrent: HashMap<Option<i64>, usize>,
    ended: bool,
}

struct InFlight {
    device: Option<i64>,
    stream: Arc<TcpStream>,
}

impl Luup {
    /// Starts on a free port of 127.0.0.1.
    pub fn start() -> Luup {
        Luup::on(Reserved::new().expect("no port for the stand-in Luup"))
    }

    /// Starts on `addr`.
    pub fn start_at(addr: SocketAddr) -> io::Result<Luup> {
        let luup = Luup::idle(Reserved::on(addr)?);
        luup.try_up()?;
        Ok(luup)
    }

    fn on(reserved: Reserved) -> Luup {
        let luup = Luup::idle(reserved);
        luup.up();
        luup
    }

    fn idle(reserved: Reserved) -> Luup {
        Luup { shared: Arc::default(), reserved, acceptor: Mutex::new(None) }
    }

    /// The port, whether up or down.
    pub fn port(&self) -> u16 {
        self.reserved.port()
    }

    /// The base URL for the daemon: `http://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("http://{}", self.reserved.addr())
    }

    /// How to treat requests from now on, where nothing else is set for their device.
    pub fn set_behaviour(&self, behaviour: Behaviour) {
        self.shared.lock().standing = Some(behaviour);
    }

    /// How to treat requests for one device from now on.
    pub fn set_device(&self, device: i64, behaviour: Behaviour) {
        self.shared.lock().by_device.insert(device, behaviour);
    }

    /// Adds a behaviour for one coming request (of any device). These go first, in order.
    pub fn push_next(&self, behaviour: Behaviour) {
        self.shared.lock().next.push_back(behaviour);
    }

    /// Stops listening: connections are refused, requests that hang are cut off.
    pub fn down(&self) {
        let Some(acceptor) = self.acceptor.lock().expect("acceptor lock").take() else { return };
        // On Linux this wakes a blocked accept() with EINVAL.
        socket2::SockRef::from(&acceptor.listener).shutdown(Shutdown::Both).ok();
        acceptor.thread.join().ok();
        drop(acceptor.listener);
        for flight in self.shared.lock().in_flight.values() {
            flight.stream.shutdown(Shutdown::Both).ok();
        }
    }

    /// Listens again, on the same port.
    pub fn up(&self) {
        self.try_up().expect("the stand-in Luup cannot listen");
    }

    fn try_up(&self) -> io::Result<()> {
        let mut acceptor = self.acceptor.lock().expect("acceptor lock");
        if acceptor.is_none() {
            let listener = self.reserved.listen()?;
            let accepting = listener.try_clone()?;
            let shared = self.shared.clone();
            let thread = thread::Builder::new().name("luup".into()).spawn(move || accept_all(&accepting, &shared))?;
            *acceptor = Some(Acceptor { listener, thread });
        }
        Ok(())
    }

    /// All requests so far, in order of arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.lock().requests.clone()
    }

    /// How many requests came so far.
    pub fn count(&self) -> usize {
        self.shared.lock().requests.len()
    }

    /// Connections that brought no complete HTTP/1.x head.
    pub fn malformed(&self) -> usize {
        self.shared.lock().malformed
    }

    /// Forgets the requests recorded so far (not the behaviours nor the concurrency seen).
    pub fn forget(&self) {
        self.shared.lock().requests.clear();
    }

    /// Waits for at least `count` requests since the start (or [`Luup::forget`]) and returns all of them.
    ///
    /// # Panics
    /// When they do not come in time; the message lists what came.
    #[track_caller]
    pub fn wait_for(&self, count: usize, timeout: Duration) -> Vec<Request> {
        self.wait_until(timeout, |requests| requests.len() >= count).unwrap_or_else(|came| {
            let came: Vec<_> = came.iter().map(|r| format!("{}?{}", r.path, r.query)).collect();
            panic!("waited {timeout:?} for {count} requests, got {}: {came:#?}", came.len())
        })
    }

    /// Waits until `enough` says so of the requests so far; all of them, as `Err` when time ran out.
    pub fn wait_until(
        &self,
        timeout: Duration,
        mut enough: impl FnMut(&[Request]) -> bool,
    ) -> Result<Vec<Request>, Vec<Request>> {
        let (state, waited) = self
            .shared
            .changed
            .wait_timeout_while(self.shared.lock(), timeout, |state| !enough(&state.requests))
            .expect("luup lock");
        let requests = state.requests.clone();
        if waited.timed_out() { Err(requests) } else { Ok(requests) }
    }

    /// Waits until `count` requests are being held without an answer; false when time ran out.
    pub fn wait_in_flight(&self, count: usize, timeout: Duration) -> bool {
        let (_state, waited) = self
            .shared
            .changed
            .wait_timeout_while(self.shared.lock(), timeout, |s| s.in_flight.len() < count)
            .expect("luup lock");
        !waited.timed_out()
    }

    /// The most requests for `device` that were unanswered at one time.
    pub fn max_concurrent(&self, device: i64) -> usize {
        self.shared.lock().max_concurrent.get(&Some(device)).copied().unwrap_or(0)
    }
}

impl Drop for Luup {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.changed.notify_all();
        self.down();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("luup lock")
    }

    /// Records a request, counts it as in flight, and says what to do with it.
    fn take(&self, request: Request, stream: &Arc<TcpStream>) -> (u64, Behaviour) {
        let mut state = self.lock();
        let device = request.device();
        // Whose client has gone is not in flight any more, though its thread may not have run yet.
        state.in_flight.retain(|_, other| other.device != device || !peer_has_gone(&other.stream));
        let id = state.next_id;
        state.next_id += 1;
        state.in_flight.insert(id, InFlight { device, stream: stream.clone() });
        let now = state.in_flight.values().filter(|other| other.device == device).count();
        let most = state.max_concurrent.entry(device).or_default();
        *most = now.max(*most);

        let behaviour = state
            .next
            .pop_front()
            .or_else(|| device.and_then(|d| state.by_device.get(&d).cloned()))
            .or_else(|| state.standing.clone())
            .unwrap_or(Behaviour::Ok);
        state.requests.push(request);
        drop(state);
        self.changed.notify_all();
        (id, behaviour)
    }

    /// The request is answered (call before the answer is written: its reader may ask again at once).
    fn done(&self, id: u64) {
        self.lock().in_flight.remove(&id);
    }

    /// Waits `time`, less where the stand-in ends.
    fn pause(&self, time: Duration) {
        let guard = self.lock();
        drop(self.changed.wait_timeout_while(guard, time, |state| !state.ended));
    }
}

fn accept_all(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                let shared = shared.clone();
                let spawned = thread::Builder::new()
                    .name("luup-request".into())
                    .stack_size(128 * 1024)
                    .spawn(move || serve(stream, &shared));
                if let Err(e) = spawned {
                    eprintln!("stand-in Luup: no thread for a request: {e}");
                }
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {}
            Err(_) => return,
        }
    }
}

fn serve(stream: TcpStream, shared: &Shared) {
    let stream = Arc::new(stream);
    let request = read_head(&stream).and_then(|head| Request::parse(&head, Instant::now()));
    let Some(request) = request else {
        shared.lock().malformed += 1;
        return;
    };
    let (id, behaviour) = shared.take(request, &stream);
    let (status, body) = match behaviour {
        Behaviour::Ok => (200, OK_BODY.to_string()),
        Behaviour::Slow(time) => {
            shared.pause(time);
            (200, OK_BODY.to_string())
        }
        Behaviour::Status(status, body) => (status, body),
        Behaviour::Error(text) => (200, format!("ERROR: {text}")),
        Behaviour::Hang => {
            wait_for_the_end(&stream);
            return shared.done(id);
        }
        Behaviour::CloseWithoutAnswer => return shared.done(id),
    };
    shared.done(id);
    let answer = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        if status == 200 { "OK" } else { "Because" },
        body.len()
    );
    if (&*stream).write_all(answer.as_bytes()).is_ok() {
        // Read to the client's end, so that closing does not reset what it has not read yet.
        stream.shutdown(Shutdown::Write).ok();
        wait_for_the_end(&stream);
    }
}

const OK_BODY: &str = r#"{"u:HandleReceiveDataResponse": {"JobID": "1"}}"#;

/// Reads up to the blank line. None where the client goes before, dawdles, or sends too much.
fn read_head(mut stream: &TcpStream) -> Option<Vec<u8>> {
    const MOST: usize = 64 * 1024;
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    let mut head = Vec::new();
    let mut buf = [0u8; 4096];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buf) {
            Ok(0) => return None,
            Ok(n) if head.len() + n <= MOST => head.extend_from_slice(&buf[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            _ => return None,
        }
    }
    stream.set_read_timeout(None).ok()?;
    Some(head)
}

fn wait_for_the_end(mut stream: &TcpStream) {
    let mut buf = [0u8; 256];
    while matches!(stream.read(&mut buf), Ok(n) if n > 0) {}
}

fn peer_has_gone(stream: &TcpStream) -> bool {
    use nix::sys::socket::{MsgFlags, recv};
    use std::os::fd::AsRawFd;
    let peek = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    match recv(stream.as_raw_fd(), &mut [0u8; 1], peek) {
        Ok(n) => n == 0,
        Err(e) => e != nix::errno::Errno::EAGAIN,
    }
}

#[cfg(test)]
mod tests;
