//! Whatever sessions print and whoever attaches, types and resizes: what clients were sent, change by change, is on a
//! second parser what somebody who attaches then is sent at once, and what the mux believes they see.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::tests::{Capsule, ONE, TWO};
use super::*;
use crate::screen::tests::output;
use crate::wire::{AttachMode, ServerFrame};

fn terminal(size: Size) -> vt100::Parser {
    vt100::Parser::new(size.rows.try_into().unwrap(), size.cols.try_into().unwrap(), 0)
}

/// Its text, its cells, where the cursor is, and what it does with keys and the mouse. A blank is one however it came.
fn shows(terminal: &vt100::Parser) -> (String, Vec<String>, String) {
    let screen = terminal.screen();
    let (rows, cols) = (screen.size().0.get(), screen.size().1.get());
    let text: Vec<_> = screen.rows(0, cols).map(|row| row.trim_end().to_owned()).collect();
    let cells = (0..rows).flat_map(|row| (0..cols).filter_map(move |col| Some((row, col, screen.cell(row, col)?))));
    let cells = cells.map(|(row, col, cell)| {
        let blank = cell.contents().trim().is_empty() && !cell.is_wide_continuation();
        let unseen = blank && !cell.underline() && !cell.inverse();
        let ink = (!unseen).then(|| (cell.fgcolor(), cell.bold(), cell.dim(), cell.italic(), cell.underline(), cell.inverse()));
        format!("{row},{col} {:?} {:?} {ink:?}", if blank { "" } else { cell.contents() }, cell.bgcolor())
    });
    let cursor = (!screen.hide_cursor()).then(|| screen.cursor_position());
    let modes = screen.input_mode_formatted();
    // The shape of a cursor that is not there is told when it is.
    let shape = modes.rfind("\x1b[").filter(|_| cursor.is_none() && modes.ends_with(" q"));
    let modes = shape.map_or(modes.as_str(), |at| &modes[..at]);
    (text.join("\n"), cells.collect(), format!("{cursor:?} {modes:?}"))
}

#[derive(Debug, Clone)]
enum Move {
    Prints(prop::sample::Index, Vec<u8>),
    Types(&'static [u8]),
    Clicks(u8, u16, u16, bool),
    Resizes(Size),
    Focus(bool),
    Waits(Millis),
    /// Takes what it was sent.
    Reads,
    /// Somebody else comes and goes.
    Watches,
    Ends(prop::sample::Index),
}

fn size() -> impl Strategy<Value = Size> {
    (6..40u16, 3..120u16).prop_map(|(rows, cols)| Size { rows, cols })
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    // A palette, its shortcuts, splits, tabs, zoom, history, search, help, and what leaves each of them.
    #[rustfmt::skip]
    const KEYS: &[&[u8]] = &[
        b"a", b"s", b"x", b"%", b"\"", b"c", b"z", b"n", b"p", b"u", b"i", b"?", b"[", b"/", b"\x1c", b"\x1c%s", b"\x1cn", b"\x1cz", b"\x1b", b"\r", b"\t",
        b"\x11", b"\x1b[A", b"\x1b[B", b"\x1b[C", b"\x1b[D", b"\x1b[5~", b"\x1b[6~", b"\x1b[200~pasted\x1b[201~", b"\x1b[1;3C", b"\x1b[1;3D",
    ];
    let step = prop_oneof![
        8 => (any::<prop::sample::Index>(), output()).prop_map(|(session, bytes)| Move::Prints(session, bytes)),
        6 => prop::sample::select(KEYS).prop_map(Move::Types),
        2 => (prop_oneof![Just(0u8), Just(2), Just(32), Just(64), Just(65)], 1..120u16, 1..40u16, any::<bool>())
            .prop_map(|(button, col, row, down)| Move::Clicks(button, col, row, down)),
        1 => size().prop_map(Move::Resizes),
        1 => any::<bool>().prop_map(Move::Focus),
        3 => (0..400u64).prop_map(Move::Waits),
        6 => Just(Move::Reads),
        1 => Just(Move::Watches),
        1 => any::<prop::sample::Index>().prop_map(Move::Ends),
    ];
    proptest::collection::vec(step, 1..40)
}

/// A capsule and the terminals of its clients.
struct Scene {
    capsule: Capsule,
    terminals: BTreeMap<ClientId, vt100::Parser>,
    size: Size,
    sessions: Vec<SessionId>,
    /// The last session is gone, or the client was sent away.
    over: bool,
}

impl Scene {
    fn new(size: Size) -> Self {
        let mut scene = Self { capsule: Capsule::new(), terminals: BTreeMap::new(), size, sessions: Vec::new(), over: false };
        scene.step(Input::Ready { initial: "claude", kept: None });
        scene.attach(ONE, AttachMode::Takeover, size);
        scene
    }

