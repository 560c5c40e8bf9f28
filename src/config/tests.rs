use super::settings::Setting;
use super::*;

fn load(text: &str) -> Result<Config, String> {
    let mut config = Config::default();
    config.apply_text("test.cf", text.as_bytes()).map(|()| config).map_err(|error| error.to_string())
}

fn option(name: &'static str, key: &'static str, value: &str) -> ConfigSource {
    ConfigSource::Option { name, key, value: value.into() }
}

#[test]
fn defaults_are_the_documented_ones() {
    let config = Config::default();
    assert_eq!((config.address.as_str(), config.port), ("*", 2504));
    assert_eq!(config.luup, "http://127.0.0.1:3480");
    assert_eq!(config.log, LogTarget::Stderr);
    assert!(!config.debug && config.direct.is_empty() && config.targets.is_open());
    assert!(config.allow.allows("192.168.0.1".parse().unwrap()) && !config.allow.allows("8.8.8.8".parse().unwrap()));
    assert!(config.stop.allows("127.0.0.1".parse().unwrap()) && !config.stop.allows("192.168.0.1".parse().unwrap()));
    assert_eq!(config.limits.connections, 1024);
    assert_eq!(config.limits.line, 16384);
    assert_eq!(config.limits.idle, None);
    assert_eq!(config.tls, TlsConfig { ca: None, directory: Some("/etc/sockproxyd.d".into()), luup: TlsVerify::Peer });
}

#[test]
fn parses_every_section() {
    let config = load(
        "; a comment\n\n[host]\nip=127.0.0.1\nport=2505\nvera=http://127.0.0.1:3481/\nlog=/tmp/sockproxyd.log\ndebug\n\
         [direct]\n8125=CONN mail.example.com:25 NTFY=55/urn:example-com:serviceId:MailProxy1/HandleReceive/0\n\
         8126=192.168.0.15:25 PRTO=udp\r\n",
    )
    .unwrap();
    assert_eq!((config.address.as_str(), config.port), ("127.0.0.1", 2505));
    assert_eq!(config.luup, "http://127.0.0.1:3481");
    assert_eq!(config.log, LogTarget::File("/tmp/sockproxyd.log".into()));
    assert!(config.debug);
    let [first, second] = &config.direct[..] else { panic!("{:?}", config.direct) };
    assert_eq!((first.port, first.target.to_string().as_str()), (8125, "mail.example.com:25"));
    assert!(first.parameters.notify.is_some());
    assert_eq!((second.port, second.target.to_string().as_str()), (8126, "192.168.0.15:25"));
}

#[test]
fn a_port_of_serve_has_several_paths() {
    let text =
        "[Serve]\n8080=/a ORIG=* CONN a:1\n8080 = /b CONN b:2 PRTO=udp\n8081=CONN ws://c:3/d\n8080=/a CONN e:5\n";
    let config = load(text).unwrap();
    let shown = |port| -> Vec<String> {
        let show = |line: &ServeListener| format!("{} {}", line.settings.shown_path(), line.target);
        config.serve_on(port).map(show).collect()
    };
    assert_eq!((shown(8080), shown(8081)), (vec!["/b b:2".into(), "/a e:5".into()], vec!["* ws://c:3/d".into()]));
    assert_eq!(config.serve_ports(), [8080, 8081]);
    let framings: Vec<_> = config.serve.iter().map(|line| line.parameters.framing.unwrap()).collect();
    assert_eq!(framings, [Framing::Mesg, Framing::Mesg, Framing::Raw]);
    let many: String = (0..=MAX_LISTENERS).map(|n| format!("1=/{n} CONN a:1\n")).collect();
    assert!(load(&format!("[serve]\n{many}")).unwrap_err().ends_with("more than 1000 lines in [serve]"));
}

#[test]
fn sections_and_keys_in_any_case() {
    let config = load("[HOST]\nPort = 7\nDEBUG\n  [Limits]  \nConnections=9\n# also a comment\n").unwrap();
    assert_eq!((config.port, config.debug, config.limits.connections), (7, true, 9));
}

