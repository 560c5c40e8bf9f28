//! The limit of file descriptors: as high as the configuration needs, and no more connections than it allows.

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

use crate::config::Config;

/// Descriptors of a connection: its own and its remote's.
const PER_CONNECTION: usize = 2;
/// Descriptors for the log, epoll, signals, the waker, listeners, refused clients, and files that libraries open.
const RESERVE: usize = 48;

/// Raises the limit as far as `config` needs it, and returns for how many connections it is enough.
///
/// The soft limit goes up to the hard one; root may raise that as well.
pub(super) fn raise_for(config: &Config) -> usize {
    let limits = &config.limits;
    let others = RESERVE + 2 * limits.pipes + limits.senders + limits.resolvers + config.direct.len();
    let needed = PER_CONNECTION * limits.connections + others;
    let available = raise(needed as rlim_t) as usize;
    let connections = (available.saturating_sub(others) / PER_CONNECTION).clamp(1, limits.connections);
    if connections < limits.connections {
        log::warn!("{available} descriptors are enough for {connections} connections, not for {}", limits.connections);
    }
    connections
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
