//! The entrypoint script with fake agents: what it starts, with which arguments, after which hooks.

mod common;

use std::process::{Command, Output};

use common::write_script;

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
        std::fs::create_dir_all(dir.path().join("hooks")).unwrap();
        Self { dir }
    }

    fn hook(&self, name: &str, body: &str) {
        write_script(&self.dir.path().join("hooks").join(name), body);
    }

    fn run(&self, agent: &str, args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String) {
        let path = |name: &str| self.dir.path().join(name);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/runtime/entrypoint.sh");
        let Output { status, stdout, stderr } = Command::new("sh")
            .arg(script)
            .args(args)
            .current_dir(self.dir.path())
            .env("HOME", path("home"))
            .env("JACKIN_AGENT", agent)
            .env("JACKIN_HOOKS_DIR", path("hooks"))
            .env("JACKIN_STATE_DIR", path("state"))
            .env("JACKIN_RUNTIME_DIR", path("runtime"))
            .envs(env.iter().copied())
            .output()
            .unwrap();
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
    std::fs::create_dir_all(world.dir.path().join("home/.codex")).unwrap();
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
fn a_failing_setup_keeps_the_agent_from_starting() {
    let world = World::new();
    std::fs::create_dir(world.dir.path().join("runtime")).unwrap();
    write_script(&world.dir.path().join("runtime/jackin-capsule"), "[ \"$1\" = runtime-setup ] && exit 3");
    assert_eq!(world.run("amp", &[], &[]), (Some(3), String::new()));
}
