//! Which release of a program is the newest, as its maker says.
//!
//! In: a program, the time, how far the command may go. Out: a `Lookup` for the facts. Answers are kept for an hour, failures for
//! five minutes, each in a file of its own. Absent: downloads (`download.rs`), the choice between a release and what is cached
//! (`graph/programs.rs`).

use super::http::Http;
use super::lock::{Lock, Notice};
use super::mirror::{Mirrors, OFF, redirect};
use super::paths::{Paths, ensure_dir};
use super::{atomic, github};
use crate::config::Agent;
use crate::facts::{Arch, Lookup, Release};
use crate::resource::Download;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::OnceCell;

const FORMAT: u32 = 1;
/// How long an answer holds, in seconds.
pub const TTL: i64 = 3600;
/// How long nobody is asked again after a failure: a plan without a network should not wait for it each time.
pub const FAILURE_TTL: i64 = 300;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    Agent(Agent),
    /// Of exactly this version.
    Capsule(String),
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Program::Agent(agent) => agent.slug(),
            Program::Capsule(_) => "capsule",
        })
    }
}

/// How far a look-up may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asking {
    Never,
    /// When nothing is cached and the last answer is too old.
    WhenNeeded,
    /// When the last answer is too old, or was none: for those who want the newest program, not just one.
    Fresh,
    Always,
}

/// The makers of the programs, as this host reaches them.
pub struct Makers {
    pub http: Http,
    mirrors: Mirrors,
    /// Of the engine.
    pub arch: Arch,
    /// Programs for the engine run here, so one without a checksum can be tried.
    pub can_run: bool,
    folder: PathBuf,
    gh_config: PathBuf,
    token: OnceCell<Option<SecretString>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Memory {
    format_version: u32,
    /// Who was asked: another mirror may know other releases.
    mirror: Option<String>,
    /// Seconds since 1970.
    asked: i64,
    answer: Answer,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Release(Release),
    Failed(String),
}

/// What the file of an earlier answer is worth now.
#[derive(Debug, PartialEq)]
enum Known {
    Fresh(Release),
    FailedLately(String),
    Nothing,
}

impl Makers {
    pub fn new(mut http: Http, mirrors: Mirrors, paths: &Paths, arch: Arch, can_run: bool) -> Makers {
        http.folders = mirrors.folders();
        Makers { http, mirrors, arch, can_run, folder: paths.releases(), gh_config: paths.home.join(".config/gh"), token: OnceCell::new() }
    }

    /// What the facts say of a program; `None` when nobody is to be asked. `cached`: something is there that can be used.
    pub async fn look_up(&self, program: &Program, cached: bool, asking: Asking, now: i64, notice: Notice<'_>) -> Option<Lookup> {
        let mirror = self.mirrors.of(&program.to_string());
        if asking == Asking::Never || mirror == Some(OFF) {
            return None;
        }
        match (self.known(program, now), asking) {
            (_, Asking::Never | Asking::Always) => {}
            (Known::Fresh(release), _) => return Some(Lookup::Newest(release)),
            (Known::FailedLately(why), Asking::WhenNeeded) => return Some(Lookup::Failed { why }),
            (Known::Nothing, Asking::WhenNeeded) if cached => return Some(Lookup::Stale),
            (Known::FailedLately(_) | Known::Nothing, _) => {}
        }
        Some(match self.ask(program, asking, now, notice).await {
            Ok(release) => Lookup::Newest(release),
            Err(why) => Lookup::Failed { why },
        })
    }

    /// Asks, for the next run.
    pub async fn refresh(&self, program: &Program, now: i64) {
        let _ = self.ask(program, Asking::Always, now, &|_| {}).await;
    }

    /// The release was there and could not be had: the next plans do without.
    pub fn remember_failure(&self, program: &Program, why: &str, now: i64) {
        if matches!(program, Program::Agent(_)) {
            self.remember(program, now, Answer::Failed(why.to_owned()));
        }
    }

    async fn ask(&self, program: &Program, asking: Asking, now: i64, notice: Notice<'_>) -> Result<Release, String> {
        let guards = format!("the look-up of {program}'s newest release");
        // Without a lock it would only be asked twice.
        let lock = Lock::exclusive(&self.file(program).with_extension("lock"), &guards, Some(Duration::from_secs(60)), notice).await;
        // Somebody else may have asked while this waited.
        match (self.known(program, now), asking) {
            (_, Asking::Never | Asking::Always) => {}
            (Known::Fresh(release), _) => return Ok(release),
            (Known::FailedLately(why), Asking::WhenNeeded) => return Err(why),
            (Known::FailedLately(_) | Known::Nothing, _) => {}
        }
        let result = self.release(program).await;
        match &result {
            Ok(release) => self.remember(program, now, Answer::Release(release.clone())),
            Err(why) => self.remember_failure(program, why, now),
        }
        drop(lock);
        result
    }

