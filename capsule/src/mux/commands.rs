//! What the operator types and chooses, carried out.

use crate::chrome::{AgentOffer, AtRisk, Choice, ExitChoice, Go, Outcome, Overlay, Place, Question, Unsaved};
use crate::keys::{Code, Command, Event, Key, Mods, Source, Stroke, Then};
use crate::layout::Axis;
use crate::mouse::{Kind, Mouse};
use crate::provider;
use crate::wire::{ImageFormat, ServerFrame, Spawn};

use super::sessions::{Place as At, Start};
use super::view::{Hit, Search};
use super::{Change, ClientId, Effect, Mux, Pressed, SessionId, Stale};

/// Hits beyond this are not counted.
const MAX_HITS: usize = 1000;

impl Mux {
    // ---- typing ----

    pub(super) fn typed(&mut self, id: ClientId, events: Vec<Event>) {
        for event in events {
            let Some(client) = self.clients.get(&id) else {
                return;
            };
            if !client.types() {
                // Who watches may leave, and nothing else.
                self.watcher_typed(id, &event);
                continue;
            }
            match event {
                Event::Mouse(mouse) => self.mouse(id, &mouse),
                Event::FocusIn => self.focus_event(id, true),
                Event::FocusOut => self.focus_event(id, false),
                // An answer to a question of ours that came late.
                Event::Reply(_) => {}
                Event::Paste(text) => self.paste(id, &text),
                Event::Bytes(bytes) => self.bytes(id, &bytes),
                Event::Key(key) => self.key(id, &key),
            }
        }
    }

    /// A run of plain typing: one by one for an overlay, which may close in the midst of it.
    fn bytes(&mut self, id: ClientId, mut bytes: &[u8]) {
        while self.overlay.is_some() {
            let Some((key, rest)) = Key::first(bytes) else { return };
            self.key(id, &key);
            bytes = rest;
        }
        if !bytes.is_empty() {
            self.type_into_pane(bytes.to_vec());
        }
    }

    fn watcher_typed(&mut self, id: ClientId, event: &Event) {
        let first;
        let key = match event {
            Event::Key(key) => key,
            Event::Bytes(bytes) => match Key::first(bytes) {
                Some((key, _)) => {
                    first = key;
                    &first
                }
                None => return,
            },
            _ => return,
        };
        let bindings = self.settings.bindings;
        let Some(client) = self.clients.get_mut(&id) else { return };
        let armed = std::mem::replace(&mut client.armed, bindings.leader(key) || bindings.prefix(key));
        if armed && bindings.after_leader(key) == Some(Command::Detach) {
            self.detach(id);
        }
    }

    fn key(&mut self, id: ClientId, key: &Key) {
        let bindings = self.settings.bindings;
        if let Some(overlay) = &mut self.overlay {
            if key.stroke != Stroke::Release {
                let outcome = overlay.key(key);
                self.outcome(id, outcome);
            }
            return;
        }
        if bindings.leader(key) || bindings.prefix(key) {
            return self.run(id, Command::Palette);
        }
        if let Some(command) = bindings.direct(key) {
            return self.run(id, command);
        }
        if key.stroke != Stroke::Release && self.scroll_key(key) {
            return;
        }
        // The client's terminal may still speak as the last program wished.
        let modes = self.focused().map(|session| session.screen.modes()).unwrap_or_default();
        let asked = modes.kitty_flags > 0 || modes.modify_other_keys > 0;
        let bytes = if asked { key.raw.clone() } else { key.to_legacy(modes.app_cursor) };
        if !bytes.is_empty() {
            self.type_into_pane(bytes);
        }
    }

    /// Keys that move a view which is scrolled back.
    fn scroll_key(&mut self, key: &Key) -> bool {
        let Some(session) = self.focused().filter(|session| session.top.is_some()) else {
            return false;
        };
        let page = i64::from(session.screen.size().rows.saturating_sub(1).max(1));
        let all = session.screen.history_len() as i64;
        let lines = match key.code {
            Code::Up => 1,
            Code::Down => -1,
            Code::PageUp => page,
            Code::PageDown => -page,
            Code::Home => all,
            Code::End | Code::Escape => -all,
            _ => return false,
        };
        if key.mods != Mods::default() {
            return false;
        }
        let id = session.record.id;
        self.scroll(id, lines);
        if self.focused().is_some_and(|session| session.top.is_none()) {
            self.found = None;
        }
        true
    }

