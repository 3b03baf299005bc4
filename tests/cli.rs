//! The program as a person or a script meets it: streams, exit codes, files left behind. No engine is needed; each test has a home
//! of its own.

use assert_cmd::Command;
use clap::CommandFactory;
use jackin::cli::Cli;
use jackin::plan::Plan;
use portable_pty::{CommandBuilder, PtySize, native_pty_system};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const JACKIN: &str = env!("CARGO_BIN_EXE_jackin");
const NO_ENGINE: &str = "unix:///nonexistent/docker.sock";
/// Never to be seen anywhere but in the files they were written into.
const CANARIES: [&str; 3] = ["canary-in-a-file", "canary-in-the-environment", "canary-on-the-command-line"];

const CONFIG: &str = "version = \"v1alpha9\"\n\n[roles.local]\ngit = \"ROLE\"\ntrusted = true\n";
const APP: &str =
    "version = \"v1alpha8\"\nworkdir = \"/workspace\"\ndefault_role = \"local\"\n\n[[mounts]]\nsrc = \"~/src/app\"\ndst = \"/workspace\"\n";
const MANIFEST: &str = "version = \"v1alpha6\"\ndockerfile = \"Dockerfile\"\n\n[claude]\n";
const DOCKERFILE: &str = "FROM projectjackin/construct:0.1-trixie\n";

/// A home folder, a role repository and a capsule program, in a folder of their own.
struct Site {
    root: tempfile::TempDir,
}

