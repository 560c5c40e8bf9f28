//! The stand-in, with a plain HTTP client.

use super::*;

const LONG: Duration = Duration::from_secs(20);

fn ask(luup: &Luup, query: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", luup.port()))?;
    stream.set_read_timeout(Some(LONG))?;
    write!(stream, "GET /data_request?{query} HTTP/1.1\r\nHost: x\r\n\r\n")?;
    Ok(stream)
}

fn answer(luup: &Luup, query: &str) -> String {
    let mut text = String::new();
    ask(luup, query).unwrap().read_to_string(&mut text).unwrap();
    text
}

#[test]
fn each_behaviour_is_answered_as_set() {
    let luup = Luup::start();
    assert!(answer(&luup, "DeviceNum=1").starts_with("HTTP/1.1 200 OK\r\n"));
    luup.set_device(2, Behaviour::Status(503, "later".into()));
    assert!(answer(&luup, "DeviceNum=2").starts_with("HTTP/1.1 503 "));
    assert!(answer(&luup, "DeviceNum=2").ends_with("\r\n\r\nlater"));
    luup.push_next(Behaviour::Error("Invalid Service".into()));
    assert!(answer(&luup, "DeviceNum=2").ends_with("\r\n\r\nERROR: Invalid Service"));
    luup.set_behaviour(Behaviour::CloseWithoutAnswer);
    assert_eq!(answer(&luup, "DeviceNum=1"), "");
    luup.set_behaviour(Behaviour::Slow(Duration::from_millis(50)));
    let start = Instant::now();
    assert!(answer(&luup, "DeviceNum=1").starts_with("HTTP/1.1 200"));
    assert!(start.elapsed() >= Duration::from_millis(50));
    let devices: Vec<_> = luup.requests().iter().map(|r| r.device().unwrap()).collect();
    assert_eq!(devices, [1, 2, 2, 2, 1, 1]);
}

#[test]
fn hanging_requests_are_counted() {
    let luup = Luup::start();
    luup.set_device(7, Behaviour::Hang);
    let one = ask(&luup, "DeviceNum=7").unwrap();
    let two = ask(&luup, "DeviceNum=7").unwrap();
    assert!(luup.wait_in_flight(2, LONG));
    assert!(answer(&luup, "DeviceNum=8").starts_with("HTTP/1.1 200"));
    assert_eq!((luup.max_concurrent(7), luup.max_concurrent(8)), (2, 1));
    drop((one, two));
    // Both clients have closed: the third is the only one in flight.
    let _three = ask(&luup, "DeviceNum=7").unwrap();
    luup.wait_for(4, LONG);
    assert_eq!(luup.max_concurrent(7), 2);
}

#[test]
fn successive_requests_never_count_as_concurrent() {
    let luup = Luup::start();
    for _ in 0..300 {
        answer(&luup, "DeviceNum=3");
    }
    luup.set_device(3, Behaviour::Hang);
    for n in 0..50 {
        let hanging = ask(&luup, "DeviceNum=3").unwrap();
        luup.wait_for(301 + n, LONG);
        drop(hanging);
    }
    assert_eq!(luup.max_concurrent(3), 1);
}

#[test]
fn down_refuses_and_up_answers_on_the_same_port() {
    let luup = Luup::start();
    let port = luup.port();
    luup.set_behaviour(Behaviour::Hang);
    let mut hanging = ask(&luup, "DeviceNum=1").unwrap();
    assert!(luup.wait_in_flight(1, LONG));
    luup.down();
    assert_eq!(hanging.read(&mut [0u8; 1]).unwrap_or(0), 0, "a hanging request loses its connection");
    assert_eq!(ask(&luup, "").unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    luup.up();
    luup.set_behaviour(Behaviour::Ok);
    assert_eq!(luup.port(), port);
    assert!(answer(&luup, "DeviceNum=1").starts_with("HTTP/1.1 200"));
}

#[test]
fn thousands_of_requests_are_answered() {
    let luup = Luup::start();
    thread::scope(|scope| {
        for thread in 0..4 {
            let luup = &luup;
            scope.spawn(move || {
                for n in 0..750 {
                    assert!(answer(luup, &format!("DeviceNum={thread}&n={n}")).starts_with("HTTP/1.1 200"));
                }
            });
        }
    });
    assert_eq!(luup.wait_for(3000, LONG).len(), 3000);
    luup.clear_requests();
    assert_eq!(luup.count(), 0);
}

#[test]
fn waiting_has_a_limit_and_returns_what_arrived() {
    let luup = Luup::start();
    answer(&luup, "DeviceNum=1");
    let came = luup.wait_until(Duration::from_millis(20), |r| r.len() == 2).unwrap_err();
    assert_eq!(came.len(), 1);
    let _malformed = TcpStream::connect(("127.0.0.1", luup.port())).unwrap().write_all(b"hello\r\n\r\n");
    answer(&luup, "DeviceNum=2");
    assert_eq!(luup.wait_for(2, LONG)[1].device(), Some(2));
}
