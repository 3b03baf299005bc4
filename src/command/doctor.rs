//! `jackin doctor`: looks at the engine, the programs, the folders and the configuration, and says what to do about what is wrong.

use super::live::{ArchBy, engine_env};
use super::run::Run;
use super::ui::{DONE, ERROR, Failure};
use crate::cli::{DoctorArgs, Format};
use crate::gather::session::{Freshness, Session};
use crate::gather::{Paths, git, program};
use crate::graph::programs;
use crate::provider::docker::probe_privileged;
use crate::provider::endpoint::{self, Connection};
use crate::render::json::envelope;
use serde::Serialize;
use std::path::Path;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    Warn,
    Fail,
    Skip,
}

#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    status: Verdict,
    message: String,
    hint: Option<String>,
}

fn check(name: &'static str, status: Verdict, message: impl Into<String>, hint: Option<&str>) -> Check {
    Check { name, status, message: message.into(), hint: hint.map(str::to_owned) }
}

pub async fn run(run: &mut Run, args: DoctorArgs) -> Result<i32, Failure> {
    let mut checks = Vec::new();
    let connection = match endpoint::connect_by_env(&engine_env()).await {
        Ok(connection) => {
            checks.push(check(
                "docker engine",
                Verdict::Ok,
                format!("{} answers, API {}", connection.endpoint.url(), connection.api_version()),
                None,
            ));
            Some(connection)
        }
        Err(error) => {
            checks.push(Check { name: "docker engine", status: Verdict::Fail, message: error.to_string(), hint: error.help });
            None
        }
    };
    let session = match run.open(&[], Freshness::Offline, false, if connection.is_some() { ArchBy::Engine } else { ArchBy::Memory }).await {
        Ok(session) => {
            let count = session.config.workspaces.len();
            let noun = if count == 1 { "workspace" } else { "workspaces" };
            checks.push(check("configuration", Verdict::Ok, format!("{count} {noun}"), None));
            Some(session)
        }
        Err(Failure::Diagnostics(mistakes)) => {
            let hint = mistakes.first().and_then(|d| d.help.clone());
            let message = mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            checks.push(Check { name: "configuration", status: Verdict::Fail, message, hint });
            None
        }
        Err(said) => return Err(said),
    };
    checks.push(privileged(connection.as_ref(), session.as_ref()).await);
    checks.push(git_program().await);
    if let Some(session) = &session {
        checks.push(match (&session.facts.capsule_binary, programs::capsule(&session.facts)) {
            (Some(_), Err(wrong)) => Check { name: "capsule binary", status: Verdict::Fail, message: wrong.detail, hint: wrong.help },
            (Some(fact), Ok(_)) => {
                check("capsule binary", Verdict::Ok, format!("{} ({})", session.facts.shorten(&fact.path), fact.version), None)
            }
            (None, _) => check(
                "capsule binary",
                Verdict::Fail,
                "none beside the executable, in the cache, or named by JACKIN_CAPSULE_BIN",
                Some("build it with `./dev setup`, or set JACKIN_CAPSULE_BIN=PATH"),
            ),
        });
    }
    if let Ok(paths) = Paths::from_env(crate::gather::env::variable) {
        checks.push(folder("config folder", &paths.config_dir));
        checks.push(folder("jackin folder", &paths.jackin_home));
        checks.push(space(&paths.jackin_home));
    }
    let worst = checks.iter().any(|c| c.status == Verdict::Fail);
    match args.format {
        Format::Json => run.ui.result(&envelope(&checks)),
        Format::Human => {
            let mut text = String::new();
            for c in &checks {
                let word = match c.status {
                    Verdict::Ok => "ok  ",
                    Verdict::Warn => "warn",
                    Verdict::Fail => "FAIL",
                    Verdict::Skip => "skip",
                };
                text.push_str(&format!("{word}  {:<22} {}\n", c.name, c.message));
                if let (Some(hint), true) = (&c.hint, c.status != Verdict::Ok) {
                    text.push_str(&format!("      {:<22} -> {hint}\n", ""));
                }
            }
            run.ui.result(&text);
        }
    }
    Ok(if worst { ERROR } else { DONE })
}

/// Tries it: a privileged container of the sidecar's image that does nothing, made, started and removed.
async fn privileged(connection: Option<&Connection>, session: Option<&Session>) -> Check {
    const NAME: &str = "privileged containers";
    let (Some(connection), Some(session)) = (connection, session) else {
        return check(NAME, Verdict::Skip, "not tried: the engine or the configuration is missing", None);
    };
    let image = session.facts.dind_image.as_deref().unwrap_or("docker:29-dind");
    match probe_privileged(connection, image, &session.facts.installation).await {
        Ok(true) => check(NAME, Verdict::Ok, "a private Docker daemon can run", None),
        Ok(false) => check(
            NAME,
            Verdict::Skip,
            format!("not tried: the image {image} is not there"),
            Some("`jackin apply` pulls it; `./dev setup` makes it where no registry answers"),
        ),
        Err(error) if error.detail.contains("unable to apply caps") || missing_sys_resource() => Check {
            name: NAME,
            status: Verdict::Fail,
            message: format!(
                "the engine refuses them, because this host keeps CAP_SYS_RESOURCE from it (bit 24 of CapBnd in /proc/self/status): {}",
                error.detail
            ),
            hint: Some(
                "register the runtime wrapper setup/runc-no-sysres (`./dev setup` does), or use profile `standard`, which needs no sidecar"
                    .to_owned(),
            ),
        },
        Err(error) => Check {
            name: NAME,
            status: Verdict::Fail,
            message: error.to_string(),
            hint: Some("use an engine that may run privileged containers, or profile `standard`, which needs no sidecar".to_owned()),
        },
    }
}

fn missing_sys_resource() -> bool {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    bounding.is_some_and(|set| set >> CAP_SYS_RESOURCE & 1 == 0)
}

async fn git_program() -> Check {
    let output = program::output(git::command().arg("--version"), None).await;
    match output {
        Ok(bytes) => check("git", Verdict::Ok, String::from_utf8_lossy(&bytes).trim().to_owned(), None),
        Err(_) => check("git", Verdict::Fail, "the program git cannot be run", Some("install git")),
    }
}

fn folder(name: &'static str, path: &Path) -> Check {
    match std::fs::metadata(path) {
        Ok(found) if !found.is_dir() => check(name, Verdict::Fail, format!("{} is not a folder", path.display()), Some("move it away")),
        Ok(_) if rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_err() => {
            check(name, Verdict::Fail, format!("{} cannot be written", path.display()), Some("give yourself write access"))
        }
        Ok(_) => check(name, Verdict::Ok, path.display().to_string(), None),
        Err(_) => check(name, Verdict::Ok, format!("{} is made when needed", path.display()), None),
    }
}

fn space(path: &Path) -> Check {
    const LEAST: u64 = 1 << 30;
    let existing = path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    match rustix::fs::statvfs(existing) {
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            let message = format!("{:.1} GiB free", free as f64 / LEAST as f64);
            if free < LEAST {
                check("disk space", Verdict::Warn, message, Some("images and homes need more; `docker system df` shows what takes it"))
            } else {
                check("disk space", Verdict::Ok, message, None)
            }
        }
        Err(error) => check("disk space", Verdict::Warn, error.to_string(), None),
    }
}
