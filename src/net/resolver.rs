//! Name resolution off the event loop: getaddrinfo(3) on threads of its own.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dns_lookup::{AddrInfoHints, LookupError, LookupErrorKind, SockType};

use crate::thread_pool::{JobClass, ThreadPool, ThreadPoolSettings};

/// Stack of a thread in bytes. getaddrinfo of musl and glibc take about 10 KiB each, NSS modules more.
const STACK_SIZE: usize = 256 * 1024;
/// Addresses of a name that are tried.
const MAX_ADDRESSES: usize = 16;
/// Requests that wait for a result. Further ones fail at once, however slow the name servers are.
const MAX_REQUESTS: usize = 2048;

/// A lookup that takes this long makes its name a slow host.
const SLOW_LOOKUP: Duration = Duration::from_secs(2);
/// A slow host is remembered at least this long after its last lookup.
const SLOW_HOST_TTL: Duration = Duration::from_secs(120);
/// Slow hosts that are remembered.
const MAX_SLOW_HOSTS: usize = 256;

/// The addresses of a name, at least one, or the reason why there are none, in LuaSocket's words.
pub(crate) type ResolveResult = Result<Vec<SocketAddr>, &'static str>;

/// Looks up names without blocking. `K` identifies a request; its result comes back with it.
///
/// A trait, so that a test can run a session without threads.
pub(crate) trait NameResolver<K> {
    /// Requests the addresses of `host`. `Some`: the lookup cannot even be tried, and this is the result.
    fn resolve(&mut self, host: &str, key: K) -> Option<ResolveResult>;

    /// Drops the request of `key` for `host`. A name without requests is not looked up.
    fn cancel(&mut self, host: &str, key: K);
}

/// The [`NameResolver`] that calls getaddrinfo(3). Results are fetched by [`Resolver::take_results`].
pub(crate) struct Resolver<K> {
    pool: ThreadPool<Arc<str>, Lookup>,
    /// The requests for each name that is being looked up or waits for a thread: two requests share a lookup.
    requests: HashMap<Arc<str>, Vec<K>>,
    request_count: usize,
    /// The names whose last lookup was slow, and when it ended.
    slow_hosts: HashMap<Arc<str>, Instant>,
}

/// A lookup that is done.
struct Lookup {
    host: Arc<str>,
    result: ResolveResult,
    latency: Duration,
}

impl<K: PartialEq> Resolver<K> {
    /// A resolver that looks up at most `max_threads` names at once. `wake` is called on another thread when there
    /// are results.
    pub(crate) fn new(max_threads: usize, wake: impl Fn() + Send + Sync + 'static) -> Self {
        let work = |host: Arc<str>| {
            let started = Instant::now();
            let result = look_up(&host);
            Lookup { host, result, latency: started.elapsed() }
        };
        let pool = ThreadPool::new(ThreadPoolSettings {
            name: "resolve",
            max_threads,
            stack_size: STACK_SIZE,
            nice: 0,
            work: Box::new(work),
            wake: Box::new(wake),
        });
        Self { pool, requests: HashMap::new(), request_count: 0, slow_hosts: HashMap::new() }
    }

    /// The results since the last call, each with its request's key and the name in lower case. The ports are 0.
    pub(crate) fn take_results(&mut self) -> Vec<(K, Arc<str>, ResolveResult)> {
        let mut results = Vec::new();
        for Lookup { host, result, latency } in self.pool.take_results() {
            self.record_latency(&host, latency);
            for key in self.requests.remove(&host).unwrap_or_default() {
                self.request_count -= 1;
                results.push((key, Arc::clone(&host), result.clone()));
            }
        }
        results
    }

    /// Changes the maximum of names looked up at once.
    pub(crate) fn set_max_threads(&mut self, max_threads: usize) {
        self.pool.set_max_threads(max_threads);
    }

    /// Slow hosts take at most half of the threads: if a name server is dead, the names in /etc/hosts still resolve.
    fn job_class(&self, host: &Arc<str>) -> JobClass {
        if self.slow_hosts.contains_key(host) { JobClass::Slow } else { JobClass::Normal }
    }

