//! Expands the daemon on a Vera, whose flash is nearly full, and whose own tools know nothing better than gzip.
//!
//! `scripts/luup-package` appends to this program what it expands, in LZMA's format (`xz --format=lzma`), and then its length in
//! four bytes, the lowest first. So the file that a user uploads is a program that writes another one:
//!
//! ```text
//! usage: FILE OUTPUT
//! ```
//!
//! The launcher (`luup/plugin/launcher.sh`) runs it at boot. Exit status: 0, 73 if the output cannot be written, or 1 after any
//! other failure. A line on standard error says which.
//! There is no libc and no decoder on the box to rely on, so that this is static and small: it prints fixed words alone.

use std::env;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::process::ExitCode;

use lzma_rs::error::Error;

/// Bytes of the length at the end.
const LENGTH_LEN: i64 = 4;

/// Why nothing, or not all, was written.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Failure {
    /// The command line has no argument, or several.
    Usage,
    /// The program cannot open its own file.
    Unreadable,
    /// What is packed is not complete, or not LZMA's.
    Damaged,
    /// The output cannot be made, or the disk is full.
    Unwritable,
}

impl Failure {
    /// A line for the launcher, which shows it.
    fn line(self) -> &'static [u8] {
        match self {
            Self::Usage => b"usage: FILE OUTPUT\n",
            Self::Unreadable => b"this program cannot read its own file\n",
            Self::Damaged => b"this file is damaged\n",
            Self::Unwritable => b"the output cannot be written\n",
        }
    }

    /// The exit status. That of an output that cannot be written is the launcher's own for memory that is full.
    fn status(self) -> u8 {
        if self == Self::Unwritable { 73 } else { 1 }
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // There is no one else to tell.
            let _ = io::stderr().write_all(failure.line());
            failure.status().into()
        }
    }
}

/// Expands the program's own file into the file that the argument names.
fn run() -> Result<(), Failure> {
    let mut arguments = env::args_os().skip(1);
    let (Some(output), None) = (arguments.next(), arguments.next()) else { return Err(Failure::Usage) };
    let program = File::open("/proc/self/exe").map_err(|_| Failure::Unreadable)?;
    expand(program, File::create(output).map_err(|_| Failure::Unwritable)?)
}

/// Writes to `output` what is packed at the end of `file`.
fn expand(mut file: impl Read + Seek, mut output: impl Write) -> Result<(), Failure> {
    let length = packed_length(&mut file).map_err(|_| Failure::Damaged)?;
    file.seek(SeekFrom::End(-LENGTH_LEN - length)).map_err(|_| Failure::Damaged)?;
    let mut packed = BufReader::new(file.take(length.unsigned_abs()));
    lzma_rs::lzma_decompress(&mut packed, &mut output).map_err(|error| match error {
        // The decoder reports both sides alike.
        Error::IoError(error) if error.kind() != io::ErrorKind::UnexpectedEof => Failure::Unwritable,
        _ => Failure::Damaged,
    })?;
    output.flush().map_err(|_| Failure::Unwritable)
}

/// The length that stands at the end of `file`.
fn packed_length(file: &mut (impl Read + Seek)) -> io::Result<i64> {
    file.seek(SeekFrom::End(-LENGTH_LEN))?;
    let mut length = [0; LENGTH_LEN as usize];
    file.read_exact(&mut length)?;
    Ok(u32::from_le_bytes(length).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// A file as the package has it, with `content`.
    fn packed(content: &[u8]) -> Vec<u8> {
        let mut file = b"\x7fELF, some program".to_vec();
        let start = file.len();
        lzma_rs::lzma_compress(&mut &content[..], &mut file).unwrap();
        let length = u32::try_from(file.len() - start).unwrap();
        file.extend(length.to_le_bytes());
        file
    }

    fn expanded(file: &[u8]) -> Result<Vec<u8>, Failure> {
        let mut output = Vec::new();
        expand(Cursor::new(file), &mut output).map(|()| output)
    }

    /// Content without much order.
    fn content(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at * at / 7 % 251) as u8).collect()
    }

    #[test]
    fn what_was_packed_is_written() {
        for length in [0, 1, 1000, 100_000] {
            assert_eq!(expanded(&packed(&content(length))).as_ref(), Ok(&content(length)), "{length} bytes");
        }
    }

    #[test]
    fn a_file_that_was_cut_short_is_damaged_at_every_length() {
        let file = packed(&content(300));
        for length in 0..file.len() {
            assert_eq!(expanded(&file[..length]), Err(Failure::Damaged), "{length} of {} bytes", file.len());
        }
    }

    #[test]
    fn a_length_beyond_the_file_is_damaged() {
        let mut file = packed(&content(300));
        let at = file.len() - LENGTH_LEN as usize;
        for length in [u32::MAX, file.len() as u32, 0] {
            file[at..].copy_from_slice(&length.to_le_bytes());
            assert_eq!(expanded(&file), Err(Failure::Damaged), "{length}");
        }
    }

    #[test]
    fn a_full_disk_is_told_apart_from_a_damaged_file() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert_eq!(expand(Cursor::new(packed(&content(300))), Full), Err(Failure::Unwritable));
    }
}
