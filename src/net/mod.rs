//! Sockets, names and addresses.
//!
//! Nothing here knows what a connection is for.

pub mod access;
