//! The opening handshake (RFC 6455 section 4) of client and server, and the URLs of WebSockets.
//!
//! Sans-IO: no socket, no clock, no randomness. The caller supplies the key, follows and counts redirects, and limits
//! the time.
//!
//! | file | holds |
//! | --- | --- |
//! | [`url`] | `ws` and `wss` URLs, and the targets of redirects |
//! | [`client`] | the client: [`Offer`], its request, the check of the response |
//! | [`server`] | the server: its check of the request, the rules of a listener, and its refusals |
//! | `head`, `fields` | header blocks and their fields |
//! | `extensions` | negotiation of permessage-deflate |
//! | `accept` | the key, its answer, and basic authentication |
//! | [`error`] | why a connection failed, as `ERR CONN` says it |

mod accept;
pub(crate) mod client;
pub(crate) mod error;
mod extensions;
mod fields;
mod head;
pub(crate) mod server;
pub(crate) mod url;

pub(crate) use client::{ClientHandshake, HandshakeProgress, MAX_TEXTS, Offer, OfferError, Upgraded};
pub(crate) use error::{ErrorCode, HandshakeError};
pub(crate) use extensions::CompressionOffer;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use head::{MAX_FIELDS, MAX_HEAD};
pub(crate) use server::{
    AcceptOptions, PageRequest, Refusal, RequestProgress, ServerHandshake, ServerRules, UpgradeRequest,
};
pub(crate) use url::{Url, UrlError};
