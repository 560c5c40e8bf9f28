//! Names to addresses, off the loop: getaddrinfo(3) on threads of its own.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dns_lookup::{AddrInfoHints, LookupError, LookupErrorKind, SockType};

use crate::thread_pool::{Pool, Workers};

/// getaddrinfo of musl and glibc take some 10 KiB of stack each; NSS modules more.
const STACK: usize = 256 * 1024;
/// As many addresses of a name are tried.
const MOST_ADDRESSES: usize = 16;

/// As many wait for answers, however slow the name servers: who comes then is refused at once.
const MOST_ASKERS: usize = 2048;

/// The addresses of a name, or why there are none, in LuaSocket's words.
pub type Answer = Result<Vec<SocketAddr>, &'static str>;

/// A lookup that takes longer makes its name a suspect.
const SLOW: Duration = Duration::from_secs(2);
/// When there are too many suspects, those are forgotten that nobody has asked for in so long.
const SUSPECTED: Duration = Duration::from_secs(120);
/// As many suspects are remembered.
const MOST_SUSPECTS: usize = 256;

/// Looks up names. `K` is what the asker wants back with the answer.
pub struct Resolver<K> {
    workers: Workers<Arc<str>, Lookup>,
    most: usize,
    /// Names that wait for a thread, first come first served.
    queue: VecDeque<Arc<str>>,
    /// Who waits for which name: asked twice, looked up once.
    waiting: HashMap<Arc<str>, Vec<K>>,
    askers: usize,
    in_flight: usize,
    suspects_in_flight: usize,
    suspects: HashMap<Arc<str>, Instant>,
}

/// A lookup that is done.
struct Lookup {
    host: Arc<str>,
    answer: Answer,
    took: Duration,
}

impl<K: PartialEq> Resolver<K> {
    /// A resolver of at most `most` names at once; `wake` is called when there is an answer.
    pub fn new(most: usize, wake: impl Fn() + Send + Sync + 'static) -> Self {
        let work = |host: Arc<str>| {
            let started = Instant::now();
            let answer = look_up(&host);
            Lookup { host, answer, took: started.elapsed() }
        };
        let pool = Pool { name: "resolve", most, stack: STACK, nice: 0, work: Box::new(work), wake: Box::new(wake) };
        Self {
            workers: Workers::new(pool),
            most,
            queue: VecDeque::new(),
            waiting: HashMap::new(),
            askers: 0,
            in_flight: 0,
            suspects_in_flight: 0,
            suspects: HashMap::new(),
        }
    }

    /// Asks for the addresses of `host`. Where that cannot even be tried, the answer is there at once.
    pub fn ask(&mut self, host: &str, asker: K) -> Option<Answer> {
        if self.askers >= MOST_ASKERS {
            return Some(Err(NOT_NOW));
        }
        self.askers += 1;
        let host = folded(host);
        match self.waiting.get_mut(&host) {
            Some(askers) => askers.push(asker),
            None => {
                self.waiting.insert(Arc::clone(&host), vec![asker]);
                self.queue.push_back(host);
                self.start();
            }
        }
        None
    }

    /// The asker of `host` waits no more. A name that nobody waits for is not looked up.
    pub fn withdraw(&mut self, host: &str, asker: K) {
        let host = folded(host);
        if let Some(askers) = self.waiting.get_mut(&host)
            && let Some(at) = askers.iter().position(|other| *other == asker)
        {
            askers.swap_remove(at);
            self.askers -= 1;
            if askers.is_empty() && self.queue.contains(&host) {
                self.waiting.remove(&host);
                self.queue.retain(|queued| *queued != host);
            }
        }
    }

    /// The answers since the last call, each with its asker and the name in lower case. Their ports are 0.
    pub fn take_answers(&mut self) -> Vec<(K, Arc<str>, Answer)> {
        let mut answers = Vec::new();
        for Lookup { host, answer, took } in self.workers.take_results() {
            self.in_flight -= 1;
            self.suspects_in_flight -= usize::from(self.suspects.contains_key(&host));
            self.judge(&host, took);
            for asker in self.waiting.remove(&host).unwrap_or_default() {
                self.askers -= 1;
                answers.push((asker, Arc::clone(&host), answer.clone()));
            }
        }
        self.start();
        answers
    }

    /// Changes the bound on names looked up at once.
    pub fn set_most(&mut self, most: usize) {
        self.most = most;
        self.workers.set_most(most);
    }

    /// Gives names to threads, while there are any for them. Suspects take at most half of the threads: a name server
    /// that is dead must not keep those from their addresses whose names stand in /etc/hosts.
    fn start(&mut self) {
        while self.in_flight < self.most {
            let room_for_suspects = self.suspects_in_flight < self.most.div_ceil(2);
            let may = |host: &Arc<str>| room_for_suspects || !self.suspects.contains_key(host);
            let Some(at) = self.queue.iter().position(may) else { return };
            let Some(host) = self.queue.remove(at) else { return };
            let suspect = self.suspects.contains_key(&host);
            if let Err(host) = self.workers.submit(host) {
                // Not even one thread: it waits for better times, and its askers for their time limits.
                self.queue.push_front(host);
                return;
            }
            self.in_flight += 1;
            self.suspects_in_flight += usize::from(suspect);
        }
    }

