//! Names to addresses, off the loop: getaddrinfo(3) on threads of its own.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use dns_lookup::{AddrInfoHints, LookupError, LookupErrorKind, SockType};

use crate::workers::{Pool, Workers};

/// getaddrinfo of musl and glibc take some 10 KiB of stack each; NSS modules more.
const STACK: usize = 256 * 1024;
/// As many addresses of a name are tried.
const MOST_ADDRESSES: usize = 16;

/// As many wait for answers, however slow the name servers: who comes then is refused at once.
const MOST_ASKERS: usize = 2048;

/// The addresses of a name, or why there are none, in LuaSocket's words.
pub type Answer = Result<Vec<SocketAddr>, &'static str>;

/// Looks up names. `K` is what the asker wants back with the answer.
pub struct Resolver<K> {
    workers: Workers<Arc<str>, (Arc<str>, Answer)>,
    /// Who waits for which name: asked twice, looked up once.
    waiting: HashMap<Arc<str>, Vec<K>>,
    askers: usize,
}

impl<K> Resolver<K> {
    /// A resolver of at most `most` names at once; `wake` is called when there is an answer.
    pub fn new(most: usize, wake: impl Fn() + Send + Sync + 'static) -> Self {
        let work = |host: Arc<str>| {
            let answer = look_up(&host);
            (host, answer)
        };
        let pool = Pool { name: "resolve", most, stack: STACK, work: Box::new(work), wake: Box::new(wake) };
        Self { workers: Workers::new(pool), waiting: HashMap::new(), askers: 0 }
    }

    /// Asks for the addresses of `host`. Where that cannot even be tried, the answer is there at once.
    pub fn ask(&mut self, host: &str, asker: K) -> Option<Answer> {
        let refused = Some(Err("temporary failure in name resolution"));
        if self.askers >= MOST_ASKERS {
            return refused;
        }
        self.askers += 1;
        let host: Arc<str> = host.into();
        if let Some(askers) = self.waiting.get_mut(&host) {
            askers.push(asker);
            return None;
        }
        if self.workers.submit(Arc::clone(&host)).is_err() {
            self.askers -= 1;
            return refused;
        }
        self.waiting.insert(host, vec![asker]);
        None
    }

    /// The answers since the last call, each with its asker. Their ports are 0.
    pub fn take_answers(&mut self) -> Vec<(K, Answer)> {
        let mut answers = Vec::new();
        for (host, answer) in self.workers.take_results() {
            for asker in self.waiting.remove(&host).unwrap_or_default() {
                self.askers -= 1;
                answers.push((asker, answer.clone()));
            }
        }
        answers
    }

    /// Changes the bound on names looked up at once.
    pub fn set_most(&self, most: usize) {
        self.workers.set_most(most);
    }
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

const NOT_KNOWN: &str = "host or service not provided, or not known";

fn reason(error: &LookupError) -> &'static str {
    match error.kind() {
        LookupErrorKind::Again => "temporary failure in name resolution",
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
        assert_eq!(resolver.ask("localhost", 2), None, "asked twice");
        assert_eq!(resolver.ask("no.such.name.invalid", 3), None);
        let mut answers = Vec::new();
        while answers.len() < 3 {
            wake.recv().unwrap();
            answers.extend(resolver.take_answers());
        }
        answers.sort_by_key(|(asker, _)| *asker);
        for (_, answer) in &answers[..2] {
            assert!(answer.as_ref().unwrap().iter().all(|address| address.ip().is_loopback()));
        }
        assert!(answers[2].1.is_err());
        assert!(resolver.waiting.is_empty() && resolver.askers == 0);
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
