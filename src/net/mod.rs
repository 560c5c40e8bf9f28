//! Sockets, names and addresses. Nothing here knows what a connection is for.

pub mod blocking;
pub mod connector;
pub mod listener;
pub mod random;
pub mod resolver;
pub mod socket;

use std::io;

use nix::errno::Errno;

/// A socket's error in the words that LuaSocket has for it, which plugins may look for.
pub fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => return "connection refused".into(),
        // Also of what std says without a number.
        io::ErrorKind::TimedOut => return "timeout".into(),
        _ => {}
    }
    match error.raw_os_error().map(Errno::from_raw) {
        // More exact than what the kinds of std tell apart.
        Some(Errno::EACCES | Errno::EPERM) => "permission denied".into(),
        Some(Errno::ECONNRESET | Errno::ECONNABORTED) => "closed".into(),
        Some(Errno::EADDRINUSE) => "address already in use".into(),
        Some(errno) => errno.desc().into(),
        None => error.to_string(),
    }
}
