//! `jackin prewarm` as a person or a script meets it: which options go together, what is written where, what the diary holds. No engine
//! is needed.

use assert_cmd::Command;
use clap::Parser;
use jackin::cli::{Cli, Command as Verb};
use jackin::command::prewarm::goal;
use jackin::config::Agent;
use jackin::graph::prewarm::{Choice, Goal, SidecarGoal};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

fn asked(options: &str) -> Result<Goal, String> {
    let words = ["jackin", "prewarm"].into_iter().chain(options.split_whitespace());
    match Cli::try_parse_from(words).map_err(|error| error.to_string())?.command {
        Some(Verb::Prewarm(args)) => goal(&args).map_err(|refused| {
            assert_eq!((refused.code.as_str(), refused.help.is_some()), ("prewarm.combination", true), "{options}");
            refused.detail
        }),
        other => panic!("{other:?}"),
    }
}

/// What of the roles, in all ways in which the synopsis has it.
const CHOICES: [&str; 5] =
    ["--role r", "--role r --role-git https://git.example/r.git", "--workspace w", "--all-workspaces", "--all-roles"];
const SIDECARS: [&str; 6] = [
    "",
    "--sidecar-container",
    "--sidecar-container --keep-sidecar-container",
    "--sidecar-container --keep-sidecar-container --count 3",
    "--daemon",
    "--daemon --count 2",
];

#[test]
fn every_combination_of_the_synopsis_is_accepted() {
    let mut count = 0;
    for agents in ["", "--agent claude", "--agent claude --agent kimi"] {
        for sidecar in ["", "--sidecar"] {
            for container in SIDECARS {
                for roles in ["", "--roles"] {
                    for image in ["", "--image", "--image --role-branch feat/x"] {
                        for choice in [""].into_iter().chain(CHOICES) {
                            let allowed = match (roles, image, choice) {
                                (_, "", "") => true,
                                (_, _, "") => false,
                                ("--roles", "", choice) => choice != "--all-roles",
                                ("", "", _) => false,
                                _ => true,
                            };
                            for instance in ["", "--instance app", "--instance app/dev"] {
                                // A count of what?
                                let allowed = allowed && (instance.is_empty() || !container.contains("--count"));
                                let line = [agents, sidecar, container, instance, roles, image, choice].join(" ");
                                let said = asked(&line);
                                assert_eq!(said.is_ok(), allowed, "{line}: {said:?}");
                                count += 1;
                            }
                        }
                    }
                }
            }
        }
    }
    assert_eq!(count, 3 * 2 * 6 * 2 * 3 * 6 * 3);
}

#[test]
fn options_mean_what_they_say() {
    assert_eq!(asked("").unwrap(), Goal::default());
    let all =
        asked("--agent kimi --agent claude --agent kimi --sidecar --daemon --roles --image --role Acme/Tools --role-branch b").unwrap();
    assert_eq!(all.agents, BTreeSet::from([Agent::Claude, Agent::Kimi]));
    assert!(all.sidecar_image && all.roles && all.images);
    assert_eq!(all.choice, Choice::Role { role: "acme/tools".to_owned(), git: None });
    assert_eq!(all.branch.as_deref(), Some("b"));
    let goals = SIDECARS.map(|options| asked(options).unwrap().sidecar.map(|kept| (kept.then, kept.count)));
    let (tried, kept) = (SidecarGoal::Try, SidecarGoal::Keep);
    assert_eq!(goals, [None, Some((tried, 1)), Some((kept, 1)), Some((kept, 3)), Some((kept, 1)), Some((kept, 2))]);
}

#[test]
fn every_other_combination_is_refused_with_a_hint() {
    for (options, because) in [
        ("--keep-sidecar-container", "says what becomes of the sidecar of --sidecar-container"),
        ("--daemon --sidecar-container", "--daemon is --sidecar-container with"),
        ("--daemon --keep-sidecar-container", "--daemon keeps its sidecar anyway"),
        ("--daemon --sidecar-container --keep-sidecar-container", "--daemon keeps its sidecar anyway"),
        ("--count 2", "--count says how many"),
        ("--sidecar-container --count 2", "--count says how many"),
        ("--instance app --daemon --count 2", "--count may mean sidecars or spares"),
        ("--image", "does not know whose images"),
        ("--image --role-branch b", "does not know whose images"),
        ("--role r", "--role chooses roles, and nothing"),
        ("--workspace w", "--workspace chooses roles, and nothing"),
        ("--all-workspaces", "--all-workspaces chooses roles, and nothing"),
        ("--all-roles", "--all-roles chooses whose images"),
        ("--roles --all-roles", "--all-roles chooses whose images"),
        ("--roles --role-git https://git.example/r.git", "--role-git is the source of the role"),
        ("--image --workspace w --role-git https://git.example/r.git", "--role-git is the source of the role"),
        ("--roles --role r --role-branch b", "--role-branch chooses the branch"),
        ("--image --role r --workspace w", "--role, --workspace each choose the roles"),
        ("--roles --role r --all-workspaces", "--role, --all-workspaces each"),
        ("--image --all-workspaces --all-roles", "--all-workspaces, --all-roles each"),
        ("--image --role r --workspace w --all-workspaces --all-roles", "--role, --workspace, --all-workspaces, --all-roles each"),
    ] {
        let refused = asked(options).expect_err(options);
        assert!(refused.contains(because), "{options}: {refused}");
    }
    for malformed in ["--agent nobody", "--daemon --count 0", "--daemon --count 65", "--role", "somewhere"] {
        let error = asked(malformed).expect_err(malformed);
        assert!(error.starts_with("error:"), "{malformed}: {error}");
    }
}

