//! The relays that are measured: each runs as a process of its own.

use std::io::{self, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use testkit::daemon::{Builder, Daemon};
use testkit::ports::Reserved;
use testkit::process::{self, Memory};

use crate::codec::Codec;
use crate::connection_pair::{PairOpener, Via};
use crate::report::{EMULATED, RUSTLS_BASELINE};

/// A kind of relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No relay.
    Direct,
    /// socat, one process for each connection.
    Socat,
    /// haproxy in TCP mode with one thread, with or without splicing.
    Haproxy {
        /// `option splice-request` and `splice-response`.
        splice: bool,
    },
    /// sockproxyd.
    Ours {
        /// The name of its column.
        name: &'static str,
        /// The binary.
        path: PathBuf,
    },
    /// sockproxyd for another processor, under an emulator.
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
        /// One line is one message. Otherwise the bytes of one read are.
        lines: bool,
    },
    /// websockify, in the opposite direction: from WebSocket clients to a TCP server. The work is the same, one masked
    /// and one unmasked frame for each message there and back. One process for each connection.
    Websockify {
        /// The program.
        path: PathBuf,
    },
    /// No daemon: a loop over rustls.
    Rustls,
    /// No daemon: threads that do the daemon's work for a handshake.
    RustlsBaseline,
    /// The Lua daemon that sockproxyd replaces.
    Original {
        /// The script.
        path: PathBuf,
    },
}

impl Kind {
    /// The name of the column.
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
            Kind::RustlsBaseline => RUSTLS_BASELINE,
        }
    }

    /// True if it relays bytes unchanged.
    pub fn relays_bytes(&self) -> bool {
        !matches!(
            self,
            Kind::Emulated { .. }
                | Kind::Websocat { .. }
                | Kind::Websockify { .. }
                | Kind::Rustls
                | Kind::RustlsBaseline
        )
    }

    /// The codecs of client and remote, for a relay between bytes and WebSocket.
    pub fn bridges(&self) -> Option<(Codec, Codec)> {
        match self {
            // The upper limit: no relay, so both ends exchange bytes.
            Kind::Direct => Some((Codec::Raw, Codec::Raw)),
            Kind::Ours { .. } | Kind::Websocat { lines: false, .. } => Some((Codec::Raw, Codec::Server)),
            Kind::Websocat { lines: true, .. } => Some((Codec::Line, Codec::Server)),
            Kind::Websockify { .. } => Some((Codec::Client, Codec::Raw)),
            _ => None,
        }
    }

    /// True if it understands CONN and NTFY.
    pub fn notifies(&self) -> bool {
        matches!(self, Kind::Ours { .. } | Kind::Original { .. })
    }

    /// How many WebSocket clients it can serve: websockify needs a process of 30 MB for each.
    pub fn serves(&self) -> usize {
        if let Kind::Websockify { .. } = self { 16 } else { usize::MAX }
    }

    /// How many of `wanted` connections it can serve: socat needs a process for each, and the original's select() ends
    /// at 509.
    pub fn connections(&self, wanted: usize) -> usize {
        match self {
            Kind::Socat => wanted.min(100),
            Kind::Original { .. } => wanted.min(400),
            _ => wanted,
        }
    }
}

/// A running relay. Dropping it ends the process.
pub struct Target {
    /// Its kind.
    pub kind: Kind,
    via: Via,
    backend: TcpListener,
    /// Reserves the relay's port.
    _reserved: Option<Reserved>,
    running: Running,
}

enum Running {
    Nothing,
    Child(Child),
    Daemon(Box<Daemon>),
}

impl Target {
    /// Starts `kind` and waits until it relays a connection.
    pub fn start(kind: &Kind, luup_url: &str) -> io::Result<Target> {
        Target::start_trusting(kind, luup_url, None)
    }

