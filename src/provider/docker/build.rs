//! Images: pulled from a registry, or built from a context that is put together here.
//!
//! In: a build context as data, the tar of a role repo. Out: a tagged, labelled image; every line of the builder on the way.
//! BuildKit where it is the engine's own default, the classic builder otherwise or where BuildKit cannot even begin.

use super::{Doing, Engine, doing, message, status};
use crate::diagnostic::Diagnostic;
use crate::graph::{BuildContext, ContextFile};
use crate::provider::StepError;
use crate::provider::live::Sources;
use crate::resource::{Address, Image, Spec, label, labels};
use bollard::errors::Error;
use bollard::models::BuildInfoAux;
use bollard::query_parameters::{BuildImageOptions, BuildImageOptionsBuilder, BuilderVersion, CreateImageOptionsBuilder};
use futures_util::StreamExt;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// The engine answers a build only once it begins; sending a large context over a slow line comes before that.
const BUILD_PATIENCE: Duration = Duration::from_secs(3600);
const KEPT_LINES: usize = 40;
/// Made by `./dev setup` from Debian packages; no registry has them.
const LOCAL: &str = "jackin-local/";

impl Engine {
    pub async fn pull(&self, image: &Image, report: &dyn Fn(String)) -> Result<(), StepError> {
        let what = format!("Pulling {}", image.reference);
        let (name, tag) = split_tag(&image.reference);
        let options = CreateImageOptionsBuilder::default().from_image(name).tag(tag).platform(&image.platform).build();
        let mut stream = self.connection.docker.create_image(Some(options), None, None);
        let mut told: HashMap<String, String> = HashMap::new();
        while let Some(part) = stream.next().await {
            let info = part.map_err(|error| unpulled(image, doing(&what), error))?;
            let status = info.status.unwrap_or_default();
            let layer = info.id.unwrap_or_default();
            // Bars tell the same status many times a second.
            if !status.is_empty() && told.insert(layer.clone(), status.clone()).as_deref() != Some(&status) {
                report(if layer.is_empty() { status } else { format!("{layer}: {status}") });
            }
        }
        Ok(())
    }

    /// Does the image of that name bear this very spec?
    pub async fn image_is(&self, spec: &Spec) -> bool {
        let Ok(found) = self.connection.docker.inspect_image(spec.object_name()).await else {
            return false;
        };
        let labels = found.config.and_then(|c| c.labels).unwrap_or_default();
        labels.get(label::FINGERPRINT) == Some(&spec.fingerprint())
    }

    pub async fn build(
        &self,
        address: &Address,
        spec: &Spec,
        context: &BuildContext,
        sources: &dyn Sources,
        report: &dyn Fn(String),
    ) -> Result<(), StepError> {
        let tag = spec.object_name();
        let what = format!("Building {tag}");
        let repo = match &context.repo {
            Some(repo) => Some(sources.archive(&repo.cache, &repo.commit).await?),
            None => None,
        };
        let parcel = Arc::new(Parcel::new(context, repo));
        let labels: HashMap<String, String> = labels(address, spec, &self.facts.installation).into_iter().collect();
        let build_args: HashMap<String, String> = context.build_args.clone().into_iter().collect();
        let options = BuildImageOptionsBuilder::default()
            .dockerfile(&context.dockerfile_path)
            .t(tag)
            .rm(true)
            .forcerm(true)
            .buildargs(&build_args)
            .labels(&labels)
            .nocache(context.from_scratch)
            .build();
        let mut lines = Lines { report, last: VecDeque::new(), open: BTreeMap::new() };
        if self.connection.greeting.buildkit {
            match self.run(Self::buildkit(options.clone()), parcel.clone(), &mut lines).await {
                // Nothing was said and nothing was built: the engine has no sessions after all.
                Err(Failure { error, context: None, begun: false }) if !matches!(error, Error::DockerStreamError { .. }) => {
                    report(format!("BuildKit cannot begin ({}), using the classic builder", message(&error)));
                }
                ended => return ended.map_err(|failure| failure.told(doing(&what), &lines)),
            }
        }
        let classic = BuildImageOptions { version: BuilderVersion::BuilderV1, ..options };
        self.run(classic, parcel, &mut lines).await.map_err(|failure| failure.told(doing(&what), &lines))
    }

