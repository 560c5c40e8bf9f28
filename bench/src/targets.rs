//! What is measured: starts each way through as a process of its own and knows what it can take.

use std::io::{self, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lab::daemon::{Builder, Daemon};
use lab::ports::Reserved;
use lab::process::{self, Memory};

use super::lane::{Opener, Via};
use super::report::{EMULATED, SAME_WORK};
use super::speech::Speech;

/// A way through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No proxy.
    Direct,
    /// socat, a process a connection.
    Socat,
    /// haproxy in TCP mode with one thread; with splicing or without.
    Haproxy {
        /// `option splice-request` and `splice-response`.
        splice: bool,
    },
    /// The daemon of this project.
    Ours {
        /// Its column.
        name: &'static str,
        /// The binary.
        path: PathBuf,
    },
    /// The same for another processor, under an emulator.
    Emulated {
        /// The emulator's name.
        emulator: &'static str,
        /// The binary.
        path: PathBuf,
    },
    /// websocat, from a TCP port to a WebSocket server.
    Websocat {
        /// The program.
        path: PathBuf,
        /// A line is a message. Otherwise, what is read at once is.
        lines: bool,
    },
    /// websockify, the other way about: from WebSocket clients to a TCP server, for which it does the same work: a
    /// masked frame is read or written, and one that is not. A process a connection.
    Websockify {
        /// The program.
        path: PathBuf,
    },
    /// No daemon: a loop over rustls alone.
    Rustls,
    /// Nor here: threads that do the daemon's work for a handshake.
    SameWork,
    /// The Lua script that this project replaces.
    Original {
        /// The script.
        path: PathBuf,
    },
}

impl Kind {
    /// The column's head.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Direct => "direct",
            Kind::Socat => "socat",
            Kind::Haproxy { splice: false } => "haproxy",
            Kind::Haproxy { splice: true } => "haproxy splice",
            Kind::Ours { name, .. } => name,
            Kind::Original { .. } => "original",
            Kind::Emulated { .. } => EMULATED,
            Kind::Websocat { .. } => "websocat",
            Kind::Websockify { .. } => "websockify",
            Kind::Rustls => "rustls",
            Kind::SameWork => SAME_WORK,
        }
    }

    /// Relays bytes as they are.
    pub fn relays_bytes(&self) -> bool {
        !matches!(
            self,
            Kind::Emulated { .. } | Kind::Websocat { .. } | Kind::Websockify { .. } | Kind::Rustls | Kind::SameWork
        )
    }

    /// What client and remote speak where it has bytes at one side and a WebSocket at the other.
    pub fn bridges(&self) -> Option<(Speech, Speech)> {
        match self {
            // How much there is to be had: both ends are the same process.
            Kind::Direct => Some((Speech::Raw, Speech::Raw)),
            Kind::Ours { .. } | Kind::Websocat { lines: false, .. } => Some((Speech::Raw, Speech::Server)),
            Kind::Websocat { lines: true, .. } => Some((Speech::Line, Speech::Server)),
            Kind::Websockify { .. } => Some((Speech::Client, Speech::Raw)),
            _ => None,
        }
    }

    /// Speaks CONN and NTFY.
    pub fn notifies(&self) -> bool {
        matches!(self, Kind::Ours { .. } | Kind::Original { .. })
    }

    /// How many of `wanted` connections are fair to ask for. (socat: a process each. The original:
    /// its select() ends at 509.)
    pub fn connections(&self, wanted: usize) -> usize {
        match self {
            Kind::Socat => wanted.min(100),
            Kind::Original { .. } => wanted.min(400),
            _ => wanted,
        }
    }
}

/// One of them, running. Ends it when dropped.
pub struct Target {
    /// What it is.
    pub kind: Kind,
    via: Via,
    backend: TcpListener,
    /// Keeps the relay's port from others.
    _front: Option<Reserved>,
    running: Running,
}

enum Running {
    Nothing,
    Child(Child),
    Daemon(Box<Daemon>),
}

impl Target {
    /// Starts `kind` and waits until it passes a connection on.
    pub fn start(kind: &Kind, luup_url: &str) -> io::Result<Target> {
        Target::start_trusting(kind, luup_url, None)
    }

