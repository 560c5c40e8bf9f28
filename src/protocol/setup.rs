//! The parser of setup mode: bytes from the plugin in, actions out. Sans-IO.
//!
//! Contract: after [`SetupParser::handle_input`], call [`SetupParser::poll_action`] until it returns `None`. Write the
//! reply of an action before the next call, so that a plugin that does not read its replies is not read from.

use super::command::{ArrivalRequest, Command, KeptRequest, StatFormat, TraceRequest, parse};
use super::options::Parameters;
use super::reply;
use super::target::Target;

/// What the session must do for a line.
#[derive(Debug, PartialEq)]
pub(crate) enum SetupAction {
    /// Send this reply, and stay in setup mode.
    Reply(Vec<u8>),
    /// Send this reply, and close the connection.
    Close(Vec<u8>),
    /// Connect to this target. The parameters hold the options. The bytes after the line are for the remote.
    Connect(Target),
    /// Attach to a kept connection, or end one. The bytes after an ATCH line are for the remote.
    Kept(KeptRequest),
    /// Listen. The parameters hold what for.
    Listen,
    /// Accept a connection that has arrived, or refuse it. The bytes after an ACPT line are for the remote.
    Arrival(ArrivalRequest),
    /// Send the status, and lift the limit on silence.
    Stat(Option<StatFormat>),
    /// Send the help.
    Help,
    /// Stop the daemon, if the client's address is allowed to.
    Stop,
    /// Send what passes on a connection, if the client's address is allowed to, and lift the limit on silence.
    Trace(TraceRequest),
}

/// The parser of one connection in setup mode.
#[derive(Debug)]
pub(crate) struct SetupParser {
    /// Input from which not all lines are parsed. See [`SetupParser::wanted`] for its bound.
    input: Vec<u8>,
    /// Bytes of `input` that are parsed.
    parsed: usize,
    max_line: usize,
}

impl SetupParser {
    /// A parser without input. Lines may be up to `max_line` bytes long, without their newline.
    pub(crate) fn new(max_line: usize) -> Self {
        Self { input: Vec::new(), parsed: 0, max_line }
    }

    /// The number of bytes to read from the plugin after [`SetupParser::poll_action`] has returned `None`, at least 1. The
    /// parser then holds at most the longest line and its newline.
    pub(crate) fn wanted(&self) -> usize {
        (self.max_line + 1).saturating_sub(self.unparsed()).max(1)
    }

    /// Bytes that no command has taken.
    fn unparsed(&self) -> usize {
        self.input.len() - self.parsed
    }

    /// Bytes of memory held.
    pub(crate) fn held(&self) -> usize {
        self.input.capacity()
    }

    /// Adds bytes from the plugin, in pieces of any size.
    pub(crate) fn handle_input(&mut self, bytes: &[u8]) {
        self.input.drain(..std::mem::take(&mut self.parsed));
        // A line comes in one piece as a rule.
        self.input.reserve_exact(bytes.len());
        self.input.extend_from_slice(bytes);
    }

    /// The next action, if the input holds a whole line or one that is too long. Commands that set parameters change
    /// `parameters`.
    pub(crate) fn poll_action(&mut self, parameters: &mut Parameters) -> Option<SetupAction> {
        loop {
            let rest = &self.input[self.parsed..];
            let end = rest.iter().take(self.max_line + 1).position(|&b| b == b'\n');
            let Some(end) = end else {
                let is_too_long = rest.len() > self.max_line;
                return is_too_long.then(|| SetupAction::Close(reply::line_too_long()));
            };
            let command = parse(&rest[..end], parameters);
            self.parsed += end + 1;
            if self.parsed == self.input.len() {
                // An idle connection holds no memory for its input.
                self.input = Vec::new();
                self.parsed = 0;
            }
            match command {
                Ok(None) => {}
                Ok(Some(command)) => return Some(perform(command, parameters)),
                Err(error) => return Some(SetupAction::Close(reply::command_failed(&error))),
            }
        }
    }

    /// The input after the last line that was parsed.
    pub(crate) fn into_rest(mut self) -> Vec<u8> {
        self.input.drain(..self.parsed);
        self.input.shrink_to_fit();
        self.input
    }
}

