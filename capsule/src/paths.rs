//! Where things lie in the container. Environment in, paths out; the only place that knows the defaults.

use std::path::PathBuf;

use crate::launch::denies;
use crate::screen::Policy;

pub const RUNTIME_DIR: &str = "/jackin/runtime";
pub const RUNTIME_BINARY: &str = "/jackin/runtime/jackin-capsule";

#[derive(Debug, Clone)]
pub struct Paths {
    pub run: PathBuf,
    pub state: PathBuf,
    pub socket: PathBuf,
    pub entrypoint: String,
}

impl Paths {
    pub fn from_env() -> Self {
        let path = |key: &str, default: &str| PathBuf::from(var(key).unwrap_or_else(|| default.to_owned()));
        let run = path("JACKIN_RUN_DIR", "/jackin/run");
        let socket = var("JACKIN_CAPSULE_SOCKET").map_or_else(|| run.join("jackin.sock"), PathBuf::from);
        Self {
            state: path("JACKIN_STATE_DIR", "/jackin/state"),
            entrypoint: var("JACKIN_ENTRYPOINT").unwrap_or_else(|| "/jackin/runtime/entrypoint.sh".to_owned()),
            run,
            socket,
        }
    }

    pub fn launch_config(&self) -> PathBuf {
        self.run.join("agent.toml")
    }

    /// Pictures from operators' clipboards, for agents to read.
    pub fn clipboard(&self) -> PathBuf {
        self.run.join("clipboard")
    }

    pub fn recordings(&self) -> PathBuf {
        self.state.join("recordings")
    }

    pub fn captures(&self) -> PathBuf {
        self.state.join("agent-status/captures")
    }

    /// What is to become of the container's work, for the host to read.
    pub fn exit_action(&self) -> PathBuf {
        self.state.join("exit-action.json")
    }

    pub fn log(&self) -> PathBuf {
        self.state.join("multiplexer.log")
    }
}

/// An environment variable that is set to something.
pub fn var(key: &str) -> Option<String> {
    std::env::var(key).ok().filter(|value| !value.is_empty())
}

/// How people switch things on: anything but an explicit no.
pub fn switched_on(value: &str) -> bool {
    !["", "0", "false", "no", "off"].contains(&value)
}

pub fn policy_from_env() -> Policy {
    let denied = |key: &str| var(key).is_some_and(|value| denies(&value));
    Policy {
        title: !denied("JACKIN_OSC_TITLE"),
        notify: !denied("JACKIN_OSC_NOTIFY"),
        clipboard: var("JACKIN_OSC52").as_deref() == Some("allow"),
        hyperlink: !denied("JACKIN_OSC_HYPERLINK"),
    }
}
