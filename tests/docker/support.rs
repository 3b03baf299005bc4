//! One jackin installation per test: its own folder, configuration, role, workspace, agent; and whatever it made on the engine,
//! which goes when the test ends, however it ends.
//!
//! In: an engine. Out: runs of the real command, looks at the real engine. Absent: what should happen.

use super::proxy::Proxy;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Shutdown, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// Long enough for two busy cores, short enough to fail.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Builds on the construct and asks for no network.
const DOCKERFILE: &str = "FROM projectjackin/construct:0.1-trixie\n";
const MANIFEST: &str =
    "version = \"v1alpha6\"\ndockerfile = \"Dockerfile\"\nagents = [\"claude\"]\n\n[identity]\nname = \"Test\"\n\n[claude]\n";

/// Answers on demand, so that a test can tell what reached it.
const AGENT: &str = r#"#!/usr/bin/env bash
case ${1:-} in
  --version | -v) echo '0.0.1 (test agent)'; exit 0 ;;
  install | mcp | plugin | config | update) exit 0 ;;
esac
echo 'agent is listening'
while IFS= read -r line; do
  case $line in
    size) echo "size is $(stty size)" ;;
    exit) exit 0 ;;
    crash) exit 3 ;;
    hook\ *)
      read -r _ event type <<<"$line"
      printf '{"notification_type": "%s"}' "$type" | /jackin/runtime/agent-status/hooks/report-hook.sh claude "$event"
      echo "reported $event $type"
      ;;
    *) echo "you said: $line" ;;
  esac
done
"#;

/// Most tests share this role: its images are built once per engine and stay.
pub const SHARED_ROLE: &str = "jkt";

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Engine {
    pub host: String,
    pub second: bool,
}

impl Engine {
    /// The engine of this name, when tests on it were asked for.
    pub fn asked_for(second: bool) -> Option<Engine> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        if variable("JACKIN_TEST_DOCKER").is_none_or(|v| v != "1") {
            println!("not asked for: JACKIN_TEST_DOCKER=1 runs it against the engine");
            return None;
        }
        let host = match second {
            false => variable("DOCKER_HOST").unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned()),
            true => match variable("JACKIN_TEST_ENGINE2") {
                Some(host) => host,
                None => {
                    println!("not asked for: JACKIN_TEST_ENGINE2 names no second engine");
                    return None;
                }
            },
        };
        Some(Engine { host, second })
    }

    pub fn try_docker(&self, args: &[&str]) -> Output {
        Output::of(Command::new("docker").args(["--host", &self.host]).args(args).output().expect("the docker command"))
    }

    pub fn docker(&self, args: &[&str]) -> String {
        let output = self.try_docker(args);
        assert_eq!(output.code, Some(0), "docker {args:?}: {output}");
        output.out.trim_end().to_owned()
    }

    /// Builds the shared role's images, once per engine and process; later tests find them in place.
    fn prepare(&self) {
        static PREPARED: Mutex<BTreeSet<Engine>> = Mutex::new(BTreeSet::new());
        let mut prepared = PREPARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if prepared.insert(self.clone()) {
            let home = Home::bare(self, SHARED_ROLE, STANDARD);
            home.good(&["apply", "w", "--yes", "--target", &format!("derived-image/{SHARED_ROLE}")]);
        }
    }
}

#[derive(Debug)]
pub struct Output {
    /// None = ended by a signal.
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Output {
    fn of(output: std::process::Output) -> Output {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Output { code: output.status.code(), signal: output.status.signal(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "code {:?} signal {:?}\n--- out\n{}\n--- err\n{}", self.code, self.signal, self.out, self.err)
    }
}

/// Without a private Docker; starts in a second.
pub const STANDARD: &str = "[docker]\nprofile = \"standard\"\n";
/// With a private Docker daemon, the default.
pub const COMPAT: &str = "[docker]\nprofile = \"compat\"\n";

/// What an installation has on the engine, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Objects {
    pub containers: Vec<String>,
    pub networks: Vec<String>,
    pub volumes: Vec<String>,
}

pub struct Home {
    pub engine: Engine,
    folder: tempfile::TempDir,
    role: String,
    program: PathBuf,
    env: BTreeMap<String, String>,
}

impl Home {
    /// An installation with one workspace `w`, whose file ends in `docker`.
    pub fn new(engine: &Engine, docker: &str) -> Home {
        engine.prepare();
        Home::bare(engine, SHARED_ROLE, docker)
    }

    /// With a role of its own, whose images are not built yet and go with the test.
    pub fn with_own_role(engine: &Engine, docker: &str) -> Home {
        let random = std::collections::hash_map::RandomState::new();
        let id = std::hash::BuildHasher::hash_one(&random, std::process::id());
        Home::bare(engine, &format!("jkt{:08x}", id & 0xffff_ffff), docker)
    }

