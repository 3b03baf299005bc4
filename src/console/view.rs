//! The picture: a `Console` and a style in, cells out. Absent: every decision but where things stand.

use super::state::{CHROME, Console, Dialog, LEAST, Place, told};
use super::text::wrap;
use super::world::{Engine, Group, Instance, Workspace};
use crate::render::status::Health;
use crate::render::{Style as Look, clean, cut, width};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

/// What a text means; how it looks follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ink {
    Plain,
    Strong,
    Faint,
    Good,
    Warn,
    Bad,
    Chosen,
}

struct Painter<'a> {
    look: &'a Look,
    buffer: &'a mut Buffer,
}

pub fn draw(console: &Console, look: &Look, buffer: &mut Buffer) {
    let area = buffer.area;
    buffer.reset();
    let mut painter = Painter { look, buffer };
    if area.width < LEAST.0 || area.height < LEAST.1 {
        painter.text(area.x, area.y, area.width, "The terminal is too small: 40x15.", Ink::Plain);
        return;
    }
    if let Some(Dialog::Pager { title, text, top, again }) = &console.dialog {
        let keys: &[(&str, &str)] =
            if again.is_some() { &[("E", "edit again"), ("Esc", "leave it so")] } else { &[("Esc", "back"), ("Space", "on")] };
        return painter.pager(area, title, text, *top, keys);
    }
    painter.title(area, console);
    let body = Rect { y: area.y + 1, height: area.height - CHROME, ..area };
    match console.has_preview() {
        true => {
            let left = (body.width * 2 / 5).clamp(30, 70);
            painter.list(Rect { width: left, ..body }, console);
            let bar = if look.unicode { "│" } else { "|" };
            for y in body.y..body.y + body.height {
                painter.text(body.x + left, y, 1, bar, Ink::Faint);
            }
            painter.preview(Rect { x: body.x + left + 2, width: body.width - left - 2, ..body }, console);
        }
        false => painter.list(body, console),
    }
    painter.message(Rect { y: area.y + area.height - 2, height: 1, ..area }, console);
    painter.keys(Rect { y: area.y + area.height - 1, height: 1, ..area }, &hints(console));
    match &console.dialog {
        Some(Dialog::Confirm { title, text, .. }) => {
            let text = wrap(text, box_width(area) - 4);
            let lines: Vec<(String, Ink)> = text.into_iter().map(|line| (line, Ink::Plain)).collect();
            painter.dialog(area, title, &lines, 0, &[("Y", "yes"), ("N", "no")]);
        }
        Some(Dialog::Pick { title, options, at, .. }) => {
            let ink = |row| if row == *at { Ink::Chosen } else { Ink::Plain };
            let lines: Vec<(String, Ink)> = options.iter().enumerate().map(|(row, option)| (clean(option), ink(row))).collect();
            painter.dialog(area, title, &lines, *at, &[("Enter", "choose"), ("Esc", "back")]);
        }
        Some(Dialog::Form(form)) => {
            let room = box_width(area) - 12;
            let mut lines = Vec::new();
            for (row, label) in ["Name", "Folder"].into_iter().enumerate() {
                // What is being typed is at the end.
                let (value, at) = (clean(&form.fields[row]), row == form.at);
                let value = if at { end_of(&value, room - 1) + "_" } else { cut(&value, room, look) };
                lines.push((format!("{label:<8}{value}"), if at { Ink::Strong } else { Ink::Plain }));
            }
            lines.extend(form.problem.iter().flat_map(|problem| wrap(problem, box_width(area) - 4)).map(|line| (line, Ink::Bad)));
            painter.dialog(area, "New workspace", &lines, 0, &[("Enter", "save"), ("Tab", "next"), ("Esc", "back")]);
        }
        Some(Dialog::Pager { .. }) | None => {}
    }
}

fn box_width(area: Rect) -> usize {
    usize::from(area.width.min(72)) - 2
}

/// The last columns of a text.
fn end_of(text: &str, room: usize) -> String {
    let mut rest = text;
    while width(rest) > room {
        rest = &rest[rest.chars().next().map_or(0, char::len_utf8)..];
    }
    rest.to_owned()
}

