//! One session's screen: program output in; pictures, text, history and the answers to terminal queries out.
//! `vt100` holds the grid; what it lacks is kept beside it, and a filter in front of it sees every sequence first.
//! Absent: who looks at it, files, and time.

mod checkpoint;
mod clear;
mod csi;
mod extras;
mod fast;
mod filter;
mod line;
mod osc;
mod paint;
mod pen;
mod ring;
mod search;
mod size;
mod state;
mod text;

#[cfg(test)]
pub(crate) mod tests;

pub use crate::frame::Size;
pub use ring::{News, Store, Stored};
pub use search::Found;
pub use state::{Colours, Mark, MarkKind, PaneModes, Policy, Progress, Requests};

use vt100::{Callbacks, Parser};

use extras::Extras;
use filter::State;
use paint::Dirt;
use pen::Pen;
use ring::Ring;
use state::{Charsets, Modes, Side, Told};

pub struct Screen {
    parser: Parser<Beside>,
    policy: Policy,
    colours: Colours,
    /// Where the filter is in the output, and the torn sequence or character it waits to see the rest of.
    state: State,
    carry: Vec<u8>,
    pen: Pen,
    /// The mark that goes behind each character, see `extras`.
    pen_name: extras::Name,
    charsets: Charsets,
    modes: Modes,
    /// Column by column, whether a tab stops there. None: every eight.
    tabs: Option<Vec<bool>>,
    /// The main screen and the alternate one.
    sides: [Side; 2],
    alternate_seen: bool,
    /// Text cannot go to vt100 as it comes.
    rich: bool,
    /// There is a U+FE0F in this piece of output.
    pictures: bool,
    /// The narrow character just printed with a mark, in case U+FE0F widens it.
    after: Option<char>,
    /// vt100's cursor, and whether what it has not been given yet moves it to the right.
    at: (u16, u16),
    loose: bool,
    told: Told,
    dirt: Dirt,
    requests: Requests,
}

/// What vt100 tells of while it works.
#[derive(Default)]
struct Beside {
    ring: Ring,
    extras: Extras,
    writer: line::Writer,
    bell: bool,
    scrolled: bool,
    /// Rows that leave are on the ring already, or are not worth keeping.
    mute: bool,
}

impl Callbacks for Beside {
    fn audible_bell(&mut self, _: &mut vt100::Screen) {
        self.bell = true;
    }

    fn on_scroll(&mut self, row: vt100::capture::RowContents<'_>, alternate: bool) {
        self.scrolled = true;
        if !alternate && !self.mute {
            let wrapped = self.writer.row(&row, &self.extras);
            self.ring.push(&self.writer.line, wrapped);
        }
    }
}

impl Screen {
    pub fn new(size: Size, policy: Policy) -> Self {
        let (rows, cols) = size::cells(size);
        Self {
            parser: Parser::new_with_callbacks(rows, cols, 0, Beside::default()),
            policy,
            colours: Colours::default(),
            state: State::Ground,
            carry: Vec::new(),
            pen: Pen::default(),
            pen_name: 0,
            charsets: Charsets::default(),
            modes: Modes::default(),
            tabs: None,
            sides: [Side::new(rows.get()), Side::new(rows.get())],
            alternate_seen: false,
            rich: false,
            pictures: false,
            after: None,
            at: (0, 0),
            loose: false,
            told: Told::default(),
            dirt: Dirt::new(rows.get()),
            requests: Requests::default(),
        }
    }

    /// After a panic in it: empty, but for the scrollback and what the program has told.
    pub fn begin_anew(&mut self, size: Size) {
        let mut anew = Self::new(size, self.policy);
        anew.colours = self.colours;
        anew.told = std::mem::take(&mut self.told);
        anew.beside().ring = std::mem::take(&mut self.beside().ring);
        *self = anew;
    }

    pub fn process(&mut self, bytes: &[u8]) -> Requests {
        if self.carry.is_empty() {
            self.run(bytes);
        } else {
            let mut joined = std::mem::take(&mut self.carry);
            joined.extend_from_slice(bytes);
            self.run(&joined);
        }
        self.requests.bell |= std::mem::take(&mut self.beside().bell);
        std::mem::take(&mut self.requests)
    }

    /// False in the midst of an escape or a character.
    pub fn is_between_sequences(&self) -> bool {
        matches!(self.state, State::Ground) && self.carry.is_empty()
    }

    pub fn set_colours(&mut self, colours: Colours) {
        self.colours = colours;
    }

    pub fn title(&self) -> &str {
        &self.told.title
    }

    /// The window's short name, for a tab or an icon; empty when there is none but the title.
    pub fn icon(&self) -> &str {
        &self.told.icon
    }

    /// The folder a program said it is in: an absolute path of this machine.
    pub fn cwd(&self) -> Option<&str> {
        self.told.cwd.as_deref()
    }

