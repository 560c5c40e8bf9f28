//! A network in memory, for simulations of whole sessions: connections that stand at once, later, never, or are refused,
//! and datagrams. Each connection is a [`Wire`] that the session and the test share.

use std::cell::{Ref, RefCell, RefMut};
use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use mio::Token;

use super::wire::{FaultProfile, Wire};
use crate::net::attempts::ExtraAttempts;
use crate::net::datagrams::OpenDatagramsError;
use crate::net::network::Network;
use crate::net::readiness::Readiness;
use crate::net::socket::{Datagrams, KeepAlive, Stream};
use crate::net::user_timeout::Unacknowledged;
use crate::protocol::datagram_settings::DatagramSettings;

/// What comes of connecting to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectPlan {
    /// The connection stands when it is first asked for.
    Immediate,
    /// It stands once the test says so.
    Later,
    /// It is refused when it is first asked for.
    Refused,
    /// connect(2) itself fails.
    Unreachable,
    /// No answer comes.
    Never,
}

/// How far connecting has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    Pending,
    Connected,
    Refused,
}

/// One connection: its wire, and what is known of its two ends.
#[derive(Debug)]
struct Line {
    wire: Wire,
    attempt: Attempt,
    token: Option<Token>,
    /// The session has dropped its end.
    dropped: bool,
}

/// The session's end of a connection.
#[derive(Debug)]
pub(crate) struct SimStream(Rc<RefCell<Line>>);

/// The peer's end of a connection, which is the test's.
#[derive(Clone, Debug)]
pub(crate) struct SimPeer(Rc<RefCell<Line>>);

/// A connection: the session's end, and the peer's. `room`: bytes that may be written at first.
pub(crate) fn connection(faults: FaultProfile, room: usize) -> (SimStream, SimPeer) {
    let mut wire = Wire::new(faults);
    wire.make_room(room);
    let line = Rc::new(RefCell::new(Line { wire, attempt: Attempt::Connected, token: None, dropped: false }));
    (SimStream(Rc::clone(&line)), SimPeer(line))
}

impl SimStream {
    /// Has events of the connection come for `token`.
    pub(crate) fn register(&self, token: Token) {
        self.0.borrow_mut().token = Some(token);
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        self.0.borrow_mut().dropped = true;
    }
}

impl SimPeer {
    /// The wire.
    pub(crate) fn wire(&self) -> Ref<'_, Wire> {
        Ref::map(self.0.borrow(), |line| &line.wire)
    }

    /// The wire.
    pub(crate) fn wire_mut(&self) -> RefMut<'_, Wire> {
        RefMut::map(self.0.borrow_mut(), |line| &mut line.wire)
    }

    /// True if the session has dropped its end.
    pub(crate) fn is_dropped(&self) -> bool {
        self.0.borrow().dropped
    }

    /// True if the connection stands.
    pub(crate) fn is_connected(&self) -> bool {
        self.0.borrow().attempt == Attempt::Connected
    }

    /// The connection stands now, or is refused.
    pub(crate) fn finish_connecting(&self, succeeds: bool) {
        let mut line = self.0.borrow_mut();
        if line.attempt == Attempt::Pending {
            line.attempt = if succeeds { Attempt::Connected } else { Attempt::Refused };
            line.wire.report(Readiness {
                readable: !succeeds,
                writable: true,
                closed: !succeeds,
                ..Readiness::default()
            });
        }
    }

    /// The event that reports what has happened since the last one, and its token. `None` if nothing has, or the
    /// session has dropped its end.
    pub(crate) fn take_event(&self) -> Option<(Token, Readiness)> {
        let mut line = self.0.borrow_mut();
        if line.dropped || !line.wire.has_news() {
            return None;
        }
        let token = line.token?;
        Some((token, line.wire.take_event()))
    }
}

