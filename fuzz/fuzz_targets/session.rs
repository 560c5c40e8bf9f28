//! Fuzzes whole sessions over a network in memory.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sockproxyd::fuzzing::session(data));
