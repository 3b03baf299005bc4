//! The text of a derived image's Dockerfile and the files beside it: agents, hooks, entrypoint and capsule on top of a role.
//!
//! In: what the role supports and which programs are at hand. Out: a build context. Layers are ordered so that a new capsule
//! rebuilds only the last one. No `# syntax` line: an engine without a registry could not fetch it. Source: `reference/role.md` §6,
//! `reference/agents.md` §2, §3.

use super::context::{BuildContext, ContextFile};
use crate::config::{Agent, RoleManifest};
use crate::resource::{fingerprint, sha256_hex};
use jackin_capsule::{ENTRYPOINT, STATUS_FILES};
use std::collections::BTreeMap;
use std::fmt::Write;

pub const RECIPE_VERSION: &str = "jackin-1";
pub const HOST_IDENTITY: &str = "host-uid-owned-runtime-home-v1";

/// Where an agent keeps its things below `/home/agent`, and where its program goes.
pub struct AgentPaths {
    /// Bind-mounted from the durable home.
    pub directories: &'static [&'static str],
    pub program: &'static str,
    pub path_entries: &'static [&'static str],
    /// Not part of the default home snapshot.
    pub snapshot_excludes: &'static [&'static str],
    pub installer: &'static str,
}

pub fn agent_paths(agent: Agent) -> AgentPaths {
    match agent {
        Agent::Claude => AgentPaths {
            directories: &[".claude"],
            program: ".local/bin/claude",
            path_entries: &[".local/bin"],
            snapshot_excludes: &[".claude/backups"],
            installer: "curl -fsSL --connect-timeout 15 --max-time 120 --retry 2 --retry-delay 2 https://claude.ai/install.sh | bash",
        },
        Agent::Codex => AgentPaths {
            directories: &[".codex"],
            program: ".local/bin/codex",
            path_entries: &[".local/bin"],
            snapshot_excludes: &[".codex/tmp"],
            installer: "curl -fsSL --connect-timeout 15 --max-time 120 --retry 2 --retry-delay 2 https://chatgpt.com/codex/install.sh | CODEX_NON_INTERACTIVE=1 bash",
        },
        Agent::Amp => AgentPaths {
            directories: &[".local/share/amp", ".config/amp"],
            program: ".amp/bin/amp",
            path_entries: &[".local/bin", ".amp/bin"],
            snapshot_excludes: &[],
            installer: "curl -fsSL --connect-timeout 15 --max-time 120 --retry 2 --retry-delay 2 https://ampcode.com/install.sh | bash",
        },
        Agent::Kimi => AgentPaths {
            directories: &[".kimi-code"],
            program: ".kimi-code/bin/kimi",
            path_entries: &[".kimi-code/bin", ".local/bin"],
            snapshot_excludes: &[],
            installer: "curl -fsSL --connect-timeout 15 --max-time 120 --retry 2 --retry-delay 2 https://code.kimi.com/kimi-code/install.sh | bash",
        },
        Agent::Opencode => AgentPaths {
            directories: &[".local/share/opencode", ".config/opencode"],
            program: ".opencode/bin/opencode",
            path_entries: &[".opencode/bin"],
            snapshot_excludes: &[".config/opencode/opencode.json"],
            installer: "curl -fsSL --connect-timeout 15 --max-time 120 --retry 2 --retry-delay 2 https://opencode.ai/install | bash",
        },
        Agent::Grok => AgentPaths {
            directories: &[".grok"],
            program: ".grok/bin/grok",
            path_entries: &[".grok/bin", ".local/bin"],
            snapshot_excludes: &[],
            installer: "curl -fsSL --connect-timeout 15 --max-time 120 --retry 2 --retry-delay 2 https://x.ai/cli/install.sh | bash",
        },
    }
}

/// Everything the text follows from.
pub struct DerivedInputs<'a> {
    pub base: &'a str,
    pub manifest: &'a RoleManifest,
    /// Program of each agent at hand; the others are installed by their vendor.
    pub agent_programs: &'a BTreeMap<Agent, String>,
    pub capsule_program: &'a str,
    /// Hook name -> content.
    pub hooks: &'a BTreeMap<String, String>,
    pub host_uid: u32,
}

pub fn derived_context(inputs: &DerivedInputs<'_>) -> BuildContext {
    let mut files = BTreeMap::new();
    for (agent, path) in inputs.agent_programs {
        if inputs.manifest.agents.contains(agent) {
            files.insert(format!("agents/{agent}"), ContextFile::Program { path: path.clone() });
        }
    }
    for (name, text) in inputs.hooks {
        files.insert(format!("hooks/{name}.sh"), ContextFile::Text { text: text.clone(), executable: true });
    }
    files.insert("runtime/entrypoint.sh".to_owned(), ContextFile::Text { text: ENTRYPOINT.to_owned(), executable: true });
    for (path, text, executable) in STATUS_FILES {
        files.insert(format!("runtime/{path}"), ContextFile::Text { text: text.to_owned(), executable });
    }
    files.insert("jackin-capsule".to_owned(), ContextFile::Program { path: inputs.capsule_program.to_owned() });
    BuildContext {
        dockerfile: dockerfile(inputs),
        dockerfile_path: "Dockerfile".to_owned(),
        files,
        repo: None,
        build_args: BTreeMap::from([("JACKIN_RUN_UID".to_owned(), inputs.host_uid.to_string())]),
        from_scratch: false,
    }
}