    /// As [`Target::start`]; sockproxyd also trusts `authority` (PEM).
    pub fn start_trusting(kind: &Kind, luup_url: &str, authority: Option<&str>) -> io::Result<Target> {
        let backend = Reserved::new()?.listen()?;
        let to = backend.local_addr()?.port();
        let mut reserved = Some(Reserved::new()?);
        let port = reserved.as_ref().map_or(0, Reserved::port);
        let (via, running) = match kind {
            Kind::Direct => (Via::Direct, Running::Nothing),
            Kind::Socat => (Via::Plain(port), Running::Child(socat(port, to)?)),
            Kind::Haproxy { splice } => (Via::Plain(port), Running::Child(haproxy(port, to, *splice)?)),
            Kind::Original { path } => {
                // It binds without SO_REUSEADDR, so the reserved socket must be closed.
                drop(reserved.take());
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
                drop(reserved.take());
                let (from, to) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{to}"));
                (Via::FromWebSocket(port), Running::Child(quiet(Command::new(path).args([&from, &to]))?))
            }
            Kind::Rustls | Kind::RustlsBaseline => return Err(io::Error::other("rustls alone relays nothing")),
        };
        let target = Target { kind: kind.clone(), via, backend, _reserved: reserved, running };
        target
            .opener()
            .wait_ready()
            .map_err(|e| io::Error::new(e.kind(), format!("{} does not start: {e}", target.kind.name())))?;
        Ok(target)
    }

    /// As [`Target::start`], as a WebSocket port in front of a TCP server.
    pub fn start_serving(kind: &Kind) -> io::Result<Target> {
        let backend = Reserved::new()?.listen()?;
        let to = backend.local_addr()?.port();
        let reserved = Reserved::new()?;
        let port = reserved.port();
        let (via, running) = match kind {
            Kind::Ours { path, .. } => {
                let config =
                    format!("[limits]\nconnections=6000\nperaddress=6000\n[serve]\n{port}=/ CONN 127.0.0.1:{to}\n");
                let builder = Daemon::builder_of(path).config(&config).listeners(2);
                let daemon = builder.try_start().map_err(io::Error::other)?;
                (Via::FromWebSocket(port), Running::Daemon(Box::new(daemon)))
            }
            Kind::Websocat { path, .. } => {
                let (from, to) = (format!("ws-l:127.0.0.1:{port}"), format!("tcp:127.0.0.1:{to}"));
                let command = &mut Command::new(path);
                (Via::FromWebSocket(port), Running::Child(quiet(command.args(["-b", "-E", &from, &to]))?))
            }
            other => return Target::start(other, "http://127.0.0.1:9"),
        };
        let target = Target { kind: kind.clone(), via, backend, _reserved: Some(reserved), running };
        target.opener().wait_ready()?;
        Ok(target)
    }

    /// Starts sockproxyd with a port for its status, which is returned, too.
    pub fn start_with_status(kind: &Kind) -> io::Result<(Target, u16)> {
        let Kind::Ours { path, .. } = kind else { return Err(io::Error::other("only sockproxyd has a status")) };
        let (backend, reserved) = (Reserved::new()?.listen()?, Reserved::new()?);
        let port = reserved.port();
        let config = format!("[limits]\nconnections=6000\nperaddress=6000\n[status]\nport={port}\n");
        let builder = Daemon::builder_of(path).config(&config).listeners(2);
        let daemon = builder.try_start().map_err(io::Error::other)?;
        let via = Via::Conn(daemon.port());
        let running = Running::Daemon(Box::new(daemon));
        Ok((Target { kind: kind.clone(), via, backend, _reserved: Some(reserved), running }, port))
    }

    /// The port that clients connect to.
    pub fn port(&self) -> Option<u16> {
        match self.via {
            Via::Direct => None,
            Via::Plain(port) | Via::Conn(port) | Via::ToWebSocket(port) | Via::FromWebSocket(port) => Some(port),
        }
    }

    /// Opens pairs through this relay.
    pub fn opener(&self) -> PairOpener<'_> {
        PairOpener { via: self.via, backend: &self.backend }
    }

    fn pid(&self) -> Option<u32> {
        match &self.running {
            Running::Nothing => None,
            Running::Child(child) => Some(child.id()),
            Running::Daemon(daemon) => Some(daemon.pid()),
        }
    }

    /// Current memory of the process and its children.
    pub fn memory(&self) -> Option<Memory> {
        let each = process::family(self.pid()?).into_iter().filter_map(process::memory);
        Some(each.fold(Memory::default(), |sum, m| Memory {
            rss: sum.rss + m.rss,
            pss: sum.pss + m.pss,
            private_dirty: sum.private_dirty + m.private_dirty,
        }))
    }

    /// Processor time of its threads called `name`.
    pub fn threads_cpu_time(&self, name: &str) -> Option<Duration> {
        process::threads_cpu_time(self.pid()?, name)
    }

    /// Processor time of the process and its living children.
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

/// Starts sockproxyd. With an authority it logs to /dev/null, because the baseline for handshakes has no log either.
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
        // socat's default of 8 KiB would slow it down.
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