    fn attach(&mut self, client: ClientId, mode: AttachMode, size: Size) {
        self.terminals.insert(client, terminal(size));
        let ctx = Ctx { mode, ..Ctx::default() };
        let hello = Hello { rows: size.rows, cols: size.cols, term: "xterm-256color".into(), ctx, ..Hello::default() };
        self.step(Input::Attached { client, hello });
    }

    fn step(&mut self, input: Input<'_>) {
        let mut effects = VecDeque::from(self.capsule.step(input));
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Spawn { session, .. } => {
                    self.sessions.push(session);
                    effects.extend(self.capsule.step(Input::Spawned { session, started_at: 0, history: None }));
                }
                Effect::Kill(session) => {
                    self.sessions.retain(|s| *s != session);
                    effects.extend(self.capsule.step(Input::Ended { session, ended: Ended { at: 0, code: Some(0) } }));
                }
                Effect::Send { client, frame: ServerFrame::Output(bytes) } => {
                    if let Some(terminal) = self.terminals.get_mut(&client) {
                        terminal.process(&bytes);
                    }
                }
                Effect::Finish(_) | Effect::Close(ONE) | Effect::Send { client: ONE, frame: ServerFrame::Shutdown(_) } => self.over = true,
                _ => {}
            }
        }
    }

    fn frame(&mut self, frame: ClientFrame) {
        self.step(Input::Frame { client: ONE, frame });
    }

    fn make(&mut self, what: Move) {
        match what {
            Move::Prints(at, bytes) => {
                let session = *at.get(&self.sessions);
                self.step(Input::Output { session, bytes: &bytes });
            }
            Move::Types(keys) => self.frame(ClientFrame::Input(keys.to_vec())),
            Move::Clicks(button, col, row, down) => {
                let end = if down { 'M' } else { 'm' };
                self.frame(ClientFrame::Input(format!("\x1b[<{button};{col};{row}{end}").into_bytes()));
            }
            Move::Resizes(size) => {
                self.size = size;
                // What a terminal makes of its picture then is its own affair.
                self.terminals.insert(ONE, terminal(size));
                self.frame(ClientFrame::Resize { rows: size.rows, cols: size.cols });
            }
            Move::Focus(focus) => self.frame(if focus { ClientFrame::FocusIn } else { ClientFrame::FocusOut }),
            Move::Waits(ms) => {
                self.capsule.now += ms;
                self.step(Input::Tick);
            }
            Move::Reads => self.step(Input::Drained(ONE)),
            Move::Watches => {
                self.attach(TWO, AttachMode::Watch, Size { rows: 10, cols: 30 });
                self.step(Input::Gone(TWO));
            }
            Move::Ends(at) => {
                let session = *at.get(&self.sessions);
                self.sessions.retain(|s| *s != session);
                self.step(Input::Ended { session, ended: Ended { at: 0, code: Some(0) } });
            }
        }
        self.over |= self.sessions.is_empty();
    }

    /// Until nothing more comes: messages have gone, pictures are complete.
    fn settle(&mut self) {
        for _ in 0..40 {
            self.capsule.now += 1000;
            for input in [Input::Tick, Input::Drained(ONE), Input::Drained(TWO)] {
                self.step(input);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 150 } else { 4000 }))]

    #[test]
    fn what_was_sent_in_pieces_is_what_is_there(size in size(), moves in moves()) {
        let mut scene = Scene::new(size);
        for what in moves {
            scene.make(what);
            if scene.over {
                return Ok(());
            }
        }
        scene.settle();
        // Another of the same size: nobody's panes change.
        scene.attach(TWO, AttachMode::Shared, scene.size);
        scene.settle();
        let (pieces, whole) = (shows(&scene.terminals[&ONE]), shows(&scene.terminals[&TWO]));
        prop_assert_eq!(&pieces.0, &scene.capsule.mux.picture.text());
        for (at, (pieces, whole)) in pieces.1.iter().zip(&whole.1).enumerate() {
            prop_assert_eq!(pieces, whole, "cell {}", at);
        }
        prop_assert_eq!(pieces, whole);
    }
}
