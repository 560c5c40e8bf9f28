//! `testkit luup` and `testkit device`. Both print one line for each event, with the wall-clock time, and run until
//! they are killed.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use testkit::luup::Luup;

/// A stand-in for Luup on `port` (0: any) that prints each request.
pub fn luup(port: u16) -> io::Result<()> {
    let luup = Luup::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    print_event(&format!("listening on 127.0.0.1:{}", luup.port()));
    let mut shown = 0;
    loop {
        let Ok(requests) = luup.wait_until(Duration::MAX, |all| all.len() > shown) else { continue };
        for request in &requests[shown..] {
            print_event(&format!("{} {}?{}", request.method, request.path, request.query));
        }
        shown = requests.len();
    }
}

/// A device on `port` (0: any). It sends a reading each `interval`, answers each line, and closes after `bye`. Each
/// line that it sends ends in ` @` and the wall-clock time of the write.
pub fn device(port: u16, interval: Duration) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    print_event(&format!("listening on 127.0.0.1:{}", listener.local_addr()?.port()));
    loop {
        let (stream, peer) = listener.accept()?;
        stream.set_nodelay(true)?;
        print_event(&format!("{peer} connected"));
        let sending = stream.try_clone()?;
        thread::spawn(move || send_readings(&sending, interval));
        thread::spawn(move || {
            let end = answer_lines(&stream, peer);
            print_event(&format!("{peer} {}", end.map_or_else(|e| e.to_string(), |()| "closed".into())));
        });
    }
}

fn send_readings(stream: &TcpStream, interval: Duration) {
    let readings = ["temperature=21.5", "motion=1", "temperature=21.6", "motion=0", "humidity=48", "door=open"];
    for reading in readings.iter().cycle() {
        // The device sends by the clock: there is no event to wait for.
        thread::sleep(interval);
        if send(stream, reading).is_err() {
            return;
        }
    }
}

fn answer_lines(stream: &TcpStream, peer: SocketAddr) -> io::Result<()> {
    for line in BufReader::new(stream).lines() {
        let line = line?;
        print_event(&format!("{peer} sent {line}"));
        send(stream, &format!("OK {line}"))?;
        if line == "bye" {
            break;
        }
    }
    stream.shutdown(std::net::Shutdown::Both)
}

fn send(mut stream: &TcpStream, text: &str) -> io::Result<()> {
    stream.write_all(format!("{text} @{}\n", wall_clock()).as_bytes())?;
    print_event(&format!("sent {text}"));
    Ok(())
}

/// Seconds since the epoch, with six decimals.
fn wall_clock() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}.{:06}", now.as_secs(), now.subsec_micros())
}

/// Prints the time and `text` as one line, which lines of other threads do not interrupt.
fn print_event(text: &str) {
    let line = format!("{} {text}\n", wall_clock());
    let mut out = io::stdout().lock();
    // A closed standard output does not stop the service.
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}
