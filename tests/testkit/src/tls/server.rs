//! A remote that speaks TLS.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use rustls::{HandshakeKind, ServerConfig, ServerConnection, StreamOwned};

/// A connection after its handshake.
pub type TlsStream = StreamOwned<ServerConnection, TcpStream>;

/// Makes the handshake of a server.
///
/// # Errors
/// If the handshake fails, or the socket does.
pub fn accept(config: &Arc<ServerConfig>, mut stream: TcpStream) -> io::Result<TlsStream> {
    let mut connection = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    Ok(StreamOwned::new(connection, stream))
}

/// A remote that speaks TLS, with one thread for each connection. Dropping it closes its listener.
pub struct TlsDevice {
    addr: SocketAddr,
    listener: TcpListener,
    acceptor: Option<JoinHandle<()>>,
    handshakes: Arc<Mutex<Vec<HandshakeKind>>>,
}

impl TlsDevice {
    /// Starts a device on a free port of 127.0.0.1 that calls `serve` with every connection whose handshake succeeds.
    pub fn start(config: ServerConfig, serve: impl Fn(TlsStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a TLS device cannot listen");
        let addr = listener.local_addr().expect("an address");
        let (config, serve) = (Arc::new(config), Arc::new(serve));
        let accepting = listener.try_clone().expect("a second handle");
        let handshakes: Arc<Mutex<Vec<HandshakeKind>>> = Arc::default();
        let made = Arc::clone(&handshakes);
        let acceptor = thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                let (config, serve, made) = (Arc::clone(&config), Arc::clone(&serve), Arc::clone(&made));
                thread::spawn(move || {
                    let Ok(stream) = accept(&config, stream) else { return };
                    made.lock().expect("handshakes").extend(stream.conn.handshake_kind());
                    serve(stream);
                });
            }
        });
        Self { addr, listener, acceptor: Some(acceptor), handshakes }
    }

    /// Starts a device that sends back what it reads, and ends its stream when the peer's ends.
    pub fn echo(config: ServerConfig) -> Self {
        Self::start(config, |mut stream| {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(read) = stream.read(&mut buffer) {
                if read == 0 || stream.write_all(&buffer[..read]).is_err() {
                    break;
                }
            }
            stream.conn.send_close_notify();
            let _ = stream.flush();
        })
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The kinds of its handshakes, in order.
    pub fn handshakes(&self) -> Vec<HandshakeKind> {
        self.handshakes.lock().expect("handshakes").clone()
    }
}

impl Drop for TlsDevice {
    fn drop(&mut self) {
        // On Linux this wakes a blocked accept() with EINVAL.
        socket2::SockRef::from(&self.listener).shutdown(Shutdown::Both).ok();
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().ok();
        }
    }
}
