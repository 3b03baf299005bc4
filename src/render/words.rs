//! Fields, values, reasons and losses in words.
//!
//! In: the closed enums of the plan and flattened fields. Out: sentences without colour. Keyed digests and content hashes are
//! never shown: they only tell that something changed.

use super::Style;
use super::page::{clean, middle};
use crate::graph::names::pool_id;
use crate::observed::Loss;
use crate::plan::{Action, Cause, Change, FieldChange, HELD_BACK, Plan, Reason};
use crate::resource::{Address, HOLD, Kind, SecretSource};
use serde_json::Value;
use std::collections::BTreeMap;

/// How much of a value is shown.
#[derive(Clone, Copy)]
pub(super) struct Depth<'a> {
    pub style: &'a Style,
    pub verbose: bool,
}

impl Depth<'_> {
    fn shorten(&self, text: &str) -> String {
        let text = clean(text);
        if self.verbose || text.contains(' ') && text.len() < 400 {
            return text;
        }
        middle(&text, self.style.width.saturating_sub(10).clamp(12, 60), self.style)
    }
}

/// What is to be done, as the verb of a heading.
pub(super) fn action_words(action: Action) -> &'static str {
    match action {
        Action::Update => "update in place",
        Action::Start => "start again",
        Action::Forget => "no longer track",
        other => other.as_str(),
    }
}

/// `3 to create`, `1 reused`.
pub(super) fn counted(action: Action, count: usize) -> String {
    match action {
        Action::Reuse => format!("{count} reused"),
        other => format!("{count} to {}", other.as_str()),
    }
}

pub(super) fn plural(count: usize, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

/// `a, b and c`.
pub(super) fn listed(words: &[String], last: &str) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [start @ .., end] => format!("{} {last} {end}", start.join(", ")),
    }
}

/// A field as `fields` flattens it, taken apart.
enum Field<'a> {
    /// `env.NAME`, with the part of it that differs.
    Env {
        name: &'a str,
        part: &'a str,
    },
    /// `mounts./path.source`.
    Mount {
        path: &'a str,
        part: &'a str,
    },
    /// `auth.claude.files.<path>`.
    Auth {
        agent: &'a str,
        part: &'a str,
    },
    Other,
}

impl<'a> Field<'a> {
    fn of(field: &'a str) -> Field<'a> {
        let parts = |text: &'a str, suffixes: &[&'static str]| -> (&'a str, &'a str) {
            for suffix in suffixes {
                if let Some(name) = text.strip_suffix(suffix) {
                    return (name, &text[name.len() + 1..]);
                }
            }
            (text, "")
        };
        if let Some(rest) = field.strip_prefix("env.") {
            let (name, part) = parts(rest, &[".from", ".digest"]);
            return Field::Env { name, part };
        }
        if let Some(rest) = field.strip_prefix("mounts.") {
            let (path, part) = parts(rest, &[".source", ".kind", ".readonly"]);
            return Field::Mount { path, part };
        }
        if let Some((agent, part)) = field.strip_prefix("auth.").and_then(|rest| rest.split_once('.')) {
            return Field::Auth { agent, part };
        }
        Field::Other
    }

    /// Fields that are told together bear the same key.
    fn group(&self) -> Option<String> {
        match self {
            Field::Env { name, .. } => Some(format!("env {name}")),
            Field::Mount { path, .. } => Some(format!("mount {path}")),
            Field::Auth { agent, .. } => Some(format!("auth {agent}")),
            Field::Other => None,
        }
    }
}