/// Hash of all generated text; programs and hooks are recipe inputs of their own.
pub fn runtime_hash(context: &BuildContext) -> String {
    let mut parts = BTreeMap::from([("Dockerfile".to_owned(), sha256_hex(&context.dockerfile).into())]);
    for (path, file) in &context.files {
        if let ContextFile::Text { text, .. } = file
            && path.starts_with("runtime/")
        {
            parts.insert(path.clone(), sha256_hex(text).into());
        }
    }
    fingerprint(&parts)
}

fn dockerfile(inputs: &DerivedInputs<'_>) -> String {
    let mut out = String::new();
    let mut line = |text: &str| {
        out.push_str(text);
        out.push('\n');
    };
    line(&format!("FROM {}", inputs.base));
    line("USER root");
    line("ARG JACKIN_RUN_UID=1000");
    line("ENV HOME=/home/agent");
    let agents = &inputs.manifest.agents;
    for agent in agents {
        let paths = agent_paths(*agent);
        let program = format!("/home/agent/{}", paths.program);
        if inputs.agent_programs.contains_key(agent) {
            line(&format!("COPY agents/{agent} /jackin/agent-binaries/{agent}"));
            line(&format!(
                "RUN mkdir -p \"$(dirname {program})\" && install -m 0755 -g 0 /jackin/agent-binaries/{agent} {program} && chown -R agent:0 /home/agent"
            ));
        } else {
            line("USER agent");
            line(&format!("RUN {}", with_retries(paths.installer)));
            line("USER root");
        }
        if *agent == Agent::Grok {
            line("RUN cp /home/agent/.grok/bin/grok /home/agent/.grok/bin/agent");
        }
        line("USER agent");
        line(&format!("RUN {program} --version"));
        line("USER root");
    }
    if agents.contains(&Agent::Claude)
        && let Some(plugins) = plugin_commands(inputs.manifest)
    {
        line("USER agent");
        line(&format!("RUN {plugins}"));
        line("USER root");
    }
    for directory in agents.iter().flat_map(|agent| agent_paths(*agent).directories.iter().copied()) {
        let home = format!("/home/agent/{directory}");
        let default = format!("/jackin/default-home/{directory}");
        line(&format!(
            "RUN mkdir -p {home} \"$(dirname {default})\" && cp -a {home} {default} && find {home} -mindepth 1 -delete && chmod 0775 {home}"
        ));
    }
    for exclude in agents.iter().flat_map(|agent| agent_paths(*agent).snapshot_excludes.iter()) {
        line(&format!("RUN rm -rf /jackin/default-home/{exclude}"));
    }
    if !inputs.hooks.is_empty() {
        line("COPY hooks/ /jackin/runtime/hooks/");
        line("RUN chown -R agent:0 /jackin/runtime/hooks && chmod 0755 /jackin/runtime/hooks/*.sh");
    }
    line(
        "RUN mkdir -p /jackin/run /jackin/state /jackin/runtime && ln -sf jackin-capsule /jackin/runtime/jackin-exec && chown -R ${JACKIN_RUN_UID}:0 /home/agent /jackin/default-home /jackin/run /jackin/state 2>/dev/null; chmod -R g+rwX /home/agent /jackin/run /jackin/state && test \"$(stat -c %u /home/agent)\" = \"${JACKIN_RUN_UID}\"",
    );
    let mut path = String::from("/jackin/runtime");
    let mut seen = std::collections::BTreeSet::new();
    for entry in agents.iter().flat_map(|agent| agent_paths(*agent).path_entries.iter()) {
        if seen.insert(entry) {
            let _ = write!(path, ":/home/agent/{entry}");
        }
    }
    line(&format!("ENV PATH={path}:$PATH"));
    line("USER agent");
    line("ENTRYPOINT [\"/jackin/runtime/jackin-capsule\"]");
    // Modes come from the context, and what is copied is root's whoever the user is: nothing is left to be done after it.
    line("COPY runtime/ /jackin/runtime/");
    line("COPY jackin-capsule /jackin/runtime/jackin-capsule");
    out
}

/// Three tries, pauses of 5 and 10 seconds, as the original.
fn with_retries(command: &str) -> String {
    format!("set -o pipefail 2>/dev/null; ({command}) || (sleep 5; {command}) || (sleep 10; {command})")
}

fn plugin_commands(manifest: &RoleManifest) -> Option<String> {
    if manifest.claude_plugins.is_empty() && manifest.claude_marketplaces.is_empty() {
        return None;
    }
    let claude = "/home/agent/.local/bin/claude";
    // The official marketplace may be known already.
    let mut commands = vec![format!("({claude} plugin marketplace add anthropics/claude-plugins-official || true)")];
    for marketplace in &manifest.claude_marketplaces {
        let sparse: String = marketplace.sparse.iter().map(|path| format!(" --sparse {}", quote(path))).collect();
        commands.push(format!("{claude} plugin marketplace add {}{sparse}", quote(&marketplace.source)));
    }
    for plugin in &manifest.claude_plugins {
        commands.push(format!("{claude} plugin install {}", quote(plugin)));
    }
    commands.push("rm -rf /home/agent/.claude/backups".to_owned());
    Some(commands.join(" && "))
}

/// One shell word.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
