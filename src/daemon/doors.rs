//! The listening sockets: the port of setup mode, and the direct listeners.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry};
use nix::errno::Errno;
use socket2::SockRef;

use super::tokens;
use crate::config::{Config, DirectListener};
use crate::net::listener::listen;
use crate::net::socket::set_options;

/// When nothing more can be accepted, for want of descriptors or memory, the next try is made so much later, or when
/// a connection has ended.
const PAUSE: Duration = Duration::from_millis(500);

/// Scarcity is complained of once in so long.
const COMPLAINT: Duration = Duration::from_secs(60);

/// A listening socket, and where it leads.
#[derive(Debug)]
struct Door {
    listener: TcpListener,
    address: SocketAddr,
    /// `None`: setup mode.
    direct: Option<Box<DirectListener>>,
    /// Somebody may be waiting.
    ready: bool,
}

/// All listening sockets. A door keeps its number, which its token carries.
#[derive(Debug, Default)]
pub struct Doors {
    doors: Vec<Option<Door>>,
    paused_until: Option<Instant>,
    /// When scarcity was last complained of.
    complained: Option<Instant>,
}

/// Somebody who has come in.
#[derive(Debug)]
pub struct Arrival {
    /// The connection.
    pub stream: TcpStream,
    /// Whose it is.
    pub peer: SocketAddr,
    /// At which door.
    pub door: usize,
}

impl Doors {
    /// Opens the door of setup mode and the direct listeners. An error says in one line which could not be opened.
    pub fn open(config: &Config, registry: &Registry) -> Result<Self, String> {
        let mut doors = Self::default();
        doors.add(config, config.port, None, registry)?;
        for direct in &config.direct {
            doors.add(config, direct.port, Some(direct), registry)?;
        }
        Ok(doors)
    }

    /// Brings the direct listeners in line with a configuration that was read anew. Connections live on.
    pub fn reload(&mut self, config: &Config, registry: &Registry) {
        for door in &mut self.doors {
            let keep = door.as_mut().is_none_or(|door| match &mut door.direct {
                None => true,
                Some(direct) => match config.direct.iter().find(|new| new.port == direct.port) {
                    Some(new) => {
                        **direct = new.clone();
                        true
                    }
                    None => {
                        log::info!("no longer listening on {}", door.address);
                        false
                    }
                },
            });
            if !keep {
                *door = None;
            }
        }
        for door in self.doors.iter().flatten() {
            set_options(SockRef::from(&door.listener), config.limits.keep_alive);
        }
        for direct in &config.direct {
            let known =
                self.doors.iter().flatten().any(|door| door.direct.as_ref().is_some_and(|old| old.port == direct.port));
            if !known && let Err(error) = self.add(config, direct.port, Some(direct), registry) {
                log::error!("{error}");
            }
        }
    }

    /// Closes all doors.
    pub fn close(&mut self) {
        self.doors.clear();
    }

    /// Somebody is waiting at a door.
    pub fn handle_event(&mut self, door: usize) {
        if let Some(Some(door)) = self.doors.get_mut(door) {
            door.ready = true;
        }
    }

    /// A connection has ended, so that there may be room for another.
    pub fn handle_room(&mut self) {
        self.paused_until = None;
    }

    /// Lets in who is waiting, `most` at each door. The caller comes back while [`Doors::is_ready`].
    pub fn accept(&mut self, most: usize, now: Instant) -> Vec<Arrival> {
        let mut arrivals = Vec::new();
        if self.paused_until.is_some_and(|until| until > now) {
            return arrivals;
        }
        self.paused_until = None;
        for (number, door) in self.doors.iter_mut().enumerate() {
            let Some(door) = door else { continue };
            for _ in 0..most {
                if !door.ready {
                    break;
                }
                match door.listener.accept() {
                    Ok((stream, peer)) => arrivals.push(Arrival { stream, peer, door: number }),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => door.ready = false,
                    Err(error) if is_scarcity(&error) => {
                        if self.complained.is_none_or(|before| now - before >= COMPLAINT) {
                            log::warn!("cannot accept for now: {error}");
                            self.complained = Some(now);
                        }
                        self.paused_until = Some(now + PAUSE);
                        break;
                    }
                    // That one has gone again; the next may be waiting.
                    Err(_) => {}
                }
            }
        }
        arrivals
    }

