//! This terminal <-> the capsule's socket.
//!
//! Straight to the bind-mounted socket when host and engine share a kernel and its path fits; else the capsule's own relay, run
//! inside the container through the engine. Absent: what the sessions do.

pub mod desk;
mod export;
mod programs;

pub use programs::Programs;

use crate::diagnostic::Diagnostic;
use crate::provider::endpoint::{self, Connection};
use bollard::Docker;
use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecResults};
use desk::Desk;
use futures_util::StreamExt;
use jackin_capsule::client::{self, Face, Outcome};
use jackin_capsule::wire::{AttachMode, NO_COLOR, Spawn};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest path that fits a unix socket address on Linux and macOS.
pub const SOCKET_PATH_LIMIT: usize = 103;

/// Something to speak the wire over.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// Into the containers of one engine, by its API.
#[derive(Clone)]
pub struct Through(Docker);

impl Through {
    pub fn of(connection: &Connection) -> Through {
        Through(connection.docker.clone())
    }

    pub fn to(&self, container: &str) -> Way {
        Way::Exec { engine: self.clone(), container: container.to_owned() }
    }
}

/// How a capsule is reached.
#[derive(Clone)]
pub enum Way {
    Socket(PathBuf),
    Exec { engine: Through, container: String },
}

impl Way {
    /// The socket, when it can be connected to.
    pub async fn direct(socket: &Path) -> Option<Way> {
        if socket.as_os_str().len() > SOCKET_PATH_LIMIT {
            return None;
        }
        connect(socket).await.ok()?;
        Some(Way::Socket(socket.to_owned()))
    }

    pub async fn open(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Way::Socket(path) => Ok(Box::new(connect(path).await?)),
            Way::Exec { engine, container } => exec(&engine.0, container).await,
        }
    }

    /// One control question.
    pub async fn ask(&self, request: &jackin_capsule::control::Request) -> io::Result<jackin_capsule::control::Reply> {
        client::ask(self.open().await?, request, &jackin_capsule::wire::Ctx::default()).await
    }

    /// Shows the capsule until the person detaches or it ends.
    pub async fn attach(&self, visit: Visit) -> Result<Outcome, Diagnostic> {
        let failed = |error: io::Error| {
            Diagnostic::error("attach.failed", "The terminal cannot be attached", error.to_string())
                .help("The instance goes on running; `jackin hardline` attaches from a terminal.")
        };
        let env = if visit.colour { Vec::new() } else { vec![(NO_COLOR.to_owned(), "1".to_owned())] };
        let mut hello = client::hello(visit.spawn, visit.focus, env);
        hello.ctx.mode = visit.mode;
        let desk = visit.desk.open().map_err(failed)?;
        let face = Face { hello, title: Some(visit.title), desk: Some(desk) };
        let connect = || async {
            let opened = self.open().await;
            match opened {
                // A mux that starts anew is back at once; a container that is gone is not.
                Err(_) if !runs(&visit.engine_env, &visit.container).await => {
                    Err(io::Error::new(io::ErrorKind::HostUnreachable, "the container does not run any more"))
                }
                opened => {
                    visit.listens.set(visit.listens.get() || opened.is_ok());
                    opened
                }
            }
        };
        client::attach(connect, face).await.map_err(failed)
    }
}

/// The container may put anything there: a link would lead to some service of this host.
async fn connect(socket: &Path) -> io::Result<client::Stream> {
    if std::fs::symlink_metadata(socket)?.is_symlink() {
        return Err(io::Error::other(format!("{} is a link, not the capsule's socket", socket.display())));
    }
    client::Stream::connect(socket).await
}

/// One attachment, as a person asked for it.
pub struct Visit {
    pub spawn: Spawn,
    pub focus: Option<u64>,
    pub mode: AttachMode,
    pub title: String,
    pub colour: bool,
    pub container: String,
    /// Where the engine is, for asking whether the container still runs.
    pub engine_env: BTreeMap<String, String>,
    pub desk: Desk,
    /// Set from the first connection on, when signals are listened to.
    pub listens: Rc<Cell<bool>>,
}

/// In doubt it does.
async fn runs(engine_env: &BTreeMap<String, String>, container: &str) -> bool {
    let Ok(connection) = endpoint::connect_by_env(engine_env).await else {
        return true;
    };
    match connection.docker.inspect_container(container, None).await {
        Ok(found) => found.state.and_then(|state| state.running).unwrap_or(true),
        Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => false,
        Err(_) => true,
    }
}

/// Runs the relay in the container and joins its streams into one.
async fn exec(docker: &Docker, container: &str) -> io::Result<Box<dyn Stream>> {
    let options = CreateExecOptions::<String> {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(vec!["/jackin/runtime/jackin-capsule".to_owned(), "attach-proxy".to_owned()]),
        ..Default::default()
    };
    let exec = docker.create_exec(container, options).await.map_err(io::Error::other)?;
    let StartExecResults::Attached { mut output, mut input } = docker.start_exec(&exec.id, None).await.map_err(io::Error::other)? else {
        return Err(io::Error::other("the engine started the relay without its streams"));
    };
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let (mut from_us, mut to_us) = tokio::io::split(theirs);
    tokio::spawn(async move {
        let mut buffer = vec![0; 32 << 10];
        while let Ok(count @ 1..) = from_us.read(&mut buffer).await {
            if input.write_all(&buffer[..count]).await.is_err() || input.flush().await.is_err() {
                break;
            }
        }
        let _ = input.shutdown().await;
    });
    tokio::spawn(async move {
        while let Some(Ok(chunk)) = output.next().await {
            if let LogOutput::StdOut { message } | LogOutput::Console { message } = chunk
                && to_us.write_all(&message).await.is_err()
            {
                break;
            }
        }
        let _ = to_us.shutdown().await;
    });
    Ok(Box::new(ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_link_is_not_followed_to_a_service_of_this_host() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, link) = (dir.path().join("jackin.sock"), dir.path().join("link.sock"));
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        std::os::unix::fs::symlink(&socket, &link).unwrap();
        assert!(Way::direct(&socket).await.is_some());
        assert!(Way::direct(&link).await.is_none());
        assert!(Way::Socket(link).open().await.is_err());
    }
}
