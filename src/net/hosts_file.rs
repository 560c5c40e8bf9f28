//! The names in /etc/hosts, whose lookups need no name server (hosts(5)).

use std::io::{self, Read};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::files::{FileStamp, open_regular};

/// Bytes of the file that are read. Lists of blocked names have megabytes; the names of the box come first.
const MAX_LEN: u64 = 64 * 1024;
/// The file is looked at this often at most.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The names in the file, read again when it has changed.
#[derive(Debug)]
pub(super) struct HostsFile {
    path: PathBuf,
    checked: Option<Instant>,
    /// The version of the file that was read.
    stamp: Option<FileStamp>,
    /// Few, so that searching them in order takes less than a system call.
    names: Vec<Box<str>>,
}

impl HostsFile {
    /// The file at `path`, which need not exist.
    pub(super) fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), checked: None, stamp: None, names: Vec::new() }
    }

    /// True if the file has `name`, which is in lower case.
    pub(super) fn contains(&mut self, name: &str, now: Instant) -> bool {
        if self.checked.is_none_or(|checked| now - checked >= CHECK_INTERVAL) {
            self.checked = Some(now);
            let stamp = Some(FileStamp::of(&self.path));
            if stamp != self.stamp {
                self.stamp = stamp;
                // Without a file there are no names.
                self.names = self.read().map(|text| names(&text)).unwrap_or_default();
            }
        }
        self.names.iter().any(|other| **other == *name)
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        if let Some(file) = open_regular(&self.path, 0)? {
            file.take(MAX_LEN).read_to_end(&mut text)?;
        }
        Ok(text)
    }
}

/// The names of a hosts file in lower case: the words behind the address in each line, up to a comment.
fn names(text: &[u8]) -> Vec<Box<str>> {
    let lines = text.split(|&byte| byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    lines
        .flat_map(|line| line.split('#').next().unwrap_or_default().split_whitespace().skip(1))
        .map(|name| name.to_ascii_lowercase().into())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_behind_the_address() {
        let names =
            names(b"127.0.0.1 localhost\n#10.0.0.1 none\n::1\tIP6-Localhost box # not\n\n10.0.0.2\n\xff bad\nx y");
        let names: Vec<&str> = names.iter().map(|name| &**name).collect();
        assert_eq!(names, ["localhost", "ip6-localhost", "box", "y"]);
    }

    #[test]
    fn the_file_is_read_again_when_it_has_changed() {
        let path = std::env::temp_dir().join(format!("sockproxyd-hosts-{}", std::process::id()));
        let mut file = HostsFile::new(&path);
        let start = Instant::now();
        assert!(!file.contains("one", start));
        std::fs::write(&path, "10.0.0.1 one\n").unwrap();
        assert!(!file.contains("one", start), "it is looked at once a second");
        assert!(file.contains("one", start + CHECK_INTERVAL) && !file.contains("two", start + CHECK_INTERVAL));
        std::fs::write(&path, "10.0.0.1 one two\n").unwrap();
        assert!(file.contains("two", start + 2 * CHECK_INTERVAL));
        std::fs::remove_file(&path).unwrap();
        assert!(!file.contains("two", start + 3 * CHECK_INTERVAL));
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(!file.contains("two", start + 4 * CHECK_INTERVAL), "a FIFO is not read");
        std::fs::remove_file(&path).unwrap();
    }
}
