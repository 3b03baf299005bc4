//! Styles that vt100's cells have no room for. Each goes by a zero-width code point of our own that is printed behind
//! the character, so that it scrolls, shifts and disappears together with its cell. Absent: which cells there are.

use std::collections::HashMap;

use super::pen::{Extra, Pen};

/// Unassigned and default-ignorable up to U+E0FFF: they have no width, and no text has a use for them.
const FIRST: u32 = 0xe_0200;
const LAST: u32 = 0xe_0fff;
const MARK_BYTES: usize = 4;
/// A link may be long, so fewer than there are code points.
pub const MAX: usize = 1024;

#[derive(Default)]
pub struct Extras {
    table: Vec<Option<Extra>>,
    names: HashMap<Extra, u16>,
    free: Vec<u16>,
}

/// Names an entry of the table; 0 is "nothing extra".
pub type Name = u16;

pub fn mark(name: Name) -> char {
    char::from_u32(FIRST + u32::from(name) - 1).unwrap_or('\u{e0fff}')
}

pub fn is_mark(c: char) -> bool {
    (FIRST..=LAST).contains(&u32::from(c))
}

/// The text of a cell parted into what is before the mark, what the mark names, and what is behind it.
pub fn parted(contents: &str) -> Option<(&str, Name, &str)> {
    let bytes = contents.as_bytes();
    if bytes.len() <= MARK_BYTES {
        return None;
    }
    let at = bytes.windows(3).position(|three| three[0] == 0xf3 && three[1] == 0xa0 && three[2] >= 0x88)?;
    let (before, rest) = contents.split_at(at);
    let mark = rest.chars().next()?;
    Some((before, (u32::from(mark) - FIRST + 1) as Name, &rest[MARK_BYTES..]))
}

impl Extras {
    pub fn get(&self, name: Name) -> Option<&Extra> {
        self.table.get(usize::from(name).checked_sub(1)?)?.as_ref()
    }

    /// The name of what is extra about the pen. None: the table is full.
    pub fn name(&mut self, pen: &Pen) -> Option<Name> {
        let Some(extra) = pen.extra() else {
            return Some(0);
        };
        if let Some(name) = self.names.get(&extra) {
            return Some(*name);
        }
        let name = match self.free.pop() {
            Some(name) => {
                self.table[usize::from(name) - 1] = Some(extra.clone());
                name
            }
            None if self.table.len() < MAX => {
                self.table.push(Some(extra.clone()));
                self.table.len() as Name
            }
            None => return None,
        };
        self.names.insert(extra, name);
        Some(name)
    }

    /// Forgets all but what `used` says is still in some cell.
    pub fn keep(&mut self, used: impl Fn(Name) -> bool) {
        for name in 1..=self.table.len() as Name {
            if let Some(extra) = self.table[usize::from(name) - 1].take_if(|_| !used(name)) {
                self.names.remove(&extra);
                self.free.push(name);
            }
        }
    }
}
