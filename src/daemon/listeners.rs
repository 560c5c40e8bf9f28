//! The listening sockets: the port of setup mode, the direct listeners, the WebSocket ports of `[serve]`, the port of `[status]`,
//! and the ports of plugins (LSTN).

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::Registry;
use mio::net::{TcpListener, TcpStream};
use nix::errno::Errno;
use socket2::SockRef;

use super::tokens;
use crate::access::AccessList;
use crate::client::ClientKey;
use crate::config::{Config, DirectListener, Limits};
use crate::net::listener::{deregister, listen, listen_at, register};
use crate::net::reason;
use crate::net::socket::{KeepAlive, set_options};
use crate::protocol::listen_settings::ListenSettings;
use crate::protocol::options::Protocol;
use crate::protocol::reply::TOO_MANY_LISTENERS;
use crate::session::{Key, Owner, PluginPort, WaitingArrival, not_served};
use crate::status::ListenerStatus;
use crate::websocket::handshake::Refusal;

/// Delay before accept(2) is tried again after EMFILE or ENOMEM. A session that ends shortens it.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Delay before a port of the configuration that another program has is tried again: this at first, then twice as long
/// each time, up to [`MAX_LISTEN_RETRY`]. At boot the other program may be about to end; later, one try costs a few system calls.
const FIRST_LISTEN_RETRY: Duration = Duration::from_millis(500);
/// See [`FIRST_LISTEN_RETRY`].
const MAX_LISTEN_RETRY: Duration = Duration::from_secs(16);

/// Log accept(2) exhaustion at most once per minute.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Ports that plugins listen on.
const MAX_PLUGIN_PORTS: usize = 64;

/// A listening socket, and what it serves.
#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    kind: ListenerKind,
    /// An event of this turn reports that a connection is waiting.
    ready: bool,
}

/// What a listener serves.
#[derive(Debug)]
pub(super) enum ListenerKind {
    /// Setup mode.
    Setup,
    /// Connections lead straight to a target.
    Direct(Box<DirectListener>),
    /// A port of `[serve]`. What it serves is in the configuration in force.
    Serve(u16),
    /// The port of `[status]`, and its address: `*` or a literal one.
    Status(u16, Box<str>),
    /// The plugins that listen.
    Plugins(Box<PluginPort>),
}

/// How a client is told that it may not connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RefusalForm {
    /// By a line of the protocol.
    Line,
    /// By a response of HTTP.
    Response,
    /// By the end of its connection: it speaks TLS, or something that the proxy does not know.
    Silence,
}

impl ListenerKind {
    /// The addresses that may connect: `allow=` of `[status]` or of `[host]`.
    pub(super) fn allow<'c>(&self, config: &'c Config) -> &'c AccessList {
        if let Self::Status(..) = self { &config.status.allow } else { &config.allow }
    }

    /// How a client is told that it may not connect.
    pub(super) fn refusal_form(&self, config: &Config) -> RefusalForm {
        match self {
            Self::Setup | Self::Direct(_) => RefusalForm::Line,
            Self::Status(..) => RefusalForm::Response,
            Self::Serve(port) if config.serve_tls(*port).is_some() => RefusalForm::Silence,
            Self::Serve(_) => RefusalForm::Response,
            Self::Plugins(port) if port.protocol == Protocol::Ws => RefusalForm::Response,
            Self::Plugins(_) => RefusalForm::Silence,
        }
    }

    fn plugins(&self) -> Option<&PluginPort> {
        if let Self::Plugins(port) = self { Some(port) } else { None }
    }

    fn plugins_mut(&mut self) -> Option<&mut PluginPort> {
        if let Self::Plugins(port) = self { Some(port) } else { None }
    }

    /// The port in the configuration, but for that of setup mode.
    fn port(&self) -> Option<u16> {
        match self {
            Self::Setup | Self::Plugins(_) => None,
            Self::Direct(direct) => Some(direct.port),
            Self::Serve(port) | Self::Status(port, _) => Some(*port),
        }
    }

    /// The address in the configuration, if it is not that of setup mode.
    fn address(&self) -> Option<&str> {
        if let Self::Status(_, address) = self { Some(address) } else { None }
    }

    /// True if both listen at the same place.
    fn has_place_of(&self, other: &Self) -> bool {
        (self.port(), self.address()) == (other.port(), other.address())
    }

    /// All but that of setup mode which `config` has.
    fn configured(config: &Config) -> impl Iterator<Item = Self> {
        let direct = config.direct.iter().cloned().map(Box::new).map(Self::Direct);
        let status = config.status.port.map(|port| Self::Status(port, config.status.address.clone()));
        direct.chain(config.serve_ports().into_iter().map(Self::Serve)).chain(status)
    }
}

