//! The daemon as a process.

mod command_line;
mod limits;
mod logging;
mod memory;
mod memory_mixes;
mod old_kernel;
mod robustness;
mod service_manager;
mod shares;
mod shutdown;
mod signals;
mod supervise;
mod system_calls;

pub(crate) use memory::without_freed_blocks;
