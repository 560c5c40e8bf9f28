//! Whole sessions over a network in memory: what the simulation of sessions checks for random choices holds for any.
//!
//! Input: the choices of the simulation, in its order: the limits, the plugins and remotes, then what happens. The words
//! `arrivals` and `healing` at its beginning choose the simulations of LSTN and of HEAL.

use crate::session::simulation;

/// The target's body.
pub fn run(data: &[u8]) {
    simulation::run_input(data);
}
