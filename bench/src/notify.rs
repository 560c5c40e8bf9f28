//! Notification latency, from the remote's write to the arrival of the request at Luup: without other load, under load,
//! in bursts, and while one Luup device hangs.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use testkit::luup::{Behaviour, Luup};
use testkit::random::Random;

use crate::connection_pair::{ConnectionPair, PairOpener};

/// The device that hangs in [`Scenario::Hanging`].
const HANGING: i64 = 999;
/// The number of busy connections.
const BUSY: usize = 20;
/// Messages a second of all busy connections together.
const BUSY_RATE: u32 = 1000;

/// The load beside the connection that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Nothing.
    Idle,
    /// Twenty connections with 1000 messages a second together, without notifications.
    Busy,
    /// As [`Scenario::Busy`], each connection with notifications to a device of its own.
    BusyNotifying,
    /// A request to another device gets no answer.
    Hanging,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The number of single notifications.
    pub samples: usize,
    /// The number of bursts on twenty connections.
    pub bursts: usize,
    /// The time after which a notification counts as lost.
    pub limit: Duration,
}

/// The latencies, and the number of lost notifications.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    /// Latencies of single notifications.
    pub single: Vec<Duration>,
    /// Latencies of the last notification of each burst.
    pub burst_last: Vec<Duration>,
    /// Notifications and bursts that did not arrive completely within the limit.
    pub lost: usize,
}

/// Measures in one scenario. The daemon behind `opener` notifies `luup`.
pub fn measure(opener: &PairOpener, luup: &Luup, scenario: Scenario, plan: Plan) -> io::Result<Latencies> {
    luup.clear_requests();
    let notify = |device: i64| format!("NTFY={device}/urn:example-com:serviceId:Bench1/HandleReceive/b{device}");
    let mut pair = opener.open(&notify(1))?;
    let mut out = Latencies::default();
    match scenario {
        Scenario::Idle => run(&mut pair, opener, luup, plan, &mut out)?,
        Scenario::Hanging => {
            luup.set_device(HANGING, Behaviour::Hang);
            let mut hanging = opener.open(&notify(HANGING))?;
            hanging.remote.write_all(b"?")?;
            if !luup.wait_in_flight(1, plan.limit) {
                return Err(io::Error::other("the request that should hang does not arrive"));
            }
            run(&mut pair, opener, luup, plan, &mut out)?;
        }
        Scenario::Busy | Scenario::BusyNotifying => {
            let pairs = (0..BUSY as i64)
                .map(|n| {
                    opener.open(&if scenario == Scenario::BusyNotifying { notify(100 + n) } else { String::new() })
                })
                .collect::<io::Result<Vec<_>>>()?;
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                let traffic = scope.spawn(|| send_traffic(&pairs, &stop));
                let measured = run(&mut pair, opener, luup, plan, &mut out);
                stop.store(true, Ordering::Relaxed);
                let sent = traffic.join().map_err(|_| io::Error::other("the traffic panicked"))?;
                measured.and(sent)
            })?;
        }
    }
    Ok(out)
}

fn run(pair: &mut ConnectionPair, opener: &PairOpener, luup: &Luup, plan: Plan, out: &mut Latencies) -> io::Result<()> {
    single(pair, luup, plan, out)?;
    if plan.bursts > 0 {
        burst(opener, luup, plan, out)?;
    }
    Ok(())
}

fn single(pair: &mut ConnectionPair, luup: &Luup, plan: Plan, out: &mut Latencies) -> io::Result<()> {
    let mut random = Random::new(1);
    let mut got = [0u8; 64];
    for _ in 0..plan.samples {
        // Random intervals, so that no timer of the daemon coincides with them.
        thread::sleep(Duration::from_micros(random.between(4_000, 12_000)));
        luup.clear_requests();
        let start = Instant::now();
        pair.remote.write_all(&got)?;
        pair.client.read_exact(&mut got)?;
        let is_measured = |r: &testkit::luup::Request| r.device() == Some(1);
        match luup.wait_until(plan.limit, |all| all.iter().any(is_measured)) {
            Ok(all) => {
                let arrival = all.iter().find(|r| is_measured(r)).map(|r| r.arrival);
                out.single.extend(arrival.map(|at| at.saturating_duration_since(start)));
            }
            Err(_) => {
                out.lost += 1;
                // Each loss costs the whole limit.
                if out.lost >= 3 {
                    break;
                }
            }
        }
    }
    Ok(())
}

fn burst(opener: &PairOpener, luup: &Luup, plan: Plan, out: &mut Latencies) -> io::Result<()> {
    const FIRST: i64 = 201;
    const LAST: i64 = 220;
    let mut pairs = (FIRST..=LAST)
        .map(|device| opener.open(&format!("NTFY={device}/urn:example-com:serviceId:Bench1/HandleReceive/b{device}")))
        .collect::<io::Result<Vec<_>>>()?;
    let mut got = [0u8; 64];
    for _ in 0..plan.bursts {
        thread::sleep(Duration::from_millis(20));
        luup.clear_requests();
        let start = Instant::now();
        for pair in &mut pairs {
            pair.remote.write_all(&got)?;
        }
        for pair in &mut pairs {
            pair.client.read_exact(&mut got)?;
        }
        let last = |all: &[testkit::luup::Request]| {
            let first_of = |device| all.iter().find(|r| r.device() == Some(device)).map(|r| r.arrival);
            (FIRST..=LAST).map(first_of).collect::<Option<Vec<_>>>()?.into_iter().max()
        };
        let limit = plan.limit * 20;
        match luup.wait_until(limit, |all| last(all).is_some()) {
            Ok(all) => out.burst_last.extend(last(&all).map(|at| at.saturating_duration_since(start))),
            Err(_) => {
                out.lost += 1;
                break;
            }
        }
    }
    Ok(())
}

/// Sends messages of 64 bytes from the remotes in turn, and reads them on the clients.
fn send_traffic(pairs: &[ConnectionPair], stop: &AtomicBool) -> io::Result<()> {
    let start = Instant::now();
    let mut buf = [0u8; 4096];
    for pair in pairs {
        pair.client.set_nonblocking(true)?;
    }
    for n in 0u32.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let due = Duration::from_secs(1) * n / BUSY_RATE;
        thread::sleep(due.saturating_sub(start.elapsed()));
        (&pairs[n as usize % pairs.len()].remote).write_all(&buf[..64])?;
        // The message sent half a turn earlier has arrived by now.
        match (&pairs[(n as usize + pairs.len() / 2) % pairs.len()].client).read(&mut buf) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Err(e) if e.kind() != ErrorKind::WouldBlock => return Err(e),
            _ => {}
        }
    }
    Ok(())
}
