//! The console without a terminal: what keys mean, what is drawn (compared with `tests/golden/console-*.txt`, which `UPDATE_GOLDEN=1`
//! rewrites), and that no keys and no world bring it down.

#[path = "support/golden.rs"]
mod golden;

use golden::golden;
use jackin::config::{Agent, FileKind};
use jackin::console::{Asked, Console, Effect, Ended, Engine, Group, Input, Instance, Key, Pane, Tab, Workspace, World, draw};
use jackin::diagnostic::{Diagnostic, Span};
use jackin::render::Style;
use jackin::render::status::Health;
use proptest::prelude::*;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier};
use std::collections::BTreeMap;

const LOOK: Style = Style { colour: true, width: 80, unicode: true };

fn workspace(name: &str) -> Workspace {
    Workspace {
        name: name.to_owned(),
        file: format!("workspaces/{name}.toml"),
        workdir: "/workspace".to_owned(),
        mounts: vec![format!("~/src/{name} -> /workspace"), "~/src/docs -> /docs, read-only".to_owned()],
        default_role: Some("agent-smith".to_owned()),
        default_agent: Some(Agent::Claude),
        declared: vec!["dev: agent-smith, claude".to_owned(), "review: agent-smith, codex".to_owned()],
        env: vec!["GH_TOKEN".to_owned(), "REGION".to_owned()],
        ..Workspace::default()
    }
}

fn instance(key: &str, group: Group, health: Health) -> Instance {
    let container = format!("jk-p6vhrkak-{}", key.replace('/', "-"));
    Instance {
        key: key.to_owned(),
        group,
        role: "agent-smith".to_owned(),
        agent: "claude".to_owned(),
        health: Some(health),
        sessions: (health == Health::Running).then_some(2),
        session_states: BTreeMap::new(),
        sidecar: Some(format!("{container}-dind")),
        network: Some(format!("{container}-net")),
        container,
    }
}

fn of_app() -> Group {
    Group::Workspace("app".to_owned())
}

fn world() -> World {
    let mut dev = instance("app/dev", of_app(), Health::Running);
    dev.session_states = BTreeMap::from([("blocked".to_owned(), 1), ("working".to_owned(), 1)]);
    let mistake = Diagnostic::error("config.unknown_field", "The field is not known", "`colour` means nothing here").at(Some(Span {
        file: "workspaces/site.toml".to_owned(),
        line: 3,
        column: 1,
        length: 6,
        source_line: "colour = \"red\"".to_owned(),
    }));
    let broken =
        Workspace { name: "site".to_owned(), file: "workspaces/site.toml".to_owned(), problems: vec![mistake], ..Workspace::default() };
    let open = Workspace { default_role: None, default_agent: None, declared: Vec::new(), ..workspace("notes") };
    World {
        folder: "~/src/tools".to_owned(),
        here: None,
        workspaces: vec![workspace("app"), open, broken],
        instances: vec![
            dev,
            instance("app/k3v9q2ab", of_app(), Health::Spare),
            instance("app/review", of_app(), Health::Crashed),
            instance("old/x7", Group::Other("~/src/old".to_owned()), Health::Saved),
            instance("tools/9qpl", Group::Here, Health::Stopped),
        ],
        roles: vec!["agent-smith".to_owned(), "the-architect".to_owned()],
        engine: Engine::Answers,
        problems: Vec::new(),
    }
}

fn tabs() -> Vec<Tab> {
    let pane = |session, label: &str, agent: Option<&str>, state: &str, active| Pane {
        session,
        label: label.to_owned(),
        agent: agent.map(str::to_owned),
        state: state.to_owned(),
        active,
    };
    vec![
        Tab {
            label: "Claude".to_owned(),
            panes: vec![pane(1, "Fix Ring::push", Some("claude"), "blocked", true), pane(2, "basalt", None, "unknown", false)],
        },
        Tab { label: "Codex".to_owned(), panes: vec![pane(4, "Codex", Some("codex"), "working", false)] },
    ]
}

struct Person(Console);

impl Person {
    fn at(columns: u16, rows: u16) -> Person {
        Person(Console::new(world(), columns, rows))
    }

    fn does(&mut self, key: Key) -> Vec<Effect> {
        let mut effects = self.0.step(Input::Key(key));
        effects.retain(|effect| *effect != Effect::Draw);
        effects
    }

