//! `jackin console`: choosing goals on the whole terminal.
//!
//! `crate::console` decides and draws; here are the terminal, the clock, and the commands that were chosen. Each runs in this process by
//! the same code as from a shell, with the terminal as it was found, and the console comes back when it ends. What is looked at in the
//! background is dropped before: nothing of ours holds a lock or reads a key while a command has the terminal.

mod look;

use super::run::Run;
use super::ui::{CANCELLED, DONE, ERROR, Failure, USAGE, Ui};
use super::{carry, verb};
use crate::aside::Aside;
use crate::cli::Cli;
use crate::config::FileKind;
use crate::console::{Asked, Console, Effect, Ended, Input, Keys, LEAST, Tab, World, draw};
use crate::diagnostic::Diagnostic;
use crate::gather::{Paths, env, paths, prompt};
use crate::render::{Style, clean};
use clap::Parser;
use crossterm::event::{DisableBracketedPaste, EnableBracketedPaste};
use futures_util::future::LocalBoxFuture;
use jackin_capsule::client::{Keyboard, RawTerminal};
use look::Seen;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use rustix::termios::OptionalActions;
use std::future::pending;
use std::io::{self, IsTerminal, Stdout};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// What exists is looked at so often.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// And what the selected instance shows; less often where the answer takes long, which an exec on an engine far away does.
const TABS_EVERY: Duration = Duration::from_secs(1);
/// The rest of a key comes within that, or it was the Escape key.
const ESCAPE: Duration = Duration::from_millis(30);
/// Of what was told to end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Is there a terminal that a console can be shown on?
pub fn fits() -> bool {
    refusal().is_none()
}

fn refusal() -> Option<Diagnostic> {
    let refused = |detail: String| {
        Diagnostic::error("console.no_terminal", "The console needs a terminal", detail)
            .help("`jackin status` lists instances, `jackin workspace list` workspaces, `jackin --help` all commands.")
    };
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Some(refused("Standard input and output have to be one, of 40x15 or more.".to_owned()));
    }
    let term = std::env::var("TERM").unwrap_or_default();
    if term.is_empty() || term == "dumb" {
        return Some(refused(format!("This one cannot place a cursor: TERM is `{term}`.")));
    }
    match crossterm::terminal::size() {
        Ok((columns, rows)) if columns >= LEAST.0 && rows >= LEAST.1 => None,
        Ok((columns, rows)) => Some(refused(format!("It has to have 40x15 or more; this one has {columns}x{rows}."))),
        Err(error) => Some(refused(format!("Its size cannot be told: {error}."))),
    }
}

pub async fn run(ui: Ui, no_color: bool, debug: bool) -> i32 {
    if let Some(refusal) = refusal() {
        ui.diagnostics(&[refusal]);
        return ERROR;
    }
    let signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => {
            ui.talk(&format!("jackin: signals cannot be listened to: {error}"));
            return ERROR;
        }
    };
    let (world, seen) = match look::at_configuration().await {
        Ok(looked) => looked,
        Err(wrong) => {
            ui.diagnostics(&wrong);
            return ERROR;
        }
    };
    let style = ui.out;
    let console = Console::new(world, LEAST.0, LEAST.1);
    let mut driver = Driver { console, seen, aside: Aside::default(), style, no_color, debug, signals, ended: false };
    let left = driver.drive().await;
    let live = driver.console.live();
    match left {
        Ok(Some(args)) => return driver.carry_out(args, false).await.code,
        Ok(None) => {}
        Err(error) => {
            ui.diagnostics(&[Diagnostic::error("console.terminal_lost", "Terminal lost", error.to_string())]);
            return ERROR;
        }
    }
    if !live.is_empty() {
        let verb = if live.len() == 1 { "goes on" } else { "go on" };
        ui.talk(&format!("{} {verb}. `jackin hardline` comes back, `jackin exile` ejects all.", clean(&live.join(", "))));
    }
    if driver.ended { CANCELLED } else { DONE }
}

