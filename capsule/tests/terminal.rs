//! What the operator's terminal sends reaches the right place in the right form, and what it is sent fits it: mouse, keys,
//! pastes, focus; titles, links, clipboard, bells; sizes and kinds of terminals; several clients at once.

mod common;

use std::time::Duration;

use common::terminal::Terminal;
use common::{Capsule, eventually, kill, resident_kb};
use jackin_capsule::control::Reply;
use jackin_capsule::screen::Size;

const WINDOW: Size = Size { rows: 24, cols: 80 };
/// Shows every byte it gets, and asks for nothing.
const BYTES: &str = "stty raw -echo; printf 'rea''dy:'; exec cat -v";

fn open(agent: &str) -> (Capsule, Terminal) {
    open_with(agent, WINDOW, &[], &[])
}

fn open_with(agent: &str, window: Size, capsule_env: &[(&str, &str)], client_env: &[(&str, &str)]) -> (Capsule, Terminal) {
    let capsule = Capsule::start_with(agent, capsule_env);
    let terminal = Terminal::attach_as(&capsule, window, &[], client_env);
    (capsule, terminal)
}

/// A program that shows its bytes after asking for modes.
fn asking(modes: &str) -> String {
    format!("printf '{modes}'; {BYTES}")
}

/// The first session asks for modes, the others for none; all show their bytes.
fn first_asks(modes: &str) -> String {
    format!("[ \"$JACKIN_SESSION_ID\" != 1 ] || printf '{modes}'; {BYTES}")
}

/// The first agent of the picker, as a tab or a split.
fn another(terminal: &mut Terminal, key: char) {
    let shown = terminal.text().matches("ready:").count();
    terminal.type_keys(&format!("\x1c{key}"));
    terminal.wait_for("Codex");
    terminal.type_keys("\r");
    terminal.wait_until("another session", |terminal| {
        let now = terminal.text().matches("ready:").count();
        !terminal.text().contains("Codex") && if key == 'c' { terminal.find(" 2 ").is_some() && now == 1 } else { now > shown }
    });
}

fn detach(terminal: &mut Terminal) {
    terminal.type_keys("\x1cd");
    assert_eq!(terminal.wait_for_exit(), 0);
}

/// What was set last, of sequences with a number in them.
fn last_set(terminal: &Terminal, start: &str, end: char) -> Option<u8> {
    let sent = terminal.sent();
    sent.rsplit(start).filter_map(|rest| rest.split_once(end)?.0.parse().ok()).next()
}

fn press(button: u8, row: u16, col: u16) -> String {
    format!("\x1b[<{button};{};{}M", col + 1, row + 1)
}

fn release(row: u16, col: u16) -> String {
    format!("\x1b[<0;{};{}m", col + 1, row + 1)
}

// ---- mouse ----

#[test]
fn dragging_selects_and_copies() {
    let (_capsule, mut terminal) = open("printf 'hello world  https://example.com/x?y=1  日本語\\n'; exec cat");
    terminal.wait_for("日本語");
    terminal.wait_until("the mouse is asked for", |terminal| terminal.sent().contains("\x1b[?1003h"));
    terminal.type_keys(&press(0, 1, 0));
    terminal.type_keys(&press(32, 1, 2));
    terminal.type_keys(&press(32, 1, 4));
    terminal.wait_until("the selection is seen", |terminal| {
        let (chosen, other) = (terminal.screen().cell(1, 4).unwrap(), terminal.screen().cell(1, 6).unwrap());
        (chosen.inverse(), chosen.bgcolor()) != (other.inverse(), other.bgcolor())
    });
    terminal.type_keys(&release(1, 4));
    terminal.wait_until("hello is copied", |terminal| terminal.heard().copied == ["aGVsbG8="]);
    // Twice is a word, also one that is a URL.
    for (col, copied) in [(8, "d29ybGQ="), (20, "aHR0cHM6Ly9leGFtcGxlLmNvbS94P3k9MQ==")] {
        for _ in 0..2 {
            terminal.type_keys(&press(0, 1, col));
            terminal.type_keys(&release(1, col));
        }
        terminal.wait_until(copied, |terminal| terminal.heard().copied.last().is_some_and(|last| last == copied));
    }
}

