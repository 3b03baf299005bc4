//! A role ready for the graph: its manifest and the texts of its Dockerfile and hooks, all from one commit.
//!
//! In: a snapshot. Out: the role, or the reasons why not as diagnostics. Absent: git.

use super::role_repo::check_role;
use crate::config::RoleManifest;
use crate::config::dockerfile::override_construct;
use crate::diagnostic::Diagnostic;
use crate::facts::RoleSnapshot;
use std::collections::BTreeMap;

#[derive(Debug, Clone)]
pub struct CheckedRole {
    pub manifest: RoleManifest,
    /// The construct image of the last `FROM`.
    pub construct: String,
    pub display_name: String,
    /// Hook name (`setup-once`, `source`, `preflight`) -> content.
    pub hooks: BTreeMap<String, String>,
    dockerfile: String,
}

impl CheckedRole {
    /// The role's Dockerfile, its construct replaced when another one is asked for.
    pub fn dockerfile_with(&self, construct: Option<&str>) -> String {
        match construct {
            Some(image) => override_construct(&self.dockerfile, image),
            None => self.dockerfile.clone(),
        }
    }
}

pub fn check(snapshot: &RoleSnapshot) -> (Option<CheckedRole>, Vec<Diagnostic>) {
    let checked = match check_role(snapshot) {
        Ok(checked) => checked,
        Err(diagnostics) => return (None, diagnostics),
    };
    let manifest = checked.manifest;
    let text = |path: &str| snapshot.files.get(path).cloned().unwrap_or_default();
    let hooks = [("setup-once", &manifest.setup_once), ("source", &manifest.source), ("preflight", &manifest.preflight)]
        .into_iter()
        .filter_map(|(name, path)| Some((name.to_owned(), text(&path.as_ref()?.value))))
        .collect();
    let role = CheckedRole {
        construct: checked.construct.image(),
        display_name: manifest.display_name.clone().unwrap_or_else(|| snapshot.key.rsplit('/').next().unwrap_or_default().to_owned()),
        hooks,
        dockerfile: text(&manifest.dockerfile.value),
        manifest,
    };
    (Some(role), checked.warnings)
}
