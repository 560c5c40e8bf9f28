//! Collects values by row and column and writes the medians as Markdown, with the marks to reach.

use std::fmt::Write;
use std::process::Command;

use super::stats::{median, quantile};

/// What a row counts, and so how it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// 10^6 bytes a second.
    Rate,
    /// Processor seconds for 10^9 bytes.
    CpuPerGb,
    /// Microseconds.
    Micros,
    /// Milliseconds.
    Millis,
    /// 1024 bytes.
    Kilobytes,
    /// Events a second.
    PerSecond,
    /// Processor microseconds for an event.
    CpuPerEvent,
    /// A number.
    Count,
}

impl Unit {
    fn label(self) -> &'static str {
        match self {
            Unit::Rate => "MB/s",
            Unit::CpuPerGb => "s",
            Unit::Micros | Unit::CpuPerEvent => "us",
            Unit::Millis => "ms",
            Unit::Kilobytes => "kB",
            Unit::PerSecond => "1/s",
            Unit::Count => "",
        }
    }

    fn write(self, value: f64) -> String {
        match self {
            Unit::Rate | Unit::PerSecond | Unit::Count => format!("{value:.0}"),
            Unit::CpuPerGb => format!("{value:.3}"),
            Unit::Micros | Unit::CpuPerEvent => format!("{value:.1}"),
            Unit::Millis => format!("{value:.2}"),
            Unit::Kilobytes if value < 100.0 => format!("{value:.2}"),
            Unit::Kilobytes => format!("{value:.0}"),
        }
    }
}

struct Row {
    name: String,
    unit: Unit,
    /// The values of all rounds, by column.
    values: Vec<Vec<f64>>,
}

/// The column of our static build.
pub const MUSL: &str = "sockproxyd musl";

/// The column of a build for another processor, under an emulator.
pub const EMULATED: &str = "sockproxyd mipsel";

/// The column of two threads that do the daemon's work for a handshake.
pub const SAME_WORK: &str = "rustls, same work";

/// Processors that others may use before the report warns.
const QUIET: f64 = 0.1;

/// The table under construction.
pub struct Report {
    columns: Vec<&'static str>,
    rounds: usize,
    rows: Vec<Row>,
    failures: Vec<String>,
}

impl Report {
    /// An empty table.
    pub fn new(columns: Vec<&'static str>, rounds: usize) -> Report {
        Report { columns, rounds, rows: Vec::new(), failures: Vec::new() }
    }

