//! What the owner says while it runs: signals, and a configuration that was changed.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::{Daemon, descriptors, key, tls_house, trust};
use crate::config::Config;
use crate::logging;

impl Daemon {
    pub(super) fn handle_signals(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            match Signal::try_from(info.ssi_signo as i32) {
                Ok(Signal::SIGHUP) => self.reload(),
                Ok(Signal::SIGUSR1) => {
                    let table = self.table(None);
                    String::from_utf8_lossy(&table).lines().for_each(|line| log::info!("{line}"));
                }
                Ok(Signal::SIGTERM) => self.ending = Some("SIGTERM"),
                Ok(Signal::SIGINT) => self.ending = Some("SIGINT"),
                _ => {}
            }
        }
    }

    /// Reads the configuration anew. What is wrong with it changes nothing.
    fn reload(&mut self) {
        match Config::load(&self.steps) {
            Ok(config) => {
                let old = std::mem::replace(&mut self.house.config, config);
                self.apply(&old);
            }
            Err(error) => {
                if let Err(log_error) = logging::reopen(&self.house.config) {
                    log::error!("{log_error}");
                }
                log::error!("configuration not changed: {error}");
            }
        }
    }

    /// Brings everything in line with a configuration that has replaced `old`.
    fn apply(&mut self, old: &Config) {
        let house = &mut self.house;
        if let Err(error) = logging::reopen(&house.config) {
            log::error!("{error}");
        }
        let limits = &house.config.limits;
        house.buffers.set_limits(limits.buffers, limits.buffer);
        house.pipes.set_limit(limits.pipes);
        house.schedule.set_limits(limits.senders, limits.notices);
        house.resolver.set_most(limits.resolvers);
        // The files may be others, whatever their names.
        let tls = tls_house(&house.config);
        self.senders.set_trust(trust(&tls, &house.config));
        house.handshakes.set_context(tls);
        self.senders.set_max_requests(limits.senders);
        self.admission.set_most(descriptors::provide(&house.config));
        let fixed = |config: &Config| (config.address.clone(), config.port, config.luup.clone(), config.limits.answer);
        if fixed(old) != fixed(&house.config) {
            log::warn!("changes of ip, port, vera and answer take a restart");
            (house.config.address, house.config.port, house.config.luup, house.config.limits.answer) = fixed(old);
        }
        self.doors.reload(&house.config, house.poll.registry());
        // Deadlines may have come nearer.
        for (slot, found) in &mut self.sessions {
            let due = found.session.deadline(&house.config);
            self.timers.arm(key(slot, found.generation), due, &mut found.armed);
        }
        log::info!("configuration read anew");
    }
}

/// Signals come as events. They are blocked for this thread and all that it will start.
pub(super) fn take_signals() -> nix::Result<SignalFd> {
    let mut signals = SigSet::empty();
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1].iter().for_each(|&signal| signals.add(signal));
    signals.thread_block()?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}
