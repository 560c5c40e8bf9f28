//! Fuzzes the configuration.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sockproxyd_fuzz::config::run(data));
