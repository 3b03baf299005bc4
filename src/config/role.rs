//! `jackin.role.toml`: text to `RoleManifest`.
//!
//! In: the text of a manifest of any schema version. Out: the manifest and warnings, or every mistake.
//! Absent: the files it names (`role_repo.rs`), answers to its prompts (`prompts.rs`).

use super::docker::{DIND, PROFILES, read_capabilities, read_hosts};
use super::dockerfile::image_name_problem;
use super::env::RESERVED;
use super::model::*;
use super::reader::{Reader, Sort, Table, Unknown, did_you_mean, is_variable_name, near, parse, quote};
use super::version::{ROLE_VERSION, Version, alpha, read_version};
use crate::diagnostic::{Diagnostic, Diagnostics};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use toml::de::DeValue;

pub const MANIFEST: &str = "jackin.role.toml";
pub const ROLE_SORT: Sort = Sort { area: "role", hides_env: false, top_level: &["version", "dockerfile", "published_image", "agents"] };
const PROVIDERS: [&str; 5] = ["anthropic", "openai", "zai", "minimax", "kimi"];

pub fn parse_manifest(file: &str, text: &str) -> Result<(RoleManifest, Vec<Diagnostic>), Diagnostics> {
    let tree = parse(ROLE_SORT, file, text)?;
    let reader = Reader::new(ROLE_SORT, file, text, tree.get_ref());
    let root = reader.root(tree.get_ref());
    let manifest = read_version(&root, ROLE_VERSION).map(|version| read_manifest(&root, version));
    let warnings = reader.finish()?;
    manifest
        .map(|manifest| (manifest, warnings))
        .ok_or_else(|| Diagnostic::error("role.unreadable", "A manifest is not readable", format!("`{}`", quote(file))).into())
}

fn read_manifest(root: &Table<'_>, version: Version) -> RoleManifest {
    let gate = Gate { root, version };
    let dockerfile = root.required("dockerfile", "name the role's Dockerfile, such as `dockerfile = \"Dockerfile\"`");
    check_path(root, "dockerfile", &dockerfile);
    let published_image = root.line("published_image");
    if let Some(image) = &published_image
        && let Some(problem) = image_name_problem(&image.value)
    {
        root.reader.error(
            value_at(root, "published_image"),
            "image_name",
            "An image name is not usable",
            format!("`{}`: {problem}", quote(&image.value)),
            "write a registry image, such as `ghcr.io/acme/web:latest`",
        );
    }
    let agents = read_agents(root, &gate);
    let mut manifest = RoleManifest {
        version: version.to_string(),
        dockerfile: dockerfile.unwrap_or_else(|| Located::bare(String::new())),
        published_image,
        agents,
        display_name: None,
        models: BTreeMap::new(),
        provider_models: BTreeMap::new(),
        claude_plugins: Vec::new(),
        claude_marketplaces: Vec::new(),
        docker: RoleDocker::default(),
        setup_once: None,
        source: None,
        preflight: None,
        env: BTreeMap::new(),
    };
    if let Some(identity) = root.table("identity") {
        manifest.display_name = identity.required("name", "give the name to show").map(|name| name.value);
        identity.finish(Unknown::Reject);
    }
    for agent in Agent::ALL {
        read_agent_table(root, agent, &gate, &mut manifest);
    }
    if let Some(docker) = root.table("docker") {
        gate.need(docker.place.clone(), alpha(6), "`[docker]`");
        manifest.docker = RoleDocker {
            min_profile: docker.word("min_profile", &PROFILES),
            dind: docker.word("dind", &DIND),
            allowed_hosts: read_hosts(&docker),
            capabilities_add: read_capabilities(&docker),
        };
        docker.finish(Unknown::Reject);
    }
    if let Some(hooks) = root.table("hooks") {
        manifest.setup_once = hooks.line("setup_once");
        manifest.source = hooks.line("source");
        manifest.preflight = hooks.line("preflight");
        check_path(&hooks, "setup_once", &manifest.setup_once);
        check_path(&hooks, "source", &manifest.source);
        check_path(&hooks, "preflight", &manifest.preflight);
        hooks.finish(Unknown::Reject);
    }
    if let Some((key, _)) = root.map.get_key_value("capabilities") {
        root.pass(key);
        root.reader.error(
            key.span(),
            "unknown_field",
            "There is no such field",
            "`capabilities` is not a known field",
            "list capabilities in `capabilities_add` of `[docker]`",
        );
    }
    manifest.env = read_declarations(root);
    root.finish(Unknown::Reject);
    manifest
}