    fn bare(engine: &Engine, role: &str, docker: &str) -> Home {
        // Short, for a unix socket's path has room for 104 bytes. Below /tmp, which the second engine sees as well.
        let folder = tempfile::Builder::new().prefix("jk-").rand_bytes(5).tempdir_in("/tmp").expect("a folder");
        // The engine's containers may run as another user.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let capsule = std::env::var("JACKIN_CAPSULE_BIN").expect("JACKIN_CAPSULE_BIN names a static jackin-capsule; ./dev test sets it");
        let mut env = BTreeMap::from([("DOCKER_HOST".to_owned(), engine.host.clone()), ("JACKIN_CAPSULE_BIN".to_owned(), capsule)]);
        env.insert("JACKIN_AGENT_MIRROR".to_owned(), "off".to_owned());
        let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        env.insert("HOME".to_owned(), path(""));
        env.insert("JACKIN_CONFIG_DIR".to_owned(), path("config"));
        env.insert("JACKIN_HOME_DIR".to_owned(), path("state"));
        env.insert("JACKIN_AGENT_BIN_CLAUDE".to_owned(), path("agent"));
        for name in ["PATH", "JACKIN_CONSTRUCT_IMAGE", "JACKIN_DIND_IMAGE"] {
            if let Ok(value) = std::env::var(name) {
                env.insert(name.to_owned(), value);
            }
        }
        let home = Home { engine: engine.clone(), folder, role: role.to_owned(), program: env!("CARGO_BIN_EXE_jackin").into(), env };
        home.write_program("agent", AGENT);
        home.write("role/Dockerfile", DOCKERFILE);
        home.write("role/jackin.role.toml", MANIFEST);
        home.git("role", &["init", "-q", "-b", "main"]);
        home.commit("role", "Role");
        home.write("config/config.toml", &home.global_config());
        home.workspace("w", docker);
        home
    }

    pub fn global_config(&self) -> String {
        let url = self.path("role").display().to_string();
        format!(
            "version = \"v1alpha9\"\n\n[claude]\nauth_forward = \"ignore\"\n\n[roles.{}]\ngit = \"file://{url}\"\ntrusted = true\n",
            self.role
        )
    }

    /// A workspace of this name with a git repository of its own. `rest` is the end of its file.
    pub fn workspace(&self, name: &str, rest: &str) {
        let source = format!("src-{name}");
        if !self.path(&source).exists() {
            self.write(&format!("{source}/README"), "a file of the operator\n");
            self.git(&source, &["init", "-q", "-b", "main"]);
            self.commit(&source, "Begin");
        }
        let text = format!(
            "version = \"v1alpha8\"\nworkdir = \"/workspace\"\ndefault_role = \"{}\"\ndefault_agent = \"claude\"\n\n[[mounts]]\nsrc = \"{}\"\ndst = \"/workspace\"\n\n{rest}",
            self.role,
            self.path(&source).display(),
        );
        self.write(&format!("config/workspaces/{name}.toml"), &text);
    }

    pub fn write_agent(&self, script: &str) {
        assert_ne!(self.role, SHARED_ROLE, "tests that run beside this one would get the agent with the image");
        self.write_program("agent", script);
    }

