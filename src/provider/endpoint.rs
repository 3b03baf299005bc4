//! Which engine, and a connection to it.
//!
//! In: the environment and the files of the docker command (contexts, certificates). Out: an `Endpoint` as data, then a
//! `Connection` that speaks the newest API both sides know. Absent: the docker command itself, and every question but "which
//! engine". Keys of TLS endpoints are read here and nowhere kept.

use crate::aside;
use crate::diagnostic::Diagnostic;
use crate::plan::OLDEST_API;
use crate::resource::sha256_hex;
use bollard::{API_DEFAULT_VERSION, ClientVersion, Docker};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};

const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
/// Longest wait for the engine's first answer.
pub const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    Unix {
        path: String,
    },
    Tcp {
        /// `host:port`.
        address: String,
    },
    Tls {
        /// `host:port`.
        address: String,
        ca: PathBuf,
        /// Client certificate and key, when the engine wants to know who calls.
        client: Option<(PathBuf, PathBuf)>,
    },
    Ssh {
        /// What the ssh program is asked for: `host` or `user@host`.
        destination: String,
        port: Option<u16>,
        /// The engine's socket on the far side, when it is not the default.
        socket: Option<String>,
    },
}

impl Endpoint {
    /// As `DOCKER_HOST` would write it.
    pub fn url(&self) -> String {
        match self {
            Endpoint::Unix { path } => format!("unix://{path}"),
            Endpoint::Tcp { address } | Endpoint::Tls { address, .. } => format!("tcp://{address}"),
            Endpoint::Ssh { destination, port, socket } => {
                let port = port.map(|p| format!(":{p}")).unwrap_or_default();
                format!("ssh://{destination}{port}{}", socket.as_deref().unwrap_or_default())
            }
        }
    }

    /// Where an engine would be that nobody named, and where none is.
    pub fn is_nowhere(&self) -> bool {
        matches!(self, Endpoint::Unix { path } if path == DEFAULT_SOCKET && !Path::new(path).exists())
    }

