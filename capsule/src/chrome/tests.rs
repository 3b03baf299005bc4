//! Pictures of the chrome as files in `tests/chrome/` (`UPDATE_CHROME=1` rewrites them), what keys and clicks do, and
//! that no size, label or key breaks anything.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::control::SessionState;
use crate::frame::{Cell, Color, Frame, Hue, Rect, Style, attr};
use crate::keys::{Bindings, Chord, Code, Command, Key, Mods, Source, Stroke, Then};
use crate::layout::{Axis, Direction, Layout, SessionId};
use crate::mouse::{Button, Kind, Mouse, Wheel};
use crate::screen::Size;
use crate::wire::Spawn;

const DARK: Look = Look { color: true, unicode: true, light: false };
const PLAIN: Look = Look { color: false, unicode: false, light: false };
const EXPORT: Command = Command::ExportFile { source: Source::Typed, then: Then::Nothing };
const STATES: [SessionState; 5] =
    [SessionState::Working, SessionState::Blocked, SessionState::Done, SessionState::Idle, SessionState::Unknown];

// ---- scenes ----

fn tab(label: &str, state: SessionState) -> TabLabel {
    TabLabel { label: label.into(), state, zoomed: false, recording: false }
}

fn tabs() -> Vec<TabLabel> {
    vec![
        TabLabel { recording: true, ..tab("Claude", SessionState::Working) },
        tab("shell", SessionState::Idle),
        TabLabel { zoomed: true, ..tab("日本語のタブ", SessionState::Blocked) },
    ]
}

fn bar() -> Bar {
    Bar {
        role: "the-architect".into(),
        instance: "frosty-otter".into(),
        branch: Some("feature/tab-strip".into()),
        dirty: true,
        session: Some(("Claude".into(), Some("MiniMax".into()), SessionState::Working)),
        recording: true,
        clients: 2,
        watchers: 1,
        leader: Some("Ctrl+\\".into()),
        mode: None,
    }
}

/// One beside two, and a fifth pane below all.
fn layout() -> Layout {
    let mut layout = Layout::default();
    let id = SessionId;
    layout.new_tab(id(1));
    layout.split(id(1), Axis::Stacked, id(4));
    layout.split(id(1), Axis::SideBySide, id(2));
    layout.split(id(2), Axis::Stacked, id(3));
    layout.split(id(4), Axis::SideBySide, id(5));
    layout.focus(id(2));
    layout
}

fn title(id: SessionId) -> Title {
    let (label, codename) =
        [("Claude", "amber"), ("Codex", "basalt"), ("shell", "cedar"), ("OpenCode", "delta"), ("日本", "ember")][id.0 as usize - 1];
    Title {
        label: label.into(),
        codename: codename.into(),
        state: STATES[id.0 as usize - 1],
        recording: id.0 == 1,
        scrolled: (id.0 == 2).then_some((120, 10_000)),
        found: (id.0 == 2).then_some((3, 17)),
    }
}

fn workspace(frame: &mut Frame, theme: &Theme) {
    let all = Rect::of(frame.size());
    let chrome = all.rows >= 8 && all.cols >= 20;
    let area = if chrome { Rect { row: 1, rows: all.rows - 2, ..all } } else { all };
    let layout = layout();
    borders(frame, &layout.place(area), SessionId(2), title, theme);
    if chrome {
        Strip::new(all.cols, &tabs(), 2, theme).paint(frame, Rect { rows: 1, ..all }, theme);
        bar().paint(frame, Rect { row: all.rows - 1, rows: 1, ..all }, theme);
    }
    let mut toasts = Toasts::default();
    toasts.push(0, Level::Good, "Copied 3 lines");
    toasts.push(0, Level::Error, "The export of /workspace/app/target/report.tar.gz failed: no space left on the device of the host");
    toasts.paint(frame, area, theme);
}

fn palette() -> Overlay {
    let selection = |command| matches!(command, Command::ExportFile { source: Source::Selection, .. });
    Overlay::palette(Bindings::default(), |command| selection(command).then(|| "nothing is selected".to_owned()))
}

fn agents() -> Overlay {
    let offer =
        |slug: &str, providers: &[&str]| AgentOffer { slug: slug.into(), providers: providers.iter().map(|p| (*p).into()).collect() };
    let offers = [offer("claude", &["Anthropic", "Z.AI", "MiniMax"]), offer("codex", &["OpenAI"]), offer("amp", &[])];
    Overlay::agents(Place::Split(Axis::Stacked), &offers)
}

fn exit() -> Overlay {
    let at_risk = |label: &str, codename: &str, state| AtRisk { label: label.into(), codename: codename.into(), state };
    Overlay::confirm(Question::Exit, &[at_risk("Claude", "amber", SessionState::Working), at_risk("shell", "cedar", SessionState::Idle)])
}

