//! The service manager that has started the daemon (systemd): told when the daemon is ready, reads its configuration again,
//! ends, and that its loop turns. By datagrams, as sd_notify(3) describes. Without NOTIFY_SOCKET nothing is sent.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use nix::time::ClockId;

/// The variables of the environment that are for the main process alone, as sd_notify(3) and sd_watchdog_enabled(3) name them.
const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub(crate) struct ServiceManager {
    channel: Option<Channel>,
    watchdog: Option<Watchdog>,
}

/// Where datagrams go.
#[derive(Debug)]
struct Channel {
    socket: UnixDatagram,
    address: SocketAddr,
}

/// A service manager that ends a daemon whose loop stands still.
#[derive(Debug)]
struct Watchdog {
    /// Half of the time after which it does: as sd_watchdog_enabled(3) advises.
    interval: Duration,
    due: Option<Instant>,
}

impl ServiceManager {
    /// The service manager that the environment names. Removes the variables that name it: they are not for child processes.
    ///
    /// Must be called before any thread is started, and before a supervisor forks: WATCHDOG_PID is the main process.
    pub(crate) fn from_environment() -> Self {
        let [socket, watchdog_time, watchdog_process] = VARIABLES.map(std::env::var_os);
        for name in VARIABLES {
            // SAFETY: there is one thread.
            unsafe { std::env::remove_var(name) };
        }
        let Some(socket) = socket else { return Self::default() };
        let number = |value: Option<std::ffi::OsString>| value?.to_str()?.parse::<u64>().ok();
        let is_watched = watchdog_process.is_none() || number(watchdog_process) == Some(std::process::id().into());
        let time = number(watchdog_time).filter(|&time| is_watched && time > 0).map(Duration::from_micros);
        match Channel::open(socket.as_bytes()) {
            Ok(channel) => Self::new(Some(channel), time),
            Err(error) => {
                eprintln!("sockproxyd: NOTIFY_SOCKET: {error}");
                Self::default()
            }
        }
    }

    fn new(channel: Option<Channel>, watchdog_time: Option<Duration>) -> Self {
        let watchdog = watchdog_time.map(|time| Watchdog { interval: time / 2, due: None });
        Self { channel, watchdog }
    }

    /// The daemon serves. The watchdog begins.
    pub(crate) fn notify_ready(&mut self, now: Instant) {
        self.send("READY=1");
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.due = Some(now);
        }
    }

    /// The daemon begins to read its configuration again. [`ServiceManager::notify_ready`] must follow.
    pub(crate) fn notify_reloading(&self) {
        // Must be on the clock of the kernel's monotonic time (sd_notify(3)), which `Instant` does not tell.
        let time = ClockId::CLOCK_MONOTONIC.now().map(Duration::from).unwrap_or_default();
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", time.as_micros() as u64));
    }

    /// The daemon begins to end.
    pub(crate) fn notify_stopping(&self) {
        self.send("STOPPING=1");
    }

    /// Tells that the loop turns, if that is due. Returns when this is to be called again.
    pub(crate) fn poll_watchdog(&mut self, now: Instant) -> Option<Instant> {
        let due = self.watchdog.as_ref()?.due?;
        if due > now {
            return Some(due);
        }
        self.send("WATCHDOG=1");
        let watchdog = self.watchdog.as_mut()?;
        watchdog.due = Some(now + watchdog.interval);
        watchdog.due
    }

    /// Best effort; errors are ignored: the service manager may be restarting, and its socket full.
    fn send(&self, message: &str) {
        if let Some(Channel { socket, address }) = &self.channel {
            let _ = socket.send_to_addr(message.as_bytes(), address);
        }
    }
}

impl Channel {
    /// A channel to the socket of this path, or of this abstract name if it begins with `@`.
    fn open(name: &[u8]) -> io::Result<Self> {
        let address = match name {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a path nor an abstract name")),
        };
        let socket = UnixDatagram::unbound()?;
        // The loop must not wait for the service manager.
        socket.set_nonblocking(true)?;
        Ok(Self { socket, address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_told_at_half_of_its_time_once_the_daemon_is_ready() {
        let name = format!("sockproxyd-test-{}", std::process::id());
        let inbox = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        inbox.set_nonblocking(true).unwrap();
        let next = || {
            let mut bytes = [0; 100];
            let length = inbox.recv(&mut bytes).ok()?;
            Some(String::from_utf8(bytes[..length].to_vec()).unwrap())
        };
        let channel = Channel::open(format!("@{name}").as_bytes()).unwrap();
        let mut manager = ServiceManager::new(Some(channel), Some(Duration::from_secs(60)));
        let start = Instant::now();
        assert_eq!((manager.poll_watchdog(start), next()), (None, None));
        manager.notify_ready(start);
        let due = start + Duration::from_secs(30);
        assert_eq!(manager.poll_watchdog(start), Some(due));
        assert_eq!(manager.poll_watchdog(due - Duration::from_millis(1)), Some(due));
        assert_eq!([next(), next(), next()], [Some("READY=1".into()), Some("WATCHDOG=1".into()), None]);
        assert_eq!(manager.poll_watchdog(due), Some(due + Duration::from_secs(30)));
        assert_eq!(next().as_deref(), Some("WATCHDOG=1"));
        manager.notify_reloading();
        manager.notify_stopping();
        assert!(next().is_some_and(|text| text.starts_with("RELOADING=1\nMONOTONIC_USEC=")));
        assert_eq!(next().as_deref(), Some("STOPPING=1"));
        drop(inbox);
        manager.notify_stopping();
    }

    #[test]
    fn without_a_service_manager_nothing_is_sent_and_nothing_is_due() {
        let mut manager = ServiceManager::default();
        manager.notify_ready(Instant::now());
        assert_eq!(manager.poll_watchdog(Instant::now()), None);
        for name in ["", "relative", "vsock:2:1234"] {
            assert!(Channel::open(name.as_bytes()).is_err(), "{name}");
        }
    }
}
