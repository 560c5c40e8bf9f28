//! The stages of a session, each a type of its own that does not know the session: its turn returns an outcome.

pub(crate) mod arriving;
pub(crate) mod connecting;
pub(crate) mod healing;
pub(crate) mod listening;
pub(crate) mod relaying;
pub(crate) mod setup;
pub(crate) mod unread_tail;
pub(crate) mod watching;