/// The keys that count for what is selected, the more useful first.
fn hints(console: &Console) -> Vec<(&'static str, &'static str)> {
    const ALWAYS: [(&str, &str); 4] = [("/", "filter"), ("S", "settings"), ("?", "help"), ("Q", "leave")];
    if console.filtering {
        return vec![("Enter", "keep"), ("Esc", "clear")];
    }
    if console.pane.is_some() {
        return vec![("Enter", "attach"), ("Esc", "back")];
    }
    let own: &[(&str, &str)] = match &console.selected {
        Place::Instance(_) => &[
            ("Enter", "attach"),
            ("A", "agent"),
            ("X", "shell"),
            ("I", "inspect"),
            ("T", "eject"),
            ("P", "purge"),
            ("Tab", "sessions"),
            ("V", "plan"),
            ("E", "edit"),
        ],
        Place::Group(Group::Workspace(_)) => {
            &[("Enter", "launch"), ("V", "plan"), ("E", "edit"), ("N", "new"), ("D", "delete"), ("W", "prewarm")]
        }
        Place::Group(Group::Here) => &[("Enter", "launch"), ("N", "new workspace")],
        Place::Group(Group::Other(_)) => &[("Enter", "fold")],
    };
    [own, &ALWAYS].concat()
}

/// A line of the preview.
type Line = Vec<(String, Ink)>;

