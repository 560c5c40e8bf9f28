//! [`Senders`]: sends notifications with ureq, each request on a thread of its own, because ureq blocks.

use std::io::{self, Read};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Mutex;
use std::time::Duration;

use ureq::config::{AutoHeaderValue, Config};
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Connector, NextTimeout, TcpConnector};
use ureq::{Agent, Error};

use super::https::{HttpsConnector, Trust};
use super::{NotifyJob, NotifyOutcome, SubscriptionId, subscription};
use crate::thread_pool::{JobClass, ThreadPool, ThreadPoolSettings, lock};
use crate::tls::TlsError;

/// The User-Agent header, the same as the original SockProxy's.
const USER_AGENT: &str = "sockproxyd-1";
/// Stack of a sender's thread in bytes. ureq uses about 20 KiB.
const STACK: usize = 256 * 1024;
/// Bytes of a body read at most. The body is dropped; reading it spares Luup an aborted connection.
const MAX_BODY: u64 = 64 * 1024;
/// Bytes of a body kept for [`NotifyOutcome::from_answer`]: Luup's `ERROR:` stands at the start.
const MAX_BODY_KEPT: usize = 64;

/// Idle TLS connections kept at most, each with buffers of about 20 KiB. A handshake costs more.
const MAX_IDLE: usize = 4;
/// Idle TLS connections are closed after this. Servers close theirs after a minute or more.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// The threads that send notifications.
pub(crate) struct Senders {
    pool: ThreadPool<NotifyJob, (SubscriptionId, NotifyOutcome)>,
    connector: HttpsConnector,
}

impl Senders {
    /// Senders for at most `max_requests` requests at once to `base` (`http://host:port`, or `https`, whose server must
    /// pass `trust`). Each request, from connecting to the end of the body, may take `timeout`.
    ///
    /// `wake` is called from a sender's thread whenever [`Senders::take_outcomes`] has something to return.
    pub(crate) fn new(
        base: &str,
        max_requests: usize,
        timeout: Duration,
        trust: Trust,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let base = base.trim_end_matches('/').to_owned();
        let keeps_alive = base.starts_with("https:");
        let connector = HttpsConnector::new(trust);
        let agent = agent(timeout, connector.clone(), if keeps_alive { MAX_IDLE } else { 0 });
        let last_tls_error = LastTlsError::default();
        let work = move |job: NotifyJob| {
            let outcome = send(&agent, &format!("{base}{}", job.query), keeps_alive, &last_tls_error);
            if outcome != NotifyOutcome::Delivered {
                log::debug!("notification {}: {}", outcome.name(), subscription::redact_query(&job.query, job.secret));
            }
            (job.id, outcome)
        };
        let pool = ThreadPool::new(ThreadPoolSettings {
            name: "notify",
            max_threads: max_requests,
            urgent_threads: 0,
            stack_size: STACK,
            nice: 0,
            work: Box::new(work),
            wake: Box::new(wake),
        });
        Self { pool, connector }
    }

    /// Sets how new connections verify their server.
    pub(crate) fn set_trust(&self, trust: Trust) {
        self.connector.set_trust(trust);
    }

    /// Sends a request. Returns its outcome at once if no thread could be started; otherwise [`Senders::take_outcomes`]
    /// returns it later.
    pub(crate) fn submit(&self, job: NotifyJob) -> Option<(SubscriptionId, NotifyOutcome)> {
        let id = job.id;
        if self.pool.submit(JobClass::Normal, job) {
            return None;
        }
        self.pool.cancel(|queued| queued.id == id);
        Some((id, NotifyOutcome::NotSent))
    }

    /// The outcomes since the last call.
    pub(crate) fn take_outcomes(&self) -> Vec<(SubscriptionId, NotifyOutcome)> {
        self.pool.take_results()
    }

    /// Changes the number of requests sent at once at most.
    pub(crate) fn set_max_requests(&self, max_requests: usize) {
        self.pool.set_max_threads(max_requests);
    }
}

/// The last TLS error, to log it once and not for each request.
#[derive(Default)]
struct LastTlsError(Mutex<Box<str>>);

impl LastTlsError {
    fn handle_error(&self, error: &TlsError) {
        let mut last = lock(&self.0);
        if **last != *error.summary() {
            *last = error.summary().into();
            log::warn!("no TLS to Luup: {error}");
        }
    }

    fn handle_answer(&self) {
        *lock(&self.0) = Box::default();
    }
}

/// Sends one request and returns its outcome. Unless `keeps_alive`, the connection is closed after it, as by the
/// original.
fn send(agent: &Agent, url: &str, keeps_alive: bool, last_tls_error: &LastTlsError) -> NotifyOutcome {
    let mut request = agent.get(url).header("TE", "trailers");
    if !keeps_alive {
        request = request.header("Connection", "close");
    }
    let mut answer = match request.call() {
        Ok(answer) => answer,
        Err(error) => {
            let tls_error = match &error {
                Error::Other(other) => other.downcast_ref::<TlsError>(),
                _ => None,
            };
            if let Some(tls_error) = tls_error {
                last_tls_error.handle_error(tls_error);
                return NotifyOutcome::TlsFailed;
            }
            return outcome_of(&error);
        }
    };
    last_tls_error.handle_answer();
    let status = answer.status().as_u16();
    let mut reader = answer.body_mut().as_reader().take(MAX_BODY);
    let mut kept = Vec::with_capacity(MAX_BODY_KEPT);
    let read = reader.by_ref().take(MAX_BODY_KEPT as u64).read_to_end(&mut kept);
    match read {
        Err(error) if kept.is_empty() && is_timeout(&error) => return NotifyOutcome::TimedOut,
        // The bytes that came before the error decide.
        Err(_) => {}
        // The rest of the body is dropped; errors in it do not matter.
        Ok(_) => drop(io::copy(&mut reader, &mut io::sink())),
    }
    NotifyOutcome::from_answer(status, &kept)
}

