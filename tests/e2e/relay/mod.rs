//! Relays over TCP and UDP.

mod backpressure;
mod discovery;
mod echo;
mod fairness;
mod half_close;
mod healing;
mod home_assistant;
mod lua_plugins;
mod outages;
mod resets;
mod third_party_clients;
mod timeouts;
mod udp;
mod udp_framing;
mod udp_networks;