/// All listening sockets. A listener keeps its number, which its token carries.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    listeners: Vec<Option<Listener>>,
    /// While nothing can be accepted, no listener is registered: its events would not stop.
    paused_until: Option<Instant>,
    /// When exhaustion was last logged.
    logged: Option<Instant>,
    /// The configuration has ports that could not be opened.
    retry: Option<ListenRetry>,
}

/// When ports that could not be opened are tried again.
#[derive(Clone, Copy, Debug)]
struct ListenRetry {
    at: Instant,
    /// The delay that leads to `at`.
    delay: Duration,
}

impl ListenRetry {
    fn first(now: Instant) -> Self {
        Self { at: now + FIRST_LISTEN_RETRY, delay: FIRST_LISTEN_RETRY }
    }

    fn next(self, now: Instant) -> Self {
        let delay = (2 * self.delay).min(MAX_LISTEN_RETRY);
        Self { at: now + delay, delay }
    }
}

/// An accepted connection.
#[derive(Debug)]
pub(super) struct Accepted {
    /// The connection.
    pub stream: TcpStream,
    /// Its peer.
    pub peer: SocketAddr,
    /// The number of the listener.
    pub listener: usize,
}

impl Listeners {
    /// Opens all listeners. An error says in one line why that of setup mode could not be opened. The others are tried again
    /// ([`Listeners::retry`]).
    pub(super) fn open(config: &Config, registry: &Registry, now: Instant) -> Result<Self, String> {
        let mut listeners = Self::default();
        let opened = listen(&config.address, config.port, keep_alive(&config.limits));
        listeners.add(config, config.port, opened, ListenerKind::Setup, registry)?;
        listeners.open_configured(config, registry, now);
        Ok(listeners)
    }

    /// Brings the listeners other than that of setup mode in line with a configuration that was read anew. Connections live on.
    pub(super) fn reload(&mut self, config: &Config, registry: &Registry, now: Instant) {
        for slot in &mut self.listeners {
            let Some(listener) = slot else { continue };
            if listener.kind.port().is_none() {
                continue;
            }
            match ListenerKind::configured(config).find(|new| new.has_place_of(&listener.kind)) {
                Some(new) => listener.kind = new,
                None => {
                    log::info!("no longer listening on {}", listener.address);
                    *slot = None;
                }
            }
        }
        for listener in self.listeners.iter().flatten() {
            set_options(SockRef::from(&listener.socket), keep_alive(&config.limits));
        }
        self.open_configured(config, registry, now);
    }

    /// Opens what the configuration has and is not open. Logs what cannot be opened, for which there will be a retry.
    fn open_configured(&mut self, config: &Config, registry: &Registry, now: Instant) {
        let errors = self.open_missing(config, registry);
        errors.iter().for_each(|error| log::error!("{error}; trying again"));
        self.retry = (!errors.is_empty()).then(|| ListenRetry::first(now));
    }

