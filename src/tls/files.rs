//! PEM files: those of the configuration, from any path, and those that plugins name, below one directory.
//!
//! Every plugin that may connect can name a file. So a plugin's file name must not lead out of the directory, through
//! `..` or links, and no error may show a file's content.

use std::io::{self, ErrorKind, Read};
use std::path::{Component, Path};

use nix::libc::O_NOFOLLOW;
use nix::unistd::{getegid, geteuid};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsError;
use crate::files::open_regular;

/// Largest file in bytes. The root certificates of a whole system take about 200 KiB.
const MAX_FILE_SIZE: u64 = 256 * 1024;

/// A PEM file that has been read.
pub(super) struct PemFile {
    option: &'static str,
    name: Box<str>,
    text: Vec<u8>,
}

/// Reads the file that the configuration's `key` names.
pub(super) fn read_config_file(key: &'static str, path: &Path) -> Result<PemFile, TlsError> {
    let name: Box<str> = path.to_string_lossy().into();
    let text = read(path, 0).map_err(|reason| file_error(key, &name, &reason))?;
    Ok(PemFile { option: key, name, text })
}

/// Reads the file `name` below `directory`; a plugin's `option` names it.
pub(super) fn read_plugin_file(option: &'static str, directory: &Path, name: &str) -> Result<PemFile, TlsError> {
    let text = read_below(directory, name).map_err(|reason| file_error(option, name, &reason))?;
    Ok(PemFile { option, name: name.into(), text })
}

fn read_below(directory: &Path, name: &str) -> Result<Vec<u8>, String> {
    let outside = || String::from("it lies outside of the directory for such files");
    if name.is_empty()
        || !Path::new(name).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
    {
        return Err(outside());
    }
    let root = directory.canonicalize().map_err(|error| format!("the directory for such files: {}", why(error)))?;
    let path = root.join(name).canonicalize().map_err(why)?;
    if !path.starts_with(&root) {
        return Err(outside());
    }
    // A canonical path has no links. O_NOFOLLOW refuses a last component that has become one meanwhile.
    let text = read(&path, O_NOFOLLOW)?;
    // Detects a directory on the path that became a link while the file was opened.
    let again = root.join(name).canonicalize().map_err(why)?;
    if again != path { Err(outside()) } else { Ok(text) }
}

fn read(path: &Path, flags: i32) -> Result<Vec<u8>, String> {
    let file = open_regular(path, flags).map_err(why)?.ok_or("it is no regular file")?;
    let mut text = Vec::new();
    file.take(MAX_FILE_SIZE + 1).read_to_end(&mut text).map_err(why)?;
    if text.len() as u64 > MAX_FILE_SIZE { Err(format!("it has more than {MAX_FILE_SIZE} bytes")) } else { Ok(text) }
}

/// The text of an error. If the kernel denies permission, the text names the user of the process: the owner of the box may be able
/// to read the file as root, and the proxy not.
fn why(error: io::Error) -> String {
    match error.kind() {
        ErrorKind::PermissionDenied => format!("{error}; the proxy has uid {} and gid {}", geteuid(), getegid()),
        _ => error.to_string(),
    }
}

impl PemFile {
    /// Returns the certificates in the file. An error if there are none.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.text).collect();
        match found {
            Ok(found) if found.is_empty() => Err(self.error("there is no certificate in it")),
            Ok(found) => Ok(found),
            Err(_) => Err(self.error("its PEM is broken")),
        }
    }

    /// Returns the first private key in the file: PKCS#8, PKCS#1 or SEC1.
    pub(super) fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_slice(&self.text).map_err(|_| {
            let locked = self.text.windows(9).any(|word| word == b"ENCRYPTED");
            self.error(if locked { "its key is locked by a password" } else { "there is no private key in it" })
        })
    }

    /// An error about this file.
    pub(super) fn error(&self, reason: &str) -> TlsError {
        file_error(self.option, &self.name, reason)
    }
}

fn file_error(option: &str, name: &str, reason: &str) -> TlsError {
    TlsError::new(format!("{option} {name}: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_permissions_names_the_user() {
        let text = |number| why(io::Error::from_raw_os_error(number));
        let expected =
            format!("Permission denied (os error 13); the proxy has uid {} and gid {}", geteuid(), getegid());
        assert_eq!(text(13), expected);
        assert_eq!(text(2), "No such file or directory (os error 2)");
    }
}
