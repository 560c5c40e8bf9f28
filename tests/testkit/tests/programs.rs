//! `testkit device` and `testkit luup`, run as users run them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

struct Program {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Program {
    fn start(args: &[&str]) -> Program {
        let mut command = Command::new(env!("CARGO_BIN_EXE_testkit"));
        let mut child = command.args(args).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Program { child, out }
    }

    /// Reads up to a line that contains `wanted`; returns what follows `wanted` there.
    fn wait_for(&mut self, wanted: &str) -> String {
        for line in self.out.by_ref().lines() {
            if let Some((_, rest)) = line.unwrap().split_once(wanted) {
                return rest.to_string();
            }
        }
        panic!("the program ended without printing {wanted:?}");
    }

    fn connect(&mut self) -> TcpStream {
        let port: u16 = self.wait_for("listening on 127.0.0.1:").parse().unwrap();
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn the_device_sends_answers_and_closes() {
    let mut program = Program::start(&["device", "--interval", "5"]);
    let mut stream = program.connect();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().starts_with("temperature=21.5 @1"));
    assert!(lines.next().unwrap().starts_with("motion=1 @1"));
    stream.write_all(b"status\nbye\n").unwrap();
    assert!(lines.by_ref().any(|line| line.starts_with("OK status @")));
    assert!(lines.by_ref().any(|line| line.starts_with("OK bye @")));
    program.wait_for(" sent bye");
    program.wait_for(" closed");
    // This loop ends only if the device ends its stream.
    lines.for_each(drop);
}

#[test]
fn luup_prints_each_request() {
    let mut program = Program::start(&["luup"]);
    let mut stream = program.connect();
    stream.write_all(b"GET /data_request?id=action&DeviceNum=5 HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert_eq!(program.wait_for("GET "), "/data_request?id=action&DeviceNum=5");
}

#[test]
fn wrong_usage_is_reported() {
    for args in [&[][..], &["unknown"], &["device", "--interval"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_testkit")).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(!output.stderr.is_empty());
    }
}
