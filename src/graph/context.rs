//! What goes into an image build, as data: the Dockerfile's text and the files beside it. Kept out of the graph and of plans,
//! which hold only its hashes.

use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq)]
pub struct BuildContext {
    /// Text of the Dockerfile to build with.
    pub dockerfile: String,
    /// Its path in the context; does not collide with files of a role.
    pub dockerfile_path: String,
    /// Path in the context -> content. Laid over the repository's files when there are any.
    pub files: BTreeMap<String, ContextFile>,
    /// Files of a role repo at one commit, laid down first.
    pub repo: Option<RepoFiles>,
    pub build_args: BTreeMap<String, String>,
    /// Layers of earlier builds are not taken, and neither is an image that another run has just built.
    pub from_scratch: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct RepoFiles {
    /// Absolute path of the cached clone.
    pub cache: String,
    pub commit: String,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ContextFile {
    Text {
        text: String,
        executable: bool,
    },
    /// A file of this host, absolute; it goes in executable.
    Program {
        path: String,
    },
}
