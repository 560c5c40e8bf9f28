//! The sockproxyd daemon.
fn main() {}