    fn types(&mut self, text: &str) -> Vec<Effect> {
        text.chars().flat_map(|letter| self.does(Key::Char(letter))).collect()
    }

    /// Selects by the filter, which stays until Escape.
    fn selects(&mut self, row: &str) -> &mut Person {
        self.does(Key::Home);
        while !self.selected().contains(row) {
            let before = self.selected();
            self.does(Key::Down);
            assert_ne!(before, self.selected(), "no row {row}");
        }
        self
    }

    fn picture(&self, columns: u16, rows: u16, look: &Style) -> Buffer {
        let mut buffer = Buffer::empty(Rect::new(0, 0, columns, rows));
        draw(&self.0, look, &mut buffer);
        buffer
    }

    /// The list's line that is marked.
    fn selected(&self) -> String {
        let picture = self.picture(200, 100, &LOOK);
        let marked = |y: &u16| picture[(0, *y)].modifier.intersects(Modifier::REVERSED);
        (1..98).find(marked).map(|y| line(&picture, y)[..].to_owned()).unwrap_or_default()
    }

    fn screen(&mut self, columns: u16, rows: u16) -> String {
        self.0.step(Input::Resized(columns, rows));
        let picture = self.picture(columns, rows, &LOOK);
        let mark = |y: u16| if (0..columns).any(|x| picture[(x, y)].modifier.contains(Modifier::REVERSED)) { '>' } else { ' ' };
        (0..rows).map(|y| format!("{}{}", mark(y), line(&picture, y)).trim_end().to_owned() + "\n").collect()
    }
}

fn line(picture: &Buffer, y: u16) -> String {
    let mut text = String::new();
    let mut skip = 0;
    for x in 0..picture.area.width {
        let symbol = picture[(x, y)].symbol();
        if skip == 0 {
            text.push_str(symbol);
            skip = ratatui::text::Span::raw(symbol).width().max(1);
        }
        skip -= 1;
    }
    text
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

fn runs(line: &str) -> Vec<Effect> {
    vec![Effect::Run(words(line))]
}

fn shows(line: &str) -> Vec<Effect> {
    vec![Effect::Show(words(line))]
}

// ---- pictures ----

const SIZES: [(u16, u16); 3] = [(40, 15), (80, 24), (200, 50)];

fn pictures(name: &str, make: impl Fn() -> Person) {
    for (columns, rows) in SIZES {
        let mut person = make();
        golden(&format!("console-{name}-{columns}.txt"), &person.screen(columns, rows));
    }
}

#[test]
fn the_list_and_its_preview() {
    pictures("list", || {
        let mut person = Person::at(80, 24);
        person.selects("app ");
        person
    });
    pictures("here", || Person::at(80, 24));
    pictures("broken", || {
        let mut person = Person::at(80, 24);
        person.selects("site");
        person
    });
    pictures("sessions", || {
        let mut person = Person::at(80, 24);
        person.selects("dev");
        person.0.step(Input::Tabs { instance: "app/dev".to_owned(), tabs: Some(tabs()) });
        person.does(Key::Tab);
        person.does(Key::Down);
        person
    });
}

#[test]
fn dialogs_and_help() {
    pictures("confirm", || {
        let mut person = Person::at(80, 24);
        let asked = person.selects("dev").types("p");
        let Some(Effect::Ask(asked)) = asked.into_iter().next() else { panic!("nothing is asked") };
        person.0.step(Input::Losses(
            asked,
            Ok(vec!["2 live sessions".to_owned(), "the private Docker daemon's images and containers".to_owned()]),
        ));
        person
    });
    pictures("role", || {
        let mut person = Person::at(80, 24);
        person.does(Key::Enter);
        person.does(Key::Down);
        person
    });
    pictures("form", || {
        let mut person = Person::at(80, 24);
        person.types("n");
        person.does(Key::Ctrl('u'));
        person.types("a/b");
        person.does(Key::Enter);
        person.does(Key::Enter);
        person
    });
    pictures("help", || {
        let mut person = Person::at(80, 24);
        person.types("?");
        person
    });
    pictures("failed", || {
        let mut person = Person::at(80, 24);
        let text = "Plan for app\nerror: No Docker engine answers [docker.unreachable]\n  unix:///var/run/docker.sock\n".to_owned();
        person.0.step(Input::Ended(Ended { args: words("load -- agent-smith app"), code: 1, text, show: false }));
        person
    });
    pictures("silent", || {
        let mut person = Person::at(80, 24);
        let mut silent = World { engine: Engine::Silent("No Docker engine answers: unix:///x".to_owned()), ..world() };
        silent.instances.iter_mut().for_each(|instance| (instance.health, instance.sessions) = (None, None));
        person.0.step(Input::Looked(silent));
        person
    });
}

#[test]
fn without_colour_and_without_unicode() {
    let mut person = Person::at(80, 24);
    person.selects("dev");
    person.0.step(Input::Tabs { instance: "app/dev".to_owned(), tabs: Some(tabs()) });
    let plain = person.picture(80, 24, &Style { unicode: false, ..Style::PLAIN });
    assert!(plain.content.iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset && cell.symbol().is_ascii()), "{plain:?}");
    let coloured = person.picture(80, 24, &LOOK);
    assert!(coloured.content.iter().any(|cell| cell.fg != Color::Reset));
}

