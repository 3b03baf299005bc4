//! Where programs are asked for instead of at their makers'.
//!
//! In: `JACKIN_AGENT_MIRROR`, `JACKIN_AGENT_MIRROR_<SLUG>`, `[binaries]` of config.toml. Out: the URL to use for a maker's URL.
//! Absent: requests.
//!
//! A mirror holds every host as a folder: `https://x.ai/cli/stable` is asked for at `<mirror>/x.ai/cli/stable`, the layout that
//! `wget --mirror` and `wget -x` make. `file:///srv/mirror` is a folder of this host with the same layout. `off` asks nobody.

use crate::config::{Binaries, mirror_problem};
use crate::diagnostic::Diagnostic;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mirrors {
    all: Option<String>,
    /// By slug, or `capsule`.
    own: BTreeMap<String, String>,
}

/// Turns everything off.
pub const OFF: &str = "off";

impl Mirrors {
    /// The environment beats the file, one program's own mirror the one for all.
    pub fn new(lookup: impl Fn(&str) -> Option<OsString>, file: &Binaries) -> Result<Mirrors, Diagnostic> {
        let set = |name: &str| -> Result<Option<String>, Diagnostic> {
            let Some(value) = lookup(name).filter(|value| !value.is_empty()) else { return Ok(None) };
            let text = value.to_string_lossy().into_owned();
            match mirror_problem(&text) {
                None => Ok(Some(text)),
                // It may hold a password, so it is not shown.
                Some(why) => Err(Diagnostic::error("binary.mirror", "A mirror cannot be used", format!("The value of {name} {why}."))
                    .help("Give a URL such as `https://mirror.example/jackin`, `file:///srv/mirror`, or `off`.")),
            }
        };
        let all = set("JACKIN_AGENT_MIRROR")?;
        let mut own = BTreeMap::new();
        for program in Binaries::PROGRAMS {
            let given = set(&format!("JACKIN_AGENT_MIRROR_{}", program.to_uppercase()))?;
            // One variable for all beats the file as a whole.
            let filed = file.mirrors.get(program).filter(|_| all.is_none()).map(|m| m.value.clone());
            own.extend(given.or(filed).map(|mirror| (program.to_owned(), mirror)));
        }
        let all = all.or_else(|| file.mirror.as_ref().map(|m| m.value.clone()));
        Ok(Mirrors { all, own })
    }

    /// Those that are folders of this host.
    pub fn folders(&self) -> Vec<PathBuf> {
        self.own.values().chain(&self.all).filter_map(|mirror| mirror.strip_prefix("file://")).map(PathBuf::from).collect()
    }

    /// For `claude` … `grok`, or `capsule`.
    pub fn of(&self, program: &str) -> Option<&str> {
        self.own.get(program).or(self.all.as_ref()).map(String::as_str)
    }
}

/// The maker's URL, or the mirror's in its place.
pub fn redirect(url: &str, mirror: Option<&str>) -> String {
    match (mirror, url.split_once("://")) {
        (Some(mirror), Some((_, rest))) => format!("{}/{rest}", mirror.trim_end_matches('/')),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Located;

    #[test]
    fn environment_beats_file_and_own_beats_all() {
        let file = Binaries {
            mirror: Some(Located::bare("https://file".to_owned())),
            mirrors: BTreeMap::from([("grok".to_owned(), Located::bare("off".to_owned()))]),
        };
        let check = |env: &[(&str, &str)], program: &str, wanted: Option<&str>| {
            let lookup = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v));
            assert_eq!(Mirrors::new(lookup, &file).unwrap().of(program), wanted, "{env:?}");
        };
        check(&[], "claude", Some("https://file"));
        check(&[], "grok", Some("off"));
        check(&[("JACKIN_AGENT_MIRROR", "https://env/")], "grok", Some("https://env/"));
        check(&[("JACKIN_AGENT_MIRROR_GROK", "http://own")], "grok", Some("http://own"));
        check(&[("JACKIN_AGENT_MIRROR", "https://env"), ("JACKIN_AGENT_MIRROR_CAPSULE", "off")], "capsule", Some("off"));
        let secret = |_: &str| Some(OsString::from("https://user:canary@mirror"));
        let refused = Mirrors::new(secret, &file).unwrap_err();
        assert!(refused.code == "binary.mirror" && !refused.to_string().contains("canary"), "{refused}");
    }

    #[test]
    fn a_mirror_may_be_a_folder() {
        for (text, good) in [
            ("file:///srv/mirror", true),
            ("file:///srv/a mirror/", true),
            ("file://srv/mirror", false),
            ("file:/srv/mirror", false),
            ("file:///srv/../etc", false),
            ("file:///srv/%2e%2e", false),
            ("/srv/mirror", false),
        ] {
            let lookup = |name: &str| (name == "JACKIN_AGENT_MIRROR_AMP").then(|| OsString::from(text));
            let mirrors = Mirrors::new(lookup, &Binaries::default());
            assert_eq!(mirrors.is_ok(), good, "{text}");
            let folders: Vec<PathBuf> = mirrors.iter().flat_map(Mirrors::folders).collect();
            assert_eq!(folders.len(), usize::from(good), "{text}");
        }
    }

    #[test]
    fn a_mirror_holds_hosts_as_folders() {
        let check = |url: &str, mirror, wanted: &str| assert_eq!(redirect(url, mirror), wanted);
        check("https://x.ai/cli/stable", None, "https://x.ai/cli/stable");
        check("https://x.ai/cli/stable", Some("http://m:8080/a/"), "http://m:8080/a/x.ai/cli/stable");
        check("https://x.ai/cli/stable", Some("file:///srv/a mirror"), "file:///srv/a mirror/x.ai/cli/stable");
    }
}
