//! The launcher `old-kernel`, and what its filter lets through.

use std::process::Command;

/// The status of the launcher with these arguments.
fn status(words: &[&str]) -> Option<i32> {
    Command::new(env!("CARGO_BIN_EXE_old-kernel")).args(words).status().expect("the launcher").code()
}

#[test]
fn a_newer_call_is_answered_outside_the_filter_only() {
    let launcher = env!("CARGO_BIN_EXE_old-kernel");
    if status(&["true"]) == Some(125) {
        println!("skipped: no filter of system calls here");
        return;
    }
    assert_eq!(status(&["--getrandom"]), Some(0));
    assert_eq!(status(&[launcher, "--getrandom"]), Some(1));
    assert_eq!(status(&["/bin/sh", "-c", &format!("{launcher} --getrandom")]), Some(1), "children are behind it, too");
}

#[test]
fn the_status_is_the_programs_own_or_125() {
    assert_eq!(status(&[]), Some(125));
    assert_eq!(status(&["/nonexistent"]), Some(125));
    if status(&["true"]) == Some(0) {
        assert_eq!(status(&["/bin/sh", "-c", "exit 7"]), Some(7));
    }
}
