//! Git inside the container: who commits, how GitHub is reached, and the hooks that sign commits. Absent: the hooks' work (`hook`).

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::process::Command;

use super::{Setup, program, warn};
use crate::file;
use crate::hook::{BUSY_HOOKS, DCO_IDENTITY, EARLIER_HOOKS, GIT_HOOKS, HOOKS, hidden_hooks};

/// In git's own configuration, so that the marker lives exactly as long as what it vouches for.
const MARKER: &str = "jackin.initialized";

impl Setup {
    /// An agent can work without git; what fails here is said and does not stop it.
    pub(super) fn configure_git(&self) {
        if program::find("git", self.var("PATH").unwrap_or_default()).is_none() {
            return;
        }
        if let Err(error) = self.initialize_git() {
            warn(&format!("git could not be configured: {error}"));
        }
        let trailers = self.is_on("JACKIN_GIT_COAUTHOR_TRAILER");
        let dco = self.is_on("JACKIN_GIT_DCO");
        if (trailers || dco)
            && let Err(error) = self.install_git_hooks()
        {
            warn(&format!("commits will carry no trailers: {error}"));
        }
        if dco && let Err(error) = self.remember_dco_identity() {
            warn(&format!("commits may not be signed off: {error}"));
        }
    }

    fn git(&self, args: &[&str]) -> Result<String, String> {
        // Not in the working folder: a broken or foreign repository there must not matter.
        let mut command = Command::new("git");
        command.args(args).current_dir("/");
        let output = program::output(&mut command).map_err(|error| format!("git {}: {error}", args[..args.len().min(4)].join(" ")))?;
        Ok(String::from_utf8_lossy(&output).trim_end_matches('\n').to_owned())
    }

    fn set(&self, key: &str, value: &str) -> Result<(), String> {
        self.git(&["config", "--global", "--replace-all", key, value]).map(drop)
    }

    /// Once per container. A container made anew around kept state is another one, even where its git configuration was kept.
    fn initialize_git(&self) -> Result<(), String> {
        let container = container(&self.mounts);
        if self.git(&["config", "--global", "--get", MARKER]).is_ok_and(|marker| marker == container) {
            return Ok(());
        }
        for (key, variable) in [("user.name", "GIT_AUTHOR_NAME"), ("user.email", "GIT_AUTHOR_EMAIL")] {
            if let Some(value) = self.var(variable) {
                self.set(key, value)?;
            }
        }
        for other in ["git@github.com:", "ssh://git@github.com/"] {
            let quoted = format!("^{}$", other.replace('.', "\\."));
            self.git(&["config", "--global", "--replace-all", "url.https://github.com/.insteadOf", other, &quoted])?;
        }
        if program::find("gh", self.var("PATH").unwrap_or_default()).is_some() {
            self.set("credential.helper", "!gh auth git-credential")?;
            // Asks no network, other than `gh auth status`. The token it prints is dropped.
            let logged_in = program::output(Command::new("gh").args(["auth", "token"])).is_ok();
            if logged_in && let Err(error) = program::output(Command::new("gh").args(["auth", "setup-git"])) {
                warn(&format!("gh auth setup-git: {error}"));
            }
        }
        // For those who look for it where it used to be. Ours comes last, so that nothing before it is left half done.
        file::write(&self.state.join("container-init.done"), b"", file::PRIVATE).map_err(|error| error.to_string())?;
        self.set(MARKER, &container)
    }

    /// Git looks in one folder only. Ours would hide the repository's own hooks, and those of a folder configured before; so every
    /// hook is there, and passes on to the one it hides.
    fn install_git_hooks(&self) -> Result<(), String> {
        let dir = self.state.join(GIT_HOOKS);
        let failed = |error: io::Error| error.to_string();
        file::make_dir(&dir).map_err(failed)?;
        let program = std::env::current_exe().map_err(failed)?;
        let Some(ours) = dir.to_str() else {
            return Err("the state's path is not UTF-8".to_owned());
        };
        let configured = self.git(&["config", "--type=path", "--get", "core.hooksPath"]).unwrap_or_default();
        if configured != ours {
            file::write(&dir.join(EARLIER_HOOKS), configured.as_bytes(), file::PRIVATE).map_err(failed)?;
        }
        // Those of the repository where the agent works; others would have to do without.
        let hidden = hidden_hooks(&dir);
        let busy = BUSY_HOOKS.into_iter().filter(|hook| hidden.as_ref().is_some_and(|hidden| hidden.join(hook).exists()));
        for hook in HOOKS.into_iter().chain(busy) {
            let link = dir.join(hook);
            if fs::read_link(&link).is_ok_and(|to| to == program) {
                continue;
            }
            // By renaming: a commit may be under way.
            let partial = dir.join(format!(".{hook}.jackin-new"));
            let _ = fs::remove_file(&partial);
            symlink(&program, &partial)
                .and_then(|()| fs::rename(&partial, &link))
                .map_err(|error| file::named(&link, &error).to_string())?;
        }
        if configured != ours {
            self.set("core.hooksPath", ours)?;
        }
        let marker = dir.join("prepare-commit-msg.v3.done");
        if marker.exists() { Ok(()) } else { file::write(&marker, b"", file::PRIVATE).map_err(failed) }
    }

    /// Read once: whoever an agent later says it is, the person who signs off stays the same.
    fn remember_dco_identity(&self) -> Result<(), String> {
        let path = self.state.join(DCO_IDENTITY);
        let get = |key: &str| self.git(&["config", "--get", key]).ok().filter(|value| !value.is_empty());
        let (Some(name), Some(email)) = (get("user.name"), get("user.email")) else {
            // A stranger's would be worse than none.
            let _ = fs::remove_file(&path);
            return Err("git knows neither user.name nor user.email".to_owned());
        };
        let identity = format!("{name} <{email}>\n");
        if fs::read_to_string(&path).is_ok_and(|have| have == identity) {
            return Ok(());
        }
        file::write(&path, identity.as_bytes(), file::PRIVATE).map_err(|error| error.to_string())
    }
}

/// Names the container's writable layer, which every container made anew has of its own: where the root's file system comes from.
fn container(mounts: &str) -> String {
    let root = mounts.lines().rev().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let before: Vec<_> = before.split(' ').collect();
        let after: Vec<_> = after.split(' ').collect();
        let (root, place) = (before.get(3)?, before.get(4)?);
        let upper = after.get(2)?.split(',').find(|option| option.starts_with("upperdir=")).unwrap_or("");
        (*place == "/").then(|| format!("{root} {} {upper}", after.get(1).unwrap_or(&"")).trim_end().to_owned())
    });
    root.unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_known_by_its_writable_layer() {
        let mounts = |id: &str, device: &str| {
            format!(
                "36 35 {device} / / rw,relatime master:1 - overlay overlay rw,lowerdir=/var/lib/docker/l/A:/var/lib/docker/l/B,upperdir=/var/lib/docker/overlay2/{id}/diff,workdir=/w\n\
                 37 36 0:5 / /proc rw - proc proc rw\n"
            )
        };
        assert_eq!(container(&mounts("aa", "0:9")), "/ overlay upperdir=/var/lib/docker/overlay2/aa/diff");
        assert_eq!(container(&mounts("aa", "0:9")), container(&mounts("aa", "0:77")), "a restart is no new container");
        assert_ne!(container(&mounts("aa", "0:9")), container(&mounts("bb", "0:9")));
        assert_eq!(container("36 35 0:1 /btrfs/subvolumes/x / rw - btrfs /dev/sda rw\n"), "/btrfs/subvolumes/x /dev/sda");
        assert_eq!(container(""), "unknown");
    }
}