impl Painter<'_> {
    fn style(&self, ink: Ink) -> Style {
        let plain = Style::new();
        let coloured = |colour| if self.look.colour { plain.fg(colour) } else { plain };
        match ink {
            Ink::Plain => plain,
            Ink::Strong => plain.add_modifier(Modifier::BOLD),
            Ink::Faint => plain.add_modifier(Modifier::DIM),
            Ink::Good => coloured(Color::Green),
            Ink::Warn => coloured(Color::Yellow),
            Ink::Bad => coloured(Color::Red).add_modifier(Modifier::BOLD),
            Ink::Chosen => plain.add_modifier(Modifier::REVERSED),
        }
    }

    /// From outside or not, it is made harmless; the column behind it is returned.
    fn text(&mut self, x: u16, y: u16, room: u16, text: &str, ink: Ink) -> u16 {
        let text = cut(&clean(text), usize::from(room), self.look);
        self.buffer.set_stringn(x, y, text, usize::from(room), self.style(ink)).0
    }

    fn fill(&mut self, area: Rect, ink: Ink) {
        let style = self.style(ink);
        self.buffer.set_style(area, style);
    }

    fn title(&mut self, area: Rect, console: &Console) {
        let live = console.live().len();
        let engine = match &console.world.engine {
            Engine::NotAsked => "asking the engine",
            Engine::Answers => "",
            Engine::Silent(_) => "no engine",
        };
        let right = match (live, engine) {
            (0, engine) => engine.to_owned(),
            (live, "") => format!("{live} live"),
            (live, engine) => format!("{live} live, {engine}"),
        };
        let columns = u16::try_from(width(&right)).unwrap_or(area.width).min(area.width / 2);
        let end = self.text(area.x, area.y, area.width, " jackin", Ink::Strong);
        let room = (area.x + area.width).saturating_sub(end + columns + 4);
        self.text(end + 2, area.y, room, &console.world.folder, Ink::Faint);
        let ink = if matches!(console.world.engine, Engine::Silent(_)) { Ink::Bad } else { Ink::Faint };
        self.text(area.x + area.width - columns - 1, area.y, columns, &right, ink);
    }

    fn list(&mut self, area: Rect, console: &Console) {
        let places = console.places();
        let height = usize::from(area.height);
        let at = console.at(&places);
        let top = at.saturating_sub(height / 2).min(places.len().saturating_sub(height));
        for ((row, place), y) in places.iter().enumerate().skip(top).take(height).zip(area.y..) {
            let line = Rect { y, height: 1, ..area };
            match place {
                Place::Group(group) => self.group(line, console, group),
                Place::Instance(key) => {
                    if let Some(instance) = console.world.instance(key) {
                        self.instance(line, instance);
                    }
                }
            }
            if row == at {
                self.fill(line, if console.pane.is_some() && console.has_preview() { Ink::Strong } else { Ink::Chosen });
            }
        }
        if console.fitting().is_empty() {
            let below = u16::try_from(places.len() + 1).unwrap_or(u16::MAX);
            let y = area.y + below.min(area.height - 1);
            self.text(area.x + 1, y, area.width - 1, "Nothing fits the filter.", Ink::Faint);
        }
    }

    fn group(&mut self, line: Rect, console: &Console, group: &Group) {
        let inside = console.world.of_group(group).count();
        let folded = console.is_folded(group);
        let mark = match (inside, folded, self.look.unicode) {
            (0, ..) => " ",
            (_, true, true) => "▸",
            (_, true, false) => "+",
            (_, false, true) => "▾",
            (_, false, false) => "-",
        };
        self.text(line.x + 1, line.y, 1, mark, Ink::Faint);
        let workspace = match group {
            Group::Workspace(name) => console.world.workspace(name),
            _ => None,
        };
        let (aside, ink) = match workspace {
            Some(workspace) if !workspace.problems.is_empty() => ("not in order".to_owned(), Ink::Bad),
            Some(workspace) => (workspace.role().map(|role| clean(role)).unwrap_or_default(), Ink::Faint),
            None if folded => (inside.to_string(), Ink::Faint),
            None => (String::new(), Ink::Faint),
        };
        self.two(Rect { x: line.x + 3, width: line.width - 3, ..line }, &console.label(group), Ink::Strong, &aside, ink);
    }

    fn instance(&mut self, line: Rect, instance: &Instance) {
        if instance.is_live() {
            self.text(line.x + 3, line.y, 1, "*", Ink::Good);
        }
        let wants = ["blocked", "done", "working"].into_iter().find_map(|state| Some((instance.session_states.get(state)?, state)));
        let aside = match wants {
            Some((count, state)) => format!("{count} {state}  {}", instance.state()),
            None => instance.state().to_owned(),
        };
        self.two(Rect { x: line.x + 5, width: line.width - 5, ..line }, instance.name(), Ink::Plain, &aside, health(instance.health));
    }

    /// A text, and another one at the right end of the line if there is room.
    fn two(&mut self, line: Rect, text: &str, ink: Ink, aside: &str, aside_ink: Ink) {
        let columns = u16::try_from(width(aside)).unwrap_or(u16::MAX);
        let fits = !aside.is_empty() && columns + 8 < line.width;
        let room = if fits { line.width - columns - 2 } else { line.width - 1 };
        self.text(line.x, line.y, room, text, ink);
        if fits {
            self.text(line.x + line.width - columns - 1, line.y, columns, aside, aside_ink);
        }
    }

    fn message(&mut self, area: Rect, console: &Console) {
        let engine = match &console.world.engine {
            Engine::Silent(why) => Some(why),
            _ => None,
        };
        // What the preview would tell.
        let own = console.selected_workspace().filter(|_| !console.has_preview()).and_then(|workspace| workspace.problems.first());
        let problem = own.or(console.world.problems.first());
        let (text, ink) = match (&console.message, problem, engine) {
            _ if console.filtering => (format!("/{}_", clean(&console.filter)), Ink::Strong),
            (Some(message), ..) => (message.text.clone(), if message.bad { Ink::Bad } else { Ink::Plain }),
            _ if !console.filter.is_empty() => (format!("/{}", clean(&console.filter)), Ink::Strong),
            (None, Some(problem), _) => (problem.to_string(), Ink::Bad),
            (None, None, Some(why)) => (why.clone(), Ink::Warn),
            (None, None, None) => return,
        };
        self.text(area.x + 1, area.y, area.width - 2, &text, ink);
    }

    /// As many as there is room for; the last two are always among them.
    fn keys(&mut self, area: Rect, hints: &[(&str, &str)]) {
        let columns = |hint: &(&str, &str)| width(hint.0) + 1 + width(hint.1) + 2;
        let (body, last) = hints.split_at(hints.len().saturating_sub(2));
        let mut room = usize::from(area.width).saturating_sub(1 + last.iter().map(columns).sum::<usize>());
        let mut x = area.x + 1;
        let fitting = body.iter().take_while(|hint| {
            let fits = columns(hint) <= room;
            room = room.saturating_sub(columns(hint));
            fits
        });
        for (key, what) in fitting.chain(last) {
            x = self.text(x, area.y, area.x + area.width - x, key, Ink::Strong) + 1;
            x = self.text(x, area.y, (area.x + area.width).saturating_sub(x), what, Ink::Faint) + 2;
            x = x.min(area.x + area.width);
        }
    }

    fn preview(&mut self, area: Rect, console: &Console) {
        let columns = usize::from(area.width);
        let mut active = None;
        let lines = match console.selected_instance() {
            Some(instance) => {
                let mut lines = instance_lines(instance, columns);
                active = sessions(console, instance, &mut lines);
                lines
            }
            None => group_lines(console, columns),
        };
        let height = usize::from(area.height);
        let top = active.map_or(0, |line: usize| (line + 1).saturating_sub(height));
        for ((row, line), y) in lines.iter().enumerate().skip(top).take(height).zip(area.y..) {
            let mut x = area.x;
            for (text, ink) in line {
                x = self.text(x, y, (area.x + area.width).saturating_sub(x), text, *ink);
            }
            if Some(row) == active {
                self.fill(Rect { y, height: 1, ..area }, Ink::Chosen);
            }
        }
    }

    fn pager(&mut self, area: Rect, title: &str, text: &str, top: usize, keys: &[(&str, &str)]) {
        self.text(area.x + 1, area.y, area.width - 2, title, Ink::Strong);
        let lines = wrap(text, usize::from(area.width));
        let height = usize::from(area.height - 2);
        for (line, y) in lines.iter().skip(top).take(height).zip(area.y + 1..) {
            self.text(area.x, y, area.width, line, Ink::Plain);
        }
        let bottom = Rect { y: area.y + area.height - 1, height: 1, ..area };
        self.keys(bottom, keys);
        if lines.len() > height {
            let place = format!("{}-{}/{}", top + 1, (top + height).min(lines.len()), lines.len());
            let columns = u16::try_from(place.len()).unwrap_or(area.width).min(area.width / 2);
            self.text(area.x + area.width - columns - 1, bottom.y, columns, &place, Ink::Faint);
        }
    }

    /// A box in the middle. Where it is too low for all lines, those round `at` are shown.
    fn dialog(&mut self, area: Rect, title: &str, lines: &[(String, Ink)], at: usize, keys: &[(&str, &str)]) {
        let columns = u16::try_from(box_width(area)).unwrap_or(area.width);
        let most = usize::from(area.height) - 4;
        let shown = lines.len().min(most);
        let top = at.saturating_sub(most / 2).min(lines.len() - shown);
        let height = u16::try_from(shown).unwrap_or(area.height) + 4;
        let outer = Rect { x: area.x + (area.width - columns) / 2, y: area.y + (area.height - height) / 2, width: columns, height };
        let [tl, tr, bl, br, across, down] =
            if self.look.unicode { ["┌", "┐", "└", "┘", "─", "│"] } else { ["+", "+", "+", "+", "-", "|"] };
        for y in outer.y..outer.y + height {
            let (left, middle, right) = match y {
                y if y == outer.y => (tl, across, tr),
                y if y + 1 == outer.y + height => (bl, across, br),
                _ => (down, " ", down),
            };
            let line = format!("{left}{}{right}", middle.repeat(usize::from(columns) - 2));
            // Whatever stood below loses its looks as well.
            self.buffer.set_style(Rect { y, height: 1, ..outer }, Style::reset());
            self.text(outer.x, y, columns, &line, Ink::Plain);
        }
        self.text(outer.x + 2, outer.y, columns - 4, &format!(" {title} "), Ink::Strong);
        for ((line, ink), y) in lines.iter().skip(top).take(shown).zip(outer.y + 1..) {
            self.text(outer.x + 2, y, columns - 4, line, *ink);
        }
        self.keys(Rect { x: outer.x + 1, y: outer.y + height - 2, width: columns - 2, height: 1 }, keys);
    }
}