fn dirty() -> Overlay {
    let unsaved = |path: &str, changed, unpushed| Unsaved { path: path.into(), changed, unpushed, unknown: None };
    Overlay::dirty_exit(&[unsaved("/workspace/app", 3, 2), unsaved("/workspace/docs", 0, 1)])
}

fn info() -> Overlay {
    let facts = |facts: &[(&str, &str)]| facts.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let container = facts(&[
        ("Role", "the-architect"),
        ("Instance", "frosty-otter"),
        ("Image", "jackin/the-architect:4f0c2a"),
        ("Container", "9b1c0e7d55aa9b1c0e7d55aa9b1c0e7d55aa9b1c0e7d55aa9b1c0e7d55aa0042"),
    ]);
    let sessions = facts(&[("amber", "Claude, MiniMax, working since 2026-11-20T16:00:00Z"), ("cedar", "shell, idle")]);
    Overlay::info("Container", vec![("Instance".into(), container), ("Sessions".into(), sessions)])
}

fn search() -> Overlay {
    let mut search = Overlay::search("panicked at", true);
    search.set_found(Some((3, 17)));
    search
}

fn overlays() -> Vec<(&'static str, Overlay)> {
    let mut filtered = palette();
    for c in ":exit".chars() {
        filtered.key(&char(c));
    }
    vec![
        ("palette", palette()),
        ("filter", filtered),
        ("agents", agents()),
        ("exit", exit()),
        ("dirty", dirty()),
        ("info", info()),
        ("rename", Overlay::rename(SessionId(1), "日本語")),
        ("search", search()),
    ]
}

// ---- pictures ----

/// The rows, below them the styles as letters, below that what the letters mean.
fn picture(frame: &Frame) -> String {
    let mut letters: BTreeMap<String, char> = BTreeMap::new();
    let mut names = ('a'..='z').chain('A'..='Z').chain('0'..='9');
    let mut styles = String::new();
    for row in 0..frame.size().rows {
        let row: String = (frame.row(row).iter())
            .map(|cell| match describe(cell.style) {
                style if style.is_empty() => '.',
                style => *letters.entry(style).or_insert_with(|| names.next().expect("a picture has few styles")),
            })
            .collect();
        let _ = writeln!(styles, "{}", row.trim_end_matches('.'));
    }
    let mut legend: Vec<_> = letters.into_iter().map(|(style, letter)| (letter, style)).collect();
    legend.sort();
    let legend: String = legend.into_iter().map(|(letter, style)| format!("{letter} {style}\n")).collect();
    let cursor = frame.cursor.map_or("none".to_owned(), |cursor| format!("row {} col {}", cursor.row, cursor.col));
    format!("{}\n---- cursor: {cursor}\n{}---- styles\n{legend}", frame.text(), styles)
}

fn describe(style: Style) -> String {
    let color = |what: &str, color: Color| match color.hue() {
        Hue::Default => String::new(),
        Hue::Index(index) => format!("{what} {index} "),
        Hue::Rgb(r, g, b) => format!("{what} {r}/{g}/{b} "),
    };
    let mut text = color("fg", style.fg) + &color("bg", style.bg);
    for (bit, name) in [(attr::BOLD, "bold "), (attr::DIM, "dim "), (attr::INVERSE, "inverse "), (attr::UNDERLINE, "underlined ")] {
        text += if style.attrs & bit == 0 { "" } else { name };
    }
    text.trim_end().to_owned()
}

/// What a cell under the chrome holds, so that a picture shows what is left of it.
fn screen(rows: u16, cols: u16) -> Frame {
    Frame::new(Size { rows, cols })
}

