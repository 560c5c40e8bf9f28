//! Handshakes, off the loop: on a 500 MHz MIPS one takes tens to hundreds of milliseconds.
//!
//! The loop keeps the socket. It hands what it has received to [`Handshakes::advance`], sends what a [`Step`] says,
//! and makes a [`super::TlsStream`] of the connection in the end.

use std::hash::Hash;
use std::sync::Arc;

use rustls::ClientConnection;

use super::{Failure, House, Settings};

/// Makes handshakes on threads of its own. `K` is what the asker wants back with a step.
pub struct Handshakes<K> {
    results: Vec<(K, Step)>,
    wake: Box<dyn Fn() + Send + Sync>,
}

/// A handshake that waits for the server's next bytes.
#[derive(Debug)]
pub struct Pending(#[expect(dead_code, reason = "comes with the handshake")] Box<ClientConnection>);

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct TlsConnection(#[expect(dead_code, reason = "comes with the stream")] Box<ClientConnection>);

/// What came of `begin` or `advance`.
#[derive(Debug)]
pub struct Step {
    /// To be sent to the server, behind what earlier steps said, whatever the outcome is: a failure may have an alert.
    pub to_send: Vec<u8>,
    /// How it goes on.
    pub outcome: Outcome,
}

/// How a handshake goes on.
#[derive(Debug)]
pub enum Outcome {
    /// The server is to answer.
    More(Pending),
    /// It is done. What came behind the handshake is inside the connection.
    Done(TlsConnection),
    /// There will be no connection.
    Failed(Failure),
}

impl<K: Clone + Eq + Hash> Handshakes<K> {
    /// Handshakes of at most `most` at once; `wake` is called when there is a result.
    pub fn new(house: Arc<House>, most: usize, wake: impl Fn() + Send + Sync + 'static) -> Self {
        let _ = (house, most);
        Self { results: Vec::new(), wake: Box::new(wake) }
    }

    /// Begins a handshake with `host`, a name or a literal address (without brackets).
    pub fn begin(&mut self, asker: K, host: &str, settings: &Settings) {
        let _ = (host, settings);
        let outcome = Outcome::Failed(Failure::new("not built into this version"));
        self.results.push((asker, Step { to_send: Vec::new(), outcome }));
        (self.wake)();
    }

    /// Goes on with what the server has sent. At its end, `received` is empty.
    pub fn advance(&mut self, asker: K, pending: Pending, received: Vec<u8>) {
        let _ = (pending, received);
        let outcome = Outcome::Failed(Failure::new("not built into this version"));
        self.results.push((asker, Step { to_send: Vec::new(), outcome }));
        (self.wake)();
    }

    /// The steps since the last call.
    pub fn take_results(&mut self) -> Vec<(K, Step)> {
        std::mem::take(&mut self.results)
    }

    /// The asker waits no more.
    pub fn withdraw(&mut self, asker: &K) {
        self.results.retain(|(other, _)| other != asker);
    }

    /// From now on, handshakes begin in `house`: the configuration has changed.
    pub fn set_house(&mut self, house: Arc<House>) {
        let _ = house;
    }
}
