//! Tests of the options.

use super::*;

fn endpoint() -> Target {
    Target::split_off(b"host:80").unwrap().0
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
    assert_eq!(all.block, Some(16));
    assert!(all.notify.unwrap().notifies());
    assert_eq!(all.pace, Some(Duration::from_secs(2)));
    assert_eq!(all.transport, Transport::Udp);
    assert_eq!(all.connect_timeout, Some(Duration::from_millis(100)));
    assert!(all.events);
    assert_eq!(all.framing, Some(Framing::Mesg));
}

#[test]
fn the_last_of_two_holds() {
    assert_eq!(applied("BLKS=1 BLKS=2").block, Some(2));
    assert_eq!(applied("RTIM=1 RTIM=0").receive_timeout, None);
}

#[test]
fn bad_numbers_are_ignored_and_odd_ones_brought_into_range() {
    assert_eq!(applied("RTIM=5 RTIM=x").receive_timeout, Some(Duration::from_millis(5)));
    for none in ["0", "-1", "inf", "nan", "1e99", "1e-9", "1e-300"] {
        assert_eq!(applied(&format!("RTIM={none}")).receive_timeout, None, "{none}");
    }
    for (text, block) in [("0", None), ("-1", None), ("0.5", Some(1)), ("inf", Some(65536)), ("99999", Some(65536))] {
        assert_eq!(applied(&format!("BLKS={text}")).block, block, "{text}");
    }
    assert_eq!(applied("CTIM=0").connect_timeout, Some(values::LONGEST_CONNECT));
}

#[test]
fn refuses_with_the_words_of_the_lua_daemon() {
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

#[test]
fn names_are_four_upper_case_letters_and_stand_once() {
    for (at, spec) in options().enumerate() {
        assert!(spec.name.len() == 4 && spec.name.bytes().all(|b| b.is_ascii_uppercase()), "{}", spec.name);
        assert!(options().take(at).all(|other| other.name != spec.name), "{} twice", spec.name);
    }
}

/// The README's table of options.
fn table() -> String {
    let row = |option: &OptionSpec| {
        let value = option.value.replace('|', "\\|");
        format!("| `{}={value}` | {} | {} | {} |\n", option.name, option.targets.name(), option.help, option.default)
    };
    let head = "| option | for | meaning | default |\n| --- | --- | --- | --- |\n";
    head.to_owned() + &options().map(row).collect::<String>()
}

#[test]
fn the_readme_shows_every_option() {
    let readme = include_str!("../../../README.md");
    assert!(readme.contains(&table()), "the README's table should be:\n{}", table());
}

#[test]
fn the_manual_names_every_command_and_option() {
    let manual = include_str!("../../../man/sockproxyd.8");
    let protocol = manual.split(".SH PROTOCOL").nth(1).unwrap().split(".SH ").next().unwrap();
    for name in crate::protocol::command::COMMANDS.iter().map(|command| command.name) {
        assert!(protocol.contains(name), "{name}");
    }
    for name in options().map(|option| format!("{}=", option.name)) {
        assert!(protocol.contains(&name), "{name}");
    }
}

fn bridged(options: &str) -> Result<Parameters, OptionError> {
    let target = Target::split_off(b"ws://host/").unwrap().0;
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
    let bridge = *all.bridge.unwrap();
    assert_eq!(bridge.offer.subprotocols, ["a".into(), "b-c".into()]);
    assert_eq!(bridge.offer.headers, [("X-A".into(), "1 2".into()), ("Host".into(), "h".into())]);
    assert_eq!(bridge.offer.auth, Some(("me".into(), "pass:word".into())));
    assert_eq!(bridge.offer.user_agent.as_deref(), Some("u a"));
    assert_eq!(bridge.offer.origin.as_deref(), Some("http://o"));
    assert!(bridge.offer.deflate && bridge.offer.keep_head && !bridge.mask);
    assert_eq!((bridge.redirects, bridge.max_message), (0, 16));
    assert_eq!(
        (bridge.request_timeout, bridge.ping_interval),
        (Duration::from_millis(100), Some(Duration::from_secs(7)))
    );
    assert_eq!(bridge.control, crate::websocket::Control::Hand);
    assert_eq!(bridged("").unwrap().framing(Protocol::Wss), Framing::Mesg);
}

#[test]
fn applies_every_option_of_tls() {
    let pin = "0f".repeat(32);
    let all =
        applied(&format!("PRTO=tls VRFY=none TLSV=1.3 SNIH=n CAFL=a.pem CERT=b.pem PKEY=c.pem PINS=sha256/{pin}"));
    let tls = *all.tls.unwrap();
    assert_eq!(tls.verify, crate::tls::Verify::Pins(vec![[15; 32]]));
    assert_eq!(tls.min_version, crate::tls::TlsVersion::V13);
    let texts =
        [tls.server_name, tls.ca_file, tls.certificate, tls.private_key].map(|text| text.unwrap().into_string());
    assert_eq!(texts, ["n", "a.pem", "b.pem", "c.pem"]);
}

#[test]
fn what_ends_a_line_is_refused_and_secrets_are_not_repeated() {
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
fn an_option_is_for_its_targets_only() {
    assert_eq!(reason("VRFY=none"), "Invalid option VRFY=none", "there is nothing to verify");
    assert_eq!(reason("MASK=off PRTO=tls"), "Invalid option MASK=off");
    assert_eq!(reason("AUTH=me:secret"), "Invalid option AUTH");
    assert_eq!(reason("PRTO=tls FRAM=LINE"), "Invalid option FRAM=LINE");
    assert!(bridged("VRFY=none").is_ok(), "a redirect may lead to TLS");
    assert!(bridged("PRTO=tcp").is_err(), "the URL says it");
}
