//! A plan as a person reads it before saying yes, and as a comment on a pull request.
//!
//! In: a finished [`Plan`]. Out: text. Everything said here is in the plan already; nothing is decided or looked up.

use super::Style;
use super::diagnostic::{diagnostics_text, escape_markdown, severity_word};
use super::page::{Ink, Page, clean, pad, width};
use super::words::{
    Depth, Why, about_words, action_words, bytes_words, commit_words, count_words, field_words, id_words, is_hash, is_idle, loss_words,
    plural, reused, secret_words, source_of, value_words, why_nots, whys,
};
use crate::graph::names::pool_base;
use crate::plan::{Action, Change, Mode, Plan, Scope};
use crate::resource::{EnvEntry, Kind, Limits, MountKind, MountSpec, Origin, Spec, pool_id};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Columns of the symbol, right-aligned, with a space behind it.
const SYMBOL: usize = 3;
const DETAIL: usize = SYMBOL + 3;

pub fn plan_text(plan: &Plan, style: &Style, verbose: bool) -> String {
    let mut page = Page::new(style);
    page.line(0, 2, &[(Ink::Strong, &title(plan))]);
    legend(&mut page, plan, verbose);
    if plan.is_blocked() {
        page.blank();
        page.raw(&diagnostics_text(&plan.blockers, style));
    }
    for (instance, changes) in groups(plan) {
        group(&mut page, plan, instance, &changes, style, verbose);
    }
    if !plan.warnings.is_empty() {
        page.blank();
        page.raw(&diagnostics_text(&plan.warnings, style));
    }
    page.blank();
    summary(&mut page, plan);
    page.finish()
}

fn title(plan: &Plan) -> String {
    let what = match &plan.goal.scope {
        Scope::All => "every instance".to_owned(),
        Scope::Workspaces(names) if names.len() == 1 => format!("workspace {}", names[0]),
        Scope::Workspaces(names) => format!("workspaces {}", names.join(", ")),
        Scope::Instances(keys) if keys.len() == 1 => keys[0].clone(),
        Scope::Instances(keys) => format!("instances {}", keys.join(", ")),
    };
    match plan.goal.mode {
        Mode::Launch => format!("Plan for {what}"),
        Mode::PrewarmOnly => "Plan to prewarm".to_owned(),
        Mode::Restore => format!("Plan to restore {what}"),
        Mode::Remove => format!("Plan to {} {what}", plan.goal.command),
    }
}

/// The symbols that occur, each with the actions it stands for.
fn legend(page: &mut Page, plan: &Plan, verbose: bool) {
    let mut symbols: Vec<(&str, Vec<&str>)> = Vec::new();
    for action in Action::ALL.into_iter().filter(|a| plan.counts.contains_key(a)) {
        if action == Action::Reuse && !verbose {
            continue;
        }
        match symbols.iter_mut().find(|(symbol, _)| *symbol == action.symbol()) {
            Some((_, words)) => words.push(action_words(action)),
            None => symbols.push((action.symbol(), vec![action_words(action)])),
        }
    }
    let texts: Vec<String> = symbols.iter().map(|(symbol, words)| format!("{symbol} {}", words.join(", "))).collect();
    if !texts.is_empty() {
        page.line(0, 2, &[(Ink::Faint, &texts.join("   "))]);
    }
}

/// Changes in plan order under their instance; `None` = shared artifacts.
fn groups(plan: &Plan) -> Vec<(Option<&str>, Vec<&Change>)> {
    let mut out: Vec<(Option<&str>, Vec<&Change>)> = Vec::new();
    for change in &plan.changes {
        match out.last_mut() {
            Some((instance, changes)) if *instance == change.address.instance() => changes.push(change),
            _ => out.push((change.address.instance(), vec![change])),
        }
    }
    out
}

