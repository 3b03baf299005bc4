//! What is selected, what is asked, what a key means. `step` is all there is: an input in, effects out.

use super::text::wrap;
use super::world::{Group, Instance, Tab, Workspace, World};
use crate::config::validate::check_new_workspace_name;
use crate::config::{Agent, FileKind};
use crate::diagnostic::Diagnostic;
use std::collections::BTreeSet;

/// From so many columns on there is a preview beside the list.
const WITH_PREVIEW: u16 = 72;
/// Columns and rows that a console needs.
pub const LEAST: (u16, u16) = (40, 15);
/// Rows that are not the list's: title, message, keys.
pub(super) const CHROME: u16 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    Char(char),
    Ctrl(char),
    Enter,
    Esc,
    Tab,
    Backspace,
    Up,
    Down,
    Left,
    Right,
    Home,
    End,
    PageUp,
    PageDown,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    Key(Key),
    Pasted(String),
    Resized(u16, u16),
    Looked(World),
    /// Not even the configuration could be looked at.
    LookFailed(Vec<Diagnostic>),
    /// What the watched instance shows; `None` when it does not answer.
    Tabs {
        instance: String,
        tabs: Option<Vec<Tab>>,
    },
    Agents(Asked, Result<Vec<Agent>, String>),
    /// Or why nobody can tell.
    Losses(Asked, Result<Vec<String>, String>),
    Ended(Ended),
    /// With what is wrong in it, or that the editor could not be started.
    Edited(FileKind, Vec<Diagnostic>),
}

/// How a command ended, and all that it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub args: Vec<String>,
    pub code: i32,
    pub text: String,
    /// The text is what it was run for.
    pub show: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    Draw,
    Leave,
    /// Leave, and go on as this command.
    LeaveFor(Vec<String>),
    /// Carry out this command on the whole terminal, then come back.
    Run(Vec<String>),
    /// The same for its text.
    Show(Vec<String>),
    Edit(FileKind),
    /// Find the answer.
    Ask(Asked),
}

/// What has to be found out before one can go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// Which agents the role has.
    AgentsOfRole(Launch),
    /// Which agents this instance has.
    AgentsOf(String),
    /// What goes with this instance. `agreed`: what a person has said yes to.
    Losses { instance: String, purge: bool, agreed: Option<Vec<String>> },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    pub role: String,
    /// `None`: the folder one stands in.
    pub workspace: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Group(Group),
    Instance(String),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Dialog {
    /// A text to be read. `again`: the file that it complains of.
    Pager {
        title: String,
        text: String,
        top: usize,
        again: Option<FileKind>,
    },
    Confirm {
        title: String,
        text: String,
        yes: Yes,
    },
    Pick {
        title: String,
        options: Vec<String>,
        at: usize,
        choice: Choice,
    },
    Form(Form),
}

/// What a yes does.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Yes {
    Run(Vec<String>),
    /// Looks first whether it still destroys this and no more.
    Eject {
        instance: String,
        purge: bool,
        losses: Vec<String>,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Choice {
    Role { workspace: Option<String> },
    Launch(Launch),
    New { instance: String },
}

/// A workspace to be created.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Form {
    /// Name and folder.
    pub fields: [String; 2],
    pub at: usize,
    pub problem: Option<String>,
}

/// The session that is highlighted, and where among those of its instance it stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Highlight {
    pub instance: String,
    pub session: u64,
    at: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Message {
    pub text: String,
    pub bad: bool,
}

#[derive(Debug, Clone)]
pub struct Console {
    pub(super) world: World,
    pub(super) size: (u16, u16),
    pub(super) selected: Place,
    pub(super) folded: BTreeSet<Group>,
    pub(super) filter: String,
    /// The filter is being typed.
    pub(super) filtering: bool,
    /// Of one instance; `None` when it does not answer.
    pub(super) tabs: Option<(String, Option<Vec<Tab>>)>,
    /// The sessions have the keys, until a key gives them back to the list.
    pub(super) pane: Option<Highlight>,
    pub(super) dialog: Option<Dialog>,
    pub(super) message: Option<Message>,
    waiting: Option<Asked>,
    /// What the last command said.
    last: Option<Ended>,
    /// To be selected as soon as it is there.
    next: Option<Place>,
    /// What was selected and is gone: no key that was meant for it counts for its neighbour.
    gone: Option<String>,
}

