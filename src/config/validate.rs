//! Rules that span tables or files, over typed values.
//!
//! In: `Global`, `Workspace`s. Out: diagnostics. Absent: whether a path exists or two paths are one folder; only facts know that.

use super::env::RESERVED;
use super::file::role_key_problem;
use super::layer;
use super::model::*;
use super::reader::{near, quote};
use crate::diagnostic::{Diagnostic, Span};
use std::collections::{BTreeMap, BTreeSet};

pub fn validate(config: &Config) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    check_global_mounts(&config.global, &mut found);
    for workspace in config.workspaces.values() {
        check_workspace(workspace, &mut found);
        check_roles_known(workspace, &config.global, &mut found);
        check_against_global_mounts(workspace, &config.global, &mut found);
    }
    found
}

/// Why a workspace cannot have this name.
pub fn workspace_name_problem(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("it is empty")
    } else if name == "." || name == ".." {
        Some("it names a folder, not a workspace")
    } else if name.contains(['/', '\\']) {
        Some("it holds a slash")
    } else if name.chars().any(char::is_control) {
        Some("it holds a control character")
    } else if name == "@prewarm" {
        Some("kept sidecars go by it")
    } else {
        None
    }
}

/// Why a new workspace should not have this name: what could hardly be named again is not saved. Files that are there are read.
fn new_name_problem(name: &str) -> Option<&'static str> {
    workspace_name_problem(name).or(if name.trim() != name {
        Some("it begins or ends with a blank")
    } else if name.starts_with('.') {
        Some("it begins with a dot, as hidden files do, which are not read")
    } else if name.starts_with('-') {
        Some("it begins with `-`, as options do")
    } else {
        None
    })
}

fn malformed_name(name: &str, problem: &str) -> Diagnostic {
    Diagnostic::error("config.workspace_name", "A workspace name is malformed", format!("`{}`: {problem}", quote(name)))
        .help("name the workspace (the file without `.toml`) without slashes, and not `.` or `..`")
}

/// Of a workspace that there is.
pub fn check_workspace_name(name: &str) -> Option<Diagnostic> {
    workspace_name_problem(name).map(|problem| malformed_name(name, problem))
}

/// Of one that is to be.
pub fn check_new_workspace_name(name: &str) -> Option<Diagnostic> {
    new_name_problem(name).map(|problem| malformed_name(name, problem))
}

fn error(code: &str, summary: &str, detail: String, at: &Option<Span>, help: impl Into<String>) -> Diagnostic {
    Diagnostic::error(code, summary, detail).at(at.clone()).help(help)
}

/// One slash between parts, none at the end.
pub fn clean_path(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    if path.starts_with('/') { format!("/{}", parts.join("/")) } else { parts.join("/") }
}

/// `inner` lies inside `outer`; not the same.
pub fn is_inside(inner: &str, outer: &str) -> bool {
    let (inner, outer) = (clean_path(inner), clean_path(outer));
    if outer == "/" { inner != "/" } else { inner.strip_prefix(&outer).is_some_and(|rest| rest.starts_with('/')) }
}

fn has_dots(path: &str) -> bool {
    path.split('/').any(|part| part == "." || part == "..")
}

fn check_paths(src: &Located<String>, dst: &Located<String>, found: &mut Vec<Diagnostic>) {
    let from = &src.value;
    if !(from.starts_with('/') || from == "~" || from.starts_with("~/")) {
        found.push(error(
            "config.mount_source",
            "A mount source is not absolute",
            format!("`{}`", quote(from)),
            &src.span,
            "start it with `/` or `~/`",
        ));
    } else if has_dots(from) {
        found.push(error(
            "config.mount_source",
            "A mount source is not absolute",
            format!("`{}` has a `.` or `..` part", quote(from)),
            &src.span,
            "write the path without them",
        ));
    }
    let to = &dst.value;
    if !to.starts_with('/') {
        found.push(error(
            "config.mount_target",
            "A mount target is not usable",
            format!("`{}` is not absolute", quote(to)),
            &dst.span,
            "start it with `/`",
        ));
    } else if has_dots(to) {
        found.push(error(
            "config.mount_target",
            "A mount target is not usable",
            format!("`{}` has a `.` or `..` part", quote(to)),
            &dst.span,
            "write the path without them",
        ));
    } else if clean_path(to) == "/" {
        found.push(error(
            "config.mount_target",
            "A mount target is not usable",
            "`/` is the container's own file system".to_owned(),
            &dst.span,
            "mount into a folder, such as `/workspace`",
        ));
    }
}

