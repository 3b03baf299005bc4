//! `agent.toml`: what the host writes for one container and PID 1 reads. Text in, checked value out, and back.
//! Absent: where the file lives, and what is done with the values.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The agents known to both sides, in the order of pickers.
pub const AGENTS: [Agent; 6] = [
    Agent { slug: "claude", label: "Claude", model_flag: Some("--model") },
    Agent { slug: "codex", label: "Codex", model_flag: Some("-m") },
    Agent { slug: "amp", label: "Amp", model_flag: None },
    Agent { slug: "kimi", label: "Kimi", model_flag: Some("--model") },
    Agent { slug: "opencode", label: "OpenCode", model_flag: Some("-m") },
    Agent { slug: "grok", label: "Grok", model_flag: Some("-m") },
];

/// How people forbid things in the environment.
pub fn denies(value: &str) -> bool {
    ["deny", "off", "no", "0", "false"].contains(&value)
}

/// What a client may set in the session it starts; the rest is dropped.
pub const CLIENT_ENV: [&str; 16] = [
    "GIT_AUTHOR_NAME",
    "GIT_AUTHOR_EMAIL",
    "GH_TOKEN",
    "JACKIN_GIT_COAUTHOR_TRAILER",
    "JACKIN_GIT_DCO",
    "TZ",
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_BASE_URL",
    "ANTHROPIC_DEFAULT_OPUS_MODEL",
    "ANTHROPIC_DEFAULT_SONNET_MODEL",
    "ANTHROPIC_DEFAULT_HAIKU_MODEL",
    "API_TIMEOUT_MS",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
    "MINIMAX_API_KEY",
    "JACKIN_CODEX_PROFILE",
    "KIMI_CODE_API_KEY",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agent {
    pub slug: &'static str,
    pub label: &'static str,
    /// Absent when the program takes no model.
    pub model_flag: Option<&'static str>,
}

impl Agent {
    pub fn of(slug: &str) -> Option<Self> {
        AGENTS.into_iter().find(|agent| agent.slug == slug)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMode {
    Sync,
    ApiKey,
    OauthToken,
    Ignore,
}

impl AuthMode {
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "sync" => Some(Self::Sync),
            "api_key" => Some(Self::ApiKey),
            "oauth_token" => Some(Self::OauthToken),
            "ignore" => Some(Self::Ignore),
            _ => None,
        }
    }
}

impl fmt::Display for AuthMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sync => "sync",
            Self::ApiKey => "api_key",
            Self::OauthToken => "oauth_token",
            Self::Ignore => "ignore",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DirtyExitPolicy {
    Ask,
    Keep,
    Discard,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecBindingKind {
    Op,
    Env,
    Literal,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecBinding {
    pub name: String,
    pub kind: ExecBindingKind,
    /// For a literal the word `literal`: its value never enters the container.
    pub source: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitialProvider {
    pub label: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchConfig {
    pub role: String,
    pub workdir: String,
    pub agents: Vec<String>,
    // Scalars and arrays come before tables, as TOML wants them.
    /// No session begins before the host has taken this away again: the container is a spare.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hold: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dirty_exit_policy: Option<DirtyExitPolicy>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub isolated_worktrees: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claude_marketplaces: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claude_plugins: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<String, String>,
    #[serde(default)]
    pub auth_modes: BTreeMap<String, AuthMode>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub provider_models: BTreeMap<String, BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_provider: Option<InitialProvider>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exec_bindings: Vec<ExecBinding>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    #[error("agent.toml cannot be read: {0}")]
    Syntax(String),
    #[error("agent.toml is not valid: {}", .0.join("; "))]
    Invalid(Vec<String>),
}

impl LaunchConfig {
    pub fn parse(text: &str) -> Result<Self, LaunchError> {
        let config: Self = toml::from_str(text).map_err(|e| LaunchError::Syntax(e.to_string()))?;
        config.validate()?;
        Ok(config)
    }

    /// The file's text; refuses to write what `parse` would refuse to read.
    pub fn to_toml(&self) -> Result<String, LaunchError> {
        self.validate()?;
        toml::to_string(self).map_err(|e| LaunchError::Syntax(e.to_string()))
    }

    /// Every mistake, not the first.
    pub fn validate(&self) -> Result<(), LaunchError> {
        let mut mistakes = Vec::new();
        if self.workdir.trim().is_empty() {
            mistakes.push("workdir is blank".to_owned());
        }
        if self.agents.is_empty() {
            mistakes.push("agents is empty".to_owned());
        }
        for (i, agent) in self.agents.iter().enumerate() {
            if Agent::of(agent).is_none() {
                let known: Vec<_> = AGENTS.iter().map(|a| a.slug).collect();
                mistakes.push(format!("agents: {agent:?} is none of {}", known.join(", ")));
            }
            if self.agents[..i].contains(agent) {
                mistakes.push(format!("agents: {agent:?} is listed twice"));
            }
            match self.auth_modes.get(agent) {
                None => mistakes.push(format!("auth_modes: {agent:?} has no mode")),
                Some(AuthMode::OauthToken) if agent != "claude" => {
                    mistakes.push(format!("auth_modes: {agent:?} has no oauth_token mode"));
                }
                Some(_) => {}
            }
        }
        for (table, keys) in [
            ("auth_modes", self.auth_modes.keys().collect::<Vec<_>>()),
            ("models", self.models.keys().collect()),
            ("provider_models", self.provider_models.keys().collect()),
        ] {
            for key in keys.into_iter().filter(|key| !self.agents.contains(key)) {
                mistakes.push(format!("{table}: {key:?} is not in agents"));
            }
        }
        if mistakes.is_empty() { Ok(()) } else { Err(LaunchError::Invalid(mistakes)) }
    }

    /// `--model x`, if the agent takes one and the file names one.
    pub fn model_args(&self, agent: &str) -> Vec<String> {
        match (Agent::of(agent).and_then(|a| a.model_flag), self.models.get(agent)) {
            (Some(flag), Some(model)) if !model.is_empty() => vec![flag.to_owned(), model.clone()],
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"
        role = "the-architect"
        workdir = "/workspace/app"
        agents = ["claude", "codex", "amp"]
        claude_marketplaces = []
        claude_plugins = []
        dirty_exit_policy = "ask"
        isolated_worktrees = ["/workspace/app"]
        [models]
        claude = "opus"
        amp = "ignored"
        [auth_modes]
        claude = "oauth_token"
        codex = "api_key"
        amp = "sync"
        [provider_models.claude]
        zai = "glm-5.1"
        [initial_provider]
        label = "Z.AI"
        [[exec_bindings]]
        name = "GH"
        kind = "op"
        source = "op://x/y/z"
    "#;

    #[test]
    fn round_trip() {
        let config = LaunchConfig::parse(FULL).unwrap();
        assert_eq!(config.exec_bindings[0].kind, ExecBindingKind::Op);
        assert_eq!(LaunchConfig::parse(&config.to_toml().unwrap()).unwrap(), config);
    }

    #[test]
    fn models_become_flags_where_the_agent_has_one() {
        let config = LaunchConfig::parse(FULL).unwrap();
        assert_eq!(config.model_args("claude"), ["--model", "opus"]);
        assert_eq!(config.model_args("codex"), [""; 0]);
        assert_eq!(config.model_args("amp"), [""; 0]);
    }

    #[test]
    fn every_mistake_is_named() {
        let text = r#"
            role = "r"
            workdir = "  "
            agents = ["claude", "emacs", "claude", "codex"]
            [auth_modes]
            claude = "sync"
            codex = "oauth_token"
            grok = "sync"
        "#;
        let Err(LaunchError::Invalid(mistakes)) = LaunchConfig::parse(text) else { panic!("accepted") };
        let all = mistakes.join("\n");
        for part in ["workdir is blank", "\"emacs\" is none of", "twice", "no oauth_token", "\"grok\" is not in agents"] {
            assert!(all.contains(part), "{part} is missing in\n{all}");
        }
    }

    #[test]
    fn unknown_keys_modes_and_policies_are_refused() {
        for bad in ["colour = 1", "dirty_exit_policy = \"hope\"", "[auth_modes]\nclaude = \"magic\""] {
            let text = format!("role = \"r\"\nworkdir = \"/w\"\nagents = [\"claude\"]\n{bad}\n");
            assert!(matches!(LaunchConfig::parse(&text), Err(LaunchError::Syntax(_))), "{bad}");
        }
    }

    #[test]
    fn an_invalid_config_is_not_written() {
        assert!(LaunchConfig::default().to_toml().is_err());
    }
}
