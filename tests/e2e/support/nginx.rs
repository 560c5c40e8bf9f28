//! nginx as a reverse proxy in front of a server.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use testkit::ports::Reserved;
use testkit::tls::Identity;

use super::{Scratch, eventually};

/// The folder where scripts/test puts programs that are not installed as packages.
pub(crate) fn cache() -> PathBuf {
    let inside = concat!(env!("CARGO_MANIFEST_DIR"), "/.cache");
    std::env::var_os("SOCKPROXYD_CACHE").map_or(inside.into(), PathBuf::from)
}

/// nginx with a TLS port, and a port that redirects to it. Dropping it ends the process.
pub(crate) struct Nginx {
    child: Child,
    /// The TLS port.
    pub secure: Arc<Reserved>,
    /// The port that redirects to it.
    pub plain: Reserved,
    _scratch: Scratch,
}

impl Nginx {
    /// Starts nginx with a certificate; `servers` returns the configuration for the TLS port.
    #[track_caller]
    pub(crate) fn start(identity: &Identity, servers: impl Fn(u16) -> String) -> Self {
        Self::start_at(Arc::new(Reserved::new().expect("a port")), identity, servers)
    }

    /// As [`Nginx::start`], with this TLS port.
    #[track_caller]
    pub(crate) fn start_at(secure: Arc<Reserved>, identity: &Identity, servers: impl Fn(u16) -> String) -> Self {
        let scratch = Scratch::new();
        let plain = Reserved::new().expect("a port");
        let certificate = scratch.write("certificate.pem", identity.pem().as_bytes());
        let key = scratch.write("key.pem", identity.key_pem().as_bytes());
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("{kind}_temp_path {};\n", scratch.path(kind)))
            .collect();
        let config = format!(
            "daemon off;\nmaster_process off;\npid {};\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}\
             ssl_certificate {certificate};\nssl_certificate_key {key};\nssl_protocols TLSv1.2 TLSv1.3;\n{}\n\
             server {{ listen 127.0.0.1:{}; return 301 https://127.0.0.1:{}$request_uri; }}\n}}\n",
            scratch.path("pid"),
            servers(secure.port()),
            plain.port(),
            secure.port(),
        );
        let file = scratch.write("nginx.conf", config.as_bytes());
        let child = Command::new(cache().join("nginx/usr/sbin/nginx"))
            .args(["-e", "stderr", "-p", &scratch.path(""), "-c", &file.to_string()])
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("nginx: {error} (scripts/test installs it)"));
        let nginx = Self { child, secure, plain, _scratch: scratch };
        for port in [&*nginx.secure, &nginx.plain] {
            eventually("nginx listens", || TcpStream::connect(port.addr()).ok());
        }
        nginx
    }

    /// Ends nginx. The TLS port stays reserved.
    pub(crate) fn end(self) -> Arc<Reserved> {
        Arc::clone(&self.secure)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
