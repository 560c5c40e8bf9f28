//! What the documents say about each other and about the build: links lead somewhere, the README is short.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> Vec<PathBuf> {
    let of = |directory: &Path| {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.extension().is_some_and(|end| end == "md")).collect::<Vec<_>>()
    };
    [of(root()), of(&root().join("docs"))].concat()
}

/// The text without its code blocks, whose lines are no headings and no links.
fn prose(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.split("\n```").step_by(2).collect()
}

/// The anchors that GitHub makes of the headings.
fn anchors(path: &Path) -> HashSet<String> {
    let text = prose(path);
    let headings = text
        .lines()
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')));
    headings
        .map(|heading| {
            let kept = heading.to_lowercase().replace(' ', "-");
            kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
        })
        .collect()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let mut links = 0;
    for document in documents() {
        let text = prose(&document);
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { document.clone() } else { document.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link}", document.display());
            assert!(anchor.is_empty() || anchors(&target).contains(anchor), "{}: {link}", document.display());
            links += 1;
        }
    }
    assert!(links > 20, "{links}");
}

/// The comments of a script of `tests/lua` and the names of its functions, in lower case, as one line.
fn described(script: &str) -> String {
    let path = root().join("tests/lua").join(script).with_extension("lua");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines = text.lines().map(str::trim_start);
    let words = lines.filter_map(|line| line.strip_prefix("--").or_else(|| line.strip_prefix("function tests.")));
    words.map(|line| line.trim().to_lowercase()).collect::<Vec<_>>().join(" ")
}

/// The last column of a table with the heading "test" names scripts and comments: `` `luws`: sources; `frames` ``.
#[test]
fn the_tables_of_lua_md_name_tests_that_exist() {
    let text = fs::read_to_string(root().join("docs/lua.md")).unwrap();
    let (mut names_tests, mut named) = (false, 0);
    for line in text.lines() {
        let Some(row) = line.strip_prefix('|') else {
            names_tests = false;
            continue;
        };
        let cell = row.trim_end_matches('|').rsplit('|').next().unwrap().trim();
        if !names_tests {
            names_tests = cell == "test";
            continue;
        }
        let mut comments = String::new();
        for word in cell.split([';', ',']).map(str::trim).filter(|word| !matches!(*word, "-" | "---")) {
            let (script, label) = match word.strip_prefix('`').and_then(|rest| rest.split_once('`')) {
                Some((script, label)) if script.contains(": ") => {
                    script.split_once(": ").filter(|_| label.is_empty()).unwrap()
                }
                Some((script, label)) => (script, label.trim_start_matches(':').trim()),
                None => ("", word),
            };
            if !script.is_empty() {
                comments = described(script);
            }
            assert!(comments.contains(&label.to_lowercase()), "docs/lua.md names a test that does not exist: {cell}");
            named += 1;
        }
    }
    assert!(named > 50, "{named}");
}

#[test]
fn the_readme_is_short() {
    let lines = fs::read_to_string(root().join("README.md")).unwrap().lines().count();
    assert!(lines <= 200, "{lines}");
}

#[test]
fn the_version_of_rust_is_that_of_the_manifest() {
    let wanted = format!("Rust {}", env!("CARGO_PKG_RUST_VERSION"));
    for (name, text) in [
        ("README.md", include_str!("../README.md").replace("[Rust](https://rustup.rs)", "Rust")),
        ("docs/install.md", include_str!("../docs/install.md").into()),
        ("CONTRIBUTING.md", include_str!("../CONTRIBUTING.md").into()),
    ] {
        assert!(text.contains(&wanted), "{name} should say {wanted}");
    }
}

/// The rows of the table in src/lib.rs: a module, and the modules that it uses.
fn module_map() -> Vec<(String, Vec<String>)> {
    let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | ")).skip(2);
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_end_matches('|').split('|').map(str::trim).collect();
        let module = cells[0].trim_matches(['[', ']', '`']).to_owned();
        (module, cells[2].split_whitespace().map(str::to_owned).collect())
    })
    .collect()
}

/// The modules that the files of `module` use, tests left aside.
fn used_modules(module: &str) -> Vec<String> {
    let mut files = vec![root().join("src").join(format!("{module}.rs"))];
    let mut directories = vec![root().join("src").join(module)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            match (name.as_str(), path.is_dir()) {
                ("tests" | "simulation", _) => {}
                (_, true) => directories.push(path),
                (_, false) => files.push(path),
            }
        }
    }
    let mut used = HashSet::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs")) {
        let Ok(text) = fs::read_to_string(file) else { continue };
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for path in line.split("crate::").skip(1) {
                // `use crate::{a, b};` names several.
                let paths = path.strip_prefix('{').map_or(path, |list| list.split('}').next().unwrap_or_default());
                let names = if path.starts_with('{') { paths.split(", ").collect() } else { vec![paths] };
                for name in names {
                    let name = name.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
                    used.insert(name.to_owned());
                }
            }
        }
    }
    used.remove(module);
    used.remove("");
    let mut used: Vec<String> = used.into_iter().collect();
    used.sort();
    used
}

/// The Rust files in `directory` and below, with what stands before their tests.
fn sources(directory: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if let Ok(text) = fs::read_to_string(&path) {
            let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
            found.push((path, text));
        }
    }
    found
}

#[test]
fn stages_of_sessions_do_not_know_each_other() {
    let stages = root().join("src/session/stages");
    let head = fs::read_to_string(stages.join("mod.rs")).unwrap();
    let names: Vec<&str> =
        head.lines().filter_map(|line| line.strip_prefix("pub(crate) mod ")?.strip_suffix(';')).collect();
    assert!(names.len() > 5, "{names:?}");
    for (path, text) in sources(&stages) {
        for name in &names {
            let is_own = path.strip_prefix(&stages).unwrap().starts_with(name) || path.ends_with(format!("{name}.rs"));
            // Each attempt of Healing is a Connecting.
            let may_use = is_own || (path.ends_with("healing.rs") && *name == "connecting");
            let uses = text.contains(&format!("super::{name}::")) || text.contains(&format!("stages::{name}::"));
            assert!(may_use || !uses, "{} uses the stage {name}", path.display());
        }
    }
    for (path, text) in sources(&root().join("src/session/plugin")) {
        assert!(!text.contains("session::stages"), "{}: stages use it, so it may use none", path.display());
    }
}

#[test]
fn the_map_of_modules_is_true() {
    let map = module_map();
    let place = |name: &str| map.iter().position(|(module, _)| module == name);
    assert!(map.len() > 10, "the table in src/lib.rs was not found");
    for (at, (module, uses)) in map.iter().enumerate() {
        assert_eq!(*uses, used_modules(module), "src/lib.rs, row of {module}");
        for used in uses {
            assert!(place(used).is_some_and(|below| below > at), "{module} uses {used}, which does not stand below it");
        }
    }
}
