//! The lines that have left a screen, oldest dropped first: each as bytes of text, SGR and OSC 8 that start with a plain
//! pen. Lines are counted from the session's first, so a number stays true. Absent: what the bytes look like.

use std::collections::VecDeque;

pub const MAX_LINES: usize = 10_000;
/// Lines may be wide and gaudy; memory is bounded whatever they hold.
const MAX_BYTES: usize = 6 << 20;
const PAGE: usize = 32 << 10;

const WRAPPED: u32 = 1 << 31;

#[derive(Default)]
struct Page {
    bytes: Vec<u8>,
    /// Where each line ends, and whether it goes on in the next.
    ends: Vec<u32>,
}

#[derive(Default)]
pub struct Ring {
    pages: VecDeque<Page>,
    /// Lines of the first page that are gone already.
    skip: usize,
    lines: usize,
    bytes: usize,
    dropped: usize,
    /// Lines before this one have been handed out by `news`, and how many of those were taken back since.
    told: usize,
    taken_back: usize,
    cleared: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    pub bytes: &'a [u8],
    pub wrapped: bool,
}

impl Page {
    fn line(&self, index: usize) -> Line<'_> {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before] & !WRAPPED);
        let end = self.ends[index];
        Line { bytes: &self.bytes[start as usize..(end & !WRAPPED) as usize], wrapped: end & WRAPPED != 0 }
    }
}

impl Ring {
    pub fn len(&self) -> usize {
        self.lines
    }

    /// How many lines there were before the first that is kept.
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    pub fn push(&mut self, line: &[u8], wrapped: bool) {
        if self.pages.back().is_none_or(|page| page.bytes.len() + line.len() > PAGE) {
            if let Some(full) = self.pages.back_mut() {
                full.bytes.shrink_to_fit();
                full.ends.shrink_to_fit();
            }
            self.pages.push_back(Page::default());
        }
        let page = self.pages.back_mut().expect("there is one");
        page.bytes.extend_from_slice(line);
        page.ends.push(page.bytes.len() as u32 | if wrapped { WRAPPED } else { 0 });
        self.bytes += line.len();
        self.lines += 1;
        while self.lines > MAX_LINES || self.bytes > MAX_BYTES {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        let page = &self.pages[0];
        self.bytes -= page.line(self.skip).bytes.len();
        self.lines -= 1;
        self.dropped += 1;
        self.skip += 1;
        if self.skip == page.ends.len() {
            self.pages.pop_front();
            self.skip = 0;
        }
    }

    /// Takes the newest line back.
    pub fn pop(&mut self) -> Option<(Vec<u8>, bool)> {
        if self.lines == 0 {
            return None;
        }
        let page = self.pages.back_mut()?;
        let last = page.ends.len() - 1;
        let line = page.line(last);
        let (bytes, wrapped) = (line.bytes.to_vec(), line.wrapped);
        page.ends.pop();
        page.bytes.truncate(page.bytes.len() - bytes.len());
        if page.ends.len() == if self.pages.len() == 1 { self.skip } else { 0 } {
            self.pages.pop_back();
            self.skip = if self.pages.is_empty() { 0 } else { self.skip };
        }
        self.bytes -= bytes.len();
        self.lines -= 1;
        if self.told > self.dropped + self.lines {
            self.told -= 1;
            self.taken_back += 1;
        }
        Some((bytes, wrapped))
    }

    pub fn clear(&mut self) {
        self.dropped += self.lines;
        self.pages.clear();
        (self.skip, self.lines, self.bytes, self.taken_back) = (0, 0, 0, 0);
        self.cleared = true;
    }

    pub fn line(&self, index: usize) -> Option<Line<'_>> {
        (index < self.lines).then(|| self.from(index).next()).flatten()
    }

    pub fn last(&self) -> Option<Line<'_>> {
        self.pages.back().map(|page| page.line(page.ends.len() - 1))
    }

    /// The lines from this one on.
    pub fn from(&self, index: usize) -> impl Iterator<Item = Line<'_>> {
        let mut before = self.skip + index;
        let mut page = 0;
        while let Some(first) = self.pages.get(page).filter(|first| before >= first.ends.len()) {
            before -= first.ends.len();
            page += 1;
        }
        self.pages.range(page.min(self.pages.len())..).enumerate().flat_map(move |(i, page)| {
            let start = if i == 0 { before } else { 0 };
            (start..page.ends.len()).map(move |line| page.line(line))
        })
    }

    /// Records of what happened since the last call, for `replay`.
    pub fn news(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        if std::mem::take(&mut self.cleared) {
            record(&mut out, CLEARED, &[]);
        }
        for _ in 0..std::mem::take(&mut self.taken_back) {
            record(&mut out, TAKEN_BACK, &[]);
        }
        let end = self.dropped + self.lines;
        for line in self.from(self.told.saturating_sub(self.dropped)) {
            record(&mut out, if line.wrapped { WRAPPED } else { 0 }, line.bytes);
        }
        self.told = end;
        out
    }

    /// Records of everything kept.
    pub fn all(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes + 4 * self.lines);
        for line in self.from(0) {
            record(&mut out, if line.wrapped { WRAPPED } else { 0 }, line.bytes);
        }
        out
    }

    /// Takes up records; a torn end is dropped.
    pub fn replay(&mut self, mut records: &[u8]) {
        while let Some((head, rest)) = records.split_first_chunk() {
            let head = u32::from_le_bytes(*head);
            match head & KIND {
                CLEARED => {
                    self.clear();
                    records = rest;
                }
                TAKEN_BACK => {
                    self.pop();
                    records = rest;
                }
                _ => {
                    let Some((line, rest)) = rest.split_at_checked((head & LENGTH) as usize) else {
                        break;
                    };
                    if std::str::from_utf8(line).is_ok() {
                        self.push(line, head & WRAPPED != 0);
                    }
                    records = rest;
                }
            }
        }
        self.told = self.dropped + self.lines;
        (self.taken_back, self.cleared) = (0, false);
    }
}

/// How many lines longer these records make a history.
pub fn lines_in(mut records: &[u8]) -> i64 {
    let mut lines = 0;
    while let Some((head, rest)) = records.split_first_chunk() {
        let head = u32::from_le_bytes(*head);
        records = match head & KIND {
            CLEARED => rest,
            TAKEN_BACK => {
                lines -= 1;
                rest
            }
            _ => {
                lines += 1;
                rest.get((head & LENGTH) as usize..).unwrap_or_default()
            }
        };
    }
    lines
}

const CLEARED: u32 = 1 << 30;
const TAKEN_BACK: u32 = 1 << 29;
const KIND: u32 = CLEARED | TAKEN_BACK;
const LENGTH: u32 = TAKEN_BACK - 1;

fn record(out: &mut Vec<u8>, flags: u32, line: &[u8]) {
    out.extend_from_slice(&(line.len() as u32 | flags).to_le_bytes());
    out.extend_from_slice(line);
}
