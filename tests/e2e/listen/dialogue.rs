//! Replays the dialogue in the section "Listening" of docs/protocol.md.

use std::collections::HashMap;

use testkit::plugin::Plugin;
use testkit::ports::Reserved;

use crate::support::{WsClient, read_frame, started};

const DOCUMENT: &str = include_str!("../../../docs/protocol.md");

/// What stands for what the document has in its place: the port, and the pids.
struct Names(HashMap<String, String>);

impl Names {
    /// `line` with what is known in place of the document's names.
    fn translate(&self, line: &str) -> String {
        line.split(' ').map(|word| self.0.get(word).map_or(word, String::as_str)).collect::<Vec<_>>().join(" ")
    }

    /// Notes the words of `real` that differ from the document's: pids and addresses. Everything else must be equal.
    #[track_caller]
    fn learn(&mut self, documented: &str, real: &str) {
        let (ours, theirs): (Vec<_>, Vec<_>) = (real.split(' ').collect(), documented.split(' ').collect());
        assert_eq!(ours.len(), theirs.len(), "{documented}: {real}");
        for (own, written) in ours.into_iter().zip(theirs) {
            let is_pid = written.len() == 8 && written.bytes().all(|byte| byte.is_ascii_hexdigit());
            if is_pid || written.starts_with("192.168.") {
                let before = self.0.insert(written.to_owned(), own.to_owned());
                assert!(before.is_none_or(|before| before == own), "{documented}: {real}");
            } else {
                assert_eq!(own, written, "{documented}: {real}");
            }
        }
    }
}

#[test]
fn the_dialogue_of_the_document_is_true() {
    let section = DOCUMENT.split("## Listening: LSTN, ACPT, DENY").nth(1).unwrap();
    let block = section.split("```text\n").nth(1).unwrap().split("```").next().unwrap();
    let daemon = started();
    let port = Reserved::new().unwrap();
    let mut names = Names([("8080".to_owned(), port.port().to_string())].into());
    let (mut owner, mut plugin, mut client) = (daemon.plugin(), None::<Plugin>, None::<WsClient>);
    let mut lines = 0;
    for line in block.lines() {
        lines += 1;
        let (who, rest) = line.split_at(7);
        let (direction, text) = rest.split_at(2);
        match (who.trim(), direction.trim()) {
            ("owner", ">") => owner.send(format!("{}\n", names.translate(text)).as_bytes()),
            ("owner", "<") => names.learn(text, &owner.line()),
            ("plugin", ">") => {
                let text = format!("{}\n", names.translate(text));
                plugin.get_or_insert_with(|| daemon.plugin()).send(text.as_bytes());
            }
            ("plugin", "<") => names.learn(text, &plugin.as_mut().unwrap().line()),
            ("client", ">") => {
                match text.strip_prefix("GET ").and_then(|text| text.split_once(" with the subprotocols ")) {
                    Some((path, subprotocols)) => {
                        let header = format!("Sec-WebSocket-Protocol: {subprotocols}");
                        client = Some(WsClient::request(port.addr(), path, &[&header]));
                    }
                    None => client.as_mut().unwrap().send(0x81, text.as_bytes()),
                }
            }
            ("client", "<") => {
                let client = client.as_mut().unwrap();
                if let Some(subprotocol) = text.strip_prefix("101 with the subprotocol ") {
                    assert_eq!(client.upgraded().header("Sec-WebSocket-Protocol"), subprotocol);
                } else if text.starts_with("403 ") {
                    assert_eq!(client.response().line, format!("HTTP/1.1 {text}"));
                } else {
                    assert_eq!(read_frame(&mut client.0).1, text.as_bytes());
                }
            }
            other => panic!("{other:?} in {line:?}"),
        }
    }
    assert!(lines > 10, "the dialogue was not found");
}