    fn buildkit(options: BuildImageOptions) -> BuildImageOptions {
        // One session per build; whoever knows its name could join it, so it is not to be guessed.
        let mut random = [0u8; 16];
        getrandom::fill(&mut random).expect("the system gives random bytes");
        let session = crate::resource::hex(&random);
        BuildImageOptions { version: BuilderVersion::BuilderBuildKit, session: Some(session), ..options }
    }

    async fn run(&self, options: BuildImageOptions, parcel: Arc<Parcel>, lines: &mut Lines<'_>) -> Result<(), Failure> {
        let docker = self.connection.docker.clone().with_timeout(BUILD_PATIENCE);
        let (chunks, packing) = parcel.send();
        let chunks = futures_util::stream::unfold(chunks, |mut chunks| async move {
            let chunk = chunks.recv().await?;
            Some((chunk.map(Into::into), chunks))
        });
        let body = bollard::body_try_stream(chunks);
        let mut begun = false;
        let mut vertexes: BTreeMap<String, u8> = BTreeMap::new();
        let mut outcome = Ok(());
        let mut stream = std::pin::pin!(docker.build_image(options, None, Some(body)));
        while let Some(part) = stream.next().await {
            match part {
                Ok(info) => {
                    begun = true;
                    if let Some(text) = info.stream.or(info.status.map(|status| status + "\n")) {
                        lines.piece("", text.as_bytes());
                    }
                    if let Some(BuildInfoAux::BuildKit(state)) = info.aux {
                        for vertex in state.vertexes {
                            // Each is told of several times: when it waits, when it starts, when it is done.
                            let stage = if vertex.completed.is_some() { 2 } else { u8::from(vertex.started.is_some()) };
                            let told = vertexes.entry(vertex.digest).or_default();
                            if stage > 0 && *told == 0 {
                                let cached = if vertex.cached { "CACHED " } else { "" };
                                lines.push(&format!("{cached}{}", vertex.name));
                            }
                            *told = (*told).max(stage);
                        }
                        for log in state.logs {
                            lines.piece(&log.vertex, &log.msg);
                        }
                    }
                }
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        lines.close();
        let packed = packing.await;
        match outcome {
            Ok(()) => Ok(()),
            // A context that broke off makes the engine complain about the wrong thing.
            Err(error) => Err(Failure { error, context: packed.ok().flatten(), begun }),
        }
    }
}

struct Failure {
    error: Error,
    /// Why the context could not be put together.
    context: Option<String>,
    begun: bool,
}

impl Failure {
    fn told(self, doing: Doing<'_>, lines: &Lines<'_>) -> StepError {
        if let Some(why) = self.context {
            return Diagnostic::error(
                "docker.context_unreadable",
                "The files for an image cannot be read",
                format!("{}: {why}.", doing.what),
            )
            .help("Make the file readable, then run the command again.")
            .into();
        }
        let from_stream = matches!(self.error, Error::DockerStreamError { .. });
        let mut failed = doing.failed(self.error);
        if from_stream && failed.diagnostic.code == "docker.refused" {
            failed.diagnostic.code = "docker.build_failed".to_owned();
            failed.diagnostic.summary = "An image could not be built".to_owned();
            failed.diagnostic.help =
                Some("The last line of its own says why. What was built before it is kept in the build cache.".to_owned());
        }
        for line in &lines.last {
            failed.diagnostic.detail.push_str("\n  ");
            failed.diagnostic.detail.push_str(line);
        }
        failed
    }
}

/// What the builder says: on to the person, and the last of it kept for a failure.
struct Lines<'a> {
    report: &'a dyn Fn(String),
    last: VecDeque<String>,
    /// Lines that are not at their end yet, by who writes them.
    open: BTreeMap<String, Vec<u8>>,
}

impl Lines<'_> {
    /// A part of what one build step writes; parts end anywhere.
    fn piece(&mut self, from: &str, bytes: &[u8]) {
        let mut pending = self.open.remove(from).unwrap_or_default();
        pending.extend_from_slice(bytes);
        let whole = pending.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let rest = pending.split_off(whole);
        self.push(&String::from_utf8_lossy(&pending));
        if !rest.is_empty() {
            self.open.insert(from.to_owned(), rest);
        }
    }

