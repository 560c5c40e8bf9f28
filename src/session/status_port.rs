//! The port of `[status]`: what a request asks for, and a client that is sent the status.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::context::{DaemonRequest, SessionContext, TurnResult};
use super::draining::Draining;
use super::opening::{ClientProtocol, Opening};
use super::pid::Pid;
use super::plugin::ConfiguredPort;
use super::stages::watching::{WatchOutcome, Watching};
use super::{Next, Session, Stage};
use crate::config::StatusConfig;
use crate::net::endpoint::SocketEndpoint;
use crate::net::network::Network;
use crate::net::readiness::Readiness;
use crate::protocol::options::Protocol;
use crate::websocket::close;
use crate::websocket::handshake::{PageRequest, Refusal, UpgradeRequest};

/// Silence of the client after which it is sent a ping. One that answers none within as long again is lost.
pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(30);

/// The path of STAT JSON. A WebSocket of this path is sent it every second.
const JSON_PATH: &str = "/status.json";

/// What a client may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatusPage {
    /// The page for people.
    Html {
        /// The client takes it compressed.
        accepts_gzip: bool,
    },
    /// STAT JSON.
    Json,
    /// STAT METRICS.
    Metrics,
}

impl StatusPage {
    /// What `request` asks for, or why it is refused.
    pub(crate) fn find(request: &PageRequest, config: &StatusConfig) -> Result<Self, Refusal> {
        check_host(&request.host, config)?;
        match &*request.path {
            "/" => Ok(Self::Html { accepts_gzip: request.accepts_gzip }),
            JSON_PATH => Ok(Self::Json),
            "/metrics" => Ok(Self::Metrics),
            _ => Err(no_such_path()),
        }
    }
}

/// Checks a request for a WebSocket.
fn check_upgrade(request: &UpgradeRequest, config: &StatusConfig) -> Result<(), Refusal> {
    check_host(&request.host, config)?;
    if request.path() != JSON_PATH {
        return Err(no_such_path());
    }
    // RFC 6455 section 10.2: pages of other sites may not connect.
    if !request.is_origin_of_host() {
        return Err(Refusal::new(403, "Pages of this origin may not connect here."));
    }
    Ok(())
}

/// A page of another site whose name resolves to this machine (DNS rebinding) would be of the same origin. Its Host is that name.
fn check_host(host: &str, config: &StatusConfig) -> Result<(), Refusal> {
    if config.has_host(host) {
        return Ok(());
    }
    Err(Refusal::new(403, "This port is called by an address, localhost, or a name in hosts= of [status]."))
}

fn no_such_path() -> Refusal {
    Refusal::new(404, "This port has /, /status.json and /metrics.")
}

impl<N: Network> Session<N> {
    /// A client that has connected to the port of `[status]`.
    pub(crate) fn status(pid: Pid, stream: N::Stream, peer: SocketAddr, cx: &mut SessionContext<'_, N>) -> Self {
        let socket = SocketEndpoint::new(stream, Readiness::ACCEPTED);
        let opening = Opening::new(pid, socket, None, ClientProtocol::Http, cx);
        Self::with_opening(pid, opening, peer, ConfiguredPort::Status, cx.now)
    }

    /// A client of `[status]` has sent its request.
    pub(super) fn open_status(&mut self, cx: &mut SessionContext<'_, N>) -> Next<N> {
        let Some(client) = self.plugin.opening_mut() else { return Next::Enter(Stage::Closed) };
        let config = &cx.config.status;
        let asked = match (client.opening.page(), client.opening.request()) {
            (Some(page), _) => StatusPage::find(page, config).map(Some),
            (None, Some(request)) => check_upgrade(request, config).map(|()| None),
            (None, None) => return Next::Stay(TurnResult::Again),
        };
        match asked {
            Ok(Some(page)) => Next::Stay(TurnResult::Request(DaemonRequest::StatusPage(page))),
            Ok(None) => {
                client.choice.ping_interval = Some(PING_INTERVAL);
                // Its messages are put together by no relay.
                self.accept_served(Protocol::Tcp, cx.now);
                Next::Enter(Stage::Watching(Box::new(Watching::new(cx.now))))
            }
            Err(refusal) => {
                client.opening.refuse(refusal, cx.now);
                Next::Stay(TurnResult::Again)
            }
        }
    }

