//! Fuzzes setup mode.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sockproxyd_fuzz::setup::run(data));
