//! Setup mode: a plugin's bytes in, actions out. Sans-IO.
//!
//! Contract: after [`Setup::handle_input`], call [`Setup::poll_action`] until it answers `None`, each time once the
//! reply of the action before has been taken: a client that does not read its replies is not asked for more.

use super::command::{Command, CommandError, KeptRequest, parse};
use super::options::Parameters;
use super::reply;
use super::target::Target;

/// What a line asks the session to do.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Say this, and stay.
    Reply(Vec<u8>),
    /// Say this, and close.
    Close(Vec<u8>),
    /// Connect to this target; the parameters hold its options. Bytes behind the line belong to the remote.
    Connect(Target),
    /// Go on with a kept connection, or end one. Behind ATCH, bytes behind the line belong to the remote.
    Kept(KeptRequest),
    /// Say the table of connections, and lift the idle limit.
    Stat,
    /// Say the same as JSON.
    StatJson,
    /// End the daemon, where the client may.
    Stop,
}

/// The state of a connection in setup mode.
#[derive(Debug)]
pub struct Setup {
    /// What was said and not yet taken as lines: see [`Setup::room`].
    input: Vec<u8>,
    /// How much of `input` has been taken.
    taken: usize,
    line_limit: usize,
}

impl Setup {
    /// A connection that has said nothing yet; lines may be `line_limit` bytes long.
    pub fn new(line_limit: usize) -> Self {
        Self { input: Vec::new(), taken: 0, line_limit }
    }

    /// How many bytes to ask the plugin for, once [`Setup::poll_action`] has answered `None`: what is held is never
    /// more than the longest line and a byte. At least 1.
    pub fn room(&self) -> usize {
        (self.line_limit + 1).saturating_sub(self.input.len() - self.taken).max(1)
    }

    /// Bytes held that no command has taken.
    pub fn held(&self) -> usize {
        self.input.len() - self.taken
    }

    /// Takes what the plugin has said, in pieces of any size.
    pub fn handle_input(&mut self, bytes: &[u8]) {
        self.input.drain(..std::mem::take(&mut self.taken));
        self.input.extend_from_slice(bytes);
    }

    /// The next thing to do, if the input holds a whole line. What commands set is set in `parameters`.
    pub fn poll_action(&mut self, parameters: &mut Parameters) -> Option<Action> {
        loop {
            let waiting = &self.input[self.taken..];
            let end = waiting.iter().take(self.line_limit + 1).position(|&b| b == b'\n');
            let Some(end) = end else {
                let too_long = waiting.len() > self.line_limit;
                return too_long.then(|| Action::Close(reply::refused(&CommandError::Unknown)));
            };
            let command = parse(&waiting[..end], parameters);
            self.taken += end + 1;
            if self.taken == self.input.len() {
                // An idle connection holds no memory for what it once said.
                self.input = Vec::new();
                self.taken = 0;
            }
            match command {
                Ok(None) => continue,
                Ok(Some(command)) => return Some(perform(command, parameters)),
                Err(error) => return Some(Action::Close(reply::refused(&error))),
            }
        }
    }

    /// The bytes behind the last line taken.
    pub fn into_rest(mut self) -> Vec<u8> {
        self.input.drain(..self.taken);
        self.input
    }
}

