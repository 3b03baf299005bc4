//! The Docker engine: looks at it and carries out effects on it. bollard's types stop in this folder.
//!
//! In: specs and effects. Out: own types and diagnostics. Absent: any opinion on what should be done, and credentials in messages.

mod arch;
mod build;
mod containers;
mod execute;
mod observe;
mod probe;
mod ready;

pub use arch::arch;
pub use containers::containers;
pub use observe::{HomeRecord, Look};

pub use probe::probe_privileged;

use super::StepError;
use super::endpoint::Connection;
use crate::diagnostic::Diagnostic;
use crate::facts::Facts;
use crate::resource::{Address, label};
use bollard::errors::Error;
use secrecy::{ExposeSecret, SecretString};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;

/// One engine, as one jackin home uses it.
pub struct Engine {
    pub connection: Connection,
    pub facts: Arc<Facts>,
}

/// What an object's labels say about it.
struct Marks<'a> {
    labels: Option<&'a HashMap<String, String>>,
}

impl<'a> Marks<'a> {
    fn of(labels: Option<&'a HashMap<String, String>>) -> Self {
        Self { labels }
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.labels?.get(name).map(String::as_str)
    }

    fn installation(&self) -> Option<&'a str> {
        self.get(label::INSTALLATION)
    }

    fn address(&self) -> Option<Address> {
        self.get(label::ADDRESS)?.parse().ok()
    }

    fn recorded(&self) -> Option<crate::resource::Fields> {
        serde_json::from_str(self.get(label::SPEC)?).ok()
    }
}

/// What a call was for and on what, so that its failure can be told.
#[derive(Clone, Copy)]
struct Doing<'a> {
    /// Such as `create container jk-x`.
    what: &'a str,
}

impl Doing<'_> {
    fn failed(self, error: Error) -> StepError {
        failed(self.what, &error)
    }
}

fn doing(what: &str) -> Doing<'_> {
    Doing { what }
}

fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

fn message(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } => message.trim().to_owned(),
        Error::DockerStreamError { error } => error.trim().to_owned(),
        other => {
            // hyper says "client error (Connect)" and keeps the cause to itself.
            let mut text = other.to_string();
            let mut source = std::error::Error::source(other);
            while let Some(inner) = source {
                let inner_text = inner.to_string();
                if !text.contains(&inner_text) {
                    text = format!("{text}: {inner_text}");
                }
                source = inner.source();
            }
            text
        }
    }
}

fn io_kind(error: &Error) -> Option<io::ErrorKind> {
    // A transparent error hides itself from the chain of its own sources.
    if let Error::IOError { err } = error {
        return Some(err.kind());
    }
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        source = inner.source();
    }
    None
}

const PASSING: [&str; 14] = [
    "i/o timeout",
    "tls handshake timeout",
    "connection reset",
    "connection refused",
    "context deadline exceeded",
    "client.timeout",
    "unexpected eof",
    "toomanyrequests",
    "too many requests",
    "temporary failure in name resolution",
    "service unavailable",
    "bad gateway",
    "gateway timeout",
    "received unexpected http status: 5",
];

