//! Collects values by row and column, and prints the medians and how they compare with the goals, as Markdown.

use std::fmt::Write;
use std::process::Command;

use crate::lua_clients::{BARE, LUWS};
use crate::stats::{median, quantile};

/// The unit of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Megabytes (10^6 bytes) a second.
    Rate,
    /// Processor seconds for a gigabyte (10^9 bytes).
    CpuPerGb,
    /// Microseconds.
    Micros,
    /// Milliseconds.
    Millis,
    /// Kilobytes (1024 bytes).
    Kilobytes,
    /// Events a second.
    PerSecond,
    /// Processor time for an event, in microseconds.
    CpuPerEvent,
    /// Percent of one core.
    Percent,
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
            Unit::Percent => "%",
            Unit::Count => "",
        }
    }

    fn write(self, value: f64) -> String {
        match self {
            Unit::Rate | Unit::PerSecond | Unit::Count => format!("{value:.0}"),
            Unit::CpuPerGb => format!("{value:.3}"),
            Unit::Micros | Unit::CpuPerEvent => format!("{value:.1}"),
            Unit::Millis | Unit::Percent => format!("{value:.2}"),
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

impl Row {
    /// The name and the unit.
    fn title(&self) -> String {
        let unit = self.unit.label();
        if unit.is_empty() { self.name.clone() } else { format!("{}, {unit}", self.name) }
    }
}

/// The column of sockproxyd linked statically with musl.
pub const MUSL: &str = "sockproxyd musl";

/// The column of sockproxyd for mipsel, under an emulator.
pub const EMULATED: &str = "sockproxyd mipsel";

/// The column of [`crate::rustls_baseline`].
pub const RUSTLS_BASELINE: &str = "rustls baseline";

/// Above this processor use by other programs the report warns.
const QUIET: f64 = 0.1;

/// The results so far.
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

    /// Finds the row called `name`, or adds it at the end. Called ahead of the values, it fixes the order of rows that
    /// not every column fills.
    pub fn row(&mut self, name: &str, unit: Unit) -> usize {
        self.rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
            let values = vec![Vec::new(); self.columns.len()];
            self.rows.push(Row { name: name.to_string(), unit, values });
            self.rows.len() - 1
        })
    }

    /// Adds the value of one round.
    pub fn add(&mut self, name: &str, unit: Unit, column: &str, value: f64) {
        let Some(at) = self.columns.iter().position(|c| *c == column) else { return };
        let row = self.row(name, unit);
        self.rows[row].values[at].push(value);
    }

    /// Adds p50 and p99 of one round, as two rows.
    pub fn add_quantiles(&mut self, name: &str, unit: Unit, column: &str, values: &[f64]) {
        for (label, p) in [("p50", 0.5), ("p99", 0.99)] {
            if let Some(value) = quantile(values, p) {
                self.add(&format!("{name}, {label}"), unit, column, value);
            }
        }
    }

    /// Records that a measurement failed for a column.
    pub fn failure(&mut self, name: &str, column: &str, why: &str) {
        let note = format!("{column}, {name}: {why}");
        if !self.failures.contains(&note) {
            self.failures.push(note);
        }
    }

    /// True if no measurement failed.
    pub fn is_complete(&self) -> bool {
        self.failures.is_empty()
    }

    fn median_of(&self, row: &str, column: &str) -> Option<f64> {
        let at = self.columns.iter().position(|c| *c == column)?;
        median(&self.rows.iter().find(|r| r.name == row)?.values[at])
    }

    /// The whole report. `others`: processors used by other programs meanwhile.
    pub fn markdown(&self, others: f64) -> String {
        let mut out = format!(
            "{}\n\nMedian of {} rounds (bulk: of three runs in each; attacks: one run).",
            machine(),
            self.rounds
        );
        let _ = writeln!(out, " Other programs used {others:.2} processors meanwhile.");
        if others > QUIET {
            out.push_str("That is too much: p99 values and narrow results are unreliable.\n");
        }
        out.push('\n');
        // A column without any value is left out.
        let has_values = |at: &usize| self.rows.iter().any(|row| !row.values[*at].is_empty());
        let shown: Vec<usize> = (0..self.columns.len()).filter(has_values).collect();
        let heads: Vec<&str> = shown.iter().map(|at| self.columns[*at]).collect();
        let _ = writeln!(out, "| | {} |", heads.join(" | "));
        let _ = writeln!(out, "|---|{}", "--:|".repeat(shown.len()));
        for row in self.rows.iter().filter(|row| row.values.iter().any(|values| !values.is_empty())) {
            let cells = shown.iter().map(|at| match median(&row.values[*at]) {
                Some(value) => row.unit.write(value),
                None => "-".to_string(),
            });
            let _ = writeln!(out, "| {} | {} |", row.title(), cells.collect::<Vec<_>>().join(" | "));
        }
        out.push_str(&self.goals());
        if !self.failures.is_empty() {
            let _ = writeln!(out, "\nNot measured:\n");
            for failure in &self.failures {
                let _ = writeln!(out, "- {failure}");
            }
        }
        out
    }

    /// Compares each column of sockproxyd with its goals.
    fn goals(&self) -> String {
        let mut out = String::new();
        for column in self.columns.iter().filter(|column| column.starts_with("sockproxyd")) {
            let lines: Vec<String> = GOALS
                .iter()
                .flat_map(|goal| self.rows.iter().filter_map(|row| self.compare(goal, row, column)))
                .collect();
            if !lines.is_empty() {
                let _ = writeln!(out, "\n| {column} | measured | goal | ratio | |\n|---|--:|--:|--:|---|");
                lines.iter().for_each(|line| out.push_str(line));
            }
        }
        out
    }

    /// One line of the comparison; None if the goal does not apply to the row or a value is missing.
    fn compare(&self, goal: &Goal, row: &Row, column: &str) -> Option<String> {
        let applies = row.name.starts_with(goal.start) && row.name.ends_with(goal.end);
        // The memory goals are for the static build: a dynamic one's share of libc depends on other processes.
        let is_memory = row.unit == Unit::Kilobytes;
        let other_column = is_memory && column != MUSL && self.columns.contains(&MUSL);
        if !applies || other_column {
            return None;
        }
        let value = self.median_of(&row.name, column)?;
        let of_haproxy = || ["haproxy", "haproxy splice"].iter().filter_map(|c| self.median_of(&row.name, c));
        let wanted = match goal.bound {
            Bound::AtMost(limit) => limit,
            Bound::LikeFastestHaproxy => of_haproxy().max_by(f64::total_cmp)?,
            Bound::LikeLeanestHaproxy => of_haproxy().min_by(f64::total_cmp)?,
            Bound::Times(factor, other) => factor * self.median_of(&row.name, other)?,
            Bound::Part(divisor, other) => self.median_of(&row.name, other)? / divisor,
            Bound::LikeRow(other) => self.median_of(other, column)?,
        };
        // A goal may be 0.
        let ratio = if value == wanted { 1.0 } else { value / wanted };
        let verdict = match goal.bound {
            Bound::AtMost(_) | Bound::Part(..) if ratio <= 1.0 => "ok",
            Bound::LikeFastestHaproxy | Bound::Times(..) if ratio >= 1.0 => "ok",
            Bound::LikeFastestHaproxy if ratio >= 0.95 => "ok (noise)",
            Bound::LikeLeanestHaproxy | Bound::LikeRow(_) if ratio <= 1.0 => "ok",
            Bound::LikeLeanestHaproxy | Bound::LikeRow(_) if ratio <= 1.05 => "ok (noise)",
            // The load itself does part of the work for each message: no relay is faster than a direct connection.
            Bound::Times(..) if self.median_of(&row.name, "direct").is_some_and(|direct| wanted > direct) => {
                "MISSED (more than a direct connection)"
            }
            Bound::Part(..) if self.median_of(&row.name, BARE).is_some_and(|bare| wanted < bare) => {
                "MISSED (the bare calls of LuaSocket take more)"
            }
            _ => "MISSED",
        };
        let mut goal_text = row.unit.write(wanted);
        match goal.bound {
            Bound::Times(factor, other) => goal_text += &format!(" ({factor} x {other})"),
            Bound::Part(divisor, other) => goal_text += &format!(" ({other} / {divisor})"),
            Bound::LikeRow(other) => goal_text += &format!(" ({other})"),
            _ => {}
        }
        let (title, value) = (row.title(), row.unit.write(value));
        Some(format!("| {title} | {value} | {goal_text} | {ratio:.2} | {verdict} |\n"))
    }
}