#[test]
fn dragging_over_wide_characters_and_past_the_edge() {
    let (_capsule, mut terminal) = open("seq 1 60; printf '日本語 end\\n'; exec cat");
    terminal.wait_for("日本語 end");
    let (row, _) = terminal.find("日本語").unwrap();
    terminal.type_keys(&press(0, row, 1));
    terminal.type_keys(&press(32, row, 3));
    terminal.type_keys(&release(row, 3));
    terminal.wait_until("two whole characters are copied", |terminal| terminal.heard().copied == ["5pel5pys"]);
    // Held above the pane it scrolls, and the lines that come are part of it.
    terminal.type_keys(&press(0, 3, 0));
    terminal.type_keys(&press(32, 0, 0));
    terminal.wait_until("the first line is seen", |terminal| terminal.row(1).starts_with("1 "));
    terminal.type_keys(&release(1, 0));
    terminal.wait_until("it begins with 1", |terminal| {
        terminal.heard().copied.last().is_some_and(|last| last.starts_with("MQoyCjMK")) && terminal.heard().copied.len() == 2
    });
}

#[test]
fn the_wheel_scrolls_history_and_typing_comes_back() {
    let (_capsule, mut terminal) = open("seq 1 200; exec cat");
    terminal.wait_for("200");
    let top = |terminal: &Terminal| terminal.row(1).split_whitespace().next().and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
    let live = top(&terminal);
    terminal.type_keys(&press(64, 5, 5));
    terminal.wait_until("three lines back", |terminal| top(terminal) == live - 3);
    assert!(terminal.screen().hide_cursor(), "a view of the past has no cursor");
    terminal.type_keys(&press(64, 5, 5).repeat(200));
    terminal.wait_until("the beginning", |terminal| top(terminal) == 1);
    terminal.type_keys(&press(65, 5, 5));
    terminal.wait_until("three lines on", |terminal| top(terminal) == 4);
    terminal.type_keys("typed");
    terminal.wait_until("live again", |terminal| top(terminal) == live && terminal.text().contains("typed"));
    assert!(!terminal.screen().hide_cursor());
}

#[test]
fn a_scrolled_view_stays_while_output_comes() {
    let (capsule, mut terminal) = open("seq 1 200; until [ -e go ]; do sleep 0.05; done; seq 201 300; exec cat");
    terminal.wait_for("200");
    terminal.type_keys(&press(64, 5, 5).repeat(5));
    let is_there = |terminal: &Terminal| terminal.row(1).starts_with("165 ") && terminal.row(10) == "174";
    terminal.wait_until("15 lines back", |terminal| is_there(terminal) && terminal.row(1).contains("/179]"));
    std::fs::write(capsule.path("work/go"), "").unwrap();
    terminal.wait_until("still there", |terminal| is_there(terminal) && terminal.row(1).contains("/279]"));
    terminal.type_keys("\x1b");
    terminal.wait_for("300");
}

#[test]
fn the_wheel_moves_in_less() {
    let text: String = (1..=300).map(|n| format!("line {n}\\n")).collect();
    let (_capsule, mut terminal) = open(&format!("printf '{text}' >text; LESS= exec less text"));
    terminal.wait_for("line 21");
    assert_eq!(terminal.row(1), "line 1");
    terminal.type_keys(&press(65, 5, 5));
    terminal.wait_until("three lines down", |terminal| terminal.row(1) == "line 4");
    terminal.type_keys(&press(64, 5, 5));
    terminal.wait_until("three lines up", |terminal| terminal.row(1) == "line 1");
}

#[test]
fn programs_get_the_mouse_they_asked_for() {
    let events =
        [press(0, 5, 9), press(32, 6, 10), release(6, 10), press(35, 7, 11), press(64, 8, 12), press(2, 3, 3), "end".to_owned()].concat();
    // The strip is above: rows count from it.
    let cases = [
        ("1000", "^[[<0;10;5M^[[<0;11;6m^[[<64;13;8M^[[<2;4;3Mend"),
        ("1002", "^[[<0;10;5M^[[<32;11;6M^[[<0;11;6m^[[<64;13;8M^[[<2;4;3Mend"),
        ("1003", "^[[<0;10;5M^[[<32;11;6M^[[<0;11;6m^[[<35;12;7M^[[<64;13;8M^[[<2;4;3Mend"),
    ];
    for (mode, expected) in cases {
        let (_capsule, mut terminal) = open(&asking(&format!("\\033[?{mode}h\\033[?1006h")));
        terminal.wait_for("ready:");
        terminal.type_keys(&events);
        terminal.wait_for("end");
        let shown: String = terminal.text().lines().skip(1).take(22).collect();
        assert_eq!(shown.trim_end(), format!("ready:{expected}"), "mode {mode}");
    }
    // The oldest encoding adds 32, and to numbers from 1.
    let (_capsule, mut terminal) = open(&asking("\\033[?1000h"));
    terminal.wait_for("ready:");
    terminal.type_keys(&[press(0, 5, 9), release(5, 9), "end".to_owned()].concat());
    terminal.wait_for("ready:^[[M *%^[[M#*%end");
}

