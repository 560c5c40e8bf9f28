//! [`PluginPort`]: a port that plugins listen on (LSTN).

use super::{Key, Pid};
use crate::client::{ClientKey, ClientLimits, ClientUsage};
use crate::protocol::listen_settings::ListenSettings;
use crate::protocol::options::Protocol;
use crate::protocol::reply::{PATH_IN_USE, TOO_MANY_LISTENERS};
use crate::protocol::tls_settings::ServerTlsSettings;
use crate::websocket::handshake::{Refusal, ServerRules};

/// Listeners that share a port, each with a path of its own.
const MAX_OWNERS: usize = 64;
/// Arrivals of one owner that wait for ACPT.
const MAX_WAITING: ClientLimits = ClientLimits { all: 16, others: 12, each: 4 };
const TOO_MANY_WAITING: &str = "Too many connections wait for the plugin.";

/// A port that plugins listen on: what is spoken there, the connections that own it, and the arrivals that wait for them.
#[derive(Debug)]
pub(crate) struct PluginPort {
    /// What arrivals speak.
    pub protocol: Protocol,
    /// The certificate, if one is used.
    pub tls: Option<ServerTlsSettings>,
    owners: Vec<Owner>,
}

/// A plugin's connection that has said LSTN.
#[derive(Debug)]
pub(crate) struct Owner {
    /// Its session.
    pub key: Key,
    /// The path that it has. `None`: all that no other owner has.
    pub path: Option<Box<str>>,
    /// The arrivals that wait for it: at most [`MAX_WAITING`].
    waiting: Vec<WaitingArrival>,
}

/// An arrival that waits for ACPT.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WaitingArrival {
    /// Its id.
    pub pid: Pid,
    /// Its session.
    pub key: Key,
    /// The client that has connected.
    pub client: ClientKey,
}

impl Owner {
    /// How many arrivals wait for it.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// True if another arrival of `client` may wait for it.
    fn has_place_for(&self, client: ClientKey) -> bool {
        let mut usage = ClientUsage::default();
        self.waiting.iter().for_each(|arrival| usage.add(arrival.client, 1));
        usage.check(client, MAX_WAITING).is_ok()
    }
}

impl PluginPort {
    /// A port for what `settings` say. It has no owner yet.
    pub(crate) fn new(settings: &ListenSettings) -> Self {
        Self { protocol: settings.protocol, tls: settings.tls.clone(), owners: Vec::new() }
    }

    /// True if a listener with these settings can share the port.
    pub(crate) fn fits(&self, settings: &ListenSettings) -> bool {
        self.protocol == settings.protocol && self.tls == settings.tls
    }

