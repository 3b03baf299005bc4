//! The diary of one run: `~/.jackin/data/diagnostics/runs/<run_id>.jsonl`, one event a line, written as it happens.
//!
//! In: what a command did. Out: lines that a later `jackin runs show` and `plan --replay` read. Absent: credentials (they never
//! reach a plan or an event), and any influence on the run: a journal that cannot be written is a warning.

use crate::diagnostic::Diagnostic;
use crate::event::{Entry, Event, Line};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub struct Journal {
    file: Option<File>,
    pub run_id: String,
    pub path: PathBuf,
}

/// Runs kept; older files are removed when a new one starts.
const KEEP: usize = 200;

impl Journal {
    /// Opens `<directory>/<run_id>.jsonl`. A folder that cannot be written gives a journal that swallows everything.
    pub fn open(directory: &Path, run_id: &str) -> Journal {
        let path = directory.join(format!("{run_id}.jsonl"));
        let file = fs::create_dir_all(directory).and_then(|()| OpenOptions::new().create(true).append(true).mode(0o600).open(&path)).ok();
        Journal { file, run_id: run_id.to_owned(), path }
    }

    /// For commands that must not write anything.
    pub fn nowhere(run_id: &str) -> Journal {
        Journal { file: None, run_id: run_id.to_owned(), path: PathBuf::new() }
    }

    pub fn write(&mut self, entry: Entry) {
        let Some(file) = &mut self.file else { return };
        let time = jiff::Timestamp::now();
        let line = Line { time: format!("{time:.6}"), entry };
        if let Ok(mut text) = serde_json::to_string(&line) {
            text.push('\n');
            // One write a line: a killed run leaves whole lines.
            if file.write_all(text.as_bytes()).is_err() {
                self.file = None;
            }
        }
    }
}

/// Run ids, newest first.
pub fn runs(directory: &Path) -> Vec<String> {
    let mut ids: Vec<String> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".jsonl")?.to_owned()))
        .collect();
    ids.sort_unstable_by(|a, b| b.cmp(a));
    ids
}

/// The newest run that is not `own` and of which `wanted` holds; looking at diaries is not itself worth looking at.
pub fn newest(directory: &Path, own: &str, wanted: impl Fn(&[Line]) -> bool) -> Option<String> {
    let looking = |lines: &[Line]| matches!(lines.first().map(|l| &l.entry), Some(Entry::RunStarted { command, .. }) if command == "runs");
    runs(directory)
        .into_iter()
        .filter(|id| id != own)
        .find(|id| read_lines(&directory.join(format!("{id}.jsonl"))).is_ok_and(|lines| !looking(&lines) && wanted(&lines)))
}

/// Removes all but the newest runs.
pub fn prune(directory: &Path) {
    for id in runs(directory).into_iter().skip(KEEP) {
        let _ = fs::remove_file(directory.join(format!("{id}.jsonl")));
    }
}

/// The lines of a run; `run` may be the beginning of an id, or `last`.
pub fn read(directory: &Path, run: &str) -> Result<(String, Vec<Line>), Diagnostic> {
    let ids = runs(directory);
    let matching: Vec<&String> = match run {
        "last" => ids.first().into_iter().collect(),
        run => ids.iter().filter(|id| id.starts_with(run)).collect(),
    };
    let id = match matching[..] {
        [one] => one,
        [] => {
            return Err(Diagnostic::error("run.unknown", "No such run", format!("`{run}`"))
                .help("`jackin runs list` shows the runs that are kept; `last` names the newest."));
        }
        _ => {
            return Err(Diagnostic::error("run.ambiguous", "Several runs begin like that", format!("`{run}`")).help("Give more of the id."));
        }
    };
    Ok((id.clone(), read_lines(&directory.join(format!("{id}.jsonl")))?))
}

/// Lines that were cut short by a kill are left out.
fn read_lines(path: &Path) -> Result<Vec<Line>, Diagnostic> {
    let file = File::open(path)
        .map_err(|error| Diagnostic::error("run.unreadable", "A run cannot be read", format!("{}: {error}", path.display())))?;
    Ok(BufReader::new(file).lines().map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok()).collect())
}

/// Median milliseconds by `<effect> <kind>` over the newest runs.
pub fn history(directory: &Path) -> BTreeMap<String, u64> {
    let mut samples: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for id in runs(directory).into_iter().take(20) {
        let Ok(lines) = read_lines(&directory.join(format!("{id}.jsonl"))) else {
            continue;
        };
        let mut keys: BTreeMap<String, String> = BTreeMap::new();
        for line in lines {
            let Entry::Event { event } = line.entry else {
                continue;
            };
            match event {
                Event::StepStarted { id, step } => {
                    keys.insert(id, format!("{} {}", step.effect.verb(), step.address.kind));
                }
                Event::StepFinished { id, milliseconds } => {
                    if let Some(key) = keys.get(&id) {
                        samples.entry(key.clone()).or_default().push(milliseconds);
                    }
                }
                _ => {}
            }
        }
    }
    samples
        .into_iter()
        .map(|(key, mut values)| {
            values.sort_unstable();
            (key, values[values.len() / 2])
        })
        .collect()
}

/// A journal anywhere on the disk.
pub fn read_file(path: &Path) -> Result<Vec<Line>, Diagnostic> {
    read_lines(path)
}
