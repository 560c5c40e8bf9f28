//! Fuzzes the relay of a stream and datagrams.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sockproxyd::fuzzing::datagrams(data));