fn value_at(table: &Table<'_>, key: &str) -> Range<usize> {
    table.map.get(key).map_or(table.place.clone(), |value| value.span())
}

struct Gate<'t, 'r> {
    root: &'t Table<'r>,
    version: Version,
}

impl Gate<'_, '_> {
    fn need(&self, at: Range<usize>, since: Version, what: &str) {
        if self.version < since {
            self.root.reader.error(
                at,
                "version_too_old",
                "A manifest uses something newer than its version",
                format!("{what} needs `{since}`; the manifest is `{}`", self.version),
                "raise `version` in the role's manifest",
            );
        }
    }

    /// Grok came without a version of its own, and manifests of every age list it.
    fn agent(&self, at: Range<usize>, agent: Agent) {
        match agent {
            Agent::Opencode => self.need(at, alpha(3), "agent `opencode`"),
            Agent::Kimi => self.need(at, alpha(4), "agent `kimi`"),
            Agent::Claude | Agent::Codex | Agent::Amp | Agent::Grok => {}
        }
    }
}

fn read_agents(root: &Table<'_>, gate: &Gate<'_, '_>) -> Vec<Agent> {
    let slugs: Vec<&str> = Agent::ALL.iter().map(|a| a.slug()).collect();
    let written = root.lines_at("agents");
    if !root.has("agents") {
        if !root.has("claude") {
            root.missing("claude", "add an empty `[claude]` table, or list `agents`");
        }
        return vec![Agent::Claude];
    }
    if matches!(root.map.get("agents").map(|v| v.get_ref()), Some(DeValue::Array(items)) if items.is_empty()) {
        root.reader.error(
            value_at(root, "agents"),
            "no_agents",
            "A role supports no agent",
            "`agents` is empty",
            format!("list at least one of {}", slugs.join(", ")),
        );
    }
    let mut agents = Vec::new();
    for (at, slug) in written {
        let Some(agent) = Agent::from_slug(&slug.value) else {
            root.reader.error(
                at,
                "unknown_value",
                "A field has a value that is not known",
                format!("`agents` holds `{}`", quote(&slug.value)),
                did_you_mean(&slug.value, &slugs),
            );
            continue;
        };
        if agents.contains(&agent) {
            root.reader.warn(at, "agent_twice", "An agent is listed twice", format!("`{agent}`"), "remove one of the two");
            continue;
        }
        gate.agent(at.clone(), agent);
        if !root.has(agent.slug()) {
            root.reader.error(
                at,
                "agent_table",
                "A listed agent has no table",
                format!("`agents` lists `{agent}`, but there is no `[{agent}]`"),
                format!("add `[{agent}]`; it may be empty"),
            );
        }
        agents.push(agent);
    }
    if agents.is_empty() {
        agents.push(Agent::Claude);
    }
    agents
}

fn read_agent_table(root: &Table<'_>, agent: Agent, gate: &Gate<'_, '_>, manifest: &mut RoleManifest) {
    let Some(table) = root.table(agent.slug()) else {
        return;
    };
    gate.agent(table.place.clone(), agent);
    let listed = manifest.agents.contains(&agent) && (root.has("agents") || agent == Agent::Claude);
    if !listed {
        root.reader.warn(
            table.place.clone(),
            "agent_unlisted",
            "An agent has a table but is not listed",
            format!("`[{agent}]` has no effect"),
            format!("add `\"{agent}\"` to `agents`, or remove the table"),
        );
    }
    if agent != Agent::Amp
        && let Some(model) = table.line("model")
    {
        manifest.models.insert(agent, model.value);
    }
    if matches!(agent, Agent::Claude | Agent::Codex | Agent::Opencode)
        && let Some(providers) = table.table("providers")
    {
        gate.need(providers.place.clone(), alpha(5), "`providers`");
        let mut models = BTreeMap::new();
        for (key, value) in providers.entries() {
            let Some(provider) = providers.as_table(key, value) else {
                continue;
            };
            let id = key.get_ref().as_ref();
            if !PROVIDERS.contains(&id) {
                providers.reader.warn(
                    key.span(),
                    "provider",
                    "A provider is not known",
                    format!("`{}`", providers.path_of(id)),
                    did_you_mean(id, &PROVIDERS),
                );
            }
            if let Some(model) = provider.line("model") {
                models.insert(id.to_owned(), model.value);
            }
            provider.finish(Unknown::Reject);
        }
        if !models.is_empty() {
            manifest.provider_models.insert(agent, models);
        }
    }
    if agent == Agent::Claude {
        manifest.claude_plugins = table.lines("plugins").into_iter().map(|p| p.value).collect();
        for marketplace in table.tables("marketplaces") {
            let source = marketplace.required("source", "name the marketplace, such as `owner/repo`");
            let sparse = marketplace.lines("sparse").into_iter().map(|s| s.value).collect();
            marketplace.finish(Unknown::Reject);
            if let Some(source) = source {
                manifest.claude_marketplaces.push(Marketplace { source: source.value, sparse });
            }
        }
    }
    table.finish(Unknown::Reject);
}

