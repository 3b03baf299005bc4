//! The files of agent status: hooks and plugins go into the agents' homes, rule packs come out of their folders, and what
//! a hook reports becomes a message. Absent: what events and rules mean (`agent`), and the socket.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::agent::{Hints, MAX_PACK, MAX_PAYLOAD, Packs, RuntimeEvent};
use crate::file;
use crate::paths::var;

const HOOK: &str = "agent-status/hooks/report-hook.sh";
const OPENCODE: &str = "agent-status/hooks/opencode/plugin.js";
const AMP: &str = "agent-status/hooks/amp/plugin.ts";
/// In each file that is ours to replace.
const MARK: &str = "jackin-status:";
const MAX_PACK_FILES: usize = 64;
/// Seconds that an agent waits for a hook.
const TIMEOUT: u64 = 5;

/// All but PermissionRequest run beside the agent.
const CLAUDE: [(&str, bool); 12] = [
    ("UserPromptSubmit", true),
    ("PreToolUse", true),
    ("PostToolUse", true),
    ("PostToolUseFailure", true),
    ("PermissionRequest", false),
    ("PermissionDenied", true),
    ("Notification", true),
    ("Stop", true),
    ("StopFailure", true),
    ("SubagentStart", true),
    ("SubagentStop", true),
    ("SessionEnd", true),
];

/// Codex skips hooks that ask to run beside it.
const CODEX: [(&str, bool); 7] = [
    ("UserPromptSubmit", false),
    ("PreToolUse", false),
    ("PermissionRequest", false),
    ("PostToolUse", false),
    ("SubagentStart", false),
    ("SubagentStop", false),
    ("Stop", false),
];

/// Lets the agent report. What cannot be done is a warning: without reports there are still the screen and the processes.
pub fn install(agent: &str, home: &Path, runtime: &Path) -> io::Result<Vec<String>> {
    let moved = |variable: &str, usual: &str| var(variable).map_or_else(|| home.join(usual), PathBuf::from);
    let warning = match agent {
        "claude" => hooks(agent, &moved("CLAUDE_CONFIG_DIR", ".claude").join("settings.json"), &runtime.join(HOOK), &CLAUDE)?,
        "codex" => hooks(agent, &moved("CODEX_HOME", ".codex").join("hooks.json"), &runtime.join(HOOK), &CODEX)?,
        "opencode" => plugin(&runtime.join(OPENCODE), &home.join(".config/opencode/plugins/jackin-status.js"))?,
        "amp" => plugin(&runtime.join(AMP), &home.join(".config/amp/plugins/jackin-status.ts"))?,
        _ => None,
    };
    Ok(warning.into_iter().collect())
}

fn plugin(from: &Path, to: &Path) -> io::Result<Option<String>> {
    let Ok(ours) = fs::read(from) else {
        return Ok(Some(missing(from)));
    };
    match fs::read(to) {
        Ok(there) if there == ours => Ok(None),
        Ok(there) if !String::from_utf8_lossy(&there).contains(MARK) => {
            Ok(Some(format!("{} is not jackin's; it was left alone and the agent reports nothing", to.display())))
        }
        _ => write(to, &ours, 0o644).map(|()| None),
    }
}

fn missing(file: &Path) -> String {
    format!("{} is not there; the agent reports nothing", file.display())
}

/// Claude and Codex have the same form: `{"hooks": {"Stop": [{"hooks": [{"type": "command", ..}]}]}}`.
fn hooks(agent: &str, settings: &Path, script: &Path, events: &[(&str, bool)]) -> io::Result<Option<String>> {
    if !script.exists() {
        return Ok(Some(missing(script)));
    }
    let text = match fs::read_to_string(settings) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(named(settings, error)),
    };
    let merged = if text.trim().is_empty() { Ok(Value::Object(Map::new())) } else { serde_json::from_str(&text) };
    let merged = merged.map_err(|error| error.to_string()).and_then(|mut root| {
        let before = root.clone();
        merge(agent, &mut root, script, events)?;
        Ok((root != before).then_some(root))
    });
    match merged {
        Ok(None) => Ok(None),
        Ok(Some(root)) => {
            let mut text = serde_json::to_string_pretty(&root)?;
            text.push('\n');
            write(settings, text.as_bytes(), 0o600).map(|()| None)
        }
        Err(why) => Ok(Some(format!("{}: {why}; it was left alone and the agent reports nothing", settings.display()))),
    }
}

