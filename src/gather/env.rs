//! The host's environment variables that matter to a plan.
//!
//! In: names the configuration mentions, and the whole environment. Out: secrets for those that are set, and the plain ones that
//! are passed through. Absent: what the configuration does with them.

use super::digest::KeyedDigest;
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::ffi::OsString;

/// Values of the named variables that are set and are UTF-8; the rest is absent.
pub fn host_values<'a>(
    names: impl IntoIterator<Item = &'a str>,
    lookup: impl Fn(&str) -> Option<OsString>,
) -> BTreeMap<String, SecretString> {
    let value = |name: &str| lookup(name).and_then(|value| value.into_string().ok()).map(SecretString::from);
    names.into_iter().filter_map(|name| Some((name.to_owned(), value(name)?))).collect()
}

pub fn digests(values: &BTreeMap<String, SecretString>, digest: &KeyedDigest) -> BTreeMap<String, String> {
    values.iter().map(|(name, value)| (name.clone(), digest.of_secret(value))).collect()
}

/// The real environment.
pub fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// Variables that enter a container as they are.
pub fn passthrough(all: impl IntoIterator<Item = (OsString, OsString)>) -> BTreeMap<String, String> {
    let mut passed = BTreeMap::new();
    for (name, value) in all {
        let (Ok(name), Ok(value)) = (name.into_string(), value.into_string()) else {
            continue;
        };
        if is_passed(&name) && !(is_proxy(&name) && has_user_info(&value)) {
            passed.insert(name, value);
        }
    }
    passed
}

/// Proxies whose URL holds a password. They may not stand in a plan, so they are not in `passthrough`; the caller can treat them
/// as credentials (reference and keyed digest).
pub fn secret_proxies(all: impl IntoIterator<Item = (OsString, OsString)>) -> BTreeMap<String, SecretString> {
    let mut secrets = BTreeMap::new();
    for (name, value) in all {
        let (Ok(name), Ok(value)) = (name.into_string(), value.into_string()) else {
            continue;
        };
        if is_proxy(&name) && has_user_info(&value) {
            secrets.insert(name, SecretString::from(value));
        }
    }
    secrets
}

fn is_passed(name: &str) -> bool {
    name.starts_with("JACKIN_DISABLE_") || matches!(name, "JACKIN_CAPSULE_FORCE_PANIC" | "JACKIN_DHAT_ALLOC_LOG" | "TZ") || is_proxy(name)
}

fn is_proxy(name: &str) -> bool {
    matches!(
        name,
        "HTTP_PROXY"
            | "HTTPS_PROXY"
            | "ALL_PROXY"
            | "FTP_PROXY"
            | "NO_PROXY"
            | "http_proxy"
            | "https_proxy"
            | "all_proxy"
            | "ftp_proxy"
            | "no_proxy"
    )
}

fn has_user_info(value: &str) -> bool {
    value.contains('@')
}

/// An image reference as `JACKIN_CONSTRUCT_IMAGE` may hold it: letters, digits, `. _ - / : @ +`, at most 256 bytes.
pub fn is_image_reference(text: &str) -> bool {
    !text.is_empty() && text.len() <= 256 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:@+".contains(&b))
}
