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