/// A goal for the rows whose name begins with `start` and ends with `end`.
struct Goal {
    start: &'static str,
    end: &'static str,
    bound: Bound,
}

enum Bound {
    /// At most this value.
    AtMost(f64),
    /// At least the larger value of haproxy's two columns.
    LikeFastestHaproxy,
    /// At most the smaller value of haproxy's two columns.
    LikeLeanestHaproxy,
    /// At least this factor times the value of that column.
    Times(f64, &'static str),
    /// At most the value of that column divided by this.
    Part(f64, &'static str),
    /// At most the value of that row in the same column.
    LikeRow(&'static str),
}

/// The goals of sockproxyd: absolute for what users of Luup notice, relative for what depends on the machine.
const GOALS: [Goal; 38] = [
    Goal { start: "bulk ", end: "conn", bound: Bound::LikeFastestHaproxy },
    Goal { start: "CPU per GB", end: "conn", bound: Bound::LikeLeanestHaproxy },
    Goal { start: "ping-pong ", end: "p50", bound: Bound::LikeLeanestHaproxy },
    Goal { start: "connects", end: "", bound: Bound::Times(0.8, "haproxy") },
    Goal { start: "idle, PSS", end: "", bound: Bound::AtMost(1500.0) },
    Goal { start: "per connection, PSS", end: "", bound: Bound::AtMost(1.5) },
    Goal { start: "idle ws, PSS each", end: "", bound: Bound::AtMost(1.5) },
    Goal { start: "idle wss, PSS each", end: "", bound: Bound::AtMost(24.0) },
    Goal { start: "bridge echo ", end: "conn", bound: Bound::Times(2.0, "websocat") },
    Goal { start: "bridge echo ", end: "conn", bound: Bound::Times(5.0, "websockify") },
    Goal { start: "bridge CPU each", end: "conn", bound: Bound::Part(2.0, "websocat") },
    Goal { start: "bridge CPU each", end: "conn", bound: Bound::Part(5.0, "websockify") },
    // With one short message under way most of the time is the kernel's, for the same system calls.
    Goal { start: "serve CPU each, 128 B, 16 conn", end: "", bound: Bound::Part(1.3, "websocat") },
    Goal { start: "serve CPU each, 128 B, 500 conn", end: "", bound: Bound::Part(1.3, "websocat") },
    Goal { start: "serve CPU each, 128 B, 32 in flight", end: "", bound: Bound::Part(2.0, "websocat") },
    Goal { start: "serve CPU each, 64 KiB", end: "", bound: Bound::Part(2.0, "websocat") },
    Goal { start: "serve CPU each", end: "conn", bound: Bound::Part(5.0, "websockify") },
    Goal { start: "TLS 1.3 handshakes", end: "", bound: Bound::Times(0.9, "rustls") },
    Goal { start: "TLS 1.3 handshakes", end: "", bound: Bound::Times(0.9, RUSTLS_BASELINE) },
    Goal { start: "ping-pong beside 20 handshakes", end: "p99", bound: Bound::LikeRow("ping-pong alone, p99") },
    Goal {
        start: "ping-pong beside 20 handshakes",
        end: "p99",
        bound: Bound::LikeRow("ping-pong beside 20 connects, p99"),
    },
    Goal { start: "notification, p50", end: "", bound: Bound::AtMost(1.0) },
    Goal { start: "notification, p99", end: "", bound: Bound::AtMost(3.0) },
    Goal { start: "notification, 20 busy", end: "p50", bound: Bound::AtMost(2.0) },
    Goal { start: "notification, 20 busy", end: "p99", bound: Bound::AtMost(10.0) },
    Goal { start: "notification, a device hangs", end: "p50", bound: Bound::AtMost(1.0) },
    Goal { start: "notification, a device hangs", end: "p99", bound: Bound::AtMost(3.0) },
    Goal { start: "notification", end: "last of 20", bound: Bound::AtMost(50.0) },
    Goal { start: "status page, CPU of a core", end: "", bound: Bound::AtMost(1.0) },
    Goal { start: "attack ", end: ", p99", bound: Bound::AtMost(50.0) },
    Goal { start: "attack ", end: ": refused or failed", bound: Bound::AtMost(0.0) },
    Goal { start: "attack ", end: ": forbidden effects", bound: Bound::AtMost(0.0) },
    Goal { start: "Lua send, through the proxy", end: "", bound: Bound::Part(10.0, LUWS) },
    Goal { start: "Lua echo, through the proxy", end: "", bound: Bound::Part(10.0, LUWS) },
    Goal { start: "Lua bulk receive, through the proxy", end: "", bound: Bound::Part(3.0, LUWS) },
    Goal { start: "Lua paced receive, through the proxy", end: "", bound: Bound::Part(3.0, LUWS) },
    Goal { start: "Lua ", end: "without the proxy", bound: Bound::Part(1.0, LUWS) },
    // 4 MiB for the program, 4 MiB of buffers as the attacks set them, and 8 KiB for each of 1024 connections.
    Goal { start: "attack ", end: ", PSS", bound: Bound::AtMost(16384.0) },
];

/// The machine, its kernel, the date, and the versions of haproxy and socat.
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
    fn medians_and_goals() {
        let mut report = Report::new(vec!["haproxy", "haproxy splice", "sockproxyd"], 3);
        for (a, b, c) in [(100.0, 200.0, 198.0), (110.0, 210.0, 190.0), (90.0, 190.0, 230.0)] {
            report.add("bulk to remote, 1 conn", Unit::Rate, "haproxy", a);
            report.add("bulk to remote, 1 conn", Unit::Rate, "haproxy splice", b);
            report.add("bulk to remote, 1 conn", Unit::Rate, "sockproxyd", c);
        }
        report.add("CPU per GB to remote, 1 conn", Unit::CpuPerGb, "haproxy", 0.7);
        report.add("CPU per GB to remote, 1 conn", Unit::CpuPerGb, "haproxy splice", 0.2);
        report.add("CPU per GB to remote, 1 conn", Unit::CpuPerGb, "sockproxyd", 0.25);
        report.add_quantiles("notification", Unit::Millis, "sockproxyd", &[0.5; 100]);
        report.add_quantiles("ping-pong beside 20 connects", Unit::Micros, "sockproxyd", &[40.0; 100]);
        report.add_quantiles("ping-pong beside 20 handshakes", Unit::Micros, "sockproxyd", &[60.0; 100]);
        report.add("attack x: refused or failed", Unit::Count, "sockproxyd", 0.0);
        report.add("attack y: refused or failed", Unit::Count, "sockproxyd", 2.0);
        report.failure("x", "haproxy", "why");
        let text = report.markdown(0.0);
        for line in [
            "| bulk to remote, 1 conn, MB/s | 100 | 200 | 198 |",
            "| bulk to remote, 1 conn, MB/s | 198 | 200 | 0.99 | ok (noise) |",
            "| CPU per GB to remote, 1 conn, s | 0.250 | 0.200 | 1.25 | MISSED |",
            "| notification, p50, ms | - | - | 0.50 |",
            "| notification, p50, ms | 0.50 | 1.00 | 0.50 | ok |",
            "| notification, p99, ms | 0.50 | 3.00 | 0.17 | ok |",
            "| ping-pong beside 20 handshakes, p99, us | 60.0 | 40.0 (ping-pong beside 20 connects, p99) | 1.50 | MISSED |",
            "| attack x: refused or failed | 0 | 0 | 1.00 | ok |",
            "| attack y: refused or failed | 2 | 0 | inf | MISSED |",
            "- haproxy, x: why",
        ] {
            assert!(text.contains(line), "{line}\nis not in\n{text}");
        }
    }

    #[test]
    fn goals_relative_to_other_columns_are_compared() {
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
    fn a_goal_below_the_bare_calls_says_so() {
        let mut report = Report::new(vec!["sockproxyd", LUWS, BARE], 1);
        for (column, bulk, paced) in [("sockproxyd", 5.0, 50.0), (LUWS, 6.0, 60.0), (BARE, 2.5, 15.0)] {
            report.add("Lua bulk receive, through the proxy", Unit::CpuPerEvent, column, bulk);
            report.add("Lua paced receive, through the proxy", Unit::CpuPerEvent, column, paced);
        }
        let text = report.markdown(0.0);
        for line in [
            "| Lua bulk receive, through the proxy, us | 5.0 | 2.0 (LuWS / 3) | 2.50 | MISSED (the bare calls of LuaSocket take more) |",
            "| Lua paced receive, through the proxy, us | 50.0 | 20.0 (LuWS / 3) | 2.50 | MISSED |",
        ] {
            assert!(text.contains(line), "{line}\nis not in\n{text}");
        }
    }

    #[test]
    fn memory_goals_apply_to_the_static_build_if_it_was_measured() {
        let missed = |columns: Vec<&'static str>| {
            let mut report = Report::new(columns.clone(), 1);
            for column in columns {
                report.add("idle, PSS", Unit::Kilobytes, column, 1600.0);
            }
            report.goals().matches("MISSED").count()
        };
        assert_eq!(missed(vec!["sockproxyd"]), 1);
        assert_eq!(missed(vec!["sockproxyd", MUSL]), 1);
    }

    #[test]
    fn the_report_warns_of_a_busy_machine() {
        let report = Report::new(vec!["sockproxyd"], 1);
        assert!(report.markdown(0.5).contains("too much"));
        assert!(!report.markdown(0.05).contains("too much"));
    }

    #[test]
    fn a_goal_without_its_reference_is_left_out() {
        let mut report = Report::new(vec!["haproxy", "sockproxyd"], 1);
        report.add("bulk to remote, 1 conn", Unit::Rate, "sockproxyd", 1.0);
        assert_eq!(report.goals(), "");
    }
}