    fn close(&mut self) {
        for bytes in std::mem::take(&mut self.open).into_values() {
            self.push(&String::from_utf8_lossy(&bytes));
        }
    }

    fn push(&mut self, text: &str) {
        for line in text.lines().map(|l| l.trim_end_matches('\r').trim_end()).filter(|l| !l.is_empty()) {
            if self.last.len() == KEPT_LINES {
                self.last.pop_front();
            }
            self.last.push_back(line.to_owned());
            (self.report)(line.to_owned());
        }
    }
}

fn unpulled(image: &Image, doing: Doing<'_>, error: Error) -> StepError {
    let code = status(&error);
    let text = message(&error);
    let mut failed = doing.failed(error);
    if image.reference.starts_with(LOCAL) {
        let detail = format!("{}: it is made on this machine, no registry has it.", doing.what);
        return Diagnostic::error("docker.pull_failed", "An image could not be pulled", detail).help("Make it: `./dev setup`.").into();
    }
    let low = text.to_ascii_lowercase();
    if failed.diagnostic.code == "docker.refused" {
        failed.diagnostic.code = "docker.pull_failed".to_owned();
        failed.diagnostic.summary = "An image could not be pulled".to_owned();
        failed.diagnostic.help = Some(
            if low.contains("denied") || low.contains("unauthorized") {
                "It does not exist, or it needs a login: pull it once with `docker pull`, jackin then uses the local one."
            } else if code == Some(404) || low.contains("not found") || low.contains("manifest unknown") {
                "Check its name and tag: JACKIN_CONSTRUCT_IMAGE, JACKIN_DIND_IMAGE, or the role's FROM."
            } else {
                "Where no registry answers, `./dev setup` makes the base images from Debian packages."
            }
            .to_owned(),
        );
    }
    failed
}

/// Name and tag or digest; a port's colon is not a tag's.
fn split_tag(reference: &str) -> (&str, &str) {
    if let Some((name, digest)) = reference.split_once('@') {
        return (name, digest);
    }
    match reference.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (reference, "latest"),
    }
}

/// A build context that can be sent more than once.
struct Parcel {
    repo: Option<Vec<u8>>,
    files: BTreeMap<String, ContextFile>,
}

impl Parcel {
    fn new(context: &BuildContext, repo: Option<Vec<u8>>) -> Self {
        let mut files = context.files.clone();
        files.insert(context.dockerfile_path.clone(), ContextFile::Text { text: context.dockerfile.clone(), executable: false });
        Self { repo, files }
    }

    /// The chunks of a request's body, and what becomes of packing them: `Some` = why it broke off.
    fn send(self: Arc<Self>) -> (mpsc::Receiver<io::Result<Vec<u8>>>, tokio::task::JoinHandle<Option<String>>) {
        let (sender, receiver) = mpsc::channel::<io::Result<Vec<u8>>>(8);
        let packing = tokio::task::spawn_blocking(move || {
            let pipe = io::BufWriter::with_capacity(256 * 1024, Pipe(sender.clone()));
            match self.pack(pipe) {
                Ok(()) => None,
                // The engine has hung up; its answer says why.
                Err((_, error)) if error.kind() == io::ErrorKind::BrokenPipe => None,
                Err((path, error)) => {
                    let why = format!("{path}: {error}");
                    let _ = sender.blocking_send(Err(error));
                    Some(why)
                }
            }
        });
        (receiver, packing)
    }