impl Console {
    pub fn new(world: World, columns: u16, rows: u16) -> Console {
        Console {
            world,
            size: (columns, rows),
            selected: Place::Group(Group::Here),
            folded: BTreeSet::new(),
            filter: String::new(),
            filtering: false,
            tabs: None,
            pane: None,
            dialog: None,
            message: None,
            waiting: None,
            last: None,
            next: None,
            gone: None,
        }
    }

    /// The live instance whose sessions are on view.
    pub fn watched(&self) -> Option<&str> {
        let instance = self.selected_instance().filter(|instance| instance.is_live() && self.has_preview())?;
        Some(&instance.key)
    }

    /// Instances that go on when the console is left.
    pub fn live(&self) -> Vec<&str> {
        self.world.instances.iter().filter(|instance| instance.is_live()).map(|instance| instance.key.as_str()).collect()
    }

    pub fn step(&mut self, input: Input) -> Vec<Effect> {
        match input {
            Input::Key(Key::Ctrl('c' | 'q')) => vec![Effect::Leave],
            Input::Key(Key::Esc | Key::Char('q' | 'Q')) if !self.is_visible() => vec![Effect::Leave],
            Input::Key(_) | Input::Pasted(_) if !self.is_visible() => Vec::new(),
            Input::Key(key) => [self.key(key), vec![Effect::Draw]].concat(),
            Input::Pasted(text) => {
                self.pasted(&text);
                vec![Effect::Draw]
            }
            Input::Resized(columns, rows) => {
                self.size = (columns, rows);
                vec![Effect::Draw]
            }
            Input::Looked(world) => self.looked(world),
            Input::LookFailed(problems) => {
                let changed = self.world.problems != problems;
                self.world.problems = problems;
                draw_if(changed)
            }
            Input::Tabs { instance, tabs } => {
                let now = Some((instance, tabs));
                let changed = self.tabs != now;
                self.tabs = now;
                self.keep_highlight();
                draw_if(changed)
            }
            Input::Agents(asked, agents) if self.waiting.as_ref() == Some(&asked) => {
                self.answered();
                [self.agents(asked, agents), vec![Effect::Draw]].concat()
            }
            Input::Losses(asked, losses) if self.waiting.as_ref() == Some(&asked) => {
                self.answered();
                [self.losses(asked, losses), vec![Effect::Draw]].concat()
            }
            // Nobody waits for it any more.
            Input::Agents(..) | Input::Losses(..) => Vec::new(),
            Input::Ended(ended) => {
                self.ended(ended);
                vec![Effect::Draw]
            }
            Input::Edited(file, problems) => {
                self.edited(file, &problems);
                vec![Effect::Draw]
            }
        }
    }

    // ---- the list ----

    /// Rows that are shown: as the filter and folds have it, and always the selected one. Only a key selects another one.
    pub(super) fn places(&self) -> Vec<Place> {
        self.rows(|place| *place == self.selected)
    }

    /// Rows that the filter and folds let through.
    pub(super) fn fitting(&self) -> Vec<Place> {
        self.rows(|_| false)
    }

    fn rows(&self, stays: impl Fn(&Place) -> bool) -> Vec<Place> {
        let mut out = Vec::new();
        for group in self.groups() {
            let whole = self.fits(&self.label(&group));
            let open = !self.is_folded(&group);
            let fits = |instance: &&Instance| whole || self.fits_instance(instance);
            let shown = whole || self.world.of_group(&group).any(|instance| fits(&instance));
            let place = |instance: &Instance| Place::Instance(instance.key.clone());
            let inside: Vec<Place> =
                self.world.of_group(&group).filter(|instance| open && fits(instance) || stays(&place(instance))).map(place).collect();
            let group = Place::Group(group);
            if shown || !inside.is_empty() || stays(&group) {
                out.push(group);
                out.extend(inside);
            }
        }
        out
    }

    /// A filter looks into every group.
    pub(super) fn is_folded(&self, group: &Group) -> bool {
        self.filter.is_empty() && self.folded.contains(group)
    }

    fn groups(&self) -> Vec<Group> {
        let saved = self.world.workspaces.iter().map(|workspace| Group::Workspace(workspace.name.clone()));
        let other: BTreeSet<&Group> =
            self.world.instances.iter().map(|instance| &instance.group).filter(|group| matches!(group, Group::Other(_))).collect();
        std::iter::once(Group::Here).chain(saved).chain(other.into_iter().cloned()).collect()
    }