    /// Host paths, sockets and container addresses mean the same on both sides.
    pub fn shares_kernel(&self) -> bool {
        cfg!(target_os = "linux") && matches!(self, Endpoint::Unix { .. })
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct CliConfig {
    #[serde(default)]
    current_context: String,
}

#[derive(Deserialize)]
struct ContextMeta {
    #[serde(rename = "Endpoints", default)]
    endpoints: BTreeMap<String, ContextEndpoint>,
}

#[derive(Deserialize)]
struct ContextEndpoint {
    #[serde(rename = "Host", default)]
    host: String,
    #[serde(rename = "SkipTLSVerify", default)]
    skip_tls_verify: bool,
}

/// The order of `reference/docker.md` §11. `read` reads a file; for a socket any error but "not found" means that it is there.
pub fn resolve(env: &BTreeMap<String, String>, read: &dyn Fn(&Path) -> io::Result<Vec<u8>>) -> Result<Endpoint, Diagnostic> {
    let set = |name: &str| env.get(name).map(String::as_str).filter(|v| !v.is_empty());
    let home = PathBuf::from(set("HOME").unwrap_or("/"));
    let docker_config = set("DOCKER_CONFIG").map_or_else(|| home.join(".docker"), PathBuf::from);
    if let Some(host) = set("DOCKER_HOST") {
        let verify = set("DOCKER_TLS_VERIFY").is_some();
        if !verify && set("DOCKER_TLS").is_some() && host.starts_with("tcp:") {
            return Err(refused("DOCKER_TLS without DOCKER_TLS_VERIFY does not check who answers.", "Set DOCKER_TLS_VERIFY=1."));
        }
        let folder = set("DOCKER_CERT_PATH").map_or(docker_config, PathBuf::from);
        let certificates = Certificates { ca: folder.join("ca.pem"), client: Some((folder.join("cert.pem"), folder.join("key.pem"))) };
        return parse(host, verify.then_some(certificates), "DOCKER_HOST");
    }
    let present = |path: &Path| !matches!(read(path), Err(error) if error.kind() == io::ErrorKind::NotFound);
    let context = match set("DOCKER_CONTEXT") {
        Some(name) => name.to_owned(),
        None => match read(&docker_config.join("config.json")) {
            Ok(text) => serde_json::from_slice::<CliConfig>(&text).unwrap_or_default().current_context,
            Err(_) => String::new(),
        },
    };
    if context.is_empty() || context == "default" {
        let runtime = set("XDG_RUNTIME_DIR").map(PathBuf::from);
        let mut candidates = vec![PathBuf::from(DEFAULT_SOCKET)];
        candidates.extend(runtime.iter().map(|dir| dir.join("docker.sock")));
        candidates.push(home.join(".docker/run/docker.sock"));
        candidates.extend(runtime.iter().map(|dir| dir.join("podman/podman.sock")));
        candidates.push(PathBuf::from("/run/podman/podman.sock"));
        let path = candidates.into_iter().find(|path| present(path)).unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET));
        return Ok(Endpoint::Unix { path: path.to_string_lossy().into_owned() });
    }
    let id = sha256_hex(&context);
    let meta = read(&docker_config.join("contexts/meta").join(&id).join("meta.json")).map_err(|error| {
        Diagnostic::error("docker.context", "The Docker context cannot be read", format!("`{context}`: {error}."))
            .help("`docker context ls` lists the contexts. Choose another with DOCKER_CONTEXT, or set DOCKER_HOST.")
    })?;
    let meta: ContextMeta = serde_json::from_slice(&meta)
        .map_err(|error| Diagnostic::error("docker.context", "The Docker context cannot be read", format!("`{context}`: {error}.")))?;
    let Some(endpoint) = meta.endpoints.get("docker").filter(|e| !e.host.is_empty()) else {
        return Ok(Endpoint::Unix { path: DEFAULT_SOCKET.to_owned() });
    };
    let tls = docker_config.join("contexts/tls").join(&id).join("docker");
    let certificates = present(&tls.join("ca.pem")).then(|| Certificates {
        ca: tls.join("ca.pem"),
        client: present(&tls.join("cert.pem")).then(|| (tls.join("cert.pem"), tls.join("key.pem"))),
    });
    if endpoint.skip_tls_verify && endpoint.host.starts_with("tcp:") {
        let detail = format!("The context `{context}` skips TLS verification, so anyone could answer in the engine's place.");
        return Err(refused(&detail, "Give the context a CA: `docker context update --docker ca=FILE,...`, or set DOCKER_HOST."));
    }
    parse(&endpoint.host, certificates, &format!("context `{context}`"))
}

struct Certificates {
    ca: PathBuf,
    client: Option<(PathBuf, PathBuf)>,
}

fn refused(detail: &str, help: &str) -> Diagnostic {
    Diagnostic::error("docker.endpoint", "The Docker endpoint cannot be used", detail).help(help)
}

fn parse(host: &str, certificates: Option<Certificates>, from: &str) -> Result<Endpoint, Diagnostic> {
    let (scheme, rest) = host.split_once("://").unwrap_or(("tcp", host));
    let bad = |why: &str| {
        refused(
            &format!("{from} is `{}`: {why}.", without_password(host)),
            "Forms: unix:///path, tcp://host:port, ssh://user@host. DOCKER_HOST overrides contexts.",
        )
    };
    if rest.is_empty() {
        return Err(bad("no address"));
    }
    if scheme != "ssh" && scheme != "unix" && rest.contains('@') {
        return Err(bad("users and passwords do not belong into it"));
    }
    let address = |default_port: u16| {
        let rest = rest.trim_end_matches('/');
        let has_port = rest.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        if has_port { rest.to_owned() } else { format!("{rest}:{default_port}") }
    };
    match (scheme, certificates) {
        ("unix", _) if rest.starts_with('/') => Ok(Endpoint::Unix { path: rest.to_owned() }),
        ("unix", _) => Err(bad("the path is not absolute")),
        ("tcp" | "http" | "https", Some(certificates)) => {
            Ok(Endpoint::Tls { address: address(2376), ca: certificates.ca, client: certificates.client })
        }
        ("tcp" | "http", None) => Ok(Endpoint::Tcp { address: address(2375) }),
        ("https", None) => Err(bad("https needs certificates: DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH")),
        ("ssh", _) => {
            let (authority, socket) = match rest.split_once('/') {
                Some((authority, path)) if !path.is_empty() => (authority, Some(format!("/{path}"))),
                Some((authority, _)) => (authority, None),
                None => (rest, None),
            };
            let (destination, port) = match authority.rsplit_once(':') {
                Some((destination, port)) if !destination.ends_with(']') || authority.contains("]:") => {
                    (destination, Some(port.parse().map_err(|_| bad("the port is not a number"))?))
                }
                _ => (authority, None),
            };
            if destination.contains(':') && !destination.contains('[') {
                return Err(bad("passwords do not belong into an address"));
            }
            // ssh would read a leading dash as an option.
            if destination.is_empty() || destination.starts_with('-') {
                return Err(bad("no host"));
            }
            Ok(Endpoint::Ssh { destination: destination.to_owned(), port, socket })
        }
        _ => Err(bad("the scheme is not known")),
    }
}