fn perform(command: Command, parameters: &mut Parameters) -> Action {
    match command {
        Command::Connect(target, with) => {
            *parameters = with;
            Action::Connect(target)
        }
        Command::Notify(target) => {
            parameters.notify = Some(Box::new(target));
            Action::Reply(reply::ok("NTFY"))
        }
        Command::Block(bytes) => {
            parameters.block = bytes;
            Action::Reply(reply::ok("BLKS"))
        }
        Command::ReceiveTimeout(limit) => {
            parameters.receive_timeout = limit;
            Action::Reply(reply::ok("RTIM"))
        }
        Command::Pace(pace) => {
            parameters.pace = pace;
            Action::Reply(reply::ok("PACE"))
        }
        Command::Kept(request) => Action::Kept(request),
        Command::Stat => Action::Stat,
        Command::StatJson => Action::StatJson,
        Command::Capabilities => Action::Reply(reply::capabilities()),
        Command::Build => Action::Reply(reply::build()),
        Command::Help => Action::Reply(reply::help()),
        Command::Quit => Action::Close(reply::ok("QUIT")),
        Command::Stop => Action::Stop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pieces::at_every_split;

    /// All actions of `input` fed in pieces, and what is left behind a CONN.
    fn run<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<String>, Vec<u8>) {
        let mut setup = Setup::new(super::super::LINE_LIMIT);
        let mut parameters = Parameters::default();
        let mut actions = Vec::new();
        let mut ended = false;
        for piece in pieces {
            setup.handle_input(piece);
            while !ended {
                let Some(action) = setup.poll_action(&mut parameters) else { break };
                ended = matches!(action, Action::Connect(_) | Action::Close(_));
                actions.push(format!("{action:?}"));
            }
        }
        (actions, setup.into_rest())
    }

    #[test]
    fn lines_may_come_in_any_pieces_and_several_in_one() {
        let script =
            b"capa\r\n\n BILD\nNTFY 3 s a p\nRTIM 5\nPACE 1\nBLKS 7\nSTAT\nSTAT JSON\nCONN h:1 PACE=2\nhello\nworld";
        let whole = at_every_split(script, |pieces| run(pieces.iter().copied()));
        assert_eq!(whole.0.len(), 9);
        assert_eq!(whole.1, b"hello\nworld", "bytes behind a CONN belong to the remote");
    }

    #[test]
    fn commands_set_parameters() {
        let mut setup = Setup::new(100);
        setup.handle_input(b"NTFY 3 s a p\nRTIM 5\nPACE 1\nBLKS 7\nCONN h:1 PACE=2 EVNT=on\n");
        let mut parameters = Parameters::default();
        while setup.poll_action(&mut parameters).is_some() {}
        assert_eq!(parameters.notify.unwrap().joined(b"x"), b"3/s/a/p");
        assert_eq!(parameters.block, Some(7));
        assert_eq!(parameters.pace.unwrap().as_secs(), 2);
        assert!(parameters.events);
        assert_eq!(setup.into_rest(), b"");
    }

    #[test]
    fn a_line_at_the_limit_is_taken_and_a_longer_one_is_not() {
        let at_limit = [b"CAPA ".as_slice(), &[b'x'; 95], b"\n"].concat();
        let mut setup = Setup::new(100);
        setup.handle_input(&at_limit);
        assert!(matches!(setup.poll_action(&mut Parameters::default()), Some(Action::Reply(_))));
        let refusal = Some(Action::Close(b"ERR INVALID COMMAND\n".to_vec()));
        for longer in [[b"CAPA ".as_slice(), &[b'x'; 96], b"\n"].concat(), vec![b'x'; 101]] {
            let mut setup = Setup::new(100);
            setup.handle_input(&longer);
            assert_eq!(setup.poll_action(&mut Parameters::default()), refusal);
        }
        let mut setup = Setup::new(100);
        setup.handle_input(&[b'x'; 100]);
        assert_eq!(setup.poll_action(&mut Parameters::default()), None, "the newline may still come");
    }

    #[test]
    fn no_more_is_asked_for_than_a_line_needs() {
        let mut setup = Setup::new(100);
        assert_eq!(setup.room(), 101);
        setup.handle_input(&[b'x'; 60]);
        assert_eq!(setup.poll_action(&mut Parameters::default()), None);
        assert_eq!(setup.room(), 41);
        setup.handle_input(&[b'x'; 41]);
        assert!(setup.poll_action(&mut Parameters::default()).is_some(), "too long");
    }

    #[test]
    fn an_idle_connection_holds_no_input() {
        let mut setup = Setup::new(100);
        setup.handle_input(b"BILD\n");
        while setup.poll_action(&mut Parameters::default()).is_some() {}
        assert_eq!(setup.input.capacity(), 0);
    }
}