    pub(super) fn label(&self, group: &Group) -> String {
        match (group, &self.world.here) {
            (Group::Here, Some(name)) => format!("{} ({name})", self.world.folder),
            (Group::Here, None) => self.world.folder.clone(),
            (Group::Workspace(name) | Group::Other(name), _) => name.clone(),
        }
    }

    fn fits(&self, text: &str) -> bool {
        text.to_lowercase().contains(&self.filter.to_lowercase())
    }

    fn fits_instance(&self, instance: &Instance) -> bool {
        [&instance.key, &instance.role, &instance.agent].into_iter().any(|text| self.fits(text)) || self.fits(instance.state())
    }

    pub(super) fn at(&self, places: &[Place]) -> usize {
        places.iter().position(|place| *place == self.selected).unwrap_or_default()
    }

    /// What is typed into the filter selects the first row that fits, unless the selected one does.
    fn filtered(&mut self) {
        let fitting = self.fitting();
        if let Some(first) = fitting.first().filter(|_| !fitting.contains(&self.selected)) {
            self.selected = first.clone();
        }
    }

    fn move_by(&mut self, rows: isize) {
        let places = self.places();
        let at = self.at(&places).saturating_add_signed(rows).min(places.len().saturating_sub(1));
        if let Some(place) = places.get(at) {
            self.selected = place.clone();
        }
    }

    fn page(&self) -> isize {
        isize::try_from(self.size.1.saturating_sub(CHROME).max(2)).unwrap_or(2) - 1
    }

    /// Nothing is shown on a smaller terminal, so no key means anything there.
    fn is_visible(&self) -> bool {
        self.size.0 >= LEAST.0 && self.size.1 >= LEAST.1
    }

    pub(super) fn has_preview(&self) -> bool {
        self.size.0 >= WITH_PREVIEW
    }

    pub(super) fn selected_instance(&self) -> Option<&Instance> {
        match &self.selected {
            Place::Instance(key) => self.world.instance(key),
            Place::Group(_) => None,
        }
    }

    pub(super) fn selected_group(&self) -> Group {
        match &self.selected {
            Place::Group(group) => group.clone(),
            Place::Instance(key) => self.world.instance(key).map_or(Group::Here, |instance| instance.group.clone()),
        }
    }

    /// The workspace that the selected row belongs to.
    pub(super) fn selected_workspace(&self) -> Option<&Workspace> {
        match self.selected_group() {
            Group::Here => self.world.workspace(self.world.here.as_ref()?),
            Group::Workspace(name) => self.world.workspace(&name),
            Group::Other(_) => None,
        }
    }

    /// What the selected instance shows, as far as it is known.
    pub(super) fn shown_tabs(&self) -> Option<&[Tab]> {
        let (of, tabs) = self.tabs.as_ref()?;
        (self.watched() == Some(of)).then_some(tabs.as_deref()).flatten()
    }

    /// The sessions on view, in order.
    fn sessions(&self) -> Vec<u64> {
        self.shown_tabs().unwrap_or_default().iter().flat_map(|tab| &tab.panes).map(|pane| pane.session).collect()
    }

    fn highlight(&mut self, at: usize) {
        if let (Some(session), Some(instance)) = (self.sessions().get(at).copied(), self.watched().map(str::to_owned)) {
            self.pane = Some(Highlight { instance, session, at });
        }
    }

    /// Where a session has ended its neighbour is highlighted; where none is on view, nothing moves.
    fn keep_highlight(&mut self) {
        let sessions = self.sessions();
        if let Some(pane) = self.pane.as_ref().filter(|pane| self.watched() == Some(&pane.instance) && !sessions.is_empty()) {
            self.highlight(sessions.iter().position(|session| *session == pane.session).unwrap_or(pane.at.min(sessions.len() - 1)));
        }
    }

    fn looked(&mut self, world: World) -> Vec<Effect> {
        let changed = self.world != world;
        let before = self.at(&self.places());
        self.world = world;
        let places = self.places();
        if let Some(next) = self.next.take_if(|next| places.contains(next)) {
            self.selected = next;
        } else if !places.contains(&self.selected) {
            let gone = self.name();
            if self.message.is_none() {
                self.say(&format!("{gone} is gone."));
            }
            self.gone = Some(gone);
            // Its neighbour takes its place.
            self.selected = places.get(before.min(places.len().saturating_sub(1))).cloned().unwrap_or(Place::Group(Group::Here));
        }
        self.keep_highlight();
        draw_if(changed)
    }

