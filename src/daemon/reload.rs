//! The configuration, read again.

use super::{Daemon, fd_limit, tls_context, trust};
use crate::config::Config;
use crate::logging;
use crate::session::Key;

impl Daemon {
    /// Reads the configuration again. An error in it changes nothing.
    pub(super) fn reload(&mut self) {
        self.service_manager.notify_reloading();
        match Config::reload(&self.config_sources) {
            Ok(config) => {
                let old = std::mem::replace(&mut self.resources.config, config);
                self.apply(&old);
            }
            Err(error) => {
                if let Err(log_error) = logging::reopen(&self.resources.config) {
                    log::error!("{log_error}");
                }
                log::error!("configuration not changed: {error}");
            }
        }
        self.service_manager.notify_ready(self.now);
    }

    /// Brings everything in line with a configuration that has replaced `old`.
    pub(super) fn apply(&mut self, old: &Config) {
        let resources = &mut self.resources;
        if let Err(error) = logging::reopen(&resources.config) {
            log::error!("{error}");
        }
        let limits = &resources.config.limits;
        let fd_limits = fd_limit::raise_for(&resources.config);
        resources.network.set_extra_attempts(fd_limits.extra_attempts);
        resources.budget.set_limits(limits.buffers, limits.buffer);
        resources.pipes.set_limit(fd_limits.pipes);
        resources.schedule.set_limits(fd_limits.senders, limits.notices);
        resources.resolver.set_max_threads(fd_limits.resolvers);
        // The files may have changed, whatever their names.
        let tls = tls_context(&resources.config);
        self.senders.set_trust(trust(&tls, &resources.config));
        resources.handshakes.set_context(tls);
        self.senders.set_max_requests(fd_limits.senders);
        self.admission.set_limit(fd_limits.connections);
        let fixed = |config: &Config| (config.address.clone(), config.port, config.luup.clone(), config.limits.answer);
        if fixed(old) != fixed(&resources.config) {
            log::warn!("changes of ip, port, vera and answer take a restart");
            let config = &mut resources.config;
            (config.address, config.port, config.luup, config.limits.answer) = fixed(old);
        }
        self.listeners.reload(&resources.config, resources.poll.registry(), self.now);
        self.renew_own_ports();
        // Deadlines may be earlier now.
        let keys: Vec<Key> = self.sessions.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.arm_timer(key);
        }
        log::info!("configuration read anew");
    }
}