fn health(health: Option<Health>) -> Ink {
    match health {
        Some(Health::Running) => Ink::Good,
        Some(Health::Degraded | Health::Paused) => Ink::Warn,
        Some(Health::Crashed) => Ink::Bad,
        Some(Health::Spare | Health::Stopped | Health::Saved | Health::Absent) | None => Ink::Faint,
    }
}

/// `what` in its column, each value on a line of its own.
fn field(lines: &mut Vec<Line>, what: &str, values: &[String], columns: usize) {
    let mut label = what;
    for value in values {
        for part in wrap(value, columns.saturating_sub(11)) {
            lines.push(vec![(format!("{label:<11}"), Ink::Faint), (part, Ink::Plain)]);
            label = "";
        }
    }
}

fn group_lines(console: &Console, columns: usize) -> Vec<Line> {
    let group = console.selected_group();
    let mut lines: Vec<Line> = vec![vec![(console.label(&group), Ink::Strong)], Vec::new()];
    let say = |lines: &mut Vec<Line>, text: &str| lines.extend(wrap(text, columns).into_iter().map(|line| vec![(line, Ink::Plain)]));
    match (&group, console.selected_workspace()) {
        (Group::Here, Some(workspace)) => {
            say(&mut lines, &format!("Workspace {} covers this folder.", workspace.name));
            lines.push(Vec::new());
            workspace_lines(workspace, &mut lines, columns);
        }
        (Group::Here, None) => {
            say(&mut lines, "No saved workspace covers this folder. Enter runs a role on it as it is, N saves it as a workspace.");
        }
        (_, Some(workspace)) => workspace_lines(workspace, &mut lines, columns),
        (Group::Workspace(_) | Group::Other(_), None) => {
            say(&mut lines, "Instances of a folder that is no saved workspace, or of a workspace that is gone.");
        }
    }
    lines
}

