//! TLS towards remotes: what a plugin asks of it, handshakes on threads of their own, and the stream behind them.
//!
//! | room | what lives there |
//! | --- | --- |
//! | [`settings`] | what a plugin asks for |
//! | [`context`] | what all connections share: roots, configurations, sessions to be resumed |
//! | `files` | PEM files below the configured directory |
//! | `verify`, `x509` | who the server is |
//! | `client` | the sans-IO heart |
//! | [`handshake`] | handshakes, off the loop |
//! | [`stream`] | an established connection as a stream of plain bytes |
//! | [`error`] | what went wrong, in a plugin's words |
//!
//! Nothing here owns a socket while a handshake lasts: bytes come in, bytes go out.

mod client;
pub mod context;
pub mod error;
mod files;
pub mod handshake;
pub mod settings;
pub mod stream;
mod verify;
mod x509;

#[cfg(test)]
mod tests;

pub use context::House;
pub use error::Failure;
pub use handshake::{Handshakes, Outcome, Pending, Step, TlsConnection};
pub use settings::{Settings, Verify, Version};
pub use stream::TlsStream;