/// A field's name for people. Anything not in the table is its own words.
pub(super) fn field_words(field: &str) -> String {
    match Field::of(field) {
        Field::Env { name, .. } => return format!("env {name}"),
        Field::Mount { path, part: "" | "source" } => return format!("mount {path}"),
        Field::Mount { path, part: "readonly" } => return format!("mount {path} read-only"),
        Field::Mount { path, part } => return format!("mount {path} {part}"),
        Field::Auth { agent, part: "mode" } => return format!("{agent} credentials mode"),
        Field::Auth { agent, part: "from" } => return format!("{agent} credentials folder"),
        Field::Auth { agent, .. } => return format!("{agent} credentials"),
        Field::Other => {}
    }
    let recipe = field.strip_prefix("recipe.").unwrap_or(field);
    for (prefix, words) in [
        ("agent_binaries.", "binary of agent"),
        ("hooks.", "hook"),
        ("agent_toml.models.", "model of agent"),
        ("agent_toml.auth_modes.", "credentials mode of agent"),
        ("agent_toml.provider_models.", "provider model"),
    ] {
        if let Some(name) = recipe.strip_prefix(prefix) {
            return format!("{words} {}", name.replace('.', " "));
        }
    }
    let known = match field {
        "limits.memory" => "memory limit",
        "limits.memory_reservation" => "memory reservation",
        "limits.cpus" => "CPU limit",
        "limits.pids" => "process limit",
        "limits.nofile" => "open file limit",
        "network_mode" => "network mode",
        "argv" => "command",
        "workdir" | "agent_toml.workdir" | "record.workdir" => "working directory",
        "uid" => "user id",
        "gid" => "group id",
        "internal" => "internal network",
        "tier" => "Docker tier",
        "cap_drop_all" => "drops all capabilities",
        "cap_add" => "added capabilities",
        "no_new_privileges" => "no new privileges",
        "read_only_root" => "read-only root",
        "tmpfs" => "temporary file systems",
        "sudo" => "sudo allowed",
        "role_key" | "record.role_key" | "agent_toml.role" => "role",
        "display_name" | "record.role_display_name" => "display name",
        "keep_awake" => "keep awake",
        "declared" | "record.declared" => "declared in a workspace file",
        "executable" => "run bit",
        "digest" => "file content",
        "commit" => "commit",
        "url" => "repository",
        "role_git_sha" | "recipe.role_git_sha" | "record.role_git_sha" => "role commit",
        "role_source_ref" | "recipe.role_source_ref" | "record.role_source_ref" => "role branch or tag",
        "record.role_source_git" => "role repository",
        "construct_image" | "recipe.construct_image" => "construct image",
        "construct_override" => "construct image override",
        "recipe.version" => "recipe version",
        "recipe.manifest_version" => "role manifest version",
        "recipe.base_image" | "base" => "base image",
        "recipe.generated_runtime_hash" => "generated Dockerfile and runtime files",
        "recipe.supported_agents" | "agent_toml.agents" => "supported agents",
        "recipe.capsule_version" => "capsule version",
        "recipe.capsule_digest" => "capsule binary",
        "recipe.plugins" => "Claude plugins",
        "recipe.host_identity_strategy" => "host identity strategy",
        "recipe.host_uid" => "host user id",
        "agent_toml.dirty_exit_policy" => "dirty exit policy",
        "record.image_tag" => "image",
        "record.agent_runtime" => "agent",
        "record.role_container" | "owner" => "capsule container",
        "record.dind_container" => "sidecar container",
        "record.network" => "network",
        "record.certs_volume" => "certificate volume",
        "record.workspace_name" => "workspace",
        other => {
            return other.strip_prefix("record.").unwrap_or(other).replace(['_', '.'], " ");
        }
    };
    known.to_owned()
}

/// True for hashes: they tell that something changed, never what.
pub(super) fn is_hash(field: &str) -> bool {
    matches!(Field::of(field), Field::Env { part: "digest", .. })
        || matches!(Field::of(field), Field::Auth { part, .. } if part.starts_with("files."))
        || matches!(field, "digest" | "recipe.generated_runtime_hash" | "recipe.capsule_digest")
        || ["recipe.agent_binaries.", "recipe.hooks."].iter().any(|p| field.starts_with(p))
}

/// One side of a difference.
pub(super) fn value_words(field: &str, value: Option<&Value>, depth: Depth) -> String {
    let Some(value) = value else {
        return "none".to_owned();
    };
    if is_hash(field) {
        return "set".to_owned();
    }
    if let (Field::Env { part: "from", .. }, Value::String(text)) = (Field::of(field), value) {
        return from_words(text);
    }
    if field.starts_with("limits.memory")
        && let Some(bytes) = value.as_i64()
    {
        return bytes_words(bytes);
    }
    if (field.ends_with("role_git_sha") || field == "commit")
        && let Some(commit) = value.as_str()
    {
        return commit_words(commit);
    }
    depth.shorten(&plain_value(value))
}

