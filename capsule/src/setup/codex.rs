//! Codex's own configuration: folders it may trust, notifications, and the profile of its second provider. Text is only ever appended, so
//! that comments and order stay. Absent: keys; codex reads them from the environment.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::{Setup, existing, left_alone, program, target, warn};
use crate::file;
use crate::launch::LaunchConfig;
use crate::provider::{MINIMAX_OPENAI_BASE, Provider, role_model};

const CONTEXT: u64 = 512_000;

impl Setup {
    pub(super) fn configure_codex(&self) -> io::Result<()> {
        let launch = self.launch_config();
        let minimax = Provider::named("minimax").filter(|provider| self.var(provider.key).is_some());
        let path = self.relocated("codex", ".codex/config.toml");
        let (bytes, mode) = existing(&path)?;
        let text = String::from_utf8(bytes).ok();
        let Some((text, config)) = text.and_then(|text| text.parse::<toml::Table>().ok().map(|config| (text, config))) else {
            return left_alone(&path, "it is not TOML");
        };
        let mut trusted = mount_points(&self.mounts, &self.home);
        trusted.extend(launch.as_ref().map(|launch| launch.workdir.clone()));
        let mut more = missing_trust(&config, &trusted);
        if !config.contains_key("tui") {
            more += "\n[tui]\nnotifications = true\n";
        }
        let is_there = |table: &str, key: &str| config.get(table).and_then(|table| table.get(key)).is_some();
        if let Some(provider) = minimax
            && !is_there("model_providers", provider.id)
        {
            let (id, label, key) = (provider.id, provider.label, provider.key);
            let _ = write!(
                more,
                "\n[model_providers.{id}]\nname = \"{label}\"\nbase_url = \"{MINIMAX_OPENAI_BASE}\"\nenv_key = \"{key}\"\nwire_api = \"responses\"\n"
            );
        }
        if !more.is_empty() {
            let separator = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
            let whole = format!("{text}{separator}{}", if text.is_empty() { more.trim_start() } else { &more });
            // Inline tables cannot be added to from below.
            if whole.parse::<toml::Table>().is_err() {
                return left_alone(&path, "what it lacks cannot be appended");
            }
            file::write(&target(&path), whole.as_bytes(), mode)?;
        }
        match minimax {
            Some(provider) => self.write_profile(&provider, launch.as_ref()),
            None => Ok(()),
        }
    }

    /// Two files, each written once: the operator may change them.
    fn write_profile(&self, provider: &Provider, launch: Option<&LaunchConfig>) -> io::Result<()> {
        let Some(service) = &provider.service else {
            return Ok(());
        };
        let model = launch.and_then(|launch| role_model(launch, "codex", provider)).unwrap_or(service.opus);
        let profile = self.relocated("codex", &format!(".codex/{}.config.toml", provider.id));
        if !profile.exists() {
            let text = format!("model_provider = \"{}\"\nmodel = {}\n", provider.id, toml::Value::from(model));
            file::write(&profile, text.as_bytes(), file::PRIVATE)?;
        }
        let catalog = self.relocated("codex", &format!(".codex/{}.models.json", provider.id));
        if catalog.exists() {
            return Ok(());
        }
        match program::output(Command::new("codex").args(["debug", "models"])).and_then(|models| model_catalog(&models, model)) {
            Ok(text) => file::write(&catalog, text.as_bytes(), file::PRIVATE),
            // Codex then guesses the size of the context, which works less well.
            Err(error) => {
                warn(&format!("codex debug models: {error}; {model} runs without its own catalog"));
                Ok(())
            }
        }
    }
}

/// The catalog of one model: what codex knows of its first, under another name and with another context.
fn model_catalog(models: &[u8], model: &str) -> Result<String, String> {
    let known: Value = serde_json::from_slice(models).map_err(|_| "no JSON".to_owned())?;
    let Some(Value::Object(mut entry)) = known.pointer("/models/0").cloned() else {
        return Err("no models".to_owned());
    };
    for (key, value) in [
        ("slug", json!(model)),
        ("display_name", json!(model)),
        ("description", json!(model)),
        ("visibility", json!("list")),
        ("supported_in_api", json!(true)),
        ("context_window", json!(CONTEXT)),
        ("max_context_window", json!(CONTEXT)),
        ("auto_compact_token_limit", json!(CONTEXT / 10 * 9)),
    ] {
        entry.insert(key.to_owned(), value);
    }
    // What it says of its successor is about the other.
    entry.remove("upgrade");
    entry.remove("availability_nux");
    serde_json::to_string_pretty(&json!({ "models": [entry] })).map(|text| text + "\n").map_err(|error| error.to_string())
}

