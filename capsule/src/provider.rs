//! Who answers an agent's questions: the table of providers, which of them a session may choose, and what the choice changes in its
//! environment and arguments. In: an agent, names of variables that are set, the launch configuration. Out: names and values that are no
//! secrets. Absent: the keys themselves. A key is named here and looked up where the session is started, so it can reach no log.

use std::collections::BTreeSet;

use crate::launch::LaunchConfig;

/// The variable that says which codex profile is used; the entrypoint turns it into an argument.
pub const CODEX_PROFILE: &str = "JACKIN_CODEX_PROFILE";
pub const MINIMAX_OPENAI_BASE: &str = "https://api.minimax.io/v1";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Provider {
    pub id: &'static str,
    pub label: &'static str,
    pub agents: &'static [&'static str],
    /// The variable that holds the key.
    pub key: &'static str,
    /// The agent whose own provider this is: it has a login of its own and needs no key.
    pub own: Option<&'static str>,
    /// Absent for those whose addresses and models the agents know themselves.
    pub service: Option<Service>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    /// Speaks Anthropic's language.
    pub base: &'static str,
    pub opus: &'static str,
    pub sonnet: &'static str,
    pub haiku: &'static str,
    pub opencode_sdk: &'static str,
    pub opencode_base: &'static str,
    pub opencode_model: &'static str,
}

/// In the order of the picker.
pub const PROVIDERS: [Provider; 5] = [
    Provider {
        id: "anthropic",
        label: "Anthropic",
        agents: &["claude", "opencode"],
        key: "ANTHROPIC_API_KEY",
        own: Some("claude"),
        service: None,
    },
    Provider { id: "openai", label: "OpenAI", agents: &["codex"], key: "OPENAI_API_KEY", own: Some("codex"), service: None },
    Provider {
        id: "zai",
        label: "Z.AI",
        agents: &["claude", "opencode"],
        key: "ZAI_API_KEY",
        own: None,
        service: Some(Service {
            base: "https://api.z.ai/api/anthropic",
            opus: "glm-5.1",
            sonnet: "glm-5-turbo",
            haiku: "glm-4.5-air",
            opencode_sdk: "@ai-sdk/openai-compatible",
            opencode_base: "https://api.z.ai/api/coding/paas/v4",
            opencode_model: "glm-5.1",
        }),
    },
    Provider {
        id: "minimax",
        label: "MiniMax",
        agents: &["claude", "opencode", "codex"],
        key: "MINIMAX_API_KEY",
        own: None,
        service: Some(Service {
            base: "https://api.minimax.io/anthropic",
            opus: "MiniMax-M3",
            sonnet: "MiniMax-M3",
            haiku: "MiniMax-M3",
            opencode_sdk: "@ai-sdk/anthropic",
            opencode_base: "https://api.minimax.io/anthropic/v1",
            opencode_model: "MiniMax-M3",
        }),
    },
    Provider {
        id: "kimi",
        label: "Kimi",
        agents: &["claude", "opencode"],
        key: "KIMI_CODE_API_KEY",
        own: None,
        service: Some(Service {
            base: "https://api.kimi.com/coding",
            opus: "kimi-for-coding",
            sonnet: "kimi-for-coding",
            haiku: "kimi-for-coding",
            opencode_sdk: "@ai-sdk/anthropic",
            opencode_base: "https://api.kimi.com/coding/v1",
            opencode_model: "kimi-for-coding",
        }),
    },
];

impl Provider {
    /// By label, as `agent.toml` and the wire say it, or by id, as people type it.
    pub fn named(name: &str) -> Option<Self> {
        PROVIDERS.into_iter().find(|provider| provider.label == name || provider.id == name)
    }

    pub fn is_usable(&self, agent: &str, keys: &BTreeSet<&str>) -> bool {
        self.agents.contains(&agent) && (self.own == Some(agent) || keys.contains(self.key))
    }
}

/// The variables of the table that are set to something.
pub fn keys(mut is_set: impl FnMut(&str) -> bool) -> BTreeSet<&'static str> {
    PROVIDERS.iter().map(|provider| provider.key).filter(|key| is_set(key)).collect()
}

pub fn usable(agent: &str, keys: &BTreeSet<&str>) -> Vec<Provider> {
    PROVIDERS.into_iter().filter(|provider| provider.is_usable(agent, keys)).collect()
}

/// What the picker offers; nothing when there is nothing to choose.
pub fn choices(agent: &str, keys: &BTreeSet<&str>) -> Vec<Provider> {
    let usable = usable(agent, keys);
    if usable.iter().all(|provider| provider.service.is_none()) { Vec::new() } else { usable }
}

