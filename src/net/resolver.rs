//! Name resolution off the event loop: getaddrinfo(3) on threads of its own.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dns_lookup::{AddrInfoHints, LookupError, LookupErrorKind, SockType};
use nix::libc;

use super::hosts_file::HostsFile;
use super::name_classes::NameClasses;
use crate::client::{ClientKey, ClientLimits, ClientUsage};
use crate::thread_pool::{JobClass, ThreadPool, ThreadPoolSettings};

/// Stack of a thread in bytes. getaddrinfo of musl and glibc take about 10 KiB each, NSS modules more.
const STACK_SIZE: usize = 256 * 1024;
/// The file of names that need no name server.
const HOSTS: &str = "/etc/hosts";
/// Addresses of a name that are tried.
const MAX_ADDRESSES: usize = 16;
/// Requests that wait for a result. Further ones fail at once, however slow the name servers are. A client other than
/// loopback may have more than a browser has at once.
const REQUEST_LIMITS: ClientLimits = ClientLimits { all: 2048, others: 1024, each: 32 };
/// Threads beyond `resolvers` for names that need no name server.
pub(crate) const URGENT_THREADS: usize = 1;

/// The addresses of a name, at least one, or the reason why there are none, in LuaSocket's words.
pub(crate) type ResolveResult = Result<Vec<SocketAddr>, &'static str>;

/// Looks up names without blocking. `K` identifies a request; its result comes back with it.
///
/// A trait, so that a test can run a session without threads.
pub(crate) trait NameResolver<K> {
    /// Requests the addresses of `host` for `client`. `Some`: the result is known at once, or the lookup cannot even be
    /// tried.
    fn resolve(&mut self, host: &str, key: K, client: ClientKey) -> Option<ResolveResult>;

    /// Drops the request of `key` for `host`. A name without requests is not looked up.
    fn cancel(&mut self, host: &str, key: K);
}

/// The [`NameResolver`] that calls getaddrinfo(3). Results are fetched by [`Resolver::take_results`].
pub(crate) struct Resolver<K> {
    pool: ThreadPool<Arc<str>, Lookup>,
    /// The names that are being looked up or wait for a thread.
    requests: HashMap<Arc<str>, NameRequests<K>>,
    /// How many requests each client has.
    usage: ClientUsage,
    classes: NameClasses,
}

/// The requests for a name: they share a lookup.
#[derive(Debug)]
struct NameRequests<K> {
    waiting: Vec<(K, ClientKey)>,
    /// The class of the lookup: the best that one of the requests has had.
    class: JobClass,
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
            urgent_threads: URGENT_THREADS,
            stack_size: STACK_SIZE,
            nice: 0,
            work: Box::new(work),
            wake: Box::new(wake),
        });
        Self {
            pool,
            requests: HashMap::new(),
            usage: ClientUsage::default(),
            classes: NameClasses::new(HostsFile::new(HOSTS)),
        }
    }

    /// The results since the last call, each with its request's key and the name in lower case. The ports are 0.
    pub(crate) fn take_results(&mut self) -> Vec<(K, Arc<str>, ResolveResult)> {
        let mut results = Vec::new();
        for Lookup { host, result, latency } in self.pool.take_results() {
            let waiting = self.requests.remove(&host).map(|requests| requests.waiting).unwrap_or_default();
            // Loopback is the least.
            let client = waiting.iter().map(|&(_, client)| client).min().filter(|_| result.is_ok());
            self.classes.record(&host, latency, client, Instant::now());
            for (key, client) in waiting {
                self.usage.subtract(client, 1);
                results.push((key, Arc::clone(&host), result.clone()));
            }
        }
        results
    }

    /// Changes the maximum of names looked up at once.
    pub(crate) fn set_max_threads(&mut self, max_threads: usize) {
        self.pool.set_max_threads(max_threads);
    }
}

