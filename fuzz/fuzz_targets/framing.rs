//! Fuzzes framing on the plugin's side.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sockproxyd::fuzzing::framing(data));
