//! The command line: clap types only. What a flag means is decided by the command that takes it.

use crate::config::{Agent, Profile};
use crate::resource::Address;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

#[derive(Debug, Parser)]
#[command(
    name = "jackin",
    version,
    about = "Run AI coding agents in containers, by plan and apply",
    long_about = "jackin runs AI coding agents at full speed inside Docker containers that see only what you mount.\n\n\
        Every command compiles your workspaces and roles into one graph of resources, compares it with what Docker, git and the \
        disk really hold, shows a plan that says why, and carries it out in dependency order.",
    after_help = "Examples:\n  jackin plan                      preview what every workspace needs\n  jackin apply app                 launch what workspace `app` declares\n  jackin                           choose on the whole terminal, as `jackin console`\n  jackin load agent-smith .        run a role on this folder and attach\n  jackin hardline app              come back to it\n  jackin eject app                 remove its containers\n\nExit codes: 0 done or nothing to do, 1 error, 2 wrong usage (or changes, with plan --detailed-exitcode), 130 cancelled.",
    max_term_width = 100
)]
pub struct Cli {
    /// Write inputs, observation and plan into the run's diary, whole.
    #[arg(long, global = true, env = "JACKIN_DEBUG", value_parser = clap::builder::FalseyValueParser::new())]
    pub debug: bool,
    /// Never use colour (also: NO_COLOR).
    #[arg(long, global = true)]
    pub no_color: bool,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what `apply` would do, and why.
    Plan(PlanArgs),
    /// Make what the workspaces declare real.
    Apply(ApplyArgs),
    /// Start a new instance of a role and attach to it.
    Load(LoadArgs),
    /// Fill caches, build images, start a sidecar, before a launch asks for them.
    Prewarm(PrewarmArgs),
    /// Come back to an instance: attach, restart, or rebuild round its saved state.
    Hardline(HardlineArgs),
    /// Remove an instance's containers, network and certificates; its durable home stays.
    Eject(EjectArgs),
    /// Eject every instance.
    Exile(ExileArgs),
    /// Show the instances and what state they are in.
    #[command(visible_alias = "ps")]
    Status(StatusArgs),
    /// Walk from a resource to the lines of configuration that made it, and to all that depends on it.
    Explain(ExplainArgs),
    /// Print the graph of resources.
    Graph(GraphArgs),
    /// Save a snapshot of what exists, for planning elsewhere; it holds no secrets.
    Observe(ObserveArgs),
    /// Print a JSON Schema.
    Schema(SchemaArgs),
    /// Check the engine, the configuration and this machine.
    Doctor(DoctorArgs),
    /// Look at earlier runs.
    #[command(subcommand)]
    Runs(RunsCommand),
    /// Manage saved workspaces.
    #[command(subcommand)]
    Workspace(WorkspaceCommand),
    /// Look at workspaces and instances on the whole terminal, and choose what to do with them.
    #[command(
        after_help = "Needs a terminal of 40x15 or more; `jackin` alone opens it there. Whatever is chosen runs as the command that does the same, on the whole terminal,\nand the console comes back when it ends.\n\nKeys, of which `?` shows all:\n  Enter    launch a workspace or this folder, come back to an instance\n  a x i    a new agent, a shell, a look at an instance\n  t p      eject an instance; eject and purge it\n  v        the plan of a workspace\n  e n d w  edit, create, delete, prewarm a workspace\n  / ? q    filter, help, leave\n\nExamples:\n  jackin console\n  jackin --no-color console"
    )]
    Console,
    /// Print a shell completion script.
    Completions { shell: clap_complete::Shell },
    /// Print a manual page, of the program or of one command.
    Man {
        /// The command, such as `workspace create`.
        command: Vec<String>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PlanFormat {
    Human,
    Json,
    Markdown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub enum Format {
    #[default]
    Human,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GraphFormat {
    Dot,
    Mermaid,
    Json,
}

/// Which workspaces.
#[derive(Debug, Clone, Args)]
pub struct Selection {
    /// Workspaces; none = the one whose folder this is, or all.
    #[arg(value_name = "WORKSPACE")]
    pub workspaces: Vec<String>,
    /// Every saved workspace.
    #[arg(long, conflicts_with = "workspaces")]
    pub all: bool,
}

/// Answers to what roles ask for.
#[derive(Debug, Clone, Args)]
pub struct RoleAnswers {
    /// Answer a role's question; repeat for several.
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = name_value)]
    pub env: Vec<(String, String)>,
}

/// Where the facts come from.
#[derive(Debug, Clone, Default, Args)]
pub struct Looking {
    /// Ask no engine and no git remote; plan for an empty engine and what this host holds.
    #[arg(long)]
    pub offline: bool,
    /// Plan against a snapshot made by `jackin observe` instead of the engine.
    #[arg(long, value_name = "FILE", conflicts_with = "offline")]
    pub observed: Option<PathBuf>,
    /// `false` uses the last snapshot that jackin took and leaves role repos as they are.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub refresh: bool,
}

#[derive(Debug, Clone, Default, Args)]
pub struct Narrowing {
    /// Only this resource and what it needs; repeat for several.
    #[arg(long, value_name = "ADDRESS")]
    pub target: Vec<Address>,
    /// Make this resource anew although nothing asks for it; repeat for several.
    #[arg(long, value_name = "ADDRESS")]
    pub replace: Vec<Address>,
    /// Build images anew.
    #[arg(long)]
    pub rebuild: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  jackin plan\n  jackin plan app --out app.plan\n  jackin plan --all --format markdown --detailed-exitcode\n  jackin plan --offline --format json       no engine needed, for CI\n  jackin plan --replay last                 the plan of an earlier --debug run, byte for byte"
)]
pub struct PlanArgs {
    #[command(flatten)]
    pub selection: Selection,
    /// Save the plan for `jackin apply FILE`.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t = PlanFormat::Human)]
    pub format: PlanFormat,
    /// Exit 2 when there are changes, 0 when there are none.
    #[arg(long)]
    pub detailed_exitcode: bool,
    /// Show reused resources and every field.
    #[arg(short, long)]
    pub verbose: bool,
    /// Do not ask what roles want to know; defaults answer.
    #[arg(short, long)]
    pub yes: bool,
    /// Plan for `apply --prune`: instances that are no longer declared go.
    #[arg(long)]
    pub prune: bool,
    #[command(flatten)]
    pub looking: Looking,
    #[command(flatten)]
    pub narrowing: Narrowing,
    #[command(flatten)]
    pub answers: RoleAnswers,
    /// Plan again from what an earlier `--debug` run recorded.
    #[arg(long, value_name = "RUN", conflicts_with_all = ["workspaces", "all", "offline", "observed", "target", "replace", "prune"])]
    pub replay: Option<String>,
}

