//! This host's part of the world: durable homes, their records, program files.
//!
//! In: specs with the home shown as `~`. Out: what lies on disk, in the fields' names, and files written whole or not at all.
//! Absent: git and credentials, which come in as values. An instance's recorded spec is written last: until it is there, the home
//! counts as unfinished and the next plan writes it again.

use super::StepError;
use super::docker::HomeRecord;
use super::live::{Digest, Sources};
use crate::config::{Agent, AuthMode};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::facts::{BinaryFact, Facts};
use crate::graph::Graph;
use crate::observed::Found;
use crate::plan::Scope;
use crate::resource::{Address, AgentToml, Binary, Checkout, Fields, Home, Kind, Spec, fields, sha256_hex};
use secrecy::{ExposeSecret, SecretSlice};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const RECORD: &str = ".jackin/spec.json";
const INSTANCE: &str = ".jackin/instance.json";
const CHECKOUTS: &str = ".jackin/checkouts";
const INSTANCE_VERSION: u64 = 2;
const INDEX_VERSION: u64 = 1;

pub struct Host {
    pub facts: Arc<Facts>,
}

/// What a look at the disk found.
#[derive(Default)]
pub struct Seen {
    pub resources: Vec<(Address, Found)>,
    pub records: Vec<HomeRecord>,
}

impl Host {
    /// Homes and checkouts are read from the disk; role repos and programs were looked at when facts were gathered.
    pub async fn observe(&self, graph: &Graph, scope: &Scope, digest: Digest) -> Result<Seen, Diagnostics> {
        let wanted: BTreeMap<PathBuf, Address> = graph
            .resources
            .iter()
            .filter_map(|(address, resource)| match &resource.spec {
                Spec::Home(home) => Some((PathBuf::from(self.facts.expand(&home.path)), address.clone())),
                _ => None,
            })
            .collect();
        let (facts, scope) = (self.facts.clone(), scope.clone());
        let mut seen = blocking(move || look(&facts, &wanted, &scope, &*digest)).await.map_err(|error| {
            Diagnostic::error(
                "host.unreadable",
                "The state folder cannot be read",
                format!("{}: {error}.", self.facts.shorten(&self.facts.jackin_home)),
            )
            .help("Give yourself access to it, or choose another with JACKIN_HOME_DIR.")
        })?;
        for (address, resource) in &graph.resources {
            let found = match &resource.spec {
                Spec::RoleRepo(repo) => self.role_repo(address, &repo.path),
                Spec::AgentBinary(binary) => {
                    let fact = Agent::from_slug(&address.name).and_then(|agent| self.facts.agent_binaries.get(&agent));
                    self.program(binary, fact)
                }
                Spec::CapsuleBinary(binary) => self.program(binary, self.facts.capsule_binary.as_ref()),
                _ => None,
            };
            seen.resources.extend(found.map(|found| (address.clone(), found)));
        }
        Ok(seen)
    }

    fn role_repo(&self, address: &Address, path: &str) -> Option<Found> {
        let snapshot = self.facts.roles.get(&address.name)?;
        // A clone whose files were never laid down is as good as missing.
        let checked_out = snapshot.checked_out.clone()?;
        let live = Fields::from([("url".to_owned(), snapshot.url.clone().into()), ("commit".to_owned(), checked_out.into())]);
        Some(Found::present(path, path, None, live))
    }

    /// What was gathered may be another version than the one wanted now.
    fn program(&self, binary: &Binary, fact: Option<&BinaryFact>) -> Option<Found> {
        let fact = fact?;
        let path = self.facts.shorten(&fact.path);
        if binary.path.as_ref() != Some(&path) {
            return None;
        }
        let live = Fields::from([("digest".to_owned(), fact.digest.clone().into()), ("executable".to_owned(), fact.executable.into())]);
        Some(Found::present(&path, &path, None, live))
    }