fn group(page: &mut Page, plan: &Plan, instance: Option<&str>, changes: &[&Change], style: &Style, verbose: bool) {
    if !verbose && changes.iter().all(|c| c.is_reuse()) {
        return;
    }
    page.blank();
    let kept = instance.and_then(pool_id).map(|id| format!("Sidecar that no instance uses ({})", pool_base(id)));
    let heading = kept.as_deref().or(instance).unwrap_or("Shared");
    let about = instance
        .and_then(|key| plan.instances.get(key))
        .map_or(String::new(), |info| format!("role {}, agent {}, container {}", info.role, info.agent, info.container));
    if width(heading) + 2 + width(&about) <= style.width {
        page.line(0, 2, &[(Ink::Strong, heading), (Ink::Faint, "  "), (Ink::Faint, &about)]);
    } else {
        page.line(0, 2, &[(Ink::Strong, heading)]);
        page.line(2, 4, &[(Ink::Faint, &about)]);
    }
    for change in changes {
        if verbose || !change.is_reuse() {
            one(page, change, style, verbose);
        }
    }
    let kept = changes.iter().filter(|c| c.is_reuse() && !is_idle(c)).count();
    if kept > 0 && !verbose {
        page.line(SYMBOL + 1, DETAIL, &[(Ink::Faint, &format!("{kept} more reused as {}", if kept == 1 { "it is" } else { "they are" }))]);
    }
}

fn ink_of(action: Action) -> Ink {
    match action {
        Action::Reuse | Action::Forget => Ink::Faint,
        Action::Create | Action::Pull | Action::Build | Action::Download | Action::Adopt => Ink::Good,
        Action::Update | Action::Fetch | Action::Repair | Action::Start | Action::Restart | Action::Rebuild => Ink::Change,
        Action::Replace | Action::Remove => Ink::Bad,
    }
}

fn one(page: &mut Page, change: &Change, style: &Style, verbose: bool) {
    let depth = Depth { style, verbose };
    let ink = ink_of(change.action);
    let symbol = format!("{:>SYMBOL$} ", change.action.symbol());
    let address = change.address.to_string();
    let verb = format!("  {}{}", action_words(change.action), if change.disposable { " and remove" } else { "" });
    let whys = if verbose { whys(change, depth) } else { telling(whys(change, depth)) };
    let reason = |why: &Why| match &why.source {
        Some(source) => format!("{} ({source})", why.text),
        None => why.text.clone(),
    };
    // A single short reason stands on the line of its change.
    let alone = match whys.as_slice() {
        [why] if width(&symbol) + width(&address) + width(&verb) + 2 + width(&reason(why)) <= style.width => Some(reason(why)),
        _ => None,
    };
    let tail = alone.as_ref().map_or(String::new(), |why| format!(": {why}"));
    page.line(0, DETAIL, &[(ink, &symbol), (Ink::Strong, &address), (ink, &verb), (Ink::Plain, &tail)]);
    if alone.is_none() {
        for why in &whys {
            let source = why.source.as_ref().map_or(String::new(), |s| format!(" ({s})"));
            page.line(DETAIL, DETAIL + 2, &[(Ink::Plain, &why.text), (Ink::Faint, &source)]);
        }
    }
    for text in why_nots(change, verbose, depth) {
        page.line(DETAIL, DETAIL + 2, &[(Ink::Faint, &text)]);
    }
    for duplicate in &change.duplicates {
        let id = id_words(&duplicate.id);
        let id = if id == duplicate.name { String::new() } else { format!(" ({id})") };
        page.line(DETAIL, DETAIL + 2, &[(Ink::Bad, "removes duplicate"), (Ink::Plain, &format!(" {}{id}", duplicate.name))]);
    }
    if let Some(loss) = &change.loss {
        page.line(DETAIL, DETAIL + 2, &[(Ink::Bad, "destroys: "), (Ink::Bad, &loss_words(loss))]);
    }
    match &change.desired {
        Some(spec) if verbose => rows(page, &every_field(change, spec, depth)),
        Some(spec) if shows_fields(change.action) => rows(page, &key_fields(change, spec)),
        _ => {}
    }
}

/// What somebody wrote comes first; the rest follows from it, and a long list is cut.
fn telling(whys: Vec<Why>) -> Vec<Why> {
    const FEW: usize = 6;
    let all = whys.len();
    let (mut shown, rest): (Vec<Why>, Vec<Why>) = whys.into_iter().partition(|why| why.source.as_deref().is_some_and(is_written));
    let written = shown.len();
    shown.extend(rest);
    if all <= FEW {
        return shown;
    }
    shown.truncate(if written == 0 { FEW / 2 } else { written.min(FEW) });
    let more = all - shown.len();
    shown.push(Why { text: format!("and {more} more that --verbose shows"), source: None });
    shown
}

