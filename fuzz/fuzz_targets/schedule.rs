//! Fuzzes the schedule of notifications.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sockproxyd::fuzzing::schedule(data));
