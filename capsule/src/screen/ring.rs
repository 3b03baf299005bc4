//! The lines that have left a screen, oldest dropped first: each as bytes of text, SGR and OSC 8 that start with a plain
//! pen. Lines are counted from the session's first, so a number stays true. Memory is held once: what has been handed out
//! for the spool is read back from there when somebody looks. Absent: what the bytes look like, and what keeps them.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::VecDeque;

pub const MAX_LINES: usize = 10_000;
/// Lines may be wide and gaudy; memory is bounded whatever they hold.
const MAX_BYTES: usize = 6 << 20;
/// What is read back at once.
const PAGE: usize = 16 << 10;

/// Keeps the records that are handed out, one behind the other, each under the place of its first byte.
pub trait Store {
    /// What cannot be read is left out.
    fn read(&self, at: u64, len: usize) -> Vec<u8>;
}

/// A store and what is in it from a place on.
pub struct Stored {
    pub store: Box<dyn Store + Send>,
    pub at: u64,
    pub records: Vec<u8>,
}

/// What is to be stored behind everything before, and from which place on the store is still needed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    pub records: Vec<u8>,
    pub needed: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line<'a> {
    pub bytes: Cow<'a, [u8]>,
    pub wrapped: bool,
}

/// Before each line: its length, and whether it goes on in the next; or that the line before is taken back.
const WRAPPED: u32 = 1 << 31;
const TAKEN_BACK: u32 = 1 << 30;
const LENGTH: u32 = TAKEN_BACK - 1;
const HEAD: usize = 4;

/// Lines as records, and where each begins.
#[derive(Default)]
struct Lines {
    records: Vec<u8>,
    starts: Vec<u32>,
}

/// Lines that the store has.
struct Page {
    at: u64,
    len: usize,
    /// The number of the first, and how many of them have not been taken back.
    first: usize,
    lines: usize,
}

#[derive(Default)]
pub struct Ring {
    store: Option<Box<dyn Store>>,
    /// It takes more.
    storing: bool,
    pages: VecDeque<Page>,
    /// All of their bytes.
    paged: usize,
    /// The page that was read last.
    read: RefCell<Option<(u64, Lines)>>,
    /// Lines that the store does not have, the first of them with the number `told`.
    recent: Lines,
    told: usize,
    /// The number of the first line that is kept; `recent` may begin before it.
    dropped: usize,
    lines: usize,
    /// Lines that the store has to take back, and where it will put what comes next.
    taken_back: usize,
    end: u64,
}

impl Lines {
    fn of(records: Vec<u8>) -> Self {
        let starts = walk(&records).map(|(start, _)| start as u32).collect();
        Self { records, starts }
    }

    fn push(&mut self, line: &[u8], wrapped: bool) {
        self.starts.push(self.records.len() as u32);
        self.records.extend_from_slice(&(line.len() as u32 | if wrapped { WRAPPED } else { 0 }).to_le_bytes());
        self.records.extend_from_slice(line);
    }

    fn get(&self, index: usize) -> Option<Line<'_>> {
        let (head, rest) = self.records[*self.starts.get(index)? as usize..].split_first_chunk::<HEAD>()?;
        let head = u32::from_le_bytes(*head);
        Some(Line { bytes: Cow::Borrowed(rest.get(..(head & LENGTH) as usize)?), wrapped: head & WRAPPED != 0 })
    }

    fn drop_first(&mut self, count: usize) {
        let gone = self.starts.get(count).map_or(self.records.len(), |start| *start as usize);
        self.records.drain(..gone);
        self.starts.drain(..count);
        self.starts.iter_mut().for_each(|start| *start -= gone as u32);
    }
}

/// Where each record begins, and its head; a torn end is left out.
fn walk(records: &[u8]) -> impl Iterator<Item = (usize, u32)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let (start, head) = (at, u32::from_le_bytes(*records.get(at..)?.first_chunk()?));
        at += size(head);
        (at <= records.len()).then_some((start, head))
    })
}

fn size(head: u32) -> usize {
    HEAD + if head & TAKEN_BACK != 0 { 0 } else { (head & LENGTH) as usize }
}

impl Ring {
    pub fn len(&self) -> usize {
        self.lines
    }

    /// How many lines there were before the first that is kept.
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    /// Begins with what is in a store, and gives it everything from now on.
    pub fn begin(&mut self, stored: Stored) {
        *self = Self { store: Some(stored.store), storing: true, end: stored.at + stored.records.len() as u64, ..Self::default() };
        for (start, head) in walk(&stored.records) {
            if head & TAKEN_BACK != 0 {
                if let Some(page) = self.pages.back_mut() {
                    page.lines -= 1;
                    self.told -= 1;
                    self.forget();
                }
                continue;
            }
            self.add(stored.at + start as u64, size(head));
        }
        self.lines = self.told;
        self.bound();
    }

