//! Tests of the options.

use super::*;
use crate::protocol::tls_settings::{TlsVerify, TlsVersion};
use crate::websocket::Leniency;
use crate::websocket::handshake::CompressionOffer;

fn endpoint() -> Target {
    Target::parse_prefix(b"host:80").unwrap().0
}

fn applied(options: &str) -> Parameters {
    let mut parameters = Parameters::default();
    parameters.apply(&endpoint(), options.as_bytes()).unwrap();
    parameters
}

fn reason(options: &str) -> String {
    let error = Parameters::default().apply(&endpoint(), options.as_bytes()).unwrap_err();
    String::from_utf8(error.reason()).unwrap()
}

#[test]
fn applies_every_option() {
    let all = applied("RTIM=1500  BLKS=0x10\tNTFY=3/s/a PACE=2 PRTO=UDP CTIM=100 EVNT=on FRAM=mesg");
    assert_eq!(all.receive_timeout, Some(Duration::from_millis(1500)));
    assert_eq!(all.block_size.map(u32::from), Some(16));
    assert!(all.notify.unwrap().notifies());
    assert_eq!(all.pace, Some(Duration::from_secs(2)));
    assert_eq!(all.transport, Transport::Udp);
    assert_eq!(all.connect_timeout, NonZeroU32::new(100));
    assert!(all.events);
    assert_eq!(all.framing, Some(Framing::Mesg));
}

#[test]
fn the_last_of_two_values_holds() {
    assert_eq!(applied("BLKS=1 BLKS=2").block_size.map(u32::from), Some(2));
    assert_eq!(applied("RTIM=1 RTIM=0").receive_timeout, None);
}

#[test]
fn malformed_numbers_are_ignored_and_others_clamped() {
    assert_eq!(applied("RTIM=5 RTIM=x").receive_timeout, Some(Duration::from_millis(5)));
    for none in ["0", "-1", "inf", "nan", "1e99", "1e-9", "1e-300"] {
        assert_eq!(applied(&format!("RTIM={none}")).receive_timeout, None, "{none}");
    }
    for (text, block) in [("0", None), ("-1", None), ("0.5", Some(1)), ("inf", Some(65536)), ("99999", Some(65536))] {
        assert_eq!(applied(&format!("BLKS={text}")).block_size.map(u32::from), block, "{text}");
    }
    assert_eq!(applied("CTIM=0").connect_timeout, NonZeroU32::new(600_000));
}

#[test]
fn rejects_in_the_words_of_the_lua_daemon() {
    assert_eq!(reason("hello"), "Invalid option hello");
    assert_eq!(reason("XXXX=1"), "Invalid option XXXX=1");
    assert_eq!(reason("rtim=1"), "Invalid option rtim=1", "option names are upper case");
    assert_eq!(reason("PRTO=SCTP"), "Invalid protocol sctp");
    assert_eq!(reason("EVNT=perhaps"), "Invalid option EVNT=perhaps");
    assert_eq!(reason("FRAM=x PRTO=udp"), "Invalid option FRAM=x");
    assert_eq!(reason("FRAM=MESG"), "Invalid option FRAM=MESG", "tcp has no messages");
}

#[test]
fn keep_needs_a_pid_that_is_a_secret() {
    let kept = applied("KEEP=300 NTFY=5/s/a/abcdefgh");
    assert_eq!(kept.keep, Some(Duration::from_secs(300)));
    assert_eq!(kept.kept_pid(), Some(&b"abcdefgh"[..]));
    assert_eq!(applied("KEEP=1e9 NTFY=-1///abcdefgh").keep, Some(Duration::from_secs(86400)));
    assert_eq!(applied("KEEP=inf NTFY=-1///abcdefgh").keep, Some(Duration::from_secs(86400)));
    assert_eq!((applied("KEEP=0").keep, applied("KEEP=5 KEEP=0").keep), (None, None));
    assert_eq!(applied("NTFY=5/s/a/abcdefgh").kept_pid(), None);
    for options in ["KEEP=2.5", "KEEP=2.5 NTFY=5/s/a", "NTFY=5/s/a/abcdefg KEEP=2.5"] {
        let wanted = "Invalid option KEEP=2.5: it needs NTFY with a pid of 8 characters or more";
        assert_eq!(reason(options), wanted, "{options}");
    }
    for value in ["-1", "x", "nan", ""] {
        assert_eq!(reason(&format!("KEEP={value} NTFY=5/s/a/abcdefgh")), format!("Invalid option KEEP={value}"));
    }
}

