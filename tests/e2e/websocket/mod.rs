//! WebSocket towards remotes.

mod close_reasons;
mod closing;
mod handshake;
mod lua_clients;
mod messages;
mod secure;
mod third_party_servers;
