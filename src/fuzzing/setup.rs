//! Setup mode: whatever a plugin says, in whatever pieces, leads to the same actions, and little is held for it.
//!
//! Input: how it is split, the limit of a line, and what the plugin says.

use crate::protocol::command::{ArrivalRequest, KeptRequest};
use crate::protocol::datagram_settings::MAX_GROUPS;
use crate::protocol::options::{Parameters, Protocol};
use crate::protocol::setup::{SetupAction, SetupParser};

use super::input::{Input, expand, pieces};

/// What came of a conversation.
#[derive(Debug, PartialEq)]
struct Outcome {
    actions: Vec<SetupAction>,
    parameters: Parameters,
    /// The bytes behind a CONN, which are the remote's.
    rest: Option<Vec<u8>>,
}

/// The target's body.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (split, limit) = (input.byte(), 16 + input.below(256));
    let text = expand(input.rest());
    let whole = converse(&[&text], limit);
    assert_eq!(converse(&pieces(&text, split), limit), whole, "the split matters");
    check(&whole);
}

fn converse(pieces: &[&[u8]], limit: usize) -> Outcome {
    let mut setup = SetupParser::new(limit);
    let mut parameters = Parameters::default();
    let mut actions = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        setup.handle_input(piece);
        while let Some(action) = setup.poll_action(&mut parameters) {
            let over = matches!(action, SetupAction::Close(_) | SetupAction::Connect(_) | SetupAction::Stop);
            let connects = matches!(action, SetupAction::Connect(_));
            actions.push(action);
            if over {
                let mut rest = setup.into_rest();
                pieces[at + 1..].iter().for_each(|piece| rest.extend_from_slice(piece));
                return Outcome { actions, parameters, rest: connects.then_some(rest) };
            }
        }
    }
    assert!(setup.into_rest().len() <= limit, "more than a line is held");
    Outcome { actions, parameters, rest: None }
}

/// Options of ACPT are those of CONN, whatever speaks at the other end.
fn check_arrival(options: &[u8]) {
    for protocol in [Protocol::Tcp, Protocol::Ws] {
        let mut parameters = Parameters::default();
        if parameters.apply_to_arrival(protocol, options).is_ok() {
            assert!(parameters.tls.is_none() && parameters.datagrams.is_none(), "an option of connecting was taken");
        }
    }
}

fn check(outcome: &Outcome) {
    for action in &outcome.actions {
        match action {
            SetupAction::Reply(reply) | SetupAction::Close(reply) => {
                assert!(reply.ends_with(b"\n"), "a reply ends its line");
                assert!(reply.iter().all(|&byte| byte >= b' ' || byte == b'\n'), "a reply holds no control characters");
                let is_answer = reply.starts_with(b"OK ") || reply.starts_with(b"ERR ");
                assert!(!is_answer || reply.iter().filter(|&&byte| byte == b'\n').count() == 1, "an answer is a line");
            }
            SetupAction::Connect(target) => {
                let endpoint = target.endpoint();
                assert!(!endpoint.host.is_empty());
                assert!(endpoint.reachable_port().is_none_or(|port| u32::from(port) == endpoint.port));
            }
            SetupAction::Kept(KeptRequest::Claim) => unreachable!("no line is a claim"),
            SetupAction::Kept(KeptRequest::Attach { pid, .. } | KeptRequest::Drop { pid }) => {
                assert!(!pid.iter().any(|&byte| matches!(byte, b' ' | b'\t' | b'\n')), "a pid is a word: {pid:?}");
            }
            SetupAction::Arrival(ArrivalRequest::Accept { id, options: text })
            | SetupAction::Arrival(ArrivalRequest::Deny { id, reason: text, .. }) => {
                assert!(!id.iter().any(|&byte| matches!(byte, b' ' | b'\t' | b'\n')), "an id is a word: {id:?}");
                assert!(!text.contains(&b'\n'), "the rest is of the same line");
                check_arrival(text);
            }
            SetupAction::Listen => {
                let settings = outcome.parameters.listen.as_deref().expect("LSTN has settings");
                assert!(settings.address.port() > 0 && settings.protocol != Protocol::Udp);
                assert!(!settings.wait.is_zero() && settings.wait.as_secs() <= 600);
                let path = settings.rules.path.as_deref().unwrap_or("/");
                assert!(path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()), "{path}");
            }
            SetupAction::Trace(_) | SetupAction::Stat(_) | SetupAction::Help | SetupAction::Stop => {}
        }
    }
    let Parameters { receive_timeout, pace, connect_timeout, block_size, notify, keep, datagrams, .. } =
        &outcome.parameters;
    let longest = 3650 * 86_400;
    let connect_timeout = connect_timeout.map(|ms| std::time::Duration::from_millis(ms.get().into()));
    for limit in [receive_timeout, pace, &connect_timeout, keep].into_iter().flatten() {
        assert!(!limit.is_zero(), "a limit of nothing");
        assert!(limit.as_secs() <= longest, "adding {limit:?} to an instant may overflow");
    }
    assert!(block_size.is_none_or(|block_size| block_size.get() <= 65536));
    if let Some(settings) = datagrams {
        assert!(settings.groups.len() <= MAX_GROUPS && settings.multicast_ttl > 0);
        assert_eq!(settings.check(), Ok(()));
        let families = settings.groups.iter().map(|membership| Some(membership.group.is_ipv6()));
        families.for_each(|family| assert_eq!(family, settings.is_ipv6(), "two families"));
    }
    if let Some(notify) = notify {
        let query = notify.query(b"1716058a");
        assert!(query.bytes().all(|byte| byte.is_ascii_graphic()), "a request line holds {query:?}");
        assert_eq!(query.matches('&').count(), 5, "a plugin's words made a parameter: {query}");
        assert_eq!(query.matches(['?', '/', '#']).count(), 2, "a plugin's words left their place: {query}");
    }
}
