//! Setup mode: any input, in any pieces, leads to the same actions, and at most one line is buffered.
//!
//! Input: the split, the maximum length of a line, and the plugin's bytes.

use sockproxyd::protocol::command::KeptRequest;
use sockproxyd::protocol::options::Parameters;
use sockproxyd::protocol::setup::{SetupAction, SetupParser};

use super::input::{Input, expand, pieces};

/// The result of one run.
#[derive(Debug, PartialEq)]
struct Outcome {
    actions: Vec<SetupAction>,
    parameters: Parameters,
    /// The bytes behind a CONN, which belong to the remote.
    rest: Option<Vec<u8>>,
}

/// The body of the target.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (split, limit) = (input.byte(), 16 + input.below(256));
    let text = expand(input.rest());
    let whole = run_pieces(&[&text], limit);
    assert_eq!(run_pieces(&pieces(&text, split), limit), whole, "the result depends on the split");
    check(&whole);
}

fn run_pieces(pieces: &[&[u8]], limit: usize) -> Outcome {
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
    assert!(setup.into_rest().len() <= limit, "more than one line is buffered");
    Outcome { actions, parameters, rest: None }
}

fn check(outcome: &Outcome) {
    for action in &outcome.actions {
        match action {
            SetupAction::Reply(reply) | SetupAction::Close(reply) => {
                assert!(reply.ends_with(b"\n"), "a reply ends with a newline");
                assert!(
                    reply.iter().all(|&byte| byte >= b' ' || byte == b'\n'),
                    "a reply contains no control characters"
                );
                let is_answer = reply.starts_with(b"OK ") || reply.starts_with(b"ERR ");
                assert!(
                    !is_answer || reply.iter().filter(|&&byte| byte == b'\n').count() == 1,
                    "an answer is one line"
                );
            }
            SetupAction::Connect(target) => {
                let endpoint = target.endpoint();
                assert!(!endpoint.host.is_empty());
                assert!(endpoint.reachable_port().is_none_or(|port| u32::from(port) == endpoint.port));
            }
            SetupAction::Kept(KeptRequest::Claim) => unreachable!("no line is a claim"),
            SetupAction::Kept(KeptRequest::Attach { pid, .. } | KeptRequest::Drop { pid }) => {
                assert!(!pid.iter().any(|&byte| matches!(byte, b' ' | b'\t' | b'\n')), "a pid has no blanks: {pid:?}");
            }
            SetupAction::Stat | SetupAction::StatJson | SetupAction::Help | SetupAction::Stop => {}
        }
    }
    let Parameters { receive_timeout, pace, connect_timeout, block_size, notify, keep, .. } = &outcome.parameters;
    let longest = 3650 * 86_400;
    for limit in [receive_timeout, pace, connect_timeout, keep].into_iter().flatten() {
        assert!(!limit.is_zero(), "a timeout of zero");
        assert!(limit.as_secs() <= longest, "adding {limit:?} to an instant may overflow");
    }
    assert!(block_size.is_none_or(|block| (1..=65536).contains(&block)));
    if let Some(notify) = notify {
        let query = notify.query(b"1716058a");
        assert!(query.bytes().all(|byte| byte.is_ascii_graphic()), "invalid characters in the request line: {query:?}");
        assert_eq!(query.matches('&').count(), 5, "the plugin has injected a parameter: {query}");
        assert_eq!(query.matches(['?', '/', '#']).count(), 2, "the plugin has injected a delimiter: {query}");
    }
}