fn failed(what: &str, error: &Error) -> StepError {
    let text = message(error);
    let low = text.to_ascii_lowercase();
    let diagnostic = |code: &str, summary: &str| Diagnostic::error(code, summary, format!("{what}: {text}"));
    let permanent = |diagnostic: Diagnostic| StepError { diagnostic, transient: false };
    if low.contains("no space left on device") || low.contains("disk quota exceeded") {
        return permanent(
            diagnostic("docker.disk_full", "The engine's disk is full")
                .help("Free space, for example with `docker system prune`, then run the command again."),
        );
    }
    if low.contains("unable to apply caps") && low.contains("operation not permitted") {
        return permanent(
            diagnostic("docker.privileged_refused", "This host cannot run privileged containers")
                .help("The engine runs without CAP_SYS_RESOURCE. `jackin doctor` shows it and tells the two ways round."),
        );
    }
    match (status(error), io_kind(error)) {
        (Some(_), _) => {}
        (None, Some(io::ErrorKind::PermissionDenied)) => {
            return permanent(
                diagnostic("docker.permission", "The Docker socket may not be used").help("Join the socket's group, or set DOCKER_HOST."),
            );
        }
        (None, Some(_)) | (None, None) if !matches!(error, Error::DockerStreamError { .. } | Error::JsonDataError { .. }) => {
            return StepError {
                diagnostic: diagnostic("docker.gone", "The Docker engine went away half-way")
                    .help("Start it again and repeat the command: it goes on where this one stopped."),
                transient: true,
            };
        }
        _ => {}
    }
    let passing = PASSING.iter().any(|p| low.contains(p)) || matches!(status(error), Some(502..=504));
    if low.contains("no such image") {
        return permanent(
            diagnostic("docker.image_missing", "An image is missing").help("Plan again: the next plan makes or pulls the image first."),
        );
    }
    if low.contains("bind source path does not exist") {
        return permanent(
            diagnostic("docker.mount_missing", "A folder to mount does not exist on the engine's host")
                .help("Make the folder, or take the mount out of the workspace."),
        );
    }
    if status(error) == Some(404) {
        return permanent(
            diagnostic("docker.missing", "Something that the plan counts on is gone").help("Plan again: the next plan sees what is left."),
        );
    }
    if low.contains("is already in use by container") || (status(error) == Some(409) && low.contains("already exists")) {
        return permanent(name_conflict(what, &text));
    }
    StepError { diagnostic: diagnostic("docker.refused", "The Docker engine refused"), transient: passing }
}

fn name_conflict(what: &str, text: &str) -> Diagnostic {
    Diagnostic::error("docker.name_conflict", "The name is taken by something else", format!("{what}: {text}"))
        .help("Plan again: the plan shows what is in the way.")
}

/// Takes resolved credentials out of a text that an engine may have echoed.
fn scrub(text: &mut String, secrets: &[SecretString]) {
    for secret in secrets {
        let value = secret.expose_secret();
        // Shorter ones would shred ordinary words, and say nothing.
        if value.len() >= 4 && text.contains(value) {
            *text = text.replace(value, "***");
        }
    }
}

fn short_id(id: &str) -> &str {
    let bare = id.strip_prefix("sha256:").unwrap_or(id);
    &bare[..bare.len().min(12)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_engines_say() {
        let server = |status_code, message: &str| Error::DockerResponseServerError { status_code, message: message.to_owned() };
        let stream = |error: &str| Error::DockerStreamError { error: error.to_owned() };
        let io = |kind: io::ErrorKind| Error::IOError { err: kind.into() };
        for (error, code, transient) in [
            (
                server(500, "OCI runtime create failed: unable to apply caps: operation not permitted: unknown"),
                "docker.privileged_refused",
                false,
            ),
            (server(500, "write /x: no space left on device"), "docker.disk_full", false),
            (stream("failed to copy: write: No space left on device"), "docker.disk_full", false),
            (server(404, "No such image: a:1"), "docker.image_missing", false),
            (server(404, "No such container: a"), "docker.missing", false),
            (server(400, "invalid mount config for type \"bind\": bind source path does not exist: /x"), "docker.mount_missing", false),
            (server(409, "Conflict. The container name \"/a\" is already in use by container \"0\"."), "docker.name_conflict", false),
            (server(500, "Get https://r/v2/: net/http: TLS handshake timeout"), "docker.refused", true),
            (server(503, "later"), "docker.refused", true),
            (server(400, "no"), "docker.refused", false),
            (io(io::ErrorKind::ConnectionReset), "docker.gone", true),
            (io(io::ErrorKind::PermissionDenied), "docker.permission", false),
            (Error::RequestTimeoutError, "docker.gone", true),
        ] {
            let told = failed("Trying", &error);
            assert_eq!((told.diagnostic.code.as_str(), told.transient), (code, transient), "{error}");
        }
    }

    #[test]
    fn secrets_are_taken_out() {
        let mut text = "bad env GH_TOKEN=hunter22 in a".to_owned();
        scrub(&mut text, &["hunter22".to_owned().into(), "a".to_owned().into()]);
        assert_eq!(text, "bad env GH_TOKEN=*** in a");
    }
}
