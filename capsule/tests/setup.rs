//! `runtime-setup` as the entrypoint calls it: the real program and the real git, in homes that are thrown away, with agents and a `gh`
//! that only pretend.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use common::{BINARY, write_script};
use serde_json::{Value, json};

/// In every credential and key; must be seen nowhere but where credentials belong.
const CANARY: &str = "sk-canary-do-not-show";

const AGENTS: [&str; 6] = ["claude", "codex", "amp", "kimi", "opencode", "grok"];

/// An agent's hand-off below `/jackin` and its place below the home.
fn credential(agent: &str) -> (&'static str, &'static str) {
    match agent {
        "claude" => ("claude/credentials.json", ".claude/.credentials.json"),
        "codex" => ("codex/auth.json", ".codex/auth.json"),
        "amp" => ("amp/secrets.json", ".local/share/amp/secrets.json"),
        "kimi" => ("kimi-code/credentials/token.json", ".kimi-code/credentials/token.json"),
        "opencode" => ("opencode/auth.json", ".local/share/opencode/auth.json"),
        _ => ("grok/auth.json", ".grok/auth.json"),
    }
}

struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self { dir: tempfile::tempdir().unwrap() };
        for name in ["home", "bin", "run", "work"] {
            fs::create_dir(world.path(name)).unwrap();
        }
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path(path)).ok()
    }

    fn json(&self, path: &str) -> Value {
        let text = self.read(path).unwrap_or_else(|| panic!("{path} is not there"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
    }

    fn make_older(&self, path: &str) {
        let file = fs::File::options().write(true).open(self.path(path)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
    }

    fn program(&self, name: &str, body: &str) {
        write_script(&self.path("bin").join(name), body);
    }

    /// Nothing of the machine's own environment but the programs.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>, env: &[(&str, &str)]) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", self.path("bin").display()))
            .env("HOME", self.path("home"))
            .env("JACKIN_ROOT", self.path("jackin"))
            .env("JACKIN_STATE_DIR", self.path("state"))
            .env("JACKIN_RUN_DIR", self.path("run"))
            .env("JACKIN_RUNTIME_DIR", concat!(env!("CARGO_MANIFEST_DIR"), "/runtime"))
            .env("JACKIN_MOUNTINFO", self.path("mountinfo"))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .current_dir(self.path("work"))
            .stdin(Stdio::null())
            .envs(env.iter().copied());
        command
    }

    fn setup(&self, env: &[(&str, &str)]) -> (i32, String) {
        text(&self.command(BINARY, env).arg("runtime-setup").output().unwrap())
    }

    /// What was said.
    fn prepare(&self, agent: &str, mode: &str, env: &[(&str, &str)]) -> String {
        let (code, said) = self.setup(&[&[("JACKIN_AGENT", agent), ("JACKIN_AUTH_MODE", mode)], env].concat());
        assert_eq!(code, 0, "{said}");
        said
    }

    fn launch_config(&self, more: &str) {
        let agents = AGENTS.map(|agent| format!("{agent} = \"sync\"")).join("\n");
        let workdir = self.path("work");
        self.write(
            "run/agent.toml",
            &format!("role = \"r\"\nworkdir = \"{}\"\nagents = {AGENTS:?}\n[auth_modes]\n{agents}\n{more}", workdir.display()),
        );
    }

    /// Every file with its identity and content.
    fn snapshot(&self) -> BTreeMap<PathBuf, (u64, i64, i64, Vec<u8>)> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.path("home"), self.path("state")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                let meta = fs::symlink_metadata(&path).unwrap();
                if meta.is_dir() {
                    folders.push(path);
                } else {
                    let content = if meta.is_symlink() { Vec::new() } else { fs::read(&path).unwrap() };
                    found.insert(path, (meta.ino(), meta.mtime(), meta.mtime_nsec(), content));
                }
            }
        }
        found
    }

    /// No process knows this world any more.
    fn is_quiet(&self) -> bool {
        let here = self.dir.path().to_str().unwrap().as_bytes();
        let knows = |environment: Vec<u8>| environment.windows(here.len()).any(|window| window == here);
        fs::read_dir("/proc").unwrap().all(|entry| !fs::read(entry.unwrap().path().join("environ")).is_ok_and(knows))
    }

    fn files(&self) -> usize {
        let all = Command::new("find").args([self.path("home"), self.path("state")]).args(["!", "-type", "d"]).output().unwrap();
        all.stdout.iter().filter(|byte| **byte == b'\n').count()
    }

    /// Every file's content, comparable with that of another world.
    fn contents(&self) -> BTreeMap<PathBuf, String> {
        let here = self.dir.path().to_str().unwrap();
        let relative = |path: &Path| path.strip_prefix(here).unwrap().to_owned();
        self.snapshot().into_iter().map(|(path, found)| (relative(&path), String::from_utf8(found.3).unwrap().replace(here, ""))).collect()
    }

    fn everything_on(&self) {
        self.launch_config("[provider_models.codex]\nminimax = \"MiniMax-X\"\n");
        for agent in AGENTS {
            self.write(&format!("jackin/{}", credential(agent).0), CANARY);
        }
        self.write("jackin/claude/account.json", &json!({ "userID": CANARY }).to_string());
        self.write("jackin/kimi-code/config.toml", "x = 1");
        self.write("jackin/default-home/.codex/skills/a.md", "skill");
        self.write("jackin/default-home/.grok/bin/grok", "program");
        for guard in ["tirith", "shellfirm"] {
            self.program(guard, "exit 0");
        }
        self.program("gh", &format!("echo {CANARY}; echo {CANARY} >&2"));
        self.program("codex", r#"echo '{"models":[{"slug":"gpt"}]}'"#);
    }
}

const EVERYTHING: [(&str, &str); 15] = [
    ("GIT_AUTHOR_NAME", "Ada L"),
    ("GIT_AUTHOR_EMAIL", "ada@example.org"),
    ("JACKIN_GIT_COAUTHOR_TRAILER", "1"),
    ("JACKIN_GIT_DCO", "1"),
    ("ANTHROPIC_API_KEY", CANARY),
    ("OPENAI_API_KEY", CANARY),
    ("ZAI_API_KEY", CANARY),
    ("MINIMAX_API_KEY", CANARY),
    ("KIMI_CODE_API_KEY", CANARY),
    ("GH_TOKEN", CANARY),
    ("CLAUDE_CODE_OAUTH_TOKEN", CANARY),
    ("XAI_API_KEY", CANARY),
    ("AMP_API_KEY", CANARY),
    ("KIMI_API_KEY", CANARY),
    ("OPENCODE_API_KEY", CANARY),
];

fn text(output: &Output) -> (i32, String) {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8(text).unwrap())
}

fn modes(agent: &str) -> &'static [&'static str] {
    if agent == "claude" { &["sync", "api_key", "ignore", "oauth_token"] } else { &["sync", "api_key", "ignore"] }
}

// ---- Docker ----

