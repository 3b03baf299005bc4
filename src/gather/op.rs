//! 1Password references.
//!
//! In: `op://…` and an account. Out: the value as a secret. Absent: the value in any message, even when `op` prints it.

use super::program::{self, Failure};
use super::role_url::redact;
use crate::diagnostic::Diagnostic;
use secrecy::SecretString;
use secrecy::zeroize::Zeroize;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// A person may have to unlock the vault.
pub const LAUNCH_LIMIT: Duration = Duration::from_secs(120);

pub async fn resolve_op(reference: &str, account: Option<&str>, limit: Duration) -> Result<SecretString, Diagnostic> {
    let failed = |code: &str, summary: &str, detail: String, help: &str| Err(Diagnostic::error(code, summary, detail).help(help));
    if !reference.starts_with("op://") || reference.contains("${") || reference.chars().any(char::is_control) {
        let detail = format!("`{reference}` is not a 1Password reference");
        return failed("op.reference_invalid", "Invalid 1Password reference", detail, "write `op://<vault>/<item>/[<section>/]<field>`");
    }
    let mut op = Command::new("op");
    op.arg("read").stdin(Stdio::null());
    if let Some(account) = account {
        op.arg(format!("--account={account}"));
    }
    op.arg("--").arg(reference);
    match program::output(&mut op, Some(limit)).await {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(mut text) => {
                // `op` ends the value with one line end; others belong to it (a private key).
                let value = SecretString::from(text.strip_suffix('\n').unwrap_or(&text));
                text.zeroize();
                Ok(value)
            }
            Err(_) => failed(
                "op.not_text",
                "1Password value is not text",
                format!("the value of {reference} is not UTF-8"),
                "refer to a text field",
            ),
        },
        Err(Failure::Missing) => {
            let detail = format!("{reference} is read with the `op` program, which is not on PATH");
            failed("op.missing", "1Password CLI is not installed", detail, "install it: https://developer.1password.com/docs/cli")
        }
        Err(Failure::TimedOut) => {
            let detail = format!("reading {reference} took longer than {} s", limit.as_secs());
            failed("op.timeout", "1Password did not answer", detail, "unlock 1Password, then run the command again")
        }
        Err(Failure::Refused { message }) => {
            let lower = message.to_lowercase();
            let signed_out =
                ["not currently signed in", "not signed in", "no accounts configured", "session expired", "authorization prompt dismissed"];
            if signed_out.iter().any(|words| lower.contains(words)) {
                return failed(
                    "op.signed_out",
                    "Not signed in to 1Password",
                    format!("cannot read {reference}"),
                    "run `op signin`, then run the command again",
                );
            }
            let said: String = redact(&message).chars().map(|c| if c.is_control() { ' ' } else { c }).take(400).collect();
            failed(
                "op.failed",
                "1Password refused",
                format!("cannot read {reference}: {said}"),
                "check it with `op read` and the reference",
            )
        }
        Err(Failure::Io(error)) => failed("op.failed", "1Password refused", format!("cannot run `op`: {error}"), "see the reason above"),
    }
}