/// A path inside a repo in its plain form (`./` taken off), or why it is not one.
pub fn repo_path(path: &str) -> Result<String, &'static str> {
    if path.starts_with(['/', '\\']) || path.as_bytes().get(1) == Some(&b':') {
        return Err("it is not relative to the repo");
    }
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    if parts.contains(&"..") {
        return Err("it has a `..` part");
    }
    match parts.first() {
        None => Err("it names no file"),
        Some(&".git" | &".jackin-runtime") => Err("that folder is not part of a build"),
        Some(_) => Ok(parts.join("/")),
    }
}

fn check_path(table: &Table<'_>, key: &str, path: &Option<Located<String>>) {
    if let Some(path) = path
        && let Err(problem) = repo_path(&path.value)
    {
        table.reader.error(
            value_at(table, key),
            "path",
            "A path leaves the role's repo",
            format!("`{}` is `{}`: {problem}", table.path_of(key), quote(&path.value)),
            "write a path inside the repo, such as `hooks/setup.sh`",
        );
    }
}

fn read_declarations(root: &Table<'_>) -> BTreeMap<String, EnvDecl> {
    let Some(tables) = root.table("env") else {
        return BTreeMap::new();
    };
    let reader = root.reader;
    let mut declared = BTreeMap::new();
    let mut places: BTreeMap<String, Range<usize>> = BTreeMap::new();
    for (key, value) in tables.entries() {
        if reader.full() {
            break;
        }
        let Some(table) = tables.as_table(key, value) else {
            continue;
        };
        let name = key.get_ref().as_ref();
        if !is_variable_name(name) {
            reader.error(
                key.span(),
                "env_name",
                "An env name is not usable",
                format!("`{}`", quote(name)),
                "use letters, digits and `_`, not starting with a digit",
            );
        } else if RESERVED.contains(&name) {
            reader.error(
                key.span(),
                "reserved_env",
                "An env name is reserved",
                format!("`{name}` is set by jackin itself"),
                "choose another name",
            );
        }
        declared.insert(name.to_owned(), read_declaration(&table, name));
        places.insert(name.to_owned(), key.span());
    }
    for (key, value) in tables.entries() {
        if let (DeValue::Table(map), false) = (value.get_ref(), reader.full()) {
            check_references(&tables.child(key, map), key.get_ref(), &declared);
        }
    }
    if let Some(cycle) = cycle(&declared) {
        let at = cycle.first().and_then(|name| places.get(name)).cloned().unwrap_or(tables.place.clone());
        reader.error(
            at,
            "env_cycle",
            "Variables depend on each other in a circle",
            cycle.iter().map(|n| quote(n)).collect::<Vec<_>>().join(" -> "),
            "remove one of these from a `depends_on`",
        );
    }
    declared
}

fn read_declaration(table: &Table<'_>, name: &str) -> EnvDecl {
    let reader = table.reader;
    let interactive = table.flag("interactive");
    let declaration = EnvDecl {
        default: table.string("default"),
        interactive,
        skippable: table.flag("skippable"),
        prompt: table.string("prompt").map(|p| p.value),
        options: table.lines("options").into_iter().map(|o| o.value).collect(),
        depends_on: read_depends_on(table, name),
        span: reader.span(&table.place),
    };
    if !interactive {
        if !table.has("default") {
            table.missing("default", "give a `default`, or set `interactive = true` to ask for it");
        }
        for (field, why) in [("skippable", declaration.skippable), ("prompt", declaration.prompt.is_some())] {
            if why {
                reader.warn(
                    value_at(table, field),
                    "no_effect",
                    "A setting has no effect",
                    format!("`{}` is only used with `interactive = true`", table.path_of(field)),
                    "add `interactive = true`, or remove the line",
                );
            }
        }
        if table.has("options") {
            reader.error(
                value_at(table, "options"),
                "options",
                "Options need a question",
                format!("`{}` is only allowed with `interactive = true`", table.path_of("options")),
                "add `interactive = true`, or remove the line",
            );
        }
    }
    table.finish(Unknown::Reject);
    declaration
}

