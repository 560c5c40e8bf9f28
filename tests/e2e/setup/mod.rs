//! Setup mode: from the greeting to the answer to CONN.

mod access;
mod commands;
mod conn;
mod conn_options;
mod direct;
mod greeting;
mod lines;
mod name_resolution;
mod own_services;
mod status;
mod trace;
