//! The container's private Docker, which comes up beside it. Its command and its certificates in, whether it answers out.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::program;

/// What a client needs, as the sidecar writes them.
const CERTIFICATES: [&str; 3] = ["ca.pem", "cert.pem", "key.pem"];
/// Looking for files is cheap; the command takes a processor from the daemon that it waits for.
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(100);
/// As long as nobody wonders.
const QUIET: Duration = Duration::from_secs(2);

/// Waits until Docker has answered this command, or for as long as the patience lasts. A daemon that is coming up takes the connection and lets
/// it wait, so mostly one question does.
pub fn answers_within(patience: Duration, docker: &Path, certificates: &Path) -> bool {
    let begun = Instant::now();
    let mut told = false;
    loop {
        let there = CERTIFICATES.iter().all(|name| certificates.join(name).exists());
        if there && program::output_within(patience.saturating_sub(begun.elapsed()), Command::new(docker).arg("version")).is_ok() {
            return true;
        }
        if begun.elapsed() >= patience {
            return false;
        }
        if !told && begun.elapsed() > QUIET {
            told = true;
            eprintln!("jackin: waiting for the Docker of this container");
        }
        thread::sleep(if there { BETWEEN_QUESTIONS } else { BETWEEN_LOOKS });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    struct World(tempfile::TempDir);

    impl World {
        /// A command that counts how often it was asked, then does this.
        fn new(script: &str) -> Self {
            let world = Self(tempfile::tempdir().unwrap());
            let docker = world.0.path().join("docker");
            let counts = world.0.path().join("asked").display().to_string();
            fs::write(&docker, format!("#!/bin/sh\necho $1 >>{counts}\n{script}\n")).unwrap();
            fs::set_permissions(&docker, fs::Permissions::from_mode(0o755)).unwrap();
            world
        }

        fn certificates(&self) {
            CERTIFICATES.iter().for_each(|name| fs::write(self.0.path().join(name), "").unwrap());
        }

        fn answers_within(&self, millis: u64) -> bool {
            answers_within(Duration::from_millis(millis), &self.0.path().join("docker"), self.0.path())
        }

        fn asked(&self) -> String {
            fs::read_to_string(self.0.path().join("asked")).unwrap_or_default()
        }
    }

    #[test]
    fn it_is_asked_once_when_it_answers() {
        let world = World::new("exit 0");
        world.certificates();
        assert!(world.answers_within(60_000));
        assert_eq!(world.asked(), "version\n");
    }

    #[test]
    fn it_is_not_asked_before_its_certificates_are_there() {
        let world = World::new("exit 0");
        assert!(!world.answers_within(30));
        assert_eq!(world.asked(), "");
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(50));
                world.certificates();
            });
            assert!(world.answers_within(60_000));
        });
    }

    #[test]
    fn it_is_asked_again_until_it_answers() {
        let world = World::new("[ $(wc -l <\"${0%/*}/asked\") -ge 3 ]");
        world.certificates();
        assert!(world.answers_within(60_000));
        assert_eq!(world.asked().lines().count(), 3);
    }

    #[test]
    fn patience_ends() {
        for script in ["exit 1", "exec sleep 600"] {
            let world = World::new(script);
            world.certificates();
            assert!(!world.answers_within(150), "{script}");
        }
    }
}
