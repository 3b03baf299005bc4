//! Whether a role repo keeps its contract, and what it says.
//!
//! In: a `RoleSnapshot`, whose contents come from git objects. Out: manifest, construct and warnings, or every reason against it.
//! Absent: git, the cache folder, marketplaces on the network.

use crate::config::RoleManifest;
use crate::config::dockerfile::{self, ConstructRef};
use crate::config::reader::{near, quote};
use crate::config::role::{MANIFEST, parse_manifest, repo_path};
use crate::config::role_key::RoleKey;
use crate::diagnostic::{Diagnostic, Span};
use crate::facts::{RoleProblem, RoleSnapshot, TreeKind};

#[derive(Debug, Clone)]
pub struct CheckedRole {
    pub manifest: RoleManifest,
    pub construct: ConstructRef,
    pub warnings: Vec<Diagnostic>,
}

/// The address that every finding about a role carries.
pub fn address(key: &str) -> String {
    format!("role-repo/{key}")
}

pub fn check_role(snapshot: &RoleSnapshot) -> Result<CheckedRole, Vec<Diagnostic>> {
    let mut found = Vec::new();
    if let Some(problem) = &snapshot.problem {
        found.push(describe(snapshot, problem));
    }
    if !snapshot.dirty.is_empty() {
        let some: Vec<String> = snapshot.dirty.iter().take(3).map(|p| format!("`{}`", quote(p))).collect();
        let more = snapshot.dirty.len().saturating_sub(3);
        let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
        found.push(
            Diagnostic::error(
                "role.dirty_cache",
                "A cached role has local changes",
                format!("{}{rest} in {}", some.join(", "), snapshot.cache),
            )
            .help("keep what you need elsewhere, then remove the folder; it is cloned again"),
        );
    }
    let checked = if snapshot.problem.is_some() { None } else { check_contents(snapshot, &mut found) };
    for diagnostic in &mut found {
        diagnostic.address.get_or_insert_with(|| address(&snapshot.key));
    }
    match checked {
        Some((manifest, construct)) if !found.iter().any(Diagnostic::is_error) => Ok(CheckedRole { manifest, construct, warnings: found }),
        _ => Err(found),
    }
}

fn describe(snapshot: &RoleSnapshot, problem: &RoleProblem) -> Diagnostic {
    let key = quote(&snapshot.key);
    let url = quote(&crate::config::role_key::shown_url(&snapshot.url));
    match problem {
        RoleProblem::Unknown => {
            let help = match RoleKey::parse(&snapshot.key) {
                Ok(_) => match near(&snapshot.key, crate::config::role_key::BUILTIN_ROLES.map(|(name, _)| name)) {
                    Some(meant) => format!("did you mean `{meant}`? Otherwise add `[roles.{key}]` with its `git` URL to config.toml"),
                    None => format!("add `[roles.{key}]` with its `git` URL to config.toml, or use `namespace/name`"),
                },
                Err(_) => "write `name` or `namespace/name`".to_owned(),
            };
            Diagnostic::error("role.unknown", "A role has no source", format!("`{key}` is neither configured nor built in")).help(help)
        }
        RoleProblem::CloneFailed { message } => {
            let help = match message.contains("No space left on device") {
                true => "free some space, then run the command again",
                false => "check the URL, your network and your access, then run the command again",
            };
            Diagnostic::error("role.clone_failed", "A role repo could not be cloned", format!("{url}: {}", quote_message(message)))
                .help(help)
        }
        RoleProblem::FetchFailed { message } => {
            Diagnostic::error("role.fetch_failed", "A role repo could not be fetched", format!("{url}: {}", quote_message(message)))
                .help("check your network, or use `--offline` to build from what is cached")
        }
        RoleProblem::ForeignOrigin { found } => Diagnostic::error(
            "role.foreign_origin",
            "A cached role comes from somewhere else",
            format!(
                "{} was cloned from {}, the configuration says {url}",
                snapshot.cache,
                quote(&crate::config::role_key::shown_url(found))
            ),
        )
        .help("correct `git` in config.toml, or remove the folder; it is cloned again"),
        RoleProblem::NoCommit => Diagnostic::error("role.no_commit", "A role repo is empty", format!("{url} has no commit"))
            .help("push a commit with `jackin.role.toml` and a Dockerfile"),
        RoleProblem::NoSuchBranch { branch } => {
            Diagnostic::error("role.no_such_branch", "A role repo has no such branch", format!("`{}` in {url}", quote(branch)))
                .help("check `--role-branch`")
        }
        RoleProblem::NotARepository { message } => Diagnostic::error(
            "role.not_a_repository",
            "A cached role is not a git repository",
            format!("{}: {}", snapshot.cache, quote_message(message)),
        )
        .help("remove the folder; it is cloned again"),
        RoleProblem::NotCached => Diagnostic::error("role.not_cached", "A role is not in the cache", format!("`{key}` ({url})"))
            .help("run the command once without `--offline`"),
    }
}

/// A published image was made from this commit. Labels hold all 40 digits or, as older prose has it, at least the first 7.
pub fn label_names_commit(label: &str, commit: &str) -> bool {
    let label = label.trim().to_ascii_lowercase();
    label.len() >= 7 && label.bytes().all(|b| b.is_ascii_hexdigit()) && commit.to_ascii_lowercase().starts_with(&label)
}