#[test]
fn the_mouse_counts_from_the_pane() {
    let (_capsule, mut terminal) = open(&asking("\\033[?1000h\\033[?1006h"));
    terminal.wait_for("ready:");
    another(&mut terminal, '%');
    let (row, col) = (2, terminal.row(2).rfind("ready:").map(|at| terminal.row(2)[..at].chars().count() as u16).unwrap());
    terminal.type_keys(&[press(0, row + 3, col + 4), release(row + 3, col + 4)].concat());
    terminal.wait_for("ready:^[[<0;5;4M^[[<0;5;4m");
    terminal.wait_until("only there", |terminal| terminal.text().matches("[<0;5;4M").count() == 1);
    // A click in the other pane takes the focus with it.
    terminal.type_keys(&[press(0, 4, 2), release(4, 2), "typed".to_owned()].concat());
    terminal.wait_until("typed where it was clicked", |terminal| terminal.row(2).starts_with("ready:^[[<0;3;3M^[[<0;3;3mtyped"));
}

#[test]
fn borders_are_dragged() {
    let (_capsule, mut terminal) = open(BYTES);
    terminal.wait_for("ready:");
    another(&mut terminal, '%');
    let divider = |terminal: &Terminal| terminal.row(5).chars().position(|c| c == '│').unwrap_or(0) as u16;
    let from = divider(&terminal);
    terminal.type_keys(&press(0, 5, from));
    terminal.type_keys(&press(32, 5, from - 10));
    terminal.type_keys(&release(5, from - 10));
    terminal.wait_until("the border has moved", |terminal| divider(terminal).abs_diff(from - 10) <= 1);
}

// ---- focus, paste, keys ----

#[test]
fn focus_is_told_to_who_asked() {
    let (_capsule, mut terminal) = open(&first_asks("\\033[?1004h"));
    terminal.wait_for("ready:");
    terminal.type_keys("\x1b[O\x1b[Iend");
    terminal.wait_for("^[[O^[[Iend");
    another(&mut terminal, '%');
    terminal.wait_for("^[[Iend^[[O");
    terminal.type_keys("\x1b[O\x1b[Iplain");
    terminal.wait_for("ready:plain");
    terminal.type_keys("\x1ch");
    terminal.wait_for("^[[Iend^[[O^[[I");
}

#[test]
fn pastes_are_bracketed_for_who_asked() {
    let (_capsule, mut terminal) = open(&first_asks("\\033[?2004h"));
    terminal.wait_for("ready:");
    terminal.type_keys("\x1b[200~one\rtwo \x1c \x11\x1b[201~after");
    terminal.wait_for("ready:^[[200~one^Mtwo ^\\ ^Q^[[201~after");
    another(&mut terminal, '%');
    terminal.type_keys("\x1b[200~plain\x1b[201~.");
    terminal.wait_for("ready:plain.");
    let large = "x".repeat(200_000);
    let capsule = Capsule::start("stty raw -echo; printf ready; head -c 200012 | wc -c; exec cat");
    let mut terminal = Terminal::attach(&capsule, WINDOW);
    terminal.wait_for("ready");
    terminal.type_keys(&format!("\x1b[200~{large}\x1b[201~twelve bytes"));
    terminal.wait_for("200012");
}

#[test]
fn kitty_flags_and_modify_other_keys_follow_the_focus() {
    let (_capsule, mut terminal) = open(&first_asks("\\033[>5u\\033[>4;2m"));
    terminal.wait_for("ready:");
    let now = |terminal: &Terminal| (last_set(terminal, "\x1b[=", 'u'), last_set(terminal, "\x1b[>4;", 'm'));
    terminal.wait_until("set", |terminal| now(terminal) == (Some(5), Some(2)));
    another(&mut terminal, '%');
    terminal.wait_until("cleared", |terminal| now(terminal) == (Some(0), Some(0)));
    terminal.type_keys("\x1ch");
    terminal.wait_until("set again", |terminal| now(terminal) == (Some(5), Some(2)));
    detach(&mut terminal);
    let sent = terminal.sent();
    assert!(sent.rfind("\x1b[=0u") > sent.rfind("\x1b[=5u"), "cleared when leaving");
    assert!(sent.rfind("\x1b[>4m") > sent.rfind("\x1b[>4;2m"), "cleared when leaving");
}

