//! This terminal <-> the capsule's socket.
//!
//! Straight to the bind-mounted socket when host and engine share a kernel and its path fits; else the capsule's own relay, run
//! inside the container through the engine. Absent: what the sessions do.

use crate::diagnostic::Diagnostic;
use crate::provider::endpoint::Connection;
use bollard::Docker;
use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecResults};
use futures_util::StreamExt;
use jackin_capsule::client::{self, Outcome};
use jackin_capsule::wire::Spawn;
use std::io;
use std::path::{Path, PathBuf};
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
        tokio::net::UnixStream::connect(socket).await.ok()?;
        Some(Way::Socket(socket.to_owned()))
    }

    pub async fn open(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Way::Socket(path) => Ok(Box::new(tokio::net::UnixStream::connect(path).await?)),
            Way::Exec { engine, container } => exec(&engine.0, container).await,
        }
    }

    /// One control question.
    pub async fn ask(&self, request: &jackin_capsule::control::Request) -> io::Result<jackin_capsule::control::Reply> {
        client::ask(self.open().await?, request, &jackin_capsule::wire::Ctx::default()).await
    }

    /// Shows the capsule until the person detaches or it ends.
    pub async fn attach(&self, spawn: Spawn) -> Result<Outcome, Diagnostic> {
        let connect = || self.open();
        client::attach(connect, client::hello(spawn, None, Vec::new())).await.map_err(|error| {
            Diagnostic::error("attach.failed", "The terminal cannot be attached", error.to_string())
                .help("The instance goes on running; `jackin hardline` attaches from a terminal.")
        })
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
