//! A WebSocket server that clients script: the path of the request and text messages are commands to it.

use std::collections::HashMap;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use testkit::websocket::{BINARY, CLOSE, CONTINUATION, Frame, PING, PONG, Peer, Request, TEXT, close_of, frame_of};

use super::LIMIT;

/// The state that all connections to the server share, clones included.
///
/// | path | response |
/// | --- | --- |
/// | `/status/403` | that status |
/// | `/moved/PORT/PATH` | a redirect to that port of 127.0.0.1 |
/// | `/raw/NAME` | the text with that name, see [`ScriptedServer::new`] |
/// | `/sub/NAME` | 101 with that subprotocol |
/// | any other | 101 |
///
/// | text message | reaction |
/// | --- | --- |
/// | `head` | sends the request as received |
/// | `name X` | names this connection X; from then on it takes only commands from `to`, until `resume` |
/// | `to X COMMAND` | has the connection named X execute the command |
/// | `masked` | `yes` or `no`: whether this frame was masked |
/// | `ping X`, `pong X` | sends that control frame |
/// | `pieces A B...` | sends one text in fragments |
/// | `binary N` | sends N bytes of value 7 |
/// | `slow X` | sends a text byte by byte |
/// | `hex BYTES` | sends these bytes as they are, two digits each |
/// | `reserved` | sends a frame with reserved bits set |
/// | `vanish` | closes TCP without a close frame |
/// | `close [CODE [REASON]]` | starts the closing handshake |
/// | `next close` | waits for the next close frame of any client, and sends its `CODE REASON` |
/// | `quiet` | reads on without answering |
/// | any other | echoes it |
///
/// A pong is answered with the text `ponged X`.
#[derive(Clone)]
pub(crate) struct ScriptedServer {
    raw: Arc<HashMap<&'static str, &'static str>>,
    commands: Arc<Mutex<HashMap<String, Sender<String>>>>,
    close_sender: Arc<Mutex<Sender<String>>>,
    closes: Arc<Mutex<Receiver<String>>>,
}

impl ScriptedServer {
    /// `raw`: the responses to paths below `/raw/`. `%accept` in them is replaced by the Sec-WebSocket-Accept line,
    /// `%long` by 10 000 bytes.
    pub(crate) fn new(raw: &[(&'static str, &'static str)]) -> Self {
        let (close_sender, closes) = channel();
        Self {
            raw: Arc::new(raw.iter().copied().collect()),
            commands: Arc::default(),
            close_sender: Arc::new(Mutex::new(close_sender)),
            closes: Arc::new(Mutex::new(closes)),
        }
    }

    /// Serves one connection, from its request to its end.
    pub(crate) fn serve(&self, mut peer: Peer) -> io::Result<()> {
        let request = peer.request()?;
        let path = request.line.split(' ').nth(1).unwrap_or_default();
        let words: Vec<&str> = path.splitn(4, '/').skip(1).collect();
        let answer = match words[..] {
            ["status", code] => format!("HTTP/1.1 {code} Because\r\nContent-Length: 0\r\n\r\n"),
            ["moved", port, rest] => format!("HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:{port}/{rest}\r\n\r\n"),
            ["raw", name] => {
                let accept = format!("Sec-WebSocket-Accept: {}", request.accept());
                self.raw[name].replace("%accept", &accept).replace("%long", &"x,".repeat(5000))
            }
            _ => return self.execute_messages(peer, &request, &words),
        };
        peer.send(answer.as_bytes())?;
        peer.end()
    }

