//! TLS connections: to remotes and to Luup as a client, and of clients that are accepted as a server.
//!
//! May depend on: `protocol` (the TLS settings), `files`, `thread_pool` and `net` (the `Stream` trait, texts of errors). Knows
//! nothing of sessions. Nothing here owns a socket during a handshake: bytes come in, bytes go out.
//!
//! The order of use: [`Handshakes::begin`] with [`TlsSettings`], or [`Handshakes::begin_server`] with [`ServerTlsSettings`];
//! [`Handshakes::advance`] with received bytes until [`TlsOutcome::Done`]; then [`TlsStream::new`] over the socket.
//!
//! | file | holds |
//! | --- | --- |
//! | [`context`] | roots, configurations and session caches that connections share |
//! | `files` | PEM files that the configuration or a plugin names |
//! | `verify`, `x509` | verification of certificates |
//! | `key_kind` | kinds of keys, and what they can be used for |
//! | `config_cache` | configurations that are kept until a file changes |
//! | `unbuffered` | our end of one connection, sans-IO |
//! | `first_bytes` | telling other protocols from TLS |
//! | [`handshake`] | handshakes on threads of their own |
//! | [`stream`] | an established connection as a stream of plain bytes |
//! | `self_signed` | making a certificate |
//! | [`error`] | why a connection failed |

mod config_cache;
pub(crate) mod context;
pub(crate) mod error;
mod files;
mod first_bytes;
pub(crate) mod handshake;
mod key_kind;
mod self_signed;
pub(crate) mod stream;
mod unbuffered;
mod verify;
mod x509;

#[cfg(test)]
mod tests;

pub(crate) use crate::protocol::tls_settings::{ServerTlsSettings, TlsSettings, TlsVerify as Verify, TlsVersion};
pub(crate) use context::TlsContext;
pub(crate) use error::TlsError;
#[cfg(test)]
pub(crate) use handshake::begin;
pub(crate) use handshake::{
    Handshakes, PendingHandshake, TlsConnection, TlsOutcome, TlsStep, handshake_memory, handshake_room,
};
pub(crate) use self_signed::{CertificateNames, SelfSigned};
pub(crate) use stream::TlsStream;
pub(crate) use unbuffered::TlsRole;