    pub(super) fn watching_turn(&mut self, cx: &mut SessionContext<'_, N>) -> Next<N> {
        let (Stage::Watching(watching), Some(client)) = (&mut self.stage, self.plugin.served_mut()) else {
            return Next::Enter(Stage::Closed);
        };
        client.begin_turn(cx.now, cx.budget);
        let outcome = watching.turn(client, cx.scratch, cx.now);
        let again = client.end_turn(cx.budget);
        match outcome {
            WatchOutcome::Wait if again => Next::Stay(TurnResult::Again),
            WatchOutcome::Wait => Next::Stay(TurnResult::Wait),
            WatchOutcome::Again => Next::Stay(TurnResult::Again),
            WatchOutcome::Update => Next::Stay(TurnResult::Request(DaemonRequest::StatusUpdate)),
            WatchOutcome::Ended => {
                client.close(close::NORMAL, "");
                client.drain();
                Next::Enter(Stage::Draining(Box::new(Draining::new(Vec::new(), cx.now))))
            }
            WatchOutcome::Lost => Next::Enter(Stage::Closed),
        }
    }

    /// The daemon's answer to [`DaemonRequest::StatusPage`]: a response, or why there is none.
    pub(crate) fn respond(&mut self, response: Result<Vec<u8>, Refusal>, now: Instant) {
        let Some(client) = self.plugin.opening_mut() else { return };
        match response {
            Ok(response) => client.opening.respond(response, now),
            Err(refusal) => client.opening.refuse(refusal, now),
        }
    }

    /// The daemon's answer to [`DaemonRequest::StatusUpdate`].
    pub(crate) fn send_status(&mut self, status: &str, cx: &mut SessionContext<'_, N>) {
        let (Stage::Watching(_), Some(client)) = (&self.stage, self.plugin.served_mut()) else { return };
        client.begin_turn(cx.now, cx.budget);
        if !client.send_text(status) {
            log::debug!("{} is not sent the status: there is no memory for it, or it has gone", self.pid);
        }
        client.end_turn(cx.budget);
        self.account(cx.budget);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::testing::pieces::head_of;
    use crate::websocket::handshake::{RequestProgress, ServerHandshake};

    /// What a request for `path` with these further lines leads to: a page, a WebSocket (`None`), or the status of a refusal.
    fn asked(path: &str, lines: &[&str]) -> Result<Option<StatusPage>, u16> {
        let config = Config::default().status;
        let line = format!("GET {path} HTTP/1.1");
        let head = head_of(&[&[&*line], lines].concat(), "\r\n");
        let result = match ServerHandshake::with_pages().handle_input(&head) {
            RequestProgress::Page(page) => StatusPage::find(&page, &config).map(Some),
            RequestProgress::Received(request) => check_upgrade(&request, &config).map(|()| None),
            other => panic!("{other:?}"),
        };
        result.map_err(|refusal| refusal.code())
    }

    #[test]
    fn each_path_has_its_page_for_a_host_that_is_known() {
        const HOST: &str = "Host: 10.0.0.1:8127";
        assert_eq!(asked("/", &[HOST]), Ok(Some(StatusPage::Html { accepts_gzip: false })));
        let gzip = [HOST, "Accept-Encoding: gzip, br"];
        assert_eq!(asked("/?x", &gzip), Ok(Some(StatusPage::Html { accepts_gzip: true })));
        assert_eq!(asked("/status.json", &[HOST]), Ok(Some(StatusPage::Json)));
        assert_eq!(asked("/metrics", &[HOST]), Ok(Some(StatusPage::Metrics)));
        for path in ["/favicon.ico", "//", "/metrics/", "/STATUS.JSON", "/%6detrics"] {
            assert_eq!(asked(path, &[HOST]), Err(404), "{path}");
        }
        for path in ["/", "/metrics", "/nothing"] {
            assert_eq!(asked(path, &["Host: evil.example"]), Err(403), "{path}: the Host comes first");
        }
    }

    #[test]
    fn a_websocket_needs_the_path_the_host_and_the_origin_of_the_page() {
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
        let upgrade = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", key];
        for (path, host, origin, result) in [
            ("/status.json", "10.0.0.1:8127", "http://10.0.0.1:8127", Ok(None)),
            ("/status.json", "localhost", "http://localhost", Ok(None)),
            ("/status.json", "localhost", "http://localhost:8127", Err(403)),
            ("/status.json", "10.0.0.1:8127", "http://evil.example", Err(403)),
            ("/status.json", "10.0.0.1:8127", "null", Err(403)),
            ("/status.json", "evil.example", "http://evil.example", Err(403)),
            ("/", "localhost", "http://localhost", Err(404)),
        ] {
            let (host, origin) = (format!("Host: {host}"), format!("Origin: {origin}"));
            assert_eq!(asked(path, &[&[&*host, &*origin], &upgrade[..]].concat()), result, "{path} {host} {origin}");
        }
        assert_eq!(asked("/status.json", &[&["Host: [::1]:8127"], &upgrade[..]].concat()), Ok(None), "no browser");
    }
}
