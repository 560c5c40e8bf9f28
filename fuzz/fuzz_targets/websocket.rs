//! Fuzzes an open WebSocket.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sockproxyd_fuzz::websocket::run(data));
