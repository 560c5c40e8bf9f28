//! sockproxyd: a socket proxy for Luup plugins. It holds their connections to devices, and invokes an action of a plugin
//! when there is something to read.
//!
//! # Where to look
//!
//! | module | what it is for | uses |
//! | --- | --- | --- |
//! | [`program`] | arguments, configuration, log, daemon; exit statuses | cli config daemon logging make_cert probe service_manager show_status supervise |
//! | [`supervise`] | the parent process that restarts a daemon which has died | |
//! | [`cli`] | the command line | config protocol tls |
//! | [`show_status`] | prints the status of a running proxy | net probe protocol |
//! | [`probe`] | asks a running proxy for its greeting | net protocol |
//! | [`make_cert`] | makes a self-signed certificate | net tls |
//! | [`daemon`] | the loop: poll, dispatch, timers, signals, admission | access buffer_pool client config logging net notify protocol relay service_manager session status tls websocket |
//! | [`status`] | the answers to STAT | config notify protocol session |
//! | [`session`] | one plugin connection: setup, connecting, relaying, keeping, draining | access client config net notify protocol relay seconds tls trace websocket |
//! | [`relay`] | moves bytes between two endpoints, with backpressure, half-close and bounds | buffer_pool client net protocol trace websocket |
//! | [`notify`] | when a plugin is notified, and the requests to Luup | client net thread_pool tls |
//! | [`tls`] | TLS as a client and as a server: certificates, handshakes on threads, streams | client files net protocol thread_pool |
//! | [`net`] | sockets with their readiness, connecting, names | client files protocol thread_pool websocket |
//! | [`service_manager`] | tells systemd when the daemon is ready, reads its configuration again, and ends | |
//! | [`logging`] | log lines, to standard error, a file or the system log | client config protocol thread_pool |
//! | [`config`] | the configuration: one table of settings | access files protocol |
//! | [`access`] | lists of addresses and targets that are allowed, sans-IO | |
//! | [`client`] | clients as they are counted, sans-IO | |
//! | [`protocol`] | what plugins and the proxy say to each other, sans-IO | buffer_pool websocket |
//! | [`websocket`] | RFC 6455 and 7692, sans-IO | buffer_pool trace |
//! | [`trace`] | the lines of TRAC, sans-IO | seconds |
//! | [`seconds`] | times as log lines and traces show them | |
//! | [`files`] | regular files, read without waiting | |
//! | [`thread_pool`] | threads for calls that block or compute for long | |
//! | [`buffer_pool`] | a thread-local free list of buffers | |
//!
//! A module uses only modules below it in the table, and no others than those named; a test checks that. Besides there are
//! `testing`, which simulations use in place of the kernel, `fuzzing` (the bodies of the fuzz targets) and `benchmarks`, the
//! last two each behind a feature.
//!
//! `docs/architecture.md` has the life of a session, the rules of readiness, the threads, the accounting of memory, and a
//! glossary.
//!
//! # How a byte travels
//!
//! Remote socket, [`net::endpoint`], [`relay`], plugin socket. The relay's turn reports that bytes were delivered,
//! [`notify::schedule`] makes a request due, and a thread invokes the plugin's action. Back: plugin socket, relay, remote
//! socket. Bulk between two plain sockets goes through a pipe and never enters this process.
//!
//! # Panics
//!
//! Input from outside never causes a panic. A broken invariant of our own does, and since the firmware's build aborts then,
//! a supervisor (procd, systemd, or `--supervise`) restarts the daemon.

mod access;
#[cfg(feature = "bench")]
pub mod benchmarks;
mod buffer_pool;
mod cli;
mod client;
mod config;
mod daemon;
mod files;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod logging;
mod make_cert;
mod net;
mod notify;
mod probe;
mod program;
mod protocol;
mod relay;
mod seconds;
mod service_manager;
mod session;
mod show_status;
mod status;
mod supervise;
#[cfg(any(test, feature = "fuzzing"))]
mod testing;
mod thread_pool;
mod tls;
mod trace;
mod websocket;

pub use program::run;