#[test]
fn long_keys_arrive_as_they_came_or_as_they_always_were() {
    let keys = "\x1b[97;5u\x1b[13;2u\x1b[27;5;13~\x1b[1;5A\x1b[3;3~\x1bOP\x1b[15;2~\x1b[99;6:1u\x1b[97::113;1;97u\x1bx\u{e9}end";
    let (_capsule, mut terminal) = open(&asking("\\033[>31u"));
    terminal.wait_for("ready:");
    terminal.type_keys(keys);
    terminal.wait_for("end");
    let shown: String = terminal.text().lines().skip(1).take(22).collect();
    let told = "ready:^[[97;5u^[[13;2u^[[27;5;13~^[[1;5A^[[3;3~^[OP^[[15;2~^[[99;6:1u^[[97::113;1;97u^[xM-CM-)end";
    assert_eq!(shown.trim_end(), told);

    // A program that did not ask gets what terminals have always sent.
    let (_capsule, mut terminal) = open(BYTES);
    terminal.wait_for("ready:");
    terminal.type_keys("\x1b[97;5u\x1b[27;5;98~\x1b[1;5A\x1b[99;3u\x1b[97;1:3u\x1bx\x1b[Zend");
    terminal.wait_for("ready:^A^B^[[1;5A^[c^[x^[[Zend");
}

#[test]
fn an_escape_is_not_late() {
    let (_capsule, mut terminal) = open(BYTES);
    terminal.wait_for("ready:");
    for n in 1..=3 {
        terminal.type_keys("\x1b");
        terminal.wait_for(&format!("ready:{}", "^[".repeat(n)));
    }
}

// ---- leader, palette, dialogs ----

#[test]
fn the_leader_in_all_its_spellings() {
    let (_capsule, mut terminal) = open(BYTES);
    terminal.wait_for("ready:");
    for leader in ["\x1c", "\x1b[92;5u", "\x1b[92;5:1u", "\x1b[92::92;5u", "\x1b[27;5;92~", "\x1b[92:124;5u", "\x1b[92;69u"] {
        terminal.type_keys(leader);
        terminal.wait_until(&format!("the palette after {leader:?}"), |terminal| {
            terminal.text().contains("Side by side") || terminal.text().contains("New tab")
        });
        terminal.type_keys("\x1b");
        terminal.wait_until("closed", |terminal| !terminal.text().contains("New tab"));
    }
    // Twice is one for the program.
    terminal.type_keys("\x1c\x1cend");
    terminal.wait_for("ready:^\\end");
    detach(&mut terminal);
}

#[test]
fn the_leader_is_chosen() {
    for (chosen, key) in [("C-a", "\x01"), ("0x02", "\x02"), ("~", "~"), ("nonsense", "\x1c")] {
        let (_capsule, mut terminal) = open_with(BYTES, WINDOW, &[("JACKIN_PALETTE_KEY", chosen)], &[]);
        terminal.wait_for("ready:");
        terminal.type_keys(key);
        terminal.wait_for("New tab");
        terminal.type_keys("d");
        assert_eq!(terminal.wait_for_exit(), 0, "{chosen}");
    }
    let (_capsule, mut terminal) = open_with(BYTES, WINDOW, &[("JACKIN_PALETTE_KEY", "none"), ("JACKIN_PREFIX", "C-b")], &[]);
    terminal.wait_for("ready:");
    terminal.type_keys("\x1cx");
    terminal.wait_for("ready:^\\x");
    terminal.type_keys("\x02d");
    assert_eq!(terminal.wait_for_exit(), 0);
}

#[test]
fn control_q_asks() {
    let (mut capsule, mut terminal) = open(BYTES);
    terminal.wait_for("ready:");
    for spelling in ["\x11", "\x1b[113;5u", "\x1b[27;5;113~"] {
        terminal.type_keys(spelling);
        terminal.wait_for("stop the container");
        terminal.type_keys("\x1b");
        terminal.wait_until("closed", |terminal| !terminal.text().contains("stop the container"));
    }
    terminal.type_keys("n");
    terminal.wait_for("ready:n");
    terminal.type_keys("\x11");
    terminal.wait_for("stop the container");
    terminal.type_keys("y");
    terminal.wait_for_exit();
    assert_eq!(capsule.wait().code(), Some(0));
}

