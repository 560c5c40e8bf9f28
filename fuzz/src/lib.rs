//! The fuzz targets: one module each, with a function `run` that panics if an invariant is violated.
//!
//! tests/fuzz_seeds.rs includes this file and replays the seeds through the same functions.

pub mod access;
pub mod config;
pub mod datagrams;
pub mod framing;
pub mod handshake;
pub mod inflate;
pub mod input;
pub mod relay;
pub mod schedule;
pub mod setup;
pub mod websocket;

/// The body of a target.
pub type Run = fn(&[u8]);

/// All targets: the name, which is also that of the folder of seeds, and the body.
pub const TARGETS: [(&str, Run); 10] = [
    ("access", access::run),
    ("config", config::run),
    ("datagrams", datagrams::run),
    ("framing", framing::run),
    ("handshake", handshake::run),
    ("inflate", inflate::run),
    ("relay", relay::run),
    ("schedule", schedule::run),
    ("setup", setup::run),
    ("websocket", websocket::run),
];