#[test]
fn hostile_text_is_shown_as_what_it_is() {
    let evil = "a\x1b[2J\u{202e}b\nc";
    let mut world = world();
    world.folder = evil.to_owned();
    world.workspaces[0].mounts = vec![evil.to_owned()];
    world.instances[0].key = format!("app/{evil}");
    world.instances[0].role = evil.to_owned();
    let mut person = Person(Console::new(world, 200, 50));
    person.does(Key::Down);
    person.does(Key::Down);
    let label =
        |label: &str| Pane { session: 1, label: label.to_owned(), agent: Some(evil.to_owned()), state: evil.to_owned(), active: true };
    let tabs = vec![Tab { label: evil.to_owned(), panes: vec![label(evil)] }];
    person.does(Key::Down);
    person.0.step(Input::Tabs { instance: format!("app/{evil}"), tabs: Some(tabs) });
    let screen = person.screen(200, 50);
    assert!(screen.matches("a\\x1b[2J").count() >= 6, "{screen}");
    assert!(!screen.contains(['\x1b', '\u{202e}']), "{screen}");
}

// ---- keys ----

#[test]
fn every_key_runs_what_it_says() {
    let mut person = Person::at(200, 50);
    assert_eq!(person.selects("app ").does(Key::Enter), runs("load -- agent-smith app"));
    assert_eq!(person.types("v"), shows("plan --yes -- app"));
    assert_eq!(person.types("e"), [Effect::Edit(FileKind::Workspace { name: "app".to_owned() })]);
    assert_eq!(person.types("s"), [Effect::Edit(FileKind::Global)]);
    assert_eq!(person.types("W"), [Effect::LeaveFor(words("prewarm --image --workspace=app"))]);
    for key in ["r", "a", "x", "i", "t", "p"] {
        assert_eq!(person.types(key), [], "{key} is for instances");
    }
    person.selects("dev");
    assert_eq!(person.does(Key::Enter), runs("hardline -- app/dev"));
    assert_eq!(person.types("R"), runs("hardline -- app/dev"));
    assert_eq!(person.types("x"), runs("hardline --shell -- app/dev"));
    assert_eq!(person.types("i"), shows("hardline --inspect -- app/dev"));
    assert_eq!(person.types("v"), shows("plan --yes -- app"));
    for key in ["d", "w"] {
        assert_eq!(person.types(key), [], "{key} is for workspaces");
    }
    assert_eq!(person.types("q"), [Effect::Leave]);
    assert_eq!(person.does(Key::Esc), [Effect::Leave]);
}