    /// The selected row, in words.
    fn name(&self) -> String {
        match &self.selected {
            Place::Group(group) => self.label(group),
            Place::Instance(key) => key.clone(),
        }
    }

    // ---- keys ----

    fn key(&mut self, key: Key) -> Vec<Effect> {
        if self.dialog.is_some() {
            return self.dialog_key(key);
        }
        if self.filtering {
            self.filter_key(key);
            return Vec::new();
        }
        if let Some(pane) = self.pane.clone() {
            return self.pane_key(&pane, key);
        }
        // Who goes on by hand wants no row selected behind their back.
        self.next = None;
        self.message = None;
        if self.waiting.take().is_some() {
            self.say("Given up.");
            if key == Key::Esc {
                return Vec::new();
            }
        }
        match key {
            Key::Up | Key::Down | Key::Home | Key::End | Key::PageUp | Key::PageDown | Key::Char('j' | 'k' | 'J' | 'K') => self.gone = None,
            Key::Enter | Key::Left | Key::Right | Key::Char(_) if !is_harmless(key) => {
                if let Some(gone) = self.gone.take() {
                    self.say(&format!("{gone} is gone, and {} is selected now. The next key counts for it.", self.name()));
                    return Vec::new();
                }
            }
            _ => {}
        }
        match key {
            Key::Up => self.move_by(-1),
            Key::Down => self.move_by(1),
            Key::Home => self.move_by(isize::MIN),
            Key::End => self.move_by(isize::MAX),
            Key::PageUp => self.move_by(-self.page()),
            Key::PageDown => self.move_by(self.page()),
            Key::Left => self.fold(),
            Key::Right => drop(self.folded.remove(&self.selected_group())),
            Key::Enter => return self.enter(),
            Key::Tab if !self.sessions().is_empty() => self.highlight(0),
            Key::Tab => self.say("There are no sessions on view."),
            Key::Esc if !self.filter.is_empty() => self.filter.clear(),
            Key::Esc => return vec![Effect::Leave],
            Key::Char(letter) => return self.letter(letter.to_ascii_lowercase()),
            Key::Ctrl(_) | Key::Backspace => {}
        }
        Vec::new()
    }

    /// Counts where something is typed, and is no row of keys anywhere else.
    fn pasted(&mut self, text: &str) {
        let line = text.lines().next().unwrap_or_default();
        match &mut self.dialog {
            Some(Dialog::Form(form)) => form.fields[form.at].push_str(line),
            None if self.filtering => {
                self.filter.push_str(line);
                self.filtered();
            }
            _ => {}
        }
    }

    fn letter(&mut self, letter: char) -> Vec<Effect> {
        match letter {
            'j' => self.move_by(1),
            'k' => self.move_by(-1),
            'q' => return vec![Effect::Leave],
            '/' => self.filtering = true,
            '?' => self.dialog = Some(Dialog::Pager { title: "Keys".to_owned(), text: HELP.to_owned(), top: 0, again: None }),
            's' => return vec![Effect::Edit(FileKind::Global)],
            'm' => match self.last.clone() {
                Some(last) => self.read(&last),
                None => self.say("No command has run yet."),
            },
            'n' if self.selected_instance().is_none() => self.dialog = Some(Dialog::Form(self.form())),
            'd' | 'w' if self.selected_instance().is_some() => self.say("This key is for workspaces."),
            'e' | 'd' | 'w' | 'v' => return self.on_workspace(letter),
            'r' | 'a' | 'n' | 'x' | 'i' | 't' | 'p' => return self.on_instance(letter),
            _ => {}
        }
        Vec::new()
    }

