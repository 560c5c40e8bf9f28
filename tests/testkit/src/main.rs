//! The test doubles as programs, to try things by hand and for `scripts/demo`: see [`USAGE`].

mod programs;

use std::process::ExitCode;
use std::time::Duration;

use lexopt::prelude::*;

const USAGE: &str = "\
testkit luup [--port P]                     a stand-in for Luup that prints each request
testkit device [--port P] [--interval MS]   a device that sends a line each MS milliseconds (default: 5000)
                                            and answers lines";

fn main() -> ExitCode {
    match dispatch() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("testkit: {e}");
            ExitCode::from(2)
        }
    }
}

fn dispatch() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = lexopt::Parser::from_env();
    match args.next()? {
        Some(Value(word)) if word == "luup" => programs::luup(port_and_interval(args)?.0)?,
        Some(Value(word)) if word == "device" => {
            let (port, interval) = port_and_interval(args)?;
            programs::device(port, interval)?;
        }
        Some(Long("help") | Short('h')) => println!("{USAGE}"),
        Some(other) => return Err(other.unexpected().into()),
        None => return Err(USAGE.into()),
    }
    Ok(())
}

fn port_and_interval(mut args: lexopt::Parser) -> Result<(u16, Duration), lexopt::Error> {
    let (mut port, mut interval) = (0, 5000);
    while let Some(arg) = args.next()? {
        match arg {
            Long("port") => port = args.value()?.parse()?,
            Long("interval") => interval = args.value()?.parse()?,
            other => return Err(other.unexpected()),
        }
    }
    Ok((port, Duration::from_millis(interval)))
}
