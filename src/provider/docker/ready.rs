//! Waiting until a started container does what it is for, or until it is clear that it never will.
//!
//! In: a spec. Out: nothing, or the last lines it said. A sidecar is ready when its Docker answers over mutual TLS, as the capsule
//! will ask it; a capsule when its control socket answers. A kept sidecar was ready once and need only show that it lives. Absent: keys
//! on disk; they stay in memory while the question lasts.

use super::{Engine, doing, message, status};
use crate::diagnostic::Diagnostic;
use crate::observed::State;
use crate::provider::StepError;
use crate::provider::endpoint::{ping, prompt, stranger_config, tls_config};
use crate::provider::live::Capsules;
use crate::resource::{Capsule, Sidecar};
use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecResults};
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{ContainerArchiveInfoOptionsBuilder, DownloadFromContainerOptionsBuilder, LogsOptionsBuilder};
use futures_util::StreamExt;
use rustls::pki_types::ServerName;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(60);
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
const CLIENT_CERTS: &str = "/certs/client";
const RUN_FOLDER: &str = "/jackin/run";
/// Waiting longer for a kept sidecar than one's own takes to start makes no sense.
const KEPT_PATIENCE: Duration = Duration::from_secs(1);
const LAST_LINES: &str = "40";
/// After so many tries that reached nobody, or somebody else, the container is asked from inside.
const NO_ROUTE: u32 = 3;
/// And after so long in any case: behind a nested engine its address may be that of a container that only refuses.
const DIRECT_ONLY: Duration = Duration::from_secs(4);

/// How one question ended.
enum Answer {
    Yes,
    /// Not now; the text tells the last obstacle should time run out.
    NotYet(String),
    /// Not this way: nobody, or somebody else, is at that address.
    NoRoute(String),
}

impl Engine {
    pub async fn await_sidecar(&self, sidecar: &Sidecar) -> Result<(), StepError> {
        let name = &sidecar.name;
        let begun = Instant::now();
        let mut lost = 0;
        let mut tls: Option<Arc<rustls::ClientConfig>> = None;
        self.poll(name, "its Docker", async |inspection| {
            if self.connection.shares_kernel() && lost < NO_ROUTE {
                match self.ask_directly(sidecar, inspection, &mut tls).await {
                    Answer::Yes => return Answer::Yes,
                    Answer::NotYet(why) if begun.elapsed() < DIRECT_ONLY => return Answer::NotYet(why),
                    Answer::NotYet(_) => {}
                    Answer::NoRoute(why) => {
                        lost += 1;
                        // The certificates may have been read while they were being made anew.
                        tls = None;
                        return Answer::NotYet(why);
                    }
                }
            }
            self.ask_inside(name).await
        })
        .await
    }

    async fn ask_directly(
        &self,
        sidecar: &Sidecar,
        inspection: &ContainerInspectResponse,
        tls: &mut Option<Arc<rustls::ClientConfig>>,
    ) -> Answer {
        let config = match tls {
            Some(config) => config.clone(),
            None => match self.client_config(&sidecar.name).await {
                Ok(config) => tls.insert(Arc::new(config)).clone(),
                Err(why) => return Answer::NotYet(why),
            },
        };
        let networks = inspection.network_settings.as_ref().and_then(|s| s.networks.as_ref());
        match networks.and_then(|n| n.get(&sidecar.network)?.ip_address.as_deref()).filter(|ip| !ip.is_empty()) {
            Some(address) => ask_over_tls(address, &sidecar.name, config).await,
            None => Answer::NotYet(format!("it has no address in network {}", sidecar.network)),
        }
    }

    /// What was seen working once need only show that it is still alive.
    pub async fn claim_sidecar(&self, sidecar: &Sidecar) -> Result<(), StepError> {
        let name = &sidecar.name;
        let inspection = self.connection.docker.inspect_container(name, None).await;
        let inspection = inspection.map_err(|error| doing(&format!("Taking over {name}")).failed(error))?;
        match address_here(&inspection) {
            Some(address) if greets(address, name).await => Ok(()),
            _ => self.await_sidecar(sidecar).await,
        }
    }

    /// Which of these kept sidecars run and do not answer, by id. The engine is sent nothing, so where none of a sidecar's networks is
    /// this host's, nobody can be asked, and nothing is held against it.
    pub(super) async fn silent(sidecars: &[ContainerInspectResponse], known: &RefCell<BTreeSet<String>>) -> BTreeSet<String> {
        let asked = sidecars.iter().filter(|sidecar| super::observe::state(sidecar) == State::Running).map(async |sidecar| {
            let id = sidecar.id.clone().unwrap_or_default();
            let address = address_here(sidecar)?;
            let silent = known.borrow().contains(&id) || !greets(address, sidecar.name.as_deref().unwrap_or_default()).await;
            silent.then_some(id)
        });
        let silent: BTreeSet<String> = futures_util::future::join_all(asked).await.into_iter().flatten().collect();
        known.borrow_mut().extend(silent.iter().cloned());
        silent
    }