    /// Remembers the name if its lookup was slow, and forgets it otherwise.
    fn record_latency(&mut self, host: &Arc<str>, latency: Duration) {
        let now = Instant::now();
        self.slow_hosts.remove(host);
        if latency >= SLOW_LOOKUP {
            if self.slow_hosts.len() >= MAX_SLOW_HOSTS {
                self.slow_hosts.retain(|_, since| now - *since < SLOW_HOST_TTL);
            }
            if self.slow_hosts.len() < MAX_SLOW_HOSTS {
                self.slow_hosts.insert(Arc::clone(host), now);
            }
        }
    }
}

impl<K: PartialEq> NameResolver<K> for Resolver<K> {
    fn resolve(&mut self, host: &str, key: K) -> Option<ResolveResult> {
        if self.request_count >= MAX_REQUESTS {
            return Some(Err(TRY_AGAIN));
        }
        self.request_count += 1;
        let host = lower_case(host);
        match self.requests.get_mut(&host) {
            Some(keys) => keys.push(key),
            None => {
                self.requests.insert(Arc::clone(&host), vec![key]);
                // Without any thread the request waits: for the next one that can start a thread, or for its time limit.
                self.pool.submit(self.job_class(&host), host);
            }
        }
        None
    }

    fn cancel(&mut self, host: &str, key: K) {
        let host = lower_case(host);
        if let Some(keys) = self.requests.get_mut(&host)
            && let Some(at) = keys.iter().position(|other| *other == key)
        {
            keys.swap_remove(at);
            self.request_count -= 1;
            if keys.is_empty() && self.pool.cancel(|queued| *queued == host) > 0 {
                self.requests.remove(&host);
            }
        }
    }
}

/// Lookups use lower case: musl compares the names in /etc/hosts byte by byte.
fn lower_case(host: &str) -> Arc<str> {
    host.to_ascii_lowercase().into()
}

fn look_up(host: &str) -> ResolveResult {
    let hints = AddrInfoHints { socktype: SockType::Stream.into(), ..AddrInfoHints::default() };
    let found = dns_lookup::getaddrinfo(Some(host), None, Some(hints)).map_err(|error| lua_socket_reason(&error))?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found.filter_map(Result::ok).map(|info| info.sockaddr) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() { Err(UNKNOWN_NAME) } else { Ok(interleave(addresses)) }
}

/// Alternates between the address families, beginning with the family of the first address (RFC 8305 section 4).
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let pairs = std::iter::from_fn(|| {
        let pair = [first.next(), second.next()];
        pair.iter().any(Option::is_some).then_some(pair)
    });
    pairs.flatten().flatten().take(MAX_ADDRESSES).collect()
}

/// A literal address as [`NameResolver::resolve`] would return it: with port 0.
pub(crate) fn literal(host: IpAddr) -> SocketAddr {
    (host, 0).into()
}

const TRY_AGAIN: &str = "temporary failure in name resolution";
const UNKNOWN_NAME: &str = "host or service not provided, or not known";