fn perform(command: Command, parameters: &mut Parameters) -> SetupAction {
    match command {
        Command::Connect(target, with) => {
            *parameters = with;
            SetupAction::Connect(target)
        }
        Command::Notify(target) => {
            parameters.notify = Some(Box::new(target));
            SetupAction::Reply(reply::ok("NTFY"))
        }
        Command::BlockSize(bytes) => {
            parameters.block_size = bytes;
            SetupAction::Reply(reply::ok("BLKS"))
        }
        Command::ReceiveTimeout(limit) => {
            parameters.receive_timeout = limit;
            SetupAction::Reply(reply::ok("RTIM"))
        }
        Command::Pace(pace) => {
            parameters.pace = pace;
            SetupAction::Reply(reply::ok("PACE"))
        }
        Command::Kept(request) => SetupAction::Kept(request),
        Command::Listen(with) => {
            *parameters = with;
            SetupAction::Listen
        }
        Command::Arrival(request) => SetupAction::Arrival(request),
        Command::Stat(format) => SetupAction::Stat(format),
        Command::Capabilities => SetupAction::Reply(reply::capabilities()),
        Command::Build => SetupAction::Reply(reply::build()),
        Command::Help => SetupAction::Help,
        Command::Quit => SetupAction::Close(reply::ok("QUIT")),
        Command::Stop => SetupAction::Stop,
        Command::Trace(request) => SetupAction::Trace(request),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pieces::at_every_split;

    /// All actions of an input fed in pieces, and the bytes after a CONN.
    fn run<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<String>, Vec<u8>) {
        let mut parser = SetupParser::new(16384);
        let mut parameters = Parameters::default();
        let mut actions = Vec::new();
        let mut ended = false;
        for piece in pieces {
            parser.handle_input(piece);
            while !ended {
                let Some(action) = parser.poll_action(&mut parameters) else { break };
                ended = matches!(action, SetupAction::Connect(_) | SetupAction::Close(_));
                actions.push(format!("{action:?}"));
            }
        }
        (actions, parser.into_rest())
    }

    #[test]
    fn lines_are_parsed_at_every_split() {
        let script =
            b"capa\r\n\n BILD\nNTFY 3 s a p\nRTIM 5\nPACE 1\nBLKS 7\nSTAT\nSTAT JSON\nCONN h:1 PACE=2\nhello\nworld";
        let whole = at_every_split(script, |pieces| run(pieces.iter().copied()));
        assert_eq!(whole.0.len(), 9);
        assert_eq!(whole.1, b"hello\nworld", "the bytes after a CONN are for the remote");
    }

    #[test]
    fn commands_set_parameters() {
        let mut parser = SetupParser::new(100);
        parser.handle_input(b"NTFY 3 s a p\nRTIM 5\nPACE 1\nBLKS 7\nCONN h:1 PACE=2 EVNT=on\n");
        let mut parameters = Parameters::default();
        while parser.poll_action(&mut parameters).is_some() {}
        assert_eq!(parameters.notify.unwrap().joined(b"x"), b"3/s/a/p");
        assert_eq!(parameters.block_size.map(u32::from), Some(7));
        assert_eq!(parameters.pace.unwrap().as_secs(), 2);
        assert!(parameters.events);
        assert_eq!(parser.into_rest(), b"");
    }

    #[test]
    fn a_line_may_be_as_long_as_the_limit() {
        let at_limit = [b"CAPA ".as_slice(), &[b'x'; 95], b"\n"].concat();
        let mut parser = SetupParser::new(100);
        parser.handle_input(&at_limit);
        assert!(matches!(parser.poll_action(&mut Parameters::default()), Some(SetupAction::Reply(_))));
        let refusal = Some(SetupAction::Close(b"ERR INVALID COMMAND\n".to_vec()));
        for longer in [[b"CAPA ".as_slice(), &[b'x'; 96], b"\n"].concat(), vec![b'x'; 101]] {
            let mut parser = SetupParser::new(100);
            parser.handle_input(&longer);
            assert_eq!(parser.poll_action(&mut Parameters::default()), refusal);
        }
        let mut parser = SetupParser::new(100);
        parser.handle_input(&[b'x'; 100]);
        assert_eq!(parser.poll_action(&mut Parameters::default()), None, "the newline may follow");
    }

    #[test]
    fn no_more_input_is_wanted_than_a_line_needs() {
        let mut parser = SetupParser::new(100);
        assert_eq!(parser.wanted(), 101);
        parser.handle_input(&[b'x'; 60]);
        assert_eq!(parser.poll_action(&mut Parameters::default()), None);
        assert_eq!(parser.wanted(), 41);
        parser.handle_input(&[b'x'; 41]);
        assert!(parser.poll_action(&mut Parameters::default()).is_some(), "too long");
    }

    #[test]
    fn an_idle_connection_holds_no_input() {
        let mut parser = SetupParser::new(100);
        parser.handle_input(b"BILD\n");
        while parser.poll_action(&mut Parameters::default()).is_some() {}
        assert_eq!(parser.input.capacity(), 0);
    }
}
