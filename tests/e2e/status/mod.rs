//! The status of the proxy outside of the protocol: `--status`.

mod command;