fn check(name: &str, frame: &Frame) {
    let path = format!("{}/tests/chrome/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let now = picture(frame);
    if std::env::var_os("UPDATE_CHROME").is_some() {
        return std::fs::write(&path, now).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}; run with UPDATE_CHROME=1"));
    assert!(golden == now, "{path} is not what is painted; UPDATE_CHROME=1 rewrites it. Now:\n{now}");
}

#[test]
fn pictures() {
    let dark = Theme::new(DARK);
    let small = [(6, 3), (3, 6), (8, 20)];
    for (rows, cols) in small.into_iter().chain([(24, 80), (50, 200)]) {
        let mut frame = screen(rows, cols);
        workspace(&mut frame, &dark);
        check(&format!("workspace-{cols}x{rows}"), &frame);
    }
    for (rows, cols) in small.into_iter().chain([(24, 80)]) {
        for (name, overlay) in overlays() {
            let mut frame = screen(rows, cols);
            overlay.paint(&mut frame, Rect { row: 0, col: 0, rows, cols }, &dark);
            check(&format!("{name}-{cols}x{rows}"), &frame);
        }
    }
    let plain = Theme::new(PLAIN);
    for (name, overlay) in overlays().into_iter().filter(|(name, _)| ["filter", "dirty"].contains(name)) {
        let mut frame = screen(24, 80);
        workspace(&mut frame, &plain);
        overlay.paint(&mut frame, Rect { row: 1, col: 0, rows: 22, cols: 80 }, &plain);
        check(&format!("plain-{name}-80x24"), &frame);
    }
}

// ---- strip ----

#[test]
fn the_strip_always_shows_the_active_tab() {
    let theme = Theme::new(DARK);
    let many = |index: usize| TabLabel { zoomed: true, recording: true, ..tab(&format!("session {index}"), STATES[index % 5]) };
    let many: Vec<_> = (0..32).map(many).collect();
    for cols in (20..90).chain([150, 300, 700]) {
        for active in 0..many.len() {
            let strip = Strip::new(cols, &many, active, &theme);
            let hits: Vec<_> = (0..cols).filter_map(|col| strip.hit(col)).collect();
            assert!(hits.contains(&StripHit::Tab(active)), "{active} of {cols}");
            // Whole, so nothing lies over them.
            let extent = |button| hits.iter().filter(|hit| **hit == button).count();
            assert_eq!(extent(StripHit::Menu), if cols < 60 { 3 } else { 8 }, "{active} of {cols}");
            assert_eq!(extent(StripHit::NewTab), if cols < 23 { 0 } else { 3 }, "{active} of {cols}");
            let shown = |tab| hits.contains(&StripHit::Tab(tab));
            for hit in &hits {
                // The mark stands for the tabs next to those shown.
                if let StripHit::More(next) = hit {
                    assert!(!shown(*next) && (shown(next + 1) || *next > 0 && shown(next - 1)), "{hit:?} of {cols}");
                }
            }
        }
    }
}

#[test]
fn a_click_means_what_is_painted_there() {
    let theme = Theme::new(DARK);
    let mut frame = screen(1, 60);
    let strip = Strip::new(60, &tabs(), 0, &theme);
    strip.paint(&mut frame, Rect { row: 0, col: 0, rows: 1, cols: 60 }, &theme);
    let text = frame.text();
    // Columns of text before the wide label, hence bytes would be wrong only behind it.
    let col = |needle: &str| text::width(&text[..text.find(needle).expect(needle)]) as u16;
    for (needle, hit) in [
        ("Claude", StripHit::Tab(0)),
        ("shell", StripHit::Tab(1)),
        ("日", StripHit::Tab(2)),
        ("+", StripHit::NewTab),
        ("menu", StripHit::Menu),
    ] {
        assert_eq!(strip.hit(col(needle)), Some(hit), "{needle} in {text}");
    }
    assert_eq!(strip.hit(col("+") + 5), None);
    assert_eq!(strip.hit(60), None);
}

#[test]
fn without_tabs_there_is_still_a_strip() {
    let theme = Theme::new(DARK);
    for cols in 0..80 {
        let strip = Strip::new(cols, &[], 3, &theme);
        assert!((0..cols).filter_map(|col| strip.hit(col)).all(|hit| matches!(hit, StripHit::NewTab | StripHit::Menu)));
    }
}

// ---- borders ----

#[test]
fn lines_join() {
    let mut frame = screen(12, 30);
    let area = Rect::of(frame.size());
    let layout = layout();
    let untitled = |id| Title { label: String::new(), ..title(id) };
    borders(&mut frame, &layout.place(area), SessionId(2), untitled, &Theme::new(DARK));
    let text = frame.text();
    let joints: String = text.chars().filter(|c| "┬┴├┤┼┌┐└┘".contains(*c)).collect();
    assert_eq!(joints, "┬├┼", "{text}");
}

#[test]
fn a_scrolled_pane_without_a_title_row_says_so() {
    let theme = Theme::new(DARK);
    let shown = |cols| {
        let mut frame = screen(2, cols);
        scroll_mark(&mut frame, Rect { row: 0, col: 0, rows: 2, cols }, &title(SessionId(2)), &theme);
        frame.text().trim().to_owned()
    };
    assert_eq!(shown(40), "3/17 [-120/10000]");
    assert_eq!(shown(14), "3/17 [-120]");
    assert_eq!(shown(8), "[-120]");
    assert_eq!(shown(3), "");
}

// ---- bar ----

#[test]
fn the_bar_gives_up_what_matters_least() {
    let theme = Theme::new(DARK);
    let at = |cols| {
        let mut frame = screen(1, cols);
        bar().paint(&mut frame, Rect { row: 0, col: 0, rows: 1, cols }, &theme);
        frame.text()
    };
    assert!(at(200).contains("the-architect · frosty-otter") && at(200).contains("Claude · MiniMax · working"));
    assert!(at(200).contains("2 clients, 1 watching") && at(200).contains("Ctrl+\\ menu"));
    assert!(at(80).contains("frosty-otter") && at(80).contains("Claude") && at(80).contains("Ctrl+\\"));
    assert!(at(20).contains("frosty-otter"), "{}", at(20));
    assert_eq!((bar().hit(200, 3, &theme), bar().hit(200, 199, &theme)), (Some(BarHit::Info), Some(BarHit::Menu)));
    let mode = Some(Mode { name: "SCROLL".into(), hint: "/ search  y copy  Esc back".into() });
    let mut frame = screen(1, 60);
    Bar { mode, ..bar() }.paint(&mut frame, Rect { row: 0, col: 0, rows: 1, cols: 60 }, &theme);
    assert!(frame.text().contains("SCROLL") && frame.text().contains("/ search"), "{}", frame.text());
}

// ---- keys ----

fn key(code: Code) -> Key {
    Key { code, mods: Mods::default(), stroke: Stroke::Press, raw: Vec::new() }
}

fn char(c: char) -> Key {
    key(Code::Char(c))
}

fn ctrl(c: char) -> Key {
    Key { mods: Mods { ctrl: true, ..Mods::default() }, ..char(c) }
}

/// The outcome of the last of them; all before must leave the overlay open.
fn press(overlay: &mut Overlay, keys: &[Key]) -> Outcome {
    let (last, before) = keys.split_last().unwrap();
    for key in before {
        let outcome = overlay.key(key);
        assert!(matches!(outcome, Outcome::Stay | Outcome::Tell(_)), "{key:?}: {outcome:?}");
    }
    overlay.key(last)
}

fn type_in(overlay: &mut Overlay, text: &str) -> Outcome {
    press(overlay, &text.chars().map(char).collect::<Vec<_>>())
}

fn run(command: Command) -> Outcome {
    Outcome::Do(Choice::Run(command))
}

#[test]
fn palette_keys() {
    let down = || key(Code::Down);
    let enter = || key(Code::Enter);
    assert_eq!(type_in(&mut palette(), "d"), run(Command::Detach));
    assert_eq!(press(&mut palette(), &[ctrl('\\')]), run(Command::SendLeader));
    assert_eq!(press(&mut palette(), &[key(Code::Escape)]), Outcome::Close);
    assert_eq!(press(&mut palette(), &[enter()]), run(Command::NewTab));
    assert_eq!(press(&mut palette(), &[down(), down(), enter()]), run(Command::SplitSideBySide));
    assert_eq!(press(&mut palette(), &[key(Code::End), enter()]), run(Command::SendLeader));
    // Up and down are the list's, left and right are not; Page Up is while there is something above.
    assert_eq!(press(&mut palette(), &[key(Code::Left)]), run(Command::Focus(Direction::Left)));
    assert_eq!(press(&mut palette(), &[key(Code::PageUp)]), run(Command::Scroll));
    assert_eq!(press(&mut palette(), &[down(), key(Code::PageUp), enter()]), run(Command::NewTab));
    assert_eq!(type_in(&mut palette(), "3"), run(Command::Jump(2)));
    assert_eq!(type_in(&mut palette(), "w"), Outcome::Stay);
    // The key that opened it may still be on its way up.
    assert_eq!(press(&mut palette(), &[Key { stroke: Stroke::Release, ..ctrl('\\') }]), Outcome::Stay);
}

#[test]
fn every_command_can_be_found() {
    let entries: Vec<_> = crate::keys::ENTRIES.iter().chain(crate::keys::DIRECT).collect();
    for entry in entries.into_iter().filter(|entry| !matches!(entry.command, Command::Jump(_) | Command::Palette)) {
        let mut filtered = palette();
        type_in(&mut filtered, &format!(":{}", entry.text));
        let unavailable = matches!(entry.command, Command::ExportFile { source: Source::Selection, .. });
        let expected = if unavailable { Outcome::Stay } else { run(entry.command) };
        assert_eq!(press(&mut filtered, &[key(Code::Enter)]), expected, "{}", entry.text);
    }
}

#[test]
fn keys_have_names() {
    for (spelling, name) in
        [("C-l", "Ctrl+L"), ("A-S-Left", "Alt+Shift+Left"), ("C-\\", "Ctrl+\\"), ("Space", "Space"), ("R", "R"), ("PageUp", "PageUp")]
    {
        assert_eq!(key_name(Chord::parse(spelling).unwrap()), name);
    }
}

#[test]
fn palette_filter() {
    let mut filtered = palette();
    assert_eq!(type_in(&mut filtered, ":det"), Outcome::Stay);
    assert_eq!(press(&mut filtered, &[key(Code::Enter)]), run(Command::Detach));
    let mut filtered = palette();
    type_in(&mut filtered, " scba");
    assert_eq!(press(&mut filtered, &[key(Code::Enter)]), run(Command::Scroll));
    let mut filtered = palette();
    type_in(&mut filtered, ":zzzz");
    assert_eq!(press(&mut filtered, &[key(Code::Enter)]), Outcome::Stay);
    // Out of the filter by deleting it: letters are shortcuts again.
    let backspaces = vec![key(Code::Backspace); 5];
    press(&mut filtered, &backspaces);
    assert_eq!(type_in(&mut filtered, "z"), run(Command::Zoom));
    let mut pasted = palette();
    type_in(&mut pasted, ":");
    pasted.paste("exit: \n");
    assert_eq!(press(&mut pasted, &[key(Code::Enter)]), run(Command::Exit));
}

#[test]
fn what_cannot_be_done_is_not_done() {
    let mut filtered = palette();
    type_in(&mut filtered, ":selected");
    assert_eq!(press(&mut filtered, &[key(Code::Enter)]), Outcome::Stay);
    let mut none = Overlay::palette(Bindings::default(), |_| Some("not now".into()));
    assert_eq!(type_in(&mut none, "cd"), Outcome::Stay);
    assert_eq!(press(&mut none, &[key(Code::Enter)]), Outcome::Stay);
}

#[test]
fn picking_an_agent() {
    let place = Place::Split(Axis::Stacked);
    let spawn = |spawn| Outcome::Do(Choice::Spawn { spawn, place });
    let zai = || spawn(Spawn::AgentWithProvider { agent: "claude".into(), provider: "Z.AI".into() });
    assert_eq!(type_in(&mut agents(), "12"), zai());
    assert_eq!(press(&mut agents(), &[key(Code::Enter), key(Code::Down), key(Code::Enter)]), zai());
    // Its own provider alone is no choice.
    assert_eq!(type_in(&mut agents(), "2"), spawn(Spawn::Agent("codex".into())));
    assert_eq!(type_in(&mut agents(), "3"), spawn(Spawn::Agent("amp".into())));
    assert_eq!(type_in(&mut agents(), "s"), spawn(Spawn::Shell));
    // Escape goes back a step, and the selection is where it was.
    let mut picker = agents();
    press(&mut picker, &[key(Code::Enter), key(Code::Escape)]);
    assert_eq!(picker, agents());
    assert_eq!(press(&mut picker, &[key(Code::Escape)]), Outcome::Close);
}

#[test]
fn questions() {
    assert_eq!(type_in(&mut exit(), "y"), Outcome::Do(Choice::Confirmed(Question::Exit)));
    assert_eq!(type_in(&mut exit(), "Y"), Outcome::Do(Choice::Confirmed(Question::Exit)));
    assert_eq!(type_in(&mut exit(), "d"), run(Command::Detach));
    assert_eq!(type_in(&mut exit(), "n"), Outcome::Close);
    // Something is at work, so Enter alone ends nothing.
    assert_eq!(press(&mut exit(), &[key(Code::Enter)]), Outcome::Close);
    let pane = Question::ClosePane(SessionId(7));
    let idle = AtRisk { label: "shell".into(), codename: "cedar".into(), state: SessionState::Idle };
    assert_eq!(press(&mut Overlay::confirm(pane, &[idle]), &[key(Code::Enter)]), Outcome::Do(Choice::Confirmed(pane)));
}

#[test]
fn unsaved_work() {
    let exit = |choice| Outcome::Do(Choice::DirtyExit(choice));
    assert_eq!(type_in(&mut dirty(), "2"), exit(ExitChoice::Inspect("/workspace/docs".into())));
    assert_eq!(type_in(&mut dirty(), "k"), exit(ExitChoice::Keep));
    assert_eq!(press(&mut dirty(), &[key(Code::Enter)]), exit(ExitChoice::Keep));
    assert_eq!(type_in(&mut dirty(), "c"), Outcome::Close);
    assert_eq!(type_in(&mut dirty(), "dd"), exit(ExitChoice::Discard));
    // Discarding is asked twice, and the second time Enter means no.
    let mut twice = dirty();
    assert_eq!(press(&mut twice, &[char('d'), key(Code::Enter)]), Outcome::Stay);
    assert_eq!(type_in(&mut twice, "k"), exit(ExitChoice::Keep));
}

#[test]
fn facts_can_be_copied() {
    let copied = |outcome: Outcome| match outcome {
        Outcome::Tell(Choice::Copy(text)) => text,
        other => panic!("{other:?}"),
    };
    assert_eq!(copied(type_in(&mut info(), "y")), "the-architect");
    assert_eq!(copied(press(&mut info(), &[key(Code::Down), key(Code::Enter)])), "frosty-otter");
    assert_eq!(copied(type_in(&mut info(), "jjky")), "frosty-otter");
    assert!(copied(type_in(&mut info(), "Y")).contains("Instance: frosty-otter\n"));
    assert_eq!(type_in(&mut info(), "q"), Outcome::Close);
}

#[test]
fn renaming() {
    let rename = |name: Option<&str>| Outcome::Do(Choice::Rename { tab: SessionId(1), name: name.map(Into::into) });
    let mut prompt = Overlay::rename(SessionId(1), "old");
    prompt.paste(" name that is much too long\n");
    assert_eq!(press(&mut prompt, &[key(Code::Enter)]), rename(Some("old name that is")));
    assert_eq!(press(&mut Overlay::rename(SessionId(1), "old"), &[ctrl('u'), key(Code::Enter)]), rename(None));
    assert_eq!(press(&mut Overlay::rename(SessionId(1), "old"), &[key(Code::Escape)]), Outcome::Close);
}

#[test]
fn a_path_is_asked_for() {
    let mut prompt = Overlay::path("Export a file", EXPORT, "");
    assert_eq!(press(&mut prompt, &[key(Code::Enter)]), Outcome::Stay);
    type_in(&mut prompt, "src/a b/c.rs");
    assert_eq!(
        press(&mut prompt, &[ctrl('w'), key(Code::Backspace), ctrl('w'), char('x'), key(Code::Enter)]),
        Outcome::Do(Choice::Path { command: EXPORT, path: "src/a x".into() })
    );
}

#[test]
fn searching() {
    let go = |needle: &str, backwards, go| Outcome::Tell(Choice::Search { needle: needle.into(), backwards, go });
    let mut search = Overlay::search("", true);
    assert_eq!(type_in(&mut search, "n"), go("n", true, Go::Here));
    assert_eq!(type_in(&mut search, "o"), go("no", true, Go::Here));
    assert_eq!(press(&mut search, &[key(Code::Left)]), Outcome::Stay);
    assert_eq!(press(&mut search, &[key(Code::End)]), Outcome::Stay);
    assert_eq!(press(&mut search, &[key(Code::Up)]), go("no", true, Go::Next));
    assert_eq!(press(&mut search, &[key(Code::Down)]), go("no", true, Go::Previous));
    assert_eq!(press(&mut search, &[ctrl('s')]), go("no", false, Go::Here));
    assert_eq!(press(&mut search, &[key(Code::Up)]), go("no", false, Go::Previous));
    // Accepted: letters step.
    assert_eq!(press(&mut search, &[key(Code::Enter), char('n')]), go("no", false, Go::Next));
    assert_eq!(type_in(&mut search, "N"), go("no", false, Go::Previous));
    assert_eq!(type_in(&mut search, "?"), go("no", true, Go::Here));
    assert_eq!(type_in(&mut search, "!"), go("no!", true, Go::Here));
    assert_eq!(
        press(&mut search, &[key(Code::Enter), key(Code::Enter)]),
        Outcome::Do(Choice::Search { needle: "no!".into(), backwards: true, go: Go::Done })
    );
    assert_eq!(press(&mut Overlay::search("x", true), &[key(Code::Escape)]), Outcome::Close);
    assert_eq!(search.paste("ab\n"), go("no!ab", true, Go::Here));
}

// ---- mouse ----

fn mouse(kind: Kind, row: u16, col: u16) -> Mouse {
    Mouse { kind, row, col, shift: false, alt: false, ctrl: false }
}

#[test]
fn clicks_choose_what_they_hit() {
    let area = Rect { row: 1, col: 0, rows: 22, cols: 80 };
    let mut frame = screen(24, 80);
    exit().paint(&mut frame, area, &Theme::new(DARK));
    let text = frame.text();
    let row = |needle: &str| text.lines().position(|line| line.contains(needle)).expect(needle) as u16;
    let click = |row, col| exit().mouse(&mouse(Kind::Press(Button::Left), row, col), area);
    assert_eq!(click(row("Detach:"), 40), run(Command::Detach));
    assert_eq!(click(row("stop the container"), 40), Outcome::Do(Choice::Confirmed(Question::Exit)));
    assert_eq!(click(row("This ends"), 40), Outcome::Stay);
    assert_eq!(click(0, 0), Outcome::Close);
    let mut facts = info();
    frame = screen(24, 80);
    facts.paint(&mut frame, area, &Theme::new(DARK));
    let text = frame.text();
    let row = text.lines().position(|line| line.contains("frosty")).unwrap() as u16;
    assert_eq!(facts.mouse(&mouse(Kind::Press(Button::Left), row, 40), area), Outcome::Stay);
    assert_eq!(type_in(&mut facts, "y"), Outcome::Tell(Choice::Copy("frosty-otter".into())));
    let mut wheeled = palette();
    wheeled.mouse(&mouse(Kind::Wheel(Wheel::Down), 5, 5), area);
    assert_eq!(press(&mut wheeled, &[key(Code::Enter)]), run(Command::SplitStacked));
}

#[test]
fn text_above_the_entries_can_be_reached() {
    let area = Rect { row: 0, col: 0, rows: 6, cols: 3 };
    let mut overlay = exit();
    let mut seen = String::new();
    for _ in 0..60 {
        let mut frame = screen(6, 3);
        overlay.paint(&mut frame, area, &Theme::new(DARK));
        seen += &frame.text();
        overlay.key(&key(Code::Up));
    }
    assert!(seen.contains("Thi"), "{seen}");
    // And one key leads back down.
    overlay.key(&key(Code::Down));
    assert_eq!(press(&mut overlay, &[key(Code::Home), key(Code::Enter)]), Outcome::Do(Choice::Confirmed(Question::Exit)));
}

// ---- toasts ----

fn show(toasts: &Toasts, frame: &mut Frame) {
    let area = Rect::of(frame.size());
    toasts.paint(frame, area, &Theme::new(DARK));
}

#[test]
fn toasts_come_and_go() {
    let mut toasts = Toasts::default();
    assert_eq!(toasts.next_deadline(), None);
    for index in 0..6 {
        toasts.push(index * 100, Level::Info, format!("message {index}"));
    }
    let mut frame = screen(10, 40);
    show(&toasts, &mut frame);
    assert_eq!(frame.text().split_whitespace().filter(|word| *word == "message").count(), 4);
    assert!(frame.text().starts_with(&format!("{:>39}", "message 2")));
    let first = toasts.next_deadline().unwrap();
    assert!(!toasts.expire(first - 1));
    assert!(toasts.expire(first));
    assert!(toasts.next_deadline().unwrap() > first);
    assert!(toasts.expire(u64::MAX) && toasts.is_empty());
    for now in 0..3 {
        toasts.push(now, Level::Warning, "again");
    }
    let mut frame = screen(3, 40);
    show(&toasts, &mut frame);
    assert_eq!(frame.text().trim(), "again (x3)");
    assert!(!toasts.click(Rect::of(frame.size()), 1, 38));
    assert!(toasts.click(Rect::of(frame.size()), 0, 38) && toasts.is_empty());
}

#[test]
fn toasts_that_do_not_fit_leave_the_newest() {
    let mut toasts = Toasts::default();
    toasts.push(0, Level::Info, "old");
    toasts.push(0, Level::Info, "new");
    let mut frame = screen(1, 20);
    show(&toasts, &mut frame);
    assert_eq!(frame.text().trim(), "new");
}

// ---- nothing breaks ----

fn keys() -> impl Strategy<Value = Key> {
    let code = prop_oneof![
        6 => any::<char>().prop_map(Code::Char),
        6 => "[a-zA-Z0-9:/? ]".prop_map(|text| Code::Char(text.chars().next().unwrap())),
        8 => prop::sample::select(vec![
            Code::Enter, Code::Tab, Code::BackTab, Code::Backspace, Code::Escape, Code::Up, Code::Down, Code::Left, Code::Right, Code::Home, Code::End,
            Code::PageUp, Code::PageDown, Code::Delete,
        ]),
    ];
    (code, any::<(bool, bool, bool)>()).prop_map(|(code, (shift, alt, ctrl))| {
        let (alt, ctrl) = (alt && shift, ctrl && !shift);
        Key { code, mods: Mods { shift, alt, ctrl, ..Mods::default() }, stroke: Stroke::Press, raw: Vec::new() }
    })
}

fn mice() -> impl Strategy<Value = Mouse> {
    let kinds = vec![
        Kind::Press(Button::Left),
        Kind::Press(Button::Right),
        Kind::Release(Button::Left),
        Kind::Drag(Button::Left),
        Kind::Move,
        Kind::Wheel(Wheel::Up),
        Kind::Wheel(Wheel::Down),
    ];
    (prop::sample::select(kinds), any::<u8>(), any::<u8>()).prop_map(|(kind, row, col)| mouse(kind, row.into(), col.into()))
}

#[derive(Debug, Clone)]
enum Deed {
    Key(Key),
    Mouse(Mouse),
    Paste(String),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![6 => keys().prop_map(Deed::Key), 2 => mice().prop_map(Deed::Mouse), 1 => "\\PC{0,12}".prop_map(Deed::Paste)];
    proptest::collection::vec(deed, 0..24)
}

fn sizes() -> impl Strategy<Value = (u16, u16)> {
    prop_oneof![12 => (1u16..26, 1u16..90), 2 => Just((6, 3)), 1 => Just((500, 7)), 1 => Just((3, 1000)), 2 => Just((1, 1))]
}

/// Labels with everything that has no, one or two columns.
const LABEL: &str = "[a-zé日語👩\u{200d}🚀\u{301}\u{202e}\t ]{0,30}";

/// The area in a frame with marked cells around it; painting must keep to the area, and leave no half characters in it.
fn painted(rows: u16, cols: u16, paint: impl FnOnce(&mut Frame, Rect)) -> Frame {
    let mut frame = screen(rows + 4, cols + 6);
    let mark = Cell { style: Style { attrs: attr::BLINK, ..Style::default() }, ..Cell::default() };
    for row in 0..rows + 4 {
        frame.row_mut(row).fill(mark);
    }
    let area = Rect { row: 2, col: 3, rows, cols };
    paint(&mut frame, area);
    for row in 0..rows + 4 {
        let cells = frame.row(row);
        for (col, cell) in (0..).zip(cells) {
            assert!(area.contains(row, col) || *cell == mark, "painted outside at {row}, {col}\n{}", frame.text());
        }
        for (left, right) in cells.iter().zip(&cells[1..]) {
            assert_eq!(left.glyph.is_wide(), right.glyph.is_continuation(), "half a character in row {row}\n{}", frame.text());
        }
        assert!(!cells[0].glyph.is_continuation() && !cells[cells.len() - 1].glyph.is_wide());
    }
    if let Some(cursor) = frame.cursor {
        assert!(area.contains(cursor.row, cursor.col), "{cursor:?}");
    }
    frame
}

proptest! {
    #[test]
    fn no_deed_breaks_an_overlay(which in 0usize..12, (rows, cols) in sizes(), deeds in deeds(), label in LABEL, plain: bool) {
        let theme = Theme::new(if plain { PLAIN } else { DARK });
        let odd = [
            Overlay::confirm(Question::Exit, &[AtRisk { label: label.clone(), codename: label.clone(), state: SessionState::Working }]),
            Overlay::dirty_exit(&[Unsaved { path: label.clone(), changed: usize::MAX / 2, unpushed: 0, unknown: None }]),
            Overlay::info(&label, vec![(label.clone(), vec![(label.clone(), label.clone())])]),
            Overlay::path(&label, EXPORT, &label),
        ];
        let mut overlay = overlays().into_iter().map(|(_, overlay)| overlay).chain(odd).nth(which).unwrap();
        let area = Rect { row: 2, col: 3, rows, cols };
        painted(rows, cols, |frame, area| overlay.paint(frame, area, &theme));
        for deed in deeds {
            match deed {
                Deed::Key(key) => drop(overlay.key(&key)),
                Deed::Mouse(mouse) => drop(overlay.mouse(&mouse, area)),
                Deed::Paste(text) => drop(overlay.paste(&text)),
            }
            painted(rows, cols, |frame, area| overlay.paint(frame, area, &theme));
        }
    }

    #[test]
    fn no_label_breaks_strip_bar_or_toasts((rows, cols) in sizes(), labels in proptest::collection::vec(LABEL, 1..12), active: usize, plain: bool) {
        let theme = Theme::new(if plain { PLAIN } else { DARK });
        let tabs: Vec<_> = labels.iter().enumerate().map(|(index, label)| TabLabel { zoomed: index % 2 == 0, ..tab(label, STATES[index % 5]) }).collect();
        painted(rows, cols, |frame, area| Strip::new(area.cols, &tabs, active, &theme).paint(frame, area, &theme));
        let bar = Bar { role: labels[0].clone(), instance: labels[0].clone(), branch: labels.get(1).cloned(), clients: labels.len(), ..bar() };
        painted(rows, cols, |frame, area| bar.paint(frame, area, &theme));
        for col in 0..cols {
            bar.hit(cols, col, &theme);
        }
        let mut toasts = Toasts::default();
        for label in &labels {
            toasts.push(0, Level::Error, label.repeat(9));
        }
        painted(rows, cols, |frame, area| toasts.paint(frame, area, &theme));
    }

    #[test]
    fn borders_keep_to_themselves((rows, cols) in sizes(), label in LABEL, splits in proptest::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..9)) {
        let mut layout = Layout::default();
        layout.new_tab(SessionId(1));
        for (new, (at, stacked)) in (2..).zip(splits) {
            let at = SessionId(at.index(new as usize - 1) as u64 + 1);
            layout.split(at, if stacked { Axis::Stacked } else { Axis::SideBySide }, SessionId(new));
        }
        let theme = Theme::new(DARK);
        let named = |_| Title { label: label.clone(), ..title(SessionId(2)) };
        painted(rows, cols, |frame, area| borders(frame, &layout.place(area), SessionId(1), named, &theme));
        // Lines cover exactly what is no pane's body.
        let area = Rect { row: 2, col: 3, rows, cols };
        let placed = layout.place(area);
        let frame = painted(rows, cols, |frame, _| borders(frame, &placed, SessionId(1), named, &theme));
        for row in 0..rows + 4 {
            for (col, cell) in (0..).zip(frame.row(row)) {
                let line = area.contains(row, col) && !placed.panes.iter().any(|pane| pane.body.contains(row, col));
                prop_assert_eq!(line, cell.style.attrs & attr::BLINK == 0, "{} {}\n{}", row, col, frame.text());
            }
        }
    }
}
