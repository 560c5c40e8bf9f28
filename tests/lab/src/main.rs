//! The lab's stand-ins and load generator, for people and scripts.
fn main() {}
