//! The parser of configuration files. It parses line by line with rust-ini, so that every error has its line number.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use ini::{Ini, ParseOption};

use super::settings::SETTINGS;
use super::{Config, ConfigError};
use crate::files::open_regular;

/// Bytes of a file that are read: more than any configuration has. Protects against device files, which have no end.
const MAX_FILE_LEN: u64 = 1 << 20;

/// When a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadTime {
    /// At the start: the file may be a pipe, which is waited for.
    Start,
    /// Later, by a daemon that must not wait: only a regular file is read. A pipe has been read already.
    Reload,
}

/// Reads the file at `path`.
pub(super) fn read(path: &Path, time: ReadTime) -> Result<Vec<u8>, ConfigError> {
    read_limited(path, time).map_err(|error| ConfigError::new(path.display().to_string(), error.to_string()))
}

fn read_limited(path: &Path, time: ReadTime) -> io::Result<Vec<u8>> {
    let file = match time {
        ReadTime::Start => File::open(path)?,
        ReadTime::Reload => open_regular(path, 0)?
            .ok_or_else(|| io::Error::other("not a regular file, so it was read at the start only"))?,
    };
    let mut text = Vec::new();
    file.take(MAX_FILE_LEN).read_to_end(&mut text)?;
    Ok(text)
}

/// Applies the text of a file called `name`.
pub(super) fn apply(name: &str, text: &[u8], config: &mut Config) -> Result<(), ConfigError> {
    let mut section = String::new();
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    for (number, line) in text.split(|&b| b == b'\n').enumerate() {
        let place = || format!("{name}:{}", number + 1);
        let fail = |reason: &str| ConfigError::new(place(), reason);
        let line = std::str::from_utf8(line).map_err(|_| fail("the line is not UTF-8"))?.trim();
        match parse_line(line).map_err(fail)? {
            ConfigLine::Blank => {}
            ConfigLine::Section(found) if is_section(&found) => section = found,
            ConfigLine::Section(found) => return Err(fail(&format!("unknown section [{found}]"))),
            ConfigLine::Key(key, _) if section.is_empty() => {
                return Err(fail(&format!("'{key}' comes before the first section")));
            }
            ConfigLine::Key(key, value) => {
                config.set(&section, &key, value.as_deref()).map_err(|reason| fail(&reason))?;
            }
        }
    }
    Ok(())
}

/// True if a setting is in this section, and for `[direct]` and `[serve]`, whose keys are ports.
fn is_section(name: &str) -> bool {
    ["direct", "serve"].contains(&name) || SETTINGS.iter().any(|setting| setting.section == name)
}

enum ConfigLine {
    /// Blank, or a comment.
    Blank,
    /// A section, in lower case.
    Section(String),
    /// A key in lower case, and its value. A bare key has none.
    Key(String, Option<String>),
}

/// Parses a line with rust-ini's grammar, extended by bare keys.
fn parse_line(line: &str) -> Result<ConfigLine, &'static str> {
    if line.is_empty() || line.starts_with([';', '#']) {
        return Ok(ConfigLine::Blank);
    }
    if line.starts_with('[') && !line.ends_with(']') {
        return Err("neither a [section] nor key=value");
    }
    if !line.starts_with('[') && !line.contains('=') {
        return Ok(ConfigLine::Key(line.to_ascii_lowercase(), None));
    }
    let options = ParseOption { enabled_quote: false, enabled_escape: false, ..ParseOption::default() };
    let ini = Ini::load_from_str_opt(line, options).map_err(|_| "neither a [section] nor key=value")?;
    let mut line = ConfigLine::Blank;
    for (section, keys) in &ini {
        if let Some(section) = section {
            line = ConfigLine::Section(section.trim().to_ascii_lowercase());
        }
        for (key, value) in keys {
            line = ConfigLine::Key(key.trim().to_ascii_lowercase(), Some(value.trim().to_owned()));
        }
    }
    Ok(line)
}