fn read_depends_on(table: &Table<'_>, name: &str) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut names = Vec::new();
    for (at, entry) in table.lines_at("depends_on") {
        let path = table.path_of("depends_on");
        let Some(other) = entry.value.strip_prefix("env.") else {
            table.reader.error(
                at,
                "depends_on",
                "A dependency is malformed",
                format!("`{}` in `{path}` does not start with `env.`", quote(&entry.value)),
                format!("write `env.{}`", quote(&entry.value)),
            );
            continue;
        };
        if other == name {
            table.reader.error(
                at,
                "depends_on",
                "A dependency is malformed",
                format!("`{path}` names the variable itself"),
                "remove the entry",
            );
        } else if !seen.insert(other.to_owned()) {
            table.reader.error(
                at,
                "depends_on",
                "A dependency is malformed",
                format!("`{}` is twice in `{path}`", quote(&entry.value)),
                "remove one of the two",
            );
        } else {
            names.push(other.to_owned());
        }
    }
    names
}

fn check_references(table: &Table<'_>, name: &str, declared: &BTreeMap<String, EnvDecl>) {
    let Some(declaration) = declared.get(name) else {
        return;
    };
    let reader = table.reader;
    let needs: BTreeSet<&str> = declaration.depends_on.iter().map(String::as_str).collect();
    for other in needs.iter().filter(|other| !declared.contains_key(**other)) {
        if reader.full() {
            return;
        }
        let help = match near(other, declared.keys().map(String::as_str)) {
            Some(meant) => format!("did you mean `env.{meant}`?"),
            None => format!("declare it as `[env.{}]`", quote(other)),
        };
        reader.error(
            value_at(table, "depends_on"),
            "undeclared_env",
            "A variable is not declared",
            format!("`{}` names `env.{}`", table.path_of("depends_on"), quote(other)),
            help,
        );
    }
    for option in declaration.options.iter().filter(|option| option.contains("${env.")) {
        reader.error(
            value_at(table, "options"),
            "options",
            "Options need a question",
            format!("`{}` in `{}` refers to a variable", quote(option), table.path_of("options")),
            "write the options out",
        );
    }
    let texts = [("prompt", declaration.prompt.as_deref()), ("default", declaration.default.as_ref().map(|d| d.value.as_str()))];
    for (field, text) in texts {
        for other in references(text.unwrap_or_default()) {
            let problem = if !declared.contains_key(other) {
                "is not declared"
            } else if !needs.contains(other) {
                "is not in `depends_on`"
            } else {
                continue;
            };
            reader.error(
                value_at(table, field),
                "undeclared_env",
                "A variable is not declared",
                format!("`{}` uses `${{env.{}}}`, which {problem}", table.path_of(field), quote(other)),
                format!("add `\"env.{}\"` to `depends_on` and declare it", quote(other)),
            );
        }
    }
}

/// The names in `${env.NAME}`, in order.
pub fn references(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${env.") {
        rest = &rest[at + 6..];
        match rest.find('}') {
            Some(end) => {
                names.push(&rest[..end]);
                rest = &rest[end + 1..];
            }
            None => break,
        }
    }
    names
}

/// A circle as the path round it, its first name repeated at the end. Iterative: a manifest may hold a chain of any length.
fn cycle(declared: &BTreeMap<String, EnvDecl>) -> Option<Vec<String>> {
    let mut done: BTreeSet<&str> = BTreeSet::new();
    for start in declared.keys() {
        let mut path: Vec<(&str, usize)> = vec![(start, 0)];
        let mut on_path: BTreeSet<&str> = BTreeSet::from([start.as_str()]);
        while let Some((name, next)) = path.last_mut() {
            let name = *name;
            let others = declared.get(name).map_or(&[][..], |d| &d.depends_on[..]);
            let Some(other) = others.get(*next).filter(|_| !done.contains(name)) else {
                done.insert(name);
                on_path.remove(name);
                path.pop();
                continue;
            };
            *next += 1;
            if other == name || done.contains(other.as_str()) {
                continue;
            }
            if on_path.contains(other.as_str()) {
                let from = path.iter().position(|(n, _)| *n == other.as_str()).unwrap_or(0);
                return Some(path[from..].iter().map(|(n, _)| (*n).to_owned()).chain([other.clone()]).collect());
            }
            on_path.insert(other);
            path.push((other, 0));
        }
    }
    None
}
