//! sockproxyd: takes the sockets off the hands of Luup plugins, and calls them back when there is something to read.
//!
//! This is the map of the house. Dependencies point down the list; what stands lower knows nothing of what stands
//! above it.
//!
//! | room | what lives there |
//! | --- | --- |
//! | `main` | arguments, configuration, log, daemon; exit statuses |
//! | [`supervise`] | the parent that starts a daemon anew |
//! | [`probe`] | asks a running proxy whether it is there |
//! | [`daemon`] | the loop: poll, tokens, timers, signals |
//! | [`status`] | STAT and STAT JSON |
//! | [`session`] | one plugin connection: setup, connecting, relaying, draining |
//! | [`relay`] | bytes from one side to the other, with backpressure and bounds |
//! | [`notify`] | when a plugin is told, and the telling |
//! | [`tls`] | TLS towards remotes: settings, verification, handshakes off the loop |
//! | [`net`] | sockets, names, who may come in |
//! | [`config`], [`cli`], [`logging`] | what the owner says, and what is said to the owner |
//! | [`workers`] | threads for what can only block |
//! | [`spare`] | memory that goes from hand to hand |
//! | [`protocol`] | what plugins say, sans-IO |
//! | [`websocket`] | RFC 6455 and 7692, sans-IO |
//!
//! Beside these are [`testing`], which stands in for sockets in simulations and fuzz targets, and, each behind a feature of
//! its name, `fuzzing` (the fuzz targets' bodies) and `bench` (`benchmarks`: what measurements call).
//!
//! # How a byte travels
//!
//! Remote socket, [`relay::direction`], plugin socket; then the [`notify::schedule`] hears "data handed over", a
//! request becomes due, and a sender's thread invokes the plugin's action. Back: plugin socket, relay, remote socket.
//! Bulk takes the short way through a pipe and never enters this process.
//!
//! # Panics
//!
//! Nothing that comes in from outside may make the daemon panic. A broken promise of our own code does, and since the
//! firmware's build aborts then, a supervisor (procd, systemd, or `--supervise`) starts it anew.

#[cfg(feature = "bench")]
pub mod benchmarks;
pub mod cli;
pub mod config;
pub mod daemon;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod logging;
pub mod net;
pub mod notify;
pub mod probe;
pub mod protocol;
pub mod relay;
pub mod session;
pub mod spare;
pub mod status;
pub mod supervise;
pub mod testing;
pub mod tls;
pub mod websocket;
pub mod workers;