    fn on_workspace(&mut self, letter: char) -> Vec<Effect> {
        let Some(workspace) = self.selected_workspace().cloned() else {
            self.say("This is no saved workspace; N saves one.");
            return Vec::new();
        };
        let name = workspace.name.as_str();
        match letter {
            'e' if workspace.file == "config.toml" => vec![Effect::Edit(FileKind::Global)],
            'd' if workspace.file == "config.toml" => {
                self.say(&format!("{name} stands in config.toml; S edits it."));
                Vec::new()
            }
            'e' => vec![Effect::Edit(FileKind::Workspace { name: workspace.name })],
            'w' => vec![Effect::LeaveFor(words(&["prewarm", "--image", &format!("--workspace={name}")]))],
            'v' => vec![Effect::Show(words(&["plan", "--yes", "--", name]))],
            _ => {
                let left: Vec<&str> = self.world.of_group(&Group::Workspace(workspace.name.clone())).map(|i| i.key.as_str()).collect();
                let stay = match left.is_empty() {
                    true => String::new(),
                    false => format!("\nIts instances stay until ejected: {}.", left.join(", ")),
                };
                self.dialog = Some(Dialog::Confirm {
                    title: format!("Delete workspace {name}?"),
                    text: format!("Removes {}.{stay}", workspace.file),
                    yes: Yes::Run(words(&["workspace", "remove", "--yes", "--", name])),
                });
                Vec::new()
            }
        }
    }

    fn on_instance(&mut self, letter: char) -> Vec<Effect> {
        let Some(key) = self.selected_instance().map(|instance| instance.key.clone()) else {
            self.say("This key is for instances.");
            return Vec::new();
        };
        match letter {
            'r' => vec![Effect::Run(words(&["hardline", "--", &key]))],
            'x' => vec![Effect::Run(words(&["hardline", "--shell", "--", &key]))],
            'i' => vec![Effect::Show(words(&["hardline", "--inspect", "--", &key]))],
            't' | 'p' => self.ask(Asked::Losses { instance: key, purge: letter == 'p', agreed: None }),
            _ => self.ask(Asked::AgentsOf(key)),
        }
    }

    fn fold(&mut self) {
        let group = self.selected_group();
        if self.selected_instance().is_some() {
            self.selected = Place::Group(group);
        } else {
            self.folded.insert(group);
        }
    }

    fn enter(&mut self) -> Vec<Effect> {
        match self.selected.clone() {
            Place::Instance(_) => self.on_instance('r'),
            Place::Group(Group::Here) => self.launch(None),
            Place::Group(Group::Workspace(name)) => self.launch(Some(name)),
            Place::Group(group @ Group::Other(_)) => {
                if !self.folded.remove(&group) {
                    self.folded.insert(group);
                }
                Vec::new()
            }
        }
    }

    fn pane_key(&mut self, pane: &Highlight, key: Key) -> Vec<Effect> {
        let sessions = self.sessions();
        let last = sessions.len().saturating_sub(1);
        self.message = None;
        match key {
            Key::Up | Key::Char('k') => self.highlight(pane.at.saturating_sub(1)),
            Key::Down | Key::Char('j') => self.highlight((pane.at + 1).min(last)),
            Key::Home => self.highlight(0),
            Key::End => self.highlight(last),
            Key::Esc | Key::Left | Key::Tab | Key::Char('q') => self.pane = None,
            Key::Enter if self.watched() == Some(&pane.instance) && sessions.contains(&pane.session) => {
                return vec![Effect::Run(words(&["hardline", "--focus", &pane.session.to_string(), "--", &pane.instance]))];
            }
            Key::Enter => self.say("This session is not on view now. Esc goes back to the list."),
            _ => {}
        }
        Vec::new()
    }

    fn filter_key(&mut self, key: Key) {
        match key {
            Key::Char(letter) => self.filter.push(letter),
            Key::Backspace => drop(self.filter.pop()),
            Key::Enter => self.filtering = false,
            Key::Esc => {
                self.filtering = false;
                self.filter.clear();
            }
            Key::Up => self.move_by(-1),
            Key::Down => self.move_by(1),
            _ => {}
        }
        if matches!(key, Key::Char(_) | Key::Backspace) {
            self.filtered();
        }
    }

    // ---- launching ----

    fn launch(&mut self, name: Option<String>) -> Vec<Effect> {
        let workspace = self.launched(name.as_ref()).cloned().unwrap_or_default();
        if !workspace.problems.is_empty() {
            self.complain(&format!("{} cannot be read; E edits it.", workspace.file));
            return Vec::new();
        }
        if let Some(role) = workspace.role() {
            return self.launch_role(Launch { role: role.clone(), workspace: name });
        }
        let options = if workspace.allowed_roles.is_empty() { self.world.roles.clone() } else { workspace.allowed_roles };
        self.dialog = Some(Dialog::Pick { title: "Which role?".to_owned(), options, at: 0, choice: Choice::Role { workspace: name } });
        Vec::new()
    }