fn plain_value(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) if text.is_empty() => "(empty)".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => float.to_string(),
            _ => number.to_string(),
        },
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Array(items) => items.iter().map(plain_value).collect::<Vec<_>>().join(", "),
        object @ Value::Object(_) => object.to_string(),
    }
}

/// `file workspaces/app.toml:3:7` -> `from workspaces/app.toml:3:7`.
fn from_words(source: &str) -> String {
    match SecretSource::try_from(source.to_owned()) {
        Ok(source) => secret_words(&source),
        Err(_) => format!("from {source}"),
    }
}

pub(super) fn secret_words(source: &SecretSource) -> String {
    match source {
        SecretSource::File { place } => format!("from {place}"),
        SecretSource::Host(name) => format!("from ${name}"),
        SecretSource::Op { reference, account: None } => format!("from {reference}"),
        SecretSource::Op { reference, account: Some(account) } => format!("from {reference} of account {account}"),
        SecretSource::Role(name) => format!("from the role's {name}"),
        SecretSource::Github => "from the host's GitHub token".to_owned(),
    }
}

pub(super) fn bytes_words(bytes: i64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size.abs() >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    let number = format!("{size:.1}");
    format!("{} {}", number.strip_suffix(".0").unwrap_or(&number), UNITS[unit])
}

pub(super) fn commit_words(commit: &str) -> String {
    clean(&commit.chars().take(12).collect::<String>())
}

pub(super) fn id_words(id: &str) -> String {
    let bare = id.strip_prefix("sha256:").unwrap_or(id);
    // Paths and volume names are ids as well, and nothing without their end.
    if bare.len() > 12 && bare.chars().all(|c| c.is_ascii_hexdigit()) { bare[..12].to_owned() } else { clean(bare) }
}

pub(super) fn duration_words(milliseconds: u64) -> String {
    match milliseconds {
        0..10_000 => format!("{:.2} s", milliseconds as f64 / 1000.0),
        10_000..60_000 => format!("{:.1} s", milliseconds as f64 / 1000.0),
        _ => format!("{} min {:02} s", milliseconds / 60_000, milliseconds / 1000 % 60),
    }
}

pub(super) fn about_words(milliseconds: u64) -> String {
    match milliseconds {
        0..100 => format!("{milliseconds} ms"),
        100..60_000 => format!("{:.1} s", milliseconds as f64 / 1000.0),
        _ => format!("{} min {:02} s", milliseconds / 60_000, milliseconds / 1000 % 60),
    }
}

/// What would be destroyed, in words; empty when nothing is.
pub fn loss_words(loss: &Loss) -> String {
    let mut words = Vec::new();
    let count = |n: Option<u32>| n.filter(|n| *n > 0).map(|n| n as usize);
    if let Some(sessions) = count(loss.sessions) {
        words.push(plural(sessions, "live session"));
    }
    if loss.sessions_unknown {
        words.push("possibly live sessions (the capsule did not answer)".to_owned());
    }
    if loss.docker_data {
        words.push("the private Docker daemon's images and containers".to_owned());
    }
    if let Some(files) = count(loss.uncommitted_files) {
        words.push(plural(files, "uncommitted file"));
    }
    if let Some(commits) = count(loss.unpushed_commits) {
        words.push(plural(commits, "unpushed commit"));
    }
    if let Some(bytes) = loss.bytes.filter(|b| *b > 0) {
        words.push(format!("{} of data", bytes_words(i64::try_from(bytes).unwrap_or(i64::MAX))));
    }
    words.join(", ")
}