fn agent(timeout: Duration, connector: HttpsConnector, max_idle: usize) -> Agent {
    let config = Config::builder()
        .timeout_global(Some(timeout))
        // ureq reports the limit that is nearest. A Luup to which no connection can be made is away, and has not
        // answered slowly.
        .timeout_connect(Some(timeout * 9 / 10))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .max_idle_connections(max_idle)
        .max_idle_connections_per_host(max_idle)
        .max_idle_age(IDLE_TIMEOUT)
        // Requests and answers have a few hundred bytes. ureq treats a header block that does not fit as a broken
        // connection.
        .input_buffer_size(16 * 1024)
        .output_buffer_size(4096)
        .user_agent(USER_AGENT)
        .accept(AutoHeaderValue::None)
        .accept_encoding(AutoHeaderValue::None)
        .build();
    Agent::with_parts(config, connector.chain(TcpConnector::default()), BlockingResolver)
}

/// Looks up Luup's address on the sender's thread. ureq's own resolver starts a further thread for each name to enforce
/// the timeout; most configurations have an address anyway.
#[derive(Debug)]
struct BlockingResolver;

impl Resolver for BlockingResolver {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let host = uri.host().ok_or(Error::HostNotFound)?.trim_matches(['[', ']']);
        // musl compares names in /etc/hosts case-sensitively.
        let host = host.to_ascii_lowercase();
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let mut addresses = self.empty();
        let resolved: Vec<SocketAddr> =
            (host.as_str(), port).to_socket_addrs().map_err(|_| Error::HostNotFound)?.collect();
        // ureq's array holds at most 16 addresses.
        resolved.into_iter().take(16).for_each(|address| addresses.push(address));
        if addresses.is_empty() { Err(Error::HostNotFound) } else { Ok(addresses) }
    }
}

fn outcome_of(error: &Error) -> NotifyOutcome {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut};
    match error {
        Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => NotifyOutcome::Unreachable,
        Error::Timeout(_) => NotifyOutcome::TimedOut,
        Error::HostNotFound | Error::ConnectionFailed => NotifyOutcome::Unreachable,
        Error::Io(error) => match error.kind() {
            ConnectionRefused | HostUnreachable | NetworkUnreachable => NotifyOutcome::Unreachable,
            TimedOut => NotifyOutcome::TimedOut,
            _ => NotifyOutcome::ConnectionLost,
        },
        // An answer that is not HTTP.
        _ => NotifyOutcome::InvalidHttp,
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use super::super::{DeviceKey, Recipient, Schedule};
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;
    use std::sync::{Arc, mpsc};
    use std::time::Instant;

    use crate::client::ClientKey;
    use crate::tls::{TlsContext, Verify};

    /// Senders whose certificates do not matter; tests/e2e tests those.
    fn senders(base: &str, timeout: Duration, wake: impl Fn() + Send + Sync + 'static) -> Senders {
        let trust = Trust { context: Arc::new(TlsContext::new(None, None)), verify: Verify::Peer };
        Senders::new(base, 2, timeout, trust, wake)
    }

    fn job(query: &str) -> NotifyJob {
        let mut schedule = Schedule::new(1, 1);
        let now = Instant::now();
        let device = DeviceKey::new(ClientKey::Loopback, "5");
        let recipient = Recipient { device, query: query.into(), events: false, pace: None, secret: false };
        let id = schedule.open(recipient);
        schedule.handle_data(id, now);
        schedule.poll_job(now).unwrap()
    }

    /// The outcome of one request to a server that answers with `answer`, and the request. An empty `answer` is none.
    fn exchange(answer: &'static [u8], timeout: Duration) -> (NotifyOutcome, String) {
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
                // Hold the connection until the client's timeout.
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

    const LONG_TIMEOUT: Duration = Duration::from_secs(30);

    #[test]
    fn the_request_is_the_same_as_the_originals() {
        let (outcome, request) = exchange(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK", LONG_TIMEOUT);
        assert_eq!(outcome, NotifyOutcome::Delivered);
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
    fn answers_decide_the_outcome() {
        for (answer, outcome) in [
            (&b"HTTP/1.0 200 OK\r\n\r\nERROR: Invalid Service"[..], NotifyOutcome::ErrorBody),
            (b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", NotifyOutcome::Refused(401)),
            (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", NotifyOutcome::ServerError(503)),
            (
                b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
                NotifyOutcome::Refused(302),
            ),
            (b"nonsense\r\n\r\n", NotifyOutcome::InvalidHttp),
        ] {
            assert_eq!(exchange(answer, LONG_TIMEOUT).0, outcome, "{}", String::from_utf8_lossy(answer));
        }
    }

    #[test]
    fn a_missing_answer_is_a_timeout() {
        assert_eq!(exchange(b"", Duration::from_millis(100)).0, NotifyOutcome::TimedOut);
    }

    #[test]
    fn a_closed_port_is_unreachable() {
        let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (woken, wake) = mpsc::channel();
        let senders = senders(&format!("http://{unused}"), LONG_TIMEOUT, move || {
            let _ = woken.send(());
        });
        assert_eq!(senders.submit(job("/x")), None);
        wake.recv().unwrap();
        assert_eq!(senders.take_outcomes()[0].1, NotifyOutcome::Unreachable);
    }
}
