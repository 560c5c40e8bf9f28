//! The daemon from outside: the built binary against stand-ins and real clients, one module a subject.
//!
//! Everything runs on loopback and on ports that the kernel chooses, so that tests run in parallel. With `SOCKPROXYD` set
//! (say to `qemu-mipsel-static target/mipsel-unknown-linux-musl/firmware/sockproxyd`) that is tested instead. A test that
//! cannot be made here says `skipped:` and why.
//!
//! Environment: `SOAK=1` makes the tests of robustness last: 10 000 connections that break off instead of 2 000.

mod support;

mod access;
mod bulk;
mod certificates;
mod command_line;
mod conn;
mod conn_options;
mod direct;
mod echo;
mod fairness;
mod farewell;
mod faults;
mod greeting;
mod half_close;
mod keep;
mod keep_messages;
mod limits;
mod logging;
mod lua;
mod lua_clients;
mod luup_tls;
mod luup_trouble;
mod names;
mod notifications;
mod old_kernel;
mod pace;
mod real_clients;
mod resets;
mod robustness;
mod setup_commands;
mod setup_lines;
mod signals;
mod status;
mod supervise;
mod timeouts;
mod tls;
mod tls_peers;
mod udp;
mod udp_framing;
mod websocket_closing;
mod websocket_handshake;
mod websocket_messages;
mod websocket_peers;
mod websocket_reasons;
mod websocket_secure;