#[test]
fn alt_shift_arrows_resize() {
    let (_capsule, mut terminal) = open(BYTES);
    terminal.wait_for("ready:");
    another(&mut terminal, '%');
    let divider = |terminal: &Terminal| terminal.row(5).chars().position(|c| c == '│').unwrap_or(0);
    let middle = divider(&terminal);
    for (key, moved) in [("\x1b[1;4D", -4), ("\x1b[1;4:1D", -8), ("\x1b[1;4C", -4), ("\x1b[1;4C", 0)] {
        terminal.type_keys(key);
        terminal.wait_until(&format!("moved by {moved}"), |terminal| (divider(terminal) as i32 - middle as i32 - moved).abs() <= 1);
    }
    assert!(!terminal.text().contains("1;4"), "none of it was typed");
}

#[test]
fn the_palette_by_mouse() {
    let (_capsule, mut terminal) = open(BYTES);
    terminal.wait_for("ready:");
    let (row, col) = terminal.find("menu").unwrap();
    terminal.type_keys(&[press(0, row, col), release(row, col)].concat());
    terminal.wait_for("New tab");
    let (row, col) = terminal.find("New tab").unwrap();
    terminal.type_keys(&[press(0, row, col), release(row, col)].concat());
    terminal.wait_for("Codex");
    let (row, col) = terminal.find("Codex").unwrap();
    terminal.type_keys(&[press(0, row, col), release(row, col)].concat());
    terminal.wait_until("a second tab", |terminal| terminal.row(0).contains("2 Codex") && terminal.text().contains("ready:"));
    // The strip is clicked, too.
    let (row, col) = terminal.find("1 Claude").unwrap();
    terminal.type_keys(&[press(0, row, col), release(row, col), "first".to_owned()].concat());
    terminal.wait_for("ready:first");
}

#[test]
fn tabs_are_made_changed_renamed_and_closed() {
    let (capsule, mut terminal) = open("echo tab $JACKIN_SESSION_ID; exec cat");
    terminal.wait_for("tab 1");
    for n in 2..=3 {
        terminal.type_keys("\x1cc");
        terminal.wait_for("Codex");
        terminal.type_keys("\r");
        terminal.wait_for(&format!("tab {n}"));
    }
    for (keys, shown) in
        [("\x1cn", "tab 1"), ("\x1cn", "tab 2"), ("\x1cp", "tab 1"), ("\x1cp", "tab 3"), ("\x1c2", "tab 2"), ("\x1c1", "tab 1")]
    {
        terminal.type_keys(keys);
        terminal.wait_until(&format!("{shown} after {keys:?}"), |terminal| terminal.row(1) == shown);
    }
    terminal.type_keys("\x1c,");
    terminal.wait_for("Rename tab");
    terminal.type_keys("\x15日本 name\r");
    terminal.wait_until("the new name", |terminal| terminal.row(0).contains("日本 name") && !terminal.text().contains("Rename tab"));
    let mux = capsule.mux_pid();
    kill("KILL", mux);
    let before = terminal.raw.len();
    terminal.wait_for_raw(before, "日本 name");
    terminal.type_keys("\x1c&");
    terminal.wait_for("Close tab");
    terminal.type_keys("y");
    terminal.wait_until("the tab is gone", |terminal| !terminal.row(0).contains("日本 name") && !terminal.row(0).contains(" 3 "));
}

#[test]
fn history_is_searched() {
    let (_capsule, mut terminal) = open("seq 1 300 | sed 's/^\\(50\\|150\\)$/& Needle 日本/'; exec cat");
    terminal.wait_for("300");
    terminal.type_keys("\x1c/");
    terminal.wait_for("Up/Down step");
    terminal.type_keys("needle");
    terminal.wait_for("150 Needle");
    terminal.type_keys("\x1b[A");
    terminal.wait_for("50 Needle");
    terminal.type_keys("\x1b");
    terminal.wait_until("closed", |terminal| !terminal.text().contains("Up/Down step"));
    terminal.type_keys("typed");
    terminal.wait_until("live", |terminal| terminal.text().contains("300") && terminal.text().contains("typed"));
}

// ---- kinds and sizes of terminals ----

/// Programs and chrome in every colour, in two panes and with the palette.
fn show_all(terminal: &mut Terminal) {
    terminal.wait_for("ready:");
    another(terminal, '%');
    terminal.type_keys("\x1c");
    terminal.wait_for("New tab");
    terminal.type_keys("\x1b");
    terminal.wait_until("closed", |terminal| !terminal.text().contains("New tab"));
    detach(terminal);
}

