//! Files that are read while the daemon runs, which must not wait for them, and how a change is noticed.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::libc::{O_NOCTTY, O_NONBLOCK};

/// Identifies a version of a file: device, inode, size and time of modification. `None` if it cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileStamp(Option<[i64; 5]>);

impl FileStamp {
    /// The stamp of the file at `path` now.
    pub(crate) fn of(path: &Path) -> Self {
        let metadata = |m: fs::Metadata| [m.dev() as i64, m.ino() as i64, m.size() as i64, m.mtime(), m.mtime_nsec()];
        Self(fs::metadata(path).ok().map(metadata))
    }
}

/// Opens the file at `path` for reading, with these additional `flags` of open(2). `None` if it is no regular file: reading
/// a pipe or a terminal might block.
pub(crate) fn open_regular(path: &Path, flags: i32) -> io::Result<Option<File>> {
    // O_NONBLOCK: open(2) of a FIFO must not wait. O_NOCTTY: a terminal must not become ours.
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK | O_NOCTTY | flags).open(path)?;
    Ok(file.metadata()?.is_file().then_some(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_opened_and_their_changes_are_noticed() {
        let directory = std::env::temp_dir().join(format!("sockproxyd-files-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("file");
        let absent = FileStamp::of(&path);
        assert!(open_regular(&path, 0).is_err() && absent == FileStamp::of(&path));
        fs::write(&path, "one").unwrap();
        let first = FileStamp::of(&path);
        assert!(open_regular(&path, 0).unwrap().is_some() && first != absent);
        fs::write(&path, "three").unwrap();
        assert_ne!(FileStamp::of(&path), first);
        let fifo = directory.join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(open_regular(&fifo, 0).unwrap().is_none(), "a FIFO");
        assert!(open_regular(&directory, 0).unwrap().is_none(), "a folder");
        fs::remove_dir_all(&directory).unwrap();
    }
}