impl Stream for SimStream {
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.borrow_mut().wire.recv(buffer)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().wire.send(bytes)
    }

    fn flush(&mut self) -> io::Result<bool> {
        self.0.borrow_mut().wire.flush()
    }

    fn unacknowledged(&self) -> Option<Unacknowledged> {
        self.0.borrow().wire.unacknowledged()
    }

    fn shutdown_write(&mut self) {
        // shutdown(2) of a connection that has broken fails, and a second one does nothing.
        let mut line = self.0.borrow_mut();
        if !line.wire.is_told() {
            line.wire.shutdown_write();
        }
    }
}

/// A datagram socket in memory.
#[derive(Debug, Default)]
struct Mailbox {
    to_session: VecDeque<(Vec<u8>, SocketAddr)>,
    from_session: Vec<(Vec<u8>, SocketAddr)>,
    room: usize,
    wants_room: bool,
    news: Readiness,
    token: Option<Token>,
    dropped: bool,
}

/// The session's end of a datagram socket.
#[derive(Debug)]
pub(crate) struct SimDatagrams(Rc<RefCell<Mailbox>>);

/// The test's end of a datagram socket.
#[derive(Clone, Debug)]
pub(crate) struct SimDatagramPeer(Rc<RefCell<Mailbox>>);

impl Drop for SimDatagrams {
    fn drop(&mut self) {
        self.0.borrow_mut().dropped = true;
    }
}

impl SimDatagramPeer {
    /// Sends a datagram to the session.
    pub(crate) fn send(&self, payload: &[u8], sender: SocketAddr) {
        let mut mailbox = self.0.borrow_mut();
        mailbox.to_session.push_back((payload.to_vec(), sender));
        mailbox.news.readable = true;
    }

    /// Datagrams that the session has yet to receive.
    pub(crate) fn unread(&self) -> usize {
        self.0.borrow().to_session.len()
    }

    /// The session may send `datagrams` more.
    pub(crate) fn make_room(&self, datagrams: usize) {
        let mut mailbox = self.0.borrow_mut();
        mailbox.room += datagrams;
        if mailbox.wants_room && mailbox.room > 0 {
            (mailbox.wants_room, mailbox.news.writable) = (false, true);
        }
    }

    /// Takes what the session has sent.
    pub(crate) fn take(&self) -> Vec<(Vec<u8>, SocketAddr)> {
        std::mem::take(&mut self.0.borrow_mut().from_session)
    }

    /// Datagrams that the session may still send.
    pub(crate) fn room(&self) -> usize {
        self.0.borrow().room
    }

    /// True if something has happened that no event has reported.
    pub(crate) fn has_news(&self) -> bool {
        let mailbox = self.0.borrow();
        !mailbox.dropped && mailbox.news != Readiness::default()
    }

    /// See [`SimPeer::take_event`].
    pub(crate) fn take_event(&self) -> Option<(Token, Readiness)> {
        let mut mailbox = self.0.borrow_mut();
        if mailbox.dropped || mailbox.news == Readiness::default() {
            return None;
        }
        let token = mailbox.token?;
        Some((token, std::mem::take(&mut mailbox.news)))
    }
}

impl Datagrams for SimDatagrams {
    fn recv_from(&mut self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (payload, sender) = self.0.borrow_mut().to_session.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        let length = payload.len().min(buffer.len());
        buffer[..length].copy_from_slice(&payload[..length]);
        Ok((length, sender))
    }