fn missing_trust(config: &toml::Table, trusted: &BTreeSet<String>) -> String {
    let projects = config.get("projects").and_then(toml::Value::as_table);
    let missing = trusted.iter().filter(|path| projects.is_none_or(|projects| !projects.contains_key(*path)));
    // A TOML string is a quoted key as well.
    missing.map(|path| format!("\n[projects.{}]\ntrust_level = \"trusted\"\n", quoted(path))).collect()
}

/// A basic string: the library's own choice of quotes may span lines, which no key can.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out + "\""
}

/// The folders that the operator mounted: not those of the system, ours, or the agents' homes.
fn mount_points(mounts: &str, home: &Path) -> BTreeSet<String> {
    const NOT_THEIRS: [&str; 5] = ["/proc", "/sys", "/dev", "/jackin", "/run/secrets"];
    let home_of_agents = |path: &Path| {
        [".claude", ".codex", ".local/share", ".config", ".kimi-code", ".grok"].iter().any(|dir| path.starts_with(home.join(dir)))
    };
    mounts
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let mut before = before.split(' ').skip(3);
            let (root, place) = (before.next()?, unescape(before.next()?));
            let path = Path::new(&place);
            let scratch = after.starts_with("tmpfs ") && root == "/";
            let not_theirs = place == "/" || NOT_THEIRS.iter().any(|dir| path.starts_with(dir)) || home_of_agents(path);
            let is_folder = fs::metadata(path).is_ok_and(|meta| meta.is_dir());
            (!scratch && !not_theirs && is_folder).then_some(place)
        })
        .collect()
}

/// The kernel writes spaces, tabs, newlines and backslashes in octal.
fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"].iter().zip([" ", "\t", "\n", "\\"]).fold(text.to_owned(), |text, (code, c)| text.replace(code, c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operators_mounts_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(&path).unwrap();
            path.to_str().unwrap().replace(' ', "\\040")
        };
        let home = dir.path().join("home");
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let mut mounts = String::from("1 0 0:1 / / rw - overlay overlay rw,upperdir=/x\n2 1 0:2 / /proc rw - proc proc rw\n");
        for (root, place, kind) in [
            ("/src/app", at("work/my app"), "ext4"),
            ("/tmp/x", at("from-tmpfs"), "tmpfs"),
            ("/", at("scratch"), "tmpfs"),
            ("/h", at("home/.codex"), "ext4"),
            ("/h", at("home/.config/gh"), "ext4"),
            ("/h", at("home/notes"), "ext4"),
            ("/f", file.to_str().unwrap().to_owned(), "ext4"),
            ("/g", "/jackin/run".to_owned(), "ext4"),
        ] {
            let _ = writeln!(mounts, "9 1 8:1 {root} {place} rw,relatime shared:1 - {kind} /dev/sda rw");
        }
        let found: Vec<_> =
            mount_points(&mounts, &home).into_iter().map(|path| path[dir.path().to_str().unwrap().len()..].to_owned()).collect();
        assert_eq!(found, ["/from-tmpfs", "/home/notes", "/work/my app"]);
    }

    #[test]
    fn a_catalog_of_one() {
        let known = br#"{"models":[{"slug":"gpt","base_instructions":"b","context_window":1,"upgrade":{"x":1}},{"slug":"other"}]}"#;
        let text = model_catalog(known, "MiniMax-M3").unwrap();
        let catalog: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(catalog["models"].as_array().unwrap().len(), 1);
        let entry = &catalog["models"][0];
        assert_eq!((&entry["slug"], &entry["base_instructions"]), (&json!("MiniMax-M3"), &json!("b")));
        assert_eq!((&entry["context_window"], &entry["auto_compact_token_limit"]), (&json!(512_000), &json!(460_800)));
        assert_eq!(entry.get("upgrade"), None);
        assert!(model_catalog(b"{}", "m").is_err() && model_catalog(b"sk-secret", "m").is_err_and(|e| !e.contains("sk-")));
    }

    #[test]
    fn any_path_becomes_a_key() {
        for path in ["/plain", "/with \"quotes\" and \\", "/two\nlines"] {
            let text = missing_trust(&toml::Table::new(), &BTreeSet::from([path.to_owned()]));
            let config: toml::Table = text.parse().unwrap();
            assert_eq!(config["projects"][path]["trust_level"].as_str(), Some("trusted"));
            assert_eq!(missing_trust(&config, &BTreeSet::from([path.to_owned()])), "");
        }
    }
}
