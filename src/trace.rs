//! Traces of connections (TRAC): a line for each chunk or frame that passes, in a buffer of bounded size. Sans-IO.

use std::io::Write;
use std::time::Instant;

use crate::seconds::Seconds;

/// Bytes of lines that wait at most for the client that has asked for them. It may hold as many again that were given to it.
const MAX_WAITING: usize = 32 * 1024;
/// Longest line of lost lines, and the longest line without the bytes that it shows.
const MAX_LOST_LINE: usize = 64;
const MAX_LINE_REST: usize = 96;

/// Which way something passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the remote to the plugin.
    ToPlugin,
    /// From the plugin to the remote.
    ToRemote,
}

/// The trace of one connection.
#[derive(Debug)]
pub(crate) struct Trace {
    started: Instant,
    now: Instant,
    /// Bytes of each chunk that are shown.
    max_shown: usize,
    lines: Vec<u8>,
    /// Lines for which there was no room since the last one.
    lost: u64,
}

impl Trace {
    /// A trace that begins now, and shows the first `max_shown` bytes of each chunk.
    pub(crate) fn new(now: Instant, max_shown: usize) -> Self {
        Self { started: now, now, max_shown, lines: Vec::new(), lost: 0 }
    }

    /// What passes from now on passes at `now`.
    pub(crate) fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    /// Bytes of each chunk that are shown.
    pub(crate) fn max_shown(&self) -> usize {
        self.max_shown
    }

    /// A chunk or frame of `length` bytes passes: `what` it is, `bytes` or a verb of `FRAM=MESG`, and at least as many of its
    /// first bytes as are shown, if they are known.
    pub(crate) fn record(&mut self, way: Way, what: &str, bytes: &[u8], length: usize) {
        let shown = &bytes[..bytes.len().min(self.max_shown)];
        // A line has 4 characters for a byte at most.
        let longest = MAX_LOST_LINE + MAX_LINE_REST + shown.len() * 4;
        if self.lines.len() + longest > MAX_WAITING {
            self.lost += 1;
            return;
        }
        if self.lines.capacity() == 0 {
            // No more than is needed at most: it is counted.
            self.lines.reserve_exact(MAX_WAITING + MAX_LOST_LINE);
        }
        self.count_lost();
        let seconds = Seconds(self.now.saturating_duration_since(self.started), 6);
        let way = if way == Way::ToRemote { '>' } else { '<' };
        // Writing to memory does not fail.
        let _ = write!(self.lines, "{seconds} {way} {length} {what} \"");
        for &byte in shown {
            let _ = match byte {
                b'\n' => self.lines.write_all(b"\\n"),
                b'\r' => self.lines.write_all(b"\\r"),
                b'\t' => self.lines.write_all(b"\\t"),
                b'"' | b'\\' => self.lines.write_all(&[b'\\', byte]),
                b' '..=b'~' => self.lines.write_all(&[byte]),
                // Three octal digits: in C, hexadecimal ones have no end.
                _ => write!(self.lines, "\\{byte:03o}"),
            };
        }
        self.lines.extend_from_slice(if shown.len() < length { b"\"...\n" } else { b"\"\n" });
    }

    fn count_lost(&mut self) {
        let lost = std::mem::take(&mut self.lost);
        if lost > 0 {
            // Writing to memory does not fail.
            let _ = writeln!(self.lines, "... {lost} lines lost");
        }
    }

    /// The lines that wait, and how many were lost behind them.
    pub(crate) fn take_lines(&mut self) -> Vec<u8> {
        self.count_lost();
        std::mem::take(&mut self.lines)
    }

    /// Bytes of memory held.
    pub(crate) fn held(&self) -> usize {
        self.lines.capacity()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn lines_have_time_way_length_kind_and_escaped_bytes() {
        let start = Instant::now();
        let mut trace = Trace::new(start, 12);
        trace.record(Way::ToRemote, "bytes", b"a \"\\\r\n\t\0\x7f\xe41", 11);
        trace.set_now(start + Duration::from_micros(1_500_001));
        trace.record(Way::ToPlugin, "TEXT", b"0123456789abc", 13);
        trace.record(Way::ToPlugin, "PING", b"", 0);
        let expected = [
            r#"0.000000 > 11 bytes "a \"\\\r\n\t\000\177\3441""#,
            r#"1.500001 < 13 TEXT "0123456789ab"..."#,
            r#"1.500001 < 0 PING """#,
            "",
        ];
        assert_eq!(String::from_utf8(trace.take_lines()).unwrap(), expected.join("\n"));
        assert_eq!(trace.held(), 0);
    }

    #[test]
    fn a_slow_reader_loses_lines_which_are_counted() {
        let mut trace = Trace::new(Instant::now(), 4096);
        for _ in 0..100 {
            trace.record(Way::ToPlugin, "bytes", &[1; 4096], 4096);
            assert!(trace.held() <= MAX_WAITING + MAX_LOST_LINE);
        }
        let first = String::from_utf8(trace.take_lines()).unwrap();
        assert!(first.len() <= MAX_WAITING + MAX_LOST_LINE);
        let passed = first.lines().count() - 1;
        assert!(passed > 0 && first.ends_with(&format!("\n... {} lines lost\n", 100 - passed)), "{passed}");
        trace.record(Way::ToPlugin, "bytes", b"x", 1);
        assert_eq!(trace.take_lines(), b"0.000000 < 1 bytes \"x\"\n");
    }
}
