//! Setup mode: the plugin says what it wants.

use std::time::Instant;

use super::connecting::Connecting;
use super::draining::Draining;
use super::outbox::Outbox;
use super::{Ask, Context, Pid, Stage, Step, Verdict};
use crate::config::Config;
use crate::net::socket::Stream;
use crate::protocol::options::Parameters;
use crate::protocol::reply;
use crate::protocol::setup::{SetupAction, SetupParser};
use crate::protocol::target::Target;
use crate::relay::Ready;

/// Commands that are answered in one turn before others have theirs.
const TURN_COMMANDS: usize = 64;

/// A plugin in setup mode.
#[derive(Debug)]
pub struct SettingUp {
    setup: SetupParser,
    outbox: Outbox,
    /// What is known of the plugin's socket.
    pub ready: Ready,
    /// Since when the plugin has neither said nor taken anything.
    silent_since: Instant,
    /// STAT has lifted the limit on silence, but for a plugin that does not take its replies.
    watches: bool,
    /// What is asked of the daemon concerning kept connections.
    request: Option<Request>,
}

/// What is asked of the daemon, since it concerns other connections.
#[derive(Debug)]
pub enum Request {
    /// CONN with KEEP: the pid, which the parameters hold, must be free.
    Connect(Target),
    /// Going on with the kept connection of this pid, behind so many messages.
    Attach(Box<[u8]>, Option<u64>),
    /// Ending the kept connection of this pid.
    Drop(Box<[u8]>),
}

impl SettingUp {
    /// A plugin that is to be greeted.
    pub fn new(pid: Pid, now: Instant, line_limit: usize) -> Self {
        Self {
            setup: SetupParser::new(line_limit),
            outbox: Outbox::new(reply::greeting(pid.to_string().as_bytes())),
            // A fresh socket takes what is written to it; what it has sent, an event will say.
            ready: Ready { writable: true, ..Ready::default() },
            silent_since: now,
            watches: false,
            request: None,
        }
    }

    /// What [`Ask::Kept`] asks for.
    pub fn take_request(&mut self) -> Option<Request> {
        self.request.take()
    }

    /// What was said behind the last command. Nothing more is asked of the plugin.
    pub fn take_rest(&mut self) -> Vec<u8> {
        std::mem::replace(&mut self.setup, SetupParser::new(0)).into_rest()
    }

    /// Says what the daemon was asked for.
    pub fn answer(&mut self, bytes: Vec<u8>) {
        self.outbox.say(&bytes);
    }

    /// When the plugin will have been silent for too long.
    pub fn deadline(&self, config: &Config) -> Option<Instant> {
        let lifted = self.watches && self.outbox.left() == 0;
        (!lifted).then(|| self.silent_since + config.limits.setup)
    }

    /// Bytes of replies that the plugin has yet to take.
    pub fn unread(&self) -> usize {
        self.outbox.left()
    }

    /// Answers commands until there are none, or one needs something else.
    pub fn step(
        &mut self,
        pid: Pid,
        socket: &mut impl Stream,
        parameters: &mut Parameters,
        cx: &mut Context<'_>,
    ) -> Step {
        for _ in 0..TURN_COMMANDS {
            let left = self.outbox.left();
            let flushed = self.outbox.flush(socket, &mut self.ready);
            if self.outbox.left() < left {
                self.silent_since = cx.now;
            }
            match flushed {
                Ok(true) => {}
                Ok(false) => return Step::Stay(Verdict::WAIT),
                Err(_) => return Step::Next(Stage::Closed),
            }
            match self.setup.poll_action(parameters) {
                Some(SetupAction::Reply(reply)) => self.outbox.say(&reply),
                Some(SetupAction::Close(reply)) => {
                    // What stands behind a name that is none of ours may be a secret all the same.
                    let told = reply.split(|&byte| byte == b'=').next().unwrap_or_default();
                    log::debug!("{pid} closes setup mode: {}", String::from_utf8_lossy(told).trim_end());
                    return Step::Next(Stage::Draining(Draining::new(Outbox::new(reply), self.ready, cx.now)));
                }
                Some(SetupAction::Stat) => {
                    self.watches = true;
                    return Step::Stay(Verdict::ask(Ask::Stat));
                }
                Some(SetupAction::StatJson) => {
                    self.watches = true;
                    return Step::Stay(Verdict::ask(Ask::StatJson));
                }
                Some(SetupAction::Help) => self.outbox.say(&reply::help(cx.config.limits.connect)),
                Some(SetupAction::Stop) => return Step::Stay(Verdict::ask(Ask::Stop)),
                Some(SetupAction::Connect(target)) if parameters.keep.is_none() => {
                    return Step::Next(Connecting::begin(pid, target, self.take_rest(), self.ready, parameters, cx));
                }
                Some(SetupAction::Connect(target)) => return self.ask(Request::Connect(target)),
                Some(SetupAction::Attach(kept, seen)) => return self.ask(Request::Attach(kept, seen)),
                Some(SetupAction::Drop(kept)) => return self.ask(Request::Drop(kept)),
                None => match self.read(socket, cx) {
                    Read::Some => {}
                    Read::Nothing => return Step::Stay(Verdict::WAIT),
                    Read::End => {
                        log::info!("{pid} left in setup mode");
                        return Step::Next(Stage::Closed);
                    }
                },
            }
        }
        Step::Stay(Verdict::AGAIN)
    }

    fn ask(&mut self, request: Request) -> Step {
        self.request = Some(request);
        Step::Stay(Verdict::ask(Ask::Kept))
    }

    fn read(&mut self, socket: &mut impl Stream, cx: &mut Context<'_>) -> Read {
        if !self.ready.readable {
            return Read::Nothing;
        }
        let room = cx.scratch.len().min(self.setup.wanted());
        match socket.recv(&mut cx.scratch[..room]) {
            Ok(0) => Read::End,
            Ok(read) => {
                self.setup.handle_input(&cx.scratch[..read]);
                self.silent_since = cx.now;
                Read::Some
            }
            Err(error) => match error.kind() {
                std::io::ErrorKind::Interrupted => Read::Some,
                std::io::ErrorKind::WouldBlock => {
                    self.ready.readable = false;
                    Read::Nothing
                }
                _ => Read::End,
            },
        }
    }
}

enum Read {
    Some,
    Nothing,
    End,
}