pub fn check_workspace(workspace: &Workspace, found: &mut Vec<Diagnostic>) {
    if let Some(problem) = check_workspace_name(&workspace.name) {
        found.push(problem);
    }
    let workdir = &workspace.workdir;
    let mut paths_are_sound = true;
    if !workdir.value.starts_with('/') {
        paths_are_sound = false;
        found.push(error(
            "config.workdir",
            "A workdir is not absolute",
            format!("`{}`", quote(&workdir.value)),
            &workdir.span,
            "give a path inside the container that starts with `/`",
        ));
    }
    if workspace.mounts.is_empty() {
        paths_are_sound = false;
        found.push(error(
            "config.no_mounts",
            "A workspace has no mounts",
            format!("`{}`", quote(&workspace.name)),
            &workdir.span,
            "add a `[[mounts]]` table with `src` and `dst`",
        ));
    }
    let mut targets: BTreeMap<String, &Mount> = BTreeMap::new();
    for mount in &workspace.mounts {
        let before = found.len();
        check_paths(&mount.src, &mount.dst, found);
        paths_are_sound &= found.len() == before;
        let target = clean_path(&mount.dst.value);
        if let Some(first) = targets.get(&target) {
            let place = first.dst.span.as_ref().map_or_else(String::new, |s| format!(" (the first at line {})", s.line));
            found.push(error(
                "config.mount_twice",
                "Two mounts have one target",
                format!("`{}` is the target of more than one mount{place}", quote(&target)),
                &mount.dst.span,
                "give each mount its own `dst`",
            ));
        } else {
            targets.insert(target, mount);
        }
        if mount.readonly && mount.isolation.value != Isolation::Shared {
            found.push(error(
                "config.isolation_readonly",
                "An isolated mount cannot be read-only",
                format!("`{}` is a checkout of its own, made to be written", quote(&mount.dst.value)),
                &mount.isolation.span,
                "remove `readonly = true`, or set `isolation = \"shared\"`",
            ));
        }
    }
    let start = clean_path(&workdir.value);
    let related = |dst: &str| start == clean_path(dst) || is_inside(&start, dst) || is_inside(dst, &start);
    if paths_are_sound && !workspace.mounts.iter().any(|m| related(&m.dst.value)) {
        let targets: Vec<String> = workspace.mounts.iter().take(5).map(|m| format!("`{}`", quote(&m.dst.value))).collect();
        found.push(error(
            "config.workdir",
            "A workdir has nothing to do with the mounts",
            format!("`{}` is neither a mount's target, nor inside one, nor above one", quote(&workdir.value)),
            &workdir.span,
            format!("use one of the targets: {}", targets.join(", ")),
        ));
    }
    check_isolation(workspace, found);
    check_workspace_roles(workspace, found);
}