    /// Tries again what could not be opened, if it is time. True if something was opened.
    pub(super) fn retry(&mut self, config: &Config, registry: &Registry, now: Instant) -> bool {
        let Some(due) = self.retry.filter(|retry| retry.at <= now) else { return false };
        let before = self.ports().len();
        let errors = self.open_missing(config, registry);
        self.retry = (!errors.is_empty()).then(|| due.next(now));
        self.ports().len() > before
    }

    /// Opens what the configuration has and is not open. Returns a line for each that cannot be opened.
    fn open_missing(&mut self, config: &Config, registry: &Registry) -> Vec<String> {
        // Looking the name up that the configuration may have for the address would block the loop. That of setup mode
        // has been looked up.
        let own = self.listeners.iter().flatten().find(|listener| matches!(listener.kind, ListenerKind::Setup));
        let Some(mut address) = own.map(|listener| listener.address) else { return Vec::new() };
        let mut errors = Vec::new();
        for kind in ListenerKind::configured(config) {
            if self.listeners.iter().flatten().any(|listener| listener.kind.has_place_of(&kind)) {
                continue;
            }
            let port = kind.port().unwrap_or_default();
            address.set_port(port);
            let opened = match kind.address() {
                // It is no name.
                Some(address) => listen(address, port, keep_alive(&config.limits)),
                None => listen_at(address, keep_alive(&config.limits)),
            };
            errors.extend(self.add(config, port, opened, kind, registry).err());
        }
        errors
    }

    /// Closes all listeners.
    pub(super) fn close(&mut self) {
        *self = Self::default();
    }

    /// An event of a listener: a connection is waiting.
    pub(super) fn handle_event(&mut self, listener: usize) {
        if let Some(Some(listener)) = self.listeners.get_mut(listener) {
            listener.ready = true;
        }
    }

    /// A connection has ended, which may have freed what another one needs.
    pub(super) fn handle_session_end(&mut self, now: Instant) {
        self.paused_until = self.paused_until.map(|until| until.min(now));
    }

    /// Accepts up to `limit` connections of each listener that has had an event. The next poll reports those that are left.
    pub(super) fn accept(&mut self, limit: usize, registry: &Registry, now: Instant) -> Vec<Accepted> {
        if self.paused_until.is_some_and(|until| until <= now) {
            self.resume(registry);
        }
        let mut accepted = Vec::new();
        let mut exhausted = None;
        for (number, listener) in self.listeners.iter_mut().enumerate() {
            let Some(listener) = listener else { continue };
            if !std::mem::take(&mut listener.ready) {
                continue;
            }
            for _ in 0..limit {
                match listener.socket.accept() {
                    Ok((stream, peer)) => accepted.push(Accepted { stream, peer, listener: number }),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if is_exhaustion(&error) => {
                        exhausted = Some(error);
                        break;
                    }
                    // That connection has ended already (accept(2)); the next may be waiting.
                    Err(_) => {}
                }
            }
        }
        if let Some(error) = exhausted {
            self.pause(&error, registry, now);
        }
        accepted
    }

    fn pause(&mut self, error: &io::Error, registry: &Registry, now: Instant) {
        if self.logged.is_none_or(|before| now - before >= LOG_INTERVAL) {
            log::warn!("cannot accept for now: {error}");
            self.logged = Some(now);
        }
        for listener in self.listeners.iter().flatten() {
            let _ = deregister(registry, &listener.socket);
        }
        self.paused_until = Some(now + ACCEPT_RETRY_INTERVAL);
    }

    fn resume(&mut self, registry: &Registry) {
        self.paused_until = None;
        for (number, listener) in self.listeners.iter().enumerate() {
            if let Some(listener) = listener
                && let Err(error) = register(registry, &listener.socket, tokens::listener(number))
                && error.kind() != io::ErrorKind::AlreadyExists
            {
                log::error!("{} is not listened on: {error}", listener.address);
            }
        }
    }

    /// When to call [`Listeners::accept`] and [`Listeners::retry`] again, whatever happens meanwhile.
    pub(super) fn deadline(&self) -> Option<Instant> {
        [self.paused_until, self.retry.map(|retry| retry.at)].into_iter().flatten().min()
    }