/// Parameters in which no option has its default value.
fn without_defaults() -> Parameters {
    let mut parameters = Parameters::UNSET;
    let others = [
        ("RTIM", "7"),
        ("PACE", "7"),
        ("PRTO", "tls"),
        ("EVNT", "on"),
        ("KEEP", "7"),
        ("MTTL", "7"),
        ("VRFY", "none"),
        ("TLSV", "1.3"),
        ("RDIR", "7"),
        ("RQTM", "7"),
        ("PNGI", "7"),
        ("MAXM", "7"),
        ("DEFL", "on"),
        ("MASK", "off"),
        ("CTRL", "hand"),
        ("RHDR", "on"),
    ];
    for option in options().filter(|option| matches!(option.default, OptionDefault::Value(_))) {
        let (_, value) = others.iter().find(|(name, _)| *name == option.name).expect(option.name);
        assert!((option.apply)(&mut parameters, value.as_bytes()).is_ok(), "{}={value}", option.name);
    }
    parameters
}

#[test]
fn every_default_is_what_its_text_says() {
    let mut parameters = without_defaults();
    for option in options() {
        if let OptionDefault::Value(text) = option.default {
            let before = parameters.clone();
            assert!((option.apply)(&mut parameters, text.as_bytes()).is_ok(), "{}={text}", option.name);
            assert_ne!(parameters, before, "{}={text} has no effect", option.name);
        }
    }
    let (tls, datagrams, websocket) = (Some(Box::default()), Some(Box::default()), Some(Box::default()));
    assert_eq!(parameters, Parameters { tls, datagrams, websocket, ..Parameters::default() });
}

#[test]
fn names_are_four_upper_case_letters_and_stand_once() {
    for options in [options().collect::<Vec<_>>(), listen_options().collect()] {
        for (at, spec) in options.iter().enumerate() {
            assert!(spec.name.len() == 4 && spec.name.bytes().all(|b| b.is_ascii_uppercase()), "{}", spec.name);
            assert!(options[..at].iter().all(|other| other.name != spec.name), "{} twice", spec.name);
        }
    }
}

/// The document that describes the protocol.
const DOCUMENT: &str = include_str!("../../../docs/protocol.md");

/// Its table of these options.
fn table(options: impl Iterator<Item = &'static OptionSpec>) -> String {
    let connect_timeout = crate::config::Config::default().limits.connect;
    let row = |option: &OptionSpec| {
        let value = option.value.replace('|', "\\|");
        let default = option.default.text(connect_timeout);
        format!("| `{}={value}` | {} | {} | {default} |\n", option.name, option.scope.name(), option.help)
    };
    let head = "| option | for | meaning | default |\n| --- | --- | --- | --- |\n";
    head.to_owned() + &options.map(row).collect::<String>()
}

#[test]
fn the_document_shows_every_option() {
    for table in [table(options()), table(listen_options())] {
        assert!(DOCUMENT.contains(&table), "the table in docs/protocol.md should be:\n{table}");
    }
}

#[test]
fn the_document_shows_every_command_and_its_errors() {
    use crate::protocol::command::{COMMANDS, parse};
    use crate::protocol::reply;

    let table = DOCUMENT.split("| command | replies | what it does |\n| --- | --- | --- |\n").nth(1).unwrap();
    let rows: Vec<&str> = table.lines().take_while(|line| line.starts_with('|')).collect();
    assert_eq!(rows.len(), COMMANDS.len());
    for command in COMMANDS {
        // A bar within a cell of a table is escaped.
        let usage = [command.name, command.arguments].join(" ").replace('|', "\\|");
        let row = rows.iter().find(|row| row.starts_with(&format!("| `{}` |", usage.trim_end())));
        let row = row.unwrap_or_else(|| panic!("docs/protocol.md has no row of `{}`", usage.trim_end()));
        // Each takes an argument that is none, or none at all.
        let refused = parse(format!("{} -1 nonsense", command.name).as_bytes(), &Parameters::default()).err();
        let Some(refused) = refused.filter(|_| command.name != "CONN") else { continue };
        let error = String::from_utf8(reply::command_failed(&refused)).unwrap();
        assert!(row.contains(&format!("`{}`", error.trim_end())), "{row} lacks {error}");
    }
}

