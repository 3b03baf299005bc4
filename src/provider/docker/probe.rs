//! Whether this engine can run a privileged container, found out by running one that does nothing.

use crate::diagnostic::Diagnostic;
use crate::provider::endpoint::Connection;
use crate::resource::label;
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{CreateContainerOptions, RemoveContainerOptions, StartContainerOptions};
use std::collections::HashMap;

/// `None`-like `false`: the image is not there, so nothing was tried. The container is removed whatever happens.
pub async fn probe_privileged(connection: &Connection, image: &str, installation: &str) -> Result<bool, Diagnostic> {
    let docker = &connection.docker;
    if let Err(Error::DockerResponseServerError { status_code: 404, .. }) = docker.inspect_image(image).await {
        return Ok(false);
    }
    let refused = |error: Error| Diagnostic::error("docker.privileged_refused", "Privileged containers cannot be run", error.to_string());
    let labels = HashMap::from([
        (label::MANAGED.to_owned(), "true".to_owned()),
        (label::KIND.to_owned(), "probe".to_owned()),
        (label::INSTALLATION.to_owned(), installation.to_owned()),
    ]);
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        entrypoint: Some(vec!["true".to_owned()]),
        cmd: Some(Vec::new()),
        labels: Some(labels),
        host_config: Some(HostConfig { privileged: Some(true), network_mode: Some("none".to_owned()), ..HostConfig::default() }),
        ..ContainerCreateBody::default()
    };
    let made = docker.create_container(None::<CreateContainerOptions>, body).await.map_err(refused)?;
    let started = docker.start_container(&made.id, None::<StartContainerOptions>).await;
    let options = RemoveContainerOptions { force: true, v: true, ..RemoveContainerOptions::default() };
    let removed = docker.remove_container(&made.id, Some(options)).await;
    started.map_err(refused)?;
    removed.map_err(refused)?;
    Ok(true)
}
