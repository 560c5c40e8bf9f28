//! TLS towards remotes: what a plugin asks of it, handshakes on threads of their own, and the stream behind them.
//!
//! | room | what lives there |
//! | --- | --- |
//! | [`house`] | what all connections share: roots, configurations, sessions to be resumed |
//! | `files` | PEM files below the configured directory |
//! | `verify`, `x509` | who the server is |
//! | `connection` | the sans-IO heart |
//! | [`handshake`] | handshakes, off the loop |
//! | [`stream`] | an established connection as a stream of plain bytes |
//! | [`error`] | what went wrong, in a plugin's words |
//!
//! Nothing here owns a socket while a handshake lasts: bytes come in, bytes go out.

mod connection;
pub mod error;
mod files;
pub mod handshake;
pub mod house;
pub mod stream;
mod verify;
mod x509;

#[cfg(test)]
mod tests;

pub use crate::protocol::tls_settings::{TlsSettings as Settings, TlsVerify as Verify, TlsVersion as Version};
pub use error::Failure;
pub use handshake::{Handshakes, Outcome, Pending, Step, TlsConnection};
pub use house::House;
pub use stream::TlsStream;
