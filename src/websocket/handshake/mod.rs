//! The opening handshake (RFC 6455 section 4), the client's side and the server's, and the URLs that lead to one.
//!
//! Sans-IO: no socket, no clock, no randomness; the key comes from whoever owns those. Whoever drives a handshake
//! counts redirects and time.
//!
//! | room | holds |
//! | --- | --- |
//! | [`url`] | `ws://` and `wss://`, and where a redirect leads |
//! | [`offer`] | what a client asks for, and what may be asked for |
//! | [`client`] | the client's side, start to end |
//! | [`server`] | the server's side, start to end |
//! | `request`, `response` | the client's request; the answer, judged |
//! | `head`, `fields` | header blocks and what is in them |
//! | `extensions` | permessage-deflate is agreed on |
//! | `accept` | the key and its answer |
//! | [`failure`] | the words for what went wrong |

mod accept;
pub mod client;
mod extensions;
pub mod failure;
mod fields;
mod head;
pub mod offer;
mod request;
mod response;
pub mod server;
pub mod url;

pub use client::{ClientHandshake, Progress, Upgraded};
pub use failure::{Failure, Word};
pub use head::{FIELDS_LIMIT, HEAD_LIMIT};
pub use offer::{Offer, OfferError};
pub use server::{Answer, Arrival, Refusal, Request, ServerHandshake};
pub use url::{Url, UrlError};