    pub async fn await_capsule(&self, capsule: &Capsule, capsules: &dyn Capsules) -> Result<(), StepError> {
        let folder = capsule.mounts.get(RUN_FOLDER).filter(|_| self.connection.shares_kernel());
        let socket = folder.map(|mount| PathBuf::from(self.facts.expand(&mount.source)).join("jackin.sock"));
        let begun = Instant::now();
        self.poll(&capsule.name, "its control socket", async |_| {
            // An engine in a virtual machine has a unix socket too, but what it mounts cannot be connected to.
            let socket = socket.as_deref().filter(|_| begun.elapsed() < DIRECT_ONLY);
            if capsules.ready(&capsule.name, socket).await { Answer::Yes } else { Answer::NotYet("nothing answers yet".to_owned()) }
        })
        .await
    }

    /// Asks again and again, at growing intervals, for as long as the container runs.
    async fn poll(&self, name: &str, what: &str, mut ask: impl AsyncFnMut(&ContainerInspectResponse) -> Answer) -> Result<(), StepError> {
        let begun = Instant::now();
        loop {
            let inspection = self.connection.docker.inspect_container(name, None).await.map_err(|error| {
                let waiting = format!("Waiting for {name}");
                if status(&error) == Some(404) {
                    return StepError::from(
                        Diagnostic::error("docker.container_gone", "A container was removed while jackin waited for it", waiting)
                            .help("Run the command again."),
                    );
                }
                doing(&waiting).failed(error)
            })?;
            match super::observe::state(&inspection) {
                State::Running => {}
                other => return Err(self.ended(name, &inspection, &other).await),
            }
            let why = match ask(&inspection).await {
                Answer::Yes => return Ok(()),
                Answer::NotYet(why) | Answer::NoRoute(why) => why,
            };
            if begun.elapsed() > DEADLINE {
                let detail = format!(
                    "{name} runs, but {what} did not answer within {} s: {why}.{}",
                    DEADLINE.as_secs(),
                    self.last_lines(name).await
                );
                return Err(Diagnostic::error("docker.not_ready", "A container does not become ready", detail)
                    .help(format!("`docker logs {name}` shows all it said. Run the command again to go on waiting."))
                    .into());
            }
            // What is waited in vain is a small part of what was waited anyway.
            tokio::time::sleep((begun.elapsed() / 10).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)).await;
        }
    }

    async fn ended(&self, name: &str, inspection: &ContainerInspectResponse, state: &State) -> StepError {
        let told = inspection
            .state
            .as_ref()
            .and_then(|s| s.error.clone())
            .filter(|e| !e.is_empty())
            .map(|e| format!(" ({e})"))
            .unwrap_or_default();
        let detail = format!("{name} is {}{told}.{}", state.word(), self.last_lines(name).await);
        let help = match state {
            State::Exited { oom: true, .. } => {
                "It needed more memory than its limit, or than the host has. Raise `memory` in the grants of the profile, or free memory."
                    .to_owned()
            }
            State::Paused => format!("Somebody paused it: `docker unpause {name}`, then run the command again."),
            _ => "Correct what the last lines complain about, then run the command again: what was made is kept.".to_owned(),
        };
        Diagnostic::error("docker.exited_early", "A container ended before it was ready", detail).help(help).into()
    }

    /// What it said last, indented, or nothing.
    async fn last_lines(&self, name: &str) -> String {
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).tail(LAST_LINES).build();
        let mut lines = String::new();
        let mut logs = self.connection.docker.logs(name, Some(options));
        while let Some(Ok(part)) = logs.next().await {
            for line in part.to_string().lines() {
                lines.push_str("\n  ");
                lines.push_str(line.trim_end());
            }
        }
        if lines.is_empty() { " It said nothing.".to_owned() } else { format!(" Its last lines:{lines}") }
    }

    /// The client side of the sidecar's TLS, read out of the running container.
    async fn client_config(&self, name: &str) -> Result<rustls::ClientConfig, String> {
        // Asking whether they are there costs the engine a fortieth of reading them, and it has a sidecar to start.
        let last = ContainerArchiveInfoOptionsBuilder::default().path(&format!("{CLIENT_CERTS}/cert.pem")).build();
        if let Err(error) = self.connection.docker.get_container_archive_info(name, Some(last)).await
            && status(&error) == Some(404)
        {
            return Err("its certificates are not written yet".to_owned());
        }
        let options = DownloadFromContainerOptionsBuilder::default().path(CLIENT_CERTS).build();
        let mut archive = Vec::new();
        let mut parts = self.connection.docker.download_from_container(name, Some(options));
        while let Some(part) = parts.next().await {
            archive.extend_from_slice(&part.map_err(|error| format!("its certificates cannot be read: {}", message(&error)))?);
        }
        let (mut authority, mut certificate, mut key) = (Vec::new(), Vec::new(), Vec::new());
        let mut archive = tar::Archive::new(archive.as_slice());
        for entry in archive.entries().map_err(|e| e.to_string())? {
            let mut entry = entry.map_err(|e| e.to_string())?;
            let path = entry.path().map_err(|e| e.to_string())?.into_owned();
            let into = match path.file_name().and_then(|n| n.to_str()) {
                Some("ca.pem") => &mut authority,
                Some("cert.pem") => &mut certificate,
                Some("key.pem") => &mut key,
                _ => continue,
            };
            entry.read_to_end(into).map_err(|e| e.to_string())?;
        }
        if [&authority, &certificate, &key].into_iter().any(|pem| !pem.ends_with(b"-----\n")) {
            return Err("its certificates are not written yet".to_owned());
        }
        tls_config(&authority, Some((&certificate, &key)))
    }

    /// Where no address of a container can be reached from here, its own docker command asks.
    async fn ask_inside(&self, name: &str) -> Answer {
        let at = |file: &str| format!("{CLIENT_CERTS}/{file}.pem");
        let words = ["docker", "--host", "tcp://localhost:2376", "--tlsverify", "--tlscacert"].map(str::to_owned).into_iter();
        let words = words.chain([at("ca"), "--tlscert".to_owned(), at("cert"), "--tlskey".to_owned(), at("key"), "version".to_owned()]);
        let options =
            CreateExecOptions { cmd: Some(words.collect()), attach_stdout: Some(true), attach_stderr: Some(true), ..Default::default() };
        let docker = &self.connection.docker;
        let run = async {
            let exec = docker.create_exec(name, options).await?;
            let mut said = String::new();
            if let StartExecResults::Attached { mut output, .. } = docker.start_exec(&exec.id, None).await? {
                while let Some(part) = output.next().await {
                    if let LogOutput::StdErr { message } = part? {
                        said.push_str(&String::from_utf8_lossy(&message));
                    }
                }
            }
            Ok::<_, bollard::errors::Error>((docker.inspect_exec(&exec.id).await?.exit_code, said))
        };
        match run.await {
            Ok((Some(0), _)) => Answer::Yes,
            Ok((_, said)) => Answer::NotYet(said.lines().last().unwrap_or("`docker version` fails in it").to_owned()),
            Err(error) => Answer::NotYet(message(&error)),
        }
    }
}

