//! TLS handshakes, on threads of their own: on a 500 MHz MIPS a handshake takes tens to hundreds of milliseconds.
//!
//! The session keeps the socket. It passes received bytes to [`Handshakes::advance`], sends the bytes of each
//! [`TlsStep`], and builds a [`super::TlsStream`] from the [`TlsConnection`] at the end.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::ServerConfig;
use rustls::pki_types::ServerName;

use super::first_bytes::FirstBytes;
use super::unbuffered::{TlsState, UnbufferedConnection};
use super::{ServerTlsSettings, TlsContext, TlsError, TlsRole, TlsSettings};
use crate::client::ClientKey;
use crate::thread_pool::{JobClass, ThreadPool, ThreadPoolSettings};

/// Stack of a handshake thread in bytes. rustls and webpki use about 40 KiB, most of it to build certificate chains.
const STACK: usize = 256 * 1024;
/// Niceness of a handshake thread. A handshake computes for tens of milliseconds and must not delay the event loop or
/// Luup. At niceness 10 the thread still gets a tenth of a busy processor.
const NICE: i32 = 10;
/// Length of a TLS record header (RFC 8446 section 5.1).
pub(super) const RECORD_HEADER: usize = 5;
/// Bytes of memory that each received byte of a handshake may take until the handshake is done: rustls keeps the server's
/// certificates, and the shortest has four bytes in the message (RFC 5246 section 7.4.2), a `Vec` and a block of memory.
const MEMORY_PER_BYTE: usize = (size_of::<Vec<u8>>() + 4 * size_of::<usize>()) / 4;

/// What a client of plain HTTP gets, as from other servers: a browser shows it.
const TLS_ONLY: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 49\r\n\
                          Connection: close\r\n\r\nThis port takes TLS only: use https:// or wss://\n";

/// Runs handshakes on a thread pool. `K` identifies a session; each step comes back with its key.
pub(crate) struct Handshakes<K> {
    context: Arc<TlsContext>,
    pool: ThreadPool<HandshakeJob<K>, HandshakeResult<K>>,
    /// The current job of each key. A key that has cancelled may begin a new handshake; results of the old one no longer
    /// match this entry and are dropped.
    current: HashMap<K, Cancelled>,
}

/// A handshake that waits for the peer's next bytes.
#[derive(Debug)]
pub(crate) struct PendingHandshake {
    connection: Box<UnbufferedConnection>,
    /// True once the peer has sent a whole record header, so that its first bytes need no further check.
    is_tls: bool,
    /// Bytes received so far.
    received: usize,
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub(crate) struct TlsConnection {
    pub(super) connection: Box<UnbufferedConnection>,
    /// Decrypted bytes that came with the end of the handshake.
    pub(super) plain: Vec<u8>,
}

impl TlsConnection {
    /// The negotiated version as OpenSSL prints it, for example `TLSv1.3`.
    #[cfg(test)]
    pub(crate) fn version(&self) -> &'static str {
        self.connection.version()
    }

    /// Bytes held: decrypted ones, and a record that has come in part.
    pub(crate) fn held(&self) -> usize {
        self.plain.len() + self.connection.incomplete().len() + self.connection.state_memory()
    }
}

/// The result of `begin` or `advance`.
#[derive(Debug)]
pub(crate) struct TlsStep {
    /// Bytes to send to the peer, after those of earlier steps. They must be sent whatever the outcome is: with
    /// [`TlsOutcome::Failed`] they are the alert, or a client of plain HTTP is told that the port takes TLS.
    pub to_send: Vec<u8>,
    /// How the handshake continues.
    pub outcome: TlsOutcome,
}

/// How a handshake continues.
#[derive(Debug)]
pub(crate) enum TlsOutcome {
    /// The peer must send first.
    Pending(PendingHandshake),
    /// The handshake is done. Bytes that came after it are inside the connection.
    Done(TlsConnection),
    /// The handshake failed.
    Failed(TlsError),
}

/// True once the result of a job is no longer wanted, so that no thread needs to start it.
type Cancelled = Arc<AtomicBool>;

struct HandshakeJob<K> {
    key: K,
    cancelled: Cancelled,
    task: HandshakeTask,
}

enum HandshakeTask {
    Begin(Arc<TlsContext>, Box<str>, TlsSettings),
    BeginServer(Arc<TlsContext>, ServerTlsSettings),
    Advance(PendingHandshake, Vec<u8>),
}

struct HandshakeResult<K> {
    key: K,
    cancelled: Cancelled,
    /// `None` if the job was cancelled before a thread started it.
    step: Option<TlsStep>,
}

