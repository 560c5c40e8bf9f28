//! Finding the remote's addresses and connecting to one of them, within a time limit.

use std::net::SocketAddr;
use std::time::Instant;

use mio::Interest;
use mio::event::Event;

use super::draining::Draining;
use super::outbox::Outbox;
use super::relaying::Relaying;
use super::{Context, Pid, Stage, Step, Verdict};
use crate::net::connector::{Connector, Progress};
use crate::net::reason;
use crate::net::resolver::{Answer, literal};
use crate::net::socket::{DatagramSocket, TcpSocket};
use crate::protocol::options::{Parameters, Transport};
use crate::protocol::reply;
use crate::protocol::target::Target;
use crate::relay::Ready;

/// A CONN under way.
#[derive(Debug)]
pub struct Connecting {
    target: Target,
    /// What the plugin has sent behind its CONN, for the remote.
    ahead: Vec<u8>,
    /// What is known of the plugin's socket.
    ready: Ready,
    /// What is known of the attempts' sockets, taken together. Which of them an event means is not said, and the relay
    /// needs no more: a remote that answers and ends at once may never be heard of again.
    pub remote_ready: Ready,
    /// The plugin's connection is gone both ways: nobody waits any more.
    abandoned: bool,
    due: Instant,
    progress: Attempt,
}

#[derive(Debug)]
enum Attempt {
    /// The name is being looked up.
    Resolving,
    /// The addresses are known, nothing is tried yet.
    Resolved(Answer),
    /// Attempts are under way.
    Racing(Connector),
}

impl Connecting {
    /// The stage that a CONN to `target` leads to.
    pub fn begin(
        pid: Pid,
        target: Target,
        ahead: Vec<u8>,
        ready: Ready,
        parameters: &Parameters,
        cx: &mut Context<'_>,
    ) -> Stage {
        log::debug!("{pid} connects to {target}");
        let progress = match target.literal() {
            Some(address) => Attempt::Resolved(Ok(vec![literal(address)])),
            None => cx.resolver.ask(&target.host, cx.key).map_or(Attempt::Resolving, Attempt::Resolved),
        };
        let due = cx.now + parameters.connect_timeout.unwrap_or(cx.config.limits.connect);
        Stage::Connecting(Self {
            target,
            ahead,
            ready,
            remote_ready: Ready::default(),
            abandoned: false,
            due,
            progress,
        })
    }

    /// The target as it is shown in STAT.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// An event of the plugin's socket. Its end of sending is no reason to stop: it may want the answer.
    pub fn handle_plugin_event(&mut self, event: &Event) {
        self.ready.handle_event(event);
        self.abandoned |= event.is_error() || event.is_write_closed();
    }

    /// The addresses of `host`, if that is what was asked for.
    pub fn handle_resolved(&mut self, host: &str, answer: Answer) {
        if matches!(self.progress, Attempt::Resolving) && self.target.host.eq_ignore_ascii_case(host) {
            self.progress = Attempt::Resolved(answer);
        }
    }

    /// Nobody waits any more for what was asked of others.
    pub fn withdraw(&self, cx: &mut Context<'_>) {
        if matches!(self.progress, Attempt::Resolving) {
            cx.resolver.withdraw(&self.target.host, cx.key);
        }
    }

    /// When a turn is needed even without an event.
    pub fn deadline(&self) -> Option<Instant> {
        let next = match &self.progress {
            Attempt::Racing(connector) => connector.deadline(),
            Attempt::Resolving | Attempt::Resolved(_) => None,
        };
        Some(next.map_or(self.due, |next| next.min(self.due)))
    }

    /// Goes on as far as it can.
    pub fn step(&mut self, pid: Pid, parameters: &Parameters, cx: &mut Context<'_>) -> Step {
        if self.abandoned {
            log::info!("{pid} left while connecting to {}", self.target);
            return Step::Next(Stage::Closed);
        }
        match &mut self.progress {
            Attempt::Resolving => {}
            Attempt::Resolved(answer) => {
                let answer = std::mem::replace(answer, Ok(Vec::new()));
                let addresses = match answer.and_then(|found| self.reachable(found, cx)) {
                    Ok(addresses) => addresses,
                    Err(reason) => return self.fail(pid, reason, cx),
                };
                match parameters.transport {
                    Transport::Udp => {
                        // One address has to do, since nobody answers for a wrong one; and plugins know UDP as IPv4.
                        let to = addresses.iter().find(|address| address.is_ipv4()).unwrap_or(&addresses[0]);
                        return self.open_datagrams(pid, *to, parameters, cx);
                    }
                    Transport::Tcp => self.progress = Attempt::Racing(Connector::new(addresses, cx.now)),
                }
                return self.step(pid, parameters, cx);
            }
            Attempt::Racing(connector) => match connector.poll(cx.registry, cx.remote_token, cx.now) {
                Progress::Pending => {}
                Progress::Connected(stream) => {
                    log::info!("{pid} connected to {}", self.target);
                    let remote = TcpSocket::new(stream, cx.config.limits.keep_alive);
                    let ahead = std::mem::take(&mut self.ahead);
                    let relaying =
                        Relaying::stream(self.target.clone(), remote, ahead, (self.ready, self.remote_ready), cx);
                    return Step::Next(relaying.greeted(pid, parameters));
                }
                Progress::Failed(error) => return self.fail(pid, &reason(&error), cx),
            },
        }
        if self.due <= cx.now { self.fail(pid, "timeout", cx) } else { Step::Stay(Verdict::WAIT) }
    }

    /// The addresses, with the port, to which this CONN may go. There is one at least.
    fn reachable(&self, found: Vec<SocketAddr>, cx: &Context<'_>) -> Result<Vec<SocketAddr>, &'static str> {
        // As LuaSocket has it: nobody listens there.
        let port = self.target.reachable_port().ok_or("connection refused")?;
        let allowed: Vec<SocketAddr> = found
            .into_iter()
            .filter(|address| cx.config.targets.allows(&self.target.host, address.ip(), port))
            .map(|mut address| {
                address.set_port(port);
                address
            })
            .collect();
        if allowed.is_empty() { Err("Target not allowed") } else { Ok(allowed) }
    }

    fn open_datagrams(&mut self, pid: Pid, to: SocketAddr, parameters: &Parameters, cx: &mut Context<'_>) -> Step {
        let opened = DatagramSocket::reaching(to).and_then(|mut socket| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            cx.registry.register(&mut socket.0, cx.remote_token, interest).map(|()| socket)
        });
        match opened {
            Ok(socket) => {
                log::info!("{pid} sends datagrams to {}", self.target);
                let framing = parameters.framing();
                let relaying =
                    Relaying::datagrams(self.target.clone(), socket, to, framing, &self.ahead, self.ready, cx.now);
                Step::Next(relaying.greeted(pid, parameters))
            }
            Err(error) => self.fail(pid, &reason(&error), cx),
        }
    }

    fn fail(&mut self, pid: Pid, reason: &str, cx: &Context<'_>) -> Step {
        log::info!("{pid} not connected to {}: {reason}", self.target);
        let reply = Outbox::new(reply::connect_failed(reason.as_bytes()));
        Step::Next(Stage::Draining(Draining::new(reply, self.ready, cx.now)))
    }
}