/// Adds ours to each event and takes away what an older jackin left. Whatever else is there stays as it is.
fn merge(agent: &str, root: &mut Value, script: &Path, events: &[(&str, bool)]) -> Result<(), String> {
    let root = root.as_object_mut().ok_or("it is no JSON object")?;
    let hooks = root.entry("hooks").or_insert_with(|| json!({})).as_object_mut().ok_or("`hooks` is no object")?;
    if let Some((event, _)) = events.iter().find(|(event, _)| hooks.get(*event).is_some_and(|groups| !groups.is_array())) {
        return Err(format!("`hooks.{event}` is no list"));
    }
    for (event, beside) in events {
        let mut ours = json!({"type": "command", "command": format!("{} {agent} {event}", quoted(script)), "timeout": TIMEOUT});
        if *beside {
            ours["async"] = json!(true);
        }
        let Some(groups) = hooks.entry(*event).or_insert_with(|| json!([])).as_array_mut() else {
            continue;
        };
        let mut there = false;
        groups.retain_mut(|group| {
            let Some(list) = group.get_mut("hooks").and_then(Value::as_array_mut) else {
                return true;
            };
            let before = list.len();
            list.retain(|hook| {
                let is_ours = hook.get("command").and_then(Value::as_str).is_some_and(|command| command.contains(HOOK));
                let keep = !is_ours || (*hook == ours && !there);
                there |= is_ours && keep;
                keep
            });
            // Those that were empty before are not ours.
            !list.is_empty() || before == 0
        });
        if !there {
            groups.push(json!({"hooks": [ours]}));
        }
    }
    Ok(())
}