    /// Adds an owner. An older one of the same path gives way if `may_replace` it, and is returned; it is to be removed by
    /// [`PluginPort::remove`]. An error is the reason of `ERR LSTN`.
    pub(crate) fn add(
        &mut self,
        key: Key,
        settings: &ListenSettings,
        may_replace: impl FnOnce(Key) -> bool,
    ) -> Result<Option<Key>, &'static str> {
        let path = &settings.rules.path;
        let older = self.owners.iter().find(|owner| owner.path == *path).map(|owner| owner.key);
        match older {
            Some(older) if !may_replace(older) => return Err(PATH_IN_USE),
            None if self.owners.len() >= MAX_OWNERS => return Err(TOO_MANY_LISTENERS),
            _ => {}
        }
        self.owners.push(Owner { key, path: path.clone(), waiting: Vec::new() });
        Ok(older)
    }

    /// Removes the owner `key`. Returns the arrivals that waited for it. `None` if it is none.
    pub(crate) fn remove(&mut self, key: Key) -> Option<Vec<Key>> {
        let at = self.owners.iter().position(|owner| owner.key == key)?;
        let removed = self.owners.remove(at);
        Some(removed.waiting.into_iter().map(|arrival| arrival.key).collect())
    }

    /// The owner of `path`, which is `None` for tcp and tls. An error says why an arrival of `client` is refused: there is none, or
    /// as many arrivals wait for it as may.
    pub(crate) fn owner(&self, path: Option<&str>, client: ClientKey) -> Result<Key, Refusal> {
        let is_exact = |owner: &&Owner| owner.path.is_some() && owner.path.as_deref() == path;
        let owner = self.owners.iter().find(is_exact);
        let owner = owner.or_else(|| self.owners.iter().find(|owner| owner.path.is_none()));
        let owner = owner.ok_or_else(ServerRules::no_such_path)?;
        if owner.has_place_for(client) { Ok(owner.key) } else { Err(Refusal::new(503, TOO_MANY_WAITING)) }
    }

    /// All owners.
    pub(crate) fn owners(&self) -> &[Owner] {
        &self.owners
    }

    /// The owner that the arrival with this id waits for, and the arrival.
    pub(crate) fn find_waiting(&self, id: &[u8]) -> Option<(Key, Key)> {
        self.owners.iter().find_map(|owner| {
            let found = owner.waiting.iter().find(|arrival| arrival.pid.to_string().as_bytes() == id);
            found.map(|arrival| (owner.key, arrival.key))
        })
    }

    /// An arrival waits for `owner` from now on.
    pub(crate) fn add_waiting(&mut self, owner: Key, arrival: WaitingArrival) {
        if let Some(owner) = self.owners.iter_mut().find(|known| known.key == owner) {
            owner.waiting.push(arrival);
        }
    }

    /// An arrival waits no longer.
    pub(crate) fn remove_waiting(&mut self, arrival: Key) {
        for owner in &mut self.owners {
            owner.waiting.retain(|waiting| waiting.key != arrival);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::session::PidSource;

    fn settings(path: Option<&str>) -> ListenSettings {
        let mut settings = ListenSettings::new("127.0.0.1:80".parse().unwrap());
        settings.protocol = Protocol::Ws;
        settings.rules.path = path.map(Into::into);
        settings
    }

    #[test]
    fn owners_share_a_port_by_path() {
        let mut port = PluginPort::new(&settings(None));
        for (key, path) in [(1, None), (2, Some("/a"))] {
            assert_eq!(port.add(key, &settings(path), |_| false), Ok(None));
        }
        let owner = |path| port.owner(path, ClientKey::Loopback).ok();
        assert_eq!(
            (owner(Some("/a")), owner(Some("/b")), owner(Some("/A")), owner(None)),
            (Some(2), Some(1), Some(1), Some(1))
        );
        assert_eq!(port.add(3, &settings(Some("/a")), |older| older != 2), Err(PATH_IN_USE));
        assert_eq!(port.add(3, &settings(Some("/a")), |older| older == 2), Ok(Some(2)));
        assert_eq!(port.remove(2), Some(Vec::new()));
        assert_eq!(port.owner(Some("/a"), ClientKey::Loopback), Ok(3));
        assert_eq!((port.remove(1), port.remove(1)), (Some(Vec::new()), None));
        assert_eq!(port.owner(Some("/b"), ClientKey::Loopback).map_err(|refusal| refusal.code()), Err(404));
    }

    #[test]
    fn owners_and_arrivals_are_bounded() {
        let mut port = PluginPort::new(&settings(None));
        for key in 0..MAX_OWNERS {
            assert_eq!(port.add(key, &settings(Some(&format!("/{key}"))), |_| false), Ok(None));
        }
        assert_eq!(port.add(99, &settings(None), |_| true), Err(TOO_MANY_LISTENERS));
        assert_eq!(port.add(99, &settings(Some("/1")), |_| true), Ok(Some(1)), "it takes the place of another");
        let mut pids = PidSource::default();
        let mut arrival = |key, client| WaitingArrival { pid: pids.next(SystemTime::UNIX_EPOCH, false), key, client };
        let here = ClientKey::Loopback;
        let first = arrival(100, here);
        port.add_waiting(2, first);
        for key in 101..100 + MAX_WAITING.all {
            assert_eq!(port.owner(Some("/2"), here), Ok(2));
            port.add_waiting(2, arrival(key, here));
        }
        assert_eq!(port.owner(Some("/2"), here).map_err(|refusal| refusal.code()), Err(503));
        assert_eq!(port.find_waiting(first.pid.to_string().as_bytes()), Some((2, 100)));
        assert_eq!((port.find_waiting(b""), port.find_waiting(b"ffff")), (None, None));
        port.remove_waiting(100);
        assert_eq!(port.find_waiting(first.pid.to_string().as_bytes()), None);
        assert_eq!(port.owner(Some("/2"), here), Ok(2));
        assert_eq!(port.remove(2).unwrap().len(), MAX_WAITING.all - 1);
    }

    #[test]
    fn a_client_has_4_places_and_loopback_4_of_its_own() {
        let mut port = PluginPort::new(&settings(None));
        port.add(1, &settings(None), |_| false).unwrap();
        let pid = PidSource::default().next(SystemTime::UNIX_EPOCH, false);
        let mut fill = |client| {
            let places = (0..20).filter(|&number| {
                let has_place = port.owner(None, client).is_ok();
                if has_place {
                    port.add_waiting(1, WaitingArrival { pid, key: number, client });
                }
                has_place
            });
            places.count()
        };
        let places = [1, 1, 2, 3, 4].map(|network| fill(ClientKey::V6(network)));
        assert_eq!((places, fill(ClientKey::Loopback)), ([4, 0, 4, 4, 0], 4));
    }

    #[test]
    fn a_port_speaks_one_protocol_with_one_certificate() {
        let mut port = PluginPort::new(&settings(None));
        port.add(1, &settings(None), |_| false).unwrap();
        assert!(port.fits(&settings(Some("/b"))));
        assert!(!port.fits(&ListenSettings { protocol: Protocol::Wss, ..settings(None) }));
        let secure = |name: &str| ListenSettings {
            protocol: Protocol::Wss,
            tls: Some(ServerTlsSettings { certificate: name.into(), key: None }),
            ..settings(None)
        };
        let port = PluginPort::new(&secure("a"));
        assert!(port.fits(&secure("a")) && !port.fits(&secure("b")));
    }
}