/// Things that come into being list what they will be; a mended thing lists only what is mended.
fn shows_fields(action: Action) -> bool {
    matches!(action, Action::Create | Action::Build | Action::Pull | Action::Download)
}

struct Row {
    label: String,
    value: String,
    source: Option<String>,
}

/// Labels in one column, values and where they were written behind them.
fn rows(page: &mut Page, rows: &[Row]) {
    let column = rows.iter().map(|r| width(&clean(&r.label))).max().unwrap_or(0).min(24);
    let mut previous = "";
    for row in rows {
        let label = if row.label == previous { String::new() } else { row.label.clone() };
        previous = &row.label;
        let source = row.source.as_ref().map_or(String::new(), |s| format!("  ({s})"));
        // A line may not begin with blanks: an empty label is a non-empty indent.
        let label = pad(&clean(&label), column);
        let indent = if label.trim().is_empty() { DETAIL + column + 2 } else { DETAIL };
        let label = if label.trim().is_empty() { String::new() } else { format!("{label}  ") };
        page.line(indent, DETAIL + column + 2, &[(Ink::Faint, &label), (Ink::Plain, &row.value), (Ink::Faint, &source)]);
    }
}

/// Not what jackin or a profile brings by itself.
fn is_written(source: &str) -> bool {
    source != "default" && !source.starts_with("profile ")
}

/// Where a value comes from, unless it is nowhere in particular.
fn written(change: &Change, field: &str) -> Option<String> {
    source_of(&change.sources, field).filter(|s| *s != "default").map(str::to_owned)
}

