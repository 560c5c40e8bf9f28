//! The traces that are under way (TRAC), each with the session that is traced and the session that has asked for it.

use std::time::Instant;

use super::context::Key;
use crate::trace::Trace;

/// Traces at once at most.
const MAX_TRACES: usize = 4;

/// A trace, and the sessions it concerns.
#[derive(Debug)]
struct TraceEntry {
    traced: Key,
    tracer: Key,
    /// `None` while the traced session has its turn.
    trace: Option<Box<Trace>>,
}

/// All traces. Mostly there is none.
#[derive(Debug, Default)]
pub(crate) struct Traces {
    entries: Vec<TraceEntry>,
    /// Bytes that are counted in the budget.
    pub counted: usize,
}

impl Traces {
    /// True if there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Begins a trace of `traced` for `tracer`. False if there are as many as there may be, or one of the two has one.
    pub(crate) fn add(&mut self, traced: Key, tracer: Key, max_shown: usize, now: Instant) -> bool {
        let taken = self.entries.iter().any(|entry| entry.traced == traced || entry.tracer == tracer);
        let has_room = !taken && self.entries.len() < MAX_TRACES;
        if has_room {
            self.entries.push(TraceEntry { traced, tracer, trace: Some(Box::new(Trace::new(now, max_shown))) });
        }
        has_room
    }

    /// The trace of the session of `key`, if there is one, for a turn at `now`. [`Traces::give_back`] follows.
    pub(super) fn take(&mut self, key: Key, now: Instant) -> Option<Box<Trace>> {
        let mut trace = self.entries.iter_mut().find(|entry| entry.traced == key)?.trace.take()?;
        trace.set_now(now);
        Some(trace)
    }

    /// The session of `key` has had its turn.
    pub(super) fn give_back(&mut self, key: Key, trace: Option<Box<Trace>>) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.traced == key) {
            entry.trace = trace;
        }
    }

    /// The sessions that are traced, each with the one that has asked for it.
    pub(crate) fn pairs(&self) -> Vec<(Key, Key)> {
        self.entries.iter().map(|entry| (entry.traced, entry.tracer)).collect()
    }

    /// The lines of the trace for `tracer` that wait.
    pub(crate) fn take_lines(&mut self, tracer: Key) -> Vec<u8> {
        let entry = self.entries.iter_mut().find(|entry| entry.tracer == tracer);
        entry.and_then(|entry| entry.trace.as_mut()).map(|trace| trace.take_lines()).unwrap_or_default()
    }

    /// Ends the trace for `tracer`.
    pub(crate) fn remove(&mut self, tracer: Key) {
        self.entries.retain(|entry| entry.tracer != tracer);
    }

    /// Bytes of memory held.
    pub(crate) fn held(&self) -> usize {
        let traces = self.entries.iter().filter_map(|entry| entry.trace.as_ref());
        traces.map(|trace| size_of::<Trace>() + trace.held()).sum()
    }
}