/// How a plan is carried out.
#[derive(Debug, Clone, Args)]
pub struct Carrying {
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    /// Allow what would be lost: live sessions, the private Docker's data.
    #[arg(long)]
    pub allow_loss: bool,
    /// Show the plan and stop.
    #[arg(long)]
    pub dry_run: bool,
    /// Steps at once.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    pub parallelism: u16,
    /// Form of the dry run's plan, or of the report.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  jackin apply app\n  jackin apply --all --yes --prune\n  jackin plan app --out app.plan && jackin apply app.plan\n\nA saved plan is refused when the world has moved since it was made."
)]
pub struct ApplyArgs {
    /// Workspaces, or one saved plan; none = the workspace whose folder this is, or all.
    #[arg(value_name = "WORKSPACE|PLANFILE")]
    pub what: Vec<String>,
    /// Every saved workspace.
    #[arg(long, conflicts_with = "what")]
    pub all: bool,
    /// Remove instances that are no longer declared.
    #[arg(long)]
    pub prune: bool,
    #[command(flatten)]
    pub narrowing: Narrowing,
    #[command(flatten)]
    pub answers: RoleAnswers,
    #[command(flatten)]
    pub carrying: Carrying,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  jackin load                        the role of the workspace whose folder this is\n  jackin load agent-smith .\n  jackin load agent-smith app --agent codex\n  jackin load acme/tools ~/src/app:/app --mount ~/data:/data:ro --yes --no-attach"
)]
pub struct LoadArgs {
    /// Role; none = the workspace's default or last one.
    pub role: Option<String>,
    /// A saved workspace, or a folder as PATH[:CONTAINER_PATH]; none = the workspace whose folder this is, else this folder.
    pub target: Option<String>,
    /// Further mount; repeat for several.
    #[arg(long, value_name = "SRC[:DST][:ro]")]
    pub mount: Vec<String>,
    /// Agent of the first session.
    #[arg(long, value_parser = agent)]
    pub agent: Option<Agent>,
    /// Branch of the role repository.
    #[arg(long, value_name = "BRANCH")]
    pub role_branch: Option<String>,
    /// Build images anew and start a new instance.
    #[arg(long)]
    pub rebuild: bool,
    #[arg(long, value_name = "PROFILE", value_parser = profile)]
    pub docker_profile: Option<Profile>,
    /// Leave it running in the background.
    #[arg(long)]
    pub no_attach: bool,
    #[command(flatten)]
    pub answers: RoleAnswers,
    #[command(flatten)]
    pub carrying: Carrying,
}

