//! Sends notifications: an elastic pool of threads, each with one request, through ureq.
//!
//! ureq blocks, and so may Luup; the loop does neither. A thread is started when a request finds none idle, up to a
//! bound, and ends when it has had nothing to do for a while.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ureq::config::{AutoHeaderValue, Config};
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Error};

use super::schedule::Job;
use super::{LineId, Outcome};

/// What the daemon calls itself, as its predecessor did.
const USER_AGENT: &str = "sockproxyd-1";
/// Stack of a sender. ureq needs some 20 KiB; memory that is not touched costs nothing.
const STACK: usize = 256 * 1024;
/// A sender with nothing to do ends after this, but for the last one.
const IDLE: Duration = Duration::from_secs(20);
/// As much of an answer is read: it is thrown away, but Luup should not see its connection cut off.
const BODY_LIMIT: u64 = 64 * 1024;
/// Luup's `ERROR:` stands at the beginning.
const BODY_KEPT: usize = 64;

/// The senders.
pub struct Senders {
    shared: Arc<Shared>,
}

struct Shared {
    agent: Agent,
    base: String,
    most: usize,
    queue: Mutex<Queue>,
    /// Rung when a job is queued, or at the end.
    job: Condvar,
    done: Mutex<Vec<(LineId, Outcome)>>,
    /// Called after an outcome has been put into `done`.
    wake: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    ended: bool,
}

impl Senders {
    /// Senders of at most `most` requests at once to `base` (`http://host:port`), each given `timeout`.
    ///
    /// `wake` is called from a sender's thread whenever [`Senders::take_outcomes`] has something.
    pub fn new(base: &str, most: usize, timeout: Duration, wake: impl Fn() + Send + Sync + 'static) -> Self {
        let shared = Shared {
            agent: agent(timeout),
            base: base.trim_end_matches('/').to_owned(),
            most: most.max(1),
            queue: Mutex::default(),
            job: Condvar::new(),
            done: Mutex::default(),
            wake: Box::new(wake),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Sends a request; its outcome comes later.
    pub fn submit(&self, job: Job) {
        let mut queue = lock(&self.shared.queue);
        queue.jobs.push_back(job);
        if queue.idle < queue.jobs.len() && queue.threads < self.shared.most {
            let shared = Arc::clone(&self.shared);
            let started =
                std::thread::Builder::new().name("notify".into()).stack_size(STACK).spawn(move || shared.serve());
            match started {
                Ok(_) => queue.threads += 1,
                Err(error) if queue.threads > 0 => log::debug!("no further sender: {error}"),
                Err(error) => {
                    log::warn!("no thread for a notification: {error}");
                    if let Some(job) = queue.jobs.pop_back() {
                        drop(queue);
                        self.shared.finish(job.line, Outcome::Failed(0));
                    }
                    return;
                }
            }
        }
        self.shared.job.notify_one();
    }

    /// The outcomes since the last call.
    pub fn take_outcomes(&self) -> Vec<(LineId, Outcome)> {
        std::mem::take(&mut lock(&self.shared.done))
    }

    /// How many threads there are.
    pub fn threads(&self) -> usize {
        lock(&self.shared.queue).threads
    }
}

impl Drop for Senders {
    fn drop(&mut self) {
        lock(&self.shared.queue).ended = true;
        self.shared.job.notify_all();
    }
}

impl Shared {
    fn serve(&self) {
        while let Some(job) = self.next_job() {
            let outcome = self.send(&job.query);
            if outcome != Outcome::Delivered {
                log::debug!("notification {}: {}", outcome.name(), job.query);
            }
            self.finish(job.line, outcome);
        }
    }

    fn finish(&self, line: LineId, outcome: Outcome) {
        lock(&self.done).push((line, outcome));
        (self.wake)();
    }

    /// Waits for a job. `None`: this thread is not needed any more.
    fn next_job(&self) -> Option<Job> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.ended {
                return None;
            }
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            queue.idle += 1;
            let (waited, timeout) = self.job.wait_timeout(queue, IDLE).unwrap_or_else(PoisonError::into_inner);
            queue = waited;
            queue.idle -= 1;
            if timeout.timed_out() && queue.jobs.is_empty() && queue.threads > 1 {
                queue.threads -= 1;
                return None;
            }
        }
    }

    fn send(&self, query: &str) -> Outcome {
        let url = format!("{}{query}", self.base);
        let answer = self.agent.get(&url).header("TE", "trailers").header("Connection", "close").call();
        let mut answer = match answer {
            Ok(answer) => answer,
            Err(error) => return of_error(&error),
        };
        let status = answer.status().as_u16();
        let mut reader = answer.body_mut().as_reader().take(BODY_LIMIT);
        let mut kept = Vec::with_capacity(BODY_KEPT);
        let read = reader.by_ref().take(BODY_KEPT as u64).read_to_end(&mut kept);
        match read {
            Err(error) if kept.is_empty() && is_timeout(&error) => return Outcome::TimedOut,
            // What has come of it is judged.
            Err(_) => {}
            // The rest is of no use to us, and Luup's trouble with sending it none of ours.
            Ok(_) => drop(io::copy(&mut reader, &mut io::sink())),
        }
        Outcome::of_answer(status, &kept)
    }
}

fn agent(timeout: Duration) -> Agent {
    let config = Config::builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .max_idle_connections(0)
        .max_idle_connections_per_host(0)
        // A request and its answer are a few hundred bytes.
        .input_buffer_size(4096)
        .output_buffer_size(4096)
        .user_agent(USER_AGENT)
        .accept(AutoHeaderValue::None)
        .accept_encoding(AutoHeaderValue::None)
        .build();
    Agent::with_parts(config, DefaultConnector::default(), InThisThread)
}

