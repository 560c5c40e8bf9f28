//! Fuzzes an open WebSocket.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sockproxyd::fuzzing::websocket(data));