#[test]
fn every_error_gives_its_line() {
    for (text, error) in [
        ("[host]\n\nprt=1\n", "test.cf:3: unknown key 'prt' in [host]"),
        ("[hosts]\n", "test.cf:1: unknown section [hosts]"),
        ("port=1\n", "test.cf:1: 'port' comes before the first section"),
        ("[host]\nport=x", "test.cf:2: bad value 'x' for 'port': a whole number from 0 to 65535 is needed"),
        ("[host]\nport", "test.cf:2: 'port' needs a value: port=number"),
        ("[host]\ndebug=perhaps", "test.cf:2: bad value 'perhaps' for 'debug': on or off is needed"),
        (
            "[host]\nallow=10.0.0.0/33",
            "test.cf:2: bad value '10.0.0.0/33' for 'allow': '10.0.0.0/33' is not an address or network",
        ),
        (
            "[host]\nvera=127.0.0.1",
            "test.cf:2: bad value '127.0.0.1' for 'vera': a URL such as http://127.0.0.1:3480 is needed",
        ),
        ("[limits]\nsetup=0", "test.cf:2: bad value '0' for 'setup': seconds above 0 are needed"),
        ("[direct]\nx=a:1", "test.cf:2: 'x' is not a port (1 to 65535)"),
        ("[direct]\n7=nowhere", "test.cf:2: bad target 'nowhere' for port 7: Invalid host:port"),
        ("[direct]\n7=CONN a:1 b", "test.cf:2: bad target 'CONN a:1 b' for port 7: Invalid option b"),
        (
            "[direct]\n7=CONN ws://h/?key=hidden AUTH=hidden",
            "test.cf:2: bad target 'CONN ws://h/' for port 7: Invalid option AUTH",
        ),
        ("[direct]\n0=a:1", "test.cf:2: '0' is not a port (1 to 65535)"),
        ("[serve]\n0=/a CONN a:1", "test.cf:2: '0' is not a port (1 to 65535)"),
        ("[serve]\n7=/a a:1", "test.cf:2: bad line for port 7: Invalid option a:1"),
        ("[serve]\n7=/a AUTH=hidden CONN a:1", "test.cf:2: bad line for port 7: Invalid option AUTH"),
        ("[serve]\n7=/a CONN nowhere", "test.cf:2: bad target 'nowhere' for port 7: Invalid host:port"),
        (
            "[serve]\n7=/a CONN ws://h/?hidden FRAM=LINE",
            "test.cf:2: bad target 'ws://h/' for port 7: FRAM and RHDR are for plugins",
        ),
        (
            "[serve]\n7=/a CONN a:1 KEEP=5 NTFY=1///12345678",
            "test.cf:2: bad target 'a:1 KEEP' for port 7: KEEP is for connections made in setup mode",
        ),
        ("[direct]\n7=a:1\n[serve]\n7=CONN a:1", "test.cf:4: port 7 is in [direct] already"),
        ("[serve]\n7=CONN a:1\n[direct]\n7=a:1", "test.cf:4: port 7 is in [serve] already"),
        ("[serve]\n7=/a CERT=a CONN a:1\n7=/b CONN a:1", "test.cf:3: port 7 has lines with another CERT or PKEY"),
        ("[host] port=5", "test.cf:1: neither a [section] nor key=value"),
        (
            "[host]\nvera=http://h:99999",
            "test.cf:2: bad value 'http://h:99999' for 'vera': a URL such as http://127.0.0.1:3480 is needed",
        ),
        (
            "[host]\nvera=http://h#f",
            "test.cf:2: bad value 'http://h#f' for 'vera': a URL such as http://127.0.0.1:3480 is needed",
        ),
        ("[host", "test.cf:1: neither a [section] nor key=value"),
    ] {
        assert_eq!(load(text).unwrap_err(), error);
    }
    let mut config = Config::default();
    let error = config.apply_text("f", b"[host]\nip=\xff\n").unwrap_err();
    assert_eq!(error.to_string(), "f:2: the line is not UTF-8");
}

