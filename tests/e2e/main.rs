//! End-to-end tests: the built binary against test doubles and third-party programs.
//!
//! - [`setup`]: greeting, commands, CONN, access, name resolution, STAT
//! - [`relay`]: TCP and UDP relays, backpressure, ends, timeouts, clients
//! - [`websocket`], [`tls`]: WebSocket and TLS towards remotes
//! - [`serve`]: WebSocket ports of `[serve]`
//! - [`status`]: `--status` and the status port
//! - [`notify`]: notifications to Luup
//! - [`keep`]: KEEP, ATCH and DROP
//! - [`listen`]: LSTN, ACPT and DENY
//! - [`process`]: command line, configuration, signals, supervision, log, limits, shutdown
//! - [`faults`]: the faults of the original Lua daemon, each with a test
//!
//! All sockets are on loopback, on ports that the kernel chooses, or in network namespaces of a test's own, so the tests run
//! in parallel. `SOCKPROXYD` selects another program (for example `qemu-mipsel-static
//! target/mipsel-unknown-linux-musl/firmware/sockproxyd`). A test that cannot run on this machine prints `skipped:` and the
//! reason.
//!
//! Environment: `SOAK=1` makes the robustness tests longer: 10 000 aborted connections instead of 2 000.

mod support;

mod faults;
mod keep;
mod listen;
mod notify;
mod process;
mod relay;
mod serve;
mod setup;
mod status;
mod tls;
mod websocket;