    /// The workspace of a launch: the one that is named, or the one that covers the folder.
    fn launched(&self, name: Option<&String>) -> Option<&Workspace> {
        self.world.workspace(name.or(self.world.here.as_ref())?)
    }

    /// `load` asks for nothing when the workspace names an agent; else the role is asked how many it has.
    fn launch_role(&mut self, launch: Launch) -> Vec<Effect> {
        match self.launched(launch.workspace.as_ref()).and_then(|workspace| workspace.default_agent) {
            Some(_) => vec![Effect::Run(load(&launch, None))],
            None => self.ask(Asked::AgentsOfRole(launch)),
        }
    }

    fn agents(&mut self, asked: Asked, agents: Result<Vec<Agent>, String>) -> Vec<Effect> {
        let slugs = |agents: &[Agent]| agents.iter().map(|agent| agent.slug().to_owned()).collect();
        let pick = |agents: &[Agent], choice| Dialog::Pick { title: "Which agent?".to_owned(), options: slugs(agents), at: 0, choice };
        match (asked, agents) {
            (Asked::AgentsOfRole(launch), Ok(agents)) if agents.len() > 1 => self.dialog = Some(pick(&agents, Choice::Launch(launch))),
            // What is wrong with a role is best told by the launch itself.
            (Asked::AgentsOfRole(launch), _) => return vec![Effect::Run(load(&launch, None))],
            (Asked::AgentsOf(instance), Ok(agents)) => match agents[..] {
                [] => self.complain("This instance has no agent."),
                [agent] => return vec![Effect::Run(new_session(&instance, agent.slug()))],
                _ => self.dialog = Some(pick(&agents, Choice::New { instance })),
            },
            (Asked::AgentsOf(_), Err(why)) => self.complain(&why),
            (Asked::Losses { .. }, _) => {}
        }
        Vec::new()
    }

    /// A yes that still holds is carried out; anything else is asked for.
    fn losses(&mut self, asked: Asked, losses: Result<Vec<String>, String>) -> Vec<Effect> {
        let Asked::Losses { instance, purge, agreed } = asked else { return Vec::new() };
        match losses {
            Err(why) => self.complain(&why),
            Ok(losses) if agreed.as_ref() == Some(&losses) => {
                let flags = if purge { &["eject", "--purge", "--yes", "--"][..] } else { &["eject", "--yes", "--"] };
                return vec![Effect::Run(words(&[flags, &[&instance]].concat()))];
            }
            Ok(losses) => self.confirm_eject(instance, purge, losses, agreed.is_some()),
        }
        Vec::new()
    }

    fn confirm_eject(&mut self, instance: String, purge: bool, losses: Vec<String>, changed: bool) {
        let what = if purge { "Eject and purge" } else { "Eject" };
        // The title is cut where it is long.
        let mut text = format!("{instance}\n");
        if changed {
            text.push_str("This has changed since you were asked.\n");
        }
        for loss in &losses {
            text.push_str(&format!("destroys {loss}\n"));
        }
        text.push_str(match purge {
            true => "Its home goes as well, with all history of its agents.",
            false => "Its home stays; `jackin load` takes it up again.",
        });
        self.dialog = Some(Dialog::Confirm { title: format!("{what} {instance}?"), text, yes: Yes::Eject { instance, purge, losses } });
    }

    // ---- dialogs ----

    fn form(&self) -> Form {
        let name = self.world.folder.rsplit('/').next().unwrap_or_default().to_lowercase();
        let name = if check_new_workspace_name(&name).is_none() && self.world.workspace(&name).is_none() { name } else { String::new() };
        Form { fields: [name, self.world.folder.clone()], at: 0, problem: None }
    }

