//! The order of modules in `src/lib.rs` and `capsule/src/lib.rs` is the architecture: a module uses only modules above it, and above
//! the line there is nothing of the world. A violation is named with its file and line.

use std::path::{Path, PathBuf};

/// The comment in lib.rs that divides values from effects.
const LINE: &str = "// ---- the line";
/// What only code below the line may name.
const WORLD: [&str; 20] = [
    "tokio",
    "bollard",
    "rustix",
    "std::fs",
    "std::env",
    "std::net",
    "std::process",
    "std::thread",
    "std::os",
    "Instant",
    "SystemTime",
    "jiff::",
    "getrandom",
    "rand::",
    "println!",
    "eprintln!",
    "print!",
    "eprint!",
    "stdout()",
    "stderr()",
];

struct Module {
    name: String,
    above_the_line: bool,
}

/// `pub mod` lines in order.
fn order(lib: &str) -> Vec<Module> {
    let line = lib.lines().position(|line| line.starts_with(LINE)).expect("lib.rs draws the line");
    let name = |text: &str| Some(text.strip_prefix("pub mod ")?.strip_suffix(';')?.to_owned());
    lib.lines().enumerate().filter_map(|(at, text)| Some(Module { name: name(text)?, above_the_line: at < line })).collect()
}

/// Code without comments and without its `#[cfg(test)]` tail, by line number.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let end = text.find("#[cfg(test)]").unwrap_or(text.len());
    text[..end].lines().enumerate().map(|(at, line)| (at + 1, line.split("//").next().unwrap_or(line)))
}

/// Does `word` stand in the line on its own, not as the tail of a longer name?
fn names(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let inside = |c: char| c.is_alphanumeric() || c == '_';
        let starts = !line[..at].ends_with(inside);
        let ends = !word.ends_with(inside) || !line[at + word.len()..].starts_with(inside);
        starts && ends
    })
}

fn violations(order: &[Module], module: &str, file: &str, text: &str) -> Vec<String> {
    let Some(place) = order.iter().position(|m| m.name == module) else { return vec![format!("{file}: `{module}` is not in lib.rs")] };
    let mut out = Vec::new();
    for (number, line) in code(text) {
        for later in order[place + 1..].iter().filter(|later| names(line, &format!("crate::{}", later.name))) {
            out.push(format!("{file}:{number}: `{module}` uses `{}`, which stands below it", later.name));
        }
        if order[place].above_the_line {
            out.extend(WORLD.iter().filter(|word| names(line, word)).map(|word| format!("{file}:{number}: `{word}` above the line")));
        }
        let docker = module == "provider" || file.ends_with("attach.rs");
        if !docker && names(line, "bollard") {
            out.push(format!("{file}:{number}: bollard outside provider/"));
        }
        if module != "render" && names(line, "owo_colors") {
            out.push(format!("{file}:{number}: colour outside render/"));
        }
        if module != "console" && !file.starts_with("command/console") && names(line, "ratatui") {
            out.push(format!("{file}:{number}: cells outside the console"));
        }
    }
    out
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("src/ is readable") {
        let path = entry.expect("src/ is readable").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn check(src: &str, modules: usize, sources_at_least: usize) {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join(src);
    let order = order(&std::fs::read_to_string(src.join("lib.rs")).expect("lib.rs"));
    let mut files = Vec::new();
    sources(&src, &mut files);
    files.sort();
    let mut wrong = Vec::new();
    for path in files.iter().filter(|p| !p.ends_with("lib.rs") && !p.ends_with("main.rs") && !p.ends_with("tests.rs")) {
        let file = path.strip_prefix(&src).expect("below src").to_string_lossy().into_owned();
        let module = file.split(['/', '.']).next().expect("a first part");
        wrong.extend(violations(&order, module, &file, &std::fs::read_to_string(path).expect("readable")));
    }
    assert!(order.len() > modules && files.len() > sources_at_least, "the sources were not found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn uses_point_upward_and_the_world_stays_below_the_line() {
    check("src", 10, 50);
}

#[test]
fn in_the_capsule_too() {
    check("capsule/src", 30, 80);
}

#[test]
fn it_can_fail() {
    let order = order("pub mod facts;\npub mod plan;\n// ---- the line: below it is the world\npub mod provider;\npub mod command;\n");
    let found = |module: &str, file: &str, text: &str| violations(&order, module, file, text);
    assert_eq!(found("plan", "plan/mod.rs", "use crate::facts::Facts;\n// use crate::provider\n"), Vec::<String>::new());
    assert_eq!(found("facts", "facts.rs", "use crate::plan::Plan;\n"), ["facts.rs:1: `facts` uses `plan`, which stands below it"]);
    assert_eq!(found("plan", "plan/mod.rs", "\nlet now = std::time::Instant::now();\n"), ["plan/mod.rs:2: `Instant` above the line"]);
    assert_eq!(found("plan", "plan/mod.rs", "println!(\"x\");\n").len(), 1);
    assert_eq!(found("command", "command/run.rs", "use bollard::Docker;\n"), ["command/run.rs:1: bollard outside provider/"]);
    assert_eq!(found("command", "command/ui.rs", "use owo_colors::Style;\n"), ["command/ui.rs:1: colour outside render/"]);
    assert_eq!(found("command", "command/load.rs", "use ratatui::Terminal;\n"), ["command/load.rs:1: cells outside the console"]);
    assert_eq!(found("provider", "provider/docker.rs", "use bollard::Docker;\nuse crate::facts::Facts;\n"), Vec::<String>::new());
    assert_eq!(found("stray", "stray.rs", ""), ["stray.rs: `stray` is not in lib.rs"]);
    assert_eq!(found("plan", "plan/mod.rs", "#[cfg(test)]\nmod tests { use std::fs; }\n"), Vec::<String>::new());
}