impl<K: Clone + Eq + Hash + Send + 'static> Handshakes<K> {
    /// A pool of at most `max_threads` threads. `wake` is called from a pool thread whenever
    /// [`Handshakes::take_results`] has something to return.
    pub(crate) fn new(context: Arc<TlsContext>, max_threads: usize, wake: impl Fn() + Send + Sync + 'static) -> Self {
        let work = |HandshakeJob { key, cancelled, task }: HandshakeJob<K>| {
            let step = (!cancelled.load(Ordering::Relaxed)).then(|| task.run());
            HandshakeResult { key, cancelled, step }
        };
        let pool = ThreadPool::new(ThreadPoolSettings {
            name: "tls",
            max_threads,
            urgent_threads: 0,
            stack_size: STACK,
            nice: NICE,
            work: Box::new(work),
            wake: Box::new(wake),
        });
        Self { context, pool, current: HashMap::new() }
    }

    /// Begins a handshake for `client` with `host`, a name or a literal address without brackets. A key has one handshake at a
    /// time; a previous one is cancelled.
    pub(crate) fn begin(&mut self, key: K, client: ClientKey, host: &str, settings: &TlsSettings) {
        let task = HandshakeTask::Begin(Arc::clone(&self.context), host.into(), settings.clone());
        self.submit(class_of(client, JobClass::Normal), key, task);
    }

    /// Begins a handshake with `client` as the server, with the certificate of `settings`. The first step comes before the client has sent
    /// anything, has no bytes to send, and is [`TlsOutcome::Failed`] if the certificate cannot be used: to check a
    /// certificate, begin a handshake and drop it when it is pending. A key has one handshake at a time; a previous one is
    /// cancelled.
    pub(crate) fn begin_server(&mut self, key: K, client: ClientKey, settings: &ServerTlsSettings) {
        let task = HandshakeTask::BeginServer(Arc::clone(&self.context), settings.clone());
        self.submit(class_of(client, JobClass::Normal), key, task);
    }

    /// Continues a handshake with bytes from the peer. Empty `received` means that the peer has closed.
    pub(crate) fn advance(&mut self, key: K, client: ClientKey, pending: PendingHandshake, received: Vec<u8>) {
        // Handshakes under way go first: it is better that some finish than that all are late.
        self.submit(class_of(client, JobClass::Urgent), key, HandshakeTask::Advance(pending, received));
    }

    /// The steps since the last call. Steps of cancelled handshakes are dropped.
    pub(crate) fn take_results(&mut self) -> Vec<(K, TlsStep)> {
        let mut steps = Vec::new();
        for HandshakeResult { key, cancelled, step } in self.pool.take_results() {
            if self.current.get(&key).is_some_and(|current| Arc::ptr_eq(current, &cancelled)) {
                self.current.remove(&key);
                steps.extend(step.map(|step| (key, step)));
            }
        }
        steps
    }

    /// Cancels the handshake of `key`, if there is one. Its result is dropped.
    pub(crate) fn cancel(&mut self, key: &K) {
        if let Some(cancelled) = self.current.remove(key) {
            cancelled.store(true, Ordering::Relaxed);
            self.pool.cancel(|job| Arc::ptr_eq(&job.cancelled, &cancelled));
        }
    }

    /// Sets the context for handshakes that begin from now on, after a reload of the configuration.
    pub(crate) fn set_context(&mut self, context: Arc<TlsContext>) {
        self.context = context;
    }

    /// If the pool has no thread and cannot start one, the job waits for a later one, and its session ends by its own time
    /// limits.
    fn submit(&mut self, class: JobClass, key: K, task: HandshakeTask) {
        self.cancel(&key);
        let cancelled = Cancelled::default();
        self.current.insert(key.clone(), Arc::clone(&cancelled));
        self.pool.submit(class, HandshakeJob { key, cancelled, task });
    }
}

/// The class of a job for `client`, which is `of_loopback` for loopback. Clients of other machines have half of the threads, so that
/// plugins do not wait for them, however many handshakes they begin.
fn class_of(client: ClientKey, of_loopback: JobClass) -> JobClass {
    if client.is_loopback() { of_loopback } else { JobClass::Slow }
}

impl HandshakeTask {
    fn run(self) -> TlsStep {
        let begun = match self {
            Self::Advance(pending, received) => return pending.advance(&received),
            Self::Begin(context, host, settings) => begin(&context, &host, &settings),
            Self::BeginServer(context, settings) => {
                begin_server(&context, &settings).map(|pending| (pending, Vec::new()))
            }
        };
        match begun {
            Ok((pending, to_send)) => TlsStep { to_send, outcome: TlsOutcome::Pending(pending) },
            Err(error) => TlsStep { to_send: Vec::new(), outcome: TlsOutcome::Failed(error) },
        }
    }
}