fn colours(sent: &str) -> Vec<&str> {
    let sgr = sent.split("\x1b[").skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != ';' && c != ':')?;
        rest[end..].starts_with('m').then(|| &rest[..end])
    });
    sgr.filter(|sgr| sgr.split(';').any(|n| matches!(n.parse::<u8>(), Ok(30..=38 | 40..=48 | 90..=97 | 100..=107)) || n.contains(':')))
        .collect()
}

const COLOURFUL: &str = "printf '\\033[31;44mred\\033[38;2;1;2;3;48;5;99mtrue\\033[m \\033[1;7mattributes\\033[m '; stty raw -echo; printf 'rea''dy:'; exec cat -v";

#[test]
fn terminals_without_colour_get_none() {
    let (_capsule, mut terminal) = open_with(COLOURFUL, WINDOW, &[], &[]);
    show_all(&mut terminal);
    assert!(colours(&terminal.sent()).iter().any(|sgr| sgr.contains("38;2;1;2;3")), "{:?}", terminal.sent());

    let (_capsule, mut terminal) = open_with(COLOURFUL, WINDOW, &[], &[("COLORTERM", "")]);
    show_all(&mut terminal);
    assert_eq!(colours(&terminal.sent()).into_iter().filter(|sgr| sgr.contains("8;2;")).count(), 0, "256 colours are 256");
    assert!(!colours(&terminal.sent()).is_empty());

    for env in [[("NO_COLOR", "1"), ("TERM", "xterm-256color")], [("TERM", "dumb"), ("COLORTERM", "")]] {
        let (_capsule, mut terminal) = open_with(COLOURFUL, WINDOW, &[], &env);
        show_all(&mut terminal);
        assert_eq!(colours(&terminal.sent()), Vec::<&str>::new(), "{env:?}");
        if env[0].1 == "dumb" {
            assert!(terminal.sent().is_ascii(), "{:?}", terminal.sent());
            assert!(!terminal.sent().contains("\x1b[?2026h"));
        }
    }
}

#[test]
fn every_frame_is_bracketed_where_the_terminal_can() {
    let (_capsule, mut terminal) = open("seq 1 3000; echo done; exec cat");
    terminal.wait_for("done");
    detach(&mut terminal);
    let sent = terminal.sent();
    let mut inside = false;
    for part in sent.split_inclusive("\x1b[?2026h").flat_map(|part| part.split_inclusive("\x1b[?2026l")) {
        let text = part.trim_end_matches("\x1b[?2026h").trim_end_matches("\x1b[?2026l");
        assert!(inside || !text.contains("2999"), "outside: {text:?}");
        inside = part.ends_with("\x1b[?2026h");
    }
    assert!(sent.contains("\x1b[?2026h"));
    let (_capsule, mut terminal) = open_with("echo hello; exec cat", WINDOW, &[], &[("JACKIN_ATTACH_SYNC", "0")]);
    terminal.wait_for("hello");
    assert!(!terminal.sent().contains("\x1b[?2026h"));
}