    /// The row of that name; a new one comes last. Called ahead, it keeps a place for a row to which
    /// not everybody has something to add.
    pub fn row(&mut self, name: &str, unit: Unit) -> usize {
        self.rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
            let values = vec![Vec::new(); self.columns.len()];
            self.rows.push(Row { name: name.to_string(), unit, values });
            self.rows.len() - 1
        })
    }

    /// Adds one round's value.
    pub fn add(&mut self, name: &str, unit: Unit, column: &str, value: f64) {
        let Some(at) = self.columns.iter().position(|c| *c == column) else { return };
        let row = self.row(name, unit);
        self.rows[row].values[at].push(value);
    }

    /// Adds one round's p50 and p99 as two rows.
    pub fn add_quantiles(&mut self, name: &str, unit: Unit, column: &str, values: &[f64]) {
        for (label, p) in [("p50", 0.5), ("p99", 0.99)] {
            if let Some(value) = quantile(values, p) {
                self.add(&format!("{name}, {label}"), unit, column, value);
            }
        }
    }

    /// Notes that a column could not do something.
    pub fn failure(&mut self, name: &str, column: &str, why: &str) {
        let note = format!("{column}, {name}: {why}");
        if !self.failures.contains(&note) {
            self.failures.push(note);
        }
    }

    /// True where all that was tried was measured.
    pub fn is_complete(&self) -> bool {
        self.failures.is_empty()
    }

    fn median_of(&self, row: &str, column: &str) -> Option<f64> {
        let at = self.columns.iter().position(|c| *c == column)?;
        median(&self.rows.iter().find(|r| r.name == row)?.values[at])
    }

    /// The whole report; `others` is what other work used of the machine meanwhile, in processors.
    pub fn markdown(&self, others: f64) -> String {
        let mut out = format!("{}\n\nMedian of {} rounds (bulk: of three runs in each).", machine(), self.rounds);
        let _ = writeln!(out, " Other work on the machine took {others:.2} processors meanwhile.");
        if others > QUIET {
            out.push_str("That is too much: p99s and verdicts by a narrow margin say nothing here.\n");
        }
        out.push('\n');
        // Not everybody takes part in everything.
        let taking_part = |at: &usize| self.rows.iter().any(|row| !row.values[*at].is_empty());
        let shown: Vec<usize> = (0..self.columns.len()).filter(taking_part).collect();
        let heads: Vec<&str> = shown.iter().map(|at| self.columns[*at]).collect();
        let _ = writeln!(out, "| | {} |", heads.join(" | "));
        let _ = writeln!(out, "|---|{}", "--:|".repeat(shown.len()));
        for row in self.rows.iter().filter(|row| row.values.iter().any(|values| !values.is_empty())) {
            let cells = shown.iter().map(|at| match median(&row.values[*at]) {
                Some(value) => row.unit.write(value),
                None => "-".to_string(),
            });
            let unit = row.unit.label();
            let name = if unit.is_empty() { row.name.clone() } else { format!("{}, {unit}", row.name) };
            let _ = writeln!(out, "| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
        }
        out.push_str(&self.marks());
        if !self.failures.is_empty() {
            let _ = writeln!(out, "\nNot measured:\n");
            for failure in &self.failures {
                let _ = writeln!(out, "- {failure}");
            }
        }
        out
    }

    /// Ours beside what it is to reach, for each of our binaries that was measured.
    fn marks(&self) -> String {
        let mut out = String::new();
        for column in self.columns.iter().filter(|column| column.starts_with("sockproxyd")) {
            let lines: Vec<String> = MARKS
                .iter()
                .flat_map(|mark| self.rows.iter().filter_map(|row| self.judge(mark, row, column)))
                .collect();
            if !lines.is_empty() {
                let _ = writeln!(out, "\n| {column} | measured | mark | ratio | |\n|---|--:|--:|--:|---|");
                lines.iter().for_each(|line| out.push_str(line));
            }
        }
        out
    }

    fn judge(&self, mark: &Mark, row: &Row, column: &str) -> Option<String> {
        let applies = row.name.starts_with(mark.start) && row.name.ends_with(mark.end);
        // Memory is promised of the static build; a dynamic one's share of libc depends on who else runs.
        let is_memory = row.unit == Unit::Kilobytes;
        let elsewhere = is_memory && column != MUSL && self.columns.contains(&MUSL);
        if !applies || elsewhere {
            return None;
        }
        let value = self.median_of(&row.name, column)?;
        let of_haproxy = || ["haproxy", "haproxy splice"].iter().filter_map(|c| self.median_of(&row.name, c));
        let goal = match mark.goal {
            Goal::AtMost(limit) => limit,
            Goal::LikeFastestHaproxy => of_haproxy().max_by(f64::total_cmp)?,
            Goal::LikeLeanestHaproxy => of_haproxy().min_by(f64::total_cmp)?,
            Goal::Times(factor, other) => factor * self.median_of(&row.name, other)?,
            Goal::Part(divisor, other) => self.median_of(&row.name, other)? / divisor,
            Goal::LikeRow(other) => self.median_of(other, column)?,
        };
        let ratio = value / goal;
        let verdict = match mark.goal {
            Goal::AtMost(_) | Goal::Part(..) if ratio <= 1.0 => "ok",
            Goal::LikeFastestHaproxy | Goal::Times(..) if ratio >= 1.0 => "ok",
            Goal::LikeFastestHaproxy if ratio >= 0.95 => "ok (noise)",
            Goal::LikeLeanestHaproxy | Goal::LikeRow(_) if ratio <= 1.0 => "ok",
            Goal::LikeLeanestHaproxy | Goal::LikeRow(_) if ratio <= 1.05 => "ok (noise)",
            // The load at both ends does its part of every message: no way through can be faster than none.
            Goal::Times(..) if self.median_of(&row.name, "direct").is_some_and(|direct| goal > direct) => {
                "MISSED (more than a direct connection)"
            }
            _ => "MISSED",
        };
        let (name, unit) = (&row.name, row.unit);
        let label = unit.label();
        let mut told = unit.write(goal);
        match mark.goal {
            Goal::Times(factor, other) => told += &format!(" ({factor} x {other})"),
            Goal::Part(divisor, other) => told += &format!(" ({other} / {divisor})"),
            Goal::LikeRow(other) => told += &format!(" ({other})"),
            _ => {}
        }
        Some(format!("| {name}, {label} | {} | {told} | {ratio:.2} | {verdict} |\n", unit.write(value)))
    }
}

