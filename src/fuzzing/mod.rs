//! What is fuzzed, and what must hold: one module a target, each with a function `run` that panics if it does not hold.
//!
//! `fuzz/fuzz_targets` calls the functions here with what libFuzzer makes up, the tests with the seeds of `fuzz/seeds`.
//! Simulations of the relays and of the schedule call the same functions with random bytes, and the target of sessions has the
//! world of their simulation: each machine has one world.

mod access;
mod config;
pub(crate) mod datagrams;
mod framing;
mod handshake;
mod inflate;
mod input;
pub(crate) mod relay;
pub(crate) mod schedule;
mod session;
mod setup;
mod websocket;

pub use access::run as access;
pub use config::run as config;
pub use datagrams::run as datagrams;
pub use framing::run as framing;
pub use handshake::run as handshake;
pub use inflate::run as inflate;
pub use relay::run as relay;
pub use schedule::run as schedule;
pub use session::run as session;
pub use setup::run as setup;
pub use websocket::run as websocket;

/// A target: its name, which is that of its seeds' folder, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 11] = [
    ("access", access),
    ("config", config),
    ("datagrams", datagrams),
    ("framing", framing),
    ("handshake", handshake),
    ("inflate", inflate),
    ("relay", relay),
    ("schedule", schedule),
    ("session", session),
    ("setup", setup),
    ("websocket", websocket),
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Replays the seeds of a target: what once broke something, and what the protocol is made of.
    fn replay(name: &str) {
        let (_, run) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target of that name");
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
        let mut seeds: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        seeds.sort();
        assert!(seeds.len() >= 10, "the seeds of {name} are gone");
        for seed in seeds {
            // Shown if the test fails.
            println!("{}", seed.display());
            run(&std::fs::read(&seed).unwrap());
        }
    }

    macro_rules! replays {
        ($($name:ident),*) => {
            $(#[test]
            fn $name() {
                replay(stringify!($name));
            })*

            #[test]
            fn every_target_is_replayed() {
                assert_eq!(TARGETS.map(|(name, _)| name), [$(stringify!($name)),*]);
            }
        };
    }

    replays!(access, config, datagrams, framing, handshake, inflate, relay, schedule, session, setup, websocket);
}
