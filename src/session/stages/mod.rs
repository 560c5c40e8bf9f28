//! The stages of a session. Each is a type of its own that knows neither the session nor, but for what leads to it, its
//! siblings: its turn returns an outcome, of which [`super::Session::turn`] makes the next stage.

pub(crate) mod arriving;
pub(crate) mod connecting;
pub(crate) mod draining;
pub(crate) mod healing;
pub(crate) mod listening;
pub(crate) mod opening;
pub(crate) mod relaying;
pub(crate) mod setup;
pub(crate) mod unread_tail;
pub(crate) mod watching;
