//! A remote that speaks TLS.

/// A remote that speaks TLS.
pub struct TlsDevice;