struct Driver {
    console: Console,
    seen: Seen,
    /// Looks share an ssh connection, and leave the terminal alone.
    aside: Aside,
    style: Style,
    no_color: bool,
    debug: bool,
    signals: Signals,
    /// A signal has said so.
    ended: bool,
}

type Screen = Terminal<CrosstermBackend<Stdout>>;
type Looked = Result<(World, Seen), Vec<Diagnostic>>;

/// Questions on their way; dropped together.
#[derive(Default)]
struct Background {
    look: Option<LocalBoxFuture<'static, Looked>>,
    tabs: Option<LocalBoxFuture<'static, (String, Option<Vec<Tab>>)>>,
    answer: Option<LocalBoxFuture<'static, Input>>,
}

/// The answer to a question, if there is one.
async fn due<T>(question: &mut Option<LocalBoxFuture<'static, T>>) -> T {
    let Some(future) = question else { return pending().await };
    let answer = future.await;
    *question = None;
    answer
}

impl Driver {
    /// Until the console is left; the result is the command to go on as.
    async fn drive(&mut self) -> io::Result<Option<Vec<String>>> {
        loop {
            let wish = {
                let raw = RawTerminal::enter(false, b"")?;
                crossterm::execute!(io::stdout(), EnableBracketedPaste)?;
                let mut screen = Terminal::new(CrosstermBackend::new(io::stdout()))?;
                let wish = self.show(&mut screen, &raw).await;
                let _ = crossterm::execute!(io::stdout(), DisableBracketedPaste);
                wish?
            };
            let outcome = match wish {
                Effect::LeaveFor(args) => return Ok(Some(args)),
                Effect::Run(args) => Input::Ended(self.carry_out(args, false).await),
                Effect::Show(args) => Input::Ended(self.carry_out(args, true).await),
                Effect::Edit(file) => {
                    let wrong = self.edit(&file).await;
                    Input::Edited(file, wrong)
                }
                Effect::Leave | Effect::Draw | Effect::Ask(_) => return Ok(None),
            };
            if self.ended {
                return Ok(None);
            }
            self.console.step(outcome);
        }
    }

    /// Shows the console until something needs the whole terminal.
    async fn show(&mut self, screen: &mut Screen, raw: &RawTerminal) -> io::Result<Effect> {
        let (keyboard, mut keys) = (Keyboard::of_stdin()?, Keys::default());
        let mut background = Background { look: Some(Box::pin(self.aside.clone().run(look::look()))), ..Background::default() };
        let (mut next_look, mut next_tabs) = (Instant::now() + LOOK_EVERY, Instant::now());
        let mut watched: Option<String> = None;
        let (mut escape, mut tabs_asked) = (Instant::now(), Instant::now());
        let size = screen.size()?;
        self.console.step(Input::Resized(size.width, size.height));
        self.draw(screen)?;
        loop {
            let inputs = tokio::select! {
                typed = keyboard.read() => {
                    if typed.is_empty() {
                        return Ok(Effect::Leave);
                    }
                    escape = Instant::now() + ESCAPE;
                    keys.take(&typed)
                }
                () = sleep_until(escape), if keys.is_holding() => keys.release(),
                looked = due(&mut background.look) => {
                    next_look = Instant::now() + LOOK_EVERY;
                    vec![self.looked(looked)]
                }
                (instance, tabs) = due(&mut background.tabs) => {
                    next_tabs = Instant::now() + TABS_EVERY.max(10 * tabs_asked.elapsed());
                    vec![Input::Tabs { instance, tabs }]
                }
                answer = due(&mut background.answer) => vec![answer],
                () = sleep_until(next_look), if background.look.is_none() => {
                    background.look = Some(Box::pin(self.aside.clone().run(look::look())));
                    Vec::new()
                }
                () = sleep_until(next_tabs), if background.tabs.is_none() && watched.is_some() => {
                    tabs_asked = Instant::now();
                    let ask = |instance| Box::pin(self.aside.clone().run(look::tabs(&self.seen, instance))) as LocalBoxFuture<'static, _>;
                    background.tabs = watched.clone().map(ask);
                    Vec::new()
                }
                told = self.signals.next() => match told {
                    Told::GoOn => {
                        raw.enter_again()?;
                        crossterm::execute!(io::stdout(), EnableBracketedPaste)?;
                        // Its `clear` would ask the terminal where the cursor is.
                        *screen = Terminal::new(CrosstermBackend::new(io::stdout()))?;
                        self.draw(screen)?;
                        Vec::new()
                    }
                    Told::Resized => {
                        let size = screen.size()?;
                        vec![Input::Resized(size.width, size.height)]
                    }
                    told => {
                        self.ended = told == Told::End;
                        return Ok(Effect::Leave);
                    }
                },
            };
            for input in inputs {
                for effect in self.console.step(input) {
                    match effect {
                        Effect::Draw => self.draw(screen)?,
                        Effect::Ask(asked) => background.answer = Some(self.find_out(asked)),
                        // What was typed after that was typed too early.
                        effect => return Ok(effect),
                    }
                }
            }
            if self.console.watched() != watched.as_deref() {
                watched = self.console.watched().map(str::to_owned);
                background.tabs = None;
                next_tabs = Instant::now();
            }
        }
    }

