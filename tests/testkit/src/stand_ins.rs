//! `lab luup` and `lab device`: stand-ins to try things by hand and for the demonstration.
//! They print what happens, one line each, with the wall-clock time, and run until they are ended.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lab::luup::Luup;

/// A stand-in Luup on `port` (0: any): prints each request.
pub fn luup(port: u16) -> io::Result<()> {
    let luup = Luup::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    say(&format!("listening on 127.0.0.1:{}", luup.port()));
    let mut shown = 0;
    loop {
        let Ok(requests) = luup.wait_until(Duration::MAX, |all| all.len() > shown) else { continue };
        for request in &requests[shown..] {
            say(&format!("{} {}?{}", request.method, request.path, request.query));
        }
        shown = requests.len();
    }
}

/// A device on `port` (0: any): says something on its own each `interval`, answers each line, and
/// hangs up after `bye`. What it says ends in ` @` and the wall-clock time at which it was sent.
pub fn device(port: u16, interval: Duration) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    say(&format!("listening on 127.0.0.1:{}", listener.local_addr()?.port()));
    loop {
        let (stream, peer) = listener.accept()?;
        stream.set_nodelay(true)?;
        say(&format!("{peer} connected"));
        let talking = stream.try_clone()?;
        thread::spawn(move || talk(&talking, interval));
        thread::spawn(move || {
            let end = answer(&stream, peer);
            say(&format!("{peer} {}", end.map_or_else(|e| e.to_string(), |()| "left".into())));
        });
    }
}

fn talk(stream: &TcpStream, interval: Duration) {
    let readings = ["temperature=21.5", "motion=1", "temperature=21.6", "motion=0", "humidity=48", "door=open"];
    for reading in readings.iter().cycle() {
        // Being a device that speaks when it likes is what this is for: there is no event.
        thread::sleep(interval);
        if send(stream, reading).is_err() {
            return;
        }
    }
}

fn answer(stream: &TcpStream, peer: SocketAddr) -> io::Result<()> {
    for line in BufReader::new(stream).lines() {
        let line = line?;
        say(&format!("{peer} said {line}"));
        send(stream, &format!("OK {line}"))?;
        if line == "bye" {
            break;
        }
    }
    stream.shutdown(std::net::Shutdown::Both)
}

fn send(mut stream: &TcpStream, text: &str) -> io::Result<()> {
    stream.write_all(format!("{text} @{}\n", wall_clock()).as_bytes())?;
    say(&format!("sent {text}"));
    Ok(())
}

/// Seconds since the epoch, to the microsecond.
fn wall_clock() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}.{:06}", now.as_secs(), now.subsec_micros())
}

/// Prints the time and `text`, whole lines whoever speaks.
fn say(text: &str) {
    let line = format!("{} {text}\n", wall_clock());
    let mut out = io::stdout().lock();
    // Nobody listening any more is no reason to stop serving.
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}
