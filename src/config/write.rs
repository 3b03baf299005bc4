//! Texts of configuration files: new ones, old ones brought up to date, and old `config.toml`s split.
//!
//! In: text or values. Out: text. Absent: disks; the caller decides what is written, and writes a split's workspaces before its global
//! part, so that stopping in between loses nothing.

use super::model::{Agent, Isolation};
use super::reader::quote;
use super::validate::workspace_name_problem;
use super::version::{GLOBAL_VERSION, LEGACY, OP_ACCOUNT_MOVED, ROLE_VERSION, Version, WORKSPACE_VERSION};
use crate::diagnostic::Diagnostic;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;
use toml::de::{DeTable, DeValue};
use toml_edit::{DocumentMut, InlineTable, Item, TableLike};

#[derive(Debug, Clone, Default)]
pub struct NewWorkspace {
    pub workdir: String,
    pub mounts: Vec<NewMount>,
    pub allowed_roles: Vec<String>,
    pub default_role: Option<String>,
    pub default_agent: Option<Agent>,
    pub git_pull_on_entry: bool,
    pub keep_awake: bool,
}

#[derive(Debug, Clone)]
pub struct NewMount {
    pub src: String,
    pub dst: String,
    pub readonly: bool,
    pub isolation: Isolation,
}

/// The text of a new `workspaces/<name>.toml`.
pub fn render_workspace(new: &NewWorkspace) -> String {
    let mut out = format!("version = \"{WORKSPACE_VERSION}\"\nworkdir = {}\n", text(&new.workdir));
    // Everything here stands above the first table, below which it would belong to that table.
    if !new.allowed_roles.is_empty() {
        let roles: Vec<String> = new.allowed_roles.iter().map(|role| text(role)).collect();
        let _ = writeln!(out, "allowed_roles = [{}]", roles.join(", "));
    }
    if let Some(role) = &new.default_role {
        let _ = writeln!(out, "default_role = {}", text(role));
    }
    if let Some(agent) = new.default_agent {
        let _ = writeln!(out, "default_agent = \"{agent}\"");
    }
    if new.git_pull_on_entry {
        out.push_str("git_pull_on_entry = true\n");
    }
    for mount in &new.mounts {
        let _ = write!(out, "\n[[mounts]]\nsrc = {}\ndst = {}\n", text(&mount.src), text(&mount.dst));
        if mount.readonly {
            out.push_str("readonly = true\n");
        }
        let isolation = match mount.isolation {
            Isolation::Shared => "shared",
            Isolation::Worktree => "worktree",
            Isolation::Clone => "clone",
        };
        let _ = writeln!(out, "isolation = \"{isolation}\"");
    }
    if new.keep_awake {
        out.push_str("\n[keep_awake]\nenabled = true\n");
    }
    out
}

fn text(value: &str) -> String {
    toml_edit::Value::from(value).to_string()
}

/// `config.toml` at the newest version; `None` when it is that already, or is not to be touched (broken, or newer).
pub fn migrate_global_text(text: &str) -> Option<String> {
    outdated(text, GLOBAL_VERSION)?;
    Some(stamp(text, GLOBAL_VERSION))
}

pub fn migrate_role_text(text: &str) -> Option<String> {
    outdated(text, ROLE_VERSION)?;
    Some(stamp(text, ROLE_VERSION))
}

pub fn migrate_workspace_text(text: &str) -> Option<String> {
    let version = outdated(text, WORKSPACE_VERSION)?;
    let moved = if version < OP_ACCOUNT_MOVED { move_op_account(text)? } else { text.to_owned() };
    Some(stamp(&moved, WORKSPACE_VERSION))
}

fn outdated(text: &str, newest: Version) -> Option<Version> {
    let tree = DeTable::parse(text).ok()?;
    let version = match tree.get_ref().get("version") {
        None => LEGACY,
        Some(value) => Version::parse(value.get_ref().as_str()?)?,
    };
    (version < newest).then_some(version)
}

/// Sets `version` as the first key. Works on the text, so that no comment moves or is lost.
fn stamp(text: &str, version: Version) -> String {
    let (bom, body) = match text.strip_prefix('\u{feff}') {
        Some(body) => ("\u{feff}", body),
        None => ("", text),
    };
    let fresh = format!("version = \"{version}\"");
    let Some((key, value)) = top_level(body, "version") else {
        return format!("{bom}{fresh}\n{body}");
    };
    let (start, end) = (line_start(body, key.start), line_end(body, value.end));
    let line = format!("{fresh}{}", body[value.end..end].trim_end_matches('\n'));
    let first = DeTable::parse(body).is_ok_and(|tree| tree.get_ref().keys().all(|other| other.span().start >= key.start));
    if first {
        format!("{bom}{}{fresh}{}", &body[..start], &body[value.end..])
    } else {
        format!("{bom}{line}\n{}{}", &body[..start], &body[end..])
    }
}

