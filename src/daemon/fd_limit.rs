//! The limit of file descriptors: as high as the configuration needs, and what is done with a lower one.

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

use crate::config::Config;
use crate::net::resolver::URGENT_THREADS;

/// Descriptors of a connection: its own and its remote's.
const PER_CONNECTION: usize = 2;
/// Descriptors of a pipe.
const PER_PIPE: usize = 2;
/// Descriptors of a lookup: a socket, and a file or another socket.
const PER_LOOKUP: usize = 2;
/// Descriptors for the standard streams, the log, epoll, signals, the waker, the listener, refused clients, and files that
/// libraries open.
const OWN: usize = 24;
/// Attempts to connect beyond the first of each connection, at most.
const MAX_EXTRA_ATTEMPTS: usize = 32;

/// How much of everything that takes descriptors there may be. So connections never take the descriptors that
/// notifications and accept(2) need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FdLimits {
    /// Connections at once.
    pub connections: usize,
    /// Pipes for splice(2).
    pub pipes: usize,
    /// Notifications at once.
    pub senders: usize,
    /// Names looked up at once.
    pub resolvers: usize,
    /// Attempts to connect beyond the first of each connection.
    pub extra_attempts: usize,
}

impl FdLimits {
    /// All that `config` wants.
    fn wanted(config: &Config) -> Self {
        let limits = &config.limits;
        Self {
            connections: limits.connections,
            pipes: limits.pipes,
            senders: limits.senders,
            resolvers: limits.resolvers,
            extra_attempts: MAX_EXTRA_ATTEMPTS,
        }
    }

    /// Descriptors of everything but connections.
    fn others(&self) -> usize {
        PER_PIPE * self.pipes + self.senders + PER_LOOKUP * (self.resolvers + URGENT_THREADS) + self.extra_attempts
    }

    /// What `descriptors` are enough for, where `self` is wanted. If they do not suffice, what is not for connections gets a
    /// quarter of them: senders a quarter of that, resolvers another, extra attempts an eighth, and pipes, which can be done
    /// without, what is left.
    fn within(&self, descriptors: usize) -> Self {
        let mut limits = *self;
        if descriptors < PER_CONNECTION * self.connections + self.others() {
            let quarter = descriptors / 4;
            if self.others() > quarter {
                limits.senders = self.senders.min((quarter / 4).max(2));
                limits.resolvers = self.resolvers.min((quarter / 8).max(1));
                limits.extra_attempts = self.extra_attempts.min(quarter / 8);
                limits.pipes = 0;
                limits.pipes = self.pipes.min(quarter.saturating_sub(limits.others()) / PER_PIPE);
            }
            let left = descriptors.saturating_sub(limits.others());
            limits.connections = self.connections.min((left / PER_CONNECTION).max(1));
        }
        limits
    }
}

/// Raises the limit as far as `config` needs it, and returns what it is enough for.
///
/// The soft limit goes up to the hard one; root may raise that as well.
pub(super) fn raise_for(config: &Config) -> FdLimits {
    let wanted = FdLimits::wanted(config);
    let own = OWN + config.direct.len() + config.serve_ports().len();
    let needed = own + PER_CONNECTION * wanted.connections + wanted.others();
    let available = raise(needed as rlim_t) as usize;
    let limits = wanted.within(available.saturating_sub(own));
    if limits.connections < wanted.connections {
        log::warn!(
            "{available} descriptors are enough for {} connections, {} senders and {} pipes, not for {}, {} and {}",
            limits.connections,
            limits.senders,
            limits.pipes,
            wanted.connections,
            wanted.senders,
            wanted.pipes
        );
    }
    limits
}

/// The limit, after trying to raise it to `needed`.
fn raise(needed: rlim_t) -> rlim_t {
    // Where it cannot even be read, it is what POSIX asks for at least.
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 20 };
    if soft >= needed {
        return soft;
    }
    let wanted = needed.max(hard);
    let attempts = [(needed, wanted), (needed.min(hard), hard)];
    let raised = attempts.into_iter().find(|&(soft, hard)| setrlimit(Resource::RLIMIT_NOFILE, soft, hard).is_ok());
    raised.map_or(soft, |(soft, _)| soft)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_descriptors_are_for_connections_first() {
        let wanted = FdLimits::wanted(&Config::default());
        let enough = PER_CONNECTION * wanted.connections + wanted.others();
        assert_eq!(wanted.within(enough), wanted);
        for (limit, connections, senders, resolvers, pipes) in
            [(64, 15, 2, 1, 1), (128, 39, 6, 3, 4), (256, 87, 14, 7, 10), (1024, 451, 16, 8, 16)]
        {
            let limits = wanted.within(limit - OWN);
            let found = (limits.connections, limits.senders, limits.resolvers, limits.pipes);
            assert_eq!(found, (connections, senders, resolvers, pipes), "{limit}");
        }
        for descriptors in 0..enough {
            let limits = wanted.within(descriptors);
            let least = limits.connections == 1 && limits.senders == 2 && limits.resolvers == 1;
            assert!(least || PER_CONNECTION * limits.connections + limits.others() <= descriptors, "{descriptors}");
        }
    }
}