/// git's messages run over several lines and may repeat a URL with its credentials.
fn quote_message(message: &str) -> String {
    let words: Vec<String> = message
        .split_whitespace()
        .map(|word| {
            let bare = word.trim_matches(['\'', '"', ',']);
            if bare.contains("://") { word.replace(bare, &crate::config::role_key::shown_url(bare)) } else { word.to_owned() }
        })
        .collect();
    let mut text: String = words.join(" ").chars().filter(|c| !c.is_control()).take(300).collect();
    if text.is_empty() {
        text.push_str("git gave no reason");
    }
    text
}

fn check_contents(snapshot: &RoleSnapshot, found: &mut Vec<Diagnostic>) -> Option<(RoleManifest, ConstructRef)> {
    for (path, kind) in &snapshot.tree {
        match kind {
            TreeKind::Symlink => found.push(
                Diagnostic::error("role.symlink", "A role repo holds a symlink", format!("`{}`", quote(path)))
                    .help("replace it with the file itself; a build must not reach outside the repo"),
            ),
            TreeKind::Submodule => found.push(
                Diagnostic::warning("role.submodule", "A role repo holds a submodule", format!("`{}` is empty in builds", quote(path)))
                    .help("copy the files into the repo if the build needs them"),
            ),
            TreeKind::File | TreeKind::Executable => {}
        }
    }
    let text = match snapshot.tree.get(MANIFEST) {
        None => {
            found.push(
                Diagnostic::error("role.no_manifest", "A role repo has no manifest", format!("there is no `{MANIFEST}` at its root"))
                    .help("add one, or check that the URL is that of a role"),
            );
            return None;
        }
        // Reported above.
        Some(TreeKind::Symlink) => return None,
        Some(_) => readable(snapshot, MANIFEST, found)?,
    };
    let manifest = match parse_manifest(&shown(snapshot, MANIFEST), text) {
        Ok((manifest, warnings)) => {
            found.extend(warnings);
            manifest
        }
        Err(mistakes) => {
            found.extend(mistakes.0);
            return None;
        }
    };
    let hooks = [("hooks.setup_once", &manifest.setup_once), ("hooks.source", &manifest.source), ("hooks.preflight", &manifest.preflight)];
    for (field, hook) in hooks {
        let Some(hook) = hook else { continue };
        if let Some(text) = file_at(snapshot, field, &hook.value, &hook.span, found)
            && text.trim().is_empty()
        {
            found.push(
                Diagnostic::error("role.empty_hook", "A hook is empty", format!("`{field}` names `{}`", quote(&hook.value)))
                    .at(hook.span.clone())
                    .help("write the hook, or remove the line"),
            );
        }
    }
    let dockerfile = &manifest.dockerfile;
    let text = file_at(snapshot, "dockerfile", &dockerfile.value, &dockerfile.span, found)?;
    match dockerfile::check(&shown(snapshot, &dockerfile.value), text) {
        Ok(construct) => Some((manifest, construct)),
        Err(mistake) => {
            found.push(mistake);
            None
        }
    }
}

fn shown(snapshot: &RoleSnapshot, path: &str) -> String {
    format!("{}/{path}", snapshot.key)
}

fn readable<'s>(snapshot: &'s RoleSnapshot, path: &str, found: &mut Vec<Diagnostic>) -> Option<&'s str> {
    let text = snapshot.files.get(path);
    if text.is_none() {
        found.push(
            Diagnostic::error("role.encoding", "A file of a role is not UTF-8 text", format!("`{}`", quote(path)))
                .help("save the file as UTF-8"),
        );
    }
    text.map(String::as_str)
}

/// The text of a file that the manifest names: it exists, is a file, and no folder above it is a link to elsewhere.
fn file_at<'s>(snapshot: &'s RoleSnapshot, field: &str, path: &str, span: &Option<Span>, found: &mut Vec<Diagnostic>) -> Option<&'s str> {
    let mut refuse = |problem: &str, help: String| {
        found.push(
            Diagnostic::error("role.path", "A path of a role is not usable", format!("`{field}` is `{}`: {problem}", quote(path)))
                .at(span.clone())
                .help(help),
        );
    };
    let plain = match repo_path(path) {
        Ok(plain) => plain,
        Err(problem) => {
            refuse(problem, "write a path inside the repo".to_owned());
            return None;
        }
    };
    let above = plain.match_indices('/').map(|(at, _)| &plain[..at]);
    for folder in above {
        match snapshot.tree.get(folder) {
            Some(TreeKind::Symlink) => {
                refuse(&format!("`{}` is a symlink, which may lead out of the repo", quote(folder)), "use a real folder".to_owned());
                return None;
            }
            Some(TreeKind::Submodule) => {
                refuse(&format!("`{}` is a submodule", quote(folder)), "copy the file into the repo".to_owned());
                return None;
            }
            Some(TreeKind::File | TreeKind::Executable) | None => {}
        }
    }
    match snapshot.tree.get(&plain) {
        Some(TreeKind::File | TreeKind::Executable) => readable(snapshot, &plain, found),
        Some(TreeKind::Symlink) => {
            refuse("it is a symlink", "replace it with the file itself".to_owned());
            None
        }
        Some(TreeKind::Submodule) => {
            refuse("it is a submodule", "name a file".to_owned());
            None
        }
        None => {
            let folder = format!("{plain}/");
            if snapshot.tree.keys().any(|known| known.starts_with(&folder)) {
                refuse("it is a folder", "name a file".to_owned());
            } else {
                let help = match near(&plain, snapshot.tree.keys().map(String::as_str)) {
                    Some(meant) => format!("did you mean `{}`?", quote(meant)),
                    None => "commit the file, or correct the path".to_owned(),
                };
                refuse("there is no such file", help);
            }
            None
        }
    }
}
