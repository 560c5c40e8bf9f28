//! Handshakes, off the loop: on a 500 MHz MIPS one takes tens to hundreds of milliseconds.
//!
//! The loop keeps the socket. It hands what it has received to [`Handshakes::advance`], sends what a [`Step`] says,
//! and makes a [`super::TlsStream`] of the connection in the end.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::pki_types::ServerName;

use super::connection::{Connection, Reached};
use super::error::{self, Failure};
use super::{House, Settings};
use crate::thread_pool::{JobClass, ThreadPool, ThreadPoolSettings};

/// rustls and webpki need some 40 KiB of stack, most of it for checking chains.
const STACK: usize = 256 * 1024;
/// A thread that computes for tens of milliseconds must not keep the loop waiting when a byte comes, nor Luup. Beside
/// somebody who is as busy it still gets a tenth of a processor.
const NICE: i32 = 10;

/// Makes handshakes on threads of its own. `K` is what the asker wants back with a step.
pub struct Handshakes<K> {
    house: Arc<House>,
    pool: ThreadPool<Job<K>, Done<K>>,
    /// Who waits for a step, and for which: an asker that has withdrawn may ask again.
    waiting: HashMap<K, Ticket>,
}

/// A handshake that waits for the server's next bytes.
#[derive(Debug)]
pub struct Pending {
    connection: Box<Connection>,
    /// The server has said something, and in TLS.
    heard: bool,
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct TlsConnection {
    pub(super) connection: Box<Connection>,
    /// What came behind the handshake.
    pub(super) plain: Vec<u8>,
    /// Nothing more comes.
    pub(super) closed: bool,
}

impl TlsConnection {
    /// The version that is spoken, in OpenSSL's words: `TLSv1.3`.
    pub fn version(&self) -> &'static str {
        self.connection.version()
    }
}

/// What came of `begin` or `advance`.
#[derive(Debug)]
pub struct Step {
    /// To be sent to the server, behind what earlier steps said, whatever the outcome is: a failure may have an alert.
    pub to_send: Vec<u8>,
    /// How it goes on.
    pub outcome: Outcome,
}

/// How a handshake goes on.
#[derive(Debug)]
pub enum Outcome {
    /// The server is to answer.
    More(Pending),
    /// It is done. What came behind the handshake is inside the connection.
    Done(TlsConnection),
    /// There will be no connection.
    Failed(Failure),
}

/// Set when nobody waits for the job any more, so that no thread need do it.
type Ticket = Arc<AtomicBool>;

struct Job<K> {
    asker: K,
    ticket: Ticket,
    task: Task,
}

enum Task {
    Begin(Arc<House>, Box<str>, Settings),
    Advance(Pending, Vec<u8>),
}

struct Done<K> {
    asker: K,
    ticket: Ticket,
    /// `None`: nobody waited.
    step: Option<Step>,
}

impl<K: Clone + Eq + Hash + Send + 'static> Handshakes<K> {
    /// Handshakes of at most `most` at once; `wake` is called when there is a result.
    pub fn new(house: Arc<House>, most: usize, wake: impl Fn() + Send + Sync + 'static) -> Self {
        let work = |Job { asker, ticket, task }: Job<K>| {
            let step = (!ticket.load(Ordering::Relaxed)).then(|| task.perform());
            Done { asker, ticket, step }
        };
        let pool = ThreadPool::new(ThreadPoolSettings {
            name: "tls",
            max_threads: most,
            stack_size: STACK,
            nice: NICE,
            work: Box::new(work),
            wake: Box::new(wake),
        });
        Self { house, pool, waiting: HashMap::new() }
    }

    /// Begins a handshake with `host`, a name or a literal address (without brackets). An asker has one at a time.
    pub fn begin(&mut self, asker: K, host: &str, settings: &Settings) {
        let job = self.job(asker, Task::Begin(Arc::clone(&self.house), host.into(), settings.clone()));
        self.pool.submit(JobClass::Normal, job);
    }

    /// Goes on with what the server has sent. Nothing means that it has ended.
    pub fn advance(&mut self, asker: K, pending: Pending, received: Vec<u8>) {
        let job = self.job(asker, Task::Advance(pending, received));
        // It is better that some handshakes are done than that all are late.
        self.pool.submit(JobClass::Urgent, job);
    }

    /// The steps since the last call.
    pub fn take_results(&mut self) -> Vec<(K, Step)> {
        let mut steps = Vec::new();
        for Done { asker, ticket, step } in self.pool.take_results() {
            if self.waiting.get(&asker).is_some_and(|waiting| Arc::ptr_eq(waiting, &ticket)) {
                self.waiting.remove(&asker);
                steps.extend(step.map(|step| (asker, step)));
            }
        }
        steps
    }

    /// The asker waits no more: whatever comes of its handshake is dropped.
    pub fn withdraw(&mut self, asker: &K) {
        if let Some(ticket) = self.waiting.remove(asker) {
            ticket.store(true, Ordering::Relaxed);
            self.pool.cancel(|job| Arc::ptr_eq(&job.ticket, &ticket));
        }
    }

    /// From now on, handshakes begin in `house`: the configuration has changed.
    pub fn set_house(&mut self, house: Arc<House>) {
        self.house = house;
    }

    fn job(&mut self, asker: K, task: Task) -> Job<K> {
        self.withdraw(&asker);
        let ticket = Ticket::default();
        self.waiting.insert(asker.clone(), Arc::clone(&ticket));
        Job { asker, ticket, task }
    }
}

