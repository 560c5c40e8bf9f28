//! KEEP, ATCH and DROP.

mod messages;
mod tcp;