    fn file(&self, program: &Program) -> PathBuf {
        let of = match program {
            Program::Agent(agent) => agent.slug().to_owned(),
            Program::Capsule(version) => format!("capsule-{}", crate::facts::version_folder(version)),
        };
        // The dot before a version's patch number is no extension.
        self.folder.join(format!("{}-linux-{}.json", of.replace('.', "_"), self.arch))
    }

    fn known(&self, program: &Program, now: i64) -> Known {
        let text = std::fs::read(self.file(program)).unwrap_or_default();
        match serde_json::from_slice::<Memory>(&text) {
            Ok(memory) if memory.format_version == FORMAT && memory.mirror.as_deref() == self.mirrors.of(&program.to_string()) => {
                // A time to come was written under another clock.
                let age = now - memory.asked;
                match memory.answer {
                    Answer::Release(release) if (0..TTL).contains(&age) => Known::Fresh(release),
                    Answer::Failed(why) if (0..FAILURE_TTL).contains(&age) => Known::FailedLately(why),
                    _ => Known::Nothing,
                }
            }
            _ => Known::Nothing,
        }
    }

    /// A cache: failing to write it costs another look-up.
    fn remember(&self, program: &Program, now: i64, answer: Answer) {
        let mirror = self.mirrors.of(&program.to_string()).map(str::to_owned);
        let memory = Memory { format_version: FORMAT, mirror, asked: now, answer };
        let file = self.file(program);
        if let Ok(text) = serde_json::to_vec_pretty(&memory)
            && ensure_dir(&self.folder, 0o755).is_ok()
        {
            let _ = atomic::write(&file, &text, 0o644);
        }
    }

    async fn release(&self, program: &Program) -> Result<Release, String> {
        let asking = Asked { makers: self, mirror: self.mirrors.of(&program.to_string()) };
        // The makers' names for the architecture.
        let (x64, x86_64) = match self.arch {
            Arch::Amd64 => ("x64", "x86_64"),
            Arch::Arm64 => ("arm64", "aarch64"),
        };
        let platform = format!("linux-{x64}");
        match program {
            Program::Agent(Agent::Claude) => {
                let base = "https://downloads.claude.ai/claude-code-releases";
                let version = asking.version(&format!("{base}/latest")).await?;
                let manifest = asking.json(&format!("{base}/{version}/manifest.json")).await?;
                let entry = &manifest["platforms"][&platform];
                let file = file_name(entry["binary"].as_str().unwrap_or("claude"))?;
                asking.found(version.clone(), &format!("{base}/{version}/{platform}/{file}"), sha256(entry["checksum"].as_str())?)
            }
            Program::Agent(Agent::Codex) => {
                let member = format!("codex-{x86_64}-unknown-linux-musl");
                let asset = format!("{member}.tar.gz");
                asking.github("openai/codex", "latest", &[(&asset, Some(&member))]).await
            }
            Program::Agent(Agent::Amp) => {
                let base = "https://static.ampcode.com/cli";
                let version = asking.version(&format!("{base}/cli-version.txt")).await?;
                let sum = asking.text(&format!("{base}/{version}/{platform}-amp.sha256")).await?;
                asking.found(version.clone(), &format!("{base}/{version}/amp-{platform}"), sha256(sum.split_whitespace().next())?)
            }
            Program::Agent(Agent::Kimi) => {
                let base = "https://code.kimi.com/kimi-code";
                let version = asking.version(&format!("{base}/latest")).await?;
                let manifest = asking.json(&format!("{base}/binaries/{version}/manifest.json")).await?;
                let entry = manifest.get("platforms").unwrap_or(&manifest).get(&platform).unwrap_or(&Value::Null);
                let file = file_name(entry["filename"].as_str().unwrap_or_default())?;
                asking.found(version.clone(), &format!("{base}/binaries/{version}/{file}"), sha256(entry["checksum"].as_str())?)
            }
            Program::Agent(Agent::Opencode) => {
                let asset = format!("opencode-{platform}.tar.gz");
                asking.github("anomalyco/opencode", "latest", &[(&asset, Some("opencode"))]).await
            }
            Program::Agent(Agent::Grok) => {
                let base = "https://storage.googleapis.com/grok-build-public-artifacts/cli";
                let version = match asking.version("https://x.ai/cli/stable").await {
                    Ok(version) => version,
                    Err(_) => asking.version(&format!("{base}/stable")).await?,
                };
                if !self.can_run {
                    return Err(format!(
                        "no checksum is published for grok, and this host cannot run a linux-{} program to try it",
                        self.arch
                    ));
                }
                let url = redirect(&format!("{base}/grok-{version}-linux-{x86_64}"), asking.mirror);
                Ok(Release { version, download: Download { url, sha256: None, member: None } })
            }
            Program::Capsule(version) => {
                let plain = format!("jackin-capsule-linux-{}", self.arch);
                let archive = format!("{plain}.tar.gz");
                let assets: [(&str, Option<&str>); 2] = [(&archive, Some("jackin-capsule")), (&plain, None)];
                let found = asking.github("jackin-project/jackin", &format!("tags/v{version}"), &assets).await?;
                Ok(Release { version: version.clone(), ..found })
            }
        }
    }