#[test]
fn an_agent_waits_for_the_private_docker_and_a_shell_does_not() {
    let world = World::new();
    let certificates = world.path("certs");
    let private = [("JACKIN_DIND_HOSTNAME", "jk-dind"), ("DOCKER_CERT_PATH", certificates.to_str().unwrap())];
    let agent = [&private[..], &[("JACKIN_AGENT", "amp")]].concat();
    let asked = world.path("asked");
    world.program("docker", &format!("echo \"$@\" >>{}", asked.display()));
    assert_eq!(world.setup(&[("JACKIN_AGENT", "amp")]).0, 0);
    assert_eq!(world.setup(&private).0, 0);
    assert!(!asked.exists());

    let child = world.command(BINARY, &agent).arg("runtime-setup").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert!(!asked.exists(), "its certificates are not there yet");
    ["ca.pem", "cert.pem", "key.pem"].iter().for_each(|name| world.write(&format!("certs/{name}"), ""));
    let (code, said) = text(&child.wait_with_output().unwrap());
    assert_eq!((code, fs::read_to_string(asked).unwrap().as_str()), (0, "version\n"), "{said}");
}

#[test]
fn an_image_without_the_docker_command_waits_for_nothing() {
    let world = World::new();
    let git_only = world.path("git-only");
    fs::create_dir(&git_only).unwrap();
    symlink("/usr/bin/git", git_only.join("git")).unwrap();
    let env = [("JACKIN_AGENT", "amp"), ("JACKIN_DIND_HOSTNAME", "jk-dind"), ("DOCKER_CERT_PATH", "/nowhere")];
    let (code, said) = world.setup(&[&env[..], &[("PATH", git_only.to_str().unwrap())]].concat());
    assert_eq!(code, 0, "{said}");
}

// ---- homes and credentials ----

#[test]
fn each_mode_of_each_agent() {
    for agent in AGENTS {
        let (from, to) = credential(agent);
        let to = format!("home/{to}");
        for mode in modes(agent) {
            let case = format!("{agent} {mode}");
            let world = World::new();
            world.write(&format!("jackin/{from}"), "from the host");
            world.write(&to, "old");
            world.make_older(&to);
            let beside = format!("{to}.history");
            let beside = if agent == "kimi" { "home/.kimi-code/history".to_owned() } else { beside };
            world.write(&beside, "kept");
            world.prepare(agent, mode, &[]);
            let expected = (*mode == "sync").then_some("from the host");
            assert_eq!(world.read(&to).as_deref(), expected, "{case}");
            if *mode == "sync" {
                assert_eq!(fs::metadata(world.path(&to)).unwrap().mode() & 0o777, 0o600, "{case}");
            }
            assert_eq!(world.read(&beside).as_deref(), Some("kept"), "{case}");
        }
    }
}

#[test]
fn what_is_missing_is_said() {
    let keys = [
        ("claude", "ANTHROPIC_API_KEY"),
        ("codex", "OPENAI_API_KEY"),
        ("amp", "AMP_API_KEY"),
        ("kimi", "KIMI_API_KEY"),
        ("opencode", "OPENCODE_API_KEY"),
        ("grok", "XAI_API_KEY"),
    ];
    for (agent, key) in keys {
        let world = World::new();
        let said = world.prepare(agent, "api_key", &[]);
        assert!(said.contains(&format!("{key} is not set")), "{said}");
        assert_eq!(world.prepare(agent, "api_key", &[(key, CANARY)]), "");
        assert_eq!(world.prepare(agent, "ignore", &[]), "");
        assert!(world.prepare(agent, "sync", &[]).contains("no login"));
        world.write(&format!("jackin/{}", credential(agent).0), "x");
        assert_eq!(world.prepare(agent, "sync", &[]), "");
    }
    let world = World::new();
    assert!(world.prepare("claude", "oauth_token", &[]).contains("CLAUDE_CODE_OAUTH_TOKEN is not set"));
    assert_eq!(world.prepare("claude", "oauth_token", &[("CLAUDE_CODE_OAUTH_TOKEN", CANARY)]), "");
}

#[test]
fn trap_the_kimi_agent_wants_the_key_that_the_host_demands() {
    let said = World::new().prepare("kimi", "api_key", &[("KIMI_CODE_API_KEY", CANARY)]);
    assert!(said.contains("KIMI_API_KEY is not set"), "{said}");
}

#[test]
fn trap_a_file_written_first_does_not_keep_the_home_from_being_seeded() {
    for (agent, own, other) in [
        ("codex", ".codex/config.toml", ".codex/skills/a.md"),
        ("opencode", ".config/opencode/opencode.json", ".config/opencode/themes/b.json"),
    ] {
        let world = World::new();
        world.write(&format!("jackin/default-home/{other}"), "from the image");
        world.write(&format!("home/{own}"), "");
        world.prepare(agent, "ignore", &[]);
        assert_eq!(world.read(&format!("home/{other}")).as_deref(), Some("from the image"));
        fs::remove_file(world.path(&format!("home/{other}"))).unwrap();
        world.prepare(agent, "ignore", &[]);
        assert_eq!(world.read(&format!("home/{other}")), None, "what the agent removed stays removed");
    }
}

#[test]
fn the_image_seeds_no_credential() {
    for agent in AGENTS {
        let world = World::new();
        let (_, to) = credential(agent);
        world.write(&format!("jackin/default-home/{to}"), "baked in");
        let beside = if agent == "kimi" { ".kimi-code/x".to_owned() } else { format!("{to}.x") };
        world.write(&format!("jackin/default-home/{beside}"), "seed");
        let said = world.prepare(agent, "sync", &[]);
        assert_eq!(world.read(&format!("home/{to}")), None, "{agent}");
        assert_eq!(world.read(&format!("home/{beside}")).as_deref(), Some("seed"), "{agent}");
        assert!(said.contains("no login"), "{said}");
    }
}

#[test]
fn links_and_modes_are_seeded_as_they_are() {
    let world = World::new();
    world.write("jackin/default-home/.claude/tools/run", "#!/bin/sh");
    write_script(&world.path("jackin/default-home/.claude/tools/run"), "true");
    symlink("run", world.path("jackin/default-home/.claude/tools/link")).unwrap();
    world.prepare("claude", "ignore", &[]);
    assert_eq!(fs::metadata(world.path("home/.claude/tools/run")).unwrap().mode() & 0o777, 0o755);
    assert_eq!(fs::read_link(world.path("home/.claude/tools/link")).unwrap(), Path::new("run"));
}

#[test]
fn trap_a_renewed_credential_reaches_an_existing_home_and_an_older_one_does_not() {
    let world = World::new();
    world.write("jackin/codex/auth.json", "one");
    world.prepare("codex", "sync", &[]);
    assert_eq!(world.read("home/.codex/auth.json").as_deref(), Some("one"));
    world.make_older("home/.codex/auth.json");
    world.write("jackin/codex/auth.json", "two");
    world.prepare("codex", "sync", &[]);
    assert_eq!(world.read("home/.codex/auth.json").as_deref(), Some("two"));
    world.write("home/.codex/auth.json", "renewed by the agent");
    world.make_older("jackin/codex/auth.json");
    world.prepare("codex", "sync", &[]);
    assert_eq!(world.read("home/.codex/auth.json").as_deref(), Some("renewed by the agent"));
}

#[test]
fn trap_kimi_without_sync_loses_its_credentials_and_nothing_else() {
    for mode in ["api_key", "ignore"] {
        let world = World::new();
        let all = ["config.toml", "device_id", "credentials/a/token", "bin/kimi", "history"];
        for path in all {
            world.write(&format!("home/.kimi-code/{path}"), "x");
        }
        let folder = fs::metadata(world.path("home/.kimi-code/credentials")).unwrap().ino();
        world.prepare("kimi", mode, &[]);
        let same = fs::metadata(world.path("home/.kimi-code/credentials")).unwrap();
        assert_eq!((same.ino(), fs::read_dir(world.path("home/.kimi-code/credentials")).unwrap().count()), (folder, 0));
        for path in all.into_iter().filter(|path| !path.starts_with("credentials")) {
            assert!(world.read(&format!("home/.kimi-code/{path}")).is_some(), "{path}");
        }
    }
}