    /// The address of a listener, and what it serves. `None`: there is no such listener any more.
    pub(super) fn get(&self, listener: usize) -> Option<(SocketAddr, &ListenerKind)> {
        let listener = self.listeners.get(listener)?.as_ref()?;
        Some((listener.address, &listener.kind))
    }

    /// The ports of plugins.
    fn plugin_ports(&self) -> impl Iterator<Item = (SocketAddr, &PluginPort)> {
        self.listeners.iter().flatten().filter_map(|listener| Some((listener.address, listener.kind.plugins()?)))
    }

    /// The ports of plugins, to be changed.
    fn plugin_ports_mut(&mut self) -> impl Iterator<Item = (SocketAddr, &mut PluginPort)> {
        self.listeners
            .iter_mut()
            .flatten()
            .filter_map(|listener| Some((listener.address, listener.kind.plugins_mut()?)))
    }

    /// Listens for the session `key`, or shares the listener of another. Returns the owner whose place it takes, which
    /// [`Listeners::remove_owner`] must be told of; an older owner of the same path gives way if `may_replace` it. An error
    /// is the reason of `ERR LSTN`.
    pub(super) fn add_owner(
        &mut self,
        key: Key,
        settings: &ListenSettings,
        config: &Config,
        may_replace: impl FnOnce(Key) -> bool,
        registry: &Registry,
    ) -> Result<Option<Key>, String> {
        let address = settings.address;
        if let Some((_, port)) = self.plugin_ports_mut().find(|(shared, _)| *shared == address) {
            if !port.fits(settings) {
                return Err(reason(&Errno::EADDRINUSE.into()));
            }
            return port.add(key, settings, may_replace).map_err(str::to_owned);
        }
        if self.plugin_ports().count() >= MAX_PLUGIN_PORTS {
            return Err(TOO_MANY_LISTENERS.into());
        }
        let socket = listen_at(address, keep_alive(&config.limits)).map_err(|error| reason(&error))?;
        let mut port = PluginPort::new(settings);
        port.add(key, settings, may_replace)?;
        self.insert(socket, address, ListenerKind::Plugins(Box::new(port)), registry)
            .map_err(|error| reason(&error))?;
        Ok(None)
    }

    /// The session `key` listens no longer. Its port is closed unless others share it. Returns the arrivals that waited for
    /// it. `None` if it did not listen.
    pub(super) fn remove_owner(&mut self, key: Key) -> Option<Vec<Key>> {
        let waited = self.plugin_ports_mut().find_map(|(_, port)| port.remove(key))?;
        for slot in &mut self.listeners {
            let port = slot.as_ref().and_then(|listener| listener.kind.plugins());
            if port.is_some_and(|port| port.owners().is_empty()) {
                *slot = None;
            }
        }
        Some(waited)
    }

    /// The owner of `path` at a plugins' listener, if another arrival of `client` may wait for it.
    pub(super) fn owner(
        &self,
        listener: (SocketAddr, Protocol),
        path: Option<&str>,
        client: ClientKey,
    ) -> Result<Key, Refusal> {
        let port = self.plugin_ports().find(|(address, port)| (*address, port.protocol) == listener);
        let (_, port) = port.ok_or_else(not_served)?;
        port.owner(path, client)
    }

    /// The owner that the arrival with this id waits for, and the arrival.
    pub(super) fn find_waiting(&self, id: &[u8]) -> Option<(Key, Key)> {
        self.plugin_ports().find_map(|(_, port)| port.find_waiting(id))
    }

    /// An arrival waits for `owner` from now on.
    pub(super) fn add_waiting(&mut self, owner: Key, arrival: WaitingArrival) {
        self.plugin_ports_mut().for_each(|(_, port)| port.add_waiting(owner, arrival));
    }

