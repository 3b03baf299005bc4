//! What engines said they are, kept so that the next command need not ask: `GET /version` takes an engine longer than everything else
//! that a plan without changes asks it for.
//!
//! In: an endpoint, and what answered there. Out: the architecture it told. Absent: asking it.
//!
//! An answer holds for a day, as long as the same version of the same engine answers the ping. It is a cache: failing to write it costs
//! another question.

use super::paths::{Paths, ensure_dir};
use super::{atomic, clock};
use crate::facts::Arch;
use crate::resource::sha256_hex;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

const FORMAT: u32 = 1;
/// Behind one address may be another engine tomorrow, even of the same version. In seconds.
pub const TTL: i64 = 24 * 3600;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Engine {
    format_version: u32,
    url: String,
    /// How it named itself when pinged.
    pub server: String,
    /// Seconds since 1970.
    asked: i64,
    pub arch: Arch,
}

impl Engine {
    pub fn remembered(paths: &Paths, url: &str) -> Option<Engine> {
        let engine: Engine = serde_json::from_slice(&std::fs::read(file(paths, url)).ok()?).ok()?;
        (engine.format_version == FORMAT && engine.url == url).then_some(engine)
    }

    pub fn remember(paths: &Paths, url: &str, server: &str, arch: Arch) {
        let engine = Engine { format_version: FORMAT, url: url.to_owned(), server: server.to_owned(), asked: clock::seconds(), arch };
        if let Ok(text) = serde_json::to_vec_pretty(&engine)
            && ensure_dir(&paths.engines(), 0o755).is_ok()
        {
            let _ = atomic::write(&file(paths, url), &text, 0o644);
        }
    }

    /// Was it asked not too long ago? A time to come was written under another clock.
    pub fn holds(&self, now: i64) -> bool {
        (0..TTL).contains(&(now - self.asked))
    }
}

/// An address has characters that no file's name may have.
fn file(paths: &Paths, url: &str) -> PathBuf {
    paths.engines().join(format!("{}.json", &sha256_hex(url)[..16]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_kept_by_address_and_for_a_day() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::from_env(|name| (name == "HOME").then(|| root.path().into())).unwrap();
        let (far, near) = ("ssh://me@far", "unix:///var/run/docker.sock");
        assert_eq!(Engine::remembered(&paths, far), None);
        Engine::remember(&paths, far, "Docker/29.1 (linux)", Arch::Arm64);
        Engine::remember(&paths, near, "Docker/29.1 (linux)", Arch::Amd64);
        let arch = |url| Engine::remembered(&paths, url).map(|engine| engine.arch);
        assert_eq!((arch(far), arch(near), arch("tcp://other:2375")), (Some(Arch::Arm64), Some(Arch::Amd64), None));
        let engine = Engine::remembered(&paths, far).unwrap();
        let at = |seconds: i64| engine.holds(engine.asked + seconds);
        assert_eq!([at(-1), at(0), at(TTL - 1), at(TTL)], [false, true, true, false]);
        std::fs::write(file(&paths, far), "{").unwrap();
        assert_eq!(arch(far), None);
    }
}