    /// Remembers names that took long. Called while none of that name is in flight.
    fn judge(&mut self, host: &Arc<str>, took: Duration) {
        let now = Instant::now();
        self.suspects.remove(host);
        if took >= SLOW {
            if self.suspects.len() >= MOST_SUSPECTS {
                // Those under way are counted as what they were when they started.
                let waiting = &self.waiting;
                self.suspects.retain(|name, since| waiting.contains_key(name) || now - *since < SUSPECTED);
            }
            if self.suspects.len() < MOST_SUSPECTS {
                self.suspects.insert(Arc::clone(host), now);
            }
        }
    }
}

/// A name as it is looked up: in lower case, since musl compares what stands in /etc/hosts byte by byte.
fn folded(host: &str) -> Arc<str> {
    host.to_ascii_lowercase().into()
}

fn look_up(host: &str) -> Answer {
    let hints = AddrInfoHints { socktype: SockType::Stream.into(), ..AddrInfoHints::default() };
    let found = dns_lookup::getaddrinfo(Some(host), None, Some(hints)).map_err(|error| reason(&error))?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found.filter_map(Result::ok).map(|info| info.sockaddr) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() { Err(NOT_KNOWN) } else { Ok(interleaved(addresses)) }
}

/// Takes turns between the families, beginning with that of the first (RFC 8305 section 4).
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let pairs = std::iter::from_fn(|| {
        let pair = [first.next(), second.next()];
        pair.iter().any(Option::is_some).then_some(pair)
    });
    pairs.flatten().flatten().take(MOST_ADDRESSES).collect()
}

/// The address that a literal host is, with port 0.
pub fn literal(host: IpAddr) -> SocketAddr {
    (host, 0).into()
}

const NOT_NOW: &str = "temporary failure in name resolution";
const NOT_KNOWN: &str = "host or service not provided, or not known";

fn reason(error: &LookupError) -> &'static str {
    match error.kind() {
        LookupErrorKind::Again => NOT_NOW,
        LookupErrorKind::Fail => "non-recoverable failure in name resolution",
        LookupErrorKind::Family => "ai_family not supported",
        LookupErrorKind::Memory => "memory allocation failure",
        LookupErrorKind::System | LookupErrorKind::IO => "system error in name resolution",
        _ => NOT_KNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn finds_names_and_says_why_not() {
        let (woken, wake) = mpsc::channel();
        let mut resolver = Resolver::new(2, move || {
            let _ = woken.send(());
        });
        assert_eq!(resolver.ask("localhost", 1), None);
        assert_eq!(resolver.ask("LocalHost", 2), None, "asked twice");
        assert_eq!(resolver.waiting.len(), 1, "and looked up once, in lower case");
        assert_eq!(resolver.ask("no.such.name.invalid", 3), None);
        let mut answers = Vec::new();
        while answers.len() < 3 {
            wake.recv().unwrap();
            answers.extend(resolver.take_answers());
        }
        answers.sort_by_key(|(asker, _, _)| *asker);
        for (_, host, answer) in &answers[..2] {
            assert_eq!(**host, *"localhost");
            assert!(answer.as_ref().unwrap().iter().all(|address| address.ip().is_loopback()));
        }
        assert!(answers[2].2.is_err());
        assert!(resolver.waiting.is_empty() && resolver.askers == 0);
    }

    #[test]
    fn what_nobody_waits_for_is_not_looked_up() {
        let (woken, wake) = mpsc::channel();
        let mut resolver = Resolver::new(1, move || {
            let _ = woken.send(());
        });
        assert_eq!(resolver.ask("localhost", 1), None);
        assert_eq!(resolver.ask("never.asked.invalid", 2), None);
        assert_eq!(resolver.ask("localhost.", 3), None);
        resolver.withdraw("Never.Asked.Invalid", 2);
        resolver.withdraw("localhost", 1);
        assert_eq!(resolver.queue.len(), 1);
        let mut answers = Vec::new();
        while answers.is_empty() {
            wake.recv().unwrap();
            answers = resolver.take_answers();
        }
        assert_eq!((answers.len(), answers[0].0), (1, 3));
        assert_eq!((resolver.askers, resolver.in_flight, resolver.waiting.len()), (0, 0, 0));
    }

    #[test]
    fn slow_names_take_half_of_the_threads() {
        let mut resolver: Resolver<u32> = Resolver::new(4, || {});
        for name in 0..6 {
            resolver.judge(&format!("slow{name}.invalid").into(), SLOW);
        }
        for name in 0..6 {
            assert_eq!(resolver.ask(&format!("slow{name}.invalid"), name), None);
        }
        assert_eq!((resolver.in_flight, resolver.queue.len()), (2, 4));
        assert_eq!(resolver.ask("localhost", 9), None);
        assert_eq!((resolver.in_flight, resolver.queue.len()), (3, 4), "the others pass them");
    }

    #[test]
    fn families_take_turns() {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        assert_eq!(
            interleaved(addresses(&["[::1]:0", "[::2]:0", "[::3]:0", "1.1.1.1:0", "2.2.2.2:0"])),
            addresses(&["[::1]:0", "1.1.1.1:0", "[::2]:0", "2.2.2.2:0", "[::3]:0"])
        );
    }
}