    fn send_to(&mut self, payload: &[u8], to: SocketAddr) -> io::Result<usize> {
        let mut mailbox = self.0.borrow_mut();
        if mailbox.room == 0 {
            mailbox.wants_room = true;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        mailbox.room -= 1;
        mailbox.from_session.push((payload.to_vec(), to));
        Ok(payload.len())
    }
}

/// The network.
#[derive(Debug)]
pub(crate) struct SimNetwork {
    /// What comes of connecting to an address; of others, nothing ever does.
    pub plans: HashMap<SocketAddr, ConnectPlan>,
    /// How new connections misbehave, and how many bytes may be written to them at first.
    pub profile: (FaultProfile, usize),
    /// The peers' ends of connections that sessions have begun since the test last looked.
    pub begun: Vec<(SocketAddr, SimPeer)>,
    /// Likewise of datagram sockets.
    pub opened: Vec<(SocketAddr, SimDatagramPeer)>,
    /// Registering a connection anew fails.
    pub reregister_fails: bool,
    /// Addresses of this machine beside loopback.
    pub own: HashSet<IpAddr>,
    /// Attempts to connect beyond the first of each connection.
    pub extra_attempts: ExtraAttempts,
}

impl Default for SimNetwork {
    fn default() -> Self {
        Self {
            plans: HashMap::new(),
            profile: <(FaultProfile, usize)>::default(),
            begun: Vec::new(),
            opened: Vec::new(),
            reregister_fails: false,
            own: HashSet::new(),
            extra_attempts: ExtraAttempts::new(32),
        }
    }
}

impl Network for SimNetwork {
    type Stream = SimStream;
    type Datagrams = SimDatagrams;

    fn connect(&mut self, to: SocketAddr, token: Token) -> io::Result<SimStream> {
        let plan = self.plans.get(&to).copied().unwrap_or(ConnectPlan::Never);
        if plan == ConnectPlan::Unreachable {
            return Err(io::ErrorKind::NetworkUnreachable.into());
        }
        let (stream, peer) = connection(self.profile.0, self.profile.1);
        stream.register(token);
        let attempt = match plan {
            ConnectPlan::Immediate => Attempt::Connected,
            ConnectPlan::Refused => Attempt::Refused,
            _ => Attempt::Pending,
        };
        {
            let mut line = stream.0.borrow_mut();
            line.attempt = attempt;
            if attempt != Attempt::Pending {
                line.wire.report(Readiness { writable: true, ..Readiness::default() });
            }
        }
        self.begun.push((to, peer));
        Ok(stream)
    }

    fn poll_connected(&mut self, stream: &SimStream, _: SocketAddr) -> io::Result<bool> {
        match stream.0.borrow().attempt {
            Attempt::Pending => Ok(false),
            Attempt::Connected => Ok(true),
            Attempt::Refused => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }

    fn set_no_delay(&mut self, _: &SimStream) {}

    fn set_keep_alive(&mut self, _: &SimStream, _: KeepAlive) {}

    fn open_datagrams(
        &mut self,
        target: SocketAddr,
        _: &DatagramSettings,
        token: Token,
    ) -> Result<SimDatagrams, OpenDatagramsError> {
        if self.plans.get(&target) == Some(&ConnectPlan::Unreachable) {
            return Err(OpenDatagramsError::Socket(io::ErrorKind::AddrNotAvailable.into()));
        }
        let mailbox = Rc::new(RefCell::new(Mailbox { token: Some(token), ..Mailbox::default() }));
        self.opened.push((target, SimDatagramPeer(Rc::clone(&mailbox))));
        Ok(SimDatagrams(mailbox))
    }

    fn reregister(&mut self, stream: &mut SimStream, token: Token) -> io::Result<()> {
        if self.reregister_fails {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        stream.register(token);
        // The kernel reports anew what holds when a socket is registered.
        let line = &mut *stream.0.borrow_mut();
        let closed = line.wire.is_closed();
        line.wire.report(Readiness {
            readable: line.wire.is_readable(),
            writable: line.wire.is_writable(),
            read_closed: closed,
            closed: line.wire.is_broken(),
            urgent: false,
        });
        Ok(())
    }

    fn local_address(&self, _: &SimStream) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from(([127, 0, 0, 1], 40_000)))
    }

    fn is_own_address(&self, address: SocketAddr) -> bool {
        address.ip().is_loopback() || self.own.contains(&address.ip())
    }

    fn extra_attempts(&self) -> &ExtraAttempts {
        &self.extra_attempts
    }
}
