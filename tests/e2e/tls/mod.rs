//! TLS towards remotes.

mod certificates;
mod openssl;
mod remotes;
mod stunnel;