fn workspace_lines(workspace: &Workspace, lines: &mut Vec<Line>, columns: usize) {
    if !workspace.problems.is_empty() {
        let text = told(&workspace.problems, u16::try_from(columns).unwrap_or(u16::MAX));
        lines.extend(wrap(&text, columns).into_iter().map(|line| vec![(line, Ink::Plain)]));
        lines.push(Vec::new());
        lines.push(vec![("E edits it.".to_owned(), Ink::Strong)]);
        return;
    }
    let role = workspace.default_role.clone().or_else(|| Some(format!("{} (the last one)", workspace.last_role.as_ref()?)));
    field(lines, "folder", std::slice::from_ref(&workspace.workdir), columns);
    field(lines, "mounts", &workspace.mounts, columns);
    field(lines, "role", &[role.unwrap_or_else(|| "to be asked for".to_owned())], columns);
    field(lines, "agent", &[workspace.default_agent.map_or("the role's", |agent| agent.slug()).to_owned()], columns);
    field(lines, "roles", &workspace.allowed_roles, columns);
    field(lines, "declares", &workspace.declared, columns);
    field(lines, "env", &workspace.env, columns);
    field(lines, "file", std::slice::from_ref(&workspace.file), columns);
}

fn instance_lines(instance: &Instance, columns: usize) -> Vec<Line> {
    let mut lines: Vec<Line> = vec![vec![(instance.key.clone(), Ink::Strong)], Vec::new()];
    lines.push(vec![(format!("{:<11}", "state"), Ink::Faint), (instance.state().to_owned(), health(instance.health))]);
    for (what, value) in [("role", &instance.role), ("agent", &instance.agent), ("container", &instance.container)] {
        field(&mut lines, what, std::slice::from_ref(value), columns);
    }
    field(&mut lines, "sidecar", instance.sidecar.as_slice(), columns);
    field(&mut lines, "network", instance.network.as_slice(), columns);
    lines
}

/// Tabs and panes; the line of the pane that has the keys is returned.
fn sessions(console: &Console, instance: &Instance, lines: &mut Vec<Line>) -> Option<usize> {
    if !instance.is_live() {
        return None;
    }
    lines.push(Vec::new());
    let Some(tabs) = console.shown_tabs() else {
        let text = if console.tabs.as_ref().is_some_and(|(of, _)| *of == instance.key) { "Its capsule does not answer." } else { "" };
        lines.push(vec![(text.to_owned(), Ink::Faint)]);
        return None;
    };
    let mut active = None;
    let highlighted = console.pane.as_ref().filter(|pane| pane.instance == instance.key).map(|pane| pane.session);
    for (at, tab) in tabs.iter().enumerate() {
        lines.push(vec![(format!("tab {} ", at + 1), Ink::Faint), (tab.label.clone(), Ink::Strong)]);
        for pane in &tab.panes {
            if highlighted == Some(pane.session) {
                active = Some(lines.len());
            }
            let ink = match pane.state.as_str() {
                "blocked" => Ink::Bad,
                "working" => Ink::Good,
                "done" => Ink::Warn,
                _ => Ink::Faint,
            };
            let mark = if pane.active { ">" } else { " " };
            let what = pane.agent.as_deref().unwrap_or("shell");
            lines.push(vec![
                (format!(" {mark} [{}] ", pane.session), Ink::Plain),
                (pane.label.clone(), Ink::Plain),
                (format!(" ({what}) "), Ink::Faint),
                (pane.state.clone(), ink),
            ]);
        }
    }
    active
}
