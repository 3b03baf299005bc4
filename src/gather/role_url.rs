//! The source of a role: which URLs are accepted, what of them may be shown, and when two mean the same repository.
//!
//! In: text from the configuration or a clone. Out: the URL for git, and the one for people. Absent: the network.

use std::fmt;

/// What is fetched may hold a password; only `shown` is printed.
#[derive(Clone, PartialEq, Eq)]
pub struct RoleUrl {
    fetch: String,
    shown: String,
}

impl fmt::Debug for RoleUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RoleUrl({})", self.shown)
    }
}

impl RoleUrl {
    /// https, http, ssh, git and file URLs, `user@host:path`, and absolute paths. GitHub's ssh forms become https, because a role is
    /// public more often than its reader has a key. The error says what is wrong.
    pub fn parse(text: &str) -> Result<RoleUrl, String> {
        if text.is_empty() || text.starts_with('-') || text.chars().any(|c| c.is_control() || c.is_whitespace() || matches!(c, '"' | '\\'))
        {
            return Err("the URL is empty, starts with `-`, or holds white space, quotes or control characters".to_owned());
        }
        match split(text) {
            // `-oProxyCommand=…` as a host would be an option to ssh.
            Some(Parts::Remote { host, path, .. }) if host.is_empty() || host.starts_with('-') || path.starts_with('-') => {
                Err(format!("`{}` has no usable host", shown(text)))
            }
            Some(Parts::Remote { scheme: "ssh", host, path }) if host.eq_ignore_ascii_case("github.com") => {
                let https = format!("https://github.com/{}", path.trim_start_matches('/'));
                Ok(RoleUrl { shown: https.clone(), fetch: https })
            }
            Some(_) => Ok(RoleUrl { fetch: text.to_owned(), shown: shown(text) }),
            None => Err(format!("`{}` is not an https, http, ssh, git or file URL, `user@host:path` or an absolute path", shown(text))),
        }
    }

    /// With credentials, for git only.
    pub fn fetch(&self) -> &str {
        &self.fetch
    }

    /// User-info and query taken off.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// The same path on the same host, over whatever protocol. Local paths must be equal.
    pub fn same_repository(&self, other: &RoleUrl) -> bool {
        match (split(&self.shown), split(&other.shown)) {
            (Some(Parts::Local { path: a }), Some(Parts::Local { path: b })) => trimmed(a) == trimmed(b),
            // Whoever has a host can have any owner and name on it.
            (Some(Parts::Remote { host: a, path: at_a, .. }), Some(Parts::Remote { host: b, path: at_b, .. })) => {
                a.eq_ignore_ascii_case(b)
                    && trimmed(at_a).trim_start_matches('/').eq_ignore_ascii_case(trimmed(at_b).trim_start_matches('/'))
            }
            _ => false,
        }
    }
}

enum Parts<'a> {
    Remote { scheme: &'a str, host: &'a str, path: &'a str },
    Local { path: &'a str },
}

fn split(text: &str) -> Option<Parts<'_>> {
    if text.starts_with('/') {
        return Some(Parts::Local { path: text });
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let rest = rest.split(['?', '#']).next().unwrap_or(rest);
        if scheme == "file" {
            let path = rest.strip_prefix("localhost").unwrap_or(rest);
            return path.starts_with('/').then_some(Parts::Local { path });
        }
        let (authority, path) = rest.split_at(rest.find('/')?);
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let host = host.strip_suffix(":22").filter(|_| scheme == "ssh").unwrap_or(host);
        return matches!(scheme, "https" | "http" | "ssh" | "git").then_some(Parts::Remote { scheme, host, path });
    }
    // `host::path` names a remote helper, a program; a colon behind a slash is part of a relative path.
    let (authority, path) = text.split_once(':')?;
    if authority.contains('/') || path.starts_with(':') || path.is_empty() {
        return None;
    }
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    Some(Parts::Remote { scheme: "ssh", host, path })
}

fn trimmed(path: &str) -> &str {
    let path = path.trim_end_matches('/');
    path.strip_suffix(".git").unwrap_or(path)
}

/// A URL as it may be printed. The login name of ssh (`git@`) stays: it is no secret, and without it the URL is another.
fn shown(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let rest = rest.split(['?', '#']).next().unwrap_or(rest);
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let authority = match authority.rsplit_once('@') {
        Some((user, host)) if scheme == "ssh" => match user.split_once(':') {
            Some((name, _password)) => format!("{name}@{host}"),
            None => authority.to_owned(),
        },
        Some((_, host)) => host.to_owned(),
        None => authority.to_owned(),
    };
    format!("{scheme}://{authority}{path}")
}

/// A program's words with the user-info and query of every URL in them taken off.
pub fn redact(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let start = rest[..at].rfind(|c: char| !c.is_ascii_alphanumeric() && c != '+').map_or(0, |i| i + 1);
        let length =
            rest[start..].find(|c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '`' | '<' | '>')).unwrap_or(rest.len() - start);
        clean.push_str(&rest[..start]);
        let url = &rest[start..start + length];
        // A message often ends its URL with a colon or a full stop.
        clean.push_str(&shown(url));
        rest = &rest[start + length..];
    }
    clean.push_str(rest);
    clean
}
