//! Other programs, which may be absent, fail or hang. A name or a command in, its output out.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Of what asks no network: who takes longer is stuck, and the agent waits.
const DEADLINE: Duration = Duration::from_secs(10);

pub fn find(name: &str, path: &str) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    std::env::split_paths(path).map(|dir| dir.join(name)).find(is_program)
}

/// Standard output of a success. `Err` says why not and never quotes the output, which may hold a secret.
pub fn output(command: &mut Command) -> Result<Vec<u8>, String> {
    output_within(DEADLINE, command)
}

/// The same for what takes its time.
pub fn output_within(deadline: Duration, command: &mut Command) -> Result<Vec<u8>, String> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(|error| error.to_string())?;
    let (sender, receiver) = mpsc::channel();
    if let Some(mut stdout) = child.stdout.take() {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            let read = stdout.read_to_end(&mut bytes);
            // Nobody listens any more once the time is up.
            let _ = sender.send(read.map(|_| bytes));
        });
    }
    let Ok(read) = receiver.recv_timeout(deadline) else {
        // Already gone is as good.
        let _ = child.kill();
        let _ = child.wait();
        return Err(format!("no answer within {deadline:?}"));
    };
    let status = child.wait().map_err(|error| error.to_string())?;
    let bytes = read.map_err(|error| error.to_string())?;
    if status.success() { Ok(bytes) } else { Err(status.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_of_programs_that_succeed_fail_and_hang() {
        let sh = |script: &str, millis| output_within(Duration::from_millis(millis), Command::new("sh").args(["-c", script]));
        assert_eq!(sh("head -c 300000 /dev/zero", 60_000).map(|bytes| bytes.len()), Ok(300_000));
        assert_eq!(sh("echo secret; exit 3", 60_000), Err("exit status: 3".to_owned()));
        assert_eq!(sh("echo secret; exec sleep 600", 20), Err("no answer within 20ms".to_owned()));
        assert!(output(&mut Command::new("/nowhere/at/all")).is_err());
    }

    #[test]
    fn programs_are_files_that_may_run() {
        assert!(find("sh", "/nowhere:/usr/bin:/bin").is_some());
        assert_eq!(find("sh", ""), None);
        assert_eq!(find("passwd", "/etc"), None);
        assert_eq!(find("bin", "/usr:/"), None);
    }
}
