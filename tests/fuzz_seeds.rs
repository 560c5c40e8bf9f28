//! Replays the seeds of the fuzz targets: inputs that once failed, and examples of the protocol.

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::path::Path;

fn replay(name: &str) {
    let (_, run) = fuzz::TARGETS.iter().find(|(known, _)| *known == name).expect("an unknown target");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
    let mut seeds: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    seeds.sort();
    assert!(seeds.len() >= 10, "seeds of {name} are missing");
    for seed in seeds {
        // Printed if the test fails.
        println!("{}", seed.display());
        run(&std::fs::read(&seed).unwrap());
    }
}

#[test]
fn access() {
    replay("access");
}

#[test]
fn config() {
    replay("config");
}

#[test]
fn datagrams() {
    replay("datagrams");
}

#[test]
fn framing() {
    replay("framing");
}

#[test]
fn handshake() {
    replay("handshake");
}

#[test]
fn inflate() {
    replay("inflate");
}

#[test]
fn relay() {
    replay("relay");
}

#[test]
fn schedule() {
    replay("schedule");
}

#[test]
fn setup() {
    replay("setup");
}

#[test]
fn websocket() {
    replay("websocket");
}

#[test]
fn every_target_is_replayed() {
    let this = include_str!("fuzz_seeds.rs");
    for (name, _) in fuzz::TARGETS {
        assert!(this.contains(&format!("replay(\"{name}\")")), "{name}");
    }
}
