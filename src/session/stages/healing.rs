//! A remote that has ended, and to which the proxy connects again (HEAL).
//!
//! ```text
//! waits --delay over--> connects --connected--> HealOutcome::Back
//!   ^                       |
//!   +-------- failed -------+   the delay is doubled, up to HEAL
//! ```
//!
//! Nothing is read from the plugin meanwhile: what it sends waits in the kernel's buffers, and in those of a kept plugin.
//! Contract: as for [`Connecting`].

use std::time::Instant;

use super::connecting::{ConnectOutcome, Connecting};
use crate::access::RequestOrigin;
use crate::net::endpoint::Endpoint;
use crate::net::network::Network;
use crate::net::readiness::Readiness;
use crate::net::resolver::ResolveResult;
use crate::protocol::framing::{Framing, encode_body};
use crate::protocol::options::{Parameters, Protocol};
use crate::protocol::target::Target;
use crate::relay::websocket::{Resumed, ToRemote};
use crate::seconds::Seconds;
use crate::session::connect_times::ConnectTimes;
use crate::session::connection::{ConnectRequest, Connected};
use crate::session::context::SessionContext;
use crate::session::outages::Outages;
use crate::session::outbox::Outbox;
use crate::session::pid::Pid;
use crate::tls::TlsStep;

/// Characters of the reason that the plugin is told at most.
const MAX_REASON: usize = 200;
/// A connection whose remote is lost.
#[derive(Debug)]
pub(crate) struct Healing<N: Network> {
    /// For log lines.
    pid: Pid,
    origin: RequestOrigin,
    target: Target,
    protocol: Protocol,
    /// Since when the remote is lost.
    since: Instant,
    /// When the remote last sent something.
    last_heard: Instant,
    /// How long the steps of connecting to the remote that is lost have taken.
    times: ConnectTimes,
    /// What the plugin is told of the loss.
    to_plugin: Outbox,
    /// What the plugin has sent, and what was not encoded yet (WebSocket).
    to_remote: Option<ToRemote>,
    tells_plugin: bool,
    /// When the next attempt begins; no longer of importance while one is under way.
    retry_at: Instant,
    attempt: Option<Box<Connecting<N>>>,
    outages: Outages,
}

/// What a session knows of the remote that is lost.
pub(crate) struct LostRemote {
    /// Where the connection led.
    pub target: Target,
    /// What was spoken.
    pub protocol: Protocol,
    /// Why it has ended.
    pub reason: String,
    /// When the remote last sent something.
    pub last_heard: Instant,
    /// How long the steps of connecting to it have taken.
    pub times: ConnectTimes,
    /// What the plugin has sent, and what was not encoded yet (WebSocket).
    pub to_remote: Option<ToRemote>,
    /// The plugin is told of the loss, if its framing can. A client of `[serve]` has no frame for that.
    pub tells_plugin: bool,
}

/// What a turn leads to.
pub(crate) enum HealOutcome<N: Network> {
    /// Nothing more to do until something happens. `told`: the plugin was written something.
    Wait { told: bool },
    /// There is more to do at once.
    Again { told: bool },
    /// The proxy has connected again.
    Back(Box<Connected<N>>, Option<Resumed>),
    /// The plugin's connection is broken.
    PluginLost,
}

impl<N: Network> Healing<N> {
    /// Begins to heal a connection of `pid`, which `origin` has asked for.
    pub(crate) fn new(
        pid: Pid,
        origin: RequestOrigin,
        lost: LostRemote,
        mut outages: Outages,
        parameters: &Parameters,
        cx: &mut SessionContext<'_, N>,
    ) -> Self {
        let LostRemote { target, protocol, reason, last_heard, times, to_remote, tells_plugin } = lost;
        let delay = outages.next_delay(parameters.heals().unwrap_or_default(), cx.random);
        log::info!("{pid} lost: {reason}; {target}, connecting again in {} s", Seconds(delay, 1));
        let mut healing = Self {
            pid,
            origin,
            target,
            protocol,
            since: cx.now,
            last_heard,
            times,
            to_plugin: Outbox::default(),
            to_remote,
            tells_plugin,
            retry_at: cx.now + delay,
            attempt: None,
            outages,
        };
        let shown: String = reason.chars().take(MAX_REASON).collect();
        healing.tell_plugin(&format!("lost {shown}"), parameters);
        healing
    }

    /// Tells the plugin what has become of the remote, if its framing can.
    fn tell_plugin(&mut self, text: &str, parameters: &Parameters) {
        if self.tells_plugin && parameters.framing(self.protocol) == Framing::Mesg {
            let mut message = Vec::new();
            encode_body("EVNT", text.as_bytes(), &mut message);
            self.to_plugin.push(&message);
        }
    }

