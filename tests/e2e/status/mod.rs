//! The status of the proxy outside of the protocol: `--status`, and the port of `[status]`.

mod command;
mod port;
