//! Fuzzes the relay of streams.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sockproxyd::fuzzing::relay(data));