#[test]
fn trap_an_oauth_token_keeps_the_onboarding_file() {
    let world = World::new();
    world.write("jackin/claude/account.json", "{\"hasCompletedOnboarding\":true}");
    world.write("home/.claude/.credentials.json", "old login");
    world.prepare("claude", "oauth_token", &[]);
    assert_eq!(world.read("home/.claude/.credentials.json"), None);
    assert_eq!(world.json("home/.claude.json")["hasCompletedOnboarding"], true);
}

#[test]
fn a_newer_account_brings_the_login_and_leaves_what_claude_wrote() {
    let world = World::new();
    world.write("jackin/claude/account.json", "{\"userID\":\"one\",\"tips\":1}");
    world.prepare("claude", "sync", &[]);
    assert_eq!(world.json("home/.claude.json"), json!({ "userID": "one", "tips": 1 }));
    world.write("home/.claude.json", "{\"userID\":\"one\",\"projects\":{}}");
    world.make_older("home/.claude.json");
    world.write("jackin/claude/account.json", "{\"userID\":\"two\",\"tips\":2}");
    world.prepare("claude", "sync", &[]);
    assert_eq!(world.json("home/.claude.json"), json!({ "userID": "two", "projects": {} }));
    // One that the image brings is younger than the host's hand-off may be, and knows nobody.
    world.write("home/.claude.json", "{\"installMethod\":\"native\"}");
    world.make_older("jackin/claude/account.json");
    world.prepare("claude", "sync", &[]);
    assert_eq!(world.json("home/.claude.json"), json!({ "userID": "two", "installMethod": "native" }));
    world.write("home/.claude.json", "{\"userID\":\"logged in here\"}");
    world.prepare("claude", "sync", &[]);
    assert_eq!(world.json("home/.claude.json"), json!({ "userID": "logged in here" }));
}

#[test]
fn an_account_that_is_not_handed_over_or_linked_stays() {
    let world = World::new();
    world.write("home/.claude.json", "{\"userID\":\"mine\"}");
    world.prepare("claude", "sync", &[]);
    assert_eq!(world.json("home/.claude.json"), json!({ "userID": "mine" }));
    fs::rename(world.path("home/.claude.json"), world.path("home/dotfile")).unwrap();
    symlink("dotfile", world.path("home/.claude.json")).unwrap();
    world.make_older("home/dotfile");
    world.write("jackin/claude/account.json", "{\"userID\":\"host\"}");
    world.prepare("claude", "sync", &[]);
    assert!(fs::symlink_metadata(world.path("home/.claude.json")).unwrap().is_symlink());
    assert_eq!(world.json("home/dotfile"), json!({ "userID": "host" }));
}

#[test]
fn trap_an_upgraded_image_brings_its_program() {
    for (agent, path) in [("grok", ".grok/bin/grok"), ("kimi", ".kimi-code/bin/kimi")] {
        let world = World::new();
        world.write(&format!("jackin/default-home/{path}"), "v1");
        world.prepare(agent, "ignore", &[]);
        world.write(&format!("jackin/default-home/{path}"), "version 2");
        world.prepare(agent, "ignore", &[]);
        assert_eq!(world.read(&format!("home/{path}")).as_deref(), Some("version 2"));
    }
}

#[test]
fn agents_that_keep_their_files_elsewhere_find_them_there() {
    for (agent, variable, path) in [
        ("claude", "CLAUDE_CONFIG_DIR", ".credentials.json"),
        ("codex", "CODEX_HOME", "auth.json"),
        ("amp", "XDG_DATA_HOME", "amp/secrets.json"),
        ("opencode", "XDG_DATA_HOME", "opencode/auth.json"),
    ] {
        let world = World::new();
        world.write(&format!("jackin/{}", credential(agent).0), "x");
        world.write("jackin/claude/account.json", "{}");
        let elsewhere = world.path("elsewhere");
        world.prepare(agent, "sync", &[(variable, elsewhere.to_str().unwrap())]);
        assert_eq!(fs::read_to_string(elsewhere.join(path)).unwrap(), "x", "{agent}");
        assert_eq!(world.read(&format!("home/{}", credential(agent).1)), None);
        assert_eq!(elsewhere.join(".claude.json").exists(), agent == "claude");
    }
}

#[test]
fn a_failure_is_one_clear_line_and_names_the_place() {
    let world = World::new();
    world.write("jackin/amp/secrets.json", CANARY);
    world.write("elsewhere", "untouched");
    fs::create_dir_all(world.path("home/.local/share/amp")).unwrap();
    symlink(world.path("elsewhere"), world.path("home/.local/share/amp/secrets.json")).unwrap();
    let (code, said) = world.setup(&[("JACKIN_AGENT", "amp"), ("JACKIN_AUTH_MODE", "sync")]);
    assert_eq!(code, 1);
    assert!(said.contains("amp is not started") && said.contains("secrets.json is a symbolic link"), "{said}");
    assert_eq!((said.lines().count(), said.contains(CANARY)), (1, false), "{said}");
    assert_eq!(world.read("elsewhere").as_deref(), Some("untouched"));

    world.write("home/.grok", "a file where the home should be");
    world.write("jackin/grok/auth.json", "x");
    let (code, said) = world.setup(&[("JACKIN_AGENT", "grok"), ("JACKIN_AUTH_MODE", "sync")]);
    assert_eq!((code, said.lines().count()), (1, 1), "{said}");
    assert!(said.contains(".grok"), "{said}");

    let (code, said) = world.setup(&[("JACKIN_AGENT", "claude"), ("JACKIN_AUTH_MODE", "hope")]);
    assert!(code == 1 && said.contains("\"hope\""), "{said}");
}

#[test]
fn twice_changes_nothing() {
    for agent in AGENTS {
        for mode in modes(agent) {
            let world = World::new();
            world.everything_on();
            world.prepare(agent, mode, &EVERYTHING);
            let first = world.snapshot();
            assert_eq!(world.prepare(agent, mode, &EVERYTHING), "", "{agent} {mode}");
            assert_eq!(world.snapshot(), first, "{agent} {mode}");
        }
    }
}

