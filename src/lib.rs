//! sockproxyd.
pub mod protocol;