fn without_password(host: &str) -> String {
    let (scheme, rest) = host.split_once("://").map_or(("", host), |(_, rest)| host.split_at(host.len() - rest.len()));
    match rest.rsplit_once('@') {
        Some((user, after)) if user.contains(':') => format!("{scheme}***@{after}"),
        _ => host.to_owned(),
    }
}

/// What an engine says of itself when pinged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    pub api: (u32, u32),
    /// BuildKit is the engine's own default builder.
    pub buildkit: bool,
    /// Podman's Docker-compatible socket.
    pub podman: bool,
    /// Name and version, such as `Docker/29.1.0 (linux)`.
    pub server: String,
}

/// An engine that answered.
pub struct Connection {
    pub docker: Docker,
    pub endpoint: Endpoint,
    pub greeting: Greeting,
    /// For endpoints that bollard cannot reach itself: a private socket that is carried there. Gone with the connection.
    _relay: Option<Relay>,
}

impl Connection {
    pub fn api_version(&self) -> String {
        format!("{}.{}", self.greeting.api.0, self.greeting.api.1)
    }

    /// Host paths, sockets and container addresses mean the same on both sides.
    pub fn shares_kernel(&self) -> bool {
        self.endpoint.shares_kernel()
    }
}

/// The environment's endpoint, connected.
pub async fn connect_by_env(env: &BTreeMap<String, String>) -> Result<Connection, Diagnostic> {
    connect(resolve(env, &|path| std::fs::read(path))?).await
}

pub async fn connect(endpoint: Endpoint) -> Result<Connection, Diagnostic> {
    let dial = Dial::new(&endpoint).await?;
    let answer = tokio::time::timeout(PATIENCE, async {
        let mut stream = dial.open().await?;
        ping(&mut stream, "docker").await
    })
    .await
    .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let greeting = answer.map_err(|error| unreachable(&endpoint, &error))?;
    if greeting.api < OLDEST_API {
        return Err(Diagnostic::error(
            "docker.too_old",
            "The Docker engine is too old",
            format!(
                "{} speaks API {}.{}, jackin needs {}.{} (engine 20.10) or newer.",
                endpoint.url(),
                greeting.api.0,
                greeting.api.1,
                OLDEST_API.0,
                OLDEST_API.1
            ),
        )
        .help("Upgrade the engine, or point DOCKER_HOST or the Docker context at a newer one."));
    }
    let theirs = ClientVersion { major_version: greeting.api.0 as usize, minor_version: greeting.api.1 as usize };
    let version = if theirs < *API_DEFAULT_VERSION { theirs } else { *API_DEFAULT_VERSION };
    // Removing a sidecar full of images takes its time.
    let timeout = 600;
    let failed = |error: bollard::errors::Error| unreachable(&endpoint, &io::Error::other(error));
    let (docker, relay) = match &endpoint {
        Endpoint::Unix { path } => (Docker::connect_with_unix(path, timeout, &version).map_err(failed)?, None),
        Endpoint::Tcp { address } => (Docker::connect_with_http(address, timeout, &version).map_err(failed)?, None),
        Endpoint::Tls { .. } | Endpoint::Ssh { .. } => {
            let relay = Relay::start(dial).map_err(|error| unreachable(&endpoint, &error))?;
            let path = relay.folder.path().join("docker.sock");
            (Docker::connect_with_unix(&path.to_string_lossy(), timeout, &version).map_err(failed)?, Some(relay))
        }
    };
    Ok(Connection { docker, endpoint, greeting, _relay: relay })
}