    /// The same, with a further authority (PEM) to trust, if it knows TLS.
    pub fn start_trusting(kind: &Kind, luup_url: &str, authority: Option<&str>) -> io::Result<Target> {
        let backend = Reserved::new()?.listen()?;
        let to = backend.local_addr()?.port();
        let mut front = Some(Reserved::new()?);
        let port = front.as_ref().map_or(0, Reserved::port);
        let (via, running) = match kind {
            Kind::Direct => (Via::Direct, Running::Nothing),
            Kind::Socat => (Via::Plain(port), Running::Child(socat(port, to)?)),
            Kind::Haproxy { splice } => (Via::Plain(port), Running::Child(haproxy(port, to, *splice)?)),
            Kind::Original { path } => {
                // It binds without SO_REUSEADDR: the port must be free altogether.
                drop(front.take());
                (Via::Conn(port), Running::Child(original(path, port, luup_url)?))
            }
            Kind::Ours { path, .. } => ours(Daemon::builder_of(path), (port, luup_url, authority))?,
            Kind::Emulated { emulator, path } => {
                ours(Daemon::builder_under(emulator, path), (port, luup_url, authority))?
            }
            Kind::Websocat { path, lines } => {
                let (from, to) = (format!("tcp-l:127.0.0.1:{port}"), format!("ws://127.0.0.1:{to}/"));
                let mode = if *lines { &["-t", "-B262144"][..] } else { &["-b"] };
                let command = &mut Command::new(path);
                (Via::ToWebSocket(port), Running::Child(quiet(command.args(mode).args(["-E", &from, &to]))?))
            }
            Kind::Websockify { path } => {
                drop(front.take());
                let (from, to) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{to}"));
                (Via::FromWebSocket(port), Running::Child(quiet(Command::new(path).args([&from, &to]))?))
            }
            Kind::Rustls | Kind::SameWork => return Err(io::Error::other("nothing passes through rustls alone")),
        };
        let target = Target { kind: kind.clone(), via, backend, _front: front, running };
        target
            .opener()
            .wait_ready()
            .map_err(|e| io::Error::new(e.kind(), format!("{} does not come up: {e}", target.kind.name())))?;
        Ok(target)
    }

    /// The port where it lets clients in.
    pub fn port(&self) -> Option<u16> {
        match self.via {
            Via::Direct => None,
            Via::Plain(port) | Via::Conn(port) | Via::ToWebSocket(port) | Via::FromWebSocket(port) => Some(port),
        }
    }

    /// Opens lanes through it.
    pub fn opener(&self) -> Opener<'_> {
        Opener { via: self.via, backend: &self.backend }
    }

    fn pid(&self) -> Option<u32> {
        match &self.running {
            Running::Nothing => None,
            Running::Child(child) => Some(child.id()),
            Running::Daemon(daemon) => Some(daemon.pid()),
        }
    }

    /// Memory of it and its children now.
    pub fn memory(&self) -> Option<Memory> {
        let each = process::family(self.pid()?).into_iter().filter_map(process::memory);
        Some(each.fold(Memory::default(), |sum, m| Memory { rss: sum.rss + m.rss, pss: sum.pss + m.pss }))
    }

    /// Processor time of its threads of that name.
    pub fn threads_cpu_time(&self, name: &str) -> Option<Duration> {
        process::threads_cpu_time(self.pid()?, name)
    }

    /// Processor time of it and the children that are alive.
    pub fn cpu_time(&self) -> Option<Duration> {
        Some(process::family(self.pid()?).into_iter().filter_map(process::cpu_time).sum())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Running::Child(child) = &mut self.running {
            for pid in process::family(child.id()) {
                let pid = nix::unistd::Pid::from_raw(pid as i32);
                nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).ok();
            }
            child.wait().ok();
        }
    }
}

/// Where an authority matters, handshakes are counted against those of a loop that keeps no log: then it keeps none, too.
fn ours(mut builder: Builder, (port, luup_url, authority): (u16, &str, Option<&str>)) -> io::Result<(Via, Running)> {
    let mut config = String::from("[limits]\nconnections=6000\nperaddress=6000\n");
    if let Some(authority) = authority {
        builder = builder.file("authority.pem", authority.as_bytes()).port(port).args(&["-L", "/dev/null"]);
        config.push_str("[tls]\nca={dir}/authority.pem\n");
        let daemon = builder.luup(luup_url).config(&config).spawn();
        return Ok((Via::Conn(port), Running::Daemon(Box::new(daemon))));
    }
    let daemon = builder.luup(luup_url).config(&config).try_start().map_err(io::Error::other)?;
    Ok((Via::Conn(daemon.port()), Running::Daemon(Box::new(daemon))))
}

fn socat(port: u16, to: u16) -> io::Result<Child> {
    quiet(Command::new("socat").args([
        // Larger than socat's 8 KiB, for its own good.
        "-b65536",
        &format!("TCP4-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork,nodelay,backlog=1024"),
        &format!("TCP4:127.0.0.1:{to},nodelay"),
    ]))
}

fn haproxy(port: u16, to: u16, splice: bool) -> io::Result<Child> {
    let mut config = String::from(
        "global\n  nbthread 1\n  maxconn 6000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n",
    );
    if splice {
        config.push_str("  option splice-request\n  option splice-response\n");
    }
    config += &format!("listen relay\n  bind 127.0.0.1:{port}\n  server remote 127.0.0.1:{to}\n");
    let mut child = Command::new("haproxy")
        .args(["-db", "-f", "/dev/stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| io::Error::new(e.kind(), format!("cannot start haproxy: {e}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(config.as_bytes())?;
    }
    Ok(child)
}

fn original(path: &Path, port: u16, luup_url: &str) -> io::Result<Child> {
    let port = port.to_string();
    let mut command = Command::new("lua5.1");
    command.arg(path).args(["-a", "127.0.0.1", "-p", &port, "-L", "/dev/null", "-N", luup_url]);
    quiet(&mut command)
}

fn quiet(command: &mut Command) -> io::Result<Child> {
    let name = command.get_program().to_string_lossy().into_owned();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| io::Error::new(e.kind(), format!("cannot start {name}: {e}")))
}
