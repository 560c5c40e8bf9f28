//! Sockets, names and addresses. Nothing here knows what a connection is for.
//!
//! [`readiness`] has the rules of edge-triggered readiness; [`endpoint`] is a stream and its readiness in one value;
//! [`network`] is what a session asks for, so that a simulation can stand in for the kernel; [`user_timeout`] decides when a
//! peer that answers nothing is lost.

pub(crate) mod attempts;
pub(crate) mod blocking;
pub(crate) mod connector;
pub(crate) mod datagrams;
pub(crate) mod endpoint;
mod hosts_file;
pub(crate) mod listener;
mod name_classes;
pub(crate) mod network;
pub(crate) mod own_address;
pub(crate) mod random;
pub(crate) mod readiness;
pub(crate) mod resolver;
pub(crate) mod socket;
pub(crate) mod user_timeout;

use std::io;

use nix::errno::Errno;

/// A socket's error in LuaSocket's words, which plugins may look for.
pub(crate) fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => return "connection refused".into(),
        // Also for errors that std makes without a number.
        io::ErrorKind::TimedOut => return "timeout".into(),
        _ => {}
    }
    match error.raw_os_error().map(Errno::from_raw) {
        // std's kinds do not tell these apart.
        Some(Errno::EACCES | Errno::EPERM) => "permission denied".into(),
        Some(Errno::ECONNRESET | Errno::ECONNABORTED) => "closed".into(),
        Some(Errno::EADDRINUSE) => "address already in use".into(),
        // musl has other words for some than glibc and uClibc, which LuaSocket takes them from.
        Some(errno) => errno.desc().into(),
        None => error.to_string(),
    }
}