#[derive(Debug, Args)]
#[command(
    override_usage = "jackin prewarm [--agent <AGENT>]... [--sidecar]\n           [--sidecar-container [--keep-sidecar-container] | --daemon]\n           [--instance <WORKSPACE[/NAME]>] [--count <N>]\n           [--roles [--role <ROLE> [--role-git <URL>] | --workspace <NAME> | --all-workspaces]]\n           [--image (--role <ROLE> [--role-git <URL>] | --workspace <NAME> | --all-workspaces\n                     | --all-roles) [--role-branch <BRANCH>]]",
    after_help = "The programs of agents and of the capsule are always prepared (with --instance only those it needs); the options add to them.\nNothing outside jackin's own folders is written.\n\nExamples:\n  jackin prewarm                                 every agent's program, and the capsule's\n  jackin prewarm --agent claude --agent kimi     only these agents'\n  jackin prewarm --sidecar                       the image that sidecars are started from\n  jackin prewarm --sidecar-container             how long a sidecar takes; it is removed again\n  jackin prewarm --daemon                        a sidecar that the next launch takes over\n  jackin prewarm --instance app --count 2        two instances, started and paused, each a launch away from its first frame\n  jackin prewarm --roles --all-workspaces        the clones of workspaces' default roles\n  jackin prewarm --roles --role scratch --role-git https://github.com/acme/scratch-role.git\n  jackin prewarm --image --workspace app         the image of a workspace's default role\n  jackin prewarm --image --all-roles --agent codex\n  jackin prewarm --image --role the-architect --role-branch feat/my-pr\n  jackin prewarm --plan --daemon --image --all-workspaces   what it would do and save"
)]
pub struct PrewarmArgs {
    /// Agent whose program is to be there; repeat for several [default: all]. Narrows the images of --image.
    #[arg(long, value_name = "AGENT", value_parser = agent)]
    pub agent: Vec<Agent>,
    /// The image that sidecars are started from.
    #[arg(long)]
    pub sidecar: bool,
    /// Start a sidecar, wait until its Docker answers, say how long that took, remove it.
    #[arg(long)]
    pub sidecar_container: bool,
    /// With --sidecar-container: leave it running for the next launch to take over.
    #[arg(long)]
    pub keep_sidecar_container: bool,
    /// Keep a sidecar running for the next launch to take over.
    #[arg(long)]
    pub daemon: bool,
    /// A whole instance as this workspace declares it, started and paused, for the next launch to take.
    #[arg(long, value_name = "WORKSPACE[/NAME]")]
    pub instance: Option<String>,
    /// With --daemon or --instance: how many are to be there.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub count: Option<u16>,
    /// Clone or update role repositories: the configured ones, or those that the next options choose.
    #[arg(long)]
    pub roles: bool,
    /// Build role images, and pull the image that their sidecars are started from.
    #[arg(long)]
    pub image: bool,
    /// With --roles or --image: this role.
    #[arg(long, value_name = "ROLE")]
    pub role: Option<String>,
    /// With --role: its repository, in the place of the configured one.
    #[arg(long, value_name = "URL")]
    pub role_git: Option<String>,
    /// With --image: this branch of the role repository, as `jackin load --role-branch` takes it.
    #[arg(long, value_name = "BRANCH")]
    pub role_branch: Option<String>,
    /// With --roles or --image: the default role of this workspace, and its default agent.
    #[arg(long, value_name = "NAME")]
    pub workspace: Option<String>,
    /// With --roles or --image: the default roles of all saved workspaces.
    #[arg(long)]
    pub all_workspaces: bool,
    /// With --image: every configured role.
    #[arg(long)]
    pub all_roles: bool,
    /// Show what would be prepared, how long it takes and what the next launch saves; change nothing.
    #[arg(long)]
    pub plan: bool,
    #[command(flatten)]
    pub answers: RoleAnswers,
    #[command(flatten)]
    pub carrying: Carrying,
}

