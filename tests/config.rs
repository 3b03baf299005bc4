//! The schemas of the files that people write, held against the programs that read them: what one accepts, the other accepts.

use jackin::config::{file, role, write};
use serde_json::Value;

type Reads = fn(&str) -> bool;

const GLOBAL: &str = r#"
version = "v1alpha9"
dirty_exit_policy = "keep"
role_repo_refresh_ttl_seconds = 0
data_dir = "/old"
[claude]
auth_forward = "oauth_token"
sync_source_dir = "~/.claude"
[kimi]
auth_forward = "api_key"
[github]
auth_forward = "token"
[github.env]
GH_TOKEN = "$GH_TOKEN"
[env]
A = "text"
B = { op = "op://vault/item/field", path = "V/I/F", account = "x", on_demand = true }
C = { value = "$HOME", on_demand = false }
[roles.agent-smith.env]
D = "${D}"
[roles."acme/web"]
git = "https://github.com/acme/jackin-web.git"
trusted = true
[binaries]
mirror = "file:///srv/a mirror"
mirrors.grok = "off"
mirrors.capsule = "http://10.0.0.1:8080/m"
[docker]
profile = "hardened"
[docker.grants]
network = "open"
allowed_hosts = ["example.com", "*.example.com:443"]
dind = "rootless"
user = "root"
sudo = false
system_writes = true
memory = "8G"
memory_reservation = "4gb"
cpus = 1.5
pids = 10
nofile = 10
capabilities_add = ["cap_net_admin", "SYS_PTRACE"]
[docker.mounts]
cache = { src = "~/cache", dst = "/cache", readonly = true }
[docker.mounts."acme/*"]
cache = { src = "/acme", dst = "/cache" }
[docker.mounts.agent-smith]
src = "/s"
dst = "/s"
[docker.mounts.agent-smith.more]
src = "/m"
dst = "/m"
[runtime]
default_backend = "docker"
[telemetry]
level = "trace"
categories = ["*"]
[git]
coauthor_trailer = true
dco = false
"#;

const WORKSPACE: &str = r#"
version = "v1alpha8"
workdir = "/workspace/app"
allowed_roles = ["agent-smith", "acme/web"]
default_role = "agent-smith"
default_agent = "grok"
last_role = "acme/web"
git_pull_on_entry = true
dirty_exit_policy = "ask"
[[mounts]]
src = "~/src/app"
dst = "/workspace/app"
isolation = "worktree"
[[mounts]]
src = "/data"
dst = "/data"
readonly = true
[env]
A = "op://vault/item/section/field"
[roles."acme/web".env]
B = "x"
[roles."acme/web".codex]
auth_forward = "ignore"
[roles."acme/web".github]
auth_forward = "sync"
[keep_awake]
enabled = true
[runtime]
backend = "docker"
[docker]
profile = "standard"
[docker.grants]
dind = "privileged"
[[instance]]
name = "review"
role = "acme/web"
agent = "codex"
[instance.docker]
profile = "locked"
"#;

const MANIFEST: &str = r#"
version = "v1alpha6"
dockerfile = "docker/Dockerfile"
published_image = "ghcr.io/acme/web:latest"
agents = ["claude", "codex", "amp", "kimi", "opencode", "grok"]
[identity]
name = "Web"
[claude]
model = "opus"
plugins = ["a@b"]
[[claude.marketplaces]]
source = "acme/market"
sparse = ["plugins"]
[claude.providers.zai]
model = "glm"
[codex]
[amp]
[kimi]
[opencode]
[grok]
model = "g"
[docker]
min_profile = "standard"
dind = "none"
allowed_hosts = ["example.com"]
capabilities_add = ["MKNOD"]
[hooks]
setup_once = "hooks/once.sh"
[env.PROJECT]
interactive = true
skippable = true
prompt = "Which?"
options = ["a", "b"]
[env.LABEL]
default = "${env.PROJECT}"
depends_on = ["env.PROJECT"]
"#;

fn reads_global(text: &str) -> bool {
    file::parse_global("f", text).is_ok()
}

fn reads_workspace(text: &str) -> bool {
    file::parse_workspace("w", "f", text).is_ok()
}