#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Site {
    /// Nothing is configured.
    fn empty() -> Site {
        let site = Site { root: tempfile::tempdir().expect("a temporary folder") };
        for folder in ["home/src/app", "cwd"] {
            std::fs::create_dir_all(site.path(folder)).expect("a folder");
        }
        site.write("capsule", "#!/bin/sh\n");
        std::fs::set_permissions(site.path("capsule"), PermissionsExt::from_mode(0o755)).expect("a run bit");
        site
    }

    /// Workspace `app` with a role that is cloned already.
    fn with_app() -> Site {
        let site = Site::empty();
        site.role(&[("jackin.role.toml", MANIFEST), ("Dockerfile", DOCKERFILE)]);
        site.config("config.toml", CONFIG);
        site.config("workspaces/app.toml", APP);
        assert_eq!(site.run(["graph"]).code, 0, "the role can be cloned");
        site
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(path, content).expect("a file");
    }

    /// A file below `~/.config/jackin`; `ROLE` stands for the role repository.
    fn config(&self, name: &str, text: &str) {
        self.write(&format!("home/.config/jackin/{name}"), text.replace("ROLE", &self.path("role").to_string_lossy()));
    }

    /// A role repository with these files in its one commit; none = no commit.
    fn role(&self, files: &[(&str, &str)]) {
        let git = |args: &[&str]| {
            let mut command = Command::new("git");
            command.args(["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]).args(args);
            command.env("HOME", self.path("home")).current_dir(self.path("role")).assert().success();
        };
        std::fs::create_dir_all(self.path("role")).expect("a folder");
        git(&["init", "-q", "."]);
        for (name, text) in files {
            self.write(&format!("role/{name}"), text);
        }
        if !files.is_empty() {
            git(&["add", "."]);
            git(&["commit", "-q", "-m", "role"]);
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(JACKIN);
        command.env_clear().current_dir(self.path("cwd")).timeout(Duration::from_secs(60));
        for (name, value) in self.environment() {
            command.env(name, value);
        }
        command
    }

    fn environment(&self) -> Vec<(&'static str, std::ffi::OsString)> {
        vec![
            ("PATH", std::env::var_os("PATH").expect("PATH")),
            ("HOME", self.path("home").into()),
            ("DOCKER_HOST", NO_ENGINE.into()),
            ("JACKIN_CAPSULE_BIN", self.path("capsule").into()),
            ("JACKIN_AGENT_MIRROR", "off".into()),
        ]
    }

    fn run(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Said {
        said(self.command().args(args))
    }

    /// Every file of the home folder, with its content.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        collect(&self.path("home"), &self.path("home"), &mut found);
        found
    }

    fn diaries(&self) -> Vec<String> {
        self.files().into_keys().filter(|name| name.starts_with(".jackin/data/diagnostics/runs/")).collect()
    }
}

fn said(command: &mut Command) -> Said {
    let output = command.output().expect("jackin runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("jackin speaks UTF-8");
    let code = output.status.code().unwrap_or_else(|| panic!("jackin ended by {:?}", output.status));
    Said { code, out: text(output.stdout), err: text(output.stderr) }
}

fn collect(root: &Path, folder: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            collect(root, &path, found);
        } else {
            let name = path.strip_prefix(root).expect("below root").to_string_lossy().into_owned();
            found.insert(name, std::fs::read(&path).unwrap_or_default());
        }
    }
}

/// What any command may leave behind: its diary, the installation's id and key, caches and locks.
fn may_be_written(file: &str) -> bool {
    let allowed = ["data/diagnostics/runs/", "data/installation", "data/digest.key", "cache/", "roles/"];
    file.strip_prefix(".jackin/").is_some_and(|name| allowed.iter().any(|a| name.starts_with(a)) || name.contains(".lock"))
        || file == ".config/jackin/config.lock"
}

#[track_caller]
fn nothing_but_traces(before: &BTreeMap<String, Vec<u8>>, after: &BTreeMap<String, Vec<u8>>) {
    let changed: Vec<&String> =
        after.iter().filter(|(name, text)| before.get(*name) != Some(text) && !may_be_written(name)).map(|(n, _)| n).collect();
    let gone: Vec<&String> = before.keys().filter(|name| !after.contains_key(*name) && !may_be_written(name)).collect();
    assert!(changed.is_empty() && gone.is_empty(), "written: {changed:?}, removed: {gone:?}");
}

/// Messages that begin with `error`.
fn errors(text: &str) -> usize {
    text.lines().filter(|line| line.starts_with("error")).count()
}

/// Every command as words, the program itself first.
fn commands() -> Vec<Vec<String>> {
    fn below(command: &clap::Command, path: &[String], out: &mut Vec<Vec<String>>) {
        out.push(path.to_vec());
        for inner in command.get_subcommands().filter(|c| c.get_name() != "help") {
            below(inner, &[path, &[inner.get_name().to_owned()]].concat(), out);
        }
    }
    let mut out = Vec::new();
    below(&Cli::command(), &[], &mut out);
    out
}

// ---- streams and exit codes ----

#[test]
fn results_go_to_stdout_talk_to_stderr_and_codes_are_as_promised() {
    let site = Site::with_app();
    site.config("workspaces/idle.toml", &APP.replace("default_role = \"local\"\n", ""));
    // Arguments, exit code, words on stdout, words on stderr; empty = nothing at all.
    let table: [(&[&str], i32, &str, &str); 14] = [
        (&["--version"], 0, env!("CARGO_PKG_VERSION"), ""),
        (&[], 0, "Usage: jackin", ""),
        (&["plan", "app", "--offline"], 0, "5 to create", ""),
        (&["plan", "app", "--offline", "--detailed-exitcode"], 2, "5 to create", ""),
        (&["plan", "idle", "--offline", "--detailed-exitcode"], 0, "No changes.", ""),
        (&["plan", "app", "--offline", "--out", "app.plan"], 0, "5 to create", "Saved to app.plan"),
        (&["plan", "app"], 1, "", "[docker.unreachable]"),
        (&["apply", "app", "--yes"], 1, "", "[docker.unreachable]"),
        (&["explain", "capsule/app/default", "--offline"], 0, "workspaces/app.toml:2:11", ""),
        (&["workspace", "list"], 0, "app", ""),
        (&["graph", "app"], 0, "digraph", ""),
        (&["doctor"], 1, "No Docker engine answers", ""),
        (&["conquer"], 2, "", "unrecognized subcommand"),
        (&["plan", "--format", "yaml"], 2, "", "invalid value"),
    ];
    for (args, code, out, err) in table {
        let said = site.run(args);
        assert_eq!(said.code, code, "{args:?}: {said:?}");
        assert!(said.out.contains(out) && said.out.is_empty() == out.is_empty(), "{args:?}, stdout: {said:?}");
        assert!(said.err.contains(err) && (said.err.is_empty() == err.is_empty()), "{args:?}, stderr: {said:?}");
    }
}

#[test]
fn without_an_engine_one_message_says_so() {
    let site = Site::with_app();
    for args in [
        &["apply", "app", "--yes"][..],
        &["apply"],
        &["status"],
        &["eject", "app"],
        &["exile", "--yes"],
        &["observe"],
        &["load", "local", "app", "--yes"],
    ] {
        let said = site.run(args);
        assert_eq!((said.code, errors(&said.err), said.out.as_str()), (1, 1, ""), "{args:?}: {said:?}");
        assert!(said.err.contains(NO_ENGINE) && said.err.contains("help:"), "{args:?}: {said:?}");
    }
}

/// Runs under a terminal and returns all that it wrote there.
fn under_a_terminal(site: &Site, args: &[&str], variables: &[(&str, &str)]) -> String {
    let pair = native_pty_system().openpty(PtySize { rows: 24, cols: 100, pixel_width: 0, pixel_height: 0 }).expect("a terminal");
    let mut command = CommandBuilder::new(JACKIN);
    command.args(args);
    command.cwd(site.path("cwd"));
    command.env_clear();
    for (name, value) in site.environment() {
        command.env(name, value);
    }
    for (name, value) in [("TERM", "xterm-256color")].iter().chain(variables) {
        command.env(name, value);
    }
    let mut child = pair.slave.spawn_command(command).expect("jackin starts");
    drop(pair.slave);
    let mut reader = pair.master.try_clone_reader().expect("a reader");
    let mut bytes = Vec::new();
    // The other end is closed when the program ends; Linux then reports an error instead of an end.
    let _ = reader.read_to_end(&mut bytes);
    child.wait().expect("jackin ends");
    String::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn colour_is_for_terminals_that_were_not_told_otherwise() {
    let site = Site::with_app();
    let plan = ["plan", "app", "--offline"];
    assert!(under_a_terminal(&site, &plan, &[]).contains('\x1b'), "a terminal gets colour");
    for (args, variables) in [
        (vec!["--no-color", "plan", "app", "--offline"], &[][..]),
        (plan.to_vec(), &[("NO_COLOR", "1")][..]),
        (plan.to_vec(), &[("TERM", "dumb")][..]),
        (vec!["plan", "app"], &[("NO_COLOR", "1")][..]),
        (vec!["--no-color", "plan", "nowhere"], &[][..]),
    ] {
        let text = under_a_terminal(&site, &args, variables);
        assert!(!text.is_empty() && !text.contains('\x1b'), "{args:?} {variables:?}: {text:?}");
    }
    assert!(!site.run(plan).out.contains('\x1b'), "a pipe gets none");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let site = Site::with_app();
    for args in [
        &["schema", "plan"][..],
        &["plan", "--offline", "--format", "json"],
        &["completions", "bash"],
        &["man"],
        &["--help"],
        &["workspace", "list"],
    ] {
        let mut command = std::process::Command::new(JACKIN);
        command.args(args).env_clear().envs(site.environment()).current_dir(site.path("cwd"));
        let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().expect("jackin starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("jackin ends");
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(0) && err.is_empty(), "{args:?}: {:?} {err}", output.status);
    }
}

// ---- the program about itself ----

#[test]
fn every_command_has_help_that_fits() {
    let site = Site::empty();
    let with_examples = ["", "plan", "apply", "load", "prewarm", "hardline", "eject", "explain", "graph", "observe", "workspace create"];
    let all = commands();
    assert!(all.len() > 20, "{all:?}");
    for path in all {
        for flag in ["--help", "-h"] {
            let said = site.run(path.iter().map(String::as_str).chain([flag]));
            assert_eq!((said.code, said.err.as_str()), (0, ""), "{path:?}");
            assert!(said.out.contains("Usage: jackin"), "{path:?}: {}", said.out);
            let wide: Vec<&str> = said.out.lines().filter(|line| line.chars().count() > 100).collect();
            assert!(wide.is_empty(), "{path:?} is wider than 100 columns: {wide:#?}");
            let wants = with_examples.contains(&path.join(" ").as_str());
            assert!(!wants || said.out.contains("Examples:"), "{path:?} has no examples");
        }
    }
}

/// An example that does not parse teaches nothing.
#[test]
fn examples_in_help_are_command_lines_that_parse() {
    let mut seen = 0;
    for path in commands() {
        let mut command = &mut Cli::command();
        for name in &path {
            command = command.find_subcommand_mut(name).expect("a command");
        }
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let lines = help.lines().filter_map(|line| line.strip_prefix("  jackin "));
        for line in lines {
            for part in format!("jackin {line}").split(" && ") {
                // What stands behind two blanks is a remark, and behind a bar another program.
                let words = part.split("   ").next().expect("a start").split(" | ").next().expect("a start").split_whitespace();
                let words: Vec<&str> = words.take_while(|word| *word != ">").collect();
                let parsed = Cli::command().try_get_matches_from(&words);
                assert!(parsed.is_ok(), "{path:?}: `{}`: {}", words.join(" "), parsed.unwrap_err());
                seen += 1;
            }
        }
    }
    assert!(seen > 20, "only {seen} examples were found");
}

#[test]
fn completions_are_scripts_of_their_shell() {
    let site = Site::empty();
    for shell in ["bash", "zsh", "fish"] {
        let said = site.run(["completions", shell]);
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{shell}");
        assert!(said.out.contains("hardline"), "{shell}: {}", said.out.len());
        if shell == "bash" {
            Command::new("bash").arg("-n").write_stdin(said.out).assert().success();
        }
    }
    assert_eq!(site.run(["completions", "cmd"]).code, 2);
}

#[test]
fn every_command_has_a_manual_page() {
    let site = Site::empty();
    for path in commands() {
        let said = site.run(["man"].into_iter().chain(path.iter().map(String::as_str)));
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{path:?}");
        assert!(said.out.contains(".TH") && said.out.contains(".SH NAME"), "{path:?}: {}", said.out);
    }
    let said = site.run(["man", "conquer"]);
    assert!(said.code == 1 && said.err.contains("[man.unknown]"), "{said:?}");
}

#[test]
fn schemas_are_those_in_the_folder() {
    let site = Site::empty();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
    let listed = site.run(["schema"]).out;
    let mut names: Vec<&str> = listed.lines().collect();
    names.sort_unstable();
    let mut files: Vec<String> = std::fs::read_dir(&folder)
        .expect("schemas/")
        .map(|e| e.expect("schemas/").file_name().into_string().expect("UTF-8"))
        .filter_map(|name| Some(name.strip_suffix(".schema.json")?.to_owned()))
        .collect();
    files.sort();
    assert_eq!(names, files);
    for name in names {
        let text = std::fs::read_to_string(folder.join(format!("{name}.schema.json"))).expect("a schema");
        assert_eq!(site.run(["schema", name]).out, text, "{name}");
    }
    let said = site.run(["schema", "castle"]);
    assert!(said.code == 1 && said.err.contains("[schema.unknown]") && said.err.contains("workspace"), "{said:?}");
}

// ---- plans ----

#[test]
fn a_plan_in_three_forms_and_as_a_file() {
    let site = Site::with_app();
    let json = site.run(["plan", "app", "--offline", "--format", "json"]).out;
    let plan = Plan::from_json("stdout", &json).expect("a plan");
    assert!(plan.steps.len() > 5, "{}", plan.steps.len());
    let markdown = site.run(["plan", "app", "--offline", "--format", "markdown"]).out;
    assert!(
        markdown.starts_with("### Plan for workspace app\n") && markdown.contains("| `+` | capsule/app/default | create |"),
        "{markdown}"
    );
    let human = site.run(["plan", "app", "--offline", "--out", "app.plan"]).out;
    assert!(human.contains(&plan.digest[..12]), "{human}");
    assert_eq!(std::fs::read_to_string(site.path("cwd/app.plan")).expect("the file"), json);
    // In its folder no name is needed.
    let here = said(site.command().current_dir(site.path("home/src/app")).args(["plan", "--offline", "--format", "json"]));
    assert_eq!(here.out, json);
}

#[test]
fn a_snapshot_takes_the_place_of_the_engine() {
    let site = Site::with_app();
    site.write("cwd/world.json", "{\"format_version\": 1, \"engine\": {\"api_version\": \"1.40\"}}\n");
    let said = site.run(["plan", "app", "--observed", "world.json"]);
    assert!(said.code == 1 && said.out.contains("[docker.too_old]"), "{said:?}");
    site.write("cwd/world.json", "{\"format_version\": 1, \"engine\": {\"api_version\": \"1.47\"}}\n");
    let said = site.run(["plan", "app", "--observed", "world.json"]);
    assert!(said.code == 0 && said.out.contains("5 to create"), "{said:?}");
    for (text, what) in [("{", "world.json"), ("{\"format_version\": 7}", "format 7"), ("{\"format_version\": 1, \"magic\": 1}", "magic")] {
        site.write("cwd/world.json", text);
        let said = site.run(["plan", "app", "--observed", "world.json"]);
        assert!(said.code == 1 && said.err.contains("[observed.unreadable]") && said.err.contains(what), "{said:?}");
    }
}

#[test]
fn a_debug_run_replays_to_the_same_bytes_here_and_elsewhere() {
    let site = Site::with_app();
    site.write("cwd/world.json", "{\"format_version\": 1, \"engine\": {\"api_version\": \"1.47\"}}\n");
    let first = site.run(["plan", "app", "--observed", "world.json", "--debug", "--format", "json"]);
    assert_eq!(first.code, 0, "{first:?}");
    let diary = site.diaries().pop().expect("a diary");
    let again = site.run(["plan", "--replay", "last", "--format", "json"]);
    assert_eq!((again.code, &again.out), (0, &first.out), "{}", again.err);
    let id = Path::new(&diary).file_stem().expect("a name").to_str().expect("UTF-8");
    assert_eq!(site.run(["plan", "--replay", id, "--format", "json"]).out, first.out);

    let elsewhere = Site::empty();
    elsewhere.write("cwd/run.jsonl", std::fs::read(site.path("home").join(&diary)).expect("the diary"));
    assert_eq!(elsewhere.run(["plan", "--replay", "run.jsonl", "--format", "json"]).out, first.out);

    let said = site.run(["plan", "--replay", "nonesuch"]);
    assert!(said.code == 1 && said.err.contains("[run.unknown]"), "{said:?}");
    site.run(["plan", "app", "--offline"]);
    let bare = site.diaries().pop().expect("a diary");
    let said = site.run(["plan", "--replay", Path::new(&bare).file_stem().expect("a name").to_str().expect("UTF-8")]);
    assert!(said.code == 1 && said.err.contains("[run.not_embedded]") && said.err.contains("--debug"), "{said:?}");
    assert_eq!(site.run(["plan", "--replay", "last", "--format", "json"]).out, first.out, "the last that can be replayed");
}

// ---- diaries ----

#[test]
fn every_invocation_leaves_one_diary() {
    let site = Site::with_app();
    let before = site.diaries().len();
    for (number, args) in [&["plan", "--offline"][..], &["plan", "app"], &["workspace", "list"], &["doctor"]].iter().enumerate() {
        site.run(*args);
        assert_eq!(site.diaries().len(), before + number + 1, "{args:?}");
    }
    for args in [&["schema", "plan"][..], &["completions", "fish"], &["man"], &["--version"], &["--help"]] {
        site.run(args);
    }
    assert_eq!(site.diaries().len(), before + 4, "commands about jackin itself leave none");
    for diary in site.diaries() {
        let text = std::fs::read_to_string(site.path("home").join(&diary)).expect("a diary");
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let kinds: Vec<&str> = lines.iter().map(|line| line["type"].as_str().unwrap_or_default()).collect();
        assert_eq!((kinds.first(), kinds.last()), (Some(&"run_started"), Some(&"run_finished")), "{text}");
    }
    let listed = site.run(["runs", "list", "--format", "json"]).out;
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    let rows = listed["data"].as_array().expect("rows");
    assert_eq!(rows[0]["command"], "doctor", "newest first");
    assert_eq!(rows[2]["exit_code"], 1, "{rows:?}");
    let shown = site.run(["runs", "show", "last"]);
    assert!(shown.out.contains("doctor") && shown.out.contains("exit 1"), "looking at diaries is not worth looking at: {shown:?}");
    let said = site.run(["runs", "show", rows[2]["run_id"].as_str().expect("an id")]);
    assert!(said.out.contains("[docker.unreachable]"), "{said:?}");
}

// ---- workspaces ----

#[test]
fn a_workspace_from_create_to_remove() {
    let site = Site::empty();
    let create = ["workspace", "create", "web", "--workdir", "/app", "--mount", "~/src/app:/app:ro", "--default-role", "agent-smith"];
    let before = site.files();
    let dry = site.run(create.iter().chain(&["--dry-run"]));
    assert!(dry.code == 0 && dry.out.contains("workdir = \"/app\""), "{dry:?}");
    nothing_but_traces(&before, &site.files());

    let made = site.run(create);
    assert!(made.code == 0 && made.out.is_empty() && made.err.contains("workspaces/web.toml"), "{made:?}");
    let file = std::fs::read_to_string(site.path("home/.config/jackin/workspaces/web.toml")).expect("the file");
    assert_eq!(file, dry.out, "the dry run shows what is written");
    let mode = std::fs::metadata(site.path("home/.config/jackin/workspaces/web.toml")).expect("the file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let again = site.run(create);
    assert!(again.code == 1 && again.err.contains("[workspace.exists]"), "{again:?}");
    assert!(site.run(["workspace", "list"]).out.contains("web"));
    let shown: Value = serde_json::from_str(&site.run(["workspace", "show", "web", "--format", "json"]).out).expect("JSON");
    assert_eq!(shown["data"]["workdir"], "/app");
    assert_eq!(shown["data"]["mounts"][0]["src"], "~/src/app");
    assert_eq!(shown["data"]["mounts"][0]["readonly"], true);
    let human = site.run(["workspace", "show", "web"]).out;
    assert!(human.contains("~/src/app -> /app (read-only)") && human.contains("web/default"), "{human}");

    let dry = site.run(["workspace", "remove", "web", "--dry-run"]);
    assert!(dry.code == 0 && dry.out.contains("workspaces/web.toml"), "{dry:?}");
    // Nobody can be asked: nothing is removed.
    let asked = site.run(["workspace", "remove", "web"]);
    assert!(asked.code != 0 && site.path("home/.config/jackin/workspaces/web.toml").is_file(), "{asked:?}");
    let removed = site.run(["workspace", "remove", "web", "--yes"]);
    assert!(removed.code == 0 && !site.path("home/.config/jackin/workspaces/web.toml").exists(), "{removed:?}");
    let empty = site.run(["workspace", "list"]);
    assert!(empty.code == 0 && empty.out.is_empty() && empty.err.contains("workspace create"), "{empty:?}");
}

#[test]
fn a_name_that_is_nearly_right_is_guessed() {
    let site = Site::with_app();
    for args in [
        &["plan", "ap"][..],
        &["apply", "ap", "--yes"],
        &["graph", "ap"],
        &["workspace", "show", "ap"],
        &["workspace", "remove", "ap", "--yes"],
        &["load", "local", "ap"],
    ] {
        let said = site.run(args);
        assert_eq!((said.code, errors(&said.err), said.out.as_str()), (1, 1, ""), "{args:?}: {said:?}");
        assert!(said.err.contains("[workspace.unknown]") && said.err.contains("`app`"), "{args:?}: {said:?}");
    }
    let said = site.run(["plan", "--offline", "--target", "capsule/app/defualt"]);
    assert!(said.code == 1 && said.out.contains("Did you mean capsule/app/default?"), "{said:?}");
    let said = site.run(["explain", "capsule/app/defualt", "--offline"]);
    assert!(said.code == 1 && said.err.contains("[plan.unknown_address]"), "{said:?}");
}

// ---- bad input ----

/// Exit code 1, so many messages, each of these words, and nothing written.
#[track_caller]
fn refused(name: &str, site: &Site, said: &Said, before: &BTreeMap<String, Vec<u8>>, count: usize, words: &[&str]) {
    let text = format!("{}{}", said.out, said.err);
    assert_eq!(said.code, 1, "{name}: {said:?}");
    let (heads, _) = text.split_once("\nBlocked by").unwrap_or((&text, ""));
    assert_eq!(errors(heads), count, "{name}: {text}");
    for word in words {
        assert!(text.contains(word), "{name}: `{word}` is missing in\n{text}");
    }
    assert!(text.contains("help:"), "{name}: no way out in\n{text}");
    assert!(!text.contains("panicked"), "{name}: {text}");
    nothing_but_traces(before, &site.files());
}

#[test]
fn bad_configuration_is_refused_whole() {
    let long_role = "r".repeat(300);
    let long_instance = format!("{APP}\n[[instance]]\nname = \"{}\"\nrole = \"local\"\n", "i".repeat(33));
    let twice = format!("{APP}\n[[mounts]]\nsrc = \"~/src\"\ndst = \"/workspace\"\n");
    // File, its text, number of messages, words in them.
    let table: Vec<(&str, &str, String, usize, Vec<&str>)> = vec![
        ("broken TOML", "config.toml", "version = \"v1alpha9\"\n[roles\n".into(), 1, vec!["config.toml:2", "[config."]),
        ("not TOML at all", "workspaces/app.toml", "\u{0}\u{1}".into(), 1, vec!["workspaces/app.toml"]),
        (
            "unknown field",
            "workspaces/app.toml",
            APP.replace("src =", "source ="),
            1,
            vec!["workspaces/app.toml:6", "source", "[config.unknown_field]"],
        ),
        (
            "wrong types",
            "workspaces/app.toml",
            APP.replace("\"/workspace\"\ndef", "7\ndef").replace("\"~/src/app\"", "true"),
            2,
            vec!["workspaces/app.toml:2:11", "workspaces/app.toml:6:7"],
        ),
        ("newer version", "workspaces/app.toml", APP.replace("v1alpha8", "v2"), 1, vec!["workspaces/app.toml:1", "v2"]),
        ("newer version", "config.toml", "version = \"v1alpha99\"\n".into(), 1, vec!["config.toml:1", "v1alpha99"]),
        ("nonsense version", "config.toml", "version = \"latest\"\n".into(), 1, vec!["config.toml:1", "latest"]),
        ("two mounts on one target", "workspaces/app.toml", twice, 1, vec!["workspaces/app.toml:11", "/workspace"]),
        ("relative target", "workspaces/app.toml", APP.replace("dst = \"/", "dst = \""), 1, vec!["workspaces/app.toml:7"]),
        ("long instance name", "workspaces/app.toml", long_instance, 1, vec!["32", "workspaces/app.toml:10"]),
        ("long role key", "workspaces/app.toml", APP.replace("local", &long_role), 1, vec!["rrrr"]),
        ("malformed role key", "workspaces/app.toml", APP.replace("local", "../x"), 1, vec!["../x"]),
        ("role without a source", "workspaces/app.toml", APP.replace("local", "nowhere"), 1, vec!["nowhere", "config.toml"]),
        (
            "missing host path",
            "workspaces/app.toml",
            APP.replace("src/app", "src/gone"),
            1,
            vec!["[mount.missing]", "~/src/gone", "workspaces/app.toml:6:7"],
        ),
        (
            "unset variable",
            "workspaces/app.toml",
            format!("{APP}\n[env]\nKEY = \"$UNSET_HERE\"\n"),
            1,
            vec!["[env.unset]", "UNSET_HERE", "workspaces/app.toml:10:7"],
        ),
        (
            "unknown profile",
            "workspaces/app.toml",
            format!("{APP}\n[docker]\nprofile = \"lax\"\n"),
            1,
            vec!["workspaces/app.toml:10", "lax", "standard"],
        ),
    ];
    for (name, file, text, count, words) in table {
        let site = Site::with_app();
        site.config(file, &text);
        let before = site.files();
        let said = site.run(["plan", "--offline"]);
        refused(name, &site, &said, &before, count, &words);
    }
}

#[test]
fn mistakes_of_all_files_are_told_at_once() {
    let site = Site::with_app();
    site.config("config.toml", "version = 1\n");
    site.config("workspaces/app.toml", &APP.replace("workdir", "work_dir"));
    site.config("workspaces/web.toml", "version = \"v1alpha8\"\n");
    let before = site.files();
    let said = site.run(["plan", "--offline"]);
    assert_eq!(said.code, 1);
    for file in ["config.toml:1", "workspaces/app.toml", "workspaces/web.toml"] {
        assert!(said.err.contains(file), "{file} is missing in\n{}", said.err);
    }
    nothing_but_traces(&before, &site.files());
}

#[test]
fn files_that_are_no_texts_are_refused() {
    let not_utf8 = Site::with_app();
    not_utf8.write("home/.config/jackin/workspaces/app.toml", b"version = \"v1alpha8\"\nworkdir = \"/w\xff\"\n");
    let folder = Site::with_app();
    std::fs::remove_file(folder.path("home/.config/jackin/config.toml")).expect("it was there");
    std::fs::create_dir(folder.path("home/.config/jackin/config.toml")).expect("a folder");
    let link = Site::with_app();
    std::os::unix::fs::symlink("/nonexistent/web.toml", link.path("home/.config/jackin/workspaces/web.toml")).expect("a link");
    let name = Site::with_app();
    name.write("home/.config/jackin/workspaces/plain.toml", APP);
    let odd = name.path("home/.config/jackin/workspaces").join(OsStr::from_bytes(b"\xff.toml"));
    std::fs::write(odd, APP).expect("a file");
    for (what, site, words) in [
        ("not UTF-8", &not_utf8, ["workspaces/app.toml, line 2", "UTF-8"]),
        ("a folder", &folder, ["config.toml", "irectory"]),
        ("a dangling link", &link, ["web.toml", "does not exist"]),
        ("a name that is not UTF-8", &name, ["UTF-8", "rename"]),
    ] {
        let before = site.files();
        let said = site.run(["plan", "--offline"]);
        refused(what, site, &said, &before, 1, &words);
    }
}

#[test]
fn nothing_configured_is_no_mistake() {
    let site = Site::empty();
    let said = site.run(["plan", "--offline"]);
    assert!(said.code == 0 && said.out.contains("No changes."), "{said:?}");
    std::fs::remove_dir_all(site.path("home/src")).expect("it was there");
    let said = site.run(["workspace", "list", "--format", "json"]);
    assert!(said.code == 0 && said.out.contains("[]"), "{said:?}");
}

#[test]
fn a_huge_configuration_is_read_and_a_monstrous_one_refused() {
    let site = Site::with_app();
    let roles: String = (0..1000).map(|n| format!("[roles.\"acme/r{n}\"]\ngit = \"https://git.example/{n}.git\"\n")).collect();
    let comments = |lines| format!("# {}\n", "x".repeat(97)).repeat(lines);
    site.config("config.toml", &format!("{CONFIG}{roles}{}", comments(70_000)));
    let said = site.run(["plan", "app", "--offline"]);
    assert!(said.code == 0 && said.out.contains("5 to create"), "{said:?}");
    site.config("config.toml", &format!("{CONFIG}{roles}{}", comments(100_000)));
    let before = site.files();
    let said = site.run(["plan", "app", "--offline"]);
    refused("10 MB", &site, &said, &before, 1, &["[config.too_large]", "config.toml", "at most"]);
}

#[test]
fn names_at_every_limit() {
    let site = Site::with_app();
    let create = |name: &str| site.run(["workspace", "create", name, "--workdir", "/w", "--mount", "~/src/app:/w"]);
    let longest = (1..=300).rev().find(|n| create(&"w".repeat(*n)).code == 0).expect("some length is allowed");
    assert!(longest >= 32, "{longest}");
    assert!(site.run(["workspace", "show", &"w".repeat(longest)]).code == 0, "what was made can be shown");
    let before = site.files();
    for name in [&"w".repeat(longest + 1)[..], "", ".", "..", "a/b", "a\nb", "-x", " ", ".hidden"] {
        let said = create(name);
        assert!(matches!(said.code, 1 | 2) && errors(&said.err) == 1, "{name:?}: {said:?}");
    }
    nothing_but_traces(&before, &site.files());
    // Names of Docker objects stay within a DNS label, however long the parts are.
    site.config(&format!("workspaces/{}.toml", "w".repeat(longest)), &APP.replace("\"~/src/app\"", "\"~/src\""));
    let json = site.run(["plan", &"w".repeat(longest), "--offline", "--format", "json"]).out;
    let plan = Plan::from_json("stdout", &json).expect("a plan");
    for info in plan.instances.values() {
        assert!(format!("{}-dind", info.container).len() <= 63, "{}", info.container);
    }
}

#[test]
fn bad_roles_are_refused() {
    let fresh = |files: &[(&str, &str)]| {
        let site = Site::empty();
        site.role(files);
        site.config("config.toml", CONFIG);
        site.config("workspaces/app.toml", APP);
        site
    };
    let newer = MANIFEST.replace("v1alpha6", "v9");
    for (name, files, words) in [
        ("no commit", vec![], vec!["[role.no_commit]"]),
        ("no manifest", vec![("Dockerfile", DOCKERFILE)], vec!["[role.no_manifest]", "jackin.role.toml"]),
        ("newer manifest", vec![("jackin.role.toml", newer.as_str()), ("Dockerfile", DOCKERFILE)], vec!["v9", "jackin.role.toml:1"]),
        ("no Dockerfile", vec![("jackin.role.toml", MANIFEST)], vec!["[role.path]", "Dockerfile"]),
        ("another base", vec![("jackin.role.toml", MANIFEST), ("Dockerfile", "FROM debian\n")], vec!["[role.construct]", "Dockerfile:1:6"]),
    ] {
        let site = fresh(&files);
        let before = site.files();
        let said = site.run(["graph"]);
        refused(name, &site, &said, &before, 1, &words);
    }
    let gone = fresh(&[("jackin.role.toml", MANIFEST), ("Dockerfile", DOCKERFILE)]);
    std::fs::remove_dir_all(gone.path("role")).expect("it was there");
    let before = gone.files();
    refused("repository gone", &gone, &gone.run(["graph"]), &before, 1, &["local", "help:"]);
    let offline = fresh(&[("jackin.role.toml", MANIFEST), ("Dockerfile", DOCKERFILE)]);
    let before = offline.files();
    refused("never cloned", &offline, &offline.run(["plan", "--offline"]), &before, 1, &["[role.not_cached]", "--offline"]);
}

#[test]
fn git_that_is_missing_or_dies_is_told() {
    let site = Site::with_app();
    let before = site.files();
    std::fs::create_dir(site.path("no-git")).expect("a folder");
    let said = said(site.command().env("PATH", site.path("no-git")).args(["graph"]));
    refused("no git", &site, &said, &before, 1, &["git", "PATH"]);
    for (name, script) in [("killed", "#!/bin/sh\nkill -9 $$\n"), ("failing", "#!/bin/sh\necho broken >&2\nexit 3\n")] {
        let site = Site::with_app();
        site.write("bin/git", script);
        std::fs::set_permissions(site.path("bin/git"), PermissionsExt::from_mode(0o755)).expect("a run bit");
        std::fs::remove_dir_all(site.path("home/.jackin/roles")).expect("a clone");
        let before = site.files();
        let path = format!("{}:/usr/bin:/bin", site.path("bin").display());
        let said = self::said(site.command().env("PATH", path).args(["graph"]));
        refused(name, &site, &said, &before, 1, &["local"]);
    }
}

#[test]
fn bad_folders_are_told() {
    let site = Site::with_app();
    site.write("cwd/file", "");
    for (name, variable, value, words) in [
        ("relative home", "JACKIN_HOME_DIR", "jackin".into(), ["JACKIN_HOME_DIR", "absolute"]),
        ("relative config", "JACKIN_CONFIG_DIR", "./c".into(), ["JACKIN_CONFIG_DIR", "absolute"]),
        ("a file as home", "JACKIN_HOME_DIR", site.path("cwd/file").to_string_lossy().into_owned(), ["cwd/file", "irectory"]),
        ("a file as config", "JACKIN_CONFIG_DIR", site.path("cwd/file").to_string_lossy().into_owned(), ["cwd/file", "irectory"]),
    ] {
        let before = site.files();
        let said = said(site.command().env(variable, value).args(["plan", "--offline"]));
        refused(name, &site, &said, &before, 1, &words);
    }
    let said = said(site.command().env_remove("HOME").args(["plan", "--offline"]));
    assert!(said.code == 1 && said.err.contains("[paths.no_home]"), "{said:?}");
    assert!(!site.path("cwd/jackin").exists() && !site.path("cwd/c").exists());
}

#[test]
fn bad_plan_files_are_refused() {
    let site = Site::with_app();
    site.run(["plan", "app", "--offline", "--out", "good.plan"]);
    let good = std::fs::read_to_string(site.path("cwd/good.plan")).expect("a plan");
    let tampered = good.replacen("\"readonly\": true", "\"readonly\": false", 1);
    assert_ne!(good, tampered);
    for (name, text, words) in [
        ("malformed", "{\"format_version\":".to_owned(), ["bad.plan", "line 1"]),
        ("not a plan", "{}".to_owned(), ["bad.plan", "format_version"]),
        ("empty", String::new(), ["bad.plan", "line 1"]),
        ("tampered", tampered, ["bad.plan", "changed after it was written"]),
        ("newer", good.replacen("\"format_version\": 1", "\"format_version\": 2", 1), ["bad.plan", "format 2"]),
        (
            "with a stranger in it",
            good.replacen("\"format_version\": 1", "\"format_version\": 1, \"surprise\": 1", 1),
            ["bad.plan", "surprise"],
        ),
    ] {
        site.write("cwd/bad.plan", text);
        let before = site.files();
        let said = site.run(["apply", "bad.plan"]);
        assert!(said.err.contains("[plan.unreadable]"), "{name}: {said:?}");
        refused(name, &site, &said, &before, 1, &words);
    }
    // A good one is read, and stops at the engine.
    let said = site.run(["apply", "good.plan"]);
    assert!(said.code == 1 && said.err.contains("[docker.unreachable]"), "{said:?}");
}

#[test]
fn wrong_usage_is_code_2_and_leaves_nothing() {
    let site = Site::empty();
    for args in [
        &["plan", "--target", "castle/x"][..],
        &["plan", "--target", "capsule/"],
        &["plan", "--offline", "--observed", "x"],
        &["plan", "--all", "app"],
        &["plan", "--replay", "last", "app"],
        &["apply", "--parallelism", "0"],
        &["load", "local", "app", "--agent", "hal"],
        &["load", "local", "app", "--docker-profile", "lax"],
        &["load", "local", "app", "--env", "NOVALUE"],
        &["load", "local", "app", "--env", "=x"],
        &["hardline", "app", "--new", "--shell"],
        &["eject"],
        &["workspace", "create", "x"],
        &["runs"],
    ] {
        let said = site.run(args);
        assert_eq!((said.code, errors(&said.err) <= 1, said.out.as_str()), (2, true, ""), "{args:?}: {said:?}");
        assert!(!said.err.is_empty(), "{args:?}");
    }
    assert!(site.files().is_empty(), "{:?}", site.files().keys());
}

// ---- secrets ----

#[test]
fn secrets_are_seen_nowhere() {
    let site = Site::empty();
    let [in_file, in_environment, on_command_line] = CANARIES;
    site.role(&[
        ("jackin.role.toml", &format!("{MANIFEST}\n[env.ASKED]\ninteractive = true\nprompt = \"Say it\"\n")),
        ("Dockerfile", DOCKERFILE),
    ]);
    site.config("config.toml", &format!("{CONFIG}\n[env]\nLITERAL = \"{in_file}\"\n"));
    site.config("workspaces/app.toml", &format!("{APP}\n[env]\nANTHROPIC_API_KEY = \"$CANARY\"\n"));
    let answer = format!("ASKED={on_command_line}");
    let app = "app";
    let runs: [&[&str]; 12] = [
        &["graph", "--format", "json"],
        &["plan", app, "--env", &answer],
        &["plan", app, "--offline", "--env", &answer, "--verbose", "--debug"],
        &["plan", app, "--offline", "--env", &answer, "--format", "json", "--out", "app.plan"],
        &["plan", app, "--offline", "--env", &answer, "--format", "markdown"],
        &["plan", app, "--offline"],
        &["apply", app, "--yes", "--env", &answer, "--debug"],
        &["explain", "capsule/app/default", "--offline"],
        &["workspace", "show", app],
        &["workspace", "list", "--format", "json"],
        &["doctor", "--format", "json"],
        &["runs", "show", "last", "--format", "json"],
    ];
    let mut seen = String::new();
    for args in runs {
        let said = said(site.command().env("CANARY", in_environment).args(args));
        seen += &said.out;
        seen += &said.err;
    }
    // A broken file is quoted in a message, but never its values of env.
    site.config("config.toml", &format!("{CONFIG}\n[env]\nLITERAL = \"{in_file}\"\nBROKEN = [\"{in_file}\"\n"));
    seen += &site.run(["plan", "--offline"]).err;
    site.config("config.toml", &format!("{CONFIG}\n[env]\nLITERAL = {{ value = \"{in_file}\", colour = \"{in_file}\" }}\n"));
    seen += &site.run(["plan", "--offline"]).err;
    assert!(seen.contains("LITERAL") && seen.contains("ANTHROPIC_API_KEY") && seen.contains("ASKED"), "{seen}");
    for canary in CANARIES {
        assert!(!seen.contains(canary), "{canary} was printed:\n{seen}");
        let own = [".config/jackin/config.toml"];
        for (name, text) in site.files().iter().filter(|(name, _)| !own.contains(&name.as_str())) {
            assert!(!String::from_utf8_lossy(text).contains(canary), "{canary} is in {name}");
        }
        let plan = std::fs::read_to_string(site.path("cwd/app.plan")).expect("the saved plan");
        assert!(!plan.contains(canary), "{canary} is in the saved plan");
    }
}