/// For a shell.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/-_.+".contains(letter);
    if text.chars().all(plain) { text.into_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// Through a link to the file that it means, which keeps its mode.
fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mode = fs::metadata(&path).map_or(mode, |meta| meta.permissions().mode() & 0o777);
    file::write(&path, bytes, mode)
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// What `report-event` sends, from its environment; nothing outside a session. The payload is read to its end so that the
/// agent can write it, and forgotten but for a word or two.
pub fn runtime_event(event: &str, payload: Option<&mut dyn Read>) -> Option<RuntimeEvent> {
    // First of all, because hooks that run side by side are put in order by it.
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let sequence = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
    event_from(var, event, sequence, payload)
}

fn event_from(var: impl Fn(&str) -> Option<String>, event: &str, sequence: u64, payload: Option<&mut dyn Read>) -> Option<RuntimeEvent> {
    let payload = payload.map_or_else(Hints::default, read_hints);
    let session_id = var("JACKIN_SESSION_ID")?.parse().ok()?;
    let runtime = var("JACKIN_AGENT_RUNTIME")?;
    let source_id = var("JACKIN_STATUS_SOURCE").unwrap_or_else(|| format!("hook-{runtime}-{session_id}"));
    Some(RuntimeEvent { session_id, source_id, runtime, event: event.to_owned(), payload, sequence: Some(sequence) })
}

fn read_hints(payload: &mut dyn Read) -> Hints {
    let mut bytes = Vec::new();
    // A payload that breaks off has no hints.
    let read = payload.take(MAX_PAYLOAD as u64 + 1).read_to_end(&mut bytes);
    let _ = io::copy(payload, &mut io::sink());
    read.map_or_else(|_| Hints::default(), |_| Hints::read(&bytes))
}

/// The folders of `status` packs, later ones win: what came with the image, then the operator's.
pub fn pack_dirs(runtime: &Path) -> Vec<PathBuf> {
    let own = var("JACKIN_STATUS_PACK_DIR").map(PathBuf::from);
    let own = own.or_else(|| Some(PathBuf::from(var("HOME")?).join(".jackin/agent-status/packs")));
    [Some(runtime.join("agent-status/packs")), own].into_iter().flatten().collect()
}

/// A pack that cannot be used is a warning, and the one before it stays.
pub fn load_packs(dirs: &[PathBuf]) -> (Packs, Vec<String>) {
    let (packs, mut warnings) = (Packs::embedded(), Vec::new());
    for dir in dirs {
        let Ok(entries) = fs::read_dir(dir) else {
            continue;
        };
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
        files.sort();
        if files.len() > MAX_PACK_FILES {
            warnings.push(format!("{} has {} packs; the first {MAX_PACK_FILES} are read", dir.display(), files.len()));
            files.truncate(MAX_PACK_FILES);
        }
        for file in files {
            let origin = file.display().to_string();
            match file::read(&file, MAX_PACK as u64 + 1) {
                Err(error) => warnings.push(format!("{origin}: {error}")),
                Ok(text) => warnings.extend(packs.add(&origin, text).err().map(|error| error.to_string())),
            }
        }
    }
    (packs, warnings)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct World {
        dir: tempfile::TempDir,
    }

    /// The runtime folder as it is in the image.
    fn world() -> World {
        let world = World { dir: tempfile::tempdir().unwrap() };
        for file in [HOOK, OPENCODE, AMP] {
            let to = world.path("runtime").join(file);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("runtime").join(file), to).unwrap();
        }
        world
    }

    impl World {
        fn path(&self, path: &str) -> PathBuf {
            self.dir.path().join(path)
        }

        fn install(&self, agent: &str) -> Vec<String> {
            install(agent, &self.path("home"), &self.path("runtime")).unwrap()
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn read(&self, path: &str) -> String {
            fs::read_to_string(self.path(path)).unwrap()
        }

        fn json(&self, path: &str) -> Value {
            serde_json::from_str(&self.read(path)).unwrap()
        }
    }

    #[test]
    fn hooks_are_added_once() {
        for (agent, file, events) in
            [("claude", "home/.claude/settings.json", &CLAUDE[..]), ("codex", "home/.codex/hooks.json", &CODEX[..])]
        {
            let world = world();
            assert_eq!(world.install(agent), [""; 0]);
            let first = world.read(file);
            let json = world.json(file);
            assert_eq!(json["hooks"].as_object().unwrap().len(), events.len());
            for (event, beside) in events {
                let hook = &json["hooks"][event][0]["hooks"][0];
                assert!(hook["command"].as_str().unwrap().ends_with(&format!("report-hook.sh {agent} {event}")), "{hook}");
                assert_eq!(hook.get("async").is_some(), *beside, "{event}");
            }
            assert_eq!(fs::metadata(world.path(file)).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(world.install(agent), [""; 0]);
            assert_eq!(world.read(file), first);
        }
    }

    #[test]
    fn what_is_there_stays() {
        let world = world();
        let theirs = r#"{"model": "opus", "hooks": {"Stop": [{"matcher": "", "hooks": [{"type": "command", "command": "beep"}]}], "PreCompact": 7}}"#;
        world.write("home/.claude/settings.json", theirs);
        assert_eq!(world.install("claude"), [""; 0]);
        let json = world.json("home/.claude/settings.json");
        assert_eq!((&json["model"], &json["hooks"]["PreCompact"]), (&json!("opus"), &json!(7)));
        assert_eq!(json["hooks"]["Stop"][0], json!({"matcher": "", "hooks": [{"type": "command", "command": "beep"}]}));
        assert_eq!(json["hooks"]["Stop"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn hooks_of_an_older_jackin_are_replaced() {
        let world = world();
        let old = format!("/elsewhere/{HOOK} claude Stop");
        let text = json!({"hooks": {"Stop": [{"hooks": [{"type": "command", "command": old}, {"type": "command", "command": "beep"}]}]}});
        world.write("home/.claude/settings.json", &text.to_string());
        world.install("claude");
        let stop = &world.json("home/.claude/settings.json")["hooks"]["Stop"];
        assert_eq!(stop[0]["hooks"], json!([{"type": "command", "command": "beep"}]));
        assert_eq!(stop.as_array().unwrap().len(), 2);
        assert!(!stop.to_string().contains("elsewhere"));
    }

    #[test]
    fn what_is_not_understood_is_left_alone() {
        for (text, why) in [
            ("// comment\n{}", "expected value"),
            ("[]", "it is no JSON object"),
            (r#"{"hooks": []}"#, "`hooks` is no object"),
            (r#"{"hooks": {"Stop": {}}}"#, "`hooks.Stop` is no list"),
        ] {
            let world = world();
            world.write("home/.claude/settings.json", text);
            let warnings = world.install("claude");
            assert!(warnings.len() == 1 && warnings[0].contains(why) && warnings[0].contains("settings.json"), "{warnings:?}");
            assert_eq!(world.read("home/.claude/settings.json"), text);
        }
    }

    #[test]
    fn links_and_modes_are_kept() {
        let world = world();
        world.write("home/dotfiles/settings.json", "{}");
        fs::set_permissions(world.path("home/dotfiles/settings.json"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::create_dir_all(world.path("home/.claude")).unwrap();
        std::os::unix::fs::symlink("../dotfiles/settings.json", world.path("home/.claude/settings.json")).unwrap();
        world.install("claude");
        assert!(fs::symlink_metadata(world.path("home/.claude/settings.json")).unwrap().is_symlink());
        assert!(world.read("home/dotfiles/settings.json").contains("Notification"));
        assert_eq!(fs::metadata(world.path("home/dotfiles/settings.json")).unwrap().permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn plugins_are_ours_to_replace_and_others_are_not() {
        for (agent, file) in
            [("opencode", "home/.config/opencode/plugins/jackin-status.js"), ("amp", "home/.config/amp/plugins/jackin-status.ts")]
        {
            let world = world();
            assert_eq!(world.install(agent), [""; 0]);
            let ours = world.read(file);
            assert!(ours.contains(MARK));
            world.write(file, &format!("// {MARK} of an older version"));
            assert_eq!(world.install(agent), [""; 0]);
            assert_eq!(world.read(file), ours);
            world.write(file, "// somebody's");
            assert!(world.install(agent)[0].contains("is not jackin's"));
            assert_eq!(world.read(file), "// somebody's");
        }
    }

    #[test]
    fn without_the_runtime_files_nothing_is_registered() {
        let world = World { dir: tempfile::tempdir().unwrap() };
        for agent in ["claude", "codex", "opencode", "amp"] {
            let warnings = world.install(agent);
            assert!(warnings.len() == 1 && warnings[0].contains("is not there"), "{warnings:?}");
        }
        assert!(!world.path("home").exists());
        for agent in ["kimi", "grok", "other"] {
            assert_eq!(world.install(agent), [""; 0]);
        }
    }

    #[test]
    fn a_strange_path_survives_the_shell() {
        assert_eq!(quoted(Path::new("/jackin/runtime/x.sh")), "/jackin/runtime/x.sh");
        assert_eq!(quoted(Path::new("/it's here/x.sh")), r"'/it'\''s here/x.sh'");
    }

    #[test]
    fn packs_from_folders() {
        let world = world();
        let pack = |version: &str| format!("schema_version = 1\nagent = \"claude\"\nvalidated_versions = \"{version}\"\n");
        world.write("one/claude.toml", &pack("1"));
        world.write("one/readme.md", "not a pack");
        world.write("two/a.toml", "agent = 1");
        world.write("two/b.toml", &"#".repeat(MAX_PACK + 1));
        let (packs, warnings) = load_packs(&[world.path("none"), world.path("one"), world.path("two")]);
        assert!(packs.get("claude").unwrap().origin.ends_with("one/claude.toml"));
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].contains("two/a.toml: `schema_version` is missing"), "{warnings:?}");
        assert!(warnings[1].contains("two/b.toml: has 65537 bytes"), "{warnings:?}");
        // A mux that waited here would be the last.
        assert!(std::process::Command::new("mkfifo").arg(world.path("two/c.toml")).status().unwrap().success());
        let (_, warnings) = load_packs(&[world.path("two")]);
        assert!(warnings[2].contains("two/c.toml: it is not a regular file"), "{warnings:?}");
        fs::remove_file(world.path("two/c.toml")).unwrap();
        world.write("two/c.toml", &pack("2"));
        let (packs, _) = load_packs(&[world.path("one"), world.path("two")]);
        assert_eq!(packs.get("claude").unwrap().validated_versions, "2");
    }

    #[test]
    fn an_event_from_the_environment() {
        let event = |env: &'static [(&str, &str)]| {
            event_from(|key| env.iter().find(|(name, _)| *name == key).map(|(_, value)| (*value).to_owned()), "Stop", 9, None)
        };
        let found = event(&[("JACKIN_SESSION_ID", "3"), ("JACKIN_AGENT_RUNTIME", "claude")]).unwrap();
        assert_eq!((found.session_id, found.source_id.as_str(), found.sequence), (3, "hook-claude-3", Some(9)));
        let found = event(&[("JACKIN_SESSION_ID", "3"), ("JACKIN_AGENT_RUNTIME", "amp"), ("JACKIN_STATUS_SOURCE", "wrapper-3")]).unwrap();
        assert_eq!(found.source_id, "wrapper-3");
        assert_eq!(event(&[("JACKIN_AGENT_RUNTIME", "claude")]), None);
        assert_eq!(event(&[("JACKIN_SESSION_ID", "3")]), None);
        assert_eq!(event(&[("JACKIN_SESSION_ID", "three"), ("JACKIN_AGENT_RUNTIME", "claude")]), None);
    }

    #[test]
    fn a_payload_is_read_to_its_end() {
        let mut payload = io::Cursor::new(br#"{"notification_type": "idle_prompt", "message": "secret"}"#.to_vec());
        assert_eq!(read_hints(&mut payload).notification_type.as_deref(), Some("idle_prompt"));
        let long = vec![b' '; 3 * MAX_PAYLOAD];
        let mut payload = io::Cursor::new(long.clone());
        assert_eq!(read_hints(&mut payload), Hints::default());
        assert_eq!(payload.position(), long.len() as u64);
    }

    proptest! {
        /// Of any settings everything that is not ours stays, and a second time changes nothing.
        #[test]
        fn merging_loses_nothing(theirs in prop::collection::vec((0..CLAUDE.len(), "[a-z]{0,8}"), 0..20)) {
            let mut root = json!({"other": true});
            for (event, command) in &theirs {
                let groups = &mut root["hooks"][CLAUDE[*event].0];
                if groups.is_null() {
                    *groups = json!([]);
                }
                groups.as_array_mut().unwrap().push(json!({"hooks": [{"type": "command", "command": command}]}));
            }
            let before = root.clone();
            merge("claude", &mut root, Path::new("/r/agent-status/hooks/report-hook.sh"), &CLAUDE).unwrap();
            let once = root.clone();
            merge("claude", &mut root, Path::new("/r/agent-status/hooks/report-hook.sh"), &CLAUDE).unwrap();
            prop_assert_eq!(&root, &once);
            for (event, _) in CLAUDE {
                let groups = root["hooks"][event].as_array_mut().unwrap();
                prop_assert!(groups.pop().unwrap().to_string().contains("report-hook.sh"));
                prop_assert_eq!(Value::from(groups.clone()), before["hooks"].get(event).cloned().unwrap_or(json!([])));
            }
        }
    }
}