    /// An arrival waits no longer.
    pub(super) fn remove_waiting(&mut self, arrival: Key) {
        self.plugin_ports_mut().for_each(|(_, port)| port.remove_waiting(arrival));
    }

    /// The ports of all listeners: what no client reaches through the proxy.
    pub(super) fn ports(&self) -> Vec<u16> {
        self.listeners.iter().flatten().map(|listener| listener.address.port()).collect()
    }

    /// All listeners, as STAT JSON shows them: one of `[serve]` has an entry for each path. `pid` names the sessions that own
    /// one.
    pub(super) fn list(&self, config: &Config, pid: impl Fn(Key) -> String) -> Vec<ListenerStatus> {
        let mut list = Vec::new();
        for Listener { address, kind, .. } in self.listeners.iter().flatten() {
            let entry = |target, path| ListenerStatus { address: address.to_string(), target, path, plugins: None };
            match kind {
                ListenerKind::Setup => list.push(entry(None, None)),
                ListenerKind::Status(..) => list.push(entry(Some("status".into()), None)),
                ListenerKind::Direct(direct) => list.push(entry(Some(direct.target.to_string()), None)),
                ListenerKind::Serve(port) => list.extend(
                    config
                        .serve_on(*port)
                        .map(|line| entry(Some(line.target.to_string()), Some(line.settings.shown_path().to_owned()))),
                ),
                ListenerKind::Plugins(port) => {
                    let owner = |owner: &Owner| (pid(owner.key), owner.path.clone(), owner.waiting());
                    let plugins = Some((port.protocol, port.owners().iter().map(owner).collect()));
                    list.push(ListenerStatus { plugins, ..entry(None, None) });
                }
            }
        }
        list
    }

    /// Adds a listener that `opened` has for `port`.
    fn add(
        &mut self,
        config: &Config,
        port: u16,
        opened: io::Result<TcpListener>,
        kind: ListenerKind,
        registry: &Registry,
    ) -> Result<(), String> {
        let shown: Vec<String> = match &kind {
            ListenerKind::Setup | ListenerKind::Plugins(_) => vec![String::new()],
            ListenerKind::Status(..) => vec![" for the status".into()],
            ListenerKind::Direct(direct) => vec![format!(" for {}", direct.target)],
            ListenerKind::Serve(port) => config
                .serve_on(*port)
                .map(|line| {
                    format!(" ({}, {}) for {}", line.settings.scheme(), line.settings.shown_path(), line.target)
                })
                .collect(),
        };
        let wanted = kind.address().unwrap_or(&config.address).to_owned();
        let added = opened.and_then(|socket| {
            let address = socket.local_addr()?;
            self.insert(socket, address, kind, registry)?;
            Ok(address)
        });
        let address = added.map_err(|error| {
            let why =
                error.raw_os_error().map_or_else(|| error.to_string(), |errno| Errno::from_raw(errno).desc().into());
            format!("cannot listen on {wanted}:{port}: {why}")
        })?;
        shown.iter().for_each(|what| log::info!("listening on {address}{what}"));
        Ok(())
    }

    /// Adds a listener and registers it.
    fn insert(
        &mut self,
        socket: TcpListener,
        address: SocketAddr,
        kind: ListenerKind,
        registry: &Registry,
    ) -> io::Result<()> {
        let number = self.listeners.iter().position(Option::is_none).unwrap_or(self.listeners.len());
        register(registry, &socket, tokens::listener(number))?;
        let listener = Some(Listener { socket, address, kind, ready: false });
        if number == self.listeners.len() {
            self.listeners.push(listener);
        } else {
            self.listeners[number] = listener;
        }
        Ok(())
    }
}

/// The keep-alive probes of accepted connections.
fn keep_alive(limits: &Limits) -> Option<KeepAlive> {
    limits.keep_alive.map(|silence| KeepAlive::new(silence, limits.lost))
}