    fn paste(&mut self, id: ClientId, text: &[u8]) {
        if let Some(overlay) = &mut self.overlay {
            let outcome = overlay.paste(&String::from_utf8_lossy(text));
            return self.outcome(id, outcome);
        }
        let bracketed = self.focused().is_some_and(|session| session.screen.modes().bracketed_paste);
        let bytes = if bracketed { [b"\x1b[200~", text, b"\x1b[201~"].concat() } else { text.to_vec() };
        self.type_into_pane(bytes);
    }

    fn type_into_pane(&mut self, bytes: Vec<u8>) {
        let Some(session) = self.layout.focused() else { return };
        if self.keep_for_starting(session, &bytes) {
            return;
        }
        self.back_to_live(session);
        self.effects.push(Effect::Write { session, bytes });
    }

    /// Typing shows where it goes.
    fn back_to_live(&mut self, id: SessionId) {
        let Some(session) = self.live.get_mut(&id) else { return };
        if session.top.take().is_some() || self.selection.is_some() || self.found.is_some() {
            self.selection = None;
            self.found = None;
            self.touch(Stale::Everything);
        }
    }

    fn outcome(&mut self, id: ClientId, outcome: Outcome) {
        match outcome {
            Outcome::Stay => self.touch(Stale::Everything),
            Outcome::Close => {
                // A search that is given up leaves the view where it was.
                if let (Some(Overlay::Search(_)), Some((session, top))) = (&self.overlay, self.before_search.take()) {
                    self.found = None;
                    if let Some(session) = self.live.get_mut(&session) {
                        session.top = top;
                    }
                }
                self.close_overlay();
            }
            Outcome::Do(choice) => {
                self.close_overlay();
                self.choose(id, choice);
            }
            Outcome::Tell(choice) => self.choose(id, choice),
        }
    }

    pub(super) fn mouse_on_overlay(&mut self, id: ClientId, mouse: &Mouse) -> bool {
        let area = crate::frame::Rect::of(self.size);
        let Some(overlay) = &mut self.overlay else {
            return false;
        };
        if matches!(mouse.kind, Kind::Release(_)) {
            // It was pressed before the overlay came.
            self.pressed = Pressed::Nothing;
        }
        let outcome = overlay.mouse(mouse, area);
        self.outcome(id, outcome);
        true
    }

    fn close_overlay(&mut self) {
        self.overlay = None;
        self.touch(Stale::Everything);
    }

    pub(super) fn show(&mut self, overlay: Overlay) {
        self.overlay = Some(overlay);
        self.touch(Stale::Everything);
    }

    // ---- choices ----

    fn choose(&mut self, id: ClientId, choice: Choice) {
        match choice {
            Choice::Run(command) => self.run(id, command),
            Choice::Spawn { spawn, place } => {
                let place = match (place, self.layout.focused()) {
                    (Place::Split(axis), Some(at)) => At::Split(at, axis),
                    _ => At::Tab,
                };
                self.start(Start { spawn, place, env: Vec::new(), cwd: None });
            }
            Choice::Confirmed(Question::ClosePane(session)) => self.close([session]),
            Choice::Confirmed(Question::CloseTab(session)) => self.close(self.panes_beside(session)),
            Choice::Confirmed(Question::Exit) => self.exit(),
            Choice::DirtyExit(ExitChoice::Keep) => self.exit_with("keep"),
            Choice::DirtyExit(ExitChoice::Discard) => self.exit_with("discard"),
            Choice::DirtyExit(ExitChoice::Inspect(path)) => {
                self.start(Start { spawn: Spawn::Shell, place: At::Tab, env: Vec::new(), cwd: Some(path) });
            }
            Choice::Rename { tab, name } => {
                if let Some(index) = self.layout.tab_of(tab) {
                    self.layout.rename_tab(index, name.as_deref());
                    self.layout_changed();
                }
            }
            Choice::Search { needle, backwards, go } => self.search(&needle, backwards, go),
            Choice::Path { command, path } => self.run_with_path(id, &command, path),
            Choice::Copy(text) => self.copy(&text),
        }
    }

    fn panes_beside(&self, session: SessionId) -> Vec<SessionId> {
        let index = self.layout.tab_of(session);
        index.and_then(|index| self.layout.tabs().nth(index)).map_or(Vec::new(), |tab| tab.panes)
    }

