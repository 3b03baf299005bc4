//! OpenCode's own configuration: everything allowed, and the providers whose keys are there.

use std::io;

use serde_json::{Value, json};

use super::{Setup, edit_json};
use crate::launch::LaunchConfig;
use crate::provider::{PROVIDERS, Provider, Service, role_model};

impl Setup {
    pub(super) fn configure_opencode(&self) -> io::Result<()> {
        let launch = self.launch_config();
        edit_json(&self.relocated("opencode", ".config/opencode/opencode.json"), |config| {
            config.entry("$schema").or_insert_with(|| json!("https://opencode.ai/config.json"));
            config.insert("permission".to_owned(), json!("allow"));
            let providers = config.entry("provider").or_insert_with(|| json!({}));
            let Value::Object(providers) = providers else {
                return Err("its provider is no object".to_owned());
            };
            for provider in PROVIDERS {
                let Some(service) = provider.service else {
                    continue;
                };
                if self.var(provider.key).is_some() {
                    providers.insert(provider.id.to_owned(), block(&provider, &service, launch.as_ref()));
                } else if providers.get(provider.id).is_some_and(|block| block["options"]["apiKey"] == json!(key_reference(&provider))) {
                    providers.remove(provider.id);
                }
            }
            if providers.is_empty() {
                config.remove("provider");
            }
            Ok(())
        })
    }
}

/// Opencode looks the variable up itself: a key in clear would outlive the container in the durable home.
fn key_reference(provider: &Provider) -> String {
    format!("{{env:{}}}", provider.key)
}

fn block(provider: &Provider, service: &Service, launch: Option<&LaunchConfig>) -> Value {
    let own_prefix = format!("{}/", provider.id);
    let role = launch.and_then(|launch| role_model(launch, "opencode", provider));
    let mut models = json!({ service.opencode_model: { "name": service.opencode_model } });
    if let Some(model) = role.map(|model| model.strip_prefix(&own_prefix).unwrap_or(model)) {
        models[model] = json!({ "name": model });
    }
    json!({
        "npm": service.opencode_sdk,
        "name": provider.label,
        "options": { "baseURL": service.opencode_base, "apiKey": key_reference(provider) },
        "models": models,
    })
}