    /// True where somebody may be waiting whom nothing keeps from coming in.
    pub fn is_ready(&self) -> bool {
        self.paused_until.is_none() && self.doors.iter().flatten().any(|door| door.ready)
    }

    /// When to try again after scarcity.
    pub fn deadline(&self) -> Option<Instant> {
        self.paused_until.filter(|_| self.doors.iter().flatten().any(|door| door.ready))
    }

    /// Where a door leads, if it is a direct listener's.
    pub fn direct(&self, door: usize) -> Option<&DirectListener> {
        self.doors.get(door)?.as_ref()?.direct.as_deref()
    }

    /// All doors, as STAT JSON shows them.
    pub fn list(&self) -> Vec<(String, Option<String>)> {
        let target = |door: &Door| door.direct.as_ref().map(|direct| direct.target.to_string());
        self.doors.iter().flatten().map(|door| (door.address.to_string(), target(door))).collect()
    }

    fn add(
        &mut self,
        config: &Config,
        port: u16,
        direct: Option<&DirectListener>,
        registry: &Registry,
    ) -> Result<(), String> {
        let number = self.doors.iter().position(Option::is_none).unwrap_or(self.doors.len());
        let opened = listen(&config.address, port, config.limits.keep_alive).and_then(|mut listener| {
            registry.register(&mut listener, tokens::listener(number), Interest::READABLE)?;
            let address = listener.local_addr()?;
            Ok(Door { listener, address, direct: direct.cloned().map(Box::new), ready: true })
        });
        let door = opened.map_err(|error| {
            let why =
                error.raw_os_error().map_or_else(|| error.to_string(), |errno| Errno::from_raw(errno).desc().into());
            format!("cannot listen on {}:{port}: {why}", config.address)
        })?;
        match &door.direct {
            None => log::info!("listening on {}", door.address),
            Some(direct) => log::info!("listening on {} for {}", door.address, direct.target),
        }
        if number == self.doors.len() {
            self.doors.push(Some(door));
        } else {
            self.doors[number] = Some(door);
        }
        Ok(())
    }
}

/// True where nobody can be accepted, rather than one who has gone (accept(2)).
fn is_scarcity(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM))
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream as Client;

    use super::*;

    /// The options of who comes in at the only door.
    fn options(doors: &mut Doors) -> (bool, bool, Option<Duration>) {
        let address = doors.doors[0].as_ref().unwrap().listener.local_addr().unwrap();
        let client = Client::connect(("127.0.0.1", address.port())).unwrap();
        let start = Instant::now();
        loop {
            doors.handle_event(0);
            if let Some(Arrival { stream, peer, .. }) = doors.accept(1, Instant::now()).pop() {
                assert_eq!(peer.port(), client.local_addr().unwrap().port());
                let socket = SockRef::from(&stream);
                let asks = socket.keepalive().unwrap();
                let silence = asks.then(|| socket.tcp_keepalive_time().unwrap());
                return (socket.tcp_nodelay().unwrap(), socket.out_of_band_inline().unwrap(), silence);
            }
            assert!(start.elapsed() < Duration::from_secs(30), "nobody comes in");
        }
    }

    #[test]
    fn who_comes_in_has_the_options_of_the_configuration_in_force() {
        let poll = mio::Poll::new().unwrap();
        let mut config = Config { port: 0, ..Config::default() };
        config.limits.keep_alive = Some(Duration::from_secs(77));
        for address in ["127.0.0.1", "*"] {
            config.address = address.into();
            let mut doors = Doors::open(&config, poll.registry()).unwrap();
            for silence in [Some(77), None, Some(5)].map(|silence| silence.map(Duration::from_secs)) {
                config.limits.keep_alive = silence;
                doors.reload(&config, poll.registry());
                assert_eq!(options(&mut doors), (true, true, silence), "{address}");
            }
        }
    }
}
