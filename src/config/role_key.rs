//! Role keys (`name`, `ns/name`), the built-in roles, and git URLs of roles.
//!
//! In: text from a command line or a file. Out: `RoleKey`, URLs. Absent: the cache and git itself.

use super::reader::quote;
use crate::diagnostic::Diagnostic;
use std::fmt;

/// Always present and trusted.
pub const BUILTIN_ROLES: [(&str, &str); 2] = [
    ("agent-smith", "https://github.com/jackin-project/jackin-agent-smith.git"),
    ("the-architect", "https://github.com/jackin-project/jackin-the-architect.git"),
];

pub fn builtin_url(key: &str) -> Option<&'static str> {
    BUILTIN_ROLES.iter().find(|(name, _)| *name == key).map(|(_, url)| *url)
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoleKey {
    pub namespace: Option<String>,
    pub name: String,
}

impl fmt::Display for RoleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl RoleKey {
    /// Folded to lower case; both parts `[a-z0-9-]+`.
    pub fn parse(text: &str) -> Result<RoleKey, Diagnostic> {
        let key = text.to_ascii_lowercase();
        let bad = |problem: &str, help: &str| {
            Err(Diagnostic::error("role.key", "A role key is malformed", format!("`{}`: {problem}", quote(text))).help(help))
        };
        let part = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let (namespace, name) = match key.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, key.as_str()),
        };
        if name.contains('/') {
            return bad("it has more than two parts", "write `name` or `namespace/name`");
        }
        if !part(name) || !namespace.is_none_or(part) {
            return bad("only letters, digits and `-` are allowed", "write `name` or `namespace/name`");
        }
        if namespace.is_none() && name.starts_with("jk-") {
            return bad("names that start with `jk-` are containers", "name the role, not one of its containers");
        }
        // A leading dash would be read as an option once the key reaches a command.
        if key.starts_with('-') {
            return bad("it starts with `-`", "write `name` or `namespace/name`");
        }
        Ok(RoleKey { namespace: namespace.map(str::to_owned), name: name.to_owned() })
    }

    /// Where an unknown role with a namespace is looked for; without one there is nowhere to look.
    pub fn derived_url(&self) -> Option<String> {
        let namespace = self.namespace.as_ref()?;
        let repo = if self.name.starts_with("jackin-") { self.name.clone() } else { format!("jackin-{}", self.name) };
        Some(format!("https://github.com/{namespace}/{repo}.git"))
    }

    /// The repo's folder below `roles/`. A role `acme/default` would lie where role `acme` keeps its own checkout,
    /// so those two names get a sign that no key can hold.
    pub fn cache_folder(&self) -> String {
        match &self.namespace {
            Some(namespace) if self.name == "default" || self.name == "branches" => {
                format!("{namespace}/+{}", self.name)
            }
            Some(namespace) => format!("{namespace}/{}", self.name),
            None => self.name.clone(),
        }
    }

    /// One name for one role's locks and images; `_` occurs in no key.
    pub fn slug(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{namespace}_{}", self.name),
            None => self.name.clone(),
        }
    }
}

/// Why git must not be given this URL; `None` when it may.
pub fn git_url_problem(url: &str) -> Option<&'static str> {
    if url.trim().is_empty() {
        return Some("it is empty");
    }
    if url.starts_with('-') {
        return Some("it starts with `-`, which git reads as an option");
    }
    if url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Some("it holds a space or a control character");
    }
    // `ext::sh -c …` runs a command of the URL's choice.
    if url.split_once("::").is_some_and(|(helper, _)| !helper.contains(['/', ':', '[', '@'])) {
        return Some("git remote helpers are not used");
    }
    None
}

/// What is handed to git: GitHub over ssh becomes https, which needs no key for public repos.
pub fn clone_url(url: &str) -> String {
    for prefix in ["git@github.com:", "ssh://git@github.com/", "ssh://git@github.com:22/"] {
        if let Some(path) = url.strip_prefix(prefix) {
            return format!("https://github.com/{}", path.trim_start_matches('/'));
        }
    }
    url.to_owned()
}

/// What people and plans see: without user-info and query, either of which may be a credential.
pub fn shown_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (host, path) = match rest.split_once('/') {
        Some((host, path)) => (host, Some(path)),
        None => (rest, None),
    };
    let host = host.rsplit('@').next().unwrap_or_default();
    match path {
        Some(path) => format!("{scheme}://{host}/{path}"),
        None => format!("{scheme}://{host}"),
    }
}

/// Owner and repo of a URL, for comparing a cache's origin: host, scheme and `.git` do not count.
pub fn url_identity(url: &str) -> String {
    let path = match url.split_once("://") {
        Some((_, rest)) => rest.split_once('/').map_or("", |(_, path)| path),
        None => match url.split_once(':') {
            Some((host, path)) if !host.contains('/') => path,
            _ => url,
        },
    };
    let path = path.split(['?', '#']).next().unwrap_or_default().trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    let mut parts: Vec<&str> = path.rsplit('/').take(2).collect();
    parts.reverse();
    parts.join("/").to_lowercase()
}
