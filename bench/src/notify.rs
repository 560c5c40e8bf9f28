//! Notification latency: from the remote's write to the request's arrival at Luup, quiet, under load,
//! in bursts, and while one Luup device hangs.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lab::luup::{Behaviour, Luup};
use lab::random::Random;

use super::lane::{Lane, Opener};

/// The device that hangs in [`Scene::Hanging`].
const HANGING: i64 = 999;
/// Busy connections, and their messages a second in all.
const BUSY: usize = 20;
const BUSY_RATE: u32 = 1000;

/// What goes on beside the connection that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    /// Nothing.
    Idle,
    /// Twenty connections with 1000 messages a second in all, which ask for no notifications.
    Busy,
    /// The same, each with notifications to a device of its own.
    BusyNotifying,
    /// A request to another device is never answered.
    Hanging,
}

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Notifications one by one.
    pub samples: usize,
    /// Bursts on twenty connections.
    pub bursts: usize,
    /// When a notification counts as lost.
    pub limit: Duration,
}

/// Latencies; what was lost is counted, not timed.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    /// Of single notifications.
    pub single: Vec<Duration>,
    /// Of the last notification of each burst.
    pub burst_last: Vec<Duration>,
    /// Notifications and bursts that did not come (completely) within the limit.
    pub lost: usize,
}

/// Measures in one scene. `luup` is where the daemon behind `opener` notifies.
pub fn measure(opener: &Opener, luup: &Luup, scene: Scene, plan: Plan) -> io::Result<Latencies> {
    luup.forget();
    let notify = |device: i64| format!("NTFY={device}/urn:example-com:serviceId:Bench1/HandleReceive/b{device}");
    let mut lane = opener.open(&notify(1))?;
    let mut out = Latencies::default();
    match scene {
        Scene::Idle => run(&mut lane, opener, luup, plan, &mut out)?,
        Scene::Hanging => {
            luup.set_device(HANGING, Behaviour::Hang);
            let mut hanging = opener.open(&notify(HANGING))?;
            hanging.remote.write_all(b"?")?;
            if !luup.wait_in_flight(1, plan.limit) {
                return Err(io::Error::other("the request that is to hang does not come"));
            }
            run(&mut lane, opener, luup, plan, &mut out)?;
        }
        Scene::Busy | Scene::BusyNotifying => {
            let lanes = (0..BUSY as i64)
                .map(|n| opener.open(&if scene == Scene::BusyNotifying { notify(100 + n) } else { String::new() }))
                .collect::<io::Result<Vec<_>>>()?;
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                let traffic = scope.spawn(|| talk(&lanes, &stop));
                let measured = run(&mut lane, opener, luup, plan, &mut out);
                stop.store(true, Ordering::Relaxed);
                let talked = traffic.join().map_err(|_| io::Error::other("the traffic panicked"))?;
                measured.and(talked)
            })?;
        }
    }
    Ok(out)
}

fn run(lane: &mut Lane, opener: &Opener, luup: &Luup, plan: Plan, out: &mut Latencies) -> io::Result<()> {
    single(lane, luup, plan, out)?;
    if plan.bursts > 0 {
        burst(opener, luup, plan, out)?;
    }
    Ok(())
}

fn single(lane: &mut Lane, luup: &Luup, plan: Plan, out: &mut Latencies) -> io::Result<()> {
    let mut random = Random::new(1);
    let mut got = [0u8; 64];
    for _ in 0..plan.samples {
        // At no fixed rhythm, so that nobody's timer is met by chance.
        thread::sleep(Duration::from_micros(random.between(4_000, 12_000)));
        luup.forget();
        let start = Instant::now();
        lane.remote.write_all(&got)?;
        lane.client.read_exact(&mut got)?;
        let of_ours = |r: &lab::luup::Request| r.device() == Some(1);
        match luup.wait_until(plan.limit, |all| all.iter().any(of_ours)) {
            Ok(all) => {
                let arrival = all.iter().find(|r| of_ours(r)).map(|r| r.arrival);
                out.single.extend(arrival.map(|at| at.saturating_duration_since(start)));
            }
            Err(_) => {
                out.lost += 1;
                // Once is enough to know, and each costs the whole limit.
                if out.lost >= 3 {
                    break;
                }
            }
        }
    }
    Ok(())
}

fn burst(opener: &Opener, luup: &Luup, plan: Plan, out: &mut Latencies) -> io::Result<()> {
    const FIRST: i64 = 201;
    const LAST: i64 = 220;
    let mut lanes = (FIRST..=LAST)
        .map(|device| opener.open(&format!("NTFY={device}/urn:example-com:serviceId:Bench1/HandleReceive/b{device}")))
        .collect::<io::Result<Vec<_>>>()?;
    let mut got = [0u8; 64];
    for _ in 0..plan.bursts {
        thread::sleep(Duration::from_millis(20));
        luup.forget();
        let start = Instant::now();
        for lane in &mut lanes {
            lane.remote.write_all(&got)?;
        }
        for lane in &mut lanes {
            lane.client.read_exact(&mut got)?;
        }
        let last = |all: &[lab::luup::Request]| {
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

/// Messages of 64 bytes from the remotes, in turn, read by the clients.
fn talk(lanes: &[Lane], stop: &AtomicBool) -> io::Result<()> {
    let start = Instant::now();
    let mut buf = [0u8; 4096];
    for lane in lanes {
        lane.client.set_nonblocking(true)?;
    }
    for n in 0u32.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let due = Duration::from_secs(1) * n / BUSY_RATE;
        thread::sleep(due.saturating_sub(start.elapsed()));
        (&lanes[n as usize % lanes.len()].remote).write_all(&buf[..64])?;
        // What was sent a little before has arrived by now.
        match (&lanes[(n as usize + lanes.len() / 2) % lanes.len()].client).read(&mut buf) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Err(e) if e.kind() != ErrorKind::WouldBlock => return Err(e),
            _ => {}
        }
    }
    Ok(())
}
