//! Test doubles and tools for the tests, the demonstration and the benchmarks of sockproxyd.
//!
//! - [`daemon`]: the built binary, started in a private directory and observed from outside
//! - [`luup`]: a stand-in for Luup's HTTP server that records requests and injects faults
//! - [`netns`]: network namespaces, and networks between them
//! - [`old_kernel`]: runs a program with the system calls of Linux 2.6.37
//! - [`plugin`]: the plugin's side of a connection to the daemon
//! - [`device`]: TCP and UDP remotes
//! - [`tls`]: certificates of every kind, and a remote that speaks TLS
//! - [`lan`]: a box on a LAN, and a neighbour
//! - [`websocket`]: a WebSocket server that tests script
//! - [`ports`]: ports that are reserved, refuse, or never answer
//! - [`process`]: memory, descriptors and processor time of a process
//! - [`random`]: reproducible data and its checksums
//!
//! Constructors and waits panic with the reason and the place in the test, where a library would return an error that
//! every test had to unwrap. Waits have a limit and wait for the event itself; none polls with a sleep if the kernel
//! can report the event.

pub mod daemon;
pub mod device;
pub mod lan;
pub mod luup;
pub mod netns;
pub mod old_kernel;
pub mod plugin;
pub mod ports;
pub mod process;
pub mod random;
pub mod tls;
pub mod websocket;
