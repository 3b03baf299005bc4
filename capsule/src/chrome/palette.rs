//! The palette: every command with its keys. Keys work at once, without Enter, until a filter is being typed. The table
//! of commands comes in, an `Outcome` out.

use crate::keys::{Bindings, Chord, Code, Command, DIRECT, ENTRIES, Key};

use super::choice::{Choice, Outcome};
use super::menu::{Act, Entry, Line, Menu};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Palette {
    pub(super) menu: Menu,
    bindings: Bindings,
    unavailable: Vec<Command>,
}

impl Palette {
    pub fn new(bindings: Bindings, unavailable: impl Fn(Command) -> Option<String>) -> Self {
        let mut blocked = Vec::new();
        let mut lines = Vec::new();
        let mut push = |label: &str, keys: String, command| {
            let act = match unavailable(command) {
                Some(reason) => {
                    blocked.push(command);
                    Err(reason)
                }
                None => Ok(Act::Do(Choice::Run(command))),
            };
            lines.push(Line::Entry(Entry { label: capital(label), detail: String::new(), key: keys, act }));
        };
        for entry in ENTRIES {
            let direct = DIRECT.iter().find(|direct| direct.command == entry.command).map(|direct| direct.keys);
            match entry.command {
                // Ten commands, told by their keys alone.
                Command::Jump(_) | Command::Palette => {}
                command => push(entry.text, names(entry.keys, direct.unwrap_or_default()), command),
            }
        }
        for entry in DIRECT.iter().filter(|direct| ENTRIES.iter().all(|entry| entry.command != direct.command)) {
            push(entry.text, names("", entry.keys), entry.command);
        }
        if let Some(leader) = bindings.leader {
            let name = key_name(leader);
            push(&format!("send {name} to the pane"), name, Command::SendLeader);
        }
        let menu = Menu::new("Menu", ": filter  1-9 tab  Enter run  Esc close", lines);
        Self { menu, bindings, unavailable: blocked }
    }

    pub fn key(&mut self, key: &Key) -> Outcome {
        if self.menu.is_filtering() || moves(key.chord()) && !(key.code == Code::PageUp && self.menu.is_at_top()) {
            return self.menu.key(key);
        }
        match self.bindings.after_leader(key) {
            Some(Command::Palette) => {
                self.menu.start_filter();
                Outcome::Stay
            }
            Some(command) if !self.unavailable.contains(&command) => Outcome::Do(Choice::Run(command)),
            _ => Outcome::Stay,
        }
    }
}

/// Keys of the list itself. Page Up is one only where there is something above.
fn moves(chord: Chord) -> bool {
    use Code::{BackTab, Down, End, Enter, Escape, Home, PageDown, PageUp, Tab, Up};
    let plain = !(chord.mods.shift || chord.mods.alt || chord.mods.ctrl || chord.mods.logo);
    plain && matches!(chord.code, Escape | Enter | Up | Down | Home | End | PageUp | PageDown | Tab | BackTab)
}

/// The keys after the leader that the list does not take for itself, then those that need no leader.
fn names(after_leader: &'static str, direct: &'static str) -> String {
    let read = |keys: &'static str| keys.split_whitespace().filter_map(Chord::parse);
    let names = read(after_leader).filter(|chord| chord.code == Code::PageUp || !moves(*chord)).chain(read(direct)).map(key_name);
    names.collect::<Vec<_>>().join(" ")
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// As people write it: `Ctrl+L`.
pub fn key_name(chord: Chord) -> String {
    let key = match chord.code {
        Code::Char(' ') => "Space".to_owned(),
        Code::Char(c) if chord.mods.ctrl => c.to_uppercase().collect(),
        Code::Char(c) => c.to_string(),
        Code::F(number) => format!("F{number}"),
        code => format!("{code:?}"),
    };
    let mods = [(chord.mods.ctrl, "Ctrl+"), (chord.mods.alt, "Alt+"), (chord.mods.shift, "Shift+"), (chord.mods.logo, "Super+")];
    mods.iter().filter(|(held, _)| *held).map(|(_, name)| *name).chain([key.as_str()]).collect()
}
