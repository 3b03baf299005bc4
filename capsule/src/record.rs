//! Recordings of sessions in the format of asciinema, version 2. Output and sizes in, a file of bounded size out.
//! Absent: who asked. A thread of its own writes, so that a slow disk slows no session: what it cannot keep up with is
//! dropped, and a marker in the recording says so.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::log::unix_now;
use crate::mux::{Input, Recording, SessionId};
use crate::screen::Size;
use crate::worker::Report;

/// A recording that has come so far ends by itself, and says so.
const MAX_FILE: u64 = 64 << 20;
/// Output that waits for the disk.
const MAX_WAITING: usize = 8 << 20;
/// What the last lines may take to reach the disk when the mux ends.
const PATIENCE: Duration = Duration::from_secs(1);

enum Event {
    Output(Duration, Vec<u8>),
    Resize(Duration, Size),
    Dropped(Duration, usize),
    End,
}

pub struct Recorder {
    path: PathBuf,
    events: Sender<Event>,
    began: Instant,
    waiting: Arc<AtomicUsize>,
    dropped: usize,
    thread: JoinHandle<()>,
}

impl Recorder {
    /// `screen` are the bytes that paint what is on the screen now.
    pub fn start(dir: &Path, session: SessionId, codename: &str, size: Size, screen: &[u8], report: Report) -> io::Result<Self> {
        Self::with_limit(MAX_FILE, dir, session, codename, size, screen, report)
    }

    fn with_limit(
        limit: u64,
        dir: &Path,
        session: SessionId,
        codename: &str,
        size: Size,
        screen: &[u8],
        report: Report,
    ) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let (path, file) = create(dir, session, codename)?;
        let header = json!({
            "version": 2, "width": size.cols, "height": size.rows, "timestamp": unix_now(),
            "title": format!("session {session} ({codename})"), "env": { "TERM": "xterm-256color" },
        });
        let mut tape = Tape { file: BufWriter::new(file), written: 0, limit, partial: Vec::new() };
        tape.line(&header)?;
        let (events, received) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let thread = std::thread::Builder::new().name("record".to_owned()).stack_size(256 << 10).spawn({
            let (path, waiting) = (path.clone(), waiting.clone());
            move || {
                let result = match tape.record(&received, &waiting) {
                    // It was ended from outside, where that is known.
                    Ok(true) => return,
                    Ok(false) => format!("{} has its {} MB and was ended", path.display(), limit >> 20),
                    Err(error) => format!("{}: {error}", path.display()),
                };
                report.tell(Input::Recording { session, now: Recording::Failed(result) });
            }
        })?;
        let mut recorder = Self { path, events, began: Instant::now(), waiting, dropped: 0, thread };
        if !screen.is_empty() {
            recorder.output(screen);
        }
        Ok(recorder)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn output(&mut self, bytes: &[u8]) {
        let at = self.began.elapsed();
        if self.waiting.load(Ordering::Relaxed) + bytes.len() > MAX_WAITING {
            self.dropped += bytes.len();
            return;
        }
        self.waiting.fetch_add(bytes.len(), Ordering::Relaxed);
        if self.dropped > 0 {
            let dropped = std::mem::take(&mut self.dropped);
            self.tell(Event::Dropped(at, dropped));
        }
        self.tell(Event::Output(at, bytes.to_vec()));
    }

    pub fn resize(&mut self, size: Size) {
        self.tell(Event::Resize(self.began.elapsed(), size));
    }

    fn tell(&self, event: Event) {
        // A thread that has ended has said why.
        let _ = self.events.send(event);
    }

    /// Ends it; the thread still writes what it has.
    pub fn stop(&self) {
        self.tell(Event::End);
    }

    pub fn has_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits a moment for the last line.
    pub fn finish(self) {
        self.stop();
        let deadline = Instant::now() + PATIENCE;
        while !self.has_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn create(dir: &Path, session: SessionId, codename: &str) -> io::Result<(PathBuf, File)> {
    let mut second = unix_now();
    loop {
        let time = crate::dates::rfc3339(second).replace(':', "-");
        let path = dir.join(format!("{session}-{codename}-{time}.cast"));
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            // Two within one second.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => second += 1,
            other => return Ok((path, other?)),
        }
    }
}

struct Tape {
    file: BufWriter<File>,
    written: u64,
    limit: u64,
    /// The beginning of a character whose rest is still to come.
    partial: Vec<u8>,
}

impl Tape {
    /// False when the file is as large as it may be.
    fn record(&mut self, events: &Receiver<Event>, waiting: &AtomicUsize) -> io::Result<bool> {
        while let Some(event) = self.next(events)? {
            match event {
                Event::End => break,
                Event::Output(at, bytes) => {
                    waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
                    let text = self.text(&bytes);
                    if !text.is_empty() {
                        self.line(&json!([at.as_secs_f64(), "o", text]))?;
                    }
                }
                Event::Resize(at, size) => self.line(&json!([at.as_secs_f64(), "r", format!("{}x{}", size.cols, size.rows)]))?,
                Event::Dropped(at, bytes) => {
                    self.partial.clear();
                    self.line(&json!([at.as_secs_f64(), "m", format!("{bytes} bytes are missing: the disk was too slow")]))?;
                }
            }
            if self.written > self.limit {
                self.file.flush()?;
                return Ok(false);
            }
        }
        self.file.flush()?;
        Ok(true)
    }