/// True if no connection can be accepted for now, rather than one that has ended (accept(2)).
fn is_exhaustion(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM))
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream as Client;

    use super::*;

    /// The options of a connection that the only listener accepts.
    fn options(listeners: &mut Listeners, registry: &Registry) -> (bool, bool, Option<Duration>) {
        let address = listeners.listeners[0].as_ref().unwrap().socket.local_addr().unwrap();
        let client = Client::connect(("127.0.0.1", address.port())).unwrap();
        let start = Instant::now();
        loop {
            listeners.handle_event(0);
            if let Some(Accepted { stream, peer, .. }) = listeners.accept(1, registry, Instant::now()).pop() {
                assert_eq!(peer.port(), client.local_addr().unwrap().port());
                let socket = SockRef::from(&stream);
                let asks = socket.keepalive().unwrap();
                let silence = asks.then(|| socket.tcp_keepalive_time().unwrap());
                return (socket.tcp_nodelay().unwrap(), socket.out_of_band_inline().unwrap(), silence);
            }
            assert!(start.elapsed() < Duration::from_secs(30), "no connection is accepted");
        }
    }

    #[test]
    fn accepted_connections_have_the_options_of_the_configuration_in_force() {
        let poll = mio::Poll::new().unwrap();
        let mut config = Config { port: 0, ..Config::default() };
        (config.limits.keep_alive, config.limits.lost) = (Some(Duration::from_secs(77)), None);
        for address in ["127.0.0.1", "*"] {
            config.address = address.into();
            let mut listeners = Listeners::open(&config, poll.registry(), Instant::now()).unwrap();
            for silence in [Some(77), None, Some(5)].map(|silence| silence.map(Duration::from_secs)) {
                config.limits.keep_alive = silence;
                listeners.reload(&config, poll.registry(), Instant::now());
                assert_eq!(options(&mut listeners, poll.registry()), (true, true, silence), "{address}");
            }
        }
    }

    #[test]
    fn a_port_that_is_taken_is_tried_again_with_growing_delay() {
        let poll = mio::Poll::new().unwrap();
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let mut config = Config { address: "127.0.0.1".into(), port: 0, ..Config::default() };
        (config.status.port, config.status.address) = (Some(port), "127.0.0.1".into());
        let mut now = Instant::now();
        let mut listeners = Listeners::open(&config, poll.registry(), now).unwrap();
        for delay in [500, 1000, 2000, 4000, 8000, 16000, 16000].map(Duration::from_millis) {
            assert_eq!(listeners.deadline(), Some(now + delay));
            now += delay;
            assert!(!listeners.retry(&config, poll.registry(), now - Duration::from_millis(1)), "early");
            assert_eq!(listeners.deadline(), Some(now), "an early call changes nothing");
            assert!(!listeners.retry(&config, poll.registry(), now));
        }
        listeners.reload(&config, poll.registry(), now);
        assert_eq!(listeners.deadline(), Some(now + FIRST_LISTEN_RETRY), "a new configuration begins anew");
        drop(taken);
        now += FIRST_LISTEN_RETRY;
        assert!(listeners.retry(&config, poll.registry(), now));
        assert!(listeners.ports().contains(&port));
        assert_eq!(listeners.deadline(), None);
        assert!(!listeners.retry(&config, poll.registry(), now + MAX_LISTEN_RETRY), "nothing is left to open");
    }

    #[test]
    fn a_port_that_the_configuration_no_longer_has_is_not_tried_again() {
        let poll = mio::Poll::new().unwrap();
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut config = Config { address: "127.0.0.1".into(), port: 0, ..Config::default() };
        (config.status.port, config.status.address) = (Some(taken.local_addr().unwrap().port()), "127.0.0.1".into());
        let mut listeners = Listeners::open(&config, poll.registry(), Instant::now()).unwrap();
        assert!(listeners.deadline().is_some());
        config.status.port = None;
        listeners.reload(&config, poll.registry(), Instant::now());
        assert_eq!(listeners.deadline(), None);
    }
}
