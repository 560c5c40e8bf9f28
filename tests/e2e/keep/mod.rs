//! KEEP, ATCH and DROP.

mod messages;
mod shares;
mod tcp;