    pub fn progress(&self) -> Option<Progress> {
        self.told.progress
    }

    /// The last mark of a shell that says where its prompts and commands are.
    pub fn mark(&self) -> Option<Mark> {
        self.told.mark
    }

    pub fn cursor(&self) -> (u16, u16) {
        let (row, col) = self.at;
        (row, col.min(self.size().cols - 1))
    }

    pub fn cursor_visible(&self) -> bool {
        !self.vt().hide_cursor()
    }

    /// As DECSCUSR numbers it.
    pub fn cursor_shape(&self) -> u8 {
        self.vt().cursor_style() as u8
    }

    pub fn modes(&self) -> PaneModes {
        let vt = self.vt();
        PaneModes {
            alternate: vt.alternate_screen(),
            mouse: vt.mouse_protocol_mode(),
            mouse_encoding: vt.mouse_protocol_encoding(),
            focus_events: self.modes.focus_events,
            bracketed_paste: vt.bracketed_paste(),
            app_cursor: vt.application_cursor(),
            app_keypad: vt.application_keypad(),
            alternate_scroll: self.modes.alternate_scroll,
            kitty_flags: self.side().kitty.last().copied().unwrap_or(0),
            modify_other_keys: self.modes.modify_other_keys,
        }
    }

    pub fn wants_focus_events(&self) -> bool {
        self.modes.focus_events
    }

    /// The program is in the midst of a frame it wants shown whole.
    pub fn is_painting(&self) -> bool {
        self.modes.synchronized
    }

    pub fn stop_waiting_for_painting(&mut self) {
        self.modes.synchronized = false;
    }

    fn vt(&self) -> &vt100::Screen {
        self.parser.screen()
    }

    fn beside(&mut self) -> &mut Beside {
        self.parser.callbacks_mut()
    }

    fn is_alternate(&self) -> bool {
        self.vt().alternate_screen()
    }

    fn side(&self) -> &Side {
        &self.sides[usize::from(self.is_alternate())]
    }

    fn side_mut(&mut self) -> &mut Side {
        let side = usize::from(self.is_alternate());
        &mut self.sides[side]
    }

    /// Gives bytes to vt100 and notes which rows they may have changed. They move the cursor down at most: by line
    /// feeds and wrapping.
    fn feed(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let before = self.at.0;
        self.tell(bytes);
        let side = &self.sides[usize::from(self.is_alternate())];
        // vt100 tells of scrolling only at the top of the screen.
        if std::mem::take(&mut self.parser.callbacks_mut().scrolled) {
            self.dirt.all();
        } else if side.top > 0 && self.at.0 == side.bottom {
            self.dirt.rows(side.top, side.bottom);
        }
        self.dirt.rows(before.min(self.at.0), before.max(self.at.0));
    }

    /// Gives bytes to vt100 that change no cell, or only such as the caller notes.
    fn tell(&mut self, bytes: &[u8]) {
        self.parser.process(bytes);
        self.loose = false;
        self.at = self.parser.screen().cursor_position();
    }

    /// After each change of the pen.
    fn repen(&mut self) {
        let name = match self.parser.callbacks_mut().extras.name(&self.pen) {
            Some(name) => name,
            None => {
                self.collect_extras();
                self.parser.callbacks_mut().extras.name(&self.pen).unwrap_or(0)
            }
        };
        self.pen_name = name;
        self.after = None;
        self.set_rich();
    }

    fn set_rich(&mut self) {
        self.rich = self.pen_name != 0
            || self.modes.insert
            || !self.modes.autowrap
            || self.modes.linefeed
            || self.tabs.is_some()
            || self.charsets.is_graphics()
            || self.pictures;
    }

    fn collect_extras(&mut self) {
        let mut used = vec![false; extras::MAX + 1];
        for other in [false, true] {
            if other && !self.alternate_seen {
                continue;
            }
            self.on_side(other, |screen| {
                let Size { rows, cols } = screen.size();
                for (row, col) in (0..rows).flat_map(|row| (0..cols).map(move |col| (row, col))) {
                    let contents = screen.vt().cell(row, col).map_or("", vt100::Cell::contents);
                    if let Some((_, name, _)) = extras::parted(contents) {
                        used[usize::from(name)] = true;
                    }
                }
            });
        }
        self.beside().extras.keep(|name| used[usize::from(name)]);
    }

    /// vt100 shows only the current grid. Mode 47 swaps without clearing or moving a cursor, so it is a window onto the
    /// other one.
    fn on_side<T>(&mut self, alternate: bool, f: impl FnOnce(&mut Self) -> T) -> T {
        let here = self.is_alternate();
        let swap = |to: bool| if to { b"\x1b[?47h" } else { b"\x1b[?47l" };
        if alternate != here {
            self.tell(swap(alternate));
        }
        let result = f(self);
        if alternate != here {
            self.tell(swap(here));
        }
        result
    }
}
