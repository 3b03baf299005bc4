//! Claude's own configuration: the MCP servers of the image's guards.

use std::io;

use serde_json::{Value, json};

use super::{Setup, edit_json, program};

/// Name and program, its argument, and the variable that switches it off.
const SERVERS: [(&str, &str, &str); 2] =
    [("tirith", "mcp-server", "JACKIN_DISABLE_TIRITH"), ("shellfirm", "mcp", "JACKIN_DISABLE_SHELLFIRM")];

impl Setup {
    /// In `.claude.json`: Claude reads no servers from `settings.json`.
    pub(super) fn configure_claude(&self) -> io::Result<()> {
        let path = self.var("PATH").unwrap_or_default();
        edit_json(&self.relocated("claude", ".claude.json"), |config| {
            for (name, argument, skip) in SERVERS {
                let ours = json!({ "type": "stdio", "command": name, "args": [argument], "env": {} });
                let wanted = !self.is_on(skip) && program::find(name, path).is_some();
                if !wanted && !config.contains_key("mcpServers") {
                    continue;
                }
                let servers = config.entry("mcpServers").or_insert_with(|| json!({}));
                let Value::Object(servers) = servers else {
                    return Err("its mcpServers is no object".to_owned());
                };
                // A server of that name which somebody else set up is theirs.
                if wanted {
                    servers.entry(name).or_insert(ours);
                } else if servers.get(name) == Some(&ours) {
                    servers.remove(name);
                }
            }
            Ok(())
        })
    }
}