impl<K: PartialEq> NameResolver<K> for Resolver<K> {
    fn resolve(&mut self, host: &str, key: K, client: ClientKey) -> Option<ResolveResult> {
        if let Some(numeric) = numeric_address(host) {
            return Some(Ok(vec![numeric]));
        }
        if self.usage.check(client, REQUEST_LIMITS).is_err() {
            return Some(Err(TRY_AGAIN));
        }
        self.usage.add(client, 1);
        let host = lower_case(host);
        let class = self.classes.class(&host, client, Instant::now());
        match self.requests.get_mut(&host) {
            Some(requests) => {
                requests.waiting.push((key, client));
                // The lookup must not wait as one of the client that asked first.
                if class < requests.class {
                    requests.class = class;
                    if self.pool.cancel(|queued| *queued == host) > 0 {
                        self.pool.submit(class, host);
                    }
                }
            }
            None => {
                self.requests.insert(Arc::clone(&host), NameRequests { waiting: vec![(key, client)], class });
                // Without any thread the request waits: for the next one that can start a thread, or for its time limit.
                self.pool.submit(class, host);
            }
        }
        None
    }

    fn cancel(&mut self, host: &str, key: K) {
        let host = lower_case(host);
        if let Some(requests) = self.requests.get_mut(&host)
            && let Some(at) = requests.waiting.iter().position(|(other, _)| *other == key)
        {
            let (_, client) = requests.waiting.swap_remove(at);
            if requests.waiting.is_empty() && self.pool.cancel(|queued| *queued == host) > 0 {
                self.requests.remove(&host);
            }
            self.usage.subtract(client, 1);
        }
    }
}

/// Lookups use lower case: musl compares the names in /etc/hosts byte by byte.
fn lower_case(host: &str) -> Arc<str> {
    host.to_ascii_lowercase().into()
}