/// Bytes of memory that a handshake takes at most which has received this many bytes.
pub(crate) fn handshake_memory(received: usize) -> usize {
    received * MEMORY_PER_BYTE
}

/// Bytes that a handshake may receive with this much memory.
pub(crate) fn handshake_room(memory: usize) -> usize {
    memory / MEMORY_PER_BYTE
}

/// Begins a handshake with `host` and returns it with the ClientHello to send. May read files and compute for tens of
/// milliseconds.
pub(crate) fn begin(
    context: &TlsContext,
    host: &str,
    settings: &TlsSettings,
) -> Result<(PendingHandshake, Vec<u8>), TlsError> {
    let name = server_name(settings.server_name.as_deref().unwrap_or(host))?;
    let client = UnbufferedConnection::client(context.config(settings)?, name)
        .map_err(|error| TlsError::from_rustls(&error, TlsRole::Client, None))?;
    let mut pending = PendingHandshake::new(client);
    let mut to_send = Vec::new();
    let state = pending.connection.process(&mut [], &mut to_send, |_| ());
    state.map_err(|error| pending.connection.error(&error))?;
    Ok((pending, to_send))
}

/// Begins a handshake as the server, which waits for a ClientHello. May read files and compute for tens of milliseconds.
/// Errors: the certificate or its key cannot be used.
pub(crate) fn begin_server(context: &TlsContext, settings: &ServerTlsSettings) -> Result<PendingHandshake, TlsError> {
    PendingHandshake::of_server(context.server_config(settings)?)
}

/// Parses the name to verify. RFC 6066 section 3: a literal address is not sent as a server name; it is verified as an
/// address.
fn server_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    // The zone of an address (fe80::1%eth0) and the trailing dot of a name are not part of what a certificate holds.
    let address = name.split_once('%').map_or(name, |(address, _)| address);
    if let Ok(address) = address.parse::<IpAddr>() {
        return Ok(ServerName::IpAddress(address.into()));
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    ServerName::try_from(name.to_owned()).map_err(|_| TlsError::new(format!("'{name}' is no server's name")))
}

impl PendingHandshake {
    fn new(connection: UnbufferedConnection) -> Self {
        Self { connection: Box::new(connection), is_tls: false, received: 0 }
    }

    /// A server that waits for a ClientHello. Errors: those of rustls for the configuration.
    pub(crate) fn of_server(config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        let server = UnbufferedConnection::server(config);
        server.map(Self::new).map_err(|error| TlsError::from_rustls(&error, TlsRole::Server, None))
    }

    /// Continues with bytes from the peer. Empty `received` means that the peer has closed. May compute for tens of
    /// milliseconds.
    pub(crate) fn advance(mut self, received: &[u8]) -> TlsStep {
        let mut to_send = Vec::new();
        let outcome = match self.process(received, &mut to_send) {
            Ok((TlsState::Handshake, _)) => TlsOutcome::Pending(self),
            Ok((_, plain)) => TlsOutcome::Done(TlsConnection { connection: self.connection, plain }),
            Err(error) => TlsOutcome::Failed(error),
        };
        TlsStep { to_send, outcome }
    }

    /// Bytes received so far. See [`handshake_memory`].
    pub(crate) fn received(&self) -> usize {
        self.received
    }

    fn process(&mut self, received: &[u8], to_send: &mut Vec<u8>) -> Result<(TlsState, Vec<u8>), TlsError> {
        if received.is_empty() {
            return Err(TlsError::closed(self.connection.role(), self.connection.negotiated()));
        }
        self.received += received.len();
        let mut incoming = [self.connection.incomplete(), received].concat();
        let role = self.connection.role();
        if !self.is_tls {
            let first = FirstBytes::of(&incoming, role);
            if let Some(error) = first.error(role) {
                if (role, first) == (TlsRole::Server, FirstBytes::Http) {
                    to_send.extend_from_slice(TLS_ONLY);
                }
                return Err(error);
            }
        }
        let mut plain = Vec::new();
        let state = self.connection.process(&mut incoming, to_send, |bytes| plain.extend_from_slice(bytes));
        let state = state.map_err(|error| self.connection.error(&error))?;
        self.is_tls |= incoming.len() >= RECORD_HEADER;
        Ok((state, plain))
    }
}