    /// Does what can be done now.
    pub(crate) fn turn(
        &mut self,
        plugin: &mut dyn Endpoint,
        parameters: &Parameters,
        cx: &mut SessionContext<'_, N>,
    ) -> HealOutcome<N> {
        if plugin.is_closed() || plugin.is_read_closed() {
            return HealOutcome::PluginLost;
        }
        let unwritten = self.to_plugin.unwritten();
        if self.to_plugin.flush(plugin).is_err() {
            return HealOutcome::PluginLost;
        }
        let told = self.to_plugin.unwritten() < unwritten;
        if self.attempt.is_none() && self.retry_at <= cx.now {
            let request = ConnectRequest { target: self.target.clone(), sent_ahead: Vec::new() };
            self.attempt = Some(Box::new(Connecting::new(self.pid, self.origin, request, parameters, cx)));
        }
        let Some(attempt) = &mut self.attempt else { return HealOutcome::Wait { told } };
        match attempt.turn(parameters, cx) {
            ConnectOutcome::Wait => HealOutcome::Wait { told },
            ConnectOutcome::Again => HealOutcome::Again { told },
            ConnectOutcome::Connected(connected) => {
                self.attempt = None;
                let away = Seconds(cx.now - self.since, 1);
                log::info!("{} back: connected again to {}, after {away} s", self.pid, self.target);
                self.tell_plugin("back", parameters);
                let to_plugin = std::mem::take(&mut self.to_plugin).into_unwritten();
                let resumed = self.to_remote.take().map(|to_remote| Resumed { to_remote, to_plugin });
                HealOutcome::Back(Box::new(connected), resumed)
            }
            ConnectOutcome::Failed(error) => {
                let reason = error.reason(self.protocol);
                // A thread may still look up the name, or compute a handshake.
                self.cancel(cx);
                let delay = self.outages.next_delay(parameters.heals().unwrap_or_default(), cx.random);
                self.retry_at = cx.now + delay;
                log::info!(
                    "{} not connected again to {}: {}; the next attempt in {} s",
                    self.pid,
                    self.target,
                    String::from_utf8_lossy(&reason),
                    Seconds(delay, 1)
                );
                HealOutcome::Again { told }
            }
        }
    }

    /// Where the connection leads.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// What is spoken.
    pub(crate) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Since when the remote is lost.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    /// How long the steps of connecting to the remote that is lost have taken.
    pub(crate) fn times(&self) -> ConnectTimes {
        self.times
    }

    /// When a remote last sent something.
    pub(crate) fn last_heard(&self) -> Instant {
        self.last_heard
    }

    /// What has become of the connection so far.
    pub(crate) fn outages(&self) -> Outages {
        self.outages
    }

    /// When the next attempt begins. `None`: one is under way.
    pub(crate) fn next_attempt(&self) -> Option<Instant> {
        self.attempt.is_none().then_some(self.retry_at)
    }

    /// When a turn is needed even without an event.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match &self.attempt {
            Some(attempt) => attempt.deadline(),
            None => Some(self.retry_at),
        }
    }

    /// Another plugin has taken the place of the one before: half a message of the old one is dropped.
    pub(crate) fn handle_new_plugin(&mut self) {
        if let Some(to_remote) = &mut self.to_remote {
            to_remote.reset();
        }
    }

    /// An event of one of the remote's sockets.
    pub(crate) fn handle_remote_event(&mut self, event: Readiness) {
        if let Some(attempt) = &mut self.attempt {
            attempt.handle_remote_event(event);
        }
    }

    /// The addresses of `host`, or why there are none.
    pub(crate) fn handle_resolved(&mut self, host: &str, answer: ResolveResult) {
        if let Some(attempt) = &mut self.attempt {
            attempt.handle_resolved(host, answer);
        }
    }

    /// A part of a TLS handshake is computed.
    pub(crate) fn handle_tls_step(&mut self, step: TlsStep) {
        if let Some(attempt) = &mut self.attempt {
            attempt.handle_tls_step(step);
        }
    }

    /// Ends an attempt that is under way.
    pub(crate) fn cancel(&mut self, cx: &mut SessionContext<'_, N>) {
        if let Some(attempt) = self.attempt.take() {
            attempt.cancel(cx);
        }
    }

    /// Bytes held.
    pub(crate) fn held(&self) -> usize {
        self.target.held()
            + self.to_plugin.held()
            + self.to_remote.as_ref().map_or(0, ToRemote::held)
            + self.attempt.as_ref().map_or(0, |attempt| attempt.held())
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::net::endpoint::SocketEndpoint;
    use crate::session::pid::PidSource;
    use crate::session::simulation::services::Delay;
    use crate::session::simulation::world::World;
    use crate::testing::network::{SimNetwork, connection};
    use crate::testing::wire::FaultProfile;

    #[test]
    fn an_attempt_that_fails_asks_no_thread_any_longer() {
        let mut world = World::new(0);
        world.resolver.answers.insert("slow.test".into(), (Ok(Vec::new()), Delay::Forever));
        let pid = PidSource::default().next(SystemTime::UNIX_EPOCH, false);
        let lost = LostRemote {
            target: Target::parse_prefix(b"slow.test:80").unwrap().0,
            protocol: Protocol::Tcp,
            reason: "closed".into(),
            last_heard: world.now,
            times: ConnectTimes::default(),
            to_remote: None,
            tells_plugin: true,
        };
        let parameters = Parameters::default();
        let mut healing: Healing<SimNetwork> = world.with_context(1, |cx| {
            Healing::new(pid, RequestOrigin::Configuration, lost, Outages::none(cx.now), &parameters, cx)
        });
        let (plugin, _peer) = connection(FaultProfile::default(), 1000);
        let mut plugin = SocketEndpoint::new(plugin, Readiness::FRESH);
        for is_asked in [true, false] {
            world.now = healing.deadline().unwrap();
            world.with_context(1, |cx| healing.turn(&mut plugin, &parameters, cx));
            assert_eq!((world.resolver.is_asked_by(1), healing.next_attempt().is_none()), (is_asked, is_asked));
        }
    }
}