/// `GET /_ping` by hand: a tenth of what `/version` costs, and it tells the builder as well.
pub async fn ping<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, host: &str) -> io::Result<Greeting> {
    stream.write_all(format!("GET /_ping HTTP/1.1\r\nHost: {host}\r\nUser-Agent: jackin\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    stream.flush().await?;
    let mut answer = Vec::with_capacity(512);
    let mut chunk = [0u8; 1024];
    while !answer.windows(4).any(|w| w == b"\r\n\r\n") {
        let n = stream.read(&mut chunk).await?;
        if n == 0 || answer.len() > 16 * 1024 {
            break;
        }
        answer.extend_from_slice(&chunk[..n]);
    }
    let text = String::from_utf8_lossy(&answer);
    let mut lines = text.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        let what = if status.is_empty() { "it hung up".to_owned() } else { format!("it answered `{}`", &status[..status.len().min(80)]) };
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    let headers: BTreeMap<String, &str> =
        lines.take_while(|l| !l.is_empty()).filter_map(|l| l.split_once(':')).map(|(k, v)| (k.to_ascii_lowercase(), v.trim())).collect();
    let api = headers.get("api-version").and_then(|v| v.split_once('.')).and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    Ok(Greeting {
        api: api.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is no Docker engine: no Api-Version in its answer"))?,
        buildkit: headers.get("builder-version") == Some(&"2"),
        server: headers.get("server").copied().unwrap_or_default().to_owned(),
        podman: headers.contains_key("libpod-api-version") || headers.get("server").is_some_and(|s| s.starts_with("Libpod")),
    })
}

pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// How to open one more stream to the engine.
#[derive(Clone)]
enum Dial {
    Unix(String),
    Tcp(String),
    Tls {
        address: String,
        name: ServerName<'static>,
        config: Arc<rustls::ClientConfig>,
    },
    /// Arguments of the ssh program, and the folder of its shared connection. `quiet`: something else has the terminal.
    Ssh {
        arguments: Vec<String>,
        quiet: bool,
        _control: Arc<tempfile::TempDir>,
    },
}

impl Dial {
    async fn new(endpoint: &Endpoint) -> Result<Self, Diagnostic> {
        Ok(match endpoint {
            Endpoint::Unix { path } => Dial::Unix(path.clone()),
            Endpoint::Tcp { address } => Dial::Tcp(address.clone()),
            Endpoint::Tls { address, ca, client } => {
                let (ca, client) = (ca.clone(), client.clone());
                let config = tokio::task::spawn_blocking(move || -> Result<rustls::ClientConfig, (PathBuf, String)> {
                    let read = |path: &Path| std::fs::read(path).map_err(|e| (path.to_owned(), e.to_string()));
                    let authority = read(&ca)?;
                    let own = match &client {
                        Some((certificate, key)) => Some((read(certificate)?, read(key)?)),
                        None => None,
                    };
                    tls_config(&authority, own.as_ref().map(|(c, k)| (c.as_slice(), k.as_slice()))).map_err(|e| (ca.clone(), e))
                })
                .await
                .expect("BUG: reading certificates does not panic")
                .map_err(|(path, why)| {
                    Diagnostic::error(
                        "docker.tls_files",
                        "The TLS files of the Docker endpoint cannot be used",
                        format!("{}: {why}.", path.display()),
                    )
                    .help("Check DOCKER_CERT_PATH, or the context's TLS files.")
                })?;
                let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host).trim_matches(['[', ']']);
                let name = ServerName::try_from(host.to_owned())
                    .map_err(|_| refused(&format!("`{host}` is not a host name."), "Check DOCKER_HOST."))?;
                Dial::Tls { address: address.clone(), name, config: Arc::new(config) }
            }
            Endpoint::Ssh { destination, port, socket } => {
                let aside = aside::current();
                let control = match &aside {
                    // A look every few seconds must not leave a connection behind each time.
                    Some(aside) => aside.folder(private_folder),
                    None => private_folder().map(Arc::new),
                };
                let control = control.map_err(|error| unreachable(endpoint, &error))?;
                // One ssh connection for all streams; the first one opens it, the folder's name keeps it ours.
                let mut arguments: Vec<String> =
                    ["-T", "-o", "ControlMaster=auto", "-o", "ControlPersist=60", "-o"].map(str::to_owned).to_vec();
                arguments.push(format!("ControlPath={}/c", control.path().display()));
                arguments.extend(["-o".to_owned(), "ConnectTimeout=10".to_owned()]);
                if aside.is_some() {
                    // It asks nothing, and a line that went dead is given up.
                    arguments.extend(["-oBatchMode=yes", "-oServerAliveInterval=5"].map(str::to_owned));
                }
                if let Some(port) = port {
                    arguments.extend(["-p".to_owned(), port.to_string()]);
                }
                arguments.extend(["--".to_owned(), destination.clone(), "docker".to_owned()]);
                if let Some(socket) = socket {
                    // The far shell reads this line.
                    arguments.extend(["--host".to_owned(), format!("'unix://{}'", socket.replace('\'', r"'\''"))]);
                }
                arguments.extend(["system".to_owned(), "dial-stdio".to_owned()]);
                Dial::Ssh { arguments, quiet: aside.is_some(), _control: control }
            }
        })
    }

    async fn open(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Dial::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Dial::Tcp(address) => Ok(Box::new(prompt(address).await?)),
            Dial::Tls { address, name, config } => {
                let stream = prompt(address).await?;
                Ok(Box::new(tokio_rustls::TlsConnector::from(config.clone()).connect(name.clone(), stream).await?))
            }
            Dial::Ssh { arguments, quiet, .. } => {
                let mut child = tokio::process::Command::new("ssh")
                    .args(arguments)
                    .stdin(std::process::Stdio::piped())
                    .stdout(std::process::Stdio::piped())
                    .stderr(if *quiet { std::process::Stdio::null() } else { std::process::Stdio::inherit() })
                    .kill_on_drop(true)
                    .spawn()?;
                let (input, output) = (child.stdin.take().expect("BUG: piped"), child.stdout.take().expect("BUG: piped"));
                // Lives as long as its stream: the far side ends when its input ends.
                tokio::spawn(async move { child.wait().await });
                Ok(Box::new(tokio::io::join(output, input)))
            }
        }
    }
}