    /// Flushes before it waits, so that a recording can be watched as it grows.
    fn next(&mut self, events: &Receiver<Event>) -> io::Result<Option<Event>> {
        if let Ok(event) = events.try_recv() {
            return Ok(Some(event));
        }
        self.file.flush()?;
        Ok(events.recv().ok())
    }

    fn line(&mut self, line: &serde_json::Value) -> io::Result<()> {
        let mut text = line.to_string();
        text.push('\n');
        self.written += text.len() as u64;
        self.file.write_all(text.as_bytes())
    }

    /// What is complete of the characters so far; bytes that belong to none become U+FFFD.
    fn text(&mut self, bytes: &[u8]) -> String {
        self.partial.extend_from_slice(bytes);
        let mut text = String::with_capacity(self.partial.len());
        let mut rest = 0;
        for chunk in self.partial.utf8_chunks() {
            text.push_str(chunk.valid());
            rest += chunk.valid().len();
            let is_last = rest + chunk.invalid().len() == self.partial.len();
            if is_last && is_beginning(chunk.invalid()) {
                break;
            }
            if !chunk.invalid().is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
                rest += chunk.invalid().len();
            }
        }
        self.partial.drain(..rest);
        text
    }
}

/// More bytes could make it a character.
fn is_beginning(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::worker::Worker;

    const SIZE: Size = Size { rows: 24, cols: 80 };

    fn lines(path: &Path) -> Vec<Value> {
        fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn text_of(lines: &[Value]) -> String {
        lines[1..].iter().filter(|line| line[1] == "o").map(|line| line[2].as_str().unwrap()).collect()
    }

    fn start(dir: &Path, limit: u64, worker: &Worker) -> Recorder {
        Recorder::with_limit(limit, dir, SessionId(3), "cedar", SIZE, b"\x1b[Hscreen", worker.reporter()).unwrap()
    }

    #[test]
    fn a_recording_has_a_header_the_screen_the_output_and_the_sizes() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("recordings");
        let worker = Worker::new().unwrap();
        let mut recorder = start(&dir, MAX_FILE, &worker);
        let path = recorder.path().to_owned();
        for piece in "grün ❤ ".as_bytes().chunks(1) {
            recorder.output(piece);
        }
        recorder.output(b"bad \xff\xc3( end");
        recorder.resize(Size { rows: 50, cols: 200 });
        recorder.finish();
        let lines = lines(&path);
        assert_eq!((&lines[0]["version"], &lines[0]["width"], &lines[0]["height"]), (&json!(2), &json!(80), &json!(24)));
        assert_eq!(text_of(&lines), "\x1b[Hscreengrün ❤ bad \u{fffd}\u{fffd}( end");
        let last = lines.last().unwrap();
        assert_eq!((&last[1], &last[2]), (&json!("r"), &json!("200x50")));
        let times: Vec<f64> = lines[1..].iter().map(|line| line[0].as_f64().unwrap()).collect();
        assert!(times.is_sorted());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&dir)), (0o600, 0o700));
        assert!(path.file_name().unwrap().to_str().unwrap().starts_with("3-cedar-20"));
        assert!(worker.drain().is_empty());
        // Within the same second, and yet another file.
        assert_ne!(start(&dir, MAX_FILE, &worker).path(), path);
    }

    #[test]
    fn it_ends_at_its_limit_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let worker = Worker::new().unwrap();
        let mut recorder = start(dir.path(), 1 << 20, &worker);
        let path = recorder.path().to_owned();
        while !recorder.has_finished() {
            recorder.output(&[b'x'; 10_000]);
        }
        assert!(matches!(worker.drain().as_slice(), [Input::Recording { now: Recording::Failed(text), .. }] if text.contains("1 MB")));
        assert!(((1 << 20)..(1 << 20) + 20_000).contains(&fs::metadata(path).unwrap().len()));
    }

    #[test]
    fn a_slow_disk_costs_lines_and_not_memory() {
        let dir = tempfile::tempdir().unwrap();
        let worker = Worker::new().unwrap();
        let mut recorder = start(dir.path(), MAX_FILE, &worker);
        // As if the thread were stuck.
        recorder.waiting.fetch_add(MAX_WAITING, Ordering::Relaxed);
        recorder.output(b"lost");
        recorder.waiting.fetch_sub(MAX_WAITING, Ordering::Relaxed);
        recorder.output(b"kept");
        let path = recorder.path().to_owned();
        recorder.finish();
        let lines = lines(&path);
        assert_eq!(text_of(&lines), "\x1b[Hscreenkept");
        assert!(lines.iter().any(|line| line[1] == "m" && line[2].as_str().unwrap().starts_with("4 bytes are missing")));
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(text in "\\PC{0,30}", cuts in proptest::collection::vec(1usize..5, 0..40)) {
            let mut tape = Tape { file: BufWriter::new(tempfile::tempfile().unwrap()), written: 0, limit: 0, partial: Vec::new() };
            let mut bytes = text.as_bytes();
            let mut got = String::new();
            for cut in cuts {
                let (piece, rest) = bytes.split_at(cut.min(bytes.len()));
                got += &tape.text(piece);
                bytes = rest;
            }
            got += &tape.text(bytes);
            prop_assert_eq!(got, text);
        }
    }
}