fn check_isolation(workspace: &Workspace, found: &mut Vec<Diagnostic>) {
    let isolated: Vec<&Mount> = workspace.mounts.iter().filter(|m| m.isolation.value != Isolation::Shared).collect();
    let by_target: BTreeMap<String, &Mount> = isolated.iter().map(|m| (clean_path(&m.dst.value), *m)).collect();
    let mut worktrees: BTreeSet<String> = BTreeSet::new();
    for mount in isolated {
        let target = clean_path(&mount.dst.value);
        let outer = target.match_indices('/').skip(1).map(|(at, _)| &target[..at]).find(|parent| by_target.contains_key(*parent));
        if let Some(outer) = outer {
            found.push(error(
                "config.isolation_nested",
                "An isolated mount lies inside another",
                format!("`{}` is inside `{}`", quote(&target), quote(outer)),
                &mount.isolation.span,
                "set `isolation = \"shared\"` on one of the two",
            ));
        }
        if mount.isolation.value == Isolation::Worktree && !worktrees.insert(clean_path(&mount.src.value)) {
            found.push(error(
                "config.worktree_twice",
                "Two worktree mounts share a source",
                format!("`{}` is the source of more than one", quote(&mount.src.value)),
                &mount.src.span,
                "use `isolation = \"clone\"` for all but one of them",
            ));
        }
    }
}

fn check_workspace_roles(workspace: &Workspace, found: &mut Vec<Diagnostic>) {
    let allowed: Vec<&str> = workspace.allowed_roles.iter().map(|r| r.value.as_str()).collect();
    let mut check = |role: &Located<String>, field: &str| {
        if !allowed.is_empty() && !allowed.contains(&role.value.as_str()) {
            found.push(error(
                "config.role_not_allowed",
                "A role is not among the allowed ones",
                format!("`{field}` is `{}`, which `allowed_roles` does not list", quote(&role.value)),
                &role.span,
                format!("add it to `allowed_roles`, or {}", super::reader::did_you_mean(&role.value, &allowed)),
            ));
        }
    };
    if let Some(role) = &workspace.default_role {
        check(role, "default_role");
    }
    for instance in &workspace.instances {
        if let Some(role) = &instance.role {
            check(role, "instance.role");
        }
    }
    let mut names = BTreeSet::new();
    for instance in &workspace.instances {
        let name = &instance.name;
        if !names.insert(name.value.as_str()) {
            found.push(error(
                "config.instance_twice",
                "Two instances have one name",
                format!("`{}` is declared more than once", quote(&name.value)),
                &name.span,
                "give each `[[instance]]` its own name",
            ));
        }
        match instance.role.as_ref() {
            None if workspace.default_role.is_none() => found.push(error(
                "config.instance_role",
                "An instance has no role",
                format!("`{}` names no role, and the workspace has no `default_role`", quote(&name.value)),
                &name.span,
                "add `role = \"…\"` to the instance or `default_role` to the workspace",
            )),
            Some(role) => {
                if let Some(problem) = role_key_problem(&role.value) {
                    found.push(error(
                        "config.role_key",
                        "A role key is malformed",
                        format!("`{}`: {problem}", quote(&role.value)),
                        &role.span,
                        "write `name` or `namespace/name` in lower case",
                    ));
                }
            }
            None => {}
        }
    }
    for role in workspace.allowed_roles.iter().chain(&workspace.default_role) {
        if let Some(problem) = role_key_problem(&role.value) {
            found.push(
                Diagnostic::warning(
                    "config.role_key",
                    "A role key is malformed",
                    format!("`{}` can never be selected: {problem}", quote(&role.value)),
                )
                .at(role.span.clone())
                .help("write `name` or `namespace/name` in lower case"),
            );
        }
    }
}

/// A role without a namespace must be configured; one with a namespace is looked for on GitHub.
fn check_roles_known(workspace: &Workspace, global: &Global, found: &mut Vec<Diagnostic>) {
    let declared = workspace.instances.iter().filter_map(|i| i.role.as_ref());
    for role in declared.chain(&workspace.default_role) {
        if role.value.contains('/') || global.roles.contains_key(&role.value) || role_key_problem(&role.value).is_some() {
            continue;
        }
        let help = match near(&role.value, global.roles.keys().map(String::as_str)) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("add `[roles.{}]` with its `git` URL to config.toml", quote(&role.value)),
        };
        found.push(
            Diagnostic::warning("config.unknown_role", "A role has no source", format!("`{}` is not configured", quote(&role.value)))
                .at(role.span.clone())
                .help(help),
        );
    }
}