fn reads_manifest(text: &str) -> bool {
    role::parse_manifest("f", text).is_ok()
}

fn schema(name: &str) -> jsonschema::Validator {
    let path = format!("{}/schemas/{name}.schema.json", env!("CARGO_MANIFEST_DIR"));
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    jsonschema::draft202012::meta::validate(&schema).unwrap_or_else(|e| panic!("{name}: {e}"));
    jsonschema::draft202012::new(&schema).unwrap()
}

fn check(name: &str, reads: Reads, text: &str, sound: bool) {
    let document: Value = toml::from_str(text).unwrap();
    let errors: Vec<String> = schema(name).iter_errors(&document).map(|e| e.to_string()).collect();
    assert_eq!(errors.is_empty(), sound, "schema {name}: {errors:#?}\n{text}");
    assert_eq!(reads(text), sound, "reader {name}\n{text}");
}

#[test]
fn schema_and_reader_accept_the_same_good_files() {
    check("config", reads_global, GLOBAL, true);
    check("workspace", reads_workspace, WORKSPACE, true);
    check("role", reads_manifest, MANIFEST, true);
    check("config", reads_global, "", true);
    check("role", reads_manifest, "dockerfile = \"D\"\n[claude]", true);
    let mount =
        write::NewMount { src: "/s".to_owned(), dst: "/w".to_owned(), readonly: false, isolation: jackin::config::Isolation::Clone };
    let new = write::NewWorkspace { workdir: "/w".to_owned(), mounts: vec![mount], ..write::NewWorkspace::default() };
    check("workspace", reads_workspace, &write::render_workspace(&new), true);
}

#[test]
fn schema_and_reader_refuse_the_same_bad_files() {
    type Case<'a> = (&'a str, Reads, &'a str, &'a [(&'a str, &'a str)]);
    let bad: [Case<'_>; 3] = [
        (
            "config",
            reads_global,
            GLOBAL,
            &[
                ("[kimi]\nauth_forward = \"api_key\"", "[kimi]\nauth_forward = \"oauth_token\""),
                ("\"keep\"", "\"never\""),
                ("seconds = 0", "seconds = -1"),
                ("A = \"text\"", "JACKIN = \"text\""),
                ("op = \"op://", "op = \"no://"),
                ("on_demand = false", "on_demnad = false"),
                ("trusted = true", "trusetd = true"),
                ("\"8G\"", "\"8.5G\""),
                ("cpus = 1.5", "cpus = 0"),
                ("pids = 10", "pids = 0"),
                ("readonly = true }", "isolation = \"clone\" }"),
                ("level = \"trace\"", "level = \"loud\""),
                ("dco = false", "dco = \"no\""),
                ("default_backend", "backend"),
                ("v1alpha9", "v01"),
            ],
        ),
        (
            "workspace",
            reads_workspace,
            WORKSPACE,
            &[
                ("workdir = \"/workspace/app\"\n", ""),
                ("\"worktree\"", "\"branch\""),
                ("\"grok\"", "\"gork\""),
                ("enabled = true", "on = true"),
                ("name = \"review\"", "name = \"Review\""),
                ("name = \"review\"\n", ""),
                ("agent = \"codex\"\n", "agnet = \"codex\"\n"),
                ("backend = \"docker\"", "git_pull_on_entry = true"),
            ],
        ),
        (
            "role",
            reads_manifest,
            MANIFEST,
            &[
                ("dockerfile = \"docker/Dockerfile\"\n", ""),
                ("docker/Dockerfile", "../Dockerfile"),
                ("docker/Dockerfile", "/Dockerfile"),
                ("name = \"Web\"", ""),
                ("[amp]", "[amp]\nmodel = \"x\""),
                ("skippable = true", "skipable = true"),
                ("default = \"${env.PROJECT}\"\n", ""),
                ("\"a\", \"b\"", "\"${env.X}\""),
                ("[env.PROJECT]", "[env.\"1\"]"),
                ("\"grok\"]", "\"gork\"]"),
                ("setup_once", "setup"),
            ],
        ),
    ];
    for (name, reads, text, edits) in bad {
        for (from, to) in edits {
            assert!(text.contains(from), "{from}");
            check(name, reads, &text.replacen(from, to, 1), false);
        }
    }
}