    pub async fn repair(&self, binary: &Binary) -> Result<(), StepError> {
        let Some(path) = binary.path.as_deref().map(|path| PathBuf::from(self.facts.expand(path))) else {
            return Ok(());
        };
        let shown = binary.path.clone().unwrap_or_default();
        blocking(move || {
            let mode = fs::metadata(&path)?.permissions().mode();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode | 0o755))
        })
        .await
        .map_err(|error| unwritable(&shown, &error))
    }

    pub async fn write_home(&self, home: &Home, sources: &dyn Sources, now: String) -> Result<(), StepError> {
        let mut credentials: Vec<(String, SecretSlice<u8>)> = Vec::new();
        for (agent, handoff) in &home.auth {
            for file in handoff.files.keys() {
                // The host may have logged out since: the copy that is there stays.
                if let Some(content) = sources.credential(*agent, file).await? {
                    credentials.push((file.clone(), content));
                }
            }
        }
        let (facts, home) = (self.facts.clone(), home.clone());
        let shown = home.path.clone();
        blocking(move || write(&facts, &home, &credentials, &now)).await.map_err(|error| unwritable(&shown, &error))
    }

    pub async fn record_checkout(&self, address: &Address, checkout: &Checkout) -> Result<(), StepError> {
        let path = PathBuf::from(self.facts.expand(&checkout.path));
        let record = json!({ "format_version": 1, "address": address, "path": checkout.path, "spec": fields(checkout) });
        let shown = checkout.path.clone();
        let data = self.data();
        blocking(move || {
            let base = below(&data, &path).ok_or_else(|| io::Error::other("it does not lie in an instance's folder"))?;
            fs::create_dir_all(base.join(CHECKOUTS))?;
            write_whole(&checkout_record(&base, &shown), pretty(&record).as_bytes(), 0o600)
        })
        .await
        .map_err(|error| unwritable(&checkout.path, &error))
    }

    pub async fn remove_home(&self, path: &str, address: &Address, sources: &dyn Sources, now: String) -> Result<(), StepError> {
        let data = self.data();
        let full = PathBuf::from(self.facts.expand(path));
        let Some(base) = below(&data, &full) else {
            return Err(Diagnostic::error("host.not_ours", "A folder outside the state folder is not removed", path.to_owned()).into());
        };
        if address.kind == Kind::Checkout {
            sources.remove_checkout(&full).await?;
            let record = checkout_record(&base, path);
            return blocking(move || gone(fs::remove_file(record))).await.map_err(|error| unwritable(path, &error));
        }
        if base != full {
            return Err(
                Diagnostic::error("host.not_whole", "A part of an instance's folder is not removed by itself", path.to_owned()).into()
            );
        }
        let facts = self.facts.clone();
        blocking(move || remove(&facts, &base, &now)).await.map_err(|error| {
            if error.kind() == io::ErrorKind::PermissionDenied {
                return Diagnostic::error(
                    "host.permission",
                    "Files in an instance's home belong to someone else",
                    format!("{path}: {error}."),
                )
                .help(format!("A program in the container wrote them as another user. Remove them: `sudo rm -rf {path}`."))
                .into();
            }
            unwritable(path, &error)
        })
    }

    fn data(&self) -> PathBuf {
        data(&self.facts)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn unwritable(path: &str, error: &io::Error) -> StepError {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let (code, summary, help) = if full {
        ("host.disk_full", "This host's disk is full", "Free space, then run the command again.")
    } else {
        ("host.unwritable", "A file of an instance cannot be written", "Check who owns ~/.jackin, then run the command again.")
    };
    Diagnostic::error(code, summary, format!("{path}: {error}.")).help(help).into()
}

fn data(facts: &Facts) -> PathBuf {
    Path::new(&facts.jackin_home).join("data")
}

/// The instance's folder in which a path lies.
fn below(data: &Path, path: &Path) -> Option<PathBuf> {
    use std::path::Component;
    let rest = path.strip_prefix(data).ok()?;
    let plain = rest.components().all(|c| matches!(c, Component::Normal(_)));
    match rest.components().next() {
        Some(Component::Normal(name)) if plain => Some(data.join(name)),
        _ => None,
    }
}

fn checkout_record(base: &Path, shown: &str) -> PathBuf {
    base.join(CHECKOUTS).join(format!("{}.json", &sha256_hex(shown)[..16]))
}

// ---- looking ----

fn look(facts: &Facts, wanted: &BTreeMap<PathBuf, Address>, scope: &Scope, digest: &dyn Fn(&[u8]) -> String) -> io::Result<Seen> {
    let mut seen = Seen::default();
    let data = data(facts);
    let mut folders: Vec<PathBuf> = match fs::read_dir(&data) {
        Ok(entries) => entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.is_dir()).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    folders.sort();
    for folder in folders {
        let recorded: Option<Fields> = fs::read(folder.join(RECORD)).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let text = |field: &str| recorded.as_ref()?.get(field)?.as_str().map(str::to_owned);
        let named = text("record.instance").map(|instance| Address::new(Kind::Home, instance));
        let Some(address) = wanted.get(&folder).cloned().or(named) else {
            continue;
        };
        let instance = address.name.clone();
        let parts = [(Kind::Network, "network"), (Kind::Certs, "certs_volume"), (Kind::Sidecar, "dind_container")];
        let names = parts.into_iter().filter_map(|(kind, field)| Some((kind, text(&format!("record.{field}"))?))).collect();
        let container = text("record.role_container").unwrap_or_default();
        seen.records.push(HomeRecord { instance: instance.clone(), container, names });
        if !wanted.contains_key(&folder) && !scope.covers(&instance) {
            continue;
        }
        let live = recorded.as_ref().map(|recorded| living(facts, &folder, recorded, digest)).unwrap_or_default();
        let shown = facts.shorten(&folder.to_string_lossy());
        seen.resources.push((address, Found::present(&shown, &shown, recorded, live)));
        seen.resources.extend(checkouts(facts, &folder));
    }
    Ok(seen)
}

fn checkouts(facts: &Facts, folder: &Path) -> Vec<(Address, Found)> {
    let entries = fs::read_dir(folder.join(CHECKOUTS)).into_iter().flatten().flatten();
    let mut out: Vec<(Address, Found)> = entries
        .filter_map(|entry| {
            let record: Value = serde_json::from_slice(&fs::read(entry.path()).ok()?).ok()?;
            let address = record.get("address")?.as_str()?.parse().ok()?;
            let path = record.get("path")?.as_str()?;
            let recorded: Fields = serde_json::from_value(record.get("spec")?.clone()).ok()?;
            let there = Path::new(&facts.expand(path)).exists();
            there.then(|| (address, Found::present(path, path, Some(recorded), Fields::from([("path".to_owned(), path.into())]))))
        })
        .collect();
    out.sort_by(|a, b| a.0.cmp(&b.0));
    out
}

/// The recorded fields as the disk has them now.
fn living(facts: &Facts, folder: &Path, recorded: &Fields, digest: &dyn Fn(&[u8]) -> String) -> Fields {
    let mut live = Fields::new();
    let mut put = |field: &str, is: Value| live.insert(field.to_owned(), is);
    let text = |field: &str| recorded.get(field).and_then(Value::as_str).unwrap_or_default();
    put("path", facts.shorten(&folder.to_string_lossy()).into());
    let sockets = PathBuf::from(facts.expand(text("sockets")));
    put("sockets", if sockets.is_dir() { text("sockets").into() } else { Value::Null });
    let there = |name: &&Value| name.as_str().is_some_and(|name| folder.join("home").join(name).is_dir());
    put("directories", recorded.get("directories").and_then(Value::as_array).into_iter().flatten().filter(there).cloned().collect());

    let parsed = fs::read_to_string(sockets.join("agent.toml")).ok().and_then(|text| toml::from_str::<AgentToml>(&text).ok());
    let is = parsed.map(|parsed| fields(&parsed)).unwrap_or_default();
    for field in recorded.keys().filter(|f| f.starts_with("agent_toml.")) {
        put(field, Value::Null);
    }
    for (name, value) in is {
        put(&format!("agent_toml.{name}"), value);
    }

    for field in recorded.keys() {
        let Some((_, file)) = field.strip_prefix("auth.").and_then(|rest| rest.split_once(".files.")) else {
            continue;
        };
        put(field, fs::read(folder.join(file)).ok().map(|content| digest(&content)).into());
    }

    let record: Option<Value> = fs::read(folder.join(INSTANCE)).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let id = record.and_then(|r| Some(r.get("instance_id")?.as_str()?.to_owned()));
    put("record.instance_id", id.into());
    let number = |field: &str| recorded.get(field).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
    if let (Some(uid), Some(gid)) = (number("uid"), number("gid")) {
        let mapped =
            users(uid, gid).iter().all(|(name, line)| fs::read(extrausers(facts).join(name)).is_ok_and(|is| is == line.as_bytes()));
        put("uid", if mapped { uid.into() } else { Value::Null });
        put("gid", if mapped { gid.into() } else { Value::Null });
    }
    live
}

// ---- writing ----

fn write(facts: &Facts, home: &Home, credentials: &[(String, SecretSlice<u8>)], now: &str) -> io::Result<()> {
    let data = data(facts);
    let base = PathBuf::from(facts.expand(&home.path));
    if below(&data, &base).as_deref() != Some(&base) {
        return Err(io::Error::other("it does not lie in the state folder"));
    }
    let before: Option<Fields> = fs::read(base.join(RECORD)).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let sockets = PathBuf::from(facts.expand(&home.sockets));
    private(&base)?;
    private(&sockets)?;
    for folder in [".jackin", "state", "home", ".config/gh"] {
        make(&base, folder)?;
    }
    for folder in &home.directories {
        make(&base.join("home"), folder)?;
    }
    let launch = || write_checked(&sockets.join("agent.toml"), agent_toml(&home.agent_toml)?.as_bytes(), 0o600);
    // It holds the agent back before anything else is so, and lets it go after everything else is.
    if home.agent_toml.hold {
        launch()?;
    }
    let users_folder = extrausers(facts);
    fs::create_dir_all(&users_folder)?;
    for (name, line) in users(home.uid, home.gid) {
        let path = users_folder.join(name);
        // Bind-mounted as a file: replacing it needlessly would part running containers from it.
        if fs::read(&path).map(|is| is != line.as_bytes()).unwrap_or(true) {
            write_checked(&path, line.as_bytes(), 0o644)?;
        }
    }
    // Mounted as folders, also when the host has nothing to put into them any more.
    for folder in home.auth.values().flat_map(|handoff| handoff.files.keys()).filter_map(|file| Path::new(file).parent()?.to_str()) {
        make(&base, folder)?;
    }
    for (file, content) in credentials {
        write_checked(&base.join(file), content.expose_secret(), 0o600)?;
    }
    withdraw(&base, home, before.as_ref())?;
    let row = instance_record(&base, home, now)?;
    index(&data, now, Some(row), home_name(&base))?;
    write_whole(&base.join(RECORD), pretty(&json!(fields(home))).as_bytes(), 0o600)?;
    if home.agent_toml.hold { Ok(()) } else { launch() }
}

fn home_name(base: &Path) -> &str {
    base.file_name().and_then(|n| n.to_str()).unwrap_or_default()
}

/// Removes hand-off files that were recorded and are wanted no more, and whatever lies there of an agent that gets none.
fn withdraw(base: &Path, home: &Home, before: Option<&Fields>) -> io::Result<()> {
    let wanted = |file: &str| home.auth.values().any(|handoff| handoff.files.contains_key(file));
    for field in before.into_iter().flat_map(|fields| fields.keys()) {
        if let Some((_, file)) = field.strip_prefix("auth.").and_then(|rest| rest.split_once(".files."))
            && !wanted(file)
            && !file.split('/').any(|part| part == "..")
        {
            gone(fs::remove_file(base.join(file)))?;
        }
    }
    for (agent, handoff) in &home.auth {
        if handoff.files.is_empty() && matches!(handoff.mode, AuthMode::ApiKey | AuthMode::Ignore) {
            gone(fs::remove_dir_all(base.join(handoff_folder(*agent))))?;
        }
    }
    Ok(())
}

fn handoff_folder(agent: Agent) -> &'static str {
    match agent {
        Agent::Kimi => "kimi-code",
        other => other.slug(),
    }
}