/// A connection that sends at once: waiting for more to send costs a small request 40 ms.
pub async fn prompt(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// TLS with one trusted authority and, if given, a client certificate. PEM in.
pub fn tls_config(authority: &[u8], client: Option<(&[u8], &[u8])>) -> Result<rustls::ClientConfig, String> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority) {
        roots.add(certificate.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    }
    if roots.is_empty() {
        return Err("no certificate in it".to_owned());
    }
    tls_config_of(roots, client)
}

/// Trusts nobody: for a question that ends with the other side's certificate.
pub fn stranger_config() -> Result<rustls::ClientConfig, String> {
    tls_config_of(rustls::RootCertStore::empty(), None)
}

fn tls_config_of(roots: rustls::RootCertStore, client: Option<(&[u8], &[u8])>) -> Result<rustls::ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots);
    match client {
        None => Ok(builder.with_no_client_auth()),
        Some((certificates, key)) => {
            let certificates = CertificateDer::pem_slice_iter(certificates).collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| e.to_string())?;
            builder.with_client_auth_cert(certificates, key).map_err(|e| e.to_string())
        }
    }
}

fn private_folder() -> io::Result<tempfile::TempDir> {
    use std::os::unix::fs::PermissionsExt;
    tempfile::Builder::new().prefix("jackin-").permissions(std::fs::Permissions::from_mode(0o700)).tempdir()
}

/// Carries every connection to a private socket on to the engine.
struct Relay {
    folder: tempfile::TempDir,
    accepting: tokio::task::JoinHandle<()>,
}