/// The address that a number in one of getaddrinfo(3)'s further notations is: `127.1`, `0x7f000001`, `fe80::1%eth0`. Such a
/// number needs no lookup, and so no thread.
fn numeric_address(host: &str) -> Option<SocketAddr> {
    let last = host.rsplit('.').next().unwrap_or_default();
    if !host.contains(':') && !last.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let hints =
        AddrInfoHints { socktype: SockType::Stream.into(), flags: libc::AI_NUMERICHOST, ..AddrInfoHints::default() };
    dns_lookup::getaddrinfo(Some(host), None, Some(hints)).ok()?.find_map(Result::ok).map(|info| info.sockaddr)
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
        assert_eq!(resolver.resolve("localhost", 1, ClientKey::Loopback), None);
        assert_eq!(resolver.resolve("LocalHost", 2, ClientKey::Loopback), None);
        assert_eq!(resolver.requests.len(), 1, "two requests for a name, in any case, share a lookup");
        // No name server is asked for a label that is too long (RFC 1035 section 2.3.4).
        assert_eq!(resolver.resolve(&"x".repeat(64), 3, ClientKey::Loopback), None);
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
        assert!(resolver.requests.is_empty() && resolver.usage.total() == 0);
    }

    #[test]
    fn a_cancelled_request_has_no_result() {
        let (wake, woken) = mpsc::channel();
        let mut resolver = Resolver::new(1, move || {
            let _ = wake.send(());
        });
        assert_eq!(resolver.resolve("localhost", 1, ClientKey::Loopback), None);
        assert_eq!(resolver.resolve("localhost", 2, ClientKey::Loopback), None);
        resolver.cancel("LocalHost", 1);
        assert_eq!(resolver.usage.of(ClientKey::Loopback), 1);
        let mut results = Vec::new();
        while results.is_empty() {
            woken.recv().unwrap();
            results = resolver.take_results();
        }
        assert_eq!((results.len(), results[0].0), (1, 2));
        assert_eq!((resolver.usage.total(), resolver.requests.len()), (0, 0));
    }

    #[test]
    fn a_name_without_requests_is_not_looked_up() {
        let (mut resolver, release) = stuck();
        for (host, key) in [("first.invalid", 1), ("second.invalid", 2), ("third.invalid", 3), ("third.invalid", 4)] {
            assert_eq!(resolver.resolve(host, key, ClientKey::Loopback), None);
        }
        resolver.cancel("Second.Invalid", 2);
        resolver.cancel("third.invalid", 3);
        assert!(!resolver.requests.contains_key("second.invalid"), "the lookup is dropped");
        assert_eq!(resolver.pool.cancel(|host| **host == *"second.invalid"), 0, "the job is dropped");
        assert_eq!(resolver.pool.cancel(|host| **host == *"third.invalid"), 1, "one request is left");
        drop(release);
    }

    #[test]
    fn numbers_need_no_lookup() {
        for (number, address) in [
            ("127.1", Some("127.0.0.1")),
            ("0x7f.1", Some("127.0.0.1")),
            ("10.1.2.3", Some("10.1.2.3")),
            ("fe80::1%lo", Some("fe80::1")),
            ("4server", None),
            ("device.4x", None),
            ("device", None),
            ("", None),
        ] {
            let found = numeric_address(number).map(|address| address.ip().to_string());
            assert_eq!(found.as_deref(), address, "{number}");
        }
        let mut resolver = Resolver::new(1, || {});
        assert!(matches!(resolver.resolve("127.1", 1, ClientKey::Loopback), Some(Ok(_))));
        assert!(resolver.requests.is_empty() && resolver.usage.total() == 0);
    }

    /// A resolver with one thread, which does nothing until the returned sender is dropped.
    fn stuck() -> (Resolver<usize>, mpsc::Sender<()>) {
        let (release, released) = mpsc::channel::<()>();
        let mut resolver = Resolver::new(1, || {});
        let released = std::sync::Mutex::new(released);
        resolver.pool = ThreadPool::new(ThreadPoolSettings {
            name: "test",
            max_threads: 1,
            urgent_threads: 0,
            stack_size: STACK_SIZE,
            nice: 0,
            work: Box::new(move |host| {
                let _ = crate::thread_pool::lock(&released).recv();
                Lookup { host, result: Err(UNKNOWN_NAME), latency: Duration::ZERO }
            }),
            wake: Box::new(|| {}),
        });
        (resolver, release)
    }

    #[test]
    fn no_client_takes_all_requests() {
        let (mut resolver, _release) = stuck();
        let mut made = 0;
        let mut fill = |client: ClientKey| {
            let before = made;
            while resolver.resolve(&format!("name{made}.example"), made, client).is_none() {
                made += 1;
            }
            made - before
        };
        for number in 0..REQUEST_LIMITS.others / REQUEST_LIMITS.each {
            assert_eq!(fill(ClientKey::V6(number as u64)), REQUEST_LIMITS.each);
        }
        assert_eq!(fill(ClientKey::V6(9999)), 0);
        assert_eq!(fill(ClientKey::Loopback), REQUEST_LIMITS.all - REQUEST_LIMITS.others);
        resolver.cancel("name0.example", 0);
        assert_eq!(resolver.resolve("other.example", 1, ClientKey::V6(0)), None);
    }

    #[test]
    fn a_lookup_has_the_best_class_of_those_that_wait_for_it() {
        let (mut resolver, release) = stuck();
        assert_eq!(resolver.resolve("first.example", 0, ClientKey::Loopback), None);
        assert_eq!(resolver.resolve("name.example", 1, ClientKey::V6(1)), None);
        assert_eq!(resolver.requests["name.example"].class, JobClass::Restricted);
        assert_eq!(resolver.resolve("name.example", 2, ClientKey::Loopback), None);
        assert_eq!(resolver.resolve("name.example", 3, ClientKey::V6(1)), None);
        assert_eq!(resolver.requests["name.example"].class, JobClass::Slow);
        assert_eq!(resolver.pool.cancel(|host| **host == *"name.example"), 1, "it is looked up once");
        drop(release);
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
