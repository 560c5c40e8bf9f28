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
//! | [`failure`] | the words for what went wrong |

pub mod client;
pub mod failure;
pub mod offer;
pub mod url;

pub use client::{ClientHandshake, Progress, Upgraded};
pub use failure::{Failure, Word};
pub use offer::{Offer, OfferError};
pub use url::{Url, UrlError};
