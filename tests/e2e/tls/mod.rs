//! TLS towards remotes.

mod certificates;
mod make_cert;
mod openssl;
mod remotes;
mod stunnel;
