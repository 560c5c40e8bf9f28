//! What all TLS connections share: trusted roots, files, configurations.

use std::path::PathBuf;

/// What all TLS connections share.
#[derive(Debug)]
pub struct House {
    #[expect(dead_code, reason = "comes with the files")]
    directory: Option<PathBuf>,
    #[expect(dead_code, reason = "comes with the files")]
    ca: Option<PathBuf>,
}

impl House {
    /// A house whose plugins' files lie below `directory` (none: plugins may name none), and which trusts the
    /// certificates in the file `ca` (PEM) in addition to the built-in roots.
    pub fn new(directory: Option<PathBuf>, ca: Option<PathBuf>) -> Self {
        Self { directory, ca }
    }
}
