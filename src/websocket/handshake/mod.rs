//! The opening handshake (RFC 6455 section 4) of client and server, and the URLs of WebSockets.
//!
//! Sans-IO: no socket, no clock, no randomness. The caller supplies the key, follows and counts redirects, and limits
//! the time.
//!
//! | file | holds |
//! | --- | --- |
//! | [`url`] | `ws` and `wss` URLs, and the targets of redirects |
//! | [`client`] | the client: [`Offer`], its request, the check of the response |
//! | [`server`] | the server: its check of the request, [`Refusal`] |
//! | `head`, `fields` | header blocks and their fields |
//! | `extensions` | negotiation of permessage-deflate |
//! | `accept` | the key, its answer, and basic authentication |
//! | [`error`] | why a connection failed, as `ERR CONN` says it |

mod accept;
pub mod client;
pub mod error;
mod extensions;
mod fields;
mod head;
pub mod server;
pub mod url;

pub use client::{ClientHandshake, HandshakeProgress, Offer, OfferError, Upgraded};
pub use error::{ErrorCode, HandshakeError};
pub use head::{MAX_FIELDS, MAX_HEAD};
pub use server::{AcceptOptions, Refusal, RequestProgress, ServerHandshake, UpgradeRequest};
pub use url::{Url, UrlError};