fn key_fields(change: &Change, spec: &Spec) -> Vec<Row> {
    let mut out: Vec<Row> = Vec::new();
    let mut row = |label: &str, value: String, field: &str| {
        out.push(Row { label: label.to_owned(), value, source: written(change, field) });
    };
    match spec {
        Spec::RoleRepo(spec) => {
            row("repository", spec.url.clone(), "url");
            let branch = spec.branch.as_ref().map_or(String::new(), |b| format!(" on {b}"));
            row("commit", format!("{}{branch}", commit_words(&spec.commit)), "branch");
        }
        Spec::AgentBinary(spec) | Spec::CapsuleBinary(spec) => {
            let origin = match spec.origin {
                Origin::Environment => "given by the environment",
                Origin::Beside => "beside the jackin program",
                Origin::Cache => "kept in the cache",
                Origin::Release if change.address.kind == Kind::CapsuleBinary => "as released",
                Origin::Release => "the newest release",
                Origin::VendorInstaller => "the vendor's installer",
            };
            let version = spec.version.as_ref().map_or(String::new(), |v| format!("{v}, "));
            row("version", format!("{version}{origin}"), "version");
            if let Some(download) = &spec.download {
                let (_, place) = download.url.split_once("://").unwrap_or_default();
                row("from", place.split('/').next().unwrap_or_default().to_owned(), "download");
                if download.sha256.is_none() {
                    row("checksum", "none is published; it is tried out with --version".to_owned(), "download");
                }
            }
        }
        Spec::Image(spec) => row("platform", spec.platform.clone(), "platform"),
        Spec::RoleImage(spec) => {
            row("role", format!("{} at commit {}", spec.role, commit_words(&spec.role_git_sha)), "role");
            row("Dockerfile", spec.dockerfile.clone(), "dockerfile");
            row("construct", spec.construct_image.clone(), "construct_image");
        }
        Spec::DerivedImage(spec) => {
            row("base", spec.base.clone(), "base");
            let agents: Vec<String> = spec
                .recipe
                .supported_agents
                .iter()
                .map(|a| format!("{a}{}", if spec.recipe.agent_binaries.contains_key(a) { "" } else { " (vendor's installer)" }))
                .collect();
            row("agents", agents.join(", "), "recipe.supported_agents");
            row("capsule", spec.recipe.capsule_version.clone(), "recipe.capsule_version");
            if !spec.recipe.hooks.is_empty() {
                row("hooks", spec.recipe.hooks.keys().cloned().collect::<Vec<_>>().join(", "), "recipe.hooks");
            }
            if !spec.recipe.plugins.is_empty() {
                row("plugins", spec.recipe.plugins.join(", "), "recipe.plugins");
            }
        }
        Spec::Checkout(spec) => {
            row("repository", spec.repo.clone(), "repo");
            row("branch", spec.branch.clone(), "branch");
            row("path", spec.path.clone(), "path");
        }
        Spec::Home(spec) => {
            row("path", spec.path.clone(), "path");
            for (agent, handoff) in &spec.auth {
                if let Some(from) = &handoff.from {
                    row("credentials", format!("{agent} from {from}"), &format!("auth.{agent}"));
                }
            }
        }
        Spec::Network(spec) => {
            row("name", format!("{}{}", spec.name, if spec.internal { ", internal" } else { "" }), "name");
        }
        Spec::Certs(spec) => row("name", spec.name.clone(), "name"),
        Spec::Sidecar(spec) => {
            row("container", spec.name.clone(), "name");
            row("image", spec.image.clone(), "image");
            let tier = serde_json::to_value(spec.tier).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
            row("tier", tier, "tier");
        }
        Spec::Capsule(spec) => {
            row("container", spec.name.clone(), "name");
            row("image", spec.image.clone(), "image");
            let word =
                |value: serde_json::Result<serde_json::Value>| value.ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
            row("profile", word(serde_json::to_value(spec.profile)), "profile");
            row("network", format!("{} ({})", spec.network, word(serde_json::to_value(spec.network_mode))), "network_mode");
            let (own, operators): (Vec<_>, Vec<_>) = spec.mounts.iter().partition(|(path, mount)| is_own(path, mount));
            for (path, mount) in &operators {
                row("mounts", mount_words(path, mount), &format!("mounts.{path}"));
            }
            if !own.is_empty() {
                let more = if operators.is_empty() { "" } else { "and " };
                row("mounts", format!("{more}{} of jackin's own", own.len()), "");
            }
            let own = spec.env.values().filter(|entry| matches!(entry, EnvEntry::Plain(_))).count();
            if spec.env.len() > own {
                row("env", format!("{} and {own} of jackin's own", env_names(&spec.env)), "env");
            } else if own > 0 {
                row("env", format!("{own} of jackin's own"), "");
            }
            if let Some(limits) = limit_words(&spec.limits) {
                row("limits", limits, "limits");
            }
            if change.spare {
                row("spare", "paused, its agent held back until a launch takes it".to_owned(), "");
            }
        }
    }
    out
}

/// Mounts that jackin makes up itself: its volumes, and those into the folders that are its own in a container.
fn is_own(path: &str, mount: &MountSpec) -> bool {
    const OWN: [&str; 3] = ["/jackin/", "/home/agent/", "/var/lib/extrausers/"];
    mount.kind == MountKind::Volume || OWN.iter().any(|own| path.starts_with(own))
}

fn mount_words(path: &str, mount: &MountSpec) -> String {
    let readonly = if mount.readonly { " (read-only)" } else { "" };
    if mount.source == path { format!("{path}{readonly}") } else { format!("{} at {path}{readonly}", mount.source) }
}

/// What somebody asked for, by name and where it comes from; values may be credentials.
fn env_names(env: &BTreeMap<String, EnvEntry>) -> String {
    let names: Vec<String> = env
        .iter()
        .filter_map(|(name, entry)| match entry {
            EnvEntry::Plain(_) => None,
            EnvEntry::Secret(secret) => Some(format!("{name} ({})", secret_words(&secret.from))),
        })
        .collect();
    names.join(", ")
}

fn limit_words(limits: &Limits) -> Option<String> {
    let mut out = Vec::new();
    let mut add = |words: Option<String>| out.extend(words);
    add(limits.memory.map(|b| format!("memory {}", bytes_words(b))));
    add(limits.memory_reservation.map(|b| format!("memory reservation {}", bytes_words(b))));
    add(limits.cpus.map(|n| format!("CPUs {n}")));
    add(limits.pids.map(|n| format!("processes {n}")));
    add(limits.nofile.map(|n| format!("open files {n}")));
    (!out.is_empty()).then(|| out.join(", "))
}