/// One reason in full.
fn reason_words(address: &Address, reason: &Reason, depth: Depth) -> String {
    match reason {
        Reason::Missing => match address.kind {
            Kind::RoleRepo => "not cloned yet",
            Kind::AgentBinary | Kind::CapsuleBinary => "not in the cache",
            Kind::Image => "not on this engine",
            Kind::RoleImage | Kind::DerivedImage => "not built yet",
            Kind::Checkout | Kind::Home | Kind::Network | Kind::Certs | Kind::Sidecar | Kind::Capsule => "does not exist",
        }
        .to_owned(),
        Reason::FieldChanged { field, desired, .. } if field == HOLD => {
            (if desired.is_some() { "is to be a spare" } else { "is to be a spare no more" }).to_owned()
        }
        Reason::FieldChanged { field, .. } if is_hash(field) => {
            format!("{} changed", field_words(field))
        }
        Reason::FieldChanged { field, recorded, desired } => format!(
            "{}: recorded {} -> desired {}",
            field_words(field),
            value_words(field, recorded.as_ref(), depth),
            value_words(field, desired.as_ref(), depth)
        ),
        Reason::Drifted { field, .. } if is_hash(field) => {
            format!("drifted {}", field_words(field))
        }
        Reason::Drifted { field, recorded, live } => format!(
            "drifted {}: recorded {}, live: {}",
            field_words(field),
            value_words(field, recorded.as_ref(), depth),
            match live {
                None if field == "network" => "not attached".to_owned(),
                None if field.starts_with("mounts.") => "not mounted".to_owned(),
                live => value_words(field, live.as_ref(), depth),
            }
        ),
        Reason::LabelMissing { label } => {
            format!("does not say what it was made from (no label {label})")
        }
        Reason::DependencyReplaced { address } => format!("{address} is made anew"),
        Reason::Requested { flag } if flag.starts_with('-') => format!("asked for by {flag}"),
        Reason::Requested { flag } => format!("asked for by `jackin {flag}`"),
        Reason::NotDeclared => "no longer declared".to_owned(),
        Reason::Adoptable { from } if pool_id(address.kind, from).is_none() => format!("spare {from} fits"),
        Reason::Adoptable { from } => format!("kept {from} fits"),
        Reason::Unhealthy { state } if state == HELD_BACK => state.clone(),
        Reason::Unhealthy { state } => format!("not running: {state}"),
        Reason::Duplicate { kept } => format!("there is more than one; {} stays", id_words(kept)),
        Reason::ImageChanged { recorded, live } => {
            format!("image was replaced under the same name: made from {recorded}, now {live}")
        }
        Reason::OwnerRemoved { address } => format!("its owner {address} is removed"),
        Reason::NotExecutable => "lost its run bit".to_owned(),
        Reason::NotCached => "not cached; the vendor's installer runs inside the image build".to_owned(),
        Reason::NotNeeded => "nothing that is made now needs it".to_owned(),
        Reason::Absent => "there is nothing to do it to".to_owned(),
        Reason::Mismatch { candidate, field, found, .. } if field.ends_with(" of the set") => {
            let part = field.trim_end_matches(" of the set");
            let how_many = if found.is_some() { "more than one" } else { "no" };
            format!("kept {candidate} has {how_many} {part}")
        }
        Reason::Mismatch { candidate, field, found: Some(Value::String(state)), .. } if field == "state" => {
            format!("kept {candidate} is {}", clean(state))
        }
        Reason::Mismatch { candidate, field, desired, found } => format!(
            "kept {candidate} differs in {}: desired {}, found {}",
            field_words(field),
            value_words(field, desired.as_ref(), depth),
            value_words(field, found.as_ref(), depth)
        ),
        Reason::NoCandidate => "no kept sidecar is free".to_owned(),
    }
}

/// A reason that ruled a cheaper action out; its values stand among the change's own reasons already.
fn ruled_out_words(address: &Address, reason: &Reason, depth: Depth) -> String {
    // A mount as a whole, whichever part of it differs.
    let thing = |field: &str| match Field::of(field) {
        Field::Mount { path, .. } => format!("mount {path}"),
        _ => field_words(field),
    };
    match reason {
        Reason::FieldChanged { field, .. } => format!("{} changed", thing(field)),
        Reason::Drifted { field, .. } => format!("{} drifted", thing(field)),
        Reason::ImageChanged { .. } => "image was replaced under the same name".to_owned(),
        other => reason_words(address, other, depth),
    }
}

/// Why a change is made: one sentence each, with where the desired value was written.
pub(super) struct Why {
    pub text: String,
    pub source: Option<String>,
}