#[test]
fn an_instance_is_ejected_after_a_yes_only() {
    for (key, purge, expected) in [("t", false, "eject --yes -- app/dev"), ("P", true, "eject --purge --yes -- app/dev")] {
        let mut person = Person::at(80, 24);
        let asked = |agreed: Option<&[&str]>| {
            let agreed = agreed.map(|losses| losses.iter().map(|loss| (*loss).to_owned()).collect());
            Asked::Losses { instance: "app/dev".to_owned(), purge, agreed }
        };
        let (two, three) = (vec!["2 live sessions".to_owned()], vec!["3 live sessions".to_owned()]);
        for answer in ["n", "q"] {
            assert_eq!(person.selects("dev").types(key), [Effect::Ask(asked(None))]);
            assert!(person.screen(80, 24).contains("Looking what app/dev would lose. Esc gives up."));
            person.0.step(Input::Losses(asked(None), Ok(two.clone())));
            let screen = person.screen(80, 24);
            assert!(screen.contains("destroys 2 live sessions") && screen.contains("│ app/dev "), "{screen}");
            assert_eq!(person.types(answer), []);
        }
        // A yes holds for what was shown, and for nothing else.
        person.types(key);
        person.0.step(Input::Losses(asked(None), Ok(two.clone())));
        assert_eq!(person.types("y"), [Effect::Ask(asked(Some(&["2 live sessions"])))]);
        person.0.step(Input::Losses(asked(Some(&["2 live sessions"])), Ok(three.clone())));
        let screen = person.screen(80, 24);
        assert!(screen.contains("has changed") && screen.contains("destroys 3 live sessions"), "{screen}");
        assert_eq!(person.types("y"), [Effect::Ask(asked(Some(&["3 live sessions"])))]);
        let effects = person.0.step(Input::Losses(asked(Some(&["3 live sessions"])), Ok(three)));
        assert_eq!(effects, [runs(expected), vec![Effect::Draw]].concat());
        // All of it can be read on the smallest terminal.
        person.types(key);
        let most = ["possibly live sessions (the capsule did not answer)", "the private Docker daemon's images and containers"];
        let asked_again = asked(Some(&["2 live sessions"]));
        person.0.step(Input::Losses(asked(None), Ok(two.clone())));
        person.types("y");
        person.0.step(Input::Losses(asked_again, Ok(most.map(str::to_owned).to_vec())));
        let screen = person.screen(40, 15);
        assert!(screen.contains("app/dev ") && screen.contains("history of its agents.") == purge && screen.contains("Y yes"), "{screen}");
        person.types("n");
        // What nobody can tell is not agreed to.
        person.types(key);
        person.0.step(Input::Losses(asked(None), Err("It cannot be told.".to_owned())));
        assert!(person.screen(80, 24).contains("It cannot be told."));
        assert_eq!(person.types("y"), []);
        // The answer to a question that was given up means nothing.
        for gives_up in [Key::Down, Key::Esc] {
            person.selects("dev").types(key);
            assert_eq!(person.does(gives_up), []);
            assert!(person.screen(80, 24).contains("Given up."));
            assert_eq!(person.0.step(Input::Losses(asked(None), Ok(Vec::new()))), []);
            assert_eq!(person.types("y"), []);
        }
    }
}

#[test]
fn a_workspace_is_deleted_after_a_yes_only() {
    let mut person = Person::at(80, 24);
    person.selects("app ").types("d");
    let screen = person.screen(80, 24);
    assert!(screen.contains("Delete workspace app?") && screen.contains("app/k3v9q2ab"), "{screen}");
    assert_eq!(person.does(Key::Enter), [], "no is what an empty answer means");
    assert_eq!(person.types("dy"), runs("workspace remove --yes -- app"));

    let mut inline = world();
    inline.workspaces[0].file = "config.toml".to_owned();
    let mut person = Person(Console::new(inline, 80, 24));
    assert_eq!(person.selects("app ").types("d"), []);
    assert!(person.screen(80, 24).contains("app stands in config.toml; S edits it."));
}

#[test]
fn what_is_not_decided_is_asked() {
    let (claude, codex) = (Agent::Claude, Agent::Codex);
    // A folder without a workspace: role, then agent.
    let mut person = Person::at(80, 24);
    assert_eq!(person.does(Key::Enter), []);
    person.does(Key::Down);
    let asked = person.does(Key::Enter);
    let [Effect::Ask(question @ Asked::AgentsOfRole(launch))] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!((launch.role.as_str(), &launch.workspace), ("the-architect", &None));
    assert!(person.screen(80, 24).contains("Looking which agents the-architect has"));
    person.0.step(Input::Agents(question.clone(), Ok(vec![claude, codex])));
    person.does(Key::Down);
    assert_eq!(person.does(Key::Enter), runs("load --agent=codex -- the-architect"));

    // Only one agent, or a role that is in no order: the launch itself tells.
    for answer in [Ok(vec![claude]), Err("broken".to_owned())] {
        let mut person = Person::at(80, 24);
        person.selects("notes").does(Key::Enter);
        let asked = person.does(Key::Enter);
        let [Effect::Ask(question)] = &asked[..] else { panic!("{asked:?}") };
        let effects = person.0.step(Input::Agents(question.clone(), answer));
        assert_eq!(effects, [runs("load -- agent-smith notes"), vec![Effect::Draw]].concat());
    }

    // Only what a workspace allows is offered, and one whose file is broken is not launched.
    let mut allowed = world();
    allowed.workspaces[1].allowed_roles = vec!["the-architect".to_owned()];
    let mut person = Person(Console::new(allowed, 80, 24));
    person.selects("notes").does(Key::Enter);
    let screen = person.screen(80, 24);
    assert!(screen.contains("Which role?") && screen.contains("the-architect"), "{screen}");
    person.does(Key::Esc);
    assert_eq!(person.selects("site").does(Key::Enter), []);
    assert!(person.screen(80, 24).contains("E edits it"));

    // A folder that a workspace covers is that workspace, and `load` finds it by itself.
    let mut covered = world();
    covered.here = Some("app".to_owned());
    let mut person = Person(Console::new(covered, 80, 24));
    assert_eq!(person.does(Key::Enter), runs("load -- agent-smith"));
}