impl Task {
    fn perform(self) -> Step {
        let begun = match self {
            Self::Advance(pending, received) => return pending.advance(&received),
            Self::Begin(house, host, settings) => begin(&house, &host, &settings),
        };
        match begun {
            Ok((pending, to_send)) => Step { to_send, outcome: Outcome::More(pending) },
            Err(failure) => Step { to_send: Vec::new(), outcome: Outcome::Failed(failure) },
        }
    }
}

/// Says hello to `host`. May read files and compute for long.
pub fn begin(house: &House, host: &str, settings: &Settings) -> Result<(Pending, Vec<u8>), Failure> {
    let name = server_name(settings.server_name.as_deref().unwrap_or(host))?;
    let connection = Connection::new(house.config(settings)?, name).map_err(|error| Failure::of(&error))?;
    let mut pending = Pending { connection: Box::new(connection), heard: false };
    let mut to_send = Vec::new();
    let said = pending.connection.process(&mut [], &mut to_send, |_| ());
    said.map_err(|error| Failure::of(&error))?;
    Ok((pending, to_send))
}

/// Addresses are verified as such, and are not sent as names (RFC 6066, section 3).
fn server_name(name: &str) -> Result<ServerName<'static>, Failure> {
    // An interface (fe80::1%eth0) is our own matter, and the root's dot the resolver's.
    let address = name.split_once('%').map_or(name, |(address, _)| address);
    if let Ok(address) = address.parse::<IpAddr>() {
        return Ok(ServerName::IpAddress(address.into()));
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    ServerName::try_from(name.to_owned()).map_err(|_| Failure::new(format!("'{name}' is no server's name")))
}

impl Pending {
    /// Goes on with what the server has sent. Nothing means that it has ended. May compute for long.
    pub fn advance(mut self, received: &[u8]) -> Step {
        let mut to_send = Vec::new();
        let outcome = self.process(received, &mut to_send);
        let outcome = match outcome {
            Ok((Reached::Handshake, _)) => Outcome::More(self),
            Ok((reached, plain)) => {
                let closed = reached == Reached::Closed;
                Outcome::Done(TlsConnection { connection: self.connection, plain, closed })
            }
            Err(failure) => Outcome::Failed(failure),
        };
        Step { to_send, outcome }
    }

    fn process(&mut self, received: &[u8], to_send: &mut Vec<u8>) -> Result<(Reached, Vec<u8>), Failure> {
        if received.is_empty() {
            return Err(Failure::new("closed by the server during the handshake"));
        }
        let mut incoming = [self.connection.rest(), received].concat();
        if !self.heard
            && let Some(failure) = error::of_first_bytes(&incoming)
        {
            return Err(failure);
        }
        let mut plain = Vec::new();
        let reached = self.connection.process(&mut incoming, to_send, |bytes| plain.extend_from_slice(bytes));
        let reached = reached.map_err(|error| Failure::of(&error))?;
        self.heard |= incoming.len() >= 5;
        Ok((reached, plain))
    }
}