pub(super) fn whys(change: &Change, depth: Depth) -> Vec<Why> {
    let source = |reason: &Reason| {
        let (field, cause) = field_of(reason)?;
        let found: Option<&FieldChange> = change.fields.iter().find(|f| f.field == field && f.cause == cause);
        found.and_then(|f| f.source.clone())
    };
    let mut out: Vec<Why> = Vec::new();
    let mut told: Vec<(String, Cause)> = Vec::new();
    // A missing file is one fact, not one for each of its fields.
    let gone = |reason: &Reason| matches!(reason, Reason::Drifted { field, live: None, .. } if field.starts_with("agent_toml."));
    let file_gone = change.reasons.iter().any(|r| gone(r) && field_of(r).is_some_and(|(field, _)| field == "agent_toml.role"));
    if file_gone {
        out.push(Why { text: "agent.toml is gone".to_owned(), source: None });
    }
    for reason in change.reasons.iter().filter(|r| !(file_gone && gone(r))) {
        let group = field_of(reason).and_then(|(field, cause)| Some((Field::of(field).group()?, cause)));
        let Some(group) = group else {
            out.push(Why { text: reason_words(&change.address, reason, depth), source: source(reason) });
            continue;
        };
        if told.contains(&group) {
            continue;
        }
        let together: Vec<&Reason> = change
            .reasons
            .iter()
            .filter(|r| field_of(r).is_some_and(|(field, cause)| cause == group.1 && Field::of(field).group().as_ref() == Some(&group.0)))
            .collect();
        out.extend(group_words(&change.address, &together, depth).into_iter().map(|text| Why { text, source: source(reason) }));
        told.push(group);
    }
    // One value may stand in two places of a home.
    let mut seen: Vec<String> = Vec::new();
    out.retain(|why| {
        !seen.contains(&why.text) && {
            seen.push(why.text.clone());
            true
        }
    });
    out
}

fn field_of(reason: &Reason) -> Option<(&str, Cause)> {
    match reason {
        Reason::FieldChanged { field, .. } => Some((field, Cause::Edited)),
        Reason::Drifted { field, .. } => Some((field, Cause::Drifted)),
        _ => None,
    }
}

/// The parts of one variable, mount or credential: as a whole when it came or went, else part by part.
fn group_words(address: &Address, together: &[&Reason], depth: Depth) -> Vec<String> {
    let sides = |reason: &Reason| match reason {
        Reason::FieldChanged { recorded, desired, .. } => (recorded.clone(), desired.clone()),
        Reason::Drifted { recorded, live, .. } => (recorded.clone(), live.clone()),
        _ => (None, None),
    };
    let part = |wanted: &str, after: bool| {
        together.iter().find_map(|r| {
            let (field, _) = field_of(r)?;
            let matches = match Field::of(field) {
                Field::Env { part, .. } | Field::Mount { part, .. } | Field::Auth { part, .. } => part == wanted,
                Field::Other => false,
            };
            let (left, right) = sides(r);
            matches.then(|| value_words(field, if after { right.as_ref() } else { left.as_ref() }, depth))
        })
    };
    let (first, cause) = field_of(together[0]).expect("BUG: groups are made of fields");
    let drifted = if cause == Cause::Drifted { "drifted " } else { "" };
    let (added, removed) = match cause {
        Cause::Edited => ("added", "no longer wanted"),
        Cause::Drifted => ("appeared", "disappeared"),
    };
    let name = clean(&match Field::of(first) {
        Field::Env { name, .. } => format!("env {name}"),
        Field::Mount { path, .. } => format!("mount {path}"),
        Field::Auth { agent, .. } => format!("{agent} credentials"),
        Field::Other => unreachable!("BUG: groups are made of grouped fields"),
    });
    let came = together.iter().all(|r| sides(r).0.is_none());
    let went = together.iter().all(|r| sides(r).1.is_none());
    let whole = |after: bool| match Field::of(first) {
        Field::Mount { .. } => {
            let readonly = part("readonly", after).is_some_and(|w| w == "yes");
            part("source", after).map(|s| format!(" ({s}{})", if readonly { ", read-only" } else { "" }))
        }
        Field::Env { .. } => part("from", after).or_else(|| part("", after)).map(|s| format!(" ({s})")),
        _ => None,
    };
    // A credential without its mode among the differences has only changed inside.
    let entire = !matches!(Field::of(first), Field::Auth { .. }) || part("mode", true).is_some();
    if came && entire {
        return vec![format!("{drifted}{name} {added}{}", whole(true).unwrap_or_default())];
    }
    if went && entire {
        return vec![format!("{drifted}{name} {removed}{}", whole(false).unwrap_or_default())];
    }
    // A value that turned into a reference, or the other way round: the two forms are different fields.
    if let (Some(before), Some(after)) = (
        part("from", false).filter(|w| w != "none").or_else(|| part("", false).filter(|w| w != "none")),
        part("from", true).filter(|w| w != "none").or_else(|| part("", true).filter(|w| w != "none")),
    ) && matches!(Field::of(first), Field::Env { .. })
        && before != after
    {
        let (left, right) = if cause == Cause::Edited { ("recorded", "-> desired") } else { ("recorded", "live:") };
        return vec![format!("{drifted}{name}: {left} {before} {right} {after}")];
    }
    let mut out: Vec<String> = Vec::new();
    for reason in together {
        let hash = field_of(reason).is_some_and(|(field, _)| is_hash(field));
        if hash && together.len() > 1 && matches!(Field::of(first), Field::Env { .. }) {
            continue;
        }
        let text = reason_words(address, reason, depth);
        if !out.contains(&text) {
            out.push(text);
        }
    }
    out
}

