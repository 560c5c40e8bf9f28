//! `lab bench` and `lab load`: the same work through nothing, socat, haproxy, the original and
//! sockproxyd, in one run and in turn, so that the ratios mean something on any machine.

mod aside;
mod awake;
mod bridging;
mod crowd;
mod dialogues;
mod echo;
mod handshakes;
mod lane;
mod load;
mod notify;
mod report;
mod run;
mod same_work;
mod speech;
mod stats;
mod storm;
mod targets;

pub use awake::spin;
pub use crowd::serve;
pub use lane::{Opener, Via};
pub use load::{Flight, Way, bulk, connects, ping_pong, two_writes};
pub use run::{Settings, run};
pub use stats::{micros, quantile};
pub use storm::storm;