/// A container's address in a network whose bridge is this host's: there it is reached, or it is not there.
fn address_here(inspection: &ContainerInspectResponse) -> Option<&str> {
    let networks = inspection.network_settings.as_ref()?.networks.as_ref()?;
    let endpoint = networks.values().find(|endpoint| {
        // The engine's name for the bridge of a network that was not given one.
        let short = endpoint.network_id.as_deref().and_then(|id| id.get(..12));
        short.is_some_and(|short| Path::new("/sys/class/net").join(format!("br-{short}")).exists())
    })?;
    endpoint.ip_address.as_deref().filter(|address| !address.is_empty())
}

/// Does somebody there begin to talk TLS? That a certificate comes back is the answer; who vouches for it does not matter here.
async fn greets(address: &str, name: &str) -> bool {
    let name = ServerName::try_from(name.trim_start_matches('/').to_owned());
    let (Ok(name), Ok(config)) = (name, stranger_config()) else { return false };
    let question = async {
        let stream = prompt(&endpoint_of(address)).await?;
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await
    };
    match tokio::time::timeout(KEPT_PATIENCE, question).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => error.kind() == io::ErrorKind::InvalidData,
        Err(_) => false,
    }
}

fn endpoint_of(address: &str) -> String {
    if address.contains(':') { format!("[{address}]:2376") } else { format!("{address}:2376") }
}

/// As the capsule will: TCP, mutual TLS against the name in the certificate, one ping.
async fn ask_over_tls(address: &str, name: &str, config: Arc<rustls::ClientConfig>) -> Answer {
    let Ok(server) = ServerName::try_from(name.to_owned()) else {
        return Answer::NoRoute(format!("`{name}` is not a host name"));
    };
    let stream = match tokio::time::timeout(Duration::from_secs(1), prompt(&endpoint_of(address))).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return Answer::NotYet("it does not listen yet".to_owned());
        }
        Ok(Err(error)) => return Answer::NoRoute(format!("{address} cannot be reached: {error}")),
        Err(_) => return Answer::NoRoute(format!("{address} does not answer")),
    };
    let asked = tokio::time::timeout(Duration::from_secs(2), async {
        let mut stream = tokio_rustls::TlsConnector::from(config).connect(server, stream).await?;
        ping(&mut stream, name).await
    });
    match asked.await {
        Ok(Ok(_)) => Answer::Yes,
        // A certificate that does not fit: somebody else has this address where we are.
        Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => Answer::NoRoute(error.to_string()),
        Ok(Err(error)) => Answer::NotYet(error.to_string()),
        Err(_) => Answer::NotYet("TLS takes too long".to_owned()),
    }
}
