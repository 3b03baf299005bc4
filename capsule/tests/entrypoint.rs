//! The entrypoint script with fake agents: what it starts, with which arguments, after which hooks.

mod common;

use std::process::{Command, Output, Stdio};

use common::{BINARY, write_script};

struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for agent in ["claude", "codex", "amp", "kimi", "opencode", "grok"] {
            std::fs::create_dir_all(dir.path().join("home/.local/bin")).unwrap();
            let body = "printf '%s' \"$(basename \"$0\")\"; for a in \"$@\"; do printf ' [%s]' \"$a\"; done; echo; echo \"hook=$HOOK in=$PWD opencode=$OPENCODE_CONFIG_CONTENT source=$JACKIN_STATUS_SOURCE\"";
            write_script(&dir.path().join("home/.local/bin").join(agent), body);
        }
        std::fs::create_dir(dir.path().join("hooks")).unwrap();
        std::fs::create_dir(dir.path().join("runtime")).unwrap();
        std::os::unix::fs::symlink(BINARY, dir.path().join("runtime/jackin-capsule")).unwrap();
        let status = concat!(env!("CARGO_MANIFEST_DIR"), "/runtime/agent-status");
        std::os::unix::fs::symlink(status, dir.path().join("runtime/agent-status")).unwrap();
        Self { dir }
    }

    fn hook(&self, name: &str, body: &str) {
        write_script(&self.dir.path().join("hooks").join(name), body);
    }

    fn command(&self, agent: &str, args: &[&str], env: &[(&str, &str)]) -> Command {
        let path = |name: &str| self.dir.path().join(name);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/runtime/entrypoint.sh");
        let mut command = Command::new("sh");
        command
            .arg(script)
            .args(args)
            .current_dir(self.dir.path())
            .env("HOME", path("home"))
            .env("JACKIN_AGENT", agent)
            .env("JACKIN_HOOKS_DIR", path("hooks"))
            .env("JACKIN_STATE_DIR", path("state"))
            .env("JACKIN_RUNTIME_DIR", path("runtime"))
            .env("JACKIN_RUN_DIR", path("run"))
            .env("JACKIN_ROOT", path("jackin"))
            .env_remove("XAI_API_KEY")
            .env_remove("GIT_CONFIG_GLOBAL")
            .envs(env.iter().copied());
        command
    }

    fn run(&self, agent: &str, args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String) {
        let Output { status, stdout, stderr } = self.command(agent, args, env).output().unwrap();
        (status.code(), String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap())
    }

    fn first_line(&self, agent: &str, args: &[&str], env: &[(&str, &str)]) -> String {
        let (code, output) = self.run(agent, args, env);
        assert_eq!(code, Some(0), "{output}");
        output.lines().next().unwrap().to_owned()
    }
}

#[test]
fn each_agent_gets_its_arguments() {
    let world = World::new();
    let model = ["--model", "m 1"];
    assert_eq!(
        world.first_line("claude", &model, &[]),
        "claude [--settings] [{\"skipDangerousModePermissionPrompt\":true}] [--dangerously-skip-permissions] [--verbose] [--model] [m 1]"
    );
    assert_eq!(
        world.first_line("codex", &["-m", "x"], &[]),
        "codex [--enable] [goals] [--dangerously-bypass-approvals-and-sandbox] [-m] [x]"
    );
    assert_eq!(world.first_line("amp", &model, &[]), "amp [--dangerously-allow-all]");
    assert_eq!(world.first_line("kimi", &model, &[]), "kimi [--yolo] [--model] [m 1]");
    assert_eq!(world.first_line("opencode", &[], &[]), "opencode");
    assert_eq!(world.first_line("grok", &[], &[]), "grok [--always-approve]");
    assert!(world.run("opencode", &[], &[]).1.contains("opencode={\"permission\":\"allow\"}"));
    assert!(world.run("grok", &[], &[("JACKIN_SESSION_ID", "4")]).1.contains("source=wrapper-4"));
    assert_eq!(world.run("emacs", &[], &[]).0, Some(2));
}

#[test]
fn codex_profiles_and_claude_bindings() {
    let world = World::new();
    let profile = [("JACKIN_CODEX_PROFILE", "minimax")];
    assert!(world.first_line("codex", &[], &profile).ends_with("-sandbox] [--profile] [minimax]"));
    std::fs::write(world.dir.path().join("home/.codex/minimax.models.json"), "{}").unwrap();
    assert!(world.first_line("codex", &[], &profile).contains("[-c] [model_catalog_json="));
    assert!(world.first_line("claude", &[], &[("JACKIN_EXEC_BINDINGS", "GH")]).contains("[--system-prompt]"));
}