/// `why not reuse, update or restart: image changed`: actions ruled out by one reason stand together.
pub(super) fn why_nots(change: &Change, verbose: bool, depth: Depth) -> Vec<String> {
    let mut groups: Vec<(Vec<String>, String)> = Vec::new();
    // What says all about the change as its only reason need not be said again.
    let said = match &change.reasons[..] {
        [one] if field_of(one).is_none() => Some(one),
        _ => None,
    };
    for considered in &change.considered {
        // Of a thing that is not there nobody expects that it is kept, nor does everybody keep spare sidecars.
        let idle = matches!(considered.ruled_out_by, Reason::Absent | Reason::NoCandidate);
        if !verbose && (idle || Some(&considered.ruled_out_by) == said) {
            continue;
        }
        let why = ruled_out_words(&change.address, &considered.ruled_out_by, depth);
        // To one who reads why it is not kept running, starting it again is a restart.
        let action = if considered.action == Action::Start { "restart" } else { considered.action.as_str() }.to_owned();
        match groups.iter_mut().find(|(_, w)| *w == why) {
            Some((actions, _)) => actions.push(action),
            None => groups.push((vec![action], why)),
        }
    }
    // The reasons tell already why it does not stay as it is.
    groups.retain(|(actions, _)| verbose || actions[..] != ["reuse"]);
    groups.into_iter().map(|(actions, why)| format!("why not {}: {why}", listed(&actions, "or"))).collect()
}

/// The most specific source known for a field of a change.
pub(super) fn source_of<'a>(sources: &'a BTreeMap<String, String>, field: &str) -> Option<&'a str> {
    let mut prefix = field;
    loop {
        if let Some(source) = sources.get(prefix) {
            return Some(source);
        }
        prefix = &prefix[..prefix.rfind('.')?];
    }
}

/// `2 to create, 1 to replace, 5 reused`.
pub(super) fn count_words(plan: &Plan) -> String {
    let changing = Action::ALL.into_iter().filter(|a| *a != Action::Reuse);
    let mut words: Vec<String> = changing.filter_map(|a| plan.counts.get(&a).map(|n| counted(a, *n))).collect();
    let reused = reused(plan);
    if reused > 0 {
        words.push(counted(Action::Reuse, reused));
    }
    words.join(", ")
}

/// Things that are there and stay. What is neither there nor needed counts as nothing.
pub(super) fn reused(plan: &Plan) -> usize {
    plan.changes.iter().filter(|c| c.is_reuse() && !is_idle(c)).count()
}

/// Not there, and not made now either.
pub(super) fn is_idle(change: &Change) -> bool {
    change.is_reuse() && change.found.is_none() && change.reasons.iter().any(|r| matches!(r, Reason::NotNeeded | Reason::NotCached))
}