    fn dialog_key(&mut self, key: Key) -> Vec<Effect> {
        let size = self.size;
        let Some(dialog) = &mut self.dialog else { return Vec::new() };
        match dialog {
            Dialog::Pager { text, top, again, .. } => {
                let height = usize::from(size.1.saturating_sub(2));
                let most = wrap(text, usize::from(size.0)).len().saturating_sub(height);
                match (key, again.clone()) {
                    (Key::Char('e' | 'E'), Some(file)) => {
                        self.dialog = None;
                        return vec![Effect::Edit(file)];
                    }
                    (Key::Up | Key::Char('k'), _) => *top = top.saturating_sub(1),
                    (Key::Down | Key::Char('j'), _) => *top = (*top + 1).min(most),
                    (Key::PageUp, _) => *top = top.saturating_sub(height),
                    (Key::PageDown | Key::Char(' '), _) => *top = (*top + height).min(most),
                    (Key::Home, _) => *top = 0,
                    (Key::End, _) => *top = most,
                    (Key::Esc | Key::Enter | Key::Char('q' | 'Q' | '?'), _) => self.dialog = None,
                    _ => {}
                }
            }
            Dialog::Confirm { yes, .. } => match key {
                Key::Char('y' | 'Y') => {
                    let yes = yes.clone();
                    self.dialog = None;
                    return match yes {
                        Yes::Run(args) => vec![Effect::Run(args)],
                        Yes::Eject { instance, purge, losses } => self.ask(Asked::Losses { instance, purge, agreed: Some(losses) }),
                    };
                }
                Key::Char('n' | 'N' | 'q') | Key::Esc | Key::Enter => self.dialog = None,
                _ => {}
            },
            Dialog::Pick { options, at, choice, .. } => match key {
                Key::Up | Key::Char('k') => *at = at.saturating_sub(1),
                Key::Down | Key::Char('j') => *at = (*at + 1).min(options.len().saturating_sub(1)),
                Key::Home => *at = 0,
                Key::End => *at = options.len().saturating_sub(1),
                Key::Esc | Key::Char('q') => self.dialog = None,
                Key::Enter => {
                    let chosen = options.get(*at).cloned();
                    let choice = choice.clone();
                    self.dialog = None;
                    return chosen.map(|chosen| self.chosen(chosen, choice)).unwrap_or_default();
                }
                _ => {}
            },
            Dialog::Form(form) => match key {
                Key::Esc => self.dialog = None,
                Key::Tab | Key::Up | Key::Down => form.at = 1 - form.at,
                Key::Backspace => drop(form.fields[form.at].pop()),
                Key::Ctrl('u') => form.fields[form.at].clear(),
                Key::Char(letter) => form.fields[form.at].push(letter),
                Key::Enter if form.at == 0 => form.at = 1,
                Key::Enter => return self.create(),
                _ => {}
            },
        }
        Vec::new()
    }

    fn chosen(&mut self, chosen: String, choice: Choice) -> Vec<Effect> {
        match choice {
            Choice::Role { workspace } => self.launch_role(Launch { role: chosen, workspace }),
            Choice::Launch(launch) => vec![Effect::Run(load(&launch, Some(&chosen)))],
            Choice::New { instance } => vec![Effect::Run(new_session(&instance, &chosen))],
        }
    }

    fn create(&mut self) -> Vec<Effect> {
        let Some(Dialog::Form(form)) = &mut self.dialog else { return Vec::new() };
        let [name, folder] = form.fields.clone();
        form.problem = match check_new_workspace_name(&name) {
            Some(problem) => Some(format!("{}: {}", problem.summary, problem.detail)),
            None if self.world.workspace(&name).is_some() => Some(format!("There is a workspace {name} already.")),
            None if folder.is_empty() => Some("A folder is needed.".to_owned()),
            // Colons part what `--mount` takes.
            None if folder.contains(':') => Some("The folder's name holds a colon: `jackin workspace create --mount SRC:DST`.".to_owned()),
            None => None,
        };
        if form.problem.is_some() {
            return Vec::new();
        }
        self.dialog = None;
        self.next = Some(Place::Group(Group::Workspace(name.clone())));
        let (workdir, mount) = (format!("--workdir={folder}"), format!("--mount={folder}"));
        vec![Effect::Run(words(&["workspace", "create", &workdir, &mount, "--", &name]))]
    }

    // ---- answers and messages ----

    fn ask(&mut self, asked: Asked) -> Vec<Effect> {
        match &asked {
            Asked::AgentsOfRole(launch) => self.say(&format!("Looking which agents {} has. Esc gives up.", launch.role)),
            Asked::Losses { instance, .. } => self.say(&format!("Looking what {instance} would lose. Esc gives up.")),
            // Known at once.
            Asked::AgentsOf(_) => {}
        }
        self.waiting = Some(asked.clone());
        vec![Effect::Ask(asked)]
    }