#[test]
fn hooks_run_in_order_and_the_first_only_once() {
    let world = World::new();
    world.hook("setup-once.sh", "echo once >> \"$HOME/trace\"");
    world.hook("source.sh", "HOOK=sourced; export HOOK; cd /; echo source >> \"$HOME/trace\"; unset_variable=$NEVER_SET");
    world.hook("preflight.sh", "echo preflight in $PWD >> \"$HOME/trace\"");
    for _ in 0..2 {
        let (code, output) = world.run("amp", &[], &[]);
        assert_eq!(code, Some(0), "{output}");
        let here = world.dir.path().canonicalize().unwrap();
        assert!(output.contains(&format!("hook=sourced in={}", here.display())), "{output}");
    }
    let home = world.dir.path().join("home");
    let trace = std::fs::read_to_string(home.join("trace")).unwrap();
    let each = format!("source\npreflight in {}\n", home.display());
    assert_eq!(trace, format!("once\n{each}{each}"));
}

#[test]
fn a_failing_hook_keeps_the_agent_from_starting() {
    for (hook, code) in [("setup-once.sh", 11), ("preflight.sh", 13)] {
        let world = World::new();
        world.hook(hook, &format!("exit {code}"));
        for _ in 0..2 {
            let (status, output) = world.run("amp", &[], &[]);
            assert_eq!(status, Some(code));
            assert!(output.contains("hook failed with") && !output.contains("dangerously"), "{output}");
        }
    }
    let world = World::new();
    world.hook("source.sh", "return 12");
    assert_eq!(world.run("amp", &[], &[]).0, Some(12));
}

#[test]
fn sessions_that_start_together_run_setup_once_once() {
    let world = World::new();
    // Still at it when the second comes: it goes on when the second waits, or when a second run shows.
    world.hook(
        "setup-once.sh",
        "echo run >> \"$HOME/runs\"; echo > \"$HOME/started-$$\"\n\
         until [ -e \"$HOME/go\" ] || [ \"$(wc -l < \"$HOME/runs\")\" -gt 1 ]; do :; done",
    );
    let home = world.dir.path().join("home");
    std::thread::scope(|scope| {
        let first = scope.spawn(|| world.run("amp", &[], &[]));
        common::eventually("the hook runs", || home.join("runs").exists().then_some(()));
        let second = scope.spawn(|| {
            let mut child = world.command("amp", &[], &[]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
            let waits = lines.any(|line| line.unwrap().contains("waiting for it"));
            std::fs::write(home.join("go"), "").unwrap();
            assert!(child.wait().unwrap().success());
            waits
        });
        assert!(second.join().unwrap());
        assert_eq!(first.join().unwrap().0, Some(0));
    });
    assert_eq!(std::fs::read_to_string(home.join("runs")).unwrap(), "run\n");
}

#[test]
fn a_source_hook_is_bash_and_keeps_its_hands_off_the_arguments() {
    let world = World::new();
    world.hook(
        "source.sh",
        "words=(a b); [[ ${words[1]} == b ]] || return 9; set -- gone; code=1 before=/ hooks=/x; set -x; export HOOK=bash",
    );
    let (code, output) = world.run("kimi", &["--model", "m"], &[("JACKIN_STATUS_SOURCE", "given")]);
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("kimi [--yolo] [--model] [m]") && output.contains("hook=bash") && output.contains("source=given"), "{output}");
}

#[test]
fn the_variables_of_a_source_hook_are_not_traced() {
    let world = World::new();
    world.hook("source.sh", "HOOK=canary-value; export HOOK");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/runtime/entrypoint.sh");
    for shell in ["sh", "bash"] {
        let output = world.command("amp", &[], &[("JACKIN_HOOKS_DIR", world.dir.path().join("hooks").to_str().unwrap())]);
        let mut traced = Command::new(shell);
        traced.args(["-x", script]).current_dir(world.dir.path());
        traced.envs(output.get_envs().filter_map(|(key, value)| Some((key, value?))));
        let output = traced.output().unwrap();
        let trace = String::from_utf8(output.stderr).unwrap();
        assert!(!trace.contains("HOOK=canary"), "{trace}");
        assert!(String::from_utf8(output.stdout).unwrap().contains("hook=canary-value"));
    }
}

#[test]
fn grok_finds_its_key_under_both_names() {
    let world = World::new();
    write_script(&world.dir.path().join("home/.local/bin/grok"), "[ \"$GROK_DEPLOYMENT_KEY\" = k ]");
    assert_eq!(world.run("grok", &[], &[("XAI_API_KEY", "k")]).0, Some(0));
    assert_eq!(world.run("grok", &[], &[("XAI_API_KEY", "x"), ("GROK_DEPLOYMENT_KEY", "k")]).0, Some(0));
}

#[test]
fn a_failing_setup_keeps_the_agent_from_starting() {
    let world = World::new();
    std::fs::remove_file(world.dir.path().join("runtime/jackin-capsule")).unwrap();
    write_script(&world.dir.path().join("runtime/jackin-capsule"), "[ \"$1\" = runtime-setup ] && exit 3");
    assert_eq!(world.run("amp", &[], &[]), (Some(3), String::new()));
}

#[test]
fn the_script_is_plain_sh() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/runtime/entrypoint.sh");
    let output = Command::new("shellcheck").args(["-s", "sh", script]).output().expect("the package shellcheck is needed for this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
