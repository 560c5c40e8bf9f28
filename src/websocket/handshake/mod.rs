//! The opening handshake (RFC 6455 section 4), the client's side and the server's, and the URLs that lead to one.
//!
//! Sans-IO: no socket, no clock, no randomness; the key comes from whoever owns those. Whoever drives a handshake
//! counts redirects and time.
//!
//! | room | holds |
//! | --- | --- |
//! | [`url`] | `ws://` and `wss://`, and where a redirect leads |
//! | [`client`] | the client's side, start to end |
//! | [`server`] | the server's side, start to end |
//! | `head`, `fields` | header blocks and what is in them |
//! | `extensions` | permessage-deflate is agreed on |
//! | `accept` | the key and its answer |
//! | [`error`] | the words for what went wrong |

mod accept;
pub mod client;
pub mod error;
mod extensions;
mod fields;
mod head;
pub mod server;
pub mod url;

pub use client::{ClientHandshake, Offer, OfferError, Progress, Upgraded};
pub use error::{Failure, Word};
pub use head::{FIELDS_LIMIT, HEAD_LIMIT};
pub use server::{Answer, Arrival, Refusal, Request, ServerHandshake};
pub use url::{Url, UrlError};