pub fn agent_toml(spec: &AgentToml) -> io::Result<String> {
    // By way of a table: TOML wants plain values before tables, whatever the order of the fields.
    let table = toml::Table::try_from(spec).map_err(io::Error::other)?;
    toml::to_string(&table).map_err(io::Error::other)
}

fn extrausers(facts: &Facts) -> PathBuf {
    Path::new(&facts.jackin_home).join("extrausers")
}

fn users(uid: u32, gid: u32) -> [(&'static str, String); 2] {
    [("passwd", format!("agent:x:{uid}:{gid}:agent:/home/agent:/bin/zsh\n")), ("group", format!("agent-host:x:{gid}:agent\n"))]
}

/// `instance.json`, version 2. What others keep in it stays; returns the row for the index.
fn instance_record(base: &Path, home: &Home, now: &str) -> io::Result<Map<String, Value>> {
    let path = base.join(INSTANCE);
    let mut file: Map<String, Value> = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    let record = &home.record;
    let status = file.get("status").and_then(Value::as_str).filter(|s| *s != "purged").unwrap_or("active").to_owned();
    let kept = |file: &Map<String, Value>, key: &str, otherwise: Value| file.get(key).cloned().unwrap_or(otherwise);
    let mut docker = file.get("docker").and_then(Value::as_object).cloned().unwrap_or_default();
    for (key, value) in [
        ("role_container", Some(&record.role_container)),
        ("dind_container", record.dind_container.as_ref()),
        ("network", record.network.as_ref()),
        ("certs_volume", record.certs_volume.as_ref()),
    ] {
        docker.insert(key.to_owned(), json!(value));
    }
    let values = [
        ("version", json!(INSTANCE_VERSION)),
        ("instance_id", json!(record.instance_id)),
        ("container_base", json!(home_name(base))),
        ("created_at", kept(&file, "created_at", json!(now))),
        ("updated_at", json!(now)),
        ("workspace_name", json!(record.workspace_name)),
        ("workspace_label", json!(record.workspace_label)),
        ("workdir", json!(home.agent_toml.workdir)),
        ("host_workdir_fingerprint", kept(&file, "host_workdir_fingerprint", json!(""))),
        ("role_key", json!(record.role_key)),
        ("role_display_name", json!(record.role_display_name)),
        ("agent_runtime", json!(record.agent_runtime)),
        ("role_source_git", json!(record.role_source_git)),
        ("role_source_ref", json!(record.role_source_ref)),
        ("image_tag", json!(record.image_tag)),
        ("status", json!(status)),
        ("last_attach_outcome", kept(&file, "last_attach_outcome", Value::Null)),
        ("docker", Value::Object(docker)),
        ("sessions", kept(&file, "sessions", json!([]))),
        ("role_git_sha", json!(record.role_git_sha)),
        ("base_image_ref", kept(&file, "base_image_ref", Value::Null)),
        ("base_image_digest", Value::Null),
        ("supported_agents", json!(home.agent_toml.agents)),
    ];
    for (key, value) in values {
        file.insert(key.to_owned(), value);
    }
    write_whole(&path, pretty(&Value::Object(file.clone())).as_bytes(), 0o600)?;
    Ok(index_row(&file))
}

fn index_row(record: &Map<String, Value>) -> Map<String, Value> {
    let keys = [
        "instance_id",
        "container_base",
        "workspace_name",
        "workspace_label",
        "workdir",
        "role_key",
        "agent_runtime",
        "status",
        "updated_at",
    ];
    keys.into_iter().map(|key| (key.to_owned(), record.get(key).cloned().unwrap_or_default())).collect()
}

/// Puts a row into `instances.json`, or turns the row of a purged instance into a tombstone. Under the index's lock.
fn index(data: &Path, now: &str, row: Option<Map<String, Value>>, base: &str) -> io::Result<()> {
    let lock = fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(data.join("instances.json.lock"))?;
    lock.lock()?;
    let path = data.join("instances.json");
    let mut file: Map<String, Value> = match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| io::Error::other(format!("instances.json: {error}")))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => rebuilt(data)?,
        Err(error) => return Err(error),
    };
    if file.get("version").and_then(Value::as_u64) != Some(INDEX_VERSION) {
        return Err(io::Error::other("instances.json is of another version; this jackin knows version 1"));
    }
    let rows =
        file.entry("instances").or_insert_with(|| json!([])).as_array_mut().ok_or_else(|| io::Error::other("instances.json: no list"))?;
    let at = rows.iter().position(|r| r.get("container_base").and_then(Value::as_str) == Some(base));
    match (row, at) {
        (Some(row), Some(at)) => rows[at] = Value::Object(row),
        (Some(row), None) => rows.push(Value::Object(row)),
        (None, Some(at)) => {
            rows[at]["status"] = json!("purged");
            rows[at]["updated_at"] = json!(now);
        }
        (None, None) => return Ok(()),
    }
    write_whole(&path, pretty(&Value::Object(file)).as_bytes(), 0o600)
}