fn check_global_mounts(global: &Global, found: &mut Vec<Diagnostic>) {
    let mut by_target: BTreeMap<String, Vec<&GlobalMount>> = BTreeMap::new();
    for mount in &global.mounts {
        check_paths(&mount.src, &mount.dst, found);
        by_target.entry(clean_path(&mount.dst.value)).or_default().push(mount);
    }
    for (target, mounts) in by_target {
        for (i, mount) in mounts.iter().enumerate() {
            // Mounts of one name replace each other from scope to scope, so only other names collide.
            let other = mounts[..i].iter().find(|o| o.name != mount.name && scopes_overlap(o.scope.as_deref(), mount.scope.as_deref()));
            if let Some(other) = other {
                found.push(error(
                    "config.global_mount_twice",
                    "Two global mounts have one target",
                    format!("`{}` and `{}` are both mounted at `{}`", quote(&other.name), quote(&mount.name), quote(&target)),
                    &mount.dst.span,
                    "change one `dst`, or give both the same name so that one replaces the other",
                ));
            }
        }
    }
}

fn scopes_overlap(a: Option<&str>, b: Option<&str>) -> bool {
    let (Some(a), Some(b)) = (a, b) else {
        return true;
    };
    match (a.strip_suffix("/*"), b.strip_suffix("/*")) {
        (Some(a), Some(b)) => a == b,
        (Some(ns), None) => b.split_once('/').is_some_and(|(n, _)| n == ns),
        (None, Some(ns)) => a.split_once('/').is_some_and(|(n, _)| n == ns),
        (None, None) => a == b,
    }
}

fn check_against_global_mounts(workspace: &Workspace, global: &Global, found: &mut Vec<Diagnostic>) {
    let roles: BTreeSet<String> = workspace.declared().into_iter().map(|d| d.role.value).collect();
    let mut seen = BTreeSet::new();
    for role in roles {
        for conflict in mount_conflicts(workspace, global, &role) {
            // The same two mounts meet for every role; once is enough.
            if seen.insert((conflict.span.clone(), conflict.detail.clone())) {
                found.push(conflict);
            }
        }
    }
}

/// Mounts of the workspace that a global mount for this role would cover.
pub fn mount_conflicts(workspace: &Workspace, global: &Global, role: &str) -> Vec<Diagnostic> {
    let own: BTreeMap<String, &Mount> = workspace.mounts.iter().map(|m| (clean_path(&m.dst.value), m)).collect();
    let mut found = Vec::new();
    for mount in layer::global_mounts(global, role) {
        if let Some(first) = own.get(&clean_path(&mount.dst.value)) {
            let place = mount.dst.span.as_ref().map_or_else(String::new, |s| format!(" ({s})"));
            found.push(error(
                "config.mount_conflict",
                "A workspace mount and a global mount have one target",
                format!("`{}` is also the target of global mount `{}`{place}", quote(&first.dst.value), quote(&mount.name)),
                &first.dst.span,
                "change one of the two `dst`",
            ));
        }
    }
    found
}

/// Folders and files that hold credentials; mounting one needs a yes.
pub const SENSITIVE: [&str; 11] =
    [".ssh", ".aws", ".gnupg", ".config/gcloud", ".kube", ".docker", ".config/gh", ".netrc", ".npmrc", ".git-credentials", ".config/op"];

/// Which of them a (canonical) path is or lies in.
pub fn sensitive(path: &str) -> Option<&'static str> {
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    SENSITIVE.into_iter().find(|pattern| {
        let pattern: Vec<&str> = pattern.split('/').collect();
        parts.windows(pattern.len()).any(|run| run == pattern)
    })
}

/// Of a list of names, those an operator may not set; for `--env`.
pub fn reserved_among<'n>(names: impl IntoIterator<Item = &'n str>) -> Vec<&'n str> {
    names.into_iter().filter(|name| RESERVED.contains(name)).collect()
}
