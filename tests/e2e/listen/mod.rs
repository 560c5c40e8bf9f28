//! LSTN, INCO, ACPT and DENY: plugins that listen.

mod dialogue;
mod errors;
mod limits;
mod secure;
mod tcp;
mod websocket;