#[test]
fn the_document_names_every_capability_and_error_word() {
    use crate::websocket::handshake::ErrorCode;

    let capabilities = String::from_utf8(crate::protocol::reply::capabilities()).unwrap();
    // In the first column of a table.
    let named = |word: &str| {
        let cells = DOCUMENT.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
        cells.into_iter().any(|cell| cell.contains(&format!("`{word}`")))
    };
    for word in capabilities.split_whitespace().skip(2) {
        assert!(named(word), "docs/protocol.md lacks {word} of CAPA");
    }
    for word in [
        ErrorCode::InvalidUrl,
        ErrorCode::InvalidSchema,
        ErrorCode::CouldNotConnect,
        ErrorCode::ConnectTimeout,
        ErrorCode::RequestTimeout,
        ErrorCode::ParseErrorHeaders,
        ErrorCode::BadHttpStatus,
        ErrorCode::RedirectMax,
        ErrorCode::WebsocketProtocolError,
        ErrorCode::SocketError,
    ] {
        assert!(named(word.name()), "docs/protocol.md lacks {word}");
    }
    let failed = crate::tls::TlsError::new("").to_string();
    assert!(named(failed.trim_end()), "docs/protocol.md lacks {failed}");
}

#[test]
fn the_manual_names_every_command_and_option() {
    let manual = include_str!("../../../man/sockproxyd.8");
    let protocol = manual.split(".SH PROTOCOL").nth(1).unwrap().split(".SH ").next().unwrap();
    for name in crate::protocol::command::COMMANDS.iter().map(|command| command.name) {
        assert!(protocol.contains(name), "{name}");
    }
    for name in options().chain(listen_options()).map(|option| format!("{}=", option.name)) {
        assert!(protocol.contains(&name), "{name}");
    }
}

fn bridged(options: &str) -> Result<Parameters, OptionError> {
    let target = Target::parse_prefix(b"ws://host/").unwrap().0;
    let mut parameters = Parameters::default();
    parameters.apply(&target, options.as_bytes()).map(|()| parameters)
}

#[test]
fn applies_every_option_of_websocket() {
    let all = bridged(
        "SUBP=a,b%2dc HDRS=X-A:1%202 HDRS=Host:h AUTH=me:pass:word UAGT=u%20a ORIG=http://o RDIR=0 RQTM=100 PNGI=7 \
         MAXM=0x10 DEFL=on MASK=OFF CTRL=hand RHDR=on FRAM=LINE",
    )
    .unwrap();
    assert_eq!(all.framing(Protocol::Ws), Framing::Line);
    let bridge = *all.websocket.unwrap();
    assert_eq!(bridge.offer.subprotocols, ["a".into(), "b-c".into()]);
    assert_eq!(bridge.offer.headers, [("X-A".into(), "1 2".into()), ("Host".into(), "h".into())]);
    assert_eq!(bridge.offer.auth, Some(("me".into(), "pass:word".into())));
    assert_eq!(bridge.offer.user_agent.as_deref(), Some("u a"));
    assert_eq!(bridge.offer.origin.as_deref(), Some("http://o"));
    assert!(bridge.offer.deflate == CompressionOffer::SmallWindows && bridge.offer.keep_head && !bridge.mask);
    assert_eq!((bridge.redirects, bridge.max_message), (0, 16));
    assert_eq!(
        (bridge.request_timeout, bridge.ping_interval),
        (Duration::from_millis(100), Some(Duration::from_secs(7)))
    );
    assert_eq!(bridge.control, crate::websocket::Control::Hand);
    assert_eq!(bridged("").unwrap().framing(Protocol::Wss), Framing::Mesg);
}

#[test]
fn leni_lists_what_is_let_through() {
    let leniency = |options: &str| bridged(options).unwrap().websocket.unwrap_or_default().leniency;
    assert_eq!(leniency(""), Leniency::default());
    assert_eq!(leniency("LENI=utf8"), Leniency { utf8: true, mask: false });
    assert_eq!(leniency("LENI=MASK,Utf8"), Leniency { utf8: true, mask: true });
    assert_eq!(leniency("LENI=utf8 LENI=mask"), Leniency { utf8: false, mask: true }, "the last one holds");
    for bad in ["LENI=", "LENI=utf8,", "LENI=utf-8", "LENI=utf8,close", "LENI=utf8%2cmask"] {
        let reason = String::from_utf8(bridged(bad).unwrap_err().reason()).unwrap();
        assert_eq!(reason, format!("Invalid option {bad}"));
    }
    assert_eq!(reason("LENI=utf8"), "Invalid option LENI=utf8", "tcp has no WebSocket");
}

#[test]
fn applies_every_option_of_tls() {
    let pin = "0f".repeat(32);
    let all =
        applied(&format!("PRTO=tls VRFY=none TLSV=1.3 SNIH=n CAFL=a.pem CERT=b.pem PKEY=c.pem PINS=sha256/{pin}"));
    let tls = *all.tls.unwrap();
    assert_eq!(tls.verify, TlsVerify::Pins(vec![[15; 32]]));
    assert_eq!(tls.min_version, TlsVersion::V13);
    let texts =
        [tls.server_name, tls.ca_file, tls.certificate, tls.private_key].map(|text| text.unwrap().into_string());
    assert_eq!(texts, ["n", "a.pem", "b.pem", "c.pem"]);
}