fn rebuilt(data: &Path) -> io::Result<Map<String, Value>> {
    let mut rows = Vec::new();
    let mut folders: Vec<PathBuf> = fs::read_dir(data)?.filter_map(|e| Some(e.ok()?.path())).collect();
    folders.sort();
    for folder in folders {
        if let Some(Value::Object(record)) = fs::read(folder.join(INSTANCE)).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
            rows.push(Value::Object(index_row(&record)));
        }
    }
    Ok(Map::from_iter([("version".to_owned(), json!(INDEX_VERSION)), ("instances".to_owned(), Value::Array(rows))]))
}

/// Everything of an instance; its record goes last, so that a killed removal is seen and repeated.
fn remove(facts: &Facts, base: &Path, now: &str) -> io::Result<()> {
    let data = data(facts);
    let name = home_name(base);
    gone(fs::remove_dir_all(Path::new(&facts.jackin_home).join("sockets").join(name)))?;
    match fs::read_dir(base) {
        Ok(entries) => {
            for entry in entries {
                let path = entry?.path();
                if path.file_name() != Some(".jackin".as_ref()) {
                    gone(if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) })?;
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    gone(fs::remove_file(data.join(format!("{name}.lock"))))?;
    if data.is_dir() {
        index(&data, now, None, name)?;
    }
    gone(fs::remove_file(base.join(INSTANCE)))?;
    gone(fs::remove_dir_all(base.join(CHECKOUTS)))?;
    gone(fs::remove_dir_all(base))
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// A folder that only its owner may enter.
fn private(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

/// Folders below a base, none of them a symlink: what runs in the container may have put one there.
fn make(base: &Path, folder: &str) -> io::Result<()> {
    let mut path = base.to_owned();
    for part in Path::new(folder).components() {
        let std::path::Component::Normal(part) = part else {
            return Err(io::Error::other(format!("`{folder}` is no folder below the home")));
        };
        path.push(part);
        match fs::symlink_metadata(&path) {
            Ok(is) if is.is_dir() => {}
            Ok(_) => {
                return Err(io::Error::other(format!("{} is not a folder", path.display())));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => private(&path)?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whole or not at all, and there to stay: beside it, to the disk, then in its place.
fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let file = beside(folder, bytes, mode)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

/// For files whose content every look compares: one that a power cut spoils is written again, so nobody waits for the disk.
fn write_checked(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    beside(folder, bytes, mode)?.persist(path).map_err(|error| error.error)?;
    Ok(())
}

fn beside(folder: &Path, bytes: &[u8], mode: u32) -> io::Result<tempfile::NamedTempFile> {
    let permissions = fs::Permissions::from_mode(mode);
    let mut file = tempfile::Builder::new().prefix(".jackin-").permissions(permissions.clone()).tempfile_in(folder)?;
    // The umask has taken its part.
    file.as_file().set_permissions(permissions)?;
    file.write_all(bytes)?;
    Ok(file)
}