/// Everything a thing is made from; hashes and digests left out.
fn every_field(change: &Change, spec: &Spec, depth: Depth) -> Vec<Row> {
    spec.fields()
        .iter()
        .filter(|(field, _)| !is_hash(field) && (!field.starts_with("mounts.") || field.ends_with(".source")))
        .map(|(field, value)| Row {
            label: field_words(field),
            value: match mounts(spec).and_then(|m| m.get(field.strip_prefix("mounts.")?.strip_suffix(".source")?)) {
                Some(mount) if mount.readonly => {
                    format!("{} (read-only)", value_words(field, Some(value), depth))
                }
                _ => value_words(field, Some(value), depth),
            },
            source: source_of(&change.sources, field).map(str::to_owned),
        })
        .collect()
}

fn mounts(spec: &Spec) -> Option<&BTreeMap<String, MountSpec>> {
    match spec {
        Spec::Sidecar(spec) => Some(&spec.mounts),
        Spec::Capsule(spec) => Some(&spec.mounts),
        _ => None,
    }
}

fn summary(page: &mut Page, plan: &Plan) {
    if plan.is_blocked() {
        let text = format!("Blocked by {}; nothing can be applied.", plural(plan.blockers.len(), "problem"));
        page.line(0, 2, &[(Ink::Bad, &text)]);
        for blocker in &plan.blockers {
            let on = blocker.address.as_ref().map_or(String::new(), |a| format!(" ({a})"));
            page.line(2, 4, &[(Ink::Bad, "error: "), (Ink::Plain, &format!("{}{on}", blocker.summary))]);
            if let Some(help) = &blocker.help {
                page.line(4, 6, &[(Ink::Info, "help: "), (Ink::Plain, help)]);
            }
        }
        return;
    }
    if is_unchanged(plan) {
        page.line(0, 2, &[(Ink::Good, "No changes."), (Ink::Plain, &format!(" {}", unchanged_words(plan)))]);
        return;
    }
    let lossy = plan.losses().len();
    if lossy > 0 {
        let text = format!(
            "{} what cannot be brought back; see `destroys` above.",
            if lossy == 1 { "1 change destroys" } else { "Some changes destroy" }
        );
        page.line(0, 2, &[(Ink::Bad, &text)]);
    }
    estimate(page, plan);
    let digest: String = plan.digest.chars().take(12).collect();
    page.line(
        0,
        2,
        &[(Ink::Strong, "Plan: "), (Ink::Plain, &count_words(plan)), (Ink::Plain, "."), (Ink::Faint, &format!(" Digest {digest}."))],
    );
}

/// No step to take and nothing forgotten either.
fn is_unchanged(plan: &Plan) -> bool {
    plan.is_empty() && plan.changes.iter().all(Change::is_reuse)
}

fn unchanged_words(plan: &Plan) -> String {
    match (reused(plan), plan.goal.mode) {
        (0, Mode::Remove) => "There is nothing to remove.".to_owned(),
        (0, Mode::PrewarmOnly) => "There is nothing to prepare.".to_owned(),
        (1, Mode::PrewarmOnly) => "1 resource is ready for the next launch.".to_owned(),
        (count, Mode::PrewarmOnly) => format!("{count} resources are ready for the next launch."),
        (0, _) => "Nothing is declared.".to_owned(),
        (1, _) => "1 resource is as declared.".to_owned(),
        (count, _) => format!("{count} resources are as declared."),
    }
}

