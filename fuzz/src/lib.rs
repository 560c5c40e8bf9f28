//! What is fuzzed, and what must hold: one room a target, each with a function `run` that panics where it does not.
//!
//! The daemon's own tests replay the seeds through the same functions (tests/fuzz_seeds.rs takes this file in).

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

/// A target's body.
pub type Run = fn(&[u8]);

/// All targets: the name, which is that of its folder of seeds, and the body.
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
