//! Notifications to Luup.

mod luup_failures;
mod luup_https;
mod pace;
mod requests;
mod shares;