    pub(super) fn run(&mut self, id: ClientId, command: Command) {
        let area = self.area();
        let focused = self.layout.focused();
        let changed = match command {
            Command::Palette => {
                let palette = Overlay::palette(self.settings.bindings, |command| self.unavailable(command).map(str::to_owned));
                return self.show(palette);
            }
            Command::SendLeader => {
                let leader = self.settings.bindings.leader.or(self.settings.bindings.prefix);
                return self.type_into_pane(leader.map_or_else(Vec::new, |chord| chord.legacy(false)));
            }
            Command::NewTab => return self.show(Overlay::agents(Place::NewTab, &self.agent_offers())),
            Command::SplitStacked => return self.show(Overlay::agents(Place::Split(Axis::Stacked), &self.agent_offers())),
            Command::SplitSideBySide => return self.show(Overlay::agents(Place::Split(Axis::SideBySide), &self.agent_offers())),
            Command::Focus(direction) => self.layout.focus_towards(direction, area),
            Command::NextPane => self.layout.focus_next(),
            Command::NextTab => self.layout.next_tab(),
            Command::PreviousTab => self.layout.previous_tab(),
            Command::Jump(index) => self.layout.jump(index),
            Command::Zoom => self.layout.toggle_zoom(),
            Command::Resize(direction) => self.layout.resize(direction, area),
            Command::ClosePane => {
                let Some(session) = focused else { return };
                return if self.are_all(&[session]) { self.ask_to_exit() } else { self.ask(Question::ClosePane(session), &[session]) };
            }
            Command::CloseTab => {
                let Some(session) = focused else { return };
                let panes = self.panes_beside(session);
                return if self.are_all(&panes) { self.ask_to_exit() } else { self.ask(Question::CloseTab(session), &panes) };
            }
            Command::Exit => return self.ask_to_exit(),
            Command::Detach => return self.detach(id),
            Command::Scroll => {
                if let Some(session) = focused {
                    self.scroll(session, 0);
                    self.scroll(session, i64::from(self.size.rows / 2));
                }
                return;
            }
            Command::Search => {
                self.before_search = self.focused().map(|session| (session.record.id, session.top));
                return self.show(Overlay::search("", true));
            }
            Command::Info => return self.show(self.information()),
            Command::Redraw => {
                if let Some(client) = self.clients.get_mut(&id) {
                    client.shown.forget();
                }
                return self.touch(Stale::Everything);
            }
            Command::Record => {
                let Some(session) = self.focused() else { return };
                let (session, on, size) = (session.record.id, !session.recording, session.screen.size());
                return self.effects.push(Effect::Record { session, on, size });
            }
            Command::RenameTab => {
                let Some(session) = focused else { return };
                let name = self.layout.tabs().nth(self.layout.active()).and_then(|tab| tab.name.map(str::to_owned));
                return self.show(Overlay::rename(session, &name.unwrap_or_default()));
            }
            Command::ClearPane => {
                if let Some(session) = focused.and_then(|id| self.live.get_mut(&id)) {
                    session.screen.clear();
                    // The program does not know; its prompt comes back when it paints anew.
                    self.effects.push(Effect::Write { session: session.record.id, bytes: b"\x0c".to_vec() });
                }
                return self.touch(Stale::Everything);
            }
            Command::OpenLink => {
                match self.link_at_cursor() {
                    Some(url) => self.open(id, url),
                    None => self.toast("there is no link at the cursor".to_owned()),
                }
                return;
            }
            Command::ExportFile { source, .. } => {
                let path = match source {
                    Source::Typed => None,
                    Source::Cursor => self.path_at_cursor(),
                    Source::Selection => self.selected_text(),
                };
                return match (source, path) {
                    (Source::Typed, _) => self.show(Overlay::path("Export a file", command, "")),
                    (_, Some(path)) => self.run_with_path(id, &command, path),
                    (_, None) => self.toast("there is no path there".to_owned()),
                };
            }
            Command::ImageFromPath => return self.ask_host(id, ServerFrame::StageImageFromPath),
            Command::PasteImage => return self.ask_host(id, ServerFrame::PasteImage),
            Command::StageImage => return self.ask_host(id, ServerFrame::StageImage),
        };
        if changed {
            self.layout_changed();
        }
    }

