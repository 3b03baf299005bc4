//! Which containers this jackin home has on an engine: one list, for choosing an instance before anything is planned.

use super::failed;
use crate::diagnostic::Diagnostic;
use crate::provider::endpoint::Connection;
use crate::resource::label;
use bollard::models::ContainerSummaryStateEnum::{PAUSED, RESTARTING, RUNNING};
use bollard::query_parameters::ListContainersOptionsBuilder;
use std::collections::{BTreeMap, HashMap};

/// By name, each with whether it runs; one that is paused does.
pub async fn containers(connection: &Connection, installation: &str) -> Result<BTreeMap<String, bool>, Diagnostic> {
    let ours = HashMap::from([("label".to_owned(), vec![format!("{}={installation}", label::INSTALLATION)])]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&ours).build();
    let listed = connection.docker.list_containers(Some(options)).await;
    let listed = listed.map_err(|error| failed("Looking at the engine", &error).diagnostic)?;
    let named = |name: &String| name.trim_start_matches('/').to_owned();
    let all = listed.into_iter().filter_map(|container| {
        let name = container.names.as_ref().and_then(|names| names.first()).map(named)?;
        Some((name, matches!(container.state, Some(RUNNING | PAUSED | RESTARTING))))
    });
    Ok(all.collect())
}
