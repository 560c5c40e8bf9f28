//! The sockproxyd program.

#[cfg(target_env = "musl")]
mod thread_name;
#[cfg(all(target_env = "musl", target_pointer_width = "32"))]
mod time32;

use std::process::ExitCode;

fn main() -> ExitCode {
    sockproxyd::run(std::env::args_os().skip(1))
}