    fn answered(&mut self) {
        self.waiting = None;
        self.message = None;
    }

    fn say(&mut self, text: &str) {
        self.message = Some(Message { text: text.to_owned(), bad: false });
    }

    fn complain(&mut self, text: &str) {
        self.message = Some(Message { text: text.to_owned(), bad: true });
    }

    fn ended(&mut self, ended: Ended) {
        // The list has the keys again.
        self.pane = None;
        let line = |mut lines: std::str::Lines<'_>, wanted: fn(&&str) -> bool| lines.rfind(wanted).map(str::to_owned);
        let last = line(ended.text.lines(), |line| !line.trim().is_empty()).unwrap_or_default();
        match ended.code {
            0 if ended.show => self.read(&ended),
            0 => self.say(&last),
            130 => self.say("Cancelled."),
            _ => {
                let error = ended.text.lines().find(|line| line.starts_with("error")).unwrap_or(&last).to_owned();
                self.complain(&format!("{error} (M: all of it)"));
                self.read(&ended);
            }
        }
        self.last = Some(ended);
    }

    /// All that a command said.
    fn read(&mut self, ended: &Ended) {
        let how = if ended.code == 0 { String::new() } else { format!(" (code {})", ended.code) };
        let title = format!("jackin {}{how}", ended.args.join(" "));
        self.dialog = Some(Dialog::Pager { title, text: ended.text.clone(), top: 0, again: None });
    }

    fn edited(&mut self, file: FileKind, problems: &[Diagnostic]) {
        let name = file.shown();
        if problems.is_empty() {
            return self.say(&format!("{name} is in order."));
        }
        let text = told(problems, self.size.0);
        self.dialog = Some(Dialog::Pager { title: format!("{name}: not in order"), text, top: 0, again: Some(file) });
    }
}

/// Diagnostics as text of so many columns.
pub(super) fn told(problems: &[Diagnostic], columns: u16) -> String {
    let style = crate::render::Style { width: usize::from(columns).clamp(20, 120), ..crate::render::Style::PLAIN };
    crate::render::diagnostic::diagnostics_text(problems, &style)
}

/// Does the same on whatever row.
fn is_harmless(key: Key) -> bool {
    matches!(key, Key::Char('/' | '?' | 's' | 'S' | 'm' | 'M' | 'q' | 'Q'))
}

fn draw_if(changed: bool) -> Vec<Effect> {
    if changed { vec![Effect::Draw] } else { Vec::new() }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn load(launch: &Launch, agent: Option<&str>) -> Vec<String> {
    let mut args = vec!["load".to_owned()];
    args.extend(agent.map(|agent| format!("--agent={agent}")));
    args.extend(["--".to_owned(), launch.role.clone()]);
    args.extend(launch.workspace.clone());
    args
}

fn new_session(instance: &str, agent: &str) -> Vec<String> {
    words(&["hardline", "--new", &format!("--agent={agent}"), "--", instance])
}

const HELP: &str = "\
Everywhere
  Up Down j k Home End PageUp PageDown   move
  Left Right   fold, unfold
  /            filter the list; Esc ends it
  Tab          to the sessions on the right; Enter there attaches, Esc comes back
  M            what the last command said
  S            edit config.toml in $VISUAL or $EDITOR
  ?            this
  Esc q        leave; Ctrl+Q and Ctrl+C from anywhere

On the folder and on workspaces
  Enter   launch: jackin load
  E       edit its file
  N       create a workspace
  D       delete the workspace: jackin workspace remove
  V       its plan: jackin plan
  W       leave, and jackin prewarm --image --workspace

On instances
  Enter R come back: jackin hardline
  A N     a new agent: jackin hardline --new
  X       a shell: jackin hardline --shell
  I       a look: jackin hardline --inspect
  T       jackin eject
  P       jackin eject --purge: its home as well
  V E     plan and file of its workspace

Whatever is chosen runs on the whole terminal as the command beside it, and the console
comes back when it ends. Inside an instance Ctrl+\\ d detaches, and everything goes on.
* marks instances that live; a spare waits, paused, for the next launch of its workspace.
";
