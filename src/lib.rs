//! sockproxyd.
pub mod notify;
pub mod protocol;
