//! TLS towards remotes: what a plugin asks of it, handshakes on threads of their own, and the stream behind them.
//!
//! | room | what lives there |
//! | --- | --- |
//! | [`settings`] | what a plugin asks for |
//! | [`house`] | what all connections share |
//! | [`handshake`] | handshakes, off the loop |
//! | [`stream`] | an established connection as a stream of plain bytes |
//! | [`error`] | what went wrong, in a plugin's words |
//!
//! Nothing here owns a socket while a handshake lasts: bytes come in, bytes go out.

pub mod error;
pub mod handshake;
pub mod house;
pub mod settings;
pub mod stream;

pub use error::Failure;
pub use handshake::{Handshakes, Outcome, Pending, Step, TlsConnection};
pub use house::House;
pub use settings::{Settings, Verify, Version};
pub use stream::TlsStream;