/// Where a variable's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvFrom {
    Value(String),
    /// Another variable of PID 1, by name.
    Variable(&'static str),
    /// Taken away.
    Nothing,
}

/// What a session with this provider has in its environment beside everything else.
pub fn session_env(config: &LaunchConfig, agent: &str, provider: &Provider) -> Vec<(&'static str, EnvFrom)> {
    let value = |text: &str| EnvFrom::Value(text.to_owned());
    let Some(service) = &provider.service else {
        return Vec::new();
    };
    match agent {
        "claude" => {
            let model = |built_in: &str| value(role_model(config, agent, provider).unwrap_or(built_in));
            vec![
                ("ANTHROPIC_AUTH_TOKEN", EnvFrom::Variable(provider.key)),
                // The operator's own keys would be sent to the other provider.
                ("ANTHROPIC_API_KEY", EnvFrom::Nothing),
                ("CLAUDE_CODE_OAUTH_TOKEN", EnvFrom::Nothing),
                ("ANTHROPIC_BASE_URL", value(service.base)),
                ("ANTHROPIC_DEFAULT_OPUS_MODEL", model(service.opus)),
                ("ANTHROPIC_DEFAULT_SONNET_MODEL", model(service.sonnet)),
                ("ANTHROPIC_DEFAULT_HAIKU_MODEL", model(service.haiku)),
                ("API_TIMEOUT_MS", value("3000000")),
                ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", value("1")),
            ]
        }
        "codex" => vec![(CODEX_PROFILE, value(provider.id))],
        _ => Vec::new(),
    }
}

