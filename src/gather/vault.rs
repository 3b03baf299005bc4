//! The values behind the references of a plan, held for as long as one command runs.
//!
//! In: the configuration's literals, host variables, answers, tokens. Out: a value for a `SecretSource`, when a container is made.
//! Absent: `Debug`, and any way to list the values except for scrubbing them from a text.

use super::op;
use crate::diagnostic::Diagnostic;
use crate::resource::SecretSource;
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Vault {
    /// By `file:line:column`.
    pub literals: BTreeMap<String, SecretString>,
    pub host: BTreeMap<String, SecretString>,
    /// By `instance key:NAME`.
    pub role: BTreeMap<String, SecretString>,
    pub github: Option<SecretString>,
}

/// Shorter values would blank out ordinary words.
const WORTH_SCRUBBING: usize = 6;

impl Vault {
    pub async fn value(&self, source: &SecretSource) -> Result<SecretString, Diagnostic> {
        let known = match source {
            SecretSource::File { place } => self.literals.get(place),
            SecretSource::Host(name) => self.host.get(name),
            SecretSource::Role(name) => self.role.get(name),
            SecretSource::Github => self.github.as_ref(),
            SecretSource::Op { reference, account } => {
                return op::resolve_op(reference, account.as_deref(), op::LAUNCH_LIMIT).await;
            }
        };
        known.cloned().ok_or_else(|| {
            Diagnostic::error(
                "env.gone",
                "A value is no longer there",
                format!("`{}` had a value when the plan was made.", String::from(source.clone())),
            )
            .help("Plan again.")
        })
    }

    /// `text` with every value that it repeats blanked out.
    pub fn scrub(&self, text: &str) -> String {
        let all = self.literals.values().chain(self.host.values()).chain(self.role.values()).chain(&self.github);
        let mut out = text.to_owned();
        for value in all.map(ExposeSecret::expose_secret).filter(|v| v.len() >= WORTH_SCRUBBING) {
            if out.contains(value) {
                out = out.replace(value, "[secret]");
            }
        }
        out
    }
}
