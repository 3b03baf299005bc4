//! What machine an engine runs on: `GET /version`, which takes it milliseconds, so nobody asks it often.

use super::failed;
use crate::diagnostic::Diagnostic;
use crate::provider::endpoint::{Connection, PATIENCE};

/// In the engine's own word; `None` when it says nothing of it.
pub async fn arch(connection: &Connection) -> Result<Option<String>, Diagnostic> {
    let docker = connection.docker.clone().with_timeout(PATIENCE);
    let version = docker.version().await.map_err(|error| failed("Asking the engine for its version", &error).diagnostic)?;
    Ok(version.arch.filter(|arch| !arch.is_empty()))
}
