//! What a plugin asks of TLS.

/// What a plugin asks of TLS for one connection. Equal ones share a configuration, and resume each other's sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Settings {
    /// How the server proves who it is.
    pub verify: Verify,
    /// The lowest version that is spoken.
    pub lowest: Version,
    /// The server's name, where it is not the host.
    pub server_name: Option<Box<str>>,
    /// File of certificates (PEM) that are trusted in addition, below the directory of `[tls]`.
    pub ca_file: Option<Box<str>>,
    /// File of the client's certificate and what leads to its root (PEM), below the directory of `[tls]`.
    pub certificate: Option<Box<str>>,
    /// File of the client's private key (PEM), below the directory of `[tls]`.
    pub private_key: Option<Box<str>>,
}

/// How the server proves who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Verify {
    /// By a chain to a trusted root, in time, and in its name.
    #[default]
    Peer,
    /// Not at all. What it signs in the handshake is still checked against its certificate.
    None,
    /// By being one of these: SHA-256 of its certificate (DER). Stands in for chain, time and name.
    Pins(Vec<[u8; 32]>),
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Version {
    /// TLS 1.2.
    #[default]
    V12,
    /// TLS 1.3.
    V13,
}
