//! A WebSocket server that scripts tell what to do: by the path of the request, and by texts that are commands to it.

use std::collections::HashMap;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use testkit::websocket::{BINARY, CLOSE, CONTINUATION, Frame, PING, PONG, Peer, Request, TEXT, close_of, frame_of};

use super::LIMIT;

/// What all connections to the server share. Clones are the same.
///
/// Paths: `/status/403` is refused with that status, `/moved/PORT/PATH` sends to that port of this machine,
/// `/raw/NAME` answers with the text that was given by that name, `/sub/NAME` agrees to that subprotocol. All others are
/// agreed to.
///
/// Texts: `head` (the request as it came), `name X` and, from another connection, `to X COMMAND` (X obeys, and
/// hears nothing else until it is told `resume`), `masked`,
/// `ping X`, `pong X`, `pieces A B...` (a text in pieces), `binary N` (N bytes of 7), `slow X` (a text, byte by byte),
/// `reserved` (a broken frame), `vanish`, `close [CODE [REASON]]`, `next close` (how the next client closed: `CODE REASON`,
/// waited for), `quiet` (reads on, and answers nothing any more). A pong is told as `ponged X`. Else a message is echoed.
#[derive(Clone)]
pub struct ScriptedServer {
    raw: Arc<HashMap<&'static str, &'static str>>,
    commands: Arc<Mutex<HashMap<String, Sender<String>>>>,
    tell_close: Arc<Mutex<Sender<String>>>,
    closes: Arc<Mutex<Receiver<String>>>,
}

impl ScriptedServer {
    /// `raw`: what the paths below `/raw/` answer; `%accept` in it stands for the line of Sec-WebSocket-Accept,
    /// `%long` for 10 000 bytes.
    pub fn new(raw: &[(&'static str, &'static str)]) -> Self {
        let (tell_close, closes) = channel();
        Self {
            raw: Arc::new(raw.iter().copied().collect()),
            commands: Arc::default(),
            tell_close: Arc::new(Mutex::new(tell_close)),
            closes: Arc::new(Mutex::new(closes)),
        }
    }

    /// One connection, from its request to its end.
    pub fn serve(&self, mut peer: Peer) -> io::Result<()> {
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
            _ => return self.talk(peer, &request, &words),
        };
        peer.send(answer.as_bytes())?;
        peer.end()
    }

    fn talk(&self, mut peer: Peer, request: &Request, words: &[&str]) -> io::Result<()> {
        let subprotocol = match words {
            ["sub", name] => vec![format!("Sec-WebSocket-Protocol: {name}")],
            _ => vec![],
        };
        let more: Vec<&str> = subprotocol.iter().map(String::as_str).chain(["X-Server: obedient"]).collect();
        peer.send(request.upgrade(&more).as_bytes())?;
        loop {
            let frame = peer.frame()?;
            let text = String::from_utf8_lossy(&frame.payload).into_owned();
            match frame.opcode {
                CLOSE => {
                    let code = frame.payload.get(..2).map_or(1005, |code| u16::from_be_bytes([code[0], code[1]]));
                    let reason = text.chars().skip(2).collect::<String>();
                    lock(&self.tell_close).send(format!("{code} {reason}")).ok();
                    peer.send_frame(CLOSE, &frame.payload)?;
                    return peer.end();
                }
                PING => peer.send_frame(PONG, &frame.payload)?,
                PONG => peer.send_frame(TEXT, format!("ponged {text}").as_bytes())?,
                TEXT if frame.fin => {
                    if !self.obey(&mut peer, request, &text, &frame)? {
                        return Ok(());
                    }
                }
                opcode if frame.fin => peer.send_frame(opcode, &frame.payload)?,
                opcode => peer.send_fragment(opcode, &frame.payload)?,
            }
        }
    }

    /// Does what a text says. False where the connection has ended by that.
    fn obey(&self, peer: &mut Peer, request: &Request, text: &str, frame: &Frame) -> io::Result<bool> {
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
                // From now on the others command.
                while let Some(command) = commands.recv_timeout(LIMIT).ok().filter(|command| command != "resume") {
                    if !self.obey(peer, request, &command, frame)? {
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