// ---- the program ----

/// A home, a role repository and a capsule program, in a folder of their own.
struct Site {
    root: tempfile::TempDir,
}

impl Site {
    fn new() -> Site {
        let site = Site { root: tempfile::tempdir().expect("a temporary folder") };
        for folder in ["home/src/app", "home/.config/gh", "home/.claude", "cwd", "role"] {
            std::fs::create_dir_all(site.path(folder)).expect("a folder");
        }
        for (file, text) in [
            ("capsule", "#!/bin/sh\n"),
            ("home/.gitconfig", "[user]\n\tname = Neo\n"),
            ("home/.zshrc", "# mine\n"),
            ("home/.config/gh/hosts.yml", "github.com:\n"),
            ("home/.claude/settings.json", "{}\n"),
            ("role/Dockerfile", "FROM projectjackin/construct:0.1-trixie\n"),
            ("role/jackin.role.toml", "version = \"v1alpha6\"\ndockerfile = \"Dockerfile\"\n\n[claude]\n"),
        ] {
            std::fs::write(site.path(file), text).expect("a file");
        }
        std::fs::set_permissions(site.path("capsule"), PermissionsExt::from_mode(0o755)).expect("a run bit");
        for args in [&["init", "-q", "."][..], &["add", "."], &["commit", "-q", "-m", "role"]] {
            let mut git = Command::new("git");
            git.args(["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]).args(args);
            git.env("HOME", site.path("nowhere")).current_dir(site.path("role")).assert().success();
        }
        std::fs::create_dir_all(site.path("home/.config/jackin/workspaces")).expect("a folder");
        let role = site.path("role");
        let config = format!("version = \"v1alpha9\"\n\n[roles.local]\ngit = \"{}\"\ntrusted = true\n", role.display());
        std::fs::write(site.path("home/.config/jackin/config.toml"), config).expect("a file");
        let app = "version = \"v1alpha8\"\nworkdir = \"/workspace\"\ndefault_role = \"local\"\n\n[[mounts]]\nsrc = \"~/src/app\"\ndst = \"/workspace\"\n";
        std::fs::write(site.path("home/.config/jackin/workspaces/app.toml"), app).expect("a file");
        site
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    /// Exit code, standard output, standard error.
    fn run(&self, options: &str) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jackin"));
        command.arg("prewarm").args(options.split_whitespace()).env_clear().current_dir(self.path("cwd")).timeout(Duration::from_secs(60));
        command.env("PATH", std::env::var_os("PATH").expect("PATH")).env("HOME", self.path("home"));
        command.env("DOCKER_HOST", "unix:///nonexistent/docker.sock").env("JACKIN_CAPSULE_BIN", self.path("capsule"));
        // No maker is asked.
        command.env("JACKIN_AGENT_MIRROR", "off");
        let output = command.output().expect("jackin runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("jackin speaks UTF-8");
        (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
    }

    /// Everything of the home but jackin's own folder: content, mode and time of change.
    fn host(&self) -> BTreeMap<PathBuf, (Vec<u8>, u32, SystemTime)> {
        let mut found = BTreeMap::new();
        let mut todo = vec![self.path("home"), self.path("role")];
        while let Some(folder) = todo.pop() {
            for entry in std::fs::read_dir(&folder).expect("a folder").map(|e| e.expect("an entry").path()) {
                let meta = std::fs::symlink_metadata(&entry).expect("an entry");
                let ours = entry == self.path("home/.jackin") || entry == self.path("home/.config/jackin/config.lock");
                if meta.is_dir() && !ours {
                    todo.push(entry.clone());
                } else if !ours {
                    let content = std::fs::read(&entry).unwrap_or_default();
                    found.insert(entry, (content, meta.permissions().mode(), meta.modified().expect("a time")));
                }
            }
        }
        found
    }

    fn diary(&self) -> Vec<Value> {
        let runs = self.path("home/.jackin/data/diagnostics/runs");
        let mut files: Vec<PathBuf> = std::fs::read_dir(runs).expect("runs").map(|e| e.expect("a run").path()).collect();
        files.sort();
        let text = std::fs::read_to_string(files.last().expect("a run")).expect("a diary");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

#[test]
fn a_refusal_is_one_message_on_stderr_with_code_2() {
    let site = Site::new();
    let (code, out, err) = site.run("--daemon --sidecar-container");
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    assert_eq!(err.lines().filter(|line| line.starts_with("error")).count(), 1, "{err}");
    assert!(err.contains("[prewarm.combination]") && err.contains("help: Use one of them"), "{err}");
}

#[test]
fn programs_and_roles_need_no_engine_and_touch_nothing_of_the_hosts() {
    let site = Site::new();
    let before = site.host();
    let (code, out, err) = site.run("");
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("No changes. 1 resource is ready for the next launch."), "{out}");
    let (code, _, err) = site.run("--agent claude --roles --role local --yes");
    assert_eq!(code, 0, "{err}");
    assert!(site.path("home/.jackin/roles/local/default/Dockerfile").is_file(), "the clone's files lie there");
    let (code, out, err) = site.run("--agent claude --roles --workspace app --yes");
    assert!(code == 0 && out.contains("No changes."), "{out}{err}");
    assert_eq!(site.host(), before);
    let (code, _, err) = site.run("--sidecar");
    assert!(code == 1 && err.contains("[docker.unreachable]"), "{err}");
    assert_eq!(site.host(), before);
}

#[test]
fn a_role_that_cannot_be_had_keeps_no_other_and_is_told_at_the_end() {
    let site = Site::new();
    let config = site.path("home/.config/jackin/config.toml");
    let gone = format!("\n[roles.gone]\ngit = \"{}\"\ntrusted = true\n", site.path("nowhere").display());
    std::fs::write(&config, std::fs::read_to_string(&config).expect("a file") + &gone).expect("a file");
    let app = std::fs::read_to_string(site.path("home/.config/jackin/workspaces/app.toml")).expect("a file");
    std::fs::write(site.path("home/.config/jackin/workspaces/old.toml"), app.replace("\"local\"", "\"gone\"")).expect("a file");
    let (code, out, err) = site.run("--agent claude --roles --all-workspaces --yes");
    assert_eq!(code, 1, "{out}{err}");
    assert!(site.path("home/.jackin/roles/local/default/Dockerfile").is_file(), "the other one is there: {out}{err}");
    assert!(err.contains("[prewarm.left_out]") && err.contains("`gone`"), "{err}");
    assert_eq!(err.lines().filter(|line| line.starts_with("error")).count(), 1, "{err}");
    assert!(err.contains("[prewarm.incomplete]"), "{err}");
    // One that was named stops the command, as does having none.
    std::fs::remove_file(site.path("home/.config/jackin/workspaces/app.toml")).expect("a file");
    for choice in ["--role gone", "--all-workspaces"] {
        let (code, out, err) = site.run(&format!("--agent claude --roles {choice} --yes"));
        assert!(code == 1 && !(out + &err).contains("left_out"), "{err}");
    }
}

#[test]
fn a_plan_changes_nothing_not_even_a_clone() {
    let site = Site::new();
    let before = site.host();
    let (code, out, err) = site.run("--plan --roles --role local");
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("[prewarm.not_cloned]"), "{out}");
    assert!(!site.path("home/.jackin/roles").exists());
    site.run("--agent claude --roles --role local --yes");
    let (code, out, err) = site.run("--plan --roles --role local --format json");
    assert_eq!(code, 0, "{err}");
    let plan: Value = serde_json::from_str(&out).expect("a plan");
    assert_eq!(plan["goal"]["mode"], "prewarm_only");
    assert_eq!(site.host(), before);
}

#[test]
fn the_diary_holds_the_plan() {
    let site = Site::new();
    for only in ["--dry-run", "--plan"] {
        let (_, out, _) = site.run(&format!("--roles --role local {only} --format json"));
        let planned = site.diary().into_iter().find(|line| line["type"] == "planned").expect("a plan");
        assert_eq!(planned["plan"]["goal"]["mode"], "prewarm_only");
        assert_eq!(planned["plan"], serde_json::from_str::<Value>(&out).expect("a plan"));
        assert!(planned["graph"].is_null(), "the rest is for --debug");
    }
}

#[test]
fn what_cannot_be_chosen_says_why() {
    let site = Site::new();
    for (options, code, words) in [
        ("--image --workspace elsewhere", 1, "[workspace.unknown]"),
        ("--instance elsewhere", 1, "[workspace.unknown]"),
        ("--roles --role a.b", 1, "role"),
        ("--image --all-roles --role-branch b --role local", 2, "[prewarm.combination]"),
    ] {
        let (is, out, err) = site.run(&format!("--dry-run {options}"));
        assert_eq!(is, code, "{options}: {err}");
        let all = out + &err;
        assert!(all.contains(words) && all.contains("help: "), "{options}: {all}");
    }
    let folder = Path::new("home/.jackin/data");
    let left: Vec<_> =
        std::fs::read_dir(site.path(&folder.to_string_lossy())).expect("data").map(|e| e.expect("an entry").file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with("prewarm-dind")), "{left:?}");
}
