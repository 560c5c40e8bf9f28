//! Runs a program behind the filter of [`testkit::old_kernel`]: `old-kernel PROGRAM [ARGUMENT]...`. Status 125 if that
//! fails. `old-kernel --getrandom` tells by its status whether getrandom(2) is answered.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use testkit::old_kernel;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let Some(program) = words.next() else {
        eprintln!("usage: old-kernel PROGRAM [ARGUMENT]... | old-kernel --getrandom");
        return ExitCode::from(125);
    };
    if program == "--getrandom" {
        return ExitCode::from(u8::from(!old_kernel::answers_getrandom()));
    }
    let error = old_kernel::behind_filter(Command::new(&program).args(words)).exec();
    eprintln!("old-kernel: {}: {error}", program.display());
    ExitCode::from(125)
}
