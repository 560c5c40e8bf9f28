//! PEM files: the owner's, from anywhere, and those that plugins name, which lie below one directory.
//!
//! Whoever may connect may name a file. So a name leads nowhere but below the directory, whatever `..` or link it
//! tries, and nothing of what stands in a file is ever told.

use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path};

use nix::libc::{O_NOCTTY, O_NOFOLLOW, O_NONBLOCK};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::Failure;

/// The largest file: a whole system's roots take about 200 KiB.
const MOST: u64 = 256 * 1024;

/// What tells a file from the one that stood there before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp(Option<[i64; 5]>);

impl Stamp {
    /// The file at `path` as it is now.
    pub fn of(path: &Path) -> Self {
        let facts = |m: fs::Metadata| [m.dev() as i64, m.ino() as i64, m.size() as i64, m.mtime(), m.mtime_nsec()];
        Self(fs::metadata(path).ok().map(facts))
    }
}

/// A file that was read.
pub struct File {
    option: &'static str,
    name: Box<str>,
    text: Vec<u8>,
}

/// Reads a file that the owner's `key` names.
pub fn read_owners(key: &'static str, path: &Path) -> Result<File, Failure> {
    let name: Box<str> = path.to_string_lossy().into();
    let text = read(path, 0).map_err(|why| failure(key, &name, &why))?;
    Ok(File { option: key, name, text })
}

/// Reads the file `name` below `directory`, which a plugin's `option` names.
pub fn read_plugins(option: &'static str, directory: &Path, name: &str) -> Result<File, Failure> {
    let text = read_below(directory, name).map_err(|why| failure(option, name, &why))?;
    Ok(File { option, name: name.into(), text })
}

fn read_below(directory: &Path, name: &str) -> Result<Vec<u8>, String> {
    let outside = || String::from("it lies outside of the directory for such files");
    if name.is_empty()
        || !Path::new(name).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
    {
        return Err(outside());
    }
    let home = directory.canonicalize().map_err(|error| format!("the directory for such files: {error}"))?;
    let path = home.join(name).canonicalize().map_err(|error| error.to_string())?;
    if !path.starts_with(&home) {
        return Err(outside());
    }
    // Its last part is no link any more; if it has become one meanwhile, it is not followed.
    let text = read(&path, O_NOFOLLOW)?;
    // A directory on the way may have become a link while it was opened.
    let again = home.join(name).canonicalize().map_err(|error| error.to_string())?;
    if again != path { Err(outside()) } else { Ok(text) }
}

fn read(path: &Path, flags: i32) -> Result<Vec<u8>, String> {
    // Nothing that opening could wait for (a FIFO), or that would take hold of us (a terminal).
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(O_NONBLOCK | O_NOCTTY | flags);
    let file = options.open(path).map_err(|error| error.to_string())?;
    let facts = file.metadata().map_err(|error| error.to_string())?;
    if !facts.is_file() {
        return Err("it is no regular file".into());
    }
    let mut text = Vec::new();
    file.take(MOST + 1).read_to_end(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > MOST { Err(format!("it has more than {MOST} bytes")) } else { Ok(text) }
}

impl File {
    /// The certificates in it: at least one.
    pub fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, Failure> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.text).collect();
        match found {
            Ok(found) if found.is_empty() => Err(self.failure("there is no certificate in it")),
            Ok(found) => Ok(found),
            Err(_) => Err(self.failure("its PEM is broken")),
        }
    }

    /// The first private key in it: PKCS#8, PKCS#1 or SEC1.
    pub fn private_key(&self) -> Result<PrivateKeyDer<'static>, Failure> {
        PrivateKeyDer::from_pem_slice(&self.text).map_err(|_| {
            let locked = self.text.windows(9).any(|word| word == b"ENCRYPTED");
            self.failure(if locked { "its key is locked by a password" } else { "there is no private key in it" })
        })
    }

    /// What is wrong with it.
    pub fn failure(&self, why: &str) -> Failure {
        failure(self.option, &self.name, why)
    }
}

fn failure(option: &str, name: &str, why: &str) -> Failure {
    Failure::new(format!("{option} {name}: {why}"))
}