fn top_level(text: &str, key: &str) -> Option<(Range<usize>, Range<usize>)> {
    let tree = DeTable::parse(text).ok()?;
    let (key, value) = tree.get_ref().get_key_value(key)?;
    Some((key.span(), value.span()))
}

fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |n| n + 1)
}

/// Behind the line break.
fn line_end(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |n| at + n + 1)
}

/// The account that a file before `v1alpha5` set once goes onto every reference that has none. `None` if it is not a string.
fn move_op_account(text: &str) -> Option<String> {
    let tree = DeTable::parse(text).ok()?;
    let Some(value) = tree.get_ref().get("op_account") else {
        return Some(text.to_owned());
    };
    let DeValue::String(account) = value.get_ref() else {
        return None;
    };
    let mut document: DocumentMut = text.parse().ok()?;
    let root = document.as_table_mut();
    stamp_account_below(root, account);
    if let Some(roles) = root.get_mut("roles").and_then(Item::as_table_like_mut) {
        for (_, role) in roles.iter_mut() {
            if let Some(role) = role.as_table_like_mut() {
                stamp_account_below(role, account);
            }
        }
    }
    let stamped = document.to_string();
    // As text, because taking the key out of the document would take the comments above it too.
    let (key, value) = top_level(&stamped, "op_account")?;
    let (start, end) = (line_start(&stamped, key.start), line_end(&stamped, value.end));
    Some(format!("{}{}", &stamped[..start], &stamped[end..]))
}

fn stamp_account_below(table: &mut dyn TableLike, account: &str) {
    if let Some(env) = table.get_mut("env").and_then(Item::as_table_like_mut) {
        stamp_account(env, account);
    }
    let github = table.get_mut("github").and_then(Item::as_table_like_mut);
    if let Some(env) = github.and_then(|g| g.get_mut("env")).and_then(Item::as_table_like_mut) {
        stamp_account(env, account);
    }
}

fn stamp_account(env: &mut dyn TableLike, account: &str) {
    for (_, entry) in env.iter_mut() {
        let scalar = entry.as_str().filter(|text| text.starts_with("op://")).map(str::to_owned);
        if let Some(reference) = scalar {
            let mut form = InlineTable::new();
            form.insert("op", reference.as_str().into());
            form.insert("path", reference.as_str().into());
            form.insert("account", account.into());
            *entry = Item::Value(form.into());
        } else if let Some(form) = entry.as_table_like_mut()
            && (form.contains_key("op") || form.get("value").and_then(Item::as_str).is_some_and(|v| v.starts_with("op://")))
            && !form.contains_key("account")
        {
            if let Some(reference) = form.remove("value") {
                form.insert("op", reference);
            }
            form.insert("account", toml_edit::value(account));
        }
    }
}

/// An old `config.toml` taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// `config.toml` without workspaces, at the newest version.
    pub global: String,
    /// Texts of `workspaces/<name>.toml` by name, at the newest version.
    pub workspaces: BTreeMap<String, String>,
}

/// `None` when there are no workspaces inside (or the file is broken, which reading it reports).
pub fn split_global_text(text: &str) -> Result<Option<Split>, Diagnostic> {
    let Ok(mut document) = text.parse::<DocumentMut>() else {
        return Ok(None);
    };
    let Some(tables) = document.remove("workspaces") else {
        return Ok(None);
    };
    let Ok(tables) = tables.into_table() else {
        return Ok(None);
    };
    let mut workspaces = BTreeMap::new();
    for (name, item) in tables {
        if let Some(problem) = workspace_name_problem(&name) {
            return Err(Diagnostic::error(
                "config.workspace_name",
                "A workspace name is malformed",
                format!("`[workspaces.\"{}\"]`: {problem}", quote(&name)),
            )
            .help("rename the table in config.toml"));
        }
        let Ok(mut table) = item.into_table() else {
            return Ok(None);
        };
        table.set_dotted(false);
        table.set_implicit(false);
        table.decor_mut().clear();
        let alone = DocumentMut::from(table).to_string();
        let alone = alone.trim_start_matches('\n');
        let Some(text) = migrate_workspace_text(alone) else {
            return Ok(None);
        };
        workspaces.insert(name.to_string(), text);
    }
    if workspaces.is_empty() {
        return Ok(None);
    }
    let rest = document.to_string();
    let global = migrate_global_text(&rest).unwrap_or(rest);
    Ok(Some(Split { global, workspaces }))
}

/// Two workspace files mean the same, whatever their version, order and comments.
pub fn same_workspace(one: &str, other: &str) -> bool {
    let meaning = |text: &str| {
        let newest = migrate_workspace_text(text).unwrap_or_else(|| text.to_owned());
        let mut table: toml::Table = newest.parse().ok()?;
        table.remove("version");
        Some(table)
    };
    let (one, other) = (meaning(one), meaning(other));
    one.is_some() && one == other
}
