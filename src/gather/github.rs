//! The operator's GitHub token.
//!
//! In: the configured or environment token, the home, the `gh` program. Out: the token as a secret. Absent: where it goes.

use super::program;
use secrecy::SecretString;
use secrecy::zeroize::Zeroize;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// The given token, else what gh would use. `gh auth token` itself prefers the token in `hosts.yml` to the keyring, so reading that
/// file first gives the same answer and saves 50 ms; gh is asked only when the file has none.
pub async fn github_token(given: Option<SecretString>, config: &Path, search: Option<&OsStr>) -> Option<SecretString> {
    if given.is_some() {
        return given;
    }
    if let Some(token) = hosts_token(&config.join("hosts.yml")) {
        return Some(token);
    }
    let mut gh = Command::new(program::find("gh", search)?);
    gh.args(["auth", "token", "--hostname", "github.com"]).stdin(Stdio::null());
    gh.env("GH_PROMPT_DISABLED", "1").env("GH_NO_UPDATE_NOTIFIER", "1").env("GH_CONFIG_DIR", config);
    let output = program::output(&mut gh, Some(Duration::from_secs(15))).await.ok()?;
    String::from_utf8(output).ok().and_then(token)
}

fn token(mut text: String) -> Option<SecretString> {
    let found = text.split_whitespace().next().map(SecretString::from);
    text.zeroize();
    found
}

/// `oauth_token` of `github.com`. Of the two places gh writes it to, the less indented one belongs to the active account.
fn hosts_token(path: &Path) -> Option<SecretString> {
    let mut text = fs::read_to_string(path).ok()?;
    let mut inside = false;
    let mut best: Option<(usize, SecretString)> = None;
    for line in text.lines() {
        let entry = line.trim_start();
        let indent = line.len() - entry.len();
        if entry.is_empty() || entry.starts_with('#') {
            continue;
        }
        if indent == 0 {
            inside = entry.trim_end().trim_end_matches(':').trim_matches(['"', '\'']) == "github.com";
        } else if let Some(value) = entry.strip_prefix("oauth_token:").filter(|_| inside) {
            let value = value.trim().trim_matches(['"', '\'']);
            if !value.is_empty() && best.as_ref().is_none_or(|(depth, _)| indent < *depth) {
                best = Some((indent, SecretString::from(value)));
            }
        }
    }
    text.zeroize();
    best.map(|(_, token)| token)
}
