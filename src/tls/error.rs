//! What went wrong with TLS, in a plugin's words.

use std::fmt;

/// Why there is no TLS connection: one line, beginning with `SSL_ERROR`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    what: String,
}

impl Failure {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SSL_ERROR {}", self.what)
    }
}

impl std::error::Error for Failure {}