/// The error in the words that LuaSocket has for it, which plugins may look for.
fn lua_socket_reason(error: &LookupError) -> &'static str {
    match error.kind() {
        LookupErrorKind::Again => TRY_AGAIN,
        LookupErrorKind::Fail => "non-recoverable failure in name resolution",
        LookupErrorKind::Family => "ai_family not supported",
        LookupErrorKind::Memory => "memory allocation failure",
        LookupErrorKind::System | LookupErrorKind::IO => "system error in name resolution",
        _ => UNKNOWN_NAME,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn resolves_names_and_gives_reasons() {
        let (wake, woken) = mpsc::channel();
        let mut resolver = Resolver::new(2, move || {
            let _ = wake.send(());
        });
        assert_eq!(resolver.resolve("localhost", 1), None);
        assert_eq!(resolver.resolve("LocalHost", 2), None);
        assert_eq!(resolver.requests.len(), 1, "two requests for a name, in any case, share a lookup");
        assert_eq!(resolver.resolve("no.such.name.invalid", 3), None);
        let mut results = Vec::new();
        while results.len() < 3 {
            woken.recv().unwrap();
            results.extend(resolver.take_results());
        }
        results.sort_by_key(|(key, _, _)| *key);
        for (_, host, result) in &results[..2] {
            assert_eq!(**host, *"localhost");
            assert!(result.as_ref().unwrap().iter().all(|address| address.ip().is_loopback()));
        }
        assert!(results[2].2.is_err());
        assert!(resolver.requests.is_empty() && resolver.request_count == 0);
    }

    #[test]
    fn a_cancelled_request_has_no_result() {
        let (wake, woken) = mpsc::channel();
        let mut resolver = Resolver::new(1, move || {
            let _ = wake.send(());
        });
        assert_eq!(resolver.resolve("localhost", 1), None);
        assert_eq!(resolver.resolve("localhost", 2), None);
        resolver.cancel("LocalHost", 1);
        assert_eq!(resolver.request_count, 1);
        let mut results = Vec::new();
        while results.is_empty() {
            woken.recv().unwrap();
            results = resolver.take_results();
        }
        assert_eq!((results.len(), results[0].0), (1, 2));
        assert_eq!((resolver.request_count, resolver.requests.len()), (0, 0));
    }

    #[test]
    fn a_name_without_requests_is_not_looked_up() {
        // No thread ever takes a job: the only thread waits for the end of the test.
        let (release, released) = mpsc::channel::<()>();
        let mut resolver: Resolver<u32> = Resolver::new(1, || {});
        let released = std::sync::Mutex::new(released);
        resolver.pool = ThreadPool::new(ThreadPoolSettings {
            name: "test",
            max_threads: 1,
            stack_size: STACK_SIZE,
            nice: 0,
            work: Box::new(move |host| {
                let _ = crate::thread_pool::lock(&released).recv();
                Lookup { host, result: Err(UNKNOWN_NAME), latency: Duration::ZERO }
            }),
            wake: Box::new(|| {}),
        });
        for (host, key) in [("first.invalid", 1), ("second.invalid", 2), ("third.invalid", 3), ("third.invalid", 4)] {
            assert_eq!(resolver.resolve(host, key), None);
        }
        resolver.cancel("Second.Invalid", 2);
        resolver.cancel("third.invalid", 3);
        assert!(!resolver.requests.contains_key("second.invalid"), "the lookup is dropped");
        assert_eq!(resolver.pool.cancel(|host| **host == *"second.invalid"), 0, "the job is dropped");
        assert_eq!(resolver.pool.cancel(|host| **host == *"third.invalid"), 1, "one request is left");
        drop(release);
    }

    #[test]
    fn slow_hosts_are_remembered_until_a_fast_lookup() {
        let mut resolver: Resolver<u32> = Resolver::new(4, || {});
        let host: Arc<str> = "slow.invalid".into();
        resolver.record_latency(&host, SLOW_LOOKUP);
        assert_eq!(resolver.job_class(&host), JobClass::Slow);
        assert_eq!(resolver.job_class(&"other.invalid".into()), JobClass::Normal);
        resolver.record_latency(&host, SLOW_LOOKUP - Duration::from_millis(1));
        assert_eq!(resolver.job_class(&host), JobClass::Normal);
        for number in 0..2 * MAX_SLOW_HOSTS {
            resolver.record_latency(&format!("slow{number}.invalid").into(), SLOW_LOOKUP);
        }
        assert_eq!(resolver.slow_hosts.len(), MAX_SLOW_HOSTS);
    }

    #[test]
    fn address_families_alternate() {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        assert_eq!(
            interleave(addresses(&["[::1]:0", "[::2]:0", "[::3]:0", "1.1.1.1:0", "2.2.2.2:0"])),
            addresses(&["[::1]:0", "1.1.1.1:0", "[::2]:0", "2.2.2.2:0", "[::3]:0"])
        );
    }
}
