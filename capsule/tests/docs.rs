//! What the documents say of keys and verbs is what the program knows. `UPDATE_DOCS=1` writes the table of keys anew.

use std::path::{Path, PathBuf};

use jackin_capsule::chrome::key_name;
use jackin_capsule::keys::{Chord, DIRECT, ENTRIES, Entry};

fn document() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/capsule.md")
}

const BEGIN: &str = "<!-- keys: written from capsule/src/keys.rs by UPDATE_DOCS=1 cargo test -p jackin-capsule --test docs -->\n";
const END: &str = "<!-- end of keys -->\n";

fn names(entry: &Entry) -> String {
    let name = |spelling: &str| format!("`{}`", key_name(Chord::parse(spelling).unwrap_or_else(|| panic!("{spelling:?} is no key"))));
    entry.keys.split_whitespace().map(name).collect::<Vec<_>>().join(" ")
}

fn table() -> String {
    let mut out = String::from("\n| after `Ctrl+\\` | without it | does |\n|---|---|---|\n");
    for entry in ENTRIES {
        let direct = DIRECT.iter().find(|direct| direct.command == entry.command).map_or_else(String::new, names);
        out.push_str(&format!("| {} | {direct} | {} |\n", names(entry), entry.text));
    }
    for entry in DIRECT.iter().filter(|direct| ENTRIES.iter().all(|entry| entry.command != direct.command)) {
        out.push_str(&format!("| | {} | {} |\n", names(entry), entry.text));
    }
    out.push('\n');
    out
}

#[test]
fn the_table_of_keys_is_the_codes() {
    let text = std::fs::read_to_string(document()).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the document has a place for the keys");
    let (said, after) = rest.split_once(END).expect("the table of keys ends");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        return std::fs::write(document(), [before, BEGIN, &table(), END, after].concat()).unwrap();
    }
    assert_eq!(said, table(), "run: UPDATE_DOCS=1 cargo test -p jackin-capsule --test docs");
}

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// All names of variables in a text that begin with `JACKIN_`.
fn variables(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("JACKIN_").filter_map(|(at, _)| {
        let name = &text[at..];
        let end = name.find(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '_').unwrap_or(name.len());
        (end > "JACKIN_".len()).then_some(&name[..end])
    })
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| ["rs", "sh"].contains(&extension.to_str().unwrap_or_default())) {
            found.push(path);
        }
    }
}

#[test]
fn every_variable_is_documented() {
    let text = std::fs::read_to_string(document()).unwrap();
    let said: Vec<_> = variables(&text).collect();
    let mut files = Vec::new();
    for folder in ["src", "runtime"] {
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut files);
    }
    let mut missing = std::collections::BTreeSet::new();
    for file in &files {
        let source = std::fs::read_to_string(file).unwrap();
        missing.extend(variables(&source).filter(|name| !said.contains(name)).map(str::to_owned));
    }
    assert!(files.len() > 80, "the sources were not found");
    assert!(missing.is_empty(), "docs/capsule.md does not mention {missing:?}");
}

#[test]
fn every_request_is_documented() {
    let text = std::fs::read_to_string(document()).unwrap();
    let control = read("src/control.rs");
    let (_, requests) = control.split_once("pub enum Request {").unwrap();
    let (requests, _) = requests.split_once("\n}\n").unwrap();
    let variants: Vec<_> = requests
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()))
        .map(|line| line.trim_end_matches([' ', '{', ',']))
        .collect();
    assert!(variants.len() > 10, "{variants:?}");
    for variant in variants.into_iter().filter(|variant| *variant != "Unknown") {
        let words = variant.char_indices().map(|(at, c)| {
            if c.is_uppercase() && at > 0 { format!("_{}", c.to_ascii_lowercase()) } else { c.to_ascii_lowercase().to_string() }
        });
        let name = format!("`{}`", words.collect::<String>());
        assert!(text.contains(&name), "docs/capsule.md does not mention the request {name}");
    }
}