    pub(super) fn stop_recording(&mut self) {
        for session in self.live.values().filter(|session| session.recording) {
            let (session, size) = (session.record.id, session.screen.size());
            self.effects.push(Effect::Record { session, on: false, size });
        }
    }

    fn run_with_path(&mut self, id: ClientId, command: &Command, path: String) {
        if let Command::ExportFile { then, .. } = *command {
            self.effects.push(Effect::Export { client: id, path, reveal: then == Then::Reveal, open: then == Then::Open });
        }
    }

    fn ask_host(&mut self, id: ClientId, frame: ServerFrame) {
        self.effects.push(Effect::Send { client: id, frame });
    }

    pub(super) fn open(&mut self, id: ClientId, url: String) {
        self.ask_host(id, ServerFrame::HostOpenUrl(url));
    }

    /// Closing them is leaving, with all the questions that go with it.
    fn are_all(&self, sessions: &[SessionId]) -> bool {
        self.live.keys().chain(self.starting.keys()).all(|id| sessions.contains(id))
    }

    fn ask(&mut self, question: Question, ends: &[SessionId]) {
        let at_risk: Vec<_> = ends.iter().filter_map(|id| self.live.get(id)).map(at_risk).collect();
        self.show(Overlay::confirm(question, &at_risk));
    }

    pub(super) fn confirm_exit(&mut self) {
        let all: Vec<_> = self.live.keys().copied().collect();
        self.ask(Question::Exit, &all);
    }

    pub(super) fn ask_about_changes(&mut self, changes: &[Change]) {
        let unsaved = |change: &Change| {
            let Change { path, changed, unpushed, unknown } = change.clone();
            Unsaved { path, changed, unpushed, unknown }
        };
        self.show(Overlay::dirty_exit(&changes.iter().map(unsaved).collect::<Vec<_>>()));
    }

    // ---- what can be chosen ----

