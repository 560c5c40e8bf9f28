//! `--make-cert`: makes a self-signed certificate in the directory of `[tls]`, for `LSTN` and `[serve]`.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

use crate::net::reason;
use crate::tls::{CertificateNames, SelfSigned};

/// Makes a certificate for `names` in `directory`, which is created if its parent exists: NAME.pem and NAME.key, NAME being
/// the first of the names. Returns what is to be printed. An error, a message of one line, if one of the files exists.
pub(crate) fn make_cert(directory: Option<&Path>, names: &CertificateNames) -> Result<String, String> {
    let directory = directory.ok_or("the configuration has no directory for certificates (directory= in [tls])")?;
    // Where it cannot be created, the first file cannot, either.
    let _ = fs::create_dir(directory);
    let (certificate, key) = (format!("{}.pem", names.first()), format!("{}.key", names.first()));
    let (certificate_path, key_path) = (directory.join(&certificate), directory.join(&key));
    if let Some(path) = [&certificate_path, &key_path].into_iter().find(|path| path.exists()) {
        return Err(format!("{} exists, and is not overwritten", path.display()));
    }
    let made = SelfSigned::new(names).map_err(|_| "this machine gives no random bytes")?;
    // A directory that others may not enter is for a group, the daemon's.
    let mode = fs::metadata(directory).map_or(0, |metadata| metadata.mode());
    let for_group = if mode & 0o007 == 0 { mode & 0o040 } else { 0 };
    write_new(directory, &key_path, 0o600 | for_group, &made.key_pem())?;
    write_new(directory, &certificate_path, 0o644, &made.certificate_pem()).inspect_err(|_| {
        // It fits no certificate.
        let _ = fs::remove_file(&key_path);
    })?;
    Ok(format!(
        "certificate  {}\nkey          {}\noptions      CERT={certificate} PKEY={key}\nfingerprint  {}\n",
        certificate_path.display(),
        key_path.display(),
        made.pin()
    ))
}

/// Writes a file that does not exist yet, and gives it to the owner of its directory: the daemon may run as a user of its own.
fn write_new(directory: &Path, path: &Path, mode: u32, text: &str) -> Result<(), String> {
    let write = |mut file: File| {
        file.write_all(text.as_bytes())?;
        let owner = fs::metadata(directory)?;
        if file.metadata()?.uid() != owner.uid() {
            fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
        }
        file.sync_all()
    };
    // Where another user may write to the directory, create_new also follows no link.
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = file.and_then(|file| write(file).inspect_err(|_| drop(fs::remove_file(path))));
    written.map_err(|error| format!("{}: {}", path.display(), reason(&error)))
}
