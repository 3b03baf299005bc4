//! The hook script and the plugins, run as the agents run them, against a stand-in for the capsule that writes down what
//! it is told. Needs `sh`, `shellcheck` and `node`.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

struct World {
    dir: tempfile::TempDir,
}

fn hooks() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("runtime/agent-status/hooks")
}

/// One line per call: the source, the arguments, the payload.
fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let capsule = dir.path().join("jackin-capsule");
    let log = dir.path().join("log");
    let payload = r#"case "$*" in *--payload-stdin*) payload=$(cat) ;; esac"#;
    let script = format!("#!/bin/sh\n{payload}\necho \"$JACKIN_STATUS_SOURCE $* $payload\" >>'{}'\nexit 3\n", log.display());
    fs::write(&capsule, script).unwrap();
    fs::set_permissions(&capsule, fs::Permissions::from_mode(0o755)).unwrap();
    World { dir }
}

impl World {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_remove("JACKIN_SESSION_ID").env("JACKIN_RUNTIME_DIR", self.dir.path());
        command
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Loads a plugin as its agent does, then runs `script` with it as `plugin`.
    fn node(&self, plugin: &str, name: &str, session: Option<&str>, script: &str) {
        let copy = self.dir.path().join(name);
        fs::copy(hooks().join(plugin), &copy).unwrap();
        let main = self.dir.path().join("main.mjs");
        fs::write(&main, format!("import * as plugin from {:?}\n{script}\n", copy.display().to_string())).unwrap();
        let mut command = self.command("node");
        if let Some(session) = session {
            command.env("JACKIN_SESSION_ID", session);
        }
        let output = command.arg(&main).output().expect("node is needed for this test");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn the_script_is_clean() {
    let status = Command::new("shellcheck").arg(hooks().join("report-hook.sh")).status().expect("shellcheck is needed for this test");
    assert!(status.success());
}

#[test]
fn the_script_reports_and_always_succeeds() {
    let run = |world: &World, session: Option<&str>, args: &[&str]| {
        let mut command = world.command("sh");
        command.env("JACKIN_AGENT_RUNTIME", "codex").env("JACKIN_STATUS_SOURCE", "hook-codex-7");
        if let Some(session) = session {
            command.env("JACKIN_SESSION_ID", session);
        }
        let mut child = command
            .arg(hooks().join("report-hook.sh"))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Outside a session nobody reads it.
        let _ = child.stdin.take().unwrap().write_all(b"{\"a\":1}");
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
    };
    let world = world();
    run(&world, Some("7"), &["claude", "Stop"]);
    assert_eq!(world.log(), "hook-claude-7 report-event --event Stop --payload-stdin {\"a\":1}\n", "whoever the session was started as");
    run(&world, None, &["claude", "Stop"]);
    run(&world, Some("7"), &["claude"]);
    assert_eq!(world.log().lines().count(), 1);
    fs::remove_file(world.dir.path().join("jackin-capsule")).unwrap();
    run(&world, Some("7"), &["claude", "Stop"]);
}

const OPENCODE: &str = r#"
const hooks = await plugin.JackinStatus({})
const tell = (type, properties) => hooks.event({ event: { type, properties } })
await tell("session.created", { info: { id: "child", parentID: "main" } })
await tell("session.status", { sessionID: "main", status: { type: "busy" } })
await hooks["tool.execute.before"]({ tool: "bash" }, { args: { command: "secret" } })
await tell("session.idle", { sessionID: "child" })
await tell("permission.asked", { sessionID: "child" })
await tell("permission.replied", {})
await hooks["tool.execute.after"]({}, {})
await tell("message.part.updated", {})
await tell("nonsense")
await hooks.event({})
await tell("session.idle", { sessionID: "main" })
"#;

#[test]
fn opencode_reports_in_order() {
    let world = world();
    world.node("opencode/plugin.js", "plugin.mjs", Some("3"), OPENCODE);
    let expected = [
        "session.status --payload-stdin {\"status\":\"busy\"}",
        "tool.execute.before --payload-stdin {}",
        "permission.asked --payload-stdin {}",
        "permission.replied --payload-stdin {}",
        "tool.execute.after --payload-stdin {}",
        "session.idle --payload-stdin {}",
    ];
    let expected: String = expected.map(|event| format!("hook-opencode-3 report-event --event {event}\n")).concat();
    assert_eq!(world.log(), expected);
}

const AMP: &str = r#"
const handlers = {}
plugin.default({ on: (event, handler) => (handlers[event] = handler) })
if (handlers["tool.call"]) throw new Error("it has a say in tools")
for (const event of ["agent.start", "tool.result", "agent.end"]) {
  if ((await handlers[event]({ message: "secret" }, {})) !== undefined) throw new Error(`${event} says something`)
}
"#;

#[test]
fn amp_reports_in_order() {
    let world = world();
    // It is plain JavaScript, whatever its name.
    world.node("amp/plugin.ts", "plugin.mjs", Some("4"), AMP);
    let expected = ["agent.start", "tool.result", "agent.end"].map(|event| format!("hook-amp-4 report-event --event {event} \n")).concat();
    assert_eq!(world.log(), expected);
}

#[test]
fn plugins_do_nothing_outside_a_session_and_survive_a_missing_capsule() {
    let world = world();
    world.node("opencode/plugin.js", "one.mjs", None, OPENCODE);
    world.node("amp/plugin.ts", "two.mjs", None, AMP);
    assert_eq!(world.log(), "");
    fs::remove_file(world.dir.path().join("jackin-capsule")).unwrap();
    world.node("opencode/plugin.js", "one.mjs", Some("1"), OPENCODE);
    world.node("amp/plugin.ts", "two.mjs", Some("1"), AMP);
}
