//! Signals, as events of the loop.

use std::os::fd::AsRawFd;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// What a signal asks of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignalRequest {
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGUSR1: log the table of connections.
    LogStatus,
    /// SIGTERM, SIGINT: end, for this reason.
    End(&'static str),
}

/// Receives signals.
#[derive(Debug)]
pub(super) struct Signals {
    fd: SignalFd,
}

impl Signals {
    /// Blocks the signals for this thread and all that it will start, and registers their events under `token`.
    pub(super) fn new(registry: &Registry, token: Token) -> std::io::Result<Self> {
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1] {
            signals.add(signal);
        }
        signals.thread_block()?;
        let fd = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        registry.register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { fd })
    }

    /// The next signal that has come.
    pub(super) fn next(&self) -> Option<SignalRequest> {
        loop {
            let info = self.fd.read_signal().ok()??;
            match Signal::try_from(info.ssi_signo as i32) {
                Ok(Signal::SIGHUP) => return Some(SignalRequest::Reload),
                Ok(Signal::SIGUSR1) => return Some(SignalRequest::LogStatus),
                Ok(Signal::SIGTERM) => return Some(SignalRequest::End("SIGTERM")),
                Ok(Signal::SIGINT) => return Some(SignalRequest::End("SIGINT")),
                _ => {}
            }
        }
    }
}