#[test]
fn sources_are_applied_in_order() {
    let directory = std::env::temp_dir().join(format!("sockproxyd-config-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("a.cf");
    std::fs::write(&path, "[host]\nport=1\nip=1.1.1.1\n").unwrap();
    let file = ConfigSource::File(path.clone());
    let before = Config::load(&[option("-p", "port", "2"), file.clone()]).unwrap();
    assert_eq!(before.port, 1, "the file is the later source");
    let after = Config::load(&[file, option("-p", "port", "2")]).unwrap();
    assert_eq!((after.port, after.address.as_str()), (2, "1.1.1.1"));
    std::fs::remove_dir_all(&directory).unwrap();
    let error = Config::load(&[ConfigSource::File(path)]).unwrap_err().to_string();
    assert!(error.contains("a.cf") && error.contains("No such file"), "{error}");
    let error = Config::load(&[option("-p", "port", "x")]).unwrap_err().to_string();
    assert_eq!(error, "-p: bad value 'x' for 'port': a whole number from 0 to 65535 is needed");
}

#[test]
fn the_sample_documents_every_key_and_changes_nothing() {
    let sample = sample::sample();
    let uncommented: String = sample
        .lines()
        .map(|line| line.strip_prefix("; ").filter(|rest| !rest.contains(' ')).unwrap_or(line).to_owned() + "\n")
        .collect();
    for setting in settings::SETTINGS {
        assert!(uncommented.lines().any(|line| line.split('=').next() == Some(setting.key)), "{}", setting.key);
    }
    let config = load(&sample).unwrap();
    assert_eq!(config.limits, Config::default().limits);
    let mut switched_on = load(&uncommented).unwrap();
    assert!(switched_on.debug, "the bare key must mean on");
    switched_on.debug = false;
    assert_eq!(format!("{switched_on:?}"), format!("{:?}", Config::default()));
}

#[test]
fn the_packages_ship_the_sample() {
    let shipped = include_str!("../../openwrt/sockproxyd/files/sockproxyd.cf");
    assert_eq!(
        shipped,
        sample::sample(),
        "renew it with: sockproxyd --sample-config > openwrt/sockproxyd/files/sockproxyd.cf"
    );
}

/// True where the file may have this line in this section.
fn accepts(section: &str, key: &str, value: impl std::fmt::Display) -> bool {
    load(&format!("[{section}]\n{key}={value}\n")).is_ok()
}

/// Whether `range`, as the document has it, is what the key takes.
fn is_range_of(section: &str, key: &str, range: &str) -> bool {
    if let Some(range) = range.strip_prefix("0, ") {
        return accepts(section, key, 0) && is_range_of(section, key, range);
    }
    let most_seconds = super::settings::MAX_SECONDS;
    let (inside, outside) = match (range, range.split_once(" to ")) {
        // Not a number.
        ("-", _) => {
            return accepts(section, key, "x") || ![7, 1000, 70000].iter().any(|n| accepts(section, key, n));
        }
        ("above 0", _) => (vec![0.001, most_seconds], vec![0.0, most_seconds + 1.0]),
        ("0 or above", _) => (vec![0.0, 0.001, most_seconds], vec![-1.0, most_seconds + 1.0]),
        (_, Some((least, most))) => {
            let (Ok(least), Ok(most)) = (least.parse::<u64>(), most.parse::<u64>()) else { return false };
            let below = least.checked_sub(1).is_none_or(|below| !accepts(section, key, below));
            return below
                && accepts(section, key, least)
                && accepts(section, key, most)
                && !accepts(section, key, most + 1);
        }
        _ => return false,
    };
    inside.iter().all(|value| accepts(section, key, value)) && !outside.iter().any(|value| accepts(section, key, value))
}

#[test]
fn the_document_shows_every_setting() {
    let document = include_str!("../../docs/configuration.md");
    let mut shown = 0;
    for Setting { section, key, value, default, help, .. } in settings::SETTINGS {
        let part = document.split(&format!("\n### [{section}]\n")).nth(1).unwrap().split("\n## ").next().unwrap();
        let part = part.split("\n### ").next().unwrap();
        let default = if default.is_empty() { "empty".to_owned() } else { format!("`{default}`") };
        let start = format!("| `{key}` | `{}` | {default} | ", value.replace('|', "\\|"));
        let end = format!(" | {help} |");
        let row = part.lines().find_map(|line| line.strip_prefix(&start)?.strip_suffix(&end));
        let range = row.unwrap_or_else(|| panic!("docs/configuration.md should have: {start}RANGE{end}"));
        assert!(is_range_of(section, key, range), "docs/configuration.md: {key} has another range than {range}");
        shown += 1;
    }
    let rows = document.lines().filter(|line| line.starts_with("| `") && line.matches(" | ").count() == 4).count();
    assert_eq!(rows, shown, "docs/configuration.md shows a setting that there is not");
}

#[test]
fn the_manual_names_every_key() {
    let manual = include_str!("../../man/sockproxyd.8");
    let keys = manual.split(".SH CONFIGURATION").nth(1).unwrap().split(".SH ").next().unwrap();
    for Setting { section, key, .. } in settings::SETTINGS {
        let part = keys.split(&format!(".B [{section}]\n")).nth(1).unwrap().split(".TP").next().unwrap();
        assert!(part.split(|c: char| !c.is_alphanumeric()).any(|word| word == *key), "[{section}] {key}");
    }
}

#[test]
fn files_for_tls() {
    let config = load("[tls]\nca=/etc/ca.pem\ndirectory=\n").unwrap();
    assert_eq!(config.tls, TlsConfig { ca: Some("/etc/ca.pem".into()), directory: None, luup: TlsVerify::Peer });
}

#[test]
fn a_luup_behind_tls() {
    // RFC 3986 section 3.1: schemes are case-insensitive. The sender keeps connections to an https server.
    assert_eq!(load("[host]\nvera=HTTPS://Vera/\n").unwrap().luup, "https://Vera");
    assert!(load("[host]\nvera=HTTPS://\n").is_err());
    let config = load("[host]\nvera=https://[::1]/\n[tls]\nluup=none\n").unwrap();
    assert_eq!((config.luup.as_str(), config.tls.luup), ("https://[::1]", TlsVerify::None));
    let pin = format!("sha256/{}", "0a".repeat(32));
    let config = load(&format!("[tls]\nluup={pin}, {pin}\n")).unwrap();
    assert_eq!(config.tls.luup, TlsVerify::Pins(vec![[10; 32]; 2]));
    assert_eq!(
        load("[tls]\nluup=sha256/0a").unwrap_err(),
        "test.cf:2: bad value 'sha256/0a' for 'luup': verify, none or sha256/ and 64 hexadecimal digits are needed"
    );
}

/// Regression: such a port was tried again and again.
#[test]
fn the_port_of_the_status_has_no_other_use() {
    let error = |text: &str| {
        let mut config = Config::default();
        config.apply_text("f", text.as_bytes()).unwrap();
        config.check_ports().err().map(|error| error.to_string())
    };
    for (text, why) in [
        ("[status]\nport=2504\n", "is that of plugins: [host] port"),
        ("[status]\nport=7\n[direct]\n7=a:1\n", "is in [direct] already"),
        ("[serve]\n7=/a CONN a:1\n[status]\nport=7\naddress=192.168.0.1\n", "is in [serve] already"),
        ("[host]\nip=192.168.0.1\n[status]\nport=2504\naddress=*\n", "is that of plugins: [host] port"),
        ("[host]\nip=127.0.0.1\n[status]\nport=2504\n", "is that of plugins: [host] port"),
    ] {
        let port = if text.contains("2504") { 2504 } else { 7 };
        assert_eq!(error(text), Some(format!("[status]: port {port} {why}")), "{text}");
    }
    for text in
        ["[status]\nport=7\n[direct]\n8=a:1\n", "[host]\nip=192.168.0.1\n[status]\nport=2504\naddress=127.0.0.1\n"]
    {
        assert_eq!(error(text), None, "{text}");
    }
}

/// Regression: a proxy with such a configuration, which -t accepted, did not start.
#[test]
fn the_port_of_plugins_has_no_other_use() {
    let path = std::env::temp_dir().join(format!("sockproxyd-config-{}.cf", std::process::id()));
    let (file, own) = (ConfigSource::File(path.clone()), option("-p", "port", "7"));
    for (text, section) in [("[direct]\n7=a:1\n", "[direct]"), ("[serve]\n7=/a CONN a:1\n", "[serve]")] {
        std::fs::write(&path, text).unwrap();
        assert_eq!(Config::load(std::slice::from_ref(&file)).unwrap().port, 2504);
        for sources in [[file.clone(), own.clone()], [own.clone(), file.clone()]] {
            let error = Config::load(&sources).unwrap_err().to_string();
            assert_eq!(error, format!("{section}: port 7 is that of plugins: [host] port"));
        }
        std::fs::write(&path, format!("{text}[host]\nport=7\n")).unwrap();
        assert!(Config::load(std::slice::from_ref(&file)).is_err());
        std::fs::write(&path, format!("{text}[host]\nport=7\nport=8\n")).unwrap();
        assert_eq!(Config::load(std::slice::from_ref(&file)).unwrap().port, 8);
    }
    std::fs::remove_file(&path).unwrap();
}