/// Trap of the original: all six agents were offered, and unsupported ones rejected inside the container.
#[test]
fn a_new_session_offers_what_the_instance_supports() {
    let asked = Asked::AgentsOf("app/dev".to_owned());
    for key in ["a", "n"] {
        let mut person = Person::at(80, 24);
        assert_eq!(person.selects("dev").types(key), [Effect::Ask(asked.clone())]);
        person.0.step(Input::Agents(asked.clone(), Ok(vec![Agent::Claude, Agent::Kimi])));
        let screen = person.screen(80, 24);
        assert!(screen.contains("claude") && screen.contains("kimi") && !screen.contains("grok"), "{screen}");
        person.does(Key::Down);
        assert_eq!(person.does(Key::Enter), runs("hardline --new --agent=kimi -- app/dev"));
        person.types(key);
        let only = person.0.step(Input::Agents(asked.clone(), Ok(vec![Agent::Claude])));
        assert_eq!(only[0], Effect::Run(words("hardline --new --agent=claude -- app/dev")));
        person.types(key);
        person.0.step(Input::Agents(asked.clone(), Err("It is not recorded.".to_owned())));
        assert!(person.screen(80, 24).contains("It is not recorded."));
    }
}

#[test]
fn a_workspace_is_created_from_a_form() {
    let mut person = Person::at(80, 24);
    person.types("n");
    assert_eq!(person.does(Key::Enter), [], "the second field comes first");
    assert_eq!(person.does(Key::Enter), runs("workspace create --workdir=~/src/tools --mount=~/src/tools -- tools"));
    // It is selected as soon as it is there.
    let mut more = world();
    more.workspaces.push(workspace("tools"));
    person.0.step(Input::Looked(more));
    assert!(person.selected().contains(" tools"), "{}", person.selected());

    person.types("n");
    person.0.step(Input::Pasted("app\nand more".to_owned()));
    person.does(Key::Tab);
    assert_eq!(person.does(Key::Enter), []);
    assert!(person.screen(80, 24).contains("There is a workspace app already."));
    person.does(Key::Esc);
    assert!(!person.screen(80, 24).contains("New workspace"));
}

#[test]
fn the_filter_narrows_and_escape_ends_it() {
    let mut person = Person::at(80, 24);
    person.types("/REV");
    let screen = person.screen(80, 24);
    assert!(screen.contains("review") && screen.contains("app") && !screen.contains("notes") && screen.contains("/REV_"), "{screen}");
    assert_eq!(person.types("q"), [], "a letter like any other");
    assert!(person.screen(80, 24).contains("Nothing fits"));
    person.does(Key::Backspace);
    person.does(Key::Enter);
    person.does(Key::Down);
    assert_eq!(person.types("r"), runs("hardline -- app/review"));
    // A filter that is kept hides no message.
    assert!(person.screen(80, 24).contains("/REV"));
    person.types("w");
    assert!(person.screen(80, 24).contains("This key is for workspaces."));
    assert_eq!(person.does(Key::Esc), [], "first the filter goes");
    assert!(person.screen(80, 24).contains("notes"));
    assert_eq!(person.does(Key::Esc), [Effect::Leave]);
}

