//! The stream behind the handshake.
