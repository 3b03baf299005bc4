//! The operator's files as text.
//!
//! In: the config folder. Out: `config.toml` and every `workspaces/*.toml` with the name to show for it. Absent: parsing, locks
//! (take `Lock::shared` on `Paths::config_lock` round it), creating anything.

use super::failure::io_failed;
use super::paths::Paths;
use crate::diagnostic::{Diagnostic, Span};
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// As shown to people, relative to the config folder: `config.toml`, `workspaces/app.toml`.
    pub name: String,
    pub path: PathBuf,
    pub text: String,
}

impl SourceFile {
    /// The file's name without `.toml`: the name of a workspace.
    pub fn stem(&self) -> &str {
        let file = self.name.rsplit('/').next().unwrap_or(&self.name);
        file.strip_suffix(".toml").unwrap_or(file)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigFiles {
    /// `None` before the first run.
    pub global: Option<SourceFile>,
    /// Sorted by name.
    pub workspaces: Vec<SourceFile>,
    /// Names of workspaces whose files cannot be read.
    pub unreadable: BTreeSet<String>,
}

/// What can be read, and a diagnostic for each file that cannot; the caller decides whether to go on with part of them.
pub fn read_config(paths: &Paths) -> (ConfigFiles, Vec<Diagnostic>) {
    let mut files = ConfigFiles::default();
    let mut wrong = Vec::new();
    match read_text(&paths.config_file(), "config.toml") {
        Ok(global) => files.global = global,
        Err(diagnostic) => wrong.push(of(diagnostic, "config.toml")),
    }
    let dir = paths.workspaces();
    let names = match toml_names(&dir, &mut wrong) {
        Ok(names) => names,
        Err(diagnostic) => {
            wrong.push(diagnostic);
            Vec::new()
        }
    };
    for name in names {
        let shown = format!("workspaces/{name}");
        match read_text(&dir.join(&name), &shown) {
            // `None`: deleted since the folder was listed.
            Ok(file) => files.workspaces.extend(file),
            Err(diagnostic) => {
                wrong.push(of(diagnostic, &shown));
                files.unreadable.extend(name.strip_suffix(".toml").map(str::to_owned));
            }
        }
    }
    (files, wrong)
}

/// Where nothing could be read, the file is the place.
fn of(diagnostic: Diagnostic, file: &str) -> Diagnostic {
    let span = Span { file: file.to_owned(), line: 1, column: 1, length: 0, source_line: String::new() };
    diagnostic.at(Some(span))
}

/// One text file; `None` when it does not exist.
pub fn read_text(path: &Path, name: &str) -> Result<Option<SourceFile>, Diagnostic> {
    // Looked at before it is opened: opening a pipe would wait for a writer.
    match fs::metadata(path) {
        Ok(found) if found.is_file() => {}
        Ok(found) if found.is_dir() => {
            return Err(io_failed("read", path, &ErrorKind::IsADirectory.into()));
        }
        Ok(_) => {
            return Err(Diagnostic::error(
                "file.not_regular",
                "Not a regular file",
                format!("{} is a device, socket or pipe", path.display()),
            )
            .help("put a text file in its place"));
        }
        // A dangling link is a mistake to report, unlike an absent file.
        Err(error) if error.kind() == ErrorKind::NotFound && fs::symlink_metadata(path).is_err() => {
            return Ok(None);
        }
        Err(error) => return Err(io_failed("read", path, &error)),
    }
    let bytes = fs::read(path).map_err(|error| io_failed("read", path, &error))?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(SourceFile { name: name.to_owned(), path: path.to_owned(), text })),
        Err(error) => {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
            Err(Diagnostic::error("config.not_utf8", "File is not UTF-8", format!("{name}, line {line}")).help("save the file as UTF-8"))
        }
    }
}

/// Names ending in `.toml`, sorted; `wrong` takes those that are no text. Temporary files end otherwise; hidden ones are editors' locks
/// and copies.
fn toml_names(dir: &Path, wrong: &mut Vec<Diagnostic>) -> Result<Vec<String>, Diagnostic> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_failed("read the folder", dir, &error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(|error| io_failed("read the folder", dir, &error))?.file_name();
        match name.into_string() {
            Ok(name) if name.ends_with(".toml") && !name.starts_with('.') => names.push(name),
            Ok(_) => {}
            Err(name) if name.as_encoded_bytes().ends_with(b".toml") => {
                let shown = format!("workspaces/{}", name.to_string_lossy());
                wrong.push(
                    Diagnostic::error("config.not_utf8", "File is not UTF-8", format!("the name of {shown}")).help("rename the file"),
                );
            }
            Err(_) => {}
        }
    }
    names.sort();
    Ok(names)
}
