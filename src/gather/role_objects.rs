//! Reading a role at one commit out of git's objects, over one `git cat-file --batch`.
//!
//! In: a clone and the names a commit may have. Out: the commit, its paths, and the texts of manifest, Dockerfile and hooks.
//! Absent: the working tree; what the texts mean, beyond the paths the manifest names.

use super::git;
use super::role_repo::is_commit;
use crate::diagnostic::Diagnostic;
use crate::facts::TreeKind;
use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};

pub const MANIFEST: &str = "jackin.role.toml";

/// A few kilobytes of trees that refer to each other can name billions of paths.
const PATHS_MAX: usize = 100_000;

/// A text beyond this is treated as not a text.
const TEXT_MAX: u64 = 1024 * 1024;

#[derive(Debug)]
pub struct Contents {
    pub commit: String,
    pub tree: BTreeMap<String, TreeKind>,
    pub files: BTreeMap<String, String>,
}

/// The first of `names` that is a commit; `None` when none is.
pub async fn read(cache: &Path, names: &[String]) -> Result<Result<Option<Contents>, String>, Diagnostic> {
    let mut objects = Objects::open(cache)?;
    Ok(objects.contents(names).await.map_err(|error| error.to_string()))
}

pub async fn has_commit(cache: &Path, commit: &str) -> Result<bool, Diagnostic> {
    if !is_commit(commit) {
        return Ok(false);
    }
    let mut objects = Objects::open(cache)?;
    Ok(objects.object(&format!("{commit}^{{commit}}"), 0).await.is_ok_and(|found| found.is_some()))
}

struct Objects {
    /// Killed when dropped.
    _git: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

struct Object {
    id: String,
    /// `None` when longer than asked for.
    bytes: Option<Vec<u8>>,
}

impl Objects {
    fn open(cache: &Path) -> Result<Objects, Diagnostic> {
        let mut command = git::in_clone(cache);
        command.args(["cat-file", "--batch"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => git::missing(),
            _ => Diagnostic::error("git.failed", "Cannot run git", error.to_string()).help("see the reason above"),
        })?;
        let (requests, answers) = (child.stdin.take().expect("BUG: stdin is piped"), child.stdout.take().expect("BUG: stdout is piped"));
        Ok(Objects { _git: child, requests, answers: BufReader::new(answers) })
    }

    /// `name` must not hold a line end; ids and checked names do not.
    async fn object(&mut self, name: &str, max: u64) -> io::Result<Option<Object>> {
        self.requests.write_all(format!("{name}\n").as_bytes()).await?;
        self.requests.flush().await?;
        let mut header = String::new();
        self.answers.read_line(&mut header).await?;
        if header.ends_with(" missing\n") || header.ends_with(" ambiguous\n") {
            return Ok(None);
        }
        let mut words = header.split_ascii_whitespace();
        let (Some(id), Some(_kind), Some(size), None) =
            (words.next(), words.next(), words.next().and_then(|n| n.parse::<u64>().ok()), words.next())
        else {
            return Err(io::Error::other("git cannot read the repository"));
        };
        let id = id.to_owned();
        let mut body = (&mut self.answers).take(size);
        let bytes = if size <= max {
            let mut bytes = Vec::with_capacity(size as usize);
            body.read_to_end(&mut bytes).await?;
            Some(bytes)
        } else {
            tokio::io::copy(&mut body, &mut tokio::io::sink()).await?;
            None
        };
        self.answers.read_u8().await?;
        Ok(Some(Object { id, bytes }))
    }

    async fn contents(&mut self, names: &[String]) -> io::Result<Option<Contents>> {
        let mut found = None;
        for name in names {
            found = self.object(&format!("{name}^{{commit}}"), 0).await?;
            if found.is_some() {
                break;
            }
        }
        let Some(commit) = found else { return Ok(None) };
        let mut contents = Contents { commit: commit.id, tree: BTreeMap::new(), files: BTreeMap::new() };
        let ids = self.tree(&mut contents).await?;
        self.text(MANIFEST, &ids, &mut contents).await?;
        if let Some(manifest) = contents.files.get(MANIFEST) {
            for path in named_paths(manifest) {
                self.text(&path, &ids, &mut contents).await?;
            }
        }
        Ok(Some(contents))
    }

    /// Fills `contents.tree`; returns the ids of the regular files.
    async fn tree(&mut self, contents: &mut Contents) -> io::Result<BTreeMap<String, String>> {
        let id_bytes = contents.commit.len() / 2;
        let mut ids = BTreeMap::new();
        let mut open = vec![(String::new(), format!("{}^{{tree}}", contents.commit))];
        while let Some((dir, name)) = open.pop() {
            let Some(Object { bytes: Some(bytes), .. }) = self.object(&name, 64 * TEXT_MAX).await? else {
                return Err(io::Error::other(format!("the folder `{dir}` of the commit cannot be read")));
            };
            for (mode, file, id) in entries(&bytes, id_bytes) {
                let path = format!("{dir}{}", String::from_utf8_lossy(file));
                let kind = match mode {
                    b"40000" => {
                        open.push((format!("{path}/"), id));
                        continue;
                    }
                    b"120000" => TreeKind::Symlink,
                    b"160000" => TreeKind::Submodule,
                    b"100755" => TreeKind::Executable,
                    _ => TreeKind::File,
                };
                if matches!(kind, TreeKind::File | TreeKind::Executable) {
                    ids.insert(path.clone(), id);
                }
                contents.tree.insert(path, kind);
            }
            if contents.tree.len() + open.len() > PATHS_MAX {
                return Err(io::Error::other(format!("the commit holds more than {PATHS_MAX} paths")));
            }
        }
        Ok(ids)
    }

    async fn text(&mut self, path: &str, ids: &BTreeMap<String, String>, contents: &mut Contents) -> io::Result<()> {
        let Some(id) = ids.get(path) else {
            return Ok(());
        };
        let object = self.object(id, TEXT_MAX).await?;
        if let Some(text) = object.and_then(|object| object.bytes).and_then(|bytes| String::from_utf8(bytes).ok()) {
            contents.files.insert(path.to_owned(), text);
        }
        Ok(())
    }
}

/// Entries of a tree object: mode, space, name, NUL, id.
fn entries(mut bytes: &[u8], id_bytes: usize) -> Vec<(&[u8], &[u8], String)> {
    let mut found = Vec::new();
    while let Some(space) = bytes.iter().position(|b| *b == b' ')
        && let Some(nul) = bytes.iter().position(|b| *b == 0)
        && space < nul
        && let Some(id) = bytes.get(nul + 1..nul + 1 + id_bytes)
    {
        found.push((&bytes[..space], &bytes[space + 1..nul], crate::resource::hex(id)));
        bytes = &bytes[nul + 1 + id_bytes..];
    }
    found
}

/// Paths the manifest names, as they stand in the tree. A manifest that does not parse names none; its mistakes are told by whoever
/// parses it in earnest.
fn named_paths(manifest: &str) -> Vec<String> {
    let Ok(table) = manifest.parse::<toml::Table>() else {
        return Vec::new();
    };
    let hooks = table.get("hooks").and_then(|hooks| hooks.as_table()).into_iter().flat_map(|hooks| hooks.values());
    table.get("dockerfile").into_iter().chain(hooks).filter_map(|value| in_tree(value.as_str()?)).collect()
}

/// `./a//b` as `a/b`; `None` for what leads out of the repository.
pub fn in_tree(path: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => parts.push(name.to_str()?),
            Component::CurDir => {}
            _ => return None,
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}