struct Mark {
    start: &'static str,
    end: &'static str,
    goal: Goal,
}

enum Goal {
    AtMost(f64),
    LikeFastestHaproxy,
    LikeLeanestHaproxy,
    /// So many times as much as that column has.
    Times(f64, &'static str),
    /// No more than that part of what that column has.
    Part(f64, &'static str),
    /// No more than that row has.
    LikeRow(&'static str),
}

/// What sockproxyd promises. Absolute for what Luup's users feel, relative for what depends on the machine.
const MARKS: [Mark; 22] = [
    Mark { start: "bulk ", end: "conn", goal: Goal::LikeFastestHaproxy },
    Mark { start: "CPU per GB", end: "conn", goal: Goal::LikeLeanestHaproxy },
    Mark { start: "ping-pong ", end: "p50", goal: Goal::LikeLeanestHaproxy },
    Mark { start: "idle, PSS", end: "", goal: Goal::AtMost(1500.0) },
    Mark { start: "per connection, PSS", end: "", goal: Goal::AtMost(1.5) },
    Mark { start: "idle ws, PSS each", end: "", goal: Goal::AtMost(1.5) },
    Mark { start: "idle wss, PSS each", end: "", goal: Goal::AtMost(24.0) },
    Mark { start: "bridge echo ", end: "conn", goal: Goal::Times(2.0, "websocat") },
    Mark { start: "bridge echo ", end: "conn", goal: Goal::Times(5.0, "websockify") },
    Mark { start: "bridge CPU each", end: "conn", goal: Goal::Part(2.0, "websocat") },
    Mark { start: "bridge CPU each", end: "conn", goal: Goal::Part(5.0, "websockify") },
    Mark { start: "TLS 1.3 handshakes", end: "", goal: Goal::Times(0.9, "rustls") },
    Mark { start: "TLS 1.3 handshakes", end: "", goal: Goal::Times(0.9, SAME_WORK) },
    Mark { start: "ping-pong beside 20 handshakes", end: "p99", goal: Goal::LikeRow("ping-pong alone, p99") },
    Mark {
        start: "ping-pong beside 20 handshakes",
        end: "p99",
        goal: Goal::LikeRow("ping-pong beside 20 connects, p99"),
    },
    Mark { start: "notification, p50", end: "", goal: Goal::AtMost(1.0) },
    Mark { start: "notification, p99", end: "", goal: Goal::AtMost(3.0) },
    Mark { start: "notification, 20 busy", end: "p50", goal: Goal::AtMost(2.0) },
    Mark { start: "notification, 20 busy", end: "p99", goal: Goal::AtMost(10.0) },
    Mark { start: "notification, a device hangs", end: "p50", goal: Goal::AtMost(1.0) },
    Mark { start: "notification, a device hangs", end: "p99", goal: Goal::AtMost(3.0) },
    Mark { start: "notification", end: "last of 20", goal: Goal::AtMost(50.0) },
];

/// The machine, its kernel, the date, and the versions of what is compared.
fn machine() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(0, |n| n.get());
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{}, {cores} cores, Linux {}, {}; {}; {}.",
        model.unwrap_or(std::env::consts::ARCH),
        kernel.trim(),
        first_line("date", &["-u", "+%Y-%m-%d"]),
        first_line("haproxy", &["-v"]).split(" - ").next().unwrap_or_default(),
        first_line("sh", &["-c", "socat -V | sed -n 's/^socat version \\([^ ]*\\).*/socat \\1/p'"]),
    )
}

fn first_line(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().map(|o| o.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).lines().next().unwrap_or("").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_marks() {
        let mut report = Report::new(vec!["haproxy", "haproxy splice", "sockproxyd"], 3);
        for (a, b, c) in [(100.0, 200.0, 198.0), (110.0, 210.0, 190.0), (90.0, 190.0, 230.0)] {
            report.add("bulk up, 1 conn", Unit::Rate, "haproxy", a);
            report.add("bulk up, 1 conn", Unit::Rate, "haproxy splice", b);
            report.add("bulk up, 1 conn", Unit::Rate, "sockproxyd", c);
        }
        report.add("CPU per GB up, 1 conn", Unit::CpuPerGb, "haproxy", 0.7);
        report.add("CPU per GB up, 1 conn", Unit::CpuPerGb, "haproxy splice", 0.2);
        report.add("CPU per GB up, 1 conn", Unit::CpuPerGb, "sockproxyd", 0.25);
        report.add_quantiles("notification", Unit::Millis, "sockproxyd", &[0.5; 100]);
        report.add_quantiles("ping-pong beside 20 connects", Unit::Micros, "sockproxyd", &[40.0; 100]);
        report.add_quantiles("ping-pong beside 20 handshakes", Unit::Micros, "sockproxyd", &[60.0; 100]);
        report.failure("x", "haproxy", "why");
        let text = report.markdown(0.0);
        for line in [
            "| bulk up, 1 conn, MB/s | 100 | 200 | 198 |",
            "| bulk up, 1 conn, MB/s | 198 | 200 | 0.99 | ok (noise) |",
            "| CPU per GB up, 1 conn, s | 0.250 | 0.200 | 1.25 | MISSED |",
            "| notification, p50, ms | - | - | 0.50 |",
            "| notification, p50, ms | 0.50 | 1.00 | 0.50 | ok |",
            "| notification, p99, ms | 0.50 | 3.00 | 0.17 | ok |",
            "| ping-pong beside 20 handshakes, p99, us | 60.0 | 40.0 (ping-pong beside 20 connects, p99) | 1.50 | MISSED |",
            "- haproxy, x: why",
        ] {
            assert!(text.contains(line), "{line}\nis not in\n{text}");
        }
    }

    #[test]
    fn speed_and_cost_are_judged_by_others() {
        let mut report = Report::new(vec!["direct", "sockproxyd", "websocat"], 1);
        for (size, direct) in [("128 B", 90.0), ("64 KiB", 400.0)] {
            let (rate, cost) = (format!("bridge echo {size}, 16 conn"), format!("bridge CPU each, {size}, 16 conn"));
            report.add(&rate, Unit::PerSecond, "direct", direct);
            for (column, times) in [("sockproxyd", 1.5), ("websocat", 1.0)] {
                report.add(&rate, Unit::PerSecond, column, 50.0 * times);
                report.add(&cost, Unit::CpuPerEvent, column, 30.0 / times / times);
            }
        }
        let text = report.markdown(0.0);
        for line in [
            "| bridge echo 128 B, 16 conn, 1/s | 75 | 100 (2 x websocat) | 0.75 | MISSED (more than a direct connection) |",
            "| bridge echo 64 KiB, 16 conn, 1/s | 75 | 100 (2 x websocat) | 0.75 | MISSED |",
            "| bridge CPU each, 128 B, 16 conn, us | 13.3 | 15.0 (websocat / 2) | 0.89 | ok |",
        ] {
            assert!(text.contains(line), "{line}\nis not in\n{text}");
        }
    }

    #[test]
    fn memory_is_judged_of_the_static_build_where_there_is_one() {
        let judged = |columns: Vec<&'static str>| {
            let mut report = Report::new(columns.clone(), 1);
            for column in columns {
                report.add("idle, PSS", Unit::Kilobytes, column, 1600.0);
            }
            report.marks().matches("MISSED").count()
        };
        assert_eq!(judged(vec!["sockproxyd"]), 1);
        assert_eq!(judged(vec!["sockproxyd", MUSL]), 1);
    }

    #[test]
    fn a_busy_machine_is_told() {
        let report = Report::new(vec!["sockproxyd"], 1);
        assert!(report.markdown(0.5).contains("too much"));
        assert!(!report.markdown(0.05).contains("too much"));
    }

    #[test]
    fn nothing_measured_is_no_mark() {
        let mut report = Report::new(vec!["haproxy", "sockproxyd"], 1);
        report.add("bulk up, 1 conn", Unit::Rate, "sockproxyd", 1.0);
        assert_eq!(report.marks(), "");
    }
}