#[test]
fn any_size() {
    for (rows, cols) in [(6, 3), (8, 20), (7, 80), (24, 19), (9, 30), (500, 200), (200, 500)] {
        let window = Size { rows, cols };
        let (capsule, mut terminal) = open_with("while :; do read -r x; stty size; done", window, &[], &[]);
        let chrome = if rows >= 8 && cols >= 20 { 2 } else { 0 };
        let size = format!("{} {cols}", rows - chrome);
        eventually("the size arrives", || {
            terminal.type_keys("\r");
            let reply = capsule.ask_raw(r#"{"type":"session_read","session_id":1}"#);
            let told: serde_json::Value = serde_json::from_str(&reply).unwrap();
            (told["rows"] == rows - chrome && told["cols"] == cols).then_some(())
        });
        // In three columns the answer wraps.
        terminal.type_keys("\r");
        let squeezed = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
        terminal.wait_until(&size, |terminal| squeezed(&terminal.text()).contains(&squeezed(&size)));
        // Everything that can be shown, whether it fits or not.
        for keys in "\x1c E \x11 E \x1cu E \x1c/ x E \x1c, E \x1c% \r \x1c\" \r \x1cz \x1cz \x1co".split(' ') {
            // As Kitty spells Escape: nothing can follow that makes it another key.
            let keys = keys.replace('E', "\x1b[27u");
            // An answer to what came before is none to this.
            while terminal.take_soon(Duration::from_millis(50)) {}
            let before = terminal.raw.len();
            terminal.type_keys(&keys);
            if keys == "\x1b[27u" {
                // What was opened and closed between two frames was never shown.
                continue;
            }
            terminal.wait_until(&format!("{keys:?} is answered at {rows}x{cols}"), |terminal| terminal.raw.len() > before);
        }
        eventually("three sessions", || {
            let reply = capsule.ask(r#"{"type":"status"}"#);
            matches!(&reply, Reply::SessionList { sessions } if sessions.len() == 3).then_some(())
        });
        detach(&mut terminal);
        assert!(!capsule.log().contains("panick"), "{}", capsule.log());
    }
}

// ---- what programs tell the terminal ----

#[test]
fn the_title_is_set_and_comes_back() {
    let (_capsule, mut terminal) = open("printf '\\033]2;a title\\007\\033]1;short\\007'; exec cat");
    terminal.wait_until("the title", |terminal| terminal.heard().titles.last().is_some_and(|title| title.starts_with("a title")));
    detach(&mut terminal);
    let sent = terminal.sent();
    assert!(sent.contains("\x1b]1;short\x07"), "{sent:?}");
    assert!(sent.find("\x1b[22;0t") < sent.find("\x1b]2;a title"), "kept before it is changed");
    assert!(sent.rfind("\x1b[23;0t") > sent.rfind("\x1b]1;"), "comes back");
    let (_capsule, mut terminal) =
        open_with("printf '\\033]2;a title\\007'; echo shown; exec cat", WINDOW, &[("JACKIN_OSC_TITLE", "deny")], &[]);
    terminal.wait_for("shown");
    terminal.wait_until("a title of ours", |terminal| !terminal.heard().titles.is_empty());
    assert!(!terminal.sent().contains("a title"));
}

const OSC: &str = "echo ready; read x; printf '\\033]52;c;aGk=\\007\\033]9;a notice\\007\\033]7;file:///tmp\\007\\033]777;notify;t;b\\007\
\\033]8;;https://example.com/x\\033\\\\link\\033]8;;\\033\\\\ \\033]8;;file:///etc/passwd\\033\\\\file\\033]8;;\\033\\\\ \\033]52;c;?\\007\\033]1337;x\\007 shown\\n'; exec cat";

#[test]
fn each_family_of_osc_has_its_rule() {
    let case = |env: &[(&str, &str)], passed: &[&str], stopped: &[&str]| {
        let (_capsule, mut terminal) = open_with(OSC, WINDOW, env, &[]);
        // What is told before anybody is attached is for nobody.
        terminal.wait_for("ready");
        terminal.type_keys("\r");
        terminal.wait_for("link file  shown");
        for text in passed {
            terminal.wait_for_raw(0, text);
        }
        detach(&mut terminal);
        for text in ["\x1b]7;", "file:///", "\x1b]1337", "]52;c;?"].iter().chain(stopped) {
            assert!(!terminal.sent().contains(text), "{env:?}: {text:?} was sent: {:?}", terminal.sent());
        }
    };
    case(&[], &["\x1b]9;a notice", "https://example.com/x", "\x1b]777;notify;t;b"], &["aGk="]);
    case(&[("JACKIN_OSC52", "allow")], &["\x1b]52;c;aGk=", "\x1b]9;a notice"], &[]);
    case(&[("JACKIN_OSC_NOTIFY", "off")], &["https://example.com/x"], &["a notice", "notify;t"]);
    case(&[("JACKIN_OSC_HYPERLINK", "no")], &["a notice"], &["https://example.com/x"]);
}

#[test]
fn styled_underlines_where_they_are_known() {
    let agent = "printf '\\033[4:3mcurly\\033[m \\033[4:3;58:2::9:8:7mline\\033[m \\033[21mdouble\\033[m \\033[4:5mdashed\\033[m done\\n'; exec cat";
    let (_capsule, mut terminal) = open_with(agent, WINDOW, &[], &[("TERM", "xterm-kitty")]);
    terminal.wait_for("done");
    for sgr in ["4:3", "4:2", "4:5", "9:8:7"] {
        assert!(terminal.sent().contains(sgr), "{sgr}: {:?}", terminal.sent());
    }
    let (_capsule, mut terminal) = open_with(agent, WINDOW, &[], &[]);
    terminal.wait_for("done");
    assert!(!terminal.sent().contains("4:"), "{:?}", terminal.sent());
    let (row, col) = terminal.find("curly").unwrap();
    assert!(terminal.screen().cell(row, col).unwrap().underline(), "a plain line instead");
}

#[test]
fn the_bell_rings() {
    let (_capsule, mut terminal) = open("echo start; read x; printf '\\007'; echo rung; exec cat");
    terminal.wait_for("start");
    assert_eq!(terminal.heard().bells, 0);
    terminal.type_keys("\r");
    terminal.wait_for("rung");
    terminal.wait_until("a bell", |terminal| terminal.heard().bells == 1);
}

#[test]
fn the_cursor_has_the_shape_of_the_focused_pane() {
    let (_capsule, mut terminal) = open("[ \"$JACKIN_SESSION_ID\" != 1 ] || printf '\\033[5 q'; printf ready:; exec cat");
    terminal.wait_for("ready:");
    terminal.wait_until("a bar", |terminal| terminal.sent().contains("\x1b[5 q"));
    another(&mut terminal, '%');
    terminal.wait_until("as usual", |terminal| terminal.sent().rfind("\x1b[0 q") > terminal.sent().rfind("\x1b[5 q"));
}

// ---- several clients ----

#[test]
fn shared_clients_see_the_size_of_the_smaller() {
    let (capsule, mut large) =
        open_with("trap 'stty size' WINCH; stty size; while :; do read -r x; done", Size { rows: 40, cols: 120 }, &[], &[]);
    large.wait_for("38 120");
    let mut small = Terminal::attach_as(&capsule, WINDOW, &["--shared"], &[]);
    for terminal in [&mut large, &mut small] {
        terminal.wait_for("22 80");
    }
    assert_eq!(large.row(1), small.row(1));
    assert_eq!(large.find("22 80"), small.find("22 80"));
    // Both type.
    small.type_keys("from-the-small ");
    large.wait_for("from-the-small");
    large.type_keys("from-the-large ");
    small.wait_for("from-the-large");
    // How often it was told before depends on when the program began.
    let told = |large: &Terminal| large.text().matches("38 120").count();
    let before = told(&large);
    detach(&mut small);
    large.wait_until("the whole size again", |large| told(large) == before + 1);
}

#[test]
fn a_watcher_only_looks() {
    let (capsule, mut typist) = open("trap 'stty size' WINCH; stty size; while :; do read -r x; done");
    typist.wait_for("22 80");
    let mut watcher = Terminal::attach_as(&capsule, Size { rows: 10, cols: 30 }, &["--watch"], &[]);
    watcher.wait_for("22 80");
    watcher.type_keys("not-for-you\x11\x1cc\r");
    watcher.type_keys(&press(0, 0, 1));
    typist.type_keys("typed");
    for terminal in [&mut typist, &mut watcher] {
        terminal.wait_for("typed");
        assert!(!terminal.text().contains("not-for-you") && !terminal.text().contains("Codex"), "{}", terminal.text());
    }
    assert_eq!(typist.text().matches("22 80").count(), 1, "it does not count for the size");
    watcher.type_keys("q");
    assert_eq!(watcher.wait_for_exit(), 0);
    typist.type_keys("-on");
    typist.wait_for("typed-on");
}

#[test]
fn a_stopped_client_slows_nobody_and_then_sees_the_present() {
    let (capsule, mut stopped) = open("read x; seq 1 1500000; printf 'all done\\n'; exec cat");
    let mut other = Terminal::attach_as(&capsule, WINDOW, &["--shared"], &[]);
    other.wait_until("attached", |other| !other.row(0).is_empty());
    stopped.wait_until("attached", |stopped| !stopped.row(0).is_empty());
    let mux = capsule.mux_pid();
    let before = resident_kb(mux);
    stopped.type_keys("\r");
    stopped.wait_until("the flood has begun", |stopped| stopped.row(5).parse::<u32>().is_ok_and(|n| n > 100));
    kill("STOP", stopped.pid());
    let mut most = 0;
    other.wait_until("the end of the flood", |other| {
        most = most.max(resident_kb(mux));
        other.text().contains("all done")
    });
    other.type_keys("typed after\r");
    // Once by the terminal, once by the program.
    other.wait_until("the echo", |other| other.text().matches("typed after").count() == 2);
    stopped.take();
    let shown = stopped.raw.len();
    assert!(!stopped.text().contains("all done"), "it was not stopped in time");
    // The history of 10,000 lines, and what a frame and a socket hold.
    assert!(most.max(resident_kb(mux)) < before + 8_000, "from {before} to {most} kB");
    kill("CONT", stopped.pid());
    stopped.wait_until("the present", |stopped| stopped.text() == other.text());
    assert!(stopped.raw.len() - shown < 600_000, "{} bytes to catch up", stopped.raw.len() - shown);
}