#[derive(Debug, Args)]
#[command(
    after_help = "SELECTOR is an instance (`app/default`), a workspace with one instance, an instance id, a container name or a role.\n\nExamples:\n  jackin hardline app\n  jackin hardline app --new --agent codex\n  jackin hardline app --new --agent claude --provider Z.AI\n  jackin hardline app --shell                a shell beside the agent\n  jackin hardline app --focus 2              show this session first\n  jackin hardline app --inspect --history 200\n  jackin hardline app --shared               beside other terminals, all may type\n  jackin hardline app --watch                look on beside whoever is attached; q leaves\n\nCtrl+\\ opens the menu of everything, with its keys. Ctrl+\\ d detaches; everything goes on. Ctrl+Q asks to end it.\n\nExit codes: 0 done, detached or ended well, 1 an error or a session that ended badly, 2 wrong usage, 130 cancelled."
)]
pub struct HardlineArgs {
    pub selector: Option<String>,
    /// Show state and screen, then return.
    #[arg(long, conflicts_with_all = ["new", "shell", "focus", "watch", "shared"])]
    pub inspect: bool,
    /// With so many lines of the session's history.
    #[arg(long, value_name = "LINES", requires = "inspect")]
    pub history: Option<u64>,
    /// Open a new agent session.
    #[arg(long, conflicts_with = "shell")]
    pub new: bool,
    /// Agent of the new session.
    #[arg(long, requires = "new", value_parser = agent)]
    pub agent: Option<Agent>,
    /// Provider of the new session, by its label.
    #[arg(long, requires = "new", value_name = "LABEL")]
    pub provider: Option<String>,
    /// Open a shell session.
    #[arg(long)]
    pub shell: bool,
    /// Show this session, by the number that --inspect shows.
    #[arg(long, value_name = "ID", conflicts_with_all = ["new", "shell"])]
    pub focus: Option<u64>,
    /// Only look on; the keys of whoever is attached are the only ones that count.
    #[arg(long, conflicts_with_all = ["new", "shell", "focus", "shared"])]
    pub watch: bool,
    /// Leave other terminals attached.
    #[arg(long)]
    pub shared: bool,
    #[command(flatten)]
    pub carrying: Carrying,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  jackin eject app\n  jackin eject app/default --dry-run\n  jackin eject --all --yes")]
pub struct EjectArgs {
    /// Instance, workspace, instance id, container name or role.
    #[arg(required_unless_present = "all")]
    pub selector: Option<String>,
    /// Every instance that SELECTOR fits, or every instance there is.
    #[arg(long)]
    pub all: bool,
    /// Remove the durable home as well.
    #[arg(long)]
    pub purge: bool,
    #[command(flatten)]
    pub carrying: Carrying,
}

#[derive(Debug, Args)]
pub struct ExileArgs {
    #[command(flatten)]
    pub carrying: Carrying,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Only this workspace or instance.
    pub selector: Option<String>,
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  jackin explain capsule/app/default\n  jackin explain derived-image/agent-smith")]
pub struct ExplainArgs {
    /// KIND/NAME, as `jackin plan` and `jackin graph` show it.
    pub address: Address,
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
    #[command(flatten)]
    pub answers: RoleAnswers,
    #[command(flatten)]
    pub looking: Looking,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  jackin graph app --format dot | dot -Tsvg > app.svg\n  jackin graph --format mermaid")]
pub struct GraphArgs {
    #[command(flatten)]
    pub selection: Selection,
    #[command(flatten)]
    pub answers: RoleAnswers,
    #[arg(long, value_enum, default_value_t = GraphFormat::Dot)]
    pub format: GraphFormat,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  jackin observe --out world.json && jackin plan --observed world.json")]
pub struct ObserveArgs {
    #[command(flatten)]
    pub selection: Selection,
    #[command(flatten)]
    pub answers: RoleAnswers,
    /// Where to write it; none = standard output.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// Which document; none = list them.
    pub name: Option<String>,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
}

#[derive(Debug, Subcommand)]
pub enum RunsCommand {
    /// The runs that are kept, newest first.
    List {
        #[arg(long, value_enum, default_value_t = Format::Human)]
        format: Format,
    },
    /// What one run did, and how long it took.
    Show {
        /// Run id, the beginning of one, or `last`.
        #[arg(default_value = "last")]
        run: String,
        #[arg(long, value_enum, default_value_t = Format::Human)]
        format: Format,
    },
}

#[derive(Debug, Subcommand)]
pub enum WorkspaceCommand {
    /// Save a new workspace.
    #[command(after_help = "Examples:\n  jackin workspace create app --workdir ~/src/app --mount ~/src/app --default-role agent-smith")]
    Create(WorkspaceCreateArgs),
    /// The saved workspaces.
    List {
        #[arg(long, value_enum, default_value_t = Format::Human)]
        format: Format,
    },
    /// One workspace in full.
    Show {
        name: String,
        #[arg(long, value_enum, default_value_t = Format::Human)]
        format: Format,
    },
    /// Delete a workspace's file; its instances stay until ejected.
    Remove {
        name: String,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
        /// Say what would be removed and stop.
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Args)]
pub struct WorkspaceCreateArgs {
    pub name: String,
    /// Folder in the container where sessions start.
    #[arg(long, value_name = "PATH")]
    pub workdir: String,
    #[arg(long, value_name = "SRC[:DST][:ro]", required = true)]
    pub mount: Vec<String>,
    #[arg(long, value_name = "ROLE")]
    pub allowed_role: Vec<String>,
    #[arg(long, value_name = "ROLE")]
    pub default_role: Option<String>,
    #[arg(long, value_name = "AGENT", value_parser = agent)]
    pub default_agent: Option<Agent>,
    /// Isolation of the mount at DST: shared, worktree or clone.
    #[arg(long, value_name = "DST=TYPE")]
    pub mount_isolation: Vec<String>,
    #[arg(long)]
    pub keep_awake: bool,
    #[arg(long)]
    pub git_pull: bool,
    /// Print the file and stop.
    #[arg(long)]
    pub dry_run: bool,
}

fn agent(text: &str) -> Result<Agent, String> {
    Agent::from_slug(text).ok_or_else(|| format!("agents are {}", Agent::ALL.map(Agent::slug).join(", ")))
}

fn profile(text: &str) -> Result<Profile, String> {
    crate::config::file::parse_profile(text).ok_or_else(|| "profiles are locked, hardened, standard, compat".to_owned())
}

fn name_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        // The text may be a value by mistake, so it is not repeated.
        _ => Err("write NAME=VALUE".to_owned()),
    }
}