    fn write_program(&self, name: &str, script: &str) {
        self.write(name, script);
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn write(&self, relative: &str, text: &str) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn git(&self, folder: &str, args: &[&str]) -> String {
        let output = Command::new("git")
            .arg("-C")
            .arg(self.path(folder))
            .args([
                "-c",
                "user.name=test",
                "-c",
                "user.email=test@localhost",
                "-c",
                "commit.gpgsign=false",
                "-c",
                "core.hooksPath=/dev/null",
            ])
            .args(args)
            .env("HOME", self.folder())
            // Equal files are an equal commit, and so an image that is there already.
            .env("GIT_AUTHOR_DATE", "2026-01-01T00:00:00Z")
            .env("GIT_COMMITTER_DATE", "2026-01-01T00:00:00Z")
            .output()
            .expect("git");
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    pub fn commit(&self, folder: &str, message: &str) {
        self.git(folder, &["add", "-A"]);
        self.git(folder, &["commit", "-q", "-m", message]);
    }

    pub fn set_env(&mut self, name: &str, value: &str) {
        self.env.insert(name.to_owned(), value.to_owned());
    }

    pub fn unset_env(&mut self, name: &str) {
        self.env.remove(name);
    }

    pub fn env(&self) -> &BTreeMap<String, String> {
        &self.env
    }

    pub fn role(&self) -> &str {
        &self.role
    }

    /// Runs a copy of the program from then on, with nothing beside it.
    pub fn move_program(&mut self) {
        fs::create_dir_all(self.path("bin")).unwrap();
        fs::copy(&self.program, self.path("bin/jackin")).unwrap();
        self.program = self.path("bin/jackin");
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).env_clear().envs(&self.env).current_dir(self.folder()).stdin(Stdio::null());
        command
    }

    pub fn output(command: &mut Command) -> Output {
        Output::of(command.output().expect("start"))
    }

    pub fn jackin(&self, args: &[&str]) -> Output {
        self.finish(args, self.start(args, None))
    }

    /// Through a proxy.
    pub fn jackin_by(&self, proxy: &Proxy, args: &[&str]) -> Output {
        let child = self.start(args, Some(proxy));
        self.finish(args, child)
    }

    pub fn start(&self, args: &[&str], proxy: Option<&Proxy>) -> Child {
        let mut command = self.command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(proxy) = proxy {
            command.env("DOCKER_HOST", proxy.host());
        }
        let child = command.spawn().expect("start jackin");
        if let Some(proxy) = proxy {
            proxy.victim(child.id());
        }
        child
    }

    /// Waits for the end, but not for ever.
    pub fn finish(&self, args: &[&str], child: Child) -> Output {
        let pid = rustix::process::Pid::from_child(&child);
        let (done, ended) = std::sync::mpsc::channel::<()>();
        let watchdog = thread::spawn(move || {
            let late = ended.recv_timeout(2 * PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
            if late {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            late
        });
        let output = Output::of(child.wait_with_output().expect("wait for jackin"));
        drop(done);
        assert!(!watchdog.join().unwrap(), "jackin {args:?} did not end: {output}");
        output
    }

    /// Must exit 0.
    pub fn good(&self, args: &[&str]) -> Output {
        let output = self.jackin(args);
        assert_eq!(output.code, Some(0), "jackin {args:?}: {output}");
        output
    }

    pub fn apply(&self) -> Output {
        self.good(&["apply", "--all", "--yes"])
    }

    pub fn plan(&self) -> Plan {
        let output = self.jackin(&["plan", "--all", "--format", "json"]);
        let json = serde_json::from_str(&output.out).unwrap_or_else(|error| panic!("{error}: {output}"));
        Plan { json, text: output.out }
    }

    pub fn assert_settled(&self, after: &str) {
        let output = self.jackin(&["plan", "--all", "--detailed-exitcode"]);
        assert_eq!(output.code, Some(0), "the plan is not empty {after}: {output}");
    }

    pub fn installation(&self) -> String {
        fs::read_to_string(self.path("state/data/installation")).map(|text| text.trim().to_owned()).unwrap_or_default()
    }

    fn labelled(&self, what: &[&str], format: &str) -> Vec<String> {
        let filter = format!("label=jackin.installation={}", self.installation());
        let output = self.engine.try_docker(&[what, &["--filter", &filter, "--format", format]].concat());
        let mut names: Vec<String> = output.out.lines().map(str::to_owned).collect();
        names.sort();
        names
    }

    pub fn objects(&self) -> Objects {
        Objects {
            containers: self.labelled(&["ps", "-a"], "{{.Names}}"),
            networks: self.labelled(&["network", "ls"], "{{.Name}}"),
            volumes: self.labelled(&["volume", "ls"], "{{.Name}}"),
        }
    }

    /// The capsule's container, when there is just one.
    pub fn capsule(&self) -> String {
        let containers = self.objects().containers;
        let capsules: Vec<&String> = containers.iter().filter(|name| !name.ends_with("-dind")).collect();
        assert_eq!(capsules.len(), 1, "{containers:?}");
        capsules[0].clone()
    }

    /// One instance: a capsule, a network, and with a sidecar that and its volume; nothing twice, everything running.
    pub fn assert_one_of_each(&self, sidecar: bool, after: &str) {
        let objects = self.objects();
        let base = objects.networks.first().and_then(|name| name.strip_suffix("-net")).unwrap_or_default().to_owned();
        let expected = match sidecar {
            true => Objects {
                containers: vec![base.clone(), format!("{base}-dind")],
                networks: vec![format!("{base}-net")],
                volumes: vec![format!("{base}-dind-certs")],
            },
            false => Objects { containers: vec![base.clone()], networks: vec![format!("{base}-net")], volumes: Vec::new() },
        };
        assert_eq!(objects, expected, "{after}");
        let states = self.labelled(&["ps", "-a"], "{{.State}}");
        assert!(states.iter().all(|state| state == "running"), "{after}: {states:?}");
    }

    /// Volumes of our containers, those without a name of their own included.
    pub fn mounted_volumes(&self) -> BTreeSet<String> {
        let format = "{{range .Mounts}}{{if eq .Type \"volume\"}}{{println .Name}}{{end}}{{end}}";
        let containers = self.labelled(&["ps", "-a"], "{{.ID}}");
        let inspected = containers.iter().map(|id| self.engine.try_docker(&["inspect", "--type", "container", "--format", format, id]).out);
        inspected.flat_map(|out| out.lines().filter(|l| !l.is_empty()).map(str::to_owned).collect::<Vec<_>>()).collect()
    }

    pub fn assert_gone(&self, volumes: &BTreeSet<String>, after: &str) {
        let left: Vec<&String> = volumes.iter().filter(|v| self.engine.try_docker(&["volume", "inspect", v]).code == Some(0)).collect();
        assert!(left.is_empty(), "{after}: volumes stay: {left:?}");
    }

    pub fn assert_nothing_left(&self, after: &str) {
        assert_eq!(self.objects(), Objects::default(), "{after}");
    }

    pub fn eject(&self) {
        self.good(&["eject", "--all", "--yes"]);
    }

    /// A second name for the engine that says nothing of sharing this host: bytes carried from a TCP port.
    pub fn over_tcp(&mut self) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let engine = PathBuf::from(self.env["DOCKER_HOST"].strip_prefix("unix://").expect("a unix socket"));
        self.set_env("DOCKER_HOST", &format!("tcp://127.0.0.1:{port}"));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = UnixStream::connect(&engine) else { continue };
                let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
                thread::spawn(move || {
                    let (mut from, mut to) = (server, client);
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Both);
                });
            }
        });
    }

    /// Moves the state to where the path of a socket does not fit a unix socket's address.
    pub fn deep_down(&mut self) {
        let deep = self.path(&["a-folder-with-a-long-name"; 4].join("/"));
        fs::create_dir_all(&deep).unwrap();
        std::os::unix::fs::symlink(&deep, self.path("state")).unwrap();
        self.set_env("JACKIN_HOME_DIR", &deep.to_string_lossy());
    }

    /// Removes whatever this installation has on the engine.
    pub fn clear_up(&self) {
        // Twice: a request of a killed jackin may still be under way.
        for _ in 0..2 {
            for (list, remove) in
                [(&["ps", "-a"][..], &["rm", "-fv"][..]), (&["network", "ls"], &["network", "rm"]), (&["volume", "ls"], &["volume", "rm"])]
            {
                let format = if list[0] == "volume" { "{{.Name}}" } else { "{{.ID}}" };
                for id in self.labelled(list, format) {
                    self.engine.try_docker(&[remove, &[&id]].concat());
                }
            }
        }
        if self.role != SHARED_ROLE {
            // Those that lost their name to a later build as well.
            let nameless = self.labelled(&["images", "--filter", "dangling=true"], "{{.ID}}");
            for image in self.images().into_iter().chain(nameless) {
                self.engine.try_docker(&["image", "rm", "-f", &image]);
            }
        }
    }

    /// Names of this role's own images.
    pub fn images(&self) -> Vec<String> {
        assert_ne!(self.role, SHARED_ROLE, "other tests need these");
        let images = self.engine.try_docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        let own = [format!("jk_{}:", self.role), format!("jk_{}__base:", self.role), format!("kept-{}:", self.role)];
        images.out.lines().filter(|name| own.iter().any(|own| name.starts_with(own))).map(str::to_owned).collect()
    }

    /// Takes the names away and leaves the layers, from which the next build is quick.
    pub fn hide_images(&self) {
        for (count, image) in self.images().into_iter().filter(|name| name.starts_with("jk_")).enumerate() {
            self.engine.docker(&["tag", &image, &format!("kept-{}:{count}", self.role)]);
            self.engine.docker(&["image", "rm", &image]);
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.clear_up();
    }
}