    async fn token(&self) -> Option<&SecretString> {
        let asking = async || github::github_token(None, &self.gh_config, std::env::var_os("PATH").as_deref()).await;
        self.token.get_or_init(asking).await.as_ref()
    }
}

/// Requests for one program.
struct Asked<'a> {
    makers: &'a Makers,
    mirror: Option<&'a str>,
}

impl Asked<'_> {
    async fn text(&self, url: &str) -> Result<String, String> {
        self.text_as(url, None).await
    }

    async fn text_as(&self, url: &str, token: Option<&SecretString>) -> Result<String, String> {
        let url = redirect(url, self.mirror);
        self.makers.http.text(&url, token).await.map_err(|trouble| format!("{url}: {trouble}"))
    }

    async fn version(&self, url: &str) -> Result<String, String> {
        let text = self.text(url).await?;
        version(&text).ok_or_else(|| format!("{}: this is no version", redirect(url, self.mirror)))
    }

    async fn json(&self, url: &str) -> Result<Value, String> {
        parse(&redirect(url, self.mirror), &self.text(url).await?)
    }

    fn found(&self, version: String, url: &str, sum: String) -> Result<Release, String> {
        Ok(Release { version, download: Download { url: redirect(url, self.mirror), sha256: Some(sum), member: None } })
    }

    /// The first of these assets that a release has, with the member it is packed as.
    async fn github(&self, repo: &str, which: &str, assets: &[(&str, Option<&str>)]) -> Result<Release, String> {
        let url = format!("https://api.github.com/repos/{repo}/releases/{which}");
        // The operator's token is for GitHub, not for a mirror.
        let token = if self.mirror.is_none() { self.makers.token().await } else { None };
        let release = parse(&redirect(&url, self.mirror), &self.text_as(&url, token).await?)?;
        let tag = release["tag_name"].as_str().unwrap_or_default();
        let version = version(tag.strip_prefix("rust-v").or_else(|| tag.strip_prefix('v')).unwrap_or(tag));
        let version = version.ok_or_else(|| format!("{repo}: the newest release has no usable tag"))?;
        let published = release["assets"].as_array().map(Vec::as_slice).unwrap_or_default();
        for (name, member) in assets {
            let Some(asset) = published.iter().find(|asset| asset["name"] == *name) else { continue };
            let sum = asset["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:"));
            let sum = sha256(sum).map_err(|why| format!("{repo} {tag}, {name}: {why}"))?;
            let link = asset["browser_download_url"].as_str().unwrap_or_default();
            if !link.starts_with("https://") {
                return Err(format!("{repo} {tag}, {name}: no address to download it from"));
            }
            let member = member.map(str::to_owned);
            return Ok(Release { version, download: Download { url: redirect(link, self.mirror), sha256: Some(sum), member } });
        }
        Err(format!("{repo} {tag} has no {}", assets.first().map_or("", |(name, _)| name)))
    }
}

fn parse(url: &str, text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("{url}: no JSON that can be read: {error}"))
}

/// It becomes the name of a folder and a part of URLs.
fn version(text: &str) -> Option<String> {
    let text = text.trim();
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "._+-".contains(c));
    let sound = plain && !text.contains("..") && (1..=100).contains(&text.len()) && text.starts_with(|c: char| c.is_ascii_alphanumeric());
    sound.then(|| text.to_owned())
}

fn file_name(text: &str) -> Result<&str, String> {
    let sound = !text.is_empty() && !text.starts_with('.') && text.chars().all(|c| c.is_ascii_alphanumeric() || "._+-".contains(c));
    if sound { Ok(text) } else { Err("the manifest names no file for this architecture".to_owned()) }
}

/// A program without a checksum is refused.
fn sha256(text: Option<&str>) -> Result<String, String> {
    let text = text.unwrap_or_default().trim();
    let sound = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if sound { Ok(text.to_ascii_lowercase()) } else { Err("no checksum is published for it".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_becomes_a_folder_is_looked_at() {
        for good in ["2.0.1", " 0.0.1763-g12ab\n", "1.2.3+build"] {
            assert_eq!(version(good).as_deref(), Some(good.trim()));
        }
        for bad in ["", "../etc", "1..2", "a/b", "<html>", "-rf", ".hidden", &"9".repeat(101)] {
            assert_eq!(version(bad), None, "{bad}");
        }
        assert!(file_name("claude").is_ok() && file_name("../claude").is_err() && file_name("").is_err());
        assert!(sha256(Some(&"A".repeat(64))).is_ok() && sha256(Some("abc")).is_err() && sha256(None).is_err());
    }
}