#[test]
fn applies_every_option_of_udp() {
    let all = applied("PRTO=udp BIND=192.0.2.1:1900 JOIN=239.255.255.250@192.0.2.1,224%2e0.0.251 MTTL=0x10");
    let settings = *all.datagrams.unwrap();
    let joined: Vec<String> = settings.groups.iter().map(ToString::to_string).collect();
    assert_eq!(settings.bind.unwrap().to_string(), "BIND=192.0.2.1:1900");
    assert_eq!(
        (joined.join(" ").as_str(), settings.multicast_ttl),
        ("JOIN=239.255.255.250@192.0.2.1 JOIN=224.0.0.251", 16)
    );
    assert_eq!(applied("PRTO=udp").datagrams, None);
    assert_eq!(applied("BIND=1 MTTL=255 PRTO=udp").datagrams.unwrap().multicast_ttl, 255);
    assert_eq!(applied("BIND=1 PRTO=udp").datagrams.unwrap().multicast_ttl, 2);
}

#[test]
fn what_udp_cannot_do_is_refused_with_a_reason() {
    for (option, why) in [
        ("BIND=x", "not a port or address:port"),
        ("BIND=70000", "not a port or address:port"),
        ("BIND=239.1.2.3:1900", "a multicast address, which is for JOIN"),
        ("JOIN=192.0.2.1", "not a multicast address"),
        ("JOIN=239.1.2.3,192.0.2.1", "not a multicast address"),
        ("JOIN=239.1.2.3@eth0", "not an address after the @"),
        ("JOIN=239.1.2.3", "it needs BIND with a port"),
        // A comma within an item does not separate items.
        ("JOIN=239.1.2.3%2c239.1.2.4", "not a multicast address"),
        ("JOIN=", "no group"),
        ("JOIN=,", "no group"),
    ] {
        assert_eq!(reason(&format!("PRTO=udp {option}")), format!("Invalid option {option}: {why}"));
    }
    let many = (0..17).map(|n| format!("224.1.1.{n}")).collect::<Vec<_>>().join(",");
    assert!(reason(&format!("PRTO=udp BIND=1900 JOIN={many}")).ends_with(": more than 16 groups"));
    assert_eq!(
        reason("JOIN=239.1.2.3 PRTO=udp BIND=[::]:1900"),
        "Invalid option JOIN=239.1.2.3: IPv4 and IPv6 together"
    );
    for option in ["MTTL=0", "MTTL=256", "MTTL=1.5", "MTTL=x", "MTTL=", "MTTL=nan", "BIND=%zz", "JOIN=%00"] {
        assert_eq!(reason(&format!("PRTO=udp {option}")), format!("Invalid option {option}"));
    }
    for option in ["BIND=1900", "BIND=1900 JOIN=239.1.2.3", "MTTL=4"] {
        let first = option.split(' ').next().unwrap();
        assert_eq!(reason(option), format!("Invalid option {first}"), "tcp has no such option");
        assert_eq!(reason(&format!("PRTO=tls {option}")), format!("Invalid option {first}"));
        assert!(bridged(option).is_err());
    }
}

#[test]
fn line_ends_are_rejected_and_secrets_are_not_repeated() {
    let reason = |options: &str| String::from_utf8(bridged(options).unwrap_err().reason()).unwrap();
    for (name, value) in [("UAGT", "a%0ab"), ("ORIG", "a%0d"), ("SUBP", "a%00"), ("SUBP", ""), ("SUBP", "a%20b")] {
        assert_eq!(reason(&format!("{name}={value}")), format!("Invalid option {name}={value}"));
    }
    for option in
        ["AUTH=me:a%0ab", "AUTH=me", "HDRS=Sec-WebSocket-Key:x", "HDRS=Upgrade:h2c", "HDRS=a%20b:c", "HDRS=X:%zz"]
    {
        assert_eq!(reason(option), format!("Invalid option {}", &option[..4]));
    }
}

#[test]
fn an_option_is_valid_for_its_scope_only() {
    assert_eq!(reason("VRFY=none"), "Invalid option VRFY=none", "tcp has no certificate");
    assert_eq!(reason("MASK=off PRTO=tls"), "Invalid option MASK=off");
    assert_eq!(reason("AUTH=me:secret"), "Invalid option AUTH");
    assert_eq!(reason("PRTO=tls FRAM=LINE"), "Invalid option FRAM=LINE");
    assert!(bridged("VRFY=none").is_ok(), "a redirect may lead to TLS");
    assert!(bridged("PRTO=tcp").is_err(), "a URL determines the transport");
}
