//! A stand-in for Luup's HTTP server: it records every request and answers as the test sets.
//!
//! It owns its listener and one short-lived thread for each request. Like Vera it always answers `Connection: close`.

mod request;

pub use request::Request;

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::ports::Reserved;

/// How a request is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// `200 OK` with Luup's usual answer to an action.
    Ok,
    /// No answer; the connection stays open until the client closes it or the stand-in ends.
    Hang,
    /// As `Ok`, after this delay.
    Slow(Duration),
    /// This status and body.
    Status(u16, String),
    /// `200 OK` and a body `ERROR: <text>`, as Vera answers when the action fails.
    Error(String),
    /// The connection is closed without an answer.
    CloseWithoutAnswer,
}

/// The stand-in. Dropping it ends its threads.
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
    default: Option<Behaviour>,
    by_device: HashMap<i64, Behaviour>,
    next: VecDeque<Behaviour>,
    /// Requests without an answer so far, by an internal number.
    in_flight: HashMap<u64, InFlight>,
    next_id: u64,
    max_concurrent: HashMap<Option<i64>, usize>,
    /// See [`Luup::serve_one_at_a_time`].
    one_at_a_time: bool,
    ended: bool,
}

struct InFlight {
    device: Option<i64>,
    stream: Arc<TcpStream>,
}

impl Luup {
    /// Starts a stand-in on a free port of 127.0.0.1.
    pub fn start() -> Luup {
        Luup::on(Reserved::new().expect("a port for the stand-in Luup"))
    }

    /// Starts a stand-in on `addr`.
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

    /// The port; it stays the same while the stand-in is down.
    pub fn port(&self) -> u16 {
        self.reserved.port()
    }

    /// The base URL for the daemon: `http://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("http://{}", self.reserved.addr())
    }

    /// Sets the behaviour for later requests whose device has none of its own.
    pub fn set_behaviour(&self, behaviour: Behaviour) {
        self.shared.lock().default = Some(behaviour);
    }

    /// Sets the behaviour for later requests to one device.
    pub fn set_device(&self, device: i64, behaviour: Behaviour) {
        self.shared.lock().by_device.insert(device, behaviour);
    }

    /// Queues a behaviour for one later request to any device. Queued behaviours go first, in order.
    pub fn push_next(&self, behaviour: Behaviour) {
        self.shared.lock().next.push_back(behaviour);
    }

    /// From now on a request is read when the one before is answered, as Luup runs one action at a time. Those that wait are
    /// not recorded yet.
    pub fn serve_one_at_a_time(&self) {
        self.shared.lock().one_at_a_time = true;
    }

    /// Stops listening: connections are refused, and requests that hang lose their connection.
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

    /// Listens again on the same port.
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

    /// All requests so far in order of arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.lock().requests.clone()
    }

    /// The number of requests so far.
    pub fn count(&self) -> usize {
        self.shared.lock().requests.len()
    }

    /// The number of connections without a complete HTTP/1.x head.
    pub fn malformed(&self) -> usize {
        self.shared.lock().malformed
    }

    /// Clears the recorded requests; behaviours and the measured concurrency stay.
    pub fn clear_requests(&self) {
        self.shared.lock().requests.clear();
    }

    /// Waits for at least `count` requests since the start or [`Luup::clear_requests`], and returns all of them.
    ///
    /// # Panics
    /// If they do not arrive in time; the message lists those that did.
    #[track_caller]
    pub fn wait_for(&self, count: usize, timeout: Duration) -> Vec<Request> {
        self.wait_until(timeout, |requests| requests.len() >= count).unwrap_or_else(|came| {
            let came: Vec<_> = came.iter().map(|r| format!("{}?{}", r.path, r.query)).collect();
            panic!("waited {timeout:?} for {count} requests, got {}: {came:#?}", came.len())
        })
    }

    /// Waits until `enough` accepts the requests so far, and returns all of them; as `Err` on timeout.
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

    /// Waits until `count` requests are without an answer. False on timeout.
    pub fn wait_in_flight(&self, count: usize, timeout: Duration) -> bool {
        let (_state, waited) = self
            .shared
            .changed
            .wait_timeout_while(self.shared.lock(), timeout, |s| s.in_flight.len() < count)
            .expect("luup lock");
        !waited.timed_out()
    }

    /// The largest number of requests to `device` that were without an answer at one time.
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

    /// Records a request, counts it as in flight, and returns its behaviour.
    fn take(&self, request: Request, stream: &Arc<TcpStream>) -> (u64, Behaviour) {
        let mut state = self.lock();
        let device = request.device();
        // A request whose client has closed is no longer in flight, even if its thread has not run yet.
        state.in_flight.retain(|_, other| other.device != device || !peer_has_closed(&other.stream));
        let id = state.next_id;
        state.next_id += 1;
        state.in_flight.insert(id, InFlight { device, stream: stream.clone() });
        let now = state.in_flight.values().filter(|other| other.device == device).count();
        let max = state.max_concurrent.entry(device).or_default();
        *max = now.max(*max);

        let behaviour = state
            .next
            .pop_front()
            .or_else(|| device.and_then(|d| state.by_device.get(&d).cloned()))
            .or_else(|| state.default.clone())
            .unwrap_or(Behaviour::Ok);
        state.requests.push(request);
        drop(state);
        self.changed.notify_all();
        (id, behaviour)
    }

    /// Marks the request as answered. Called before the answer is written, since its reader may send the next request
    /// at once.
    fn done(&self, id: u64) {
        self.lock().in_flight.remove(&id);
    }

    /// Waits `time`, or until the stand-in ends.
    fn pause(&self, time: Duration) {
        let guard = self.lock();
        drop(self.changed.wait_timeout_while(guard, time, |state| !state.ended));
    }
}

fn accept_all(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        match listener.accept() {
            Ok((stream, _)) if shared.lock().one_at_a_time => serve(stream, shared),
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
            wait_until_closed(&stream);
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
        // Read until the client closes: an early close could reset the connection before the client has read the
        // answer.
        stream.shutdown(Shutdown::Write).ok();
        wait_until_closed(&stream);
    }
}

const OK_BODY: &str = r#"{"u:HandleReceiveDataResponse": {"JobID": "1"}}"#;

/// Reads up to the blank line. None if the client closes before, takes too long, or sends too much.
fn read_head(mut stream: &TcpStream) -> Option<Vec<u8>> {
    const MAX_HEAD: usize = 64 * 1024;
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    let mut head = Vec::new();
    let mut buf = [0u8; 4096];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buf) {
            Ok(0) => return None,
            Ok(n) if head.len() + n <= MAX_HEAD => head.extend_from_slice(&buf[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            _ => return None,
        }
    }
    stream.set_read_timeout(None).ok()?;
    Some(head)
}

fn wait_until_closed(mut stream: &TcpStream) {
    let mut buf = [0u8; 256];
    while matches!(stream.read(&mut buf), Ok(n) if n > 0) {}
}

fn peer_has_closed(stream: &TcpStream) -> bool {
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