    /// Everything in a fixed order with fixed times, so that equal contexts are equal bytes.
    fn pack(&self, out: impl Write) -> Result<(), (String, io::Error)> {
        let mut tar = tar::Builder::new(out);
        let at = |path: &str| {
            let path = path.to_owned();
            move |error: io::Error| (path, error)
        };
        if let Some(repo) = &self.repo {
            let overlaid: BTreeSet<PathBuf> = self.files.keys().map(PathBuf::from).collect();
            copy_tar(repo, &overlaid, &mut tar).map_err(at("the role's repository"))?;
        }
        for (path, file) in &self.files {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mtime(0);
            match file {
                ContextFile::Text { text, executable } => {
                    header.set_mode(if *executable { 0o755 } else { 0o644 });
                    header.set_size(text.len() as u64);
                    tar.append_data(&mut header, path, text.as_bytes()).map_err(at(path))?;
                }
                ContextFile::Program { path: source } => {
                    let program = std::fs::File::open(source).map_err(at(source))?;
                    header.set_mode(0o755);
                    header.set_size(program.metadata().map_err(at(source))?.len());
                    tar.append_data(&mut header, path, program).map_err(at(source))?;
                }
            }
        }
        let mut out = tar.into_inner().map_err(at("context"))?;
        out.flush().map_err(at("context"))
    }
}

/// The files of a repository; those that the context lays over them are left out.
fn copy_tar(repo: &[u8], overlaid: &BTreeSet<PathBuf>, tar: &mut tar::Builder<impl Write>) -> io::Result<()> {
    for entry in tar::Archive::new(repo).entries()? {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        let path = entry.path()?.into_owned();
        if overlaid.contains(&path) || !(kind.is_file() || kind.is_dir() || kind.is_symlink()) || path == Path::new("") {
            continue;
        }
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(entry.header().mode()?);
        header.set_mtime(0);
        match entry.link_name()? {
            Some(target) if kind.is_symlink() => {
                header.set_size(0);
                tar.append_link(&mut header, &path, &target)?;
            }
            _ => {
                header.set_size(entry.size());
                tar.append_data(&mut header, &path, &mut entry)?;
            }
        }
    }
    Ok(())
}

/// Hands what is written to it to the request.
struct Pipe(mpsc::Sender<io::Result<Vec<u8>>>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.blocking_send(Ok(bytes.to_vec())).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags() {
        for (reference, name, tag) in [
            ("docker:29-dind", "docker", "29-dind"),
            ("host:5000/a/b", "host:5000/a/b", "latest"),
            ("host:5000/a:1", "host:5000/a", "1"),
            ("a@sha256:00", "a", "sha256:00"),
        ] {
            assert_eq!(split_tag(reference), (name, tag));
        }
    }

    #[test]
    fn a_context_is_laid_over_the_repository() {
        let mut repo = tar::Builder::new(Vec::new());
        let long = format!("{}/x", "d".repeat(150));
        for (path, text) in [("Dockerfile", "theirs"), (long.as_str(), "long"), ("tool", "t")] {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o755);
            header.set_mtime(77);
            repo.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        link.set_mode(0o777);
        repo.append_link(&mut link, "to-tool", "tool").unwrap();
        let context = BuildContext {
            dockerfile: "ours".to_owned(),
            dockerfile_path: "Dockerfile".to_owned(),
            files: BTreeMap::new(),
            repo: None,
            build_args: BTreeMap::new(),
            from_scratch: false,
        };
        let parcel = Parcel::new(&context, Some(repo.into_inner().unwrap()));
        let mut out = Vec::new();
        parcel.pack(&mut out).unwrap();
        let mut seen = Vec::new();
        for entry in tar::Archive::new(out.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            assert_eq!(entry.header().mtime().unwrap(), 0);
            let mut text = String::new();
            io::Read::read_to_string(&mut entry, &mut text).unwrap();
            seen.push((entry.path().unwrap().to_string_lossy().into_owned(), text));
        }
        let want = [(long.as_str(), "long"), ("tool", "t"), ("to-tool", ""), ("Dockerfile", "ours")];
        assert_eq!(seen, want.map(|(p, t)| (p.to_owned(), t.to_owned())));
    }
}
