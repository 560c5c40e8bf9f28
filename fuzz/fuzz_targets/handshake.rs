//! Fuzzes the opening handshake.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sockproxyd::fuzzing::handshake(data));