/// A plan as its readers in CI get it.
pub struct Plan {
    pub json: Value,
    pub text: String,
}

impl Plan {
    pub fn change(&self, address: &str) -> &Value {
        let changes = self.json["changes"].as_array().expect("changes");
        changes.iter().find(|change| change["address"] == address).unwrap_or_else(|| panic!("no {address} in {}", self.text))
    }

    pub fn action(&self, address: &str) -> &str {
        self.change(address)["action"].as_str().expect("an action")
    }

    pub fn reasons(&self, address: &str) -> &[Value] {
        self.change(address)["reasons"].as_array().map(Vec::as_slice).unwrap_or_default()
    }

    pub fn blockers(&self) -> &[Value] {
        self.json["blockers"].as_array().map(Vec::as_slice).unwrap_or_default()
    }
}

pub fn construct_image() -> String {
    std::env::var("JACKIN_CONSTRUCT_IMAGE").unwrap_or_else(|_| "projectjackin/construct:0.1-trixie".to_owned())
}

/// Asks again and again until it is so.
pub fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    let mut pause = Duration::from_millis(10);
    while !so() {
        assert!(begun.elapsed() < PATIENCE, "waited {} s for {what}", PATIENCE.as_secs());
        thread::sleep(pause);
        pause = (pause * 3 / 2).min(Duration::from_millis(250));
    }
}

pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found
}