fn estimate(page: &mut Page, plan: &Plan) {
    let Some(estimate) = &plan.estimate else {
        if plan.goal.mode == Mode::PrewarmOnly {
            page.line(0, 2, &[(Ink::Plain, "None of this was ever timed here, so nobody knows how long it takes.")]);
        }
        return;
    };
    // Steps of one address in a row are told once: `sidecar/app/default create, start, ready`.
    let mut path: Vec<(&str, Vec<&str>)> = Vec::new();
    for id in &estimate.critical_path {
        let (address, verb) = id.split_once('#').unwrap_or((id, ""));
        match path.last_mut() {
            Some((last, verbs)) if *last == address => verbs.push(verb),
            _ => path.push((address, vec![verb])),
        }
    }
    let path: Vec<String> = path.iter().map(|(address, verbs)| format!("{address} {}", verbs.join(", "))).collect();
    let unknown = match estimate.unknown_steps {
        0 => String::new(),
        1 => "; 1 step was never timed here".to_owned(),
        n => format!("; {n} steps were never timed here"),
    };
    let text = format!("Takes about {} (critical path: {}){unknown}.", about_words(estimate.milliseconds), path.join(" -> "));
    page.line(0, 2, &[(Ink::Plain, &text)]);
    if plan.goal.mode == Mode::PrewarmOnly {
        let text = match &plan.saving {
            Some(saving) => format!("The next launch that needs all of it is about {} shorter.", about_words(saving.milliseconds)),
            None => "The next launch is as long as before.".to_owned(),
        };
        page.line(0, 2, &[(Ink::Plain, &text)]);
    }
}

/// For a comment on a pull request: the outcome in one line, a table of changes, the reasons folded away.
pub fn plan_markdown(plan: &Plan) -> String {
    let wide = Style { colour: false, width: 10_000, unicode: true };
    let depth = Depth { style: &wide, verbose: false };
    let mut out = String::new();
    let digest: String = plan.digest.chars().take(12).collect();
    let headline = if plan.is_blocked() {
        format!("**Blocked** by {}; nothing can be applied.", plural(plan.blockers.len(), "problem"))
    } else if is_unchanged(plan) {
        format!("**No changes.** {}", unchanged_words(plan))
    } else {
        format!("**Plan:** {}. Digest `{digest}`.", count_words(plan))
    };
    let _ = writeln!(out, "### {}\n\n{headline}", escape_markdown(&title(plan)));
    for (title, diagnostics) in [("Problems", &plan.blockers), ("Warnings and notices", &plan.warnings)] {
        if diagnostics.is_empty() {
            continue;
        }
        let _ = writeln!(out, "\n**{title}**\n");
        for d in diagnostics {
            let (_, word) = severity_word(d.severity);
            let help = d.help.as_ref().map_or(String::new(), |h| format!(" {}", escape_markdown(h)));
            let _ = writeln!(out, "- {word} `{}`: {}. {}{help}", d.code, escape_markdown(&d.summary), escape_markdown(&d.detail));
        }
    }
    let changes: Vec<&Change> = plan.changes.iter().filter(|c| !c.is_reuse()).collect();
    if changes.is_empty() {
        return out;
    }
    out.push_str("\n| | resource | action | why | destroys |\n|---|---|---|---|---|\n");
    for change in &changes {
        let whys = whys(change, depth);
        let why = match whys.as_slice() {
            [] => String::new(),
            [one] => one.text.clone(),
            [first, rest @ ..] => format!("{} (and {} more)", first.text, rest.len()),
        };
        let loss = change.loss.as_ref().map(loss_words).unwrap_or_default();
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {} | {} |",
            change.action.symbol(),
            escape_markdown(&change.address.to_string()),
            action_words(change.action),
            escape_markdown(&why),
            escape_markdown(&loss)
        );
    }
    out.push_str("\n<details><summary>Reasons</summary>\n");
    for change in &changes {
        let _ = writeln!(out, "\n**{}**: {}\n", escape_markdown(&change.address.to_string()), action_words(change.action));
        for why in whys(change, depth) {
            let source = why.source.map_or(String::new(), |s| format!(" ({})", escape_markdown(&s)));
            let _ = writeln!(out, "- {}{source}", escape_markdown(&why.text));
        }
        for text in why_nots(change, true, depth) {
            let _ = writeln!(out, "- {}", escape_markdown(&text));
        }
        for duplicate in &change.duplicates {
            let _ = writeln!(out, "- removes duplicate {}", escape_markdown(&duplicate.name));
        }
    }
    out.push_str("\n</details>\n");
    out
}
