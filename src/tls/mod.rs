//! TLS connections to remotes and to Luup, as a client.
//!
//! May depend on: `protocol` (the TLS settings), `thread_pool` and `net` (the `Stream` trait, texts of errors). Knows nothing of sessions.
//! Nothing here owns a socket during a handshake: bytes come in, bytes go out.
//!
//! The order of use: [`Handshakes::begin`] with [`TlsSettings`], [`Handshakes::advance`] with received bytes until
//! [`TlsOutcome::Done`], then [`TlsStream::new`] over the socket.
//!
//! | file | holds |
//! | --- | --- |
//! | [`context`] | roots, configurations and session caches that connections share |
//! | `files` | PEM files below the configured directory |
//! | `verify`, `x509` | verification of certificates |
//! | `client` | one connection, sans-IO |
//! | [`handshake`] | handshakes on threads of their own |
//! | [`stream`] | an established connection as a stream of plain bytes |
//! | [`error`] | why a connection failed |

mod client;
pub mod context;
pub mod error;
mod files;
pub mod handshake;
pub mod stream;
mod verify;
mod x509;

#[cfg(test)]
mod tests;

pub use crate::protocol::tls_settings::{TlsSettings, TlsVerify as Verify, TlsVersion};
pub use context::TlsContext;
pub use error::TlsError;
#[cfg(test)]
pub use handshake::begin;
pub use handshake::{Handshakes, PendingHandshake, TlsConnection, TlsOutcome, TlsStep};
pub use stream::TlsStream;
