//! Configuration: text in, typed values with their places out. Returns every mistake of a file, not the first.
//! Absent: files, environment, clock. Reading the files is `gather`'s part; merging layers is `layer.rs`'s.

pub mod docker;
pub mod dockerfile;
pub mod env;
pub mod file;
pub mod layer;
pub mod model;
pub mod prompts;
pub mod reader;
pub mod role;
pub mod role_key;
pub mod validate;
pub mod version;
pub mod write;
pub use model::*;

use crate::diagnostic::{Diagnostic, Diagnostics};
use std::collections::BTreeMap;

/// One file as `gather` found it.
#[derive(Clone)]
pub struct SourceFile {
    pub kind: FileKind,
    /// As shown to people: `config.toml`, `workspaces/app.toml`.
    pub shown: String,
    pub bytes: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileKind {
    Global,
    Workspace { name: String },
}

impl FileKind {
    /// As shown to people, and where it lies in the config folder.
    pub fn shown(&self) -> String {
        match self {
            FileKind::Global => "config.toml".to_owned(),
            FileKind::Workspace { name } => format!("workspaces/{name}.toml"),
        }
    }
}

/// All files to one `Config` and its warnings, or the mistakes of all of them at once.
/// Workspaces inside an old `config.toml` count like files of their own; one that was split out already may be there twice,
/// as long as both say the same.
pub fn load(files: &[SourceFile]) -> Result<(Config, Vec<Diagnostic>), Diagnostics> {
    let (config, said) = read(files);
    if said.iter().any(Diagnostic::is_error) { Err(Diagnostics(said)) } else { Ok((config, said)) }
}

/// For looking only: without the workspaces whose files hold mistakes, and with all that is wrong.
pub fn load_sound(files: &[SourceFile]) -> (Config, Vec<Diagnostic>) {
    let (mut config, said) = read(files);
    let wrong = |file: &str| said.iter().any(|d| d.is_error() && d.span.as_ref().is_some_and(|span| span.file == file));
    config.workspaces.retain(|_, workspace| !wrong(&workspace.file));
    (config, said)
}

fn read(files: &[SourceFile]) -> (Config, Vec<Diagnostic>) {
    let mut said = Vec::new();
    let mut global = file::GlobalFile::default();
    let mut workspaces = BTreeMap::new();
    let mut global_read = true;
    for source in files {
        match &source.kind {
            FileKind::Global => match text_of(file::GLOBAL_SORT, source).and_then(|text| file::parse_global(&source.shown, text)) {
                Ok((read, warnings)) => {
                    said.extend(warnings);
                    global = read;
                }
                Err(mistakes) => {
                    global_read = false;
                    said.extend(mistakes.0);
                }
            },
            FileKind::Workspace { name } => {
                let read = text_of(file::WORKSPACE_SORT, source).and_then(|text| file::parse_workspace(name, &source.shown, text));
                match read {
                    Ok((workspace, warnings)) => {
                        said.extend(warnings);
                        workspaces.insert(name.clone(), workspace);
                    }
                    Err(mistakes) => said.extend(mistakes.0),
                }
            }
        }
    }
    let file::GlobalFile { global, embedded, .. } = global;
    for workspace in embedded {
        match workspaces.get(&workspace.name) {
            Some(kept) if !said_twice_alike(files, &workspace.name) => said.push(
                Diagnostic::error(
                    "config.workspace_twice",
                    "A workspace is written in two places",
                    format!("`{}` is in `{}` and, differently, in `{}`", workspace.name, workspace.file, kept.file),
                )
                .at(workspace.workdir.span)
                .help("make the two say the same, or remove the table from config.toml"),
            ),
            Some(_) => {}
            None => {
                workspaces.insert(workspace.name.clone(), workspace);
            }
        }
    }
    let config = Config { global, workspaces };
    // Without config.toml every role would seem unknown.
    said.extend(validate::validate(&config).into_iter().filter(|d| global_read || d.code != "config.unknown_role"));
    (config, said)
}

fn text_of(sort: reader::Sort, source: &SourceFile) -> Result<&str, Diagnostics> {
    reader::decode(sort, &source.shown, &source.bytes).map_err(Diagnostics::from)
}

fn said_twice_alike(files: &[SourceFile], name: &str) -> bool {
    let text = |wanted: &dyn Fn(&FileKind) -> bool| files.iter().find(|f| wanted(&f.kind)).and_then(|f| std::str::from_utf8(&f.bytes).ok());
    let global = text(&|kind| *kind == FileKind::Global);
    let own = text(&|kind| matches!(kind, FileKind::Workspace { name: n } if n == name));
    let (Some(global), Some(own)) = (global, own) else {
        return false;
    };
    let Ok(Some(split)) = write::split_global_text(global) else {
        return false;
    };
    split.workspaces.get(name).is_some_and(|table| write::same_workspace(table, own))
}

#[cfg(test)]
mod tests;