impl Relay {
    fn start(dial: Dial) -> io::Result<Self> {
        let folder = private_folder()?;
        let listener = UnixListener::bind(folder.path().join("docker.sock"))?;
        let accepting = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let dial = dial.clone();
                tokio::spawn(async move {
                    // A failed dial closes the near side; the caller sees a broken connection and reports it.
                    if let Ok(mut far) = dial.open().await {
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        });
        Ok(Self { folder, accepting })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn unreachable(endpoint: &Endpoint, error: &io::Error) -> Diagnostic {
    let url = endpoint.url();
    let tls = matches!(endpoint, Endpoint::Tls { .. });
    match error.kind() {
        io::ErrorKind::PermissionDenied => Diagnostic::error(
            "docker.permission",
            "The Docker socket may not be used",
            format!("{url}: permission denied."),
        )
        .help(
            "Join the socket's group (`sudo usermod -aG docker $USER`, then log in again), or use a rootless engine through DOCKER_HOST.",
        ),
        io::ErrorKind::InvalidData if tls => {
            Diagnostic::error("docker.tls", "The Docker engine and jackin do not trust each other", format!("{url}: {error}."))
                .help("Check that DOCKER_CERT_PATH (or the context) holds the CA of this engine and a client certificate it knows.")
        }
        io::ErrorKind::NotFound if matches!(endpoint, Endpoint::Ssh { .. }) => {
            Diagnostic::error("docker.unreachable", "No Docker engine answers", format!("{url}: there is no `ssh` program."))
                .help("Install an ssh client, or set DOCKER_HOST to another endpoint.")
        }
        _ => Diagnostic::error("docker.unreachable", "No Docker engine answers", format!("{url}: {error}.")).help(match endpoint {
            Endpoint::Unix { .. } => {
                "Start Docker (`sudo systemctl start docker`, or Docker Desktop), or point DOCKER_HOST at an engine. In a checkout of \
                 jackin, `./dev setup` starts one."
            }
            Endpoint::Tcp { .. } | Endpoint::Tls { .. } => "Check that the engine runs there and that DOCKER_HOST or the context is right.",
            Endpoint::Ssh { .. } => "Check that `ssh` reaches that host without a password, and that `docker` works there.",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(env: &[(&str, &str)], files: &[(&str, &str)]) -> Result<Endpoint, String> {
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let id = sha256_hex("far");
        let files: BTreeMap<PathBuf, &str> = files.iter().map(|(path, text)| (PathBuf::from(path.replace("{far}", &id)), *text)).collect();
        let read = |path: &Path| files.get(path).map(|t| t.as_bytes().to_vec()).ok_or_else(|| io::ErrorKind::NotFound.into());
        resolve(&env, &read).map_err(|d| format!("{} {}", d.code, d.detail))
    }

    fn unix(path: &str) -> Result<Endpoint, String> {
        Ok(Endpoint::Unix { path: path.to_owned() })
    }

    fn tcp(address: &str) -> Result<Endpoint, String> {
        Ok(Endpoint::Tcp { address: address.to_owned() })
    }

    fn ssh(destination: &str, port: Option<u16>, socket: Option<&str>) -> Result<Endpoint, String> {
        Ok(Endpoint::Ssh { destination: destination.to_owned(), port, socket: socket.map(str::to_owned) })
    }

    #[test]
    fn docker_host_goes_first() {
        let config = [("/h/.docker/config.json", r#"{"currentContext":"far"}"#)];
        assert_eq!(check(&[("HOME", "/h"), ("DOCKER_HOST", "unix:///a.sock"), ("DOCKER_CONTEXT", "far")], &config), unix("/a.sock"));
        assert_eq!(check(&[("DOCKER_HOST", "tcp://e:2375")], &[]), tcp("e:2375"));
        assert_eq!(check(&[("DOCKER_HOST", "tcp://e")], &[]), tcp("e:2375"));
        assert_eq!(check(&[("DOCKER_HOST", "http://e:1/")], &[]), tcp("e:1"));
        assert_eq!(check(&[("DOCKER_HOST", "e:1")], &[]), tcp("e:1"));
        assert_eq!(check(&[("DOCKER_HOST", "tcp://[::1]:5")], &[]), tcp("[::1]:5"));
        assert_eq!(check(&[("DOCKER_HOST", "ssh://me@e")], &[]), ssh("me@e", None, None));
        assert_eq!(check(&[("DOCKER_HOST", "ssh://e:22/run/d.sock")], &[]), ssh("e", Some(22), Some("/run/d.sock")));
        for (host, why) in [
            ("ssh://-oProxyCommand=x", "no host"),
            ("ssh://me:pw@e", "port is not a number"),
            ("npipe:////./pipe/d", "scheme"),
            ("unix://a", "not absolute"),
            ("https://e", "https needs certificates"),
            ("tcp://", "no address"),
            ("tcp://me:pw@e:2375", "users and passwords"),
            ("me:pw@e:2375", "users and passwords"),
            ("https://me:a@pw@e", "users and passwords"),
        ] {
            let said = check(&[("DOCKER_HOST", host)], &[]).unwrap_err();
            assert!(said.contains(why), "{host}: {said}");
            assert!(!said.contains("pw@"), "{said}");
        }
    }

    #[test]
    fn tls_variables() {
        let tls = |folder: &str| {
            let at = |name: &str| PathBuf::from(folder).join(name);
            Ok(Endpoint::Tls { address: "e:2376".to_owned(), ca: at("ca.pem"), client: Some((at("cert.pem"), at("key.pem"))) })
        };
        let base = [("HOME", "/h"), ("DOCKER_HOST", "tcp://e"), ("DOCKER_TLS_VERIFY", "1")];
        assert_eq!(check(&base, &[]), tls("/h/.docker"));
        assert_eq!(check(&[&base[..], &[("DOCKER_CERT_PATH", "/c")]].concat(), &[]), tls("/c"));
        assert_eq!(check(&[("DOCKER_HOST", "tcp://e"), ("DOCKER_CERT_PATH", "/c"), ("DOCKER_TLS_VERIFY", "")], &[]), tcp("e:2375"));
        assert!(check(&[("DOCKER_HOST", "tcp://e"), ("DOCKER_TLS", "1")], &[]).is_err());
    }

    #[test]
    fn contexts() {
        let meta =
            |host: &str, skip: bool| format!(r#"{{"Name":"far","Endpoints":{{"docker":{{"Host":"{host}","SkipTLSVerify":{skip}}}}}}}"#);
        let at = "/h/.docker/contexts/meta/{far}/meta.json";
        let home = ("HOME", "/h");
        assert_eq!(check(&[home, ("DOCKER_CONTEXT", "far")], &[(at, &meta("unix:///f.sock", false))]), unix("/f.sock"));
        let config = ("/h/.docker/config.json", r#"{"auths":{},"currentContext":"far"}"#);
        assert_eq!(check(&[home], &[config, (at, &meta("ssh://e", false))]), ssh("e", None, None));
        assert_eq!(check(&[home, ("DOCKER_CONTEXT", "default")], &[config]), unix(DEFAULT_SOCKET));
        assert_eq!(check(&[home], &[config, (at, &meta("", false))]), unix(DEFAULT_SOCKET));
        assert!(check(&[home], &[config]).unwrap_err().starts_with("docker.context"));
        assert!(check(&[home], &[config, (at, &meta("tcp://e:2376", true))]).unwrap_err().contains("skips TLS"));
        let tls = "/h/.docker/contexts/tls/{far}/docker";
        let (ca, cert) = (format!("{tls}/ca.pem"), format!("{tls}/cert.pem"));
        let found = check(&[home], &[config, (at, &meta("tcp://e:2376", false)), (&ca, ""), (&cert, "")]).unwrap();
        assert!(matches!(found, Endpoint::Tls { client: Some(_), .. }), "{found:?}");
    }

    #[test]
    fn default_sockets() {
        let env = [("HOME", "/h"), ("XDG_RUNTIME_DIR", "/r")];
        assert_eq!(check(&env, &[]), unix(DEFAULT_SOCKET));
        assert_eq!(check(&env, &[("/r/podman/podman.sock", "")]), unix("/r/podman/podman.sock"));
        assert_eq!(check(&env, &[("/r/docker.sock", ""), ("/r/podman/podman.sock", "")]), unix("/r/docker.sock"));
        assert_eq!(check(&env, &[(DEFAULT_SOCKET, ""), ("/r/docker.sock", "")]), unix(DEFAULT_SOCKET));
    }
}