#[test]
fn groups_fold() {
    let mut person = Person::at(80, 24);
    person.selects("review").does(Key::Left);
    assert!(person.selected().contains("app"), "to what it belongs to");
    person.does(Key::Left);
    assert!(!person.screen(80, 24).contains("crashed"));
    person.does(Key::Right);
    assert!(person.screen(80, 24).contains("crashed"));
    person.selects("~/src/old").does(Key::Enter);
    assert!(!person.screen(80, 24).contains("x7"));
}

#[test]
fn sessions_are_attached_one_by_one() {
    let mut person = Person::at(80, 24);
    person.selects("dev");
    assert_eq!(person.0.watched(), Some("app/dev"));
    assert_eq!(person.does(Key::Tab), []);
    person.0.step(Input::Tabs { instance: "app/dev".to_owned(), tabs: Some(tabs()) });
    person.does(Key::Tab);
    person.does(Key::End);
    assert_eq!(person.does(Key::Enter), runs("hardline --focus 4 -- app/dev"));
    // What ends meanwhile is not attached to.
    let show = |person: &mut Person, tabs| person.0.step(Input::Tabs { instance: "app/dev".to_owned(), tabs });
    show(&mut person, Some(tabs()[..1].to_vec()));
    assert_eq!(person.does(Key::Enter), runs("hardline --focus 2 -- app/dev"));
    // A session keeps its highlight wherever it goes, and while nobody answers nothing is attached to.
    let mut turned = tabs();
    turned.reverse();
    show(&mut person, Some(turned));
    assert_eq!(person.does(Key::Enter), runs("hardline --focus 2 -- app/dev"));
    for silent in [None, Some(Vec::new())] {
        show(&mut person, silent);
        assert_eq!(person.does(Key::Enter), []);
        assert!(person.screen(80, 24).contains("not on view now"));
    }
    show(&mut person, Some(tabs()));
    assert_eq!(person.does(Key::Enter), runs("hardline --focus 2 -- app/dev"));
    assert_eq!(person.does(Key::Esc), []);
    assert_eq!(person.does(Key::Enter), runs("hardline -- app/dev"));
    // Esc and q mean the sessions even where these have gone meanwhile, and Enter means no others.
    for leave in [Key::Esc, Key::Char('q')] {
        let mut person = Person::at(80, 24);
        person.selects("dev");
        show(&mut person, Some(tabs()));
        person.does(Key::Tab);
        let mut less = world();
        less.instances.retain(|instance| instance.key != "app/dev");
        less.instances[0].health = Some(Health::Running);
        person.0.step(Input::Looked(less));
        person.0.step(Input::Tabs { instance: "app/k3v9q2ab".to_owned(), tabs: Some(tabs()) });
        assert_eq!(person.does(Key::Enter), []);
        assert_eq!(person.does(leave), []);
        assert_eq!(person.does(Key::Enter), [], "it was meant for what is gone");
    }
    // Neither a spare nor a narrow terminal shows any.
    person.selects("k3v9q2ab");
    assert_eq!(person.0.watched(), None);
    person.selects("dev");
    person.0.step(Input::Resized(60, 20));
    assert_eq!(person.0.watched(), None);
}

#[test]
fn the_selection_follows_what_it_means() {
    let mut person = Person::at(80, 24);
    person.selects("review");
    let mut more = world();
    more.workspaces.insert(0, workspace("aaa"));
    assert_eq!(person.0.step(Input::Looked(more.clone())), [Effect::Draw]);
    assert!(person.selected().contains("review"));
    assert_eq!(person.0.step(Input::Looked(more.clone())), [], "nothing is drawn when nothing changed");
    more.instances.retain(|instance| instance.key != "app/review");
    person.0.step(Input::Looked(more));
    assert!(person.selected().contains("notes"), "its neighbour: {}", person.selected());
}

