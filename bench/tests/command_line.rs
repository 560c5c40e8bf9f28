//! The benchmark's command line.

use std::process::Command;

#[test]
fn each_load_runs_over_a_direct_connection() {
    for (load, unit) in [
        ("to-remote", "MB/s"),
        ("to-plugin", "MB/s"),
        ("pingpong", "us"),
        ("twowrites", "us"),
        ("connects", "connects/s"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
        command.args(["load", load, "--seconds", "0.02", "--count", "20", "--connections", "2"]);
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.trim_end().ends_with(unit), "{load}: {text}");
    }
}

#[test]
fn wrong_usage_is_reported() {
    for args in [
        &[][..],
        &["unknown"],
        &["load", "to-remote", "--via", "plain"],
        &["all", "--only", "unknown"],
        &["attack", "unknown", "1", "1"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_bench")).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(!output.stderr.is_empty());
    }
}