    fn draw(&self, screen: &mut Screen) -> io::Result<()> {
        screen.draw(|frame| draw(&self.console, &self.style, frame.buffer_mut())).map(|_| ())
    }

    fn looked(&mut self, looked: Looked) -> Input {
        match looked {
            Ok((world, seen)) => {
                self.seen = seen;
                Input::Looked(world)
            }
            Err(wrong) => Input::LookFailed(wrong),
        }
    }

    fn find_out(&self, asked: Asked) -> LocalBoxFuture<'static, Input> {
        let aside = self.aside.clone();
        match &asked {
            Asked::AgentsOfRole(launch) => {
                let role = launch.role.clone();
                Box::pin(aside.run(async move { Input::Agents(asked, look::agents_of_role(role).await) }))
            }
            Asked::AgentsOf(instance) => {
                let agents = self.seen.agents_of(instance);
                Box::pin(std::future::ready(Input::Agents(asked, agents)))
            }
            Asked::Losses { instance, purge, .. } => {
                let losses = look::losses(instance.clone(), *purge);
                Box::pin(aside.run(async move { Input::Losses(asked, losses.await) }))
            }
        }
    }

    /// The command as from a shell. A signal that it does not heed itself ends it.
    async fn carry_out(&mut self, args: Vec<String>, show: bool) -> Ended {
        let command = match Cli::try_parse_from(std::iter::once("jackin").chain(args.iter().map(String::as_str))) {
            Ok(Cli { command: Some(command), .. }) => command,
            Ok(_) => unreachable!("BUG: the console runs commands"),
            Err(wrong) => return Ended { args, code: USAGE, text: wrong.to_string(), show },
        };
        let ui = Ui::new(self.no_color);
        if !show {
            ui.talk(&format!("> jackin {}", clean(&args.join(" "))));
        }
        let mut run = Run::start(ui.remembering(show), self.debug, verb(&command));
        let heeds = run.heeds.clone();
        let result = {
            let mut doing = Box::pin(carry(&mut run, command));
            loop {
                tokio::select! {
                    result = &mut doing => break result,
                    told = self.signals.next() => match told {
                        Told::GoOn | Told::Resized => continue,
                        told => self.ended |= told == Told::End,
                    },
                    // What heeded it may be followed by what does not.
                    () = sleep(LAST_WORDS), if self.ended => {}
                }
                if !heeds.get() && !prompt::take_back() {
                    break Err(Failure::Said(CANCELLED));
                }
            }
        };
        let code = run.finish(result);
        Ended { args, code, text: run.ui.heard(), show }
    }

    /// With what is wrong in the file afterwards.
    async fn edit(&mut self, file: &FileKind) -> Vec<Diagnostic> {
        let failed = |detail: String| {
            vec![
                Diagnostic::error("editor.failed", "The editor failed", detail)
                    .help("Set VISUAL or EDITOR to a command that edits a file and ends when that is done."),
            ]
        };
        let (path, shown) = match place(file) {
            Ok(place) => place,
            Err(wrong) => return vec![wrong],
        };
        let named = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let editor = named("VISUAL").or_else(|| named("EDITOR")).unwrap_or_else(|| "vi".to_owned());
        // As git does it: the value may hold arguments, and more. A plain one takes the shell's place, so that it gets our signals.
        let plain = !editor.contains(['|', '&', ';', '<', '>', '(', ')', '$', '`', '\\', '=', '\n', '!', '{']);
        let script = format!("{}{editor} \"$@\"", if plain { "exec " } else { "" });
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).arg("sh").arg(&path);
        let before = rustix::termios::tcgetattr(io::stdin());
        let ended = match command.spawn() {
            Ok(child) => self.wait_for(child).await,
            Err(error) => Err(error),
        };
        // One that crashed may have left it otherwise.
        if let Ok(before) = before {
            let _ = rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, &before);
        }
        match ended {
            Ok(status) if status.success() => look::mistakes_of(&shown).await,
            Ok(status) => failed(format!("`{editor}`: {status}.")),
            Err(error) => failed(format!("`{editor}`: {error}.")),
        }
    }

    /// Ctrl-C is the editor's; a signal to end is passed on.
    async fn wait_for(&mut self, mut child: Child) -> io::Result<ExitStatus> {
        loop {
            tokio::select! {
                status = child.wait() => return status,
                told = self.signals.next() => if told == Told::End { break },
            }
        }
        self.ended = true;
        if let Some(id) = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        }
        timeout(LAST_WORDS, child.wait()).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Where a file lies and what people call it. Its folder is there afterwards.