#[test]
fn no_key_counts_for_a_row_that_nobody_chose() {
    // A filter by state holds what is selected, whatever becomes of it.
    let mut person = Person::at(80, 24);
    person.types("/crash");
    person.does(Key::Enter);
    person.does(Key::Down);
    assert_eq!(person.types("r"), runs("hardline -- app/review"));
    let mut other = world();
    other.instances[2].health = Some(Health::Stopped);
    person.0.step(Input::Looked(other));
    assert_eq!(person.types("r"), runs("hardline -- app/review"));
    // Where nothing fits nothing else is selected.
    person.types("/zzz");
    person.does(Key::Enter);
    assert!(person.screen(80, 24).contains("Nothing fits the filter."));
    assert_eq!(person.types("r"), runs("hardline -- app/review"));

    // When it is gone, the next key that would act is not heeded, and says so; after one that moves all do.
    let mut less = world();
    less.instances.retain(|instance| instance.key != "app/dev");
    for key in ["\r", "r", "a", "n", "x", "i", "t", "p", "v", "e", "d", "w"] {
        let press = |person: &mut Person| if key == "\r" { person.does(Key::Enter) } else { person.types(key) };
        let mut person = Person::at(80, 24);
        person.selects("dev");
        person.0.step(Input::Looked(less.clone()));
        assert!(person.screen(80, 24).contains("app/dev is gone."));
        assert_eq!(press(&mut person), []);
        assert!(person.screen(80, 24).contains("app/dev is gone, and app/k3v9q2ab is selected now."));
        assert_eq!(press(&mut person), press(Person(Console::new(less.clone(), 80, 24)).selects("k3v9q2ab")), "{key}");
    }
    let mut person = Person::at(80, 24);
    person.selects("dev");
    person.0.step(Input::Looked(less.clone()));
    person.types("?q");
    person.does(Key::Down);
    assert_eq!(person.does(Key::Enter), runs("hardline -- app/review"));
    // Nor is what was created selected once somebody went on.
    let mut person = Person::at(80, 24);
    person.types("n");
    person.does(Key::Enter);
    person.does(Key::Enter);
    person.selects("review");
    let mut more = world();
    more.workspaces.push(workspace("tools"));
    person.0.step(Input::Looked(more));
    assert!(person.selected().contains("review"));
}

#[test]
fn where_nothing_can_be_shown_no_key_counts() {
    for size in [(39, 24), (80, 14)] {
        let mut person = Person::at(80, 24);
        person.selects("app ").types("d");
        person.0.step(Input::Resized(size.0, size.1));
        assert_eq!(person.types("y"), []);
        person.does(Key::Enter);
        person.0.step(Input::Resized(80, 24));
        assert!(person.screen(80, 24).contains("Delete workspace app?"));
        person.0.step(Input::Resized(size.0, size.1));
        for key in [Key::Esc, Key::Char('q'), Key::Ctrl('c')] {
            assert_eq!(person.does(key), [Effect::Leave]);
        }
    }
}

#[test]
fn outcomes_are_told() {
    let ended = |code, text: &str, show| Input::Ended(Ended { args: words("load -- smith"), code, text: text.to_owned(), show });
    let mut person = Person::at(80, 24);
    person.0.step(ended(0, "Plan\nDetached; app/dev goes on.\n\n", false));
    assert!(person.screen(80, 24).contains("Detached; app/dev goes on."));
    person.does(Key::Down);
    assert!(!person.screen(80, 24).contains("Detached"));
    person.types("m");
    assert!(person.screen(80, 24).contains("jackin load -- smith"));
    person.does(Key::Esc);
    person.0.step(ended(130, "Nothing was changed.", false));
    assert!(person.screen(80, 24).contains("Cancelled."));
    person.0.step(ended(1, "error: Which role? [role.undecided]\n  None was named.\nNothing was changed.", false));
    assert!(person.screen(80, 24).contains("None was named."), "the whole of it");
    person.does(Key::Esc);
    assert!(person.screen(80, 24).contains("error: Which role?"), "and its first line");
    let long: String = (1..100).map(|n| format!("line {n}\n")).collect();
    person.0.step(ended(0, &long, true));
    person.does(Key::End);
    let screen = person.screen(80, 24);
    assert!(screen.contains("line 99") && screen.contains("78-99/99") && !screen.contains("line 77"), "{screen}");
    person.does(Key::Enter);
    let mistake = Diagnostic::error("config.syntax", "The file is no TOML", "a quote is missing");
    person.0.step(Input::Edited(FileKind::Workspace { name: "app".to_owned() }, vec![mistake]));
    assert!(person.screen(80, 24).contains("The file is no TOML"));
    assert_eq!(person.types("e"), [Effect::Edit(FileKind::Workspace { name: "app".to_owned() })]);
    person.0.step(Input::Edited(FileKind::Global, Vec::new()));
    assert!(person.screen(80, 24).contains("config.toml is in order."));
}

#[test]
fn control_c_and_q_leave_from_anywhere() {
    for key in [Key::Ctrl('c'), Key::Ctrl('q')] {
        for before in ["", "?", "/", "n", "d"] {
            let mut person = Person::at(80, 24);
            person.selects("app ").types(before);
            assert_eq!(person.does(key), [Effect::Leave]);
        }
    }
}