#[test]
fn panes_that_start_together_do_not_disturb_each_other() {
    let world = World::new();
    world.everything_on();
    let children: Vec<_> = (0..18)
        .map(|i| {
            let env = [&EVERYTHING[..], &[("JACKIN_AGENT", AGENTS[i % 6]), ("JACKIN_AUTH_MODE", "sync")]].concat();
            world.command(BINARY, &env).arg("runtime-setup").stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in children {
        let (code, said) = text(&child.wait_with_output().unwrap());
        assert_eq!(code, 0, "{said}");
        assert!(said.lines().all(|line| line.contains("another session is being prepared")), "{said}");
    }
    let alone = World::new();
    alone.everything_on();
    for agent in AGENTS {
        alone.prepare(agent, "sync", &EVERYTHING);
    }
    assert_eq!(world.contents(), alone.contents());
}

#[test]
fn killed_at_any_point_the_next_run_makes_it_whole() {
    let env = |agent| [&EVERYTHING[..], &[("JACKIN_AGENT", agent), ("JACKIN_AUTH_MODE", "sync")]].concat();
    for agent in ["claude", "codex", "kimi"] {
        let whole = World::new();
        whole.everything_on();
        whole.prepare(agent, "sync", &EVERYTHING);
        let files = whole.snapshot().len();
        for n in (0..files).step_by(3) {
            let world = World::new();
            world.everything_on();
            let mut child = world.command(BINARY, &env(agent)).arg("runtime-setup").stderr(Stdio::null()).spawn().unwrap();
            while child.try_wait().unwrap().is_none() && world.files() < n {}
            child.kill().unwrap();
            child.wait().unwrap();
            // A git that it had started goes on writing.
            common::eventually("its children are gone", || world.is_quiet().then_some(()));
            assert_eq!(world.setup(&env(agent)), (0, String::new()));
            assert_eq!(world.contents(), whole.contents(), "{agent}, killed at {n} files");
        }
    }
}

#[test]
fn secrets_stay_where_they_belong() {
    for agent in AGENTS {
        for mode in modes(agent) {
            let world = World::new();
            world.everything_on();
            let said = world.prepare(agent, mode, &EVERYTHING);
            assert!(!said.contains(CANARY), "{agent} {mode}: {said}");
            for (path, found) in world.snapshot() {
                let belongs = *mode == "sync" && (path.ends_with(credential(agent).1) || path.ends_with(".claude.json"));
                let belongs = belongs || *mode == "oauth_token" && path.ends_with(".claude.json");
                let shows = found.3.windows(CANARY.len()).any(|window| window == CANARY.as_bytes());
                assert_eq!(shows, belongs, "{agent} {mode}: {}", path.display());
                if belongs {
                    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o077, 0, "{}", path.display());
                }
            }
        }
    }
}

// ---- agents' own configuration ----

#[test]
fn claude_knows_the_guards_that_are_there() {
    let world = World::new();
    world.program("tirith", "exit 0");
    world.prepare("claude", "ignore", &[]);
    let tirith = json!({ "type": "stdio", "command": "tirith", "args": ["mcp-server"], "env": {} });
    assert_eq!(world.json("home/.claude.json"), json!({ "mcpServers": { "tirith": tirith } }));
    assert_eq!(fs::metadata(world.path("home/.claude.json")).unwrap().mode() & 0o777, 0o600);
    world.program("shellfirm", "exit 0");
    world.prepare("claude", "ignore", &[("JACKIN_DISABLE_TIRITH", "1")]);
    let shellfirm = json!({ "type": "stdio", "command": "shellfirm", "args": ["mcp"], "env": {} });
    assert_eq!(world.json("home/.claude.json"), json!({ "mcpServers": { "shellfirm": shellfirm } }));
    world.prepare("claude", "ignore", &[("JACKIN_DISABLE_TIRITH", "1"), ("JACKIN_DISABLE_SHELLFIRM", "1")]);
    assert_eq!(world.json("home/.claude.json"), json!({ "mcpServers": {} }));
    // Somebody's own server of that name, and everything else, is theirs.
    let theirs = json!({ "numStartups": 3, "mcpServers": { "tirith": { "command": "mine" }, "x": {} } });
    world.write("home/.claude.json", &theirs.to_string());
    world.prepare("claude", "ignore", &[("JACKIN_DISABLE_SHELLFIRM", "1")]);
    assert_eq!(world.json("home/.claude.json"), theirs);
}

#[test]
fn no_guards_no_file() {
    let world = World::new();
    world.prepare("claude", "ignore", &[]);
    assert_eq!(world.read("home/.claude.json"), None);
}

#[test]
fn agents_report_what_they_do() {
    for (agent, file, part) in [
        ("claude", ".claude/settings.json", "report-hook.sh"),
        ("codex", ".codex/hooks.json", "report-hook.sh"),
        ("opencode", ".config/opencode/plugins/jackin-status.js", "jackin-status"),
        ("amp", ".config/amp/plugins/jackin-status.ts", "jackin-status"),
    ] {
        let world = World::new();
        world.prepare(agent, "ignore", &[]);
        let text = world.read(&format!("home/{file}")).unwrap_or_else(|| panic!("{agent} has no {file}"));
        assert!(text.contains(part), "{text}");
        // Without the runtime's files it goes on, with a word.
        let said = world.prepare(agent, "ignore", &[("JACKIN_RUNTIME_DIR", "/nowhere")]);
        assert!(said.contains("reports nothing"), "{said}");
    }
}

#[test]
fn what_cannot_be_understood_is_left_as_it_is() {
    for (agent, path, text) in [
        ("claude", ".claude.json", "{ not json"),
        ("claude", ".claude.json", "[]"),
        ("claude", ".claude.json", "{\"mcpServers\": []}"),
        ("opencode", ".config/opencode/opencode.json", "// with comments\n{}"),
        ("opencode", ".config/opencode/opencode.json", "{\"provider\": 1}"),
        ("codex", ".codex/config.toml", "not = = toml"),
        ("codex", ".codex/config.toml", "projects = { x = 1 }"),
    ] {
        let world = World::new();
        world.launch_config("");
        world.program("tirith", "exit 0");
        let path = format!("home/{path}");
        world.write(&path, text);
        let said = world.prepare(agent, "ignore", &[]);
        assert_eq!(world.read(&path).as_deref(), Some(text), "{said}");
        assert!(said.contains("left as it is"), "{text}: {said}");
    }
    let world = World::new();
    world.program("tirith", "exit 0");
    fs::write(world.path("home/.claude.json"), b"{\"a\": \"\xff\"}").unwrap();
    assert!(world.prepare("claude", "ignore", &[]).contains("left as it is"));
    assert_eq!(fs::read(world.path("home/.claude.json")).unwrap(), b"{\"a\": \"\xff\"}");
}

#[test]
fn a_linked_configuration_stays_a_link() {
    let world = World::new();
    world.write("home/dotfiles/opencode.json", "{\"theme\": \"x\"}");
    fs::create_dir_all(world.path("home/.config/opencode")).unwrap();
    symlink("../../dotfiles/opencode.json", world.path("home/.config/opencode/opencode.json")).unwrap();
    world.prepare("opencode", "ignore", &[]);
    assert!(fs::symlink_metadata(world.path("home/.config/opencode/opencode.json")).unwrap().is_symlink());
    let config = world.json("home/dotfiles/opencode.json");
    assert_eq!((&config["theme"], &config["permission"]), (&json!("x"), &json!("allow")));
}

#[test]
fn codex_trusts_the_operators_folders() {
    let world = World::new();
    world.launch_config("");
    let place = |name: &str| {
        fs::create_dir_all(world.path(name)).unwrap();
        world.path(name).to_str().unwrap().to_owned()
    };
    let (data, codex, work) = (place("data"), place("home/.codex"), place("work"));
    let mount = |place: &str| format!("9 1 8:1 /src {place} rw - ext4 /dev/sda rw\n");
    world.write("mountinfo", &(mount(&data) + &mount(&codex)));
    let before = format!("# mine\nmodel = \"gpt\"   # keep\n\n[projects.\"{data}\"]\ntrust_level = \"untrusted\"\n");
    world.write("home/.codex/config.toml", &before);
    world.prepare("codex", "ignore", &[]);
    let after = world.read("home/.codex/config.toml").unwrap();
    assert!(after.starts_with(&before), "{after}");
    let config: toml::Table = after.parse().unwrap();
    let projects = config["projects"].as_table().unwrap();
    assert_eq!(projects.len(), 2, "{after}");
    assert_eq!(projects[&data]["trust_level"].as_str(), Some("untrusted"), "what was said before stands");
    assert_eq!(projects[&work]["trust_level"].as_str(), Some("trusted"));
    assert_eq!(config["tui"]["notifications"].as_bool(), Some(true));
    assert!(!config.contains_key("model_providers"));
}

#[test]
fn codex_has_a_minimax_profile_when_there_is_a_key() {
    let world = World::new();
    world.launch_config("[provider_models.codex]\nminimax = \"MiniMax \\\"X\\\"\"\n");
    world.program("codex", r#"[ "$*" = "debug models" ] && echo '{"models":[{"slug":"gpt","shell_type":"s"}]}'"#);
    world.prepare("codex", "ignore", &[("MINIMAX_API_KEY", CANARY)]);
    let config: toml::Table = world.read("home/.codex/config.toml").unwrap().parse().unwrap();
    let provider = &config["model_providers"]["minimax"];
    assert_eq!(provider["base_url"].as_str(), Some("https://api.minimax.io/v1"));
    assert_eq!(provider["env_key"].as_str(), Some("MINIMAX_API_KEY"));
    assert_eq!((provider["name"].as_str(), provider["wire_api"].as_str()), (Some("MiniMax"), Some("responses")));
    let profile: toml::Table = world.read("home/.codex/minimax.config.toml").unwrap().parse().unwrap();
    assert_eq!((profile["model_provider"].as_str(), profile["model"].as_str()), (Some("minimax"), Some("MiniMax \"X\"")));
    let catalog = world.json("home/.codex/minimax.models.json");
    assert_eq!(catalog["models"][0]["slug"], "MiniMax \"X\"");
    assert_eq!((&catalog["models"][0]["context_window"], &catalog["models"][0]["shell_type"]), (&json!(512_000), &json!("s")));
    // The operator's own word stands.
    world.write("home/.codex/minimax.config.toml", "model = \"mine\"");
    world.write("home/.codex/minimax.models.json", "{}");
    world.prepare("codex", "ignore", &[("MINIMAX_API_KEY", CANARY)]);
    assert_eq!(world.read("home/.codex/minimax.config.toml").as_deref(), Some("model = \"mine\""));
    assert_eq!(world.read("home/.codex/minimax.models.json").as_deref(), Some("{}"));
}

#[test]
fn a_codex_that_knows_no_models_is_no_failure() {
    let world = World::new();
    world.program("codex", &format!("echo {CANARY}; exit 3"));
    let said = world.prepare("codex", "ignore", &[("MINIMAX_API_KEY", CANARY)]);
    assert!(said.contains("MiniMax-M3 runs without its own catalog") && !said.contains(CANARY), "{said}");
    assert_eq!(world.read("home/.codex/minimax.models.json"), None);
    assert_eq!(world.read("home/.codex/minimax.config.toml").as_deref(), Some("model_provider = \"minimax\"\nmodel = \"MiniMax-M3\"\n"));
}

#[test]
fn trap_opencode_reads_its_keys_from_the_environment() {
    let world = World::new();
    world.launch_config("[provider_models.opencode]\nzai = \"zai/glm-9\"\n");
    let path = "home/.config/opencode/opencode.json";
    world.write(
        path,
        &json!({ "theme": "x", "permission": "ask", "provider": { "zai": { "options": { "apiKey": CANARY } }, "own": {} } }).to_string(),
    );
    world.prepare("opencode", "ignore", &[("ZAI_API_KEY", CANARY), ("KIMI_CODE_API_KEY", CANARY)]);
    assert!(!world.read(path).unwrap().contains(CANARY));
    let config = world.json(path);
    assert_eq!((&config["permission"], &config["theme"], &config["provider"]["own"]), (&json!("allow"), &json!("x"), &json!({})));
    assert_eq!(
        config["provider"]["zai"],
        json!({
            "npm": "@ai-sdk/openai-compatible",
            "name": "Z.AI",
            "options": { "baseURL": "https://api.z.ai/api/coding/paas/v4", "apiKey": "{env:ZAI_API_KEY}" },
            "models": { "glm-5.1": { "name": "glm-5.1" }, "glm-9": { "name": "glm-9" } },
        })
    );
    let kimi = &config["provider"]["kimi"];
    assert_eq!((&kimi["npm"], &kimi["options"]["baseURL"]), (&json!("@ai-sdk/anthropic"), &json!("https://api.kimi.com/coding/v1")));
    assert_eq!(config["provider"].get("minimax"), None);
    world.prepare("opencode", "ignore", &[("KIMI_CODE_API_KEY", CANARY)]);
    assert_eq!(world.json(path)["provider"].as_object().unwrap().keys().collect::<Vec<_>>(), ["kimi", "own"]);
    fs::remove_file(world.path(path)).unwrap();
    world.prepare("opencode", "ignore", &[]);
    assert_eq!(world.json(path), json!({ "$schema": "https://opencode.ai/config.json", "permission": "allow" }));
    assert_eq!(fs::metadata(world.path(path)).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn a_launch_configuration_that_is_wrong_is_said_and_passed_over() {
    let world = World::new();
    world.write("run/agent.toml", "colour = 1");
    assert!(world.prepare("opencode", "ignore", &[]).contains("agent.toml cannot be read"));
}

// ---- git ----

/// A repository of somebody who has committed once, without hooks.
struct Repo<'a> {
    world: &'a World,
    name: &'static str,
    /// Of the session.
    env: Vec<(&'static str, &'static str)>,
}

const TRAILER: (&str, &str) = ("JACKIN_GIT_COAUTHOR_TRAILER", "1");
const DCO: (&str, &str) = ("JACKIN_GIT_DCO", "1");
const ADA: [(&str, &str); 2] = [("GIT_AUTHOR_NAME", "Ada L"), ("GIT_AUTHOR_EMAIL", "ada@example.org")];
const CLAUDE: &str = "Co-authored-by: Claude <noreply@anthropic.com>";
const SIGNED: &str = "Signed-off-by: Ada L <ada@example.org>";

impl<'a> Repo<'a> {
    fn new(world: &'a World, agent: &'static str, wanted: &[(&'static str, &'static str)]) -> Self {
        world.setup(&[&ADA[..], wanted].concat());
        let mut env = vec![("JACKIN_AGENT", agent)];
        env.extend(wanted);
        let repo = Self { world, name: "work", env };
        repo.git(&["init", "-q", "-b", "main"]);
        repo.commit_by_other("first");
        repo
    }

    fn run(&self, args: &[&str], env: &[(&str, &str)]) -> (i32, String) {
        let mut command = self.world.command("git", &self.env);
        command.args(args).current_dir(self.world.path(self.name)).env("GIT_EDITOR", "false").envs(env.iter().copied());
        text(&command.output().unwrap())
    }

    fn git(&self, args: &[&str]) -> String {
        let (code, said) = self.run(args, &[]);
        assert_eq!(code, 0, "git {args:?}: {said}");
        said
    }

    /// Somebody who has nothing to do with us.
    fn commit_by_other(&self, subject: &'static str) {
        let file = format!("{}/{subject}", self.name);
        self.world.write(&file, subject);
        self.git(&["add", "."]);
        self.git(&["-c", "core.hooksPath=/none", "-c", "user.name=Bob", "-c", "user.email=bob@x", "commit", "-q", "-m", subject]);
    }

    fn edit(&self, script: &str, args: &[&str]) -> (i32, String) {
        self.world.program("editor", script);
        let editor = self.world.path("bin/editor");
        self.run(args, &[("GIT_EDITOR", editor.to_str().unwrap())])
    }

    fn message(&self) -> String {
        self.git(&["log", "-1", "--format=%B"]).trim_end().to_owned()
    }

    fn hook(&self, name: &str, body: &str) {
        fs::create_dir_all(self.world.path(self.name).join(".git/hooks")).unwrap();
        write_script(&self.world.path(self.name).join(".git/hooks").join(name), body);
    }
}

fn config(world: &World, env: &[(&str, &str)], key: &str) -> String {
    text(&world.command("git", env).args(["config", "--global", "--get-all", key]).output().unwrap()).1.trim_end().to_owned()
}

#[test]
fn git_knows_who_commits_and_how_to_reach_github() {
    let world = World::new();
    let (code, said) = world.setup(&ADA);
    assert_eq!((code, said.as_str()), (0, ""));
    assert_eq!((config(&world, &[], "user.name").as_str(), config(&world, &[], "user.email").as_str()), ("Ada L", "ada@example.org"));
    assert_eq!(config(&world, &[], "url.https://github.com/.insteadOf"), "git@github.com:\nssh://git@github.com/");
    assert_eq!(config(&world, &[], "credential.helper"), "");
    assert_eq!(config(&world, &[], "core.hooksPath"), "");
    assert!(world.path("state/container-init.done").exists());
}

#[test]
fn gh_answers_for_github_where_it_is_logged_in() {
    let world = World::new();
    let gh = |login: i32| {
        world.program("gh", &format!("case $* in 'auth token') echo {CANARY}; exit {login};; 'auth setup-git') echo {CANARY} >&2; echo asked > \"$HOME/setup-git\";; *) exit 9;; esac"));
    };
    gh(1);
    assert_eq!(world.setup(&ADA), (0, String::new()));
    assert_eq!(config(&world, &[], "credential.helper"), "!gh auth git-credential");
    assert_eq!(world.read("home/setup-git"), None);
    fs::remove_file(world.path("home/.gitconfig")).unwrap();
    gh(0);
    assert_eq!(world.setup(&ADA), (0, String::new()));
    assert_eq!(world.read("home/setup-git").as_deref(), Some("asked\n"));
}

#[test]
fn trap_git_is_configured_in_a_container_made_anew() {
    let world = World::new();
    world.setup(&ADA);
    let first = world.read("home/.gitconfig").unwrap();
    fs::remove_file(world.path("home/.gitconfig")).unwrap();
    assert!(world.path("state/container-init.done").exists());
    world.setup(&ADA);
    assert_eq!(world.read("home/.gitconfig").unwrap(), first);
}

#[test]
fn trap_a_kept_git_configuration_does_not_speak_for_another_container() {
    let world = World::new();
    let layer = |id: &str| world.write("mountinfo", &format!("1 0 0:1 / / rw - overlay overlay rw,upperdir=/docker/{id}/diff\n"));
    let kept = world.path("state/gitconfig");
    let env = [("GIT_CONFIG_GLOBAL", kept.to_str().unwrap())];
    layer("one");
    world.setup(&[&ADA[..], &env].concat());
    let other = [("GIT_AUTHOR_NAME", "Bob"), ("GIT_AUTHOR_EMAIL", "bob@x"), env[0]];
    world.setup(&other);
    assert_eq!(config(&world, &env, "user.name"), "Ada L", "once per container: what an agent changes stays");
    layer("two");
    world.setup(&other);
    assert_eq!(config(&world, &env, "user.name"), "Bob");
    assert_eq!(config(&world, &env, "url.https://github.com/.insteadOf").lines().count(), 2);
}

#[test]
fn a_container_without_git_has_agents_all_the_same() {
    let world = World::new();
    let nowhere = world.path("bin");
    let env = [("PATH", nowhere.to_str().unwrap()), ("JACKIN_AGENT", "grok"), ("JACKIN_GIT_DCO", "1")];
    assert_eq!(world.setup(&env), (0, String::new()));
}

#[test]
fn a_git_that_fails_is_said_and_stops_no_agent() {
    let world = World::new();
    world.write("home/.gitconfig", "[broken");
    let (code, said) = world.setup(&[&ADA[..], &[("JACKIN_AGENT", "grok"), TRAILER, DCO]].concat());
    assert_eq!(code, 0);
    assert!(said.contains("git could not be configured") && said.contains("may not be signed off"), "{said}");
}

#[test]
fn every_agent_that_has_a_name_is_named_once() {
    for (agent, trailer) in [
        ("claude", CLAUDE),
        ("codex", "Co-authored-by: Codex <codex@openai.com>"),
        ("amp", "Co-authored-by: Amp <amp@ampcode.com>"),
        ("opencode", "Co-authored-by: opencode-agent[bot] <opencode-agent[bot]@users.noreply.github.com>"),
    ] {
        let world = World::new();
        let repo = Repo::new(&world, agent, &[TRAILER, DCO]);
        let both = format!("{trailer}\n{SIGNED}");
        assert_eq!(repo.git(&["commit", "-q", "--allow-empty", "-m", "fix: one"]), "");
        assert_eq!(repo.message(), format!("fix: one\n\n{both}"));
        repo.git(&["commit", "-q", "--amend", "--allow-empty", "--no-edit"]);
        assert_eq!(repo.message(), format!("fix: one\n\n{both}"), "amending adds nothing");
        repo.git(&["commit", "-q", "--amend", "--allow-empty", "-s", "-m", "two", "-m", "body\n---\nmore"]);
        assert_eq!(repo.message(), format!("two\n\nbody\n---\nmore\n\n{SIGNED}\n{trailer}"));
    }
}

#[test]
fn an_agent_without_a_name_is_told_so() {
    for agent in ["kimi", "grok", ""] {
        let world = World::new();
        let repo = Repo::new(&world, agent, &[TRAILER]);
        let said = repo.git(&["commit", "-q", "--allow-empty", "-m", "one"]);
        let who = if agent.is_empty() { "a shell" } else { agent };
        assert_eq!(said, format!("jackin: {who} has no name to commit under; no co-author trailer\n"));
        assert_eq!(repo.message(), "one");
    }
}

#[test]
fn trailers_that_are_there_already_are_enough() {
    let world = World::new();
    let repo = Repo::new(&world, "claude", &[TRAILER, DCO]);
    let own = "one\n\nCo-Authored-By: Claude Opus 9 <noreply@anthropic.com>\nsigned-off-by: A. Lovelace <ADA@example.org>";
    repo.git(&["commit", "-q", "--allow-empty", "-m", own]);
    assert_eq!(repo.message(), own);
    let other = "two\n\nCo-authored-by: Bob <bob@x>";
    repo.git(&["commit", "-q", "--allow-empty", "-m", other]);
    assert_eq!(repo.message(), format!("{other}\n{CLAUDE}\n{SIGNED}"));
}

#[test]
fn merges_and_squashes_carry_trailers() {
    let world = World::new();
    let repo = Repo::new(&world, "claude", &[TRAILER]);
    repo.git(&["checkout", "-q", "-b", "side"]);
    repo.commit_by_other("side");
    repo.git(&["checkout", "-q", "main"]);
    repo.git(&["merge", "-q", "--no-ff", "--no-edit", "side"]);
    assert_eq!(repo.message(), format!("Merge branch 'side'\n\n{CLAUDE}"));
    repo.git(&["reset", "-q", "--hard", "HEAD~"]);
    repo.git(&["merge", "-q", "--squash", "side"]);
    repo.git(&["commit", "-q", "--no-edit"]);
    assert!(repo.message().starts_with("Squashed commit") && repo.message().ends_with(&format!("\n\n{CLAUDE}")), "{}", repo.message());
    // With conflicts, which git lists in comments below the message.
    repo.git(&["checkout", "-q", "-b", "other", "side~"]);
    world.write("work/side", "differs");
    repo.git(&["add", "."]);
    repo.git(&["commit", "-q", "-m", "differs"]);
    assert_eq!(repo.run(&["merge", "-q", "side"], &[]).0, 1);
    world.write("work/side", "both");
    repo.git(&["add", "."]);
    repo.git(&["commit", "-q", "--no-edit"]);
    assert!(repo.message().starts_with(&format!("Merge branch 'side' into other\n\n{CLAUDE}\n\n# Conflicts:\n")), "{}", repo.message());
}

#[test]
fn a_carried_over_commit_stays_its_authors() {
    let world = World::new();
    let repo = Repo::new(&world, "claude", &[TRAILER, DCO]);
    repo.git(&["checkout", "-q", "-b", "side"]);
    repo.commit_by_other("side");
    repo.git(&["checkout", "-q", "main"]);
    repo.commit_by_other("main");
    repo.git(&["cherry-pick", "side"]);
    assert_eq!(repo.message(), "side");
    repo.git(&["checkout", "-q", "side"]);
    repo.git(&["rebase", "-q", "main~"]);
    assert_eq!(repo.message(), "side");
    repo.git(&["revert", "--no-edit", "HEAD"]);
    assert!(repo.message().ends_with(&format!("\n\n{CLAUDE}\n{SIGNED}")), "{}", repo.message());
}

#[test]
fn an_editor_left_without_a_word_cancels_the_commit() {
    let world = World::new();
    let repo = Repo::new(&world, "claude", &[TRAILER]);
    let before = repo.git(&["rev-parse", "HEAD"]);
    let commit = ["commit", "-q", "--allow-empty"];
    let (code, said) = repo.edit("true", &commit);
    assert!(code == 1 && said.contains("empty commit message"), "{said}");
    world.write("template", "Why:\n");
    let template = world.path("template");
    let with_template = [&commit[..], &["-t", template.to_str().unwrap()]].concat();
    let (code, said) = repo.edit("true", &with_template);
    assert!(code == 1 && said.contains("did not edit"), "{said}");
    assert_eq!(repo.git(&["rev-parse", "HEAD"]), before);

    assert_eq!(repo.edit("{ echo said; cat \"$1\"; } > x; cat x > \"$1\"; rm x", &with_template).0, 0);
    assert_eq!(repo.message(), format!("said\nWhy:\n\n{CLAUDE}"));
    // The editor shows the difference; nothing of it gets into the message.
    world.write("work/new", "x");
    repo.git(&["add", "."]);
    assert_eq!(repo.edit("{ echo said; cat \"$1\"; } > x; cat x > \"$1\"; rm x", &["commit", "-q", "-v"]).0, 0);
    assert_eq!(repo.message(), format!("said\n\n{CLAUDE}"));
    // Where a repository has a folder of its own, its hooks may ask us by name.
    for hook in ["prepare-commit-msg", "commit-msg"] {
        fs::create_dir_all(world.path("work/.husky")).unwrap();
        write_script(&world.path("work/.husky").join(hook), &format!("exec {BINARY} {hook} \"$@\""));
    }
    let husky = [&["-c", "core.hooksPath=.husky"], &commit[..]].concat();
    assert_eq!(repo.edit("true", &husky).0, 1);
    assert_eq!(repo.edit("echo by name > \"$1\"", &husky).0, 0);
    assert_eq!(repo.message(), format!("by name\n\n{CLAUDE}"));
    // And nothing is left for the next one.
    repo.git(&["-c", "core.hooksPath=/none", "commit", "-q", "--allow-empty", "-m", "plain"]);
    assert!(!world.path("work/.git/jackin-trailers").exists());
}

#[test]
fn comments_are_what_git_says_they_are() {
    let world = World::new();
    let repo = Repo::new(&world, "claude", &[TRAILER]);
    let said = "printf 'subject\\n\\n#12 is fixed\\n' > x; cat \"$1\" >> x; cat x > \"$1\"; rm x";
    for character in [";", "auto"] {
        let setting = format!("core.commentChar={character}");
        assert_eq!(repo.edit(said, &["-c", &setting, "commit", "-q", "--allow-empty"]).0, 0);
        let expected = if character == ";" { format!("subject\n\n#12 is fixed\n\n{CLAUDE}") } else { format!("subject\n\n{CLAUDE}") };
        assert_eq!(repo.message(), expected, "{character}");
    }
    repo.git(&["commit", "-q", "--allow-empty", "-m", "one\n\n#12 is fixed"]);
    assert_eq!(repo.message(), format!("one\n\n#12 is fixed\n\n{CLAUDE}"));
}

#[test]
fn the_person_who_signs_off_is_the_operator() {
    let world = World::new();
    let repo = Repo::new(&world, "claude", &[DCO]);
    assert_eq!(world.read("state/git-dco-identity").as_deref(), Some("Ada L <ada@example.org>\n"));
    repo.git(&["config", "user.name", "Claude"]);
    repo.git(&["config", "user.email", "noreply@anthropic.com"]);
    repo.git(&["commit", "-q", "--allow-empty", "-m", "one"]);
    assert_eq!(repo.message(), format!("one\n\n{SIGNED}"));
}

#[test]
fn no_commit_fails_for_a_trailer() {
    let world = World::new();
    let (code, said) = world.setup(&[DCO, TRAILER]);
    assert!(code == 0 && said.contains("may not be signed off"), "{said}");
    let repo = Repo { world: &world, name: "work", env: vec![DCO, TRAILER, ("JACKIN_AGENT", "claude")] };
    repo.git(&["init", "-q", "-b", "main"]);
    let by_env = ["GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"].map(|name| (name, "x@y"));
    let (code, said) = repo.run(&["commit", "-q", "--allow-empty", "-m", "one"], &by_env);
    assert!(code == 0 && said.contains("is not signed off"), "{said}");
    assert_eq!(repo.message(), format!("one\n\n{CLAUDE}"));
    // With nobody to hear the complaint.
    let mut unheard = world.command("sh", &repo.env);
    let (code, _) = text(&unheard.args(["-c", &format!("{BINARY} prepare-commit-msg /nowhere 2>/dev/full")]).output().unwrap());
    assert_eq!(code, 0);
    // Without a git that can do it, and without a message.
    let (code, said) = text(&world.command(BINARY, &repo.env).args(["prepare-commit-msg", "/nowhere", "message"]).output().unwrap());
    assert!(code == 0 && said.contains("carries no trailer"), "{said}");
    let (code, said) = text(
        &world
            .command(BINARY, &[("JACKIN_AGENT", "claude"), TRAILER, ("PATH", "/none")])
            .args(["prepare-commit-msg", "/nowhere"])
            .output()
            .unwrap(),
    );
    assert!(code == 0 && said.contains("carries no trailer"), "{said}");
}

#[test]
fn without_a_wish_for_trailers_git_keeps_its_hooks() {
    let world = World::new();
    let repo = Repo::new(&world, "claude", &[]);
    repo.git(&["commit", "-q", "--allow-empty", "-m", "one"]);
    assert_eq!((repo.message().as_str(), config(&world, &[], "core.hooksPath").as_str()), ("one", ""));
    assert!(!world.path("state/git-hooks").exists());
}

#[test]
fn the_repositorys_own_hooks_run() {
    let world = World::new();
    let repo = Repo::new(&world, "claude", &[TRAILER]);
    repo.hook("pre-commit", "echo \"pre-commit $#\" >> trace; [ ! -e forbidden ]");
    repo.hook("prepare-commit-msg", "echo \"prepare $2\" >> trace; sed -i '1s/^/ABC-1 /' \"$1\"");
    repo.hook("commit-msg", "grep -q Co-authored-by \"$1\" && echo 'commit-msg sees the trailer' >> trace; ! grep -q wip \"$1\"");
    repo.hook("post-commit", "echo post-commit >> trace");
    fs::write(world.path("work/.git/hooks/post-checkout"), "echo \"post-checkout $3\" >> trace").unwrap();
    fs::set_permissions(world.path("work/.git/hooks/post-checkout"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let commit = |message| repo.run(&["commit", "-q", "--allow-empty", "-m", message], &[]);
    assert_eq!(commit("one").0, 0);
    assert_eq!(repo.message(), format!("ABC-1 one\n\n{CLAUDE}"));
    assert_eq!(world.read("work/trace").unwrap(), "pre-commit 0\nprepare message\ncommit-msg sees the trailer\npost-commit\n");
    assert_eq!(commit("wip").0, 1);
    world.write("work/forbidden", "");
    assert_eq!(commit("two").0, 1);
    assert_eq!(repo.run(&["commit", "-q", "--allow-empty", "-n", "-m", "two"], &[]).0, 0);
    assert_eq!(repo.message(), format!("ABC-1 two\n\n{CLAUDE}"));
    // A script without a first line that names its program.
    fs::write(world.path("work/trace"), "").unwrap();
    repo.git(&["checkout", "-q", "-b", "side"]);
    assert_eq!(world.read("work/trace").unwrap(), "post-checkout 1\n");
    // From a worktree they are the same ones.
    repo.git(&["worktree", "add", "-q", "../tree"]);
    let tree = Repo { world: &world, name: "tree", env: repo.env.clone() };
    tree.git(&["commit", "-q", "--allow-empty", "-m", "three"]);
    assert_eq!(tree.message(), format!("ABC-1 three\n\n{CLAUDE}"));
    assert!(world.read("tree/trace").unwrap().ends_with("post-commit\n"));
}

#[test]
fn a_push_is_judged_by_both_sides() {
    let world = World::new();
    let repo = Repo::new(&world, "claude", &[TRAILER]);
    repo.git(&["init", "-q", "--bare", "../bare"]);
    repo.hook("pre-push", "cat > pushed");
    write_script(&world.path("bare/hooks/update"), "[ \"$1\" != refs/heads/closed ]");
    write_script(&world.path("bare/hooks/post-receive"), "cat > received");
    repo.git(&["push", "-q", "../bare", "main"]);
    let (pushed, received) = (world.read("work/pushed").unwrap(), world.read("bare/received").unwrap());
    assert!(pushed.starts_with("refs/heads/main ") && received.contains("refs/heads/main"), "{pushed}{received}");
    assert_ne!(repo.run(&["push", "-q", "../bare", "main:closed"], &[]).0, 0);
    // Git's own way to update a checked-out branch stays.
    repo.git(&["clone", "-q", "../bare", "../clone"]);
    let clone = Repo { world: &world, name: "clone", env: repo.env.clone() };
    clone.git(&["checkout", "-q", "main"]);
    clone.git(&["config", "receive.denyCurrentBranch", "updateInstead"]);
    repo.commit_by_other("more");
    repo.git(&["push", "-q", "../clone", "main"]);
    assert_eq!(world.read("clone/more").as_deref(), Some("more"));
}

#[test]
fn a_folder_of_hooks_configured_before_ours_still_counts() {
    let world = World::new();
    world.write("home/.gitconfig", "[core]\n\thooksPath = ~/shared hooks\n");
    fs::create_dir(world.path("home/shared hooks")).unwrap();
    write_script(&world.path("home/shared hooks/pre-commit"), "echo shared >> trace");
    let repo = Repo::new(&world, "claude", &[TRAILER]);
    repo.hook("pre-commit", "echo own >> trace");
    for _ in 0..2 {
        repo.git(&["commit", "-q", "--allow-empty", "-m", "one"]);
        world.setup(&[TRAILER]);
    }
    assert_eq!(world.read("work/trace").as_deref(), Some("shared\nshared\n"));
    assert_eq!(repo.message(), format!("one\n\n{CLAUDE}"));
}

#[test]
fn a_hook_that_calls_us_does_not_call_itself() {
    let world = World::new();
    let repo = Repo::new(&world, "claude", &[TRAILER]);
    repo.hook("prepare-commit-msg", &format!("exec {BINARY} prepare-commit-msg \"$@\""));
    repo.git(&["commit", "-q", "--allow-empty", "-m", "one"]);
    assert_eq!(repo.message(), format!("one\n\n{CLAUDE}"));
    fs::remove_file(world.path("work/.git/hooks/prepare-commit-msg")).unwrap();
    for hook in ["prepare-commit-msg", "commit-msg", "pre-commit"] {
        symlink(BINARY, world.path("work/.git/hooks").join(hook)).unwrap();
    }
    repo.git(&["commit", "-q", "--allow-empty", "-m", "two"]);
    assert_eq!(repo.message(), format!("two\n\n{CLAUDE}"));
    // One that is no program is passed over, as git does, with a word.
    for hook in ["commit-msg", "prepare-commit-msg"] {
        fs::remove_file(world.path("work/.git/hooks").join(hook)).unwrap();
    }
    fs::remove_file(world.path("work/.git/hooks/pre-commit")).unwrap();
    fs::write(world.path("work/.git/hooks/pre-commit"), "exit 1").unwrap();
    let said = repo.git(&["commit", "-q", "--allow-empty", "-m", "three"]);
    assert!(said.contains("pre-commit is not executable"), "{said}");
}

#[test]
fn the_busiest_hooks_are_in_gits_way_only_where_they_are_wanted() {
    let world = World::new();
    let repo = Repo::new(&world, "claude", &[TRAILER]);
    repo.git(&["commit", "-q", "--allow-empty", "-m", "one"]);
    assert!(!world.path("state/git-hooks/reference-transaction").exists());
    repo.hook("reference-transaction", "cat >> references");
    assert_eq!(world.setup(&[TRAILER]), (0, String::new()));
    repo.git(&["commit", "-q", "--allow-empty", "-m", "two"]);
    assert!(world.read("work/references").unwrap().contains("refs/heads/main"));
}
