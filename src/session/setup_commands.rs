//! Reading commands, in setup mode and from a plugin that listens: what both stages need, and what a command leads to.

use std::time::{Duration, Instant};

use super::connection::ConnectRequest;
use super::context::DaemonRequest;
use crate::net::endpoint::{Endpoint, Transfer};
use crate::protocol::reply;
use crate::protocol::setup::SetupParser;
use crate::relay::memory_budget::{MemoryBudget, RESERVE};

/// Commands that are answered in one turn before other sessions have theirs.
pub(crate) const TURN_COMMANDS: usize = 64;

/// What a turn in setup mode needs from outside.
pub(crate) struct SetupContext<'a> {
    /// When this turn of the loop began.
    pub now: Instant,
    /// The buffer that all connections share for reading.
    pub scratch: &'a mut [u8],
    /// The bound on bytes held in all.
    pub budget: &'a mut MemoryBudget,
    /// The default of CTIM, for HELP.
    pub connect_timeout: Duration,
}

/// What a turn in setup mode leads to.
#[derive(Debug)]
pub(crate) enum SetupOutcome {
    /// Nothing more to do until something happens.
    Wait,
    /// There is more to do at once.
    Again,
    /// The daemon is to answer, by [`crate::session::Session::reply`] or otherwise.
    Request(DaemonRequest),
    /// The plugin has said CONN.
    Connect(ConnectRequest),
    /// The plugin gets this reply, and setup mode ends.
    Close(Vec<u8>),
    /// The plugin's connection has ended.
    Lost,
}

/// Reads what `parser` wants from the plugin. `None`: it has got something. Otherwise what the turn leads to.
pub(crate) fn read_commands(
    parser: &mut SetupParser,
    plugin: &mut dyn Endpoint,
    cx: &mut SetupContext<'_>,
) -> Option<SetupOutcome> {
    if !plugin.is_readable() {
        return Some(SetupOutcome::Wait);
    }
    let memory = cx.budget.left().max(RESERVE.saturating_sub(parser.held()));
    if memory == 0 && cx.budget.is_exhausted() {
        return Some(SetupOutcome::Close(reply::line_too_long()));
    }
    if memory == 0 {
        // If several parts of lines wait for each other's memory, the budget ends the largest.
        cx.budget.wait(RESERVE);
        return Some(SetupOutcome::Wait);
    }
    let room = cx.scratch.len().min(parser.wanted()).min(memory);
    match plugin.try_read(&mut cx.scratch[..room]) {
        Transfer::Bytes(read) => {
            parser.handle_input(&cx.scratch[..read]);
            None
        }
        Transfer::Blocked => Some(SetupOutcome::Wait),
        Transfer::Eof | Transfer::Broken(_) => Some(SetupOutcome::Lost),
    }
}
