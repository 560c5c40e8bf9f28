//! The configuration: any text is either taken, within bounds, or refused with the line or the section that is wrong.

use std::cell::RefCell;
use std::fs::File;
use std::io::{Seek, Write};
use std::path::PathBuf;
use std::time::Duration;

use crate::config::{Config, ConfigSource};

/// A file to load from, one for each thread, removed at its end.
struct Scratch {
    path: PathBuf,
    file: File,
}

impl Scratch {
    fn new() -> Self {
        let name = format!("sockproxyd-fuzz-{}-{:?}", std::process::id(), std::thread::current().id());
        let path = std::env::temp_dir().join(name);
        let file = File::create(&path).expect("a temporary file");
        Self { path, file }
    }

    fn fill(&mut self, text: &[u8]) {
        self.file.rewind().expect("rewound");
        self.file.set_len(0).expect("emptied");
        self.file.write_all(text).expect("written");
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
}

/// The target's body.
pub fn run(data: &[u8]) {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.fill(data);
        let file = ConfigSource::File(scratch.path.clone());
        let name = scratch.path.display().to_string();
        match Config::load(std::slice::from_ref(&file)) {
            Err(error) => {
                let text = error.to_string();
                assert!(!text.contains('\n'), "an error is a line: {text:?}");
                // Only after the last file is known which port is that of setup mode.
                if ["[direct]: port ", "[serve]: port ", "[status]: port "]
                    .iter()
                    .any(|section| text.starts_with(section))
                {
                    return;
                }
                let place = text.strip_prefix(&format!("{name}:")).expect("an error names its file");
                let line: usize = place.split(':').next().and_then(|n| n.parse().ok()).expect("and its line");
                let lines = data.iter().filter(|&&byte| byte == b'\n').count() + 1;
                assert!((1..=lines).contains(&line), "line {line} of {lines}");
            }
            Ok(config) => {
                check(&config);
                let twice = Config::load(&[file.clone(), file]).expect("what is right once is right twice");
                assert_eq!(format!("{twice:?}"), format!("{config:?}"), "what comes later holds");
            }
        }
    });
}

fn check(config: &Config) {
    let limits = &config.limits;
    let numbers = [
        limits.connections,
        limits.per_address,
        limits.line,
        limits.buffer,
        limits.buffers,
        limits.resolvers,
        limits.notices,
        limits.senders,
    ];
    assert!(numbers.iter().all(|&number| number > 0), "{limits:?}");
    let longest = Duration::from_secs(3650 * 86_400);
    let always = [limits.setup, limits.half_close, limits.stall, limits.connect, limits.answer];
    let sometimes = [limits.idle, limits.keep_alive, limits.lost];
    for limit in always.into_iter().chain(sometimes.into_iter().flatten()) {
        assert!(limit > Duration::ZERO && limit <= longest, "{limit:?}");
    }
    let rest = config.luup.strip_prefix("https://").or(config.luup.strip_prefix("http://"));
    assert!(rest.is_some_and(|rest| !rest.is_empty() && !rest.ends_with('/')), "{}", config.luup);
    assert!(!config.address.is_empty());
    for (at, direct) in config.direct.iter().enumerate() {
        assert!(config.direct[..at].iter().all(|other| other.port != direct.port), "port {} twice", direct.port);
        assert!(config.serve.iter().all(|serve| serve.port != direct.port), "port {} in two sections", direct.port);
    }
    for (at, serve) in config.serve.iter().enumerate() {
        for other in &config.serve[..at] {
            let (one, two) = (&other.settings, &serve.settings);
            assert!(other.port != serve.port || (one.rules.path != two.rules.path && one.tls == two.tls), "{serve:?}");
        }
    }
}
