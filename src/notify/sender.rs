//! Sends notifications through ureq, each request on a thread of its own.
//!
//! ureq blocks, and so may Luup; the loop does neither.

use std::io::{self, Read};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Mutex;
use std::time::Duration;

use ureq::config::{AutoHeaderValue, Config};
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Connector, NextTimeout, TcpConnector};
use ureq::{Agent, Error};

use super::schedule::Job;
use super::secure::{SecureConnector, Trust};
use super::{LineId, Outcome, line};
use crate::thread_pool::{JobClass, ThreadPool, ThreadPoolSettings, lock};
use crate::tls::Failure;

/// What the daemon calls itself, as its predecessor did.
const USER_AGENT: &str = "sockproxyd-1";
/// ureq needs some 20 KiB of stack.
const STACK: usize = 256 * 1024;
/// As much of an answer is read: it is thrown away, but Luup should not see its connection cut off.
const BODY_LIMIT: u64 = 64 * 1024;
/// Luup's `ERROR:` stands at the beginning.
const BODY_KEPT: usize = 64;

/// Connections over TLS that are kept for the next request, each with buffers of some 20 KiB: a handshake costs more.
const KEPT: usize = 4;
/// So long. Servers keep theirs for a minute or more.
const KEPT_FOR: Duration = Duration::from_secs(15);

/// The senders.
pub struct Senders {
    pool: ThreadPool<Job, (LineId, Outcome)>,
    connector: SecureConnector,
}

impl Senders {
    /// Senders of at most `most` requests at once to `base` (`http://host:port`, or `https`, whose server must be one
    /// to `trust`), each given `timeout`.
    ///
    /// `wake` is called from a sender's thread whenever [`Senders::take_outcomes`] has something.
    pub fn new(
        base: &str,
        most: usize,
        timeout: Duration,
        trust: Trust,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let base = base.trim_end_matches('/').to_owned();
        let keeps = base.starts_with("https:");
        let connector = SecureConnector::new(trust);
        let agent = agent(timeout, connector.clone(), if keeps { KEPT } else { 0 });
        let trouble = Trouble::default();
        let work = move |job: Job| {
            let outcome = send(&agent, &format!("{base}{}", job.query), keeps, &trouble);
            if outcome != Outcome::Delivered {
                log::debug!("notification {}: {}", outcome.name(), line::shown(&job.query, job.secret));
            }
            (job.line, outcome)
        };
        let pool = ThreadPool::new(ThreadPoolSettings {
            name: "notify",
            max_threads: most,
            stack_size: STACK,
            nice: 0,
            work: Box::new(work),
            wake: Box::new(wake),
        });
        Self { pool, connector }
    }

    /// From now on, servers must be ones to `trust`.
    pub fn set_trust(&self, trust: Trust) {
        self.connector.set_trust(trust);
    }

    /// Sends a request; its outcome comes later, or at once where there is no thread to send it.
    pub fn submit(&self, job: Job) -> Option<(LineId, Outcome)> {
        let line = job.line;
        if self.pool.submit(JobClass::Normal, job) {
            return None;
        }
        self.pool.cancel(|queued| queued.line == line);
        Some((line, Outcome::NotSent))
    }

    /// The outcomes since the last call.
    pub fn take_outcomes(&self) -> Vec<(LineId, Outcome)> {
        self.pool.take_results()
    }

    /// Changes the bound on requests at once.
    pub fn set_most(&self, most: usize) {
        self.pool.set_max_threads(most);
    }
}

/// What is wrong with TLS to Luup, as the log has it: each request would say it again.
#[derive(Default)]
struct Trouble(Mutex<Box<str>>);

impl Trouble {
    fn handle_failure(&self, failure: &Failure) {
        let mut known = lock(&self.0);
        if **known != *failure.gist() {
            *known = failure.gist().into();
            log::warn!("no TLS to Luup: {failure}");
        }
    }

    fn handle_answer(&self) {
        *lock(&self.0) = Box::default();
    }
}

/// Sends one request and judges the answer. The connection is closed as the original does it, or `keeps`.
fn send(agent: &Agent, url: &str, keeps: bool, trouble: &Trouble) -> Outcome {
    let mut request = agent.get(url).header("TE", "trailers");
    if !keeps {
        request = request.header("Connection", "close");
    }
    let mut answer = match request.call() {
        Ok(answer) => answer,
        Err(error) => {
            let failure = match &error {
                Error::Other(other) => other.downcast_ref::<Failure>(),
                _ => None,
            };
            if let Some(failure) = failure {
                trouble.handle_failure(failure);
                return Outcome::NoTls;
            }
            return of_error(&error);
        }
    };
    trouble.handle_answer();
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

fn agent(timeout: Duration, connector: SecureConnector, kept: usize) -> Agent {
    let config = Config::builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .max_idle_connections(kept)
        .max_idle_connections_per_host(kept)
        .max_idle_age(KEPT_FOR)
        // A request and its answer are a few hundred bytes; more header than fits would look like a broken connection.
        .input_buffer_size(16 * 1024)
        .output_buffer_size(4096)
        .user_agent(USER_AGENT)
        .accept(AutoHeaderValue::None)
        .accept_encoding(AutoHeaderValue::None)
        .build();
    Agent::with_parts(config, connector.chain(TcpConnector::default()), InThisThread)
}

/// Finds Luup's address. ureq's own resolver starts a thread for each name to hold the time limit; a sender is such
/// a thread already, and most Luups are given as addresses anyway.
#[derive(Debug)]
struct InThisThread;

impl Resolver for InThisThread {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let host = uri.host().ok_or(Error::HostNotFound)?.trim_matches(['[', ']']);
        // musl compares what stands in /etc/hosts byte by byte.
        let host = host.to_ascii_lowercase();
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let mut found = self.empty();
        let addresses: Vec<SocketAddr> =
            (host.as_str(), port).to_socket_addrs().map_err(|_| Error::HostNotFound)?.collect();
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
            _ => Outcome::HungUp,
        },
        // It answered, and not in HTTP.
        _ => Outcome::NoHttp,
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use super::super::schedule::{Schedule, Subscription};
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;
    use std::sync::{Arc, mpsc};
    use std::time::Instant;

    use crate::tls::{House, Verify};

    /// The certificates do not matter here: tests/e2e has them.
    fn senders(base: &str, timeout: Duration, wake: impl Fn() + Send + Sync + 'static) -> Senders {
        let trust = Trust { house: Arc::new(House::new(None, None)), verify: Verify::Peer };
        Senders::new(base, 2, timeout, trust, wake)
    }

    fn job(query: &str) -> Job {
        let mut schedule = Schedule::new(1, 1);
        let now = Instant::now();
        let subscription =
            Subscription { device: "5".into(), query: query.into(), events: false, pace: None, secret: false };
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
        let senders = senders(&base, timeout, move || {
            let _ = woken.send(());
        });
        assert_eq!(senders.submit(job("/data_request?id=action&DeviceNum=5")), None);
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
            (b"nonsense\r\n\r\n", Outcome::NoHttp),
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
        let senders = senders(&format!("http://{unused}"), LONG, move || {
            let _ = woken.send(());
        });
        assert_eq!(senders.submit(job("/x")), None);
        wake.recv().unwrap();
        assert_eq!(senders.take_outcomes()[0].1, Outcome::Unreachable);
    }
}