    fn execute_messages(&self, mut peer: Peer, request: &Request, words: &[&str]) -> io::Result<()> {
        let subprotocol = match words {
            ["sub", name] => vec![format!("Sec-WebSocket-Protocol: {name}")],
            _ => vec![],
        };
        let more: Vec<&str> = subprotocol.iter().map(String::as_str).chain(["X-Server: scripted"]).collect();
        peer.send(request.upgrade(&more).as_bytes())?;
        loop {
            let frame = peer.frame()?;
            let text = String::from_utf8_lossy(&frame.payload).into_owned();
            match frame.opcode {
                CLOSE => {
                    let code = frame.payload.get(..2).map_or(1005, |code| u16::from_be_bytes([code[0], code[1]]));
                    let reason = text.chars().skip(2).collect::<String>();
                    lock(&self.close_sender).send(format!("{code} {reason}")).ok();
                    peer.send_frame(CLOSE, &frame.payload)?;
                    return peer.end();
                }
                PING => peer.send_frame(PONG, &frame.payload)?,
                PONG => peer.send_frame(TEXT, format!("ponged {text}").as_bytes())?,
                TEXT if frame.fin => {
                    if !self.execute(&mut peer, request, &text, &frame)? {
                        return Ok(());
                    }
                }
                opcode if frame.fin => peer.send_frame(opcode, &frame.payload)?,
                opcode => peer.send_fragment(opcode, &frame.payload)?,
            }
        }
    }

    /// Executes the command in a text. False if that has ended the connection.
    fn execute(&self, peer: &mut Peer, request: &Request, text: &str, frame: &Frame) -> io::Result<bool> {
        let (command, argument) = text.split_once(' ').unwrap_or((text, ""));
        match command {
            "head" => {
                let headers = request.headers.iter().map(|(name, value)| format!("\n{name}: {value}"));
                let head: String = [request.line.clone()].into_iter().chain(headers).collect();
                peer.send_frame(TEXT, head.as_bytes())?;
            }
            "name" => {
                let (tell, commands) = channel();
                lock(&self.commands).insert(argument.to_owned(), tell);
                peer.send_frame(TEXT, b"named")?;
                // From here on other connections send the commands.
                while let Some(command) = commands.recv_timeout(LIMIT).ok().filter(|command| command != "resume") {
                    if !self.execute(peer, request, &command, frame)? {
                        return Ok(false);
                    }
                }
            }
            "to" => {
                let (name, command) = argument.split_once(' ').unwrap_or((argument, ""));
                lock(&self.commands)[name].send(command.to_owned()).ok();
                peer.send_frame(TEXT, b"told")?;
            }
            "masked" => peer.send_frame(TEXT, if frame.mask.is_some() { b"yes" } else { b"no" })?,
            "ping" => peer.send_frame(PING, argument.as_bytes())?,
            "pong" => peer.send_frame(PONG, argument.as_bytes())?,
            "pieces" => {
                let words: Vec<&str> = argument.split(' ').collect();
                for (at, word) in words.iter().enumerate() {
                    let opcode = if at == 0 { TEXT } else { CONTINUATION };
                    let last = if at + 1 == words.len() { 0x80 } else { 0 };
                    peer.send(&frame_of(last | opcode, word.as_bytes()))?;
                }
            }
            "binary" => peer.send_frame(BINARY, &vec![7; argument.parse().unwrap_or(0)])?,
            "slow" => {
                for byte in frame_of(0x80 | TEXT, argument.as_bytes()) {
                    peer.send(&[byte])?;
                }
            }
            "hex" => {
                let digits = argument.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap_or_default());
                let bytes: Result<Vec<u8>, _> = digits.map(|pair| u8::from_str_radix(pair, 16)).collect();
                peer.send(&bytes.map_err(io::Error::other)?)?;
            }
            "reserved" => peer.send(&frame_of(0xf0 | TEXT, b"x"))?,
            "vanish" => return Ok(false),
            "close" => {
                let (code, reason) = argument.split_once(' ').unwrap_or((argument, ""));
                let payload = code.parse().map_or(vec![], |code| close_of(code, reason));
                peer.send_frame(CLOSE, &payload)?;
                while peer.frame()?.opcode != CLOSE {}
                peer.end()?;
                return Ok(false);
            }
            "next" => {
                let close = lock(&self.closes).recv_timeout(LIMIT).unwrap_or("nobody closed".into());
                peer.send_frame(TEXT, close.as_bytes())?;
            }
            "quiet" => while peer.frame()?.opcode != CLOSE {},
            _ => peer.send_frame(TEXT, text.as_bytes())?,
        }
        Ok(true)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