/// Finds Luup's address. ureq's own resolver starts a thread for each name to hold the time limit; a sender is such
/// a thread already, and most Luups are given as addresses anyway.
#[derive(Debug)]
struct InThisThread;

impl Resolver for InThisThread {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let host = uri.host().ok_or(Error::HostNotFound)?.trim_matches(['[', ']']);
        let port = uri.port_u16().unwrap_or(80);
        let mut found = self.empty();
        let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(|_| Error::HostNotFound)?.collect();
        // ureq takes at most 16.
        addresses.into_iter().take(16).for_each(|address| found.push(address));
        if found.is_empty() { Err(Error::HostNotFound) } else { Ok(found) }
    }
}

fn of_error(error: &Error) -> Outcome {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut};
    match error {
        Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => Outcome::Unreachable,
        Error::Timeout(_) => Outcome::TimedOut,
        Error::HostNotFound | Error::ConnectionFailed => Outcome::Unreachable,
        Error::Io(error) => match error.kind() {
            ConnectionRefused | HostUnreachable | NetworkUnreachable => Outcome::Unreachable,
            TimedOut => Outcome::TimedOut,
            _ => Outcome::Failed(0),
        },
        _ => Outcome::Failed(0),
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

/// A poisoned lock means that another thread panicked; what it guards is still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::schedule::{Schedule, Subscription};
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;
    use std::sync::mpsc;
    use std::time::Instant;

    fn job(query: &str) -> Job {
        let mut schedule = Schedule::new(1, 1);
        let now = Instant::now();
        let subscription = Subscription { device: "5".into(), query: query.into(), events: false, pace: None };
        let line = schedule.open(subscription);
        schedule.handle_data(line, now);
        schedule.poll_job(now).unwrap()
    }

    /// The outcome of one request to a server that reads it and answers with `answer`, and the request itself.
    fn exchange(answer: &'static [u8], timeout: Duration) -> (Outcome, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}/", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                request.push(byte[0]);
            }
            stream.write_all(answer).unwrap();
            if answer.is_empty() {
                // Hold the connection until the client has lost patience.
                let _ = stream.read(&mut byte);
            }
            String::from_utf8(request).unwrap()
        });
        let (woken, wake) = mpsc::channel();
        let senders = Senders::new(&base, 2, timeout, move || {
            let _ = woken.send(());
        });
        senders.submit(job("/data_request?id=action&DeviceNum=5"));
        wake.recv().unwrap();
        let outcomes = senders.take_outcomes();
        assert_eq!(outcomes.len(), 1);
        (outcomes[0].1, server.join().unwrap())
    }

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn the_request_is_the_originals() {
        let (outcome, request) = exchange(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK", LONG);
        assert_eq!(outcome, Outcome::Delivered);
        let mut lines: Vec<String> = request.trim_end().split("\r\n").map(str::to_lowercase).collect();
        assert_eq!(lines.remove(0), "get /data_request?id=action&devicenum=5 http/1.1");
        assert!(request.starts_with("GET /data_request?id=action&DeviceNum=5 HTTP/1.1\r\n"));
        lines.sort();
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert_eq!(lines[0], "connection: close");
        assert!(lines[1].starts_with("host: 127.0.0.1:"));
        assert_eq!(lines[2..], ["te: trailers", "user-agent: sockproxyd-1"]);
    }

    #[test]
    fn answers_are_judged() {
        for (answer, outcome) in [
            (&b"HTTP/1.0 200 OK\r\n\r\nERROR: Invalid Service"[..], Outcome::ErrorBody),
            (b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", Outcome::Refused(401)),
            (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", Outcome::Failed(503)),
            (
                b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
                Outcome::Refused(302),
            ),
            (b"nonsense\r\n\r\n", Outcome::Failed(0)),
        ] {
            assert_eq!(exchange(answer, LONG).0, outcome, "{}", String::from_utf8_lossy(answer));
        }
    }

    #[test]
    fn no_answer_is_a_timeout() {
        assert_eq!(exchange(b"", Duration::from_millis(100)).0, Outcome::TimedOut);
    }

    #[test]
    fn nobody_there_is_unreachable() {
        let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (woken, wake) = mpsc::channel();
        let senders = Senders::new(&format!("http://{unused}"), 2, LONG, move || {
            let _ = woken.send(());
        });
        senders.submit(job("/x"));
        wake.recv().unwrap();
        assert_eq!(senders.take_outcomes()[0].1, Outcome::Unreachable);
    }

    #[test]
    fn a_pool_has_as_many_threads_as_it_needs_and_no_more() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (woken, wake) = mpsc::channel();
        let senders = Senders::new(&base, 3, LONG, move || {
            let _ = woken.send(());
        });
        for _ in 0..10 {
            senders.submit(job("/x"));
        }
        let mut held: Vec<_> = (0..3).map(|_| listener.accept().unwrap().0).collect();
        assert_eq!(senders.threads(), 3);
        let mut answered = 0;
        while answered < 10 {
            let mut stream = held.pop().unwrap_or_else(|| listener.accept().unwrap().0);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
            wake.recv().unwrap();
            answered += 1;
        }
        assert_eq!(senders.take_outcomes().len(), 10);
        assert_eq!(senders.threads(), 3);
    }
}