    pub fn stop_storing(&mut self) {
        self.storing = false;
    }

    /// The store has one more line.
    fn add(&mut self, at: u64, len: usize) {
        match self.pages.back_mut() {
            Some(page) if page.at + page.len as u64 == at && page.len + len <= PAGE => {
                page.len += len;
                page.lines += 1;
            }
            _ => self.pages.push_back(Page { at, len, first: self.told, lines: 1 }),
        }
        self.paged += len;
        self.told += 1;
    }

    /// Pages of which no line is kept any more.
    fn forget(&mut self) {
        while let Some(page) = self.pages.pop_front_if(|page| page.first + page.lines <= self.dropped) {
            self.paged -= page.len;
        }
        while let Some(page) = self.pages.pop_back_if(|page| page.lines == 0 || page.first + page.lines <= self.dropped) {
            self.paged -= page.len;
        }
    }

    pub fn push(&mut self, line: &[u8], wrapped: bool) {
        self.recent.push(line, wrapped);
        self.lines += 1;
        self.bound();
    }

    fn bound(&mut self) {
        let before = self.dropped;
        while self.lines > MAX_LINES || self.bytes() > MAX_BYTES {
            self.dropped += 1;
            self.lines -= 1;
            if self.pages.front().is_some_and(|page| page.first + page.lines <= self.dropped) {
                self.forget();
            }
        }
        // Now and then, or each line would move all that are behind it.
        if self.dropped > before && self.gone() > self.recent.starts.len() / 2 {
            self.trim();
        }
    }

    fn bytes(&self) -> usize {
        let Lines { records, starts } = &self.recent;
        self.paged + records.len() - starts.get(self.gone()).map_or(records.len(), |start| *start as usize)
    }

    /// Lines at the beginning of `recent` that are not kept any more.
    fn gone(&self) -> usize {
        self.dropped.saturating_sub(self.told)
    }

    fn trim(&mut self) {
        let gone = self.gone();
        self.recent.drop_first(gone);
        self.told += gone;
    }

    /// Takes the newest line back.
    pub fn pop(&mut self) -> Option<(Vec<u8>, bool)> {
        let line = self.last()?;
        let popped = (line.bytes.into_owned(), line.wrapped);
        self.lines -= 1;
        if let Some(start) = self.recent.starts.pop() {
            self.recent.records.truncate(start as usize);
        } else if let Some(page) = self.pages.back_mut() {
            page.lines -= 1;
            self.told -= 1;
            self.taken_back += 1;
            self.forget();
        }
        Some(popped)
    }

    pub fn clear(&mut self) {
        self.dropped += self.lines;
        self.lines = 0;
        self.forget();
        self.trim();
    }

    pub fn line(&self, index: usize) -> Option<Line<'_>> {
        if index >= self.lines {
            return None;
        }
        let number = self.dropped + index;
        if let Some(recent) = number.checked_sub(self.told) {
            return self.recent.get(recent);
        }
        let page = &self.pages[self.pages.partition_point(|page| page.first <= number).checked_sub(1)?];
        let mut read = self.read.borrow_mut();
        if read.as_ref().is_none_or(|(at, _)| *at != page.at) {
            let records = self.store.as_ref().map(|store| store.read(page.at, page.len)).unwrap_or_default();
            *read = Some((page.at, Lines::of(records)));
        }
        let line = read.as_ref().and_then(|(_, lines)| lines.get(number - page.first));
        Some(line.map_or(Line { bytes: Cow::Borrowed(b""), wrapped: false }, |line| Line { bytes: line.bytes.into_owned().into(), ..line }))
    }

    pub fn last(&self) -> Option<Line<'_>> {
        self.line(self.lines.checked_sub(1)?)
    }

    /// The lines from this one on.
    pub fn from(&self, index: usize) -> impl Iterator<Item = Line<'_>> {
        (index..self.lines).filter_map(|index| self.line(index))
    }

    /// What the store has to be given now; without a store nothing, and all lines stay here.
    pub fn news(&mut self) -> News {
        if !self.storing {
            return News::default();
        }
        self.trim();
        *self.read.get_mut() = None;
        let Lines { records, starts } = std::mem::take(&mut self.recent);
        let before = std::mem::take(&mut self.taken_back) * HEAD;
        let base = self.end + before as u64;
        for (i, start) in starts.iter().enumerate() {
            let end = starts.get(i + 1).map_or(records.len(), |end| *end as usize);
            self.add(base + u64::from(*start), end - *start as usize);
        }
        let mut out = records;
        if before > 0 {
            out.splice(..0, TAKEN_BACK.to_le_bytes().into_iter().cycle().take(before));
        }
        self.end += out.len() as u64;
        News { records: out, needed: self.pages.front().map_or(self.end, |page| page.at) }
    }
}

#[cfg(test)]
pub mod tests {
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;

    use super::*;