// ---- anything at all ----

fn any_key() -> impl Strategy<Value = Key> {
    prop_oneof![
        4 => proptest::sample::select("jknedwvraxitpsmqy/?h EN".chars().collect::<Vec<_>>()).prop_map(Key::Char),
        1 => any::<char>().prop_map(Key::Char),
        4 => proptest::sample::select(vec![
            Key::Enter, Key::Esc, Key::Tab, Key::Backspace, Key::Up, Key::Down, Key::Left, Key::Right, Key::Home, Key::End, Key::PageUp,
            Key::PageDown, Key::Ctrl('u'),
        ]),
    ]
}

fn any_world() -> impl Strategy<Value = World> {
    let text = || {
        proptest::sample::select(vec!["a", "app", "b-c", "漢字", "\u{1b}[2J", "a very long name that fits nowhere at all, not even here"])
    };
    let health = proptest::sample::select(vec![Health::Running, Health::Spare, Health::Crashed, Health::Saved]);
    let instances = proptest::collection::vec((text(), text(), proptest::option::of(health), 0..3_u8), 0..12);
    (proptest::collection::btree_set(text(), 0..5), instances, proptest::option::of(text()), any::<bool>()).prop_map(
        |(names, instances, here, silent)| {
            let workspaces: Vec<Workspace> = names.iter().map(|name| workspace(name)).collect();
            let instances: BTreeMap<String, Instance> = instances
                .into_iter()
                .map(|(name, label, health, group)| {
                    let group = match group {
                        0 => Group::Here,
                        1 if names.contains(label) => Group::Workspace(label.to_owned()),
                        _ => Group::Other(label.to_owned()),
                    };
                    let key = format!("{label}/{name}");
                    (key.clone(), Instance { health, ..instance(&key, group, Health::Running) })
                })
                .collect();
            World {
                folder: "~/x".to_owned(),
                here: here.map(str::to_owned),
                workspaces,
                instances: instances.into_values().collect(),
                engine: if silent { Engine::Silent("none".to_owned()) } else { Engine::Answers },
                ..world()
            }
        },
    )
}

fn any_input() -> impl Strategy<Value = Input> {
    prop_oneof![
        10 => any_key().prop_map(Input::Key),
        2 => any_world().prop_map(Input::Looked),
        1 => (0..120_u16, 0..50_u16).prop_map(|(columns, rows)| Input::Resized(columns, rows)),
        1 => ".{0,5}".prop_map(Input::Pasted),
        1 => (any_world(), any::<bool>()).prop_map(|(world, some)| Input::Tabs {
            instance: world.instances.first().map(|instance| instance.key.clone()).unwrap_or_default(),
            tabs: some.then(tabs),
        }),
        1 => (-1..3_i32, ".{0,200}", any::<bool>()).prop_map(|(code, text, show)| Input::Ended(Ended { args: words("plan"), code, text, show })),
    ]
}

proptest! {
    /// Whatever comes: one row is selected, it is one of the list, and a picture of any size can be drawn.
    #[test]
    fn nothing_brings_it_down(first in any_world(), inputs in proptest::collection::vec(any_input(), 0..60), size in (1..210_u16, 1..60_u16)) {
        let mut person = Person(Console::new(first, 80, 24));
        let mut asked = None;
        for input in inputs {
            for effect in person.0.step(input) {
                if let Effect::Ask(question) = effect {
                    asked = Some(question);
                }
            }
            if let Some(question) = asked.take() {
                match question {
                    Asked::Losses { .. } => person.0.step(Input::Losses(question, Ok(vec!["everything".to_owned()]))),
                    _ => person.0.step(Input::Agents(question, Ok(vec![Agent::Claude, Agent::Codex]))),
                };
            }
            person.picture(size.0, size.1, &LOOK);
        }
        // Out of any dialog and any filter.
        person.0.step(Input::Resized(80, 24));
        for _ in 0..6 {
            if person.0.step(Input::Key(Key::Esc)) == [Effect::Leave] { break; }
        }
        let selected = person.selected();
        prop_assert!(!selected.is_empty());
        person.0.step(Input::Key(Key::Home));
        person.0.step(Input::Key(Key::End));
        prop_assert!(!person.selected().is_empty());
    }
}
