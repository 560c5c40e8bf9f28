//! Single scenes. What holds whatever happens is the simulation's.

mod limits;
mod memory;
mod turns;