    /// Why a command cannot be carried out now.
    fn unavailable(&self, command: Command) -> Option<&'static str> {
        let panes = self.layout.tabs().nth(self.layout.active()).map_or(0, |tab| tab.panes.len());
        match command {
            Command::Zoom | Command::NextPane | Command::Focus(_) if panes < 2 => Some("one pane only"),
            Command::NextTab | Command::PreviousTab if self.layout.tabs().len() < 2 => Some("one tab only"),
            Command::OpenLink if self.link_at_cursor().is_none() => Some("no link there"),
            Command::ExportFile { source: Source::Cursor, .. } if self.path_at_cursor().is_none() => Some("no path there"),
            Command::ExportFile { source: Source::Selection, .. } if self.selection.is_none() => Some("nothing selected"),
            _ => None,
        }
    }

    fn agent_offers(&self) -> Vec<AgentOffer> {
        let keys = &self.settings.keys;
        let offer = |slug: &String| AgentOffer {
            slug: slug.clone(),
            providers: provider::choices(slug, keys).iter().map(|provider| provider.label.to_owned()).collect(),
        };
        self.settings.config.agents.iter().map(offer).collect()
    }

    // ---- history ----

    /// By so many lines back, or forward when negative; forward past the end is live again.
    pub(super) fn scroll(&mut self, id: SessionId, lines: i64) {
        let Some(session) = self.live.get_mut(&id) else { return };
        let first = session.screen.first_line() as u64;
        let bottom = first + session.screen.history_len() as u64;
        let top = session.top_line().saturating_add_signed(-lines).clamp(first, bottom);
        session.top = (top < bottom || lines >= 0 && bottom > first).then_some(top);
        if top == bottom && lines < 0 {
            session.top = None;
        }
        session.dirty = true;
        self.touch(Stale::Everything);
    }

    fn search(&mut self, needle: &str, backwards: bool, go: Go) {
        let Some(session) = self.focused() else { return };
        let (id, screen) = (session.record.id, &session.screen);
        let base = screen.first_line() as u64;
        let last = (screen.history_len() + usize::from(screen.size().rows)).saturating_sub(1);
        let here = self.found.as_ref().filter(|found| found.session == id && found.needle == needle).and_then(|found| found.at);
        let at = |line| {
            screen.search(needle, line, backwards).map(|found| Hit { line: base + found.line as u64, col: found.col, cols: found.cols })
        };
        let index = |hit: Hit| hit.line.saturating_sub(base) as usize;
        let step = |forward: bool| {
            let from = here.map_or(if forward { 0 } else { last }, |hit| if forward { index(hit) + 1 } else { index(hit).wrapping_sub(1) });
            // Past either end it begins again at the other.
            let from = if from > last { if forward { 0 } else { last } } else { from };
            let found = screen.search(needle, from, !forward).or_else(|| screen.search(needle, if forward { 0 } else { last }, !forward));
            found.map(|found| Hit { line: base + found.line as u64, col: found.col, cols: found.cols })
        };
        let hit = match go {
            Go::Here => at(if backwards { last } else { 0 }),
            Go::Next => step(!backwards),
            Go::Previous => step(backwards),
            Go::Done => here,
        };
        let count = hit.map(|hit| self.count_hits(id, needle, hit));
        self.found = Some(Search { session: id, needle: needle.to_owned(), at: hit, count });
        if let Some(overlay) = &mut self.overlay {
            overlay.set_found(count);
        }
        if let Some(hit) = hit {
            self.bring_into_view(id, hit.line);
        }
        self.touch(Stale::Everything);
    }

    /// Which of the lines with a hit this is, from one, and how many there are.
    fn count_hits(&self, id: SessionId, needle: &str, hit: Hit) -> (usize, usize) {
        let Some(session) = self.live.get(&id) else { return (0, 0) };
        let base = session.screen.first_line() as u64;
        let (mut from, mut before, mut all) = (0, 0, 0);
        while let Some(found) = session.screen.search(needle, from, false).filter(|found| found.line >= from) {
            all += 1;
            before += usize::from(base + found.line as u64 <= hit.line);
            from = found.line + 1;
            if all == MAX_HITS || from > session.screen.history_len() + usize::from(session.screen.size().rows) {
                break;
            }
        }
        (before, all)
    }

    fn bring_into_view(&mut self, id: SessionId, line: u64) {
        let Some(session) = self.live.get_mut(&id) else { return };
        let (rows, top) = (u64::from(session.screen.size().rows), session.top_line());
        if !(top..top + rows).contains(&line) {
            let first = session.screen.first_line() as u64;
            let bottom = first + session.screen.history_len() as u64;
            let wanted = line.saturating_sub(rows / 2).clamp(first, bottom);
            session.top = (wanted < bottom).then_some(wanted);
        }
    }

    // ---- the operator's machine ----

    pub(super) fn copy(&mut self, text: &str) {
        match crate::select::osc52(text) {
            Ok(bytes) => {
                self.pass(&bytes);
                let count = text.chars().count();
                self.toast(format!("copied {count} character{}", if count == 1 { "" } else { "s" }));
            }
            Err(reason) => self.warn(reason.to_string()),
        }
    }

    pub(super) fn stage(&mut self, id: ClientId, format: u8, bytes: Vec<u8>) {
        let types = self.clients.get(&id).is_some_and(|client| client.types());
        let Some(session) = self.layout.focused().filter(|_| types) else { return };
        match ImageFormat::from_wire(format) {
            Some(format) => self.effects.push(Effect::StageImage { session, format, bytes }),
            None => self.warn(format!("image format {format} is not known")),
        }
    }

    pub(super) fn staged(&mut self, session: SessionId, result: Result<String, String>) {
        match result {
            Ok(path) if self.live.contains_key(&session) => {
                let bracketed = self.live.get(&session).is_some_and(|session| session.screen.modes().bracketed_paste);
                let bytes = if bracketed { format!("\x1b[200~{path}\x1b[201~") } else { path };
                self.effects.push(Effect::Write { session, bytes: bytes.into_bytes() });
            }
            Ok(_) => {}
            Err(error) => self.warn(format!("the image could not be pasted: {error}")),
        }
    }

    fn exit_with(&mut self, action: &'static str) {
        self.effects.push(Effect::WriteExitAction(action));
        self.close_all();
    }

    pub(super) fn focused(&self) -> Option<&super::sessions::Session> {
        self.layout.focused().and_then(|id| self.live.get(&id))
    }
}

fn at_risk(session: &super::sessions::Session) -> AtRisk {
    let meta = &session.record.meta;
    AtRisk { label: meta.label.clone(), codename: meta.codename.clone(), state: session.state() }
}