fn place(file: &FileKind) -> Result<(PathBuf, String), Diagnostic> {
    let all = Paths::from_env(env::variable).map_err(|wrong| wrong.0.into_iter().next().expect("BUG: an error says something"))?;
    let folder = match file {
        FileKind::Global => all.config_dir.clone(),
        FileKind::Workspace { .. } => all.workspaces(),
    };
    paths::ensure_dir(&folder, 0o700)?;
    Ok((all.config_dir.join(file.shown()), file.shown()))
}

/// Listened to from the beginning on: a command that listens would otherwise change what a later signal does.
struct Signals {
    interrupt: Signal,
    continued: Signal,
    resized: Signal,
    ending: [Signal; 3],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// By a Ctrl-C.
    Interrupt,
    /// This process is to end.
    End,
    /// It was stopped, and goes on.
    GoOn,
    /// The terminal was.
    Resized,
}

impl Signals {
    fn listen() -> io::Result<Signals> {
        let [hangup, terminate, quit] = [SignalKind::hangup(), SignalKind::terminate(), SignalKind::quit()].map(signal);
        let continued = SignalKind::from_raw(rustix::process::Signal::CONT.as_raw());
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            continued: signal(continued)?,
            resized: signal(SignalKind::window_change())?,
            ending: [hangup?, terminate?, quit?],
        })
    }

    async fn next(&mut self) -> Told {
        let [hangup, terminate, quit] = &mut self.ending;
        tokio::select! {
            _ = self.interrupt.recv() => Told::Interrupt,
            _ = self.continued.recv() => Told::GoOn,
            _ = self.resized.recv() => Told::Resized,
            _ = hangup.recv() => Told::End,
            _ = terminate.recv() => Told::End,
            _ = quit.recv() => Told::End,
        }
    }
}
