//! Stand-ins and load for the tests, the demonstration and the benchmark of sockproxyd.
//!
//! - [`luup`]: a stand-in for Luup's HTTP server that records and misbehaves on demand
//! - [`device`]: TCP and UDP remotes
//! - [`daemon`]: the real binary, started in a private directory and watched
//! - [`plugin`]: what a plugin says to the daemon
//! - [`ports`]: ports that are reserved, refuse, or never answer
//! - [`process`]: memory, descriptors and processor time of a process
//! - [`random`]: reproducible data and its checksums
//! - [`tls`]: certificates of every kind, and a remote that speaks TLS
//! - [`websocket`]: a WebSocket server that does as it is told

//!
//! This is test equipment: constructors and waits panic with the reason (and the place in the test)
//! instead of returning errors which every test would unwrap. Waits are bounded and wait for the
//! event itself; nothing polls with a sleep where the kernel can tell.

pub mod daemon;
pub mod device;
pub mod luup;
pub mod plugin;
pub mod ports;
pub mod process;
pub mod random;
pub mod tls;
pub mod websocket;
