//! The rule packs of all agents: texts in, compiled rules out on first need, because rules of agents that do not run
//! would only take memory. Absent: folders; whoever reads them calls `add` in the order in which later ones win.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::rules::{Pack, PackError};

pub const MAX_PACK: usize = 64 << 10;
/// Agents that a pack can be for.
const MAX_AGENTS: usize = 64;

const EMBEDDED: [(&str, &str); 6] = [
    ("claude", include_str!("../../packs/claude.toml")),
    ("codex", include_str!("../../packs/codex.toml")),
    ("amp", include_str!("../../packs/amp.toml")),
    ("kimi", include_str!("../../packs/kimi.toml")),
    ("opencode", include_str!("../../packs/opencode.toml")),
    ("grok", include_str!("../../packs/grok.toml")),
];

#[derive(Debug, Clone)]
pub struct Packs {
    shared: Arc<Mutex<BTreeMap<String, Entry>>>,
}

#[derive(Debug)]
enum Entry {
    Text { origin: String, text: std::borrow::Cow<'static, str> },
    Compiled(Arc<Pack>),
}

impl Default for Packs {
    fn default() -> Self {
        Self::embedded()
    }
}

impl Packs {
    pub fn embedded() -> Self {
        let entry =
            |(agent, text): (&str, &'static str)| (agent.to_owned(), Entry::Text { origin: "embedded".to_owned(), text: text.into() });
        Self { shared: Arc::new(Mutex::new(EMBEDDED.map(entry).into())) }
    }

    /// Replaces the pack of the same agent. One with a mistake replaces nothing.
    pub fn add(&self, origin: &str, text: String) -> Result<(), PackError> {
        let error = |problem| PackError { origin: origin.to_owned(), rule: None, field: None, problem };
        if text.len() > MAX_PACK {
            return Err(error(format!("has {} bytes; {MAX_PACK} are allowed", text.len())));
        }
        let agent = Pack::parse(origin, &text)?.agent;
        let mut packs = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if packs.len() >= MAX_AGENTS && !packs.contains_key(&agent) {
            return Err(error(format!("is one of too many; there are packs for {MAX_AGENTS} agents already")));
        }
        packs.insert(agent, Entry::Text { origin: origin.to_owned(), text: text.into() });
        Ok(())
    }

    pub fn get(&self, agent: &str) -> Option<Arc<Pack>> {
        let mut packs = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = packs.get_mut(agent)?;
        if let Entry::Text { origin, text } = entry {
            // It was parsed before, when it was added or in our tests.
            let pack = Pack::parse(origin, text).ok()?;
            *entry = Entry::Compiled(Arc::new(pack));
        }
        match entry {
            Entry::Compiled(pack) => Some(Arc::clone(pack)),
            Entry::Text { .. } => None,
        }
    }

    pub fn has(&self, agent: &str) -> bool {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).contains_key(agent)
    }

    #[cfg(test)]
    fn compiled(&self) -> usize {
        self.shared.lock().unwrap().values().filter(|entry| matches!(entry, Entry::Compiled(_))).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_pack_is_sound() {
        for (agent, text) in EMBEDDED {
            let pack = Pack::parse(agent, text).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(pack.agent, agent);
            for state in ["working", "blocked", "idle"] {
                assert!(pack.rules.iter().any(|rule| rule.strong && rule.state.to_string() == state), "{agent}: {state}");
            }
        }
        assert!(EMBEDDED.map(|(agent, _)| agent).iter().eq(crate::launch::AGENTS.iter().map(|agent| &agent.slug)));
    }

    #[test]
    fn only_what_is_used_is_compiled() {
        let packs = Packs::embedded();
        assert_eq!(packs.compiled(), 0);
        assert!(packs.has("kimi") && !packs.has("nobody") && packs.get("nobody").is_none());
        let first = packs.get("claude").unwrap();
        assert!(Arc::ptr_eq(&first, &packs.clone().get("claude").unwrap()));
        assert_eq!(packs.compiled(), 1);
    }

    #[test]
    fn later_packs_win_and_broken_ones_do_not() {
        let text = |version: &str| format!("schema_version = 1\nagent = \"claude\"\nvalidated_versions = \"{version}\"\n");
        let packs = Packs::embedded();
        packs.add("one.toml", text("1")).unwrap();
        packs.add("two.toml", text("2")).unwrap();
        assert!(packs.add("three.toml", text("3") + "what = 1").unwrap_err().to_string().starts_with("three.toml: `what`"));
        assert_eq!(packs.get("claude").unwrap().origin, "two.toml");
        let large = packs.add("large.toml", "#".repeat(MAX_PACK + 1)).unwrap_err();
        assert_eq!(large.to_string(), "large.toml: has 65537 bytes; 65536 are allowed");
        packs.add("other.toml", text("1").replace("claude", "aider")).unwrap();
        assert!(packs.get("aider").is_some());
    }
}