    /// A spool's part of it.
    #[derive(Default, Clone)]
    pub struct Memory(Arc<Mutex<(Vec<u8>, u64)>>);

    impl Store for Memory {
        fn read(&self, at: u64, len: usize) -> Vec<u8> {
            let (bytes, needed) = &*self.0.lock().unwrap();
            assert!(at >= *needed, "read where nothing is kept any more");
            bytes[at as usize..at as usize + len].to_vec()
        }
    }

    impl Memory {
        pub fn take(&self, news: &News) {
            let mut memory = self.0.lock().unwrap();
            memory.0.extend_from_slice(&news.records);
            assert!(news.needed >= memory.1);
            memory.1 = news.needed;
        }

        pub fn stored(&self) -> Stored {
            let (bytes, needed) = &*self.0.lock().unwrap();
            Stored { store: Box::new(self.clone()), at: *needed, records: bytes[*needed as usize..].to_vec() }
        }
    }

    fn kept(ring: &Ring) -> Vec<(Vec<u8>, bool)> {
        ring.from(0).map(|line| (line.bytes.into_owned(), line.wrapped)).collect()
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push { lines: usize, len: usize },
        Pop(usize),
        Clear,
        Store,
        Full,
        Restart,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let len = prop_oneof![4 => 0..200usize, 1 => 0..3000usize];
        let step = prop_oneof![
            4 => (0..300usize, len).prop_map(|(lines, len)| Step::Push { lines, len }),
            1 => (4000..11_000usize, 0..800usize).prop_map(|(lines, len)| Step::Push { lines, len }),
            3 => (0..400usize).prop_map(Step::Pop),
            1 => Just(Step::Clear),
            4 => Just(Step::Store),
            1 => Just(Step::Full),
            1 => Just(Step::Restart),
        ];
        proptest::collection::vec(step, 1..25)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        /// Beside a plain list, without a store, with one, and with one that is full after a while.
        #[test]
        fn a_ring_is_a_bounded_list(steps in steps(), mut storing in any::<bool>()) {
            let memory = Memory::default();
            let (mut ring, mut list) = (Ring::default(), Vec::new());
            if storing {
                ring.begin(memory.stored());
            }
            let mut number = 0;
            for step in steps {
                let (dropped, before) = (ring.dropped(), list.len());
                match step {
                    Step::Push { lines, len } => {
                        for _ in 0..lines {
                            let line = (format!("{number:0len$}").into_bytes(), number % 3 == 0);
                            ring.push(&line.0, line.1);
                            list.push(line);
                            number += 1;
                        }
                        list.drain(..ring.dropped() - dropped);
                    }
                    Step::Pop(count) => {
                        for _ in 0..count {
                            prop_assert_eq!(ring.pop(), list.pop());
                        }
                    }
                    Step::Clear => {
                        ring.clear();
                        list.clear();
                        prop_assert_eq!(ring.dropped() - dropped, before);
                    }
                    Step::Store if storing => memory.take(&ring.news()),
                    Step::Store => prop_assert_eq!(ring.news(), News::default()),
                    Step::Full => {
                        ring.stop_storing();
                        storing = false;
                    }
                    Step::Restart if storing => {
                        memory.take(&ring.news());
                        ring = Ring::default();
                        ring.begin(memory.stored());
                        // Of the first page lines that were dropped may be there again.
                        prop_assert!(ring.len() >= list.len());
                        let more = ring.len() - list.len();
                        list.splice(..0, kept(&ring).drain(..more));
                    }
                    Step::Restart => {}
                }
                prop_assert_eq!(ring.len(), list.len());
                prop_assert!(ring.len() <= MAX_LINES && ring.bytes() <= MAX_BYTES);
                prop_assert!(list.iter().map(|line| line.0.len()).sum::<usize>() <= MAX_BYTES);
                prop_assert!(ring.recent.records.len() <= 2 * (MAX_BYTES + PAGE));
                for index in [0, list.len() / 3, list.len().saturating_sub(1), list.len()] {
                    let line = ring.line(index).map(|line| (line.bytes.into_owned(), line.wrapped));
                    prop_assert_eq!(line.as_ref(), list.get(index));
                }
                prop_assert_eq!(ring.last().map(|line| line.bytes.into_owned()), list.last().map(|line| line.0.clone()));
            }
            prop_assert_eq!(kept(&ring), list);
        }

        #[test]
        fn garbage_in_a_store_does_no_harm(records in any::<Vec<u8>>()) {
            let mut ring = Ring::default();
            ring.begin(Stored { store: Box::new(Memory::default()), at: 0, records: [&records[..], &2u32.to_le_bytes(), b"ab", &TAKEN_BACK.to_le_bytes()].concat() });
            ring.push(b"last", false);
            prop_assert_eq!(ring.last().map(|line| line.bytes.into_owned()), Some(b"last".to_vec()));
        }
    }
}
