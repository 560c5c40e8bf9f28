//! sockproxyd.
pub mod config;
pub mod net;
pub mod notify;
pub mod protocol;
pub mod relay;
pub mod workers;