/// The variables to set and those to unset. The only place where a key's value is held; what it returns has no name that shows it.
pub fn resolve(env: Vec<(&'static str, EnvFrom)>, mut lookup: impl FnMut(&str) -> Option<String>) -> (Vec<(String, String)>, Vec<String>) {
    let (mut set, mut unset) = (Vec::new(), Vec::new());
    for (name, from) in env {
        let value = match from {
            EnvFrom::Value(value) => Some(value),
            EnvFrom::Variable(name) => lookup(name).filter(|value| !value.is_empty()),
            EnvFrom::Nothing => None,
        };
        match value {
            Some(value) => set.push((name.to_owned(), value)),
            None => unset.push(name.to_owned()),
        }
    }
    (set, unset)
}

/// The model arguments of an agent. The role's word for this provider goes before the provider's usual model, and that before the
/// agent's model where the two speak of different things.
pub fn model_args(config: &LaunchConfig, agent: &str, provider: Option<&Provider>) -> Vec<String> {
    let Some((provider, service)) = provider.and_then(|provider| Some((provider, provider.service.as_ref()?))) else {
        return match provider.and_then(|provider| role_model(config, agent, provider)) {
            Some(model) if agent == "opencode" => vec!["-m".to_owned(), model.to_owned()],
            _ => config.model_args(agent),
        };
    };
    match agent {
        "opencode" => {
            let model = role_model(config, agent, provider).unwrap_or(service.opencode_model);
            let id = provider.id;
            let whole = if model.starts_with(&format!("{id}/")) { model.to_owned() } else { format!("{id}/{model}") };
            vec!["-m".to_owned(), whole]
        }
        // The profile names the model; one of OpenAI's on the command line would overrule it.
        "codex" => Vec::new(),
        _ => config.model_args(agent),
    }
}

/// What the role says about this provider's model.
pub fn role_model<'a>(config: &'a LaunchConfig, agent: &str, provider: &Provider) -> Option<&'a str> {
    config.provider_models.get(agent)?.get(provider.id).map(String::as_str).filter(|model| !model.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
        role = "r"
        workdir = "/w"
        agents = ["claude", "codex", "opencode"]
        [models]
        claude = "opus"
        codex = "gpt"
        opencode = "some/model"
        [auth_modes]
        claude = "sync"
        codex = "sync"
        opencode = "sync"
        [provider_models.opencode]
        minimax = "MiniMax-X"
        kimi = "kimi/k"
        [provider_models.claude]
        zai = "glm-9"
    "#;

    fn config() -> LaunchConfig {
        LaunchConfig::parse(CONFIG).unwrap()
    }

    fn labels(agent: &str, keys: &[&str]) -> String {
        choices(agent, &keys.iter().copied().collect()).iter().map(|provider| provider.label).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_picker_is_offered_when_there_is_a_choice() {
        let all = ["ANTHROPIC_API_KEY", "OPENAI_API_KEY", "ZAI_API_KEY", "MINIMAX_API_KEY", "KIMI_CODE_API_KEY"];
        assert_eq!(labels("claude", &all), "Anthropic Z.AI MiniMax Kimi");
        assert_eq!(labels("opencode", &all), "Anthropic Z.AI MiniMax Kimi");
        assert_eq!(labels("codex", &all), "OpenAI MiniMax");
        for agent in ["amp", "kimi", "grok"] {
            assert_eq!(labels(agent, &all), "");
        }
        assert_eq!(labels("claude", &[]), "");
        assert_eq!(labels("claude", &["ZAI_API_KEY"]), "Anthropic Z.AI");
        assert_eq!(labels("codex", &["OPENAI_API_KEY", "ZAI_API_KEY"]), "");
        assert_eq!(labels("opencode", &[]), "");
        assert_eq!(labels("opencode", &["ANTHROPIC_API_KEY"]), "");
        assert_eq!(labels("opencode", &["ZAI_API_KEY"]), "Z.AI");
        assert_eq!(keys(|key| key.starts_with('Z')), BTreeSet::from(["ZAI_API_KEY"]));
    }

    #[test]
    fn trap_the_kimi_provider_has_another_key_than_the_kimi_agent() {
        assert_eq!(labels("claude", &["KIMI_API_KEY"]), "");
        assert_eq!(labels("claude", &["KIMI_CODE_API_KEY"]), "Anthropic Kimi");
    }

    #[test]
    fn labels_and_ids_name_the_same_provider() {
        for provider in PROVIDERS {
            assert_eq!(Provider::named(provider.id), Some(provider));
            assert_eq!(Provider::named(provider.label), Some(provider));
        }
        assert_eq!(Provider::named("zAI"), None);
    }

    #[test]
    fn claude_is_pointed_at_the_provider() {
        let zai = Provider::named("zai").unwrap();
        let lookup = |name: &str| (name == "ZAI_API_KEY").then(|| "sk-z".to_owned());
        let env = session_env(&LaunchConfig::default(), "claude", &zai);
        assert!(!format!("{env:?}").contains("sk-z"));
        let (set, unset) = resolve(env, lookup);
        let expected = [
            ("ANTHROPIC_AUTH_TOKEN", "sk-z"),
            ("ANTHROPIC_BASE_URL", "https://api.z.ai/api/anthropic"),
            ("ANTHROPIC_DEFAULT_OPUS_MODEL", "glm-5.1"),
            ("ANTHROPIC_DEFAULT_SONNET_MODEL", "glm-5-turbo"),
            ("ANTHROPIC_DEFAULT_HAIKU_MODEL", "glm-4.5-air"),
            ("API_TIMEOUT_MS", "3000000"),
            ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
        ];
        assert_eq!(set, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
        assert_eq!(unset, ["ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN"]);
        let (set, _) = resolve(session_env(&config(), "claude", &zai), lookup);
        assert!(set.contains(&("ANTHROPIC_DEFAULT_HAIKU_MODEL".to_owned(), "glm-9".to_owned())), "{set:?}");
        let (set, unset) = resolve(session_env(&config(), "claude", &zai), |_| Some(String::new()));
        assert!(unset.contains(&"ANTHROPIC_AUTH_TOKEN".to_owned()) && !set.iter().any(|(name, _)| name == "ANTHROPIC_AUTH_TOKEN"));
    }

    #[test]
    fn an_agents_own_provider_changes_nothing() {
        for (agent, provider) in [("claude", "anthropic"), ("codex", "openai"), ("opencode", "anthropic"), ("opencode", "zai")] {
            assert_eq!(session_env(&config(), agent, &Provider::named(provider).unwrap()), []);
        }
        let minimax = session_env(&config(), "codex", &Provider::named("MiniMax").unwrap());
        assert_eq!(minimax, [("JACKIN_CODEX_PROFILE", EnvFrom::Value("minimax".to_owned()))]);
    }

    #[test]
    fn models_in_order_of_precedence() {
        let args = |agent, provider: &str| model_args(&config(), agent, Provider::named(provider).as_ref()).join(" ");
        assert_eq!(args("opencode", "none"), "-m some/model");
        assert_eq!(args("opencode", "Anthropic"), "-m some/model");
        assert_eq!(args("opencode", "zai"), "-m zai/glm-5.1");
        assert_eq!(args("opencode", "minimax"), "-m minimax/MiniMax-X");
        assert_eq!(args("opencode", "kimi"), "-m kimi/k");
        assert_eq!(args("claude", "zai"), "--model opus");
        assert_eq!(args("codex", "openai"), "-m gpt");
        assert_eq!(args("codex", "minimax"), "");
    }
}
