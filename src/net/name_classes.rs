//! Which lookups may wait for which: what is known of names, and the share of the threads that follows.
//!
//! A lookup of a name server that does not answer takes a thread for ten seconds and more. Names that any client may
//! invent must not take all threads.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::hosts_file::HostsFile;
use crate::client::ClientKey;
use crate::thread_pool::JobClass;

/// A lookup that takes this long makes its name a slow host.
const SLOW_LOOKUP: Duration = Duration::from_secs(2);
/// A slow host is remembered at least this long after its last lookup.
const SLOW_HOST_TTL: Duration = Duration::from_secs(120);
/// Slow hosts that are remembered.
const MAX_SLOW_HOSTS: usize = 256;
/// Names that have answered, and are remembered for loopback, and for other clients. Each takes about 100 bytes.
const MAX_ANSWERED: usize = 256;

/// What is known of names.
#[derive(Debug)]
pub(super) struct NameClasses {
    hosts: HostsFile,
    /// The names whose last lookup was slow, and when it ended.
    slow_hosts: HashMap<Arc<str>, Instant>,
    /// Names that have answered a client on loopback.
    answered: AnsweredNames,
    /// Names that have answered another client. Apart, so that other clients can push no name of loopback's out, and
    /// have no name of theirs taken for one of loopback's.
    answered_others: AnsweredNames,
}

/// The names that answered last, and when.
#[derive(Debug, Default)]
struct AnsweredNames(HashMap<Arc<str>, Instant>);

impl AnsweredNames {
    fn insert(&mut self, name: &Arc<str>, now: Instant) {
        if self.0.len() >= MAX_ANSWERED
            && !self.0.contains_key(name)
            && let Some(oldest) = self.0.iter().min_by_key(|(_, answered)| **answered).map(|(name, _)| Arc::clone(name))
        {
            self.0.remove(&oldest);
        }
        self.0.insert(Arc::clone(name), now);
    }
}

impl NameClasses {
    /// No name has been looked up yet. `hosts`: the file of names that need no name server.
    pub(super) fn new(hosts: HostsFile) -> Self {
        Self {
            hosts,
            slow_hosts: HashMap::new(),
            answered: AnsweredNames::default(),
            answered_others: AnsweredNames::default(),
        }
    }

    /// The share of the threads for a lookup of `name`, in lower case, for `client`.
    pub(super) fn class(&mut self, name: &str, client: ClientKey, now: Instant) -> JobClass {
        if self.hosts.contains(name, now) {
            return JobClass::Urgent;
        }
        let is_slow = self.slow_hosts.contains_key(name);
        match (name, client.is_loopback()) {
            ("localhost", _) if !is_slow => JobClass::Urgent,
            _ if !is_slow && self.answered.0.contains_key(name) => JobClass::Normal,
            (_, true) => JobClass::Slow,
            _ if !is_slow && self.answered_others.0.contains_key(name) => JobClass::Slow,
            _ => JobClass::Restricted,
        }
    }

    /// A lookup of `name` has ended after `latency`. `answered`: there are addresses, and a client on loopback, or
    /// another one, has waited for them.
    pub(super) fn record(&mut self, name: &Arc<str>, latency: Duration, answered: Option<ClientKey>, now: Instant) {
        self.slow_hosts.remove(name);
        if latency >= SLOW_LOOKUP {
            if self.slow_hosts.len() >= MAX_SLOW_HOSTS {
                self.slow_hosts.retain(|_, since| now - *since < SLOW_HOST_TTL);
            }
            if self.slow_hosts.len() < MAX_SLOW_HOSTS {
                self.slow_hosts.insert(Arc::clone(name), now);
            }
        }
        match answered {
            Some(ClientKey::Loopback) => self.answered.insert(name, now),
            Some(ClientKey::V4(_) | ClientKey::V6(_)) => self.answered_others.insert(name, now),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: ClientKey = ClientKey::V6(1);
    const FAST: Duration = Duration::from_millis(5);

    #[test]
    fn names_that_never_answered_get_the_smallest_share() {
        let mut classes = NameClasses::new(HostsFile::new("/dev/null"));
        let (name, now): (Arc<str>, _) = ("name.example".into(), Instant::now());
        let both = |classes: &mut NameClasses| {
            (classes.class(&name, ClientKey::Loopback, now), classes.class(&name, OTHER, now))
        };
        assert_eq!(both(&mut classes), (JobClass::Slow, JobClass::Restricted), "never seen");
        classes.record(&name, FAST, None, now);
        assert_eq!(both(&mut classes), (JobClass::Slow, JobClass::Restricted), "it has no address");
        classes.record(&name, FAST, Some(OTHER), now);
        assert_eq!(both(&mut classes), (JobClass::Slow, JobClass::Slow), "for loopback it is new");
        classes.record(&name, FAST, Some(ClientKey::Loopback), now);
        assert_eq!(both(&mut classes), (JobClass::Normal, JobClass::Normal));
        classes.record(&name, SLOW_LOOKUP, Some(ClientKey::Loopback), now);
        assert_eq!(both(&mut classes), (JobClass::Slow, JobClass::Restricted), "it was slow");
        classes.record(&name, SLOW_LOOKUP - FAST, None, now);
        assert_eq!(both(&mut classes), (JobClass::Normal, JobClass::Normal));
        assert_eq!(classes.class("localhost", OTHER, now), JobClass::Urgent);
    }

    #[test]
    fn names_of_the_hosts_file_never_wait() {
        let path = std::env::temp_dir().join(format!("sockproxyd-classes-{}", std::process::id()));
        std::fs::write(&path, "10.0.0.1 Box\n").unwrap();
        let mut classes = NameClasses::new(HostsFile::new(&path));
        let (name, now): (Arc<str>, _) = ("box".into(), Instant::now());
        classes.record(&name, SLOW_LOOKUP, None, now);
        assert_eq!(classes.class(&name, OTHER, now), JobClass::Urgent);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn as_many_names_as_there_is_room_for_are_remembered() {
        let mut classes = NameClasses::new(HostsFile::new("/dev/null"));
        let now = Instant::now();
        let at = |number: usize| now + Duration::from_secs(number as u64);
        let name = |number: usize| -> Arc<str> { format!("name{number}.example").into() };
        classes.record(&name(0), FAST, Some(ClientKey::Loopback), now);
        for number in 0..3 * MAX_ANSWERED {
            classes.record(&name(number), FAST, Some(OTHER), at(number));
        }
        assert_eq!(classes.answered_others.0.len(), MAX_ANSWERED);
        let later = at(3 * MAX_ANSWERED);
        assert_eq!(classes.class(&name(0), OTHER, later), JobClass::Normal, "loopback's name stays");
        assert_eq!(classes.class(&name(1), OTHER, later), JobClass::Restricted, "the oldest are forgotten");
        assert_eq!(classes.class(&name(3 * MAX_ANSWERED - 1), OTHER, later), JobClass::Slow);
        for number in 0..2 * MAX_SLOW_HOSTS {
            classes.record(&name(number), SLOW_LOOKUP, None, now);
        }
        assert_eq!(classes.slow_hosts.len(), MAX_SLOW_HOSTS);
    }
}
