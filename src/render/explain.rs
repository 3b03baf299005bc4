//! One resource explained: from the line that configures it through its fields to everything that depends on it.
//!
//! In: graph, plan and observation, as `plan` saw them. Out: text or JSON. Nothing is decided here.

use super::Style;
use super::page::{Ink, Page, width};
use super::table::table;
use super::words::{Depth, action_words, field_words, id_words, is_hash, loss_words, source_of, value_words, why_nots, whys};
use crate::graph::Graph;
use crate::observed::{Found, Observed};
use crate::plan::{Action, Change, Plan};
use crate::resource::{Address, Fields};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Everything that is known of one address.
struct Known<'a> {
    change: Option<&'a Change>,
    desired: Option<Fields>,
    sources: BTreeMap<String, String>,
    found: Option<&'a Found>,
}

fn known<'a>(graph: &'a Graph, plan: &'a Plan, observed: &'a Observed, address: &Address) -> Option<Known<'a>> {
    let change = plan.change(address);
    let resource = graph.resources.get(address);
    let all = observed.found(address);
    // The plan names the keeper among duplicates.
    let kept = change.and_then(|c| c.found.as_ref()).and_then(|kept| all.iter().find(|f| f.id == kept.id));
    if change.is_none() && resource.is_none() && all.is_empty() {
        return None;
    }
    // What the plan wants differs from the graph when kept parts are adopted.
    let desired = change.and_then(|c| c.desired.as_ref()).or(resource.map(|r| &r.spec));
    Some(Known {
        change,
        desired: desired.map(crate::resource::Spec::fields),
        sources: resource.map(|r| r.sources.clone()).unwrap_or_default(),
        found: kept.or(all.first()),
    })
}

pub fn explain_text(graph: &Graph, plan: &Plan, observed: &Observed, address: &Address, style: &Style) -> String {
    let mut page = Page::new(style);
    let Some(known) = known(graph, plan, observed, address) else {
        page.line(0, 2, &[(Ink::Plain, &format!("{address} is neither declared nor there. `jackin graph` lists every address."))]);
        return page.finish();
    };
    let depth = Depth { style, verbose: true };
    page.line(0, 2, &[(Ink::Strong, &address.to_string())]);
    if let Some(found) = known.found {
        let text = format!("{}, {} ({})", found.name, found.state.word(), id_words(&found.id));
        page.line(2, 4, &[(Ink::Faint, "found "), (Ink::Plain, &text)]);
    } else {
        page.line(2, 4, &[(Ink::Faint, "found "), (Ink::Plain, "nothing")]);
    }
    if let Some(change) = known.change {
        decision(&mut page, change, depth);
    } else {
        page.line(2, 4, &[(Ink::Faint, "action "), (Ink::Plain, "none; this plan does not cover it")]);
    }

    page.blank();
    page.raw(&field_table(&known, style));

    page.blank();
    let fingerprint = |fields: &Fields| crate::resource::fingerprint(fields)[..12].to_owned();
    let desired = known.desired.as_ref().map_or("none".to_owned(), fingerprint);
    let recorded = known.found.and_then(|f| f.recorded.as_ref()).map_or("none".to_owned(), fingerprint);
    page.line(0, 2, &[(Ink::Strong, "Fingerprint"), (Ink::Plain, &format!("  desired {desired}, recorded {recorded}"))]);

    let dependents = graph.dependents();
    let needs = |a: &Address| graph.resources.get(a).map(|r| r.depends_on.iter().collect()).unwrap_or_default();
    let needed = |a: &Address| dependents.get(a).cloned().unwrap_or_default();
    tree(&mut page, "Depends on", plan, address, &needs, style);
    tree(&mut page, "Needed by", plan, address, &needed, style);

    let steps: Vec<_> = plan.steps.iter().filter(|s| s.address == *address).collect();
    if !steps.is_empty() {
        page.blank();
        page.line(0, 2, &[(Ink::Strong, "Steps")]);
        for step in steps {
            let after = if step.needs.is_empty() { String::new() } else { format!("  after {}", step.needs.join(", ")) };
            page.line(2, 4, &[(Ink::Plain, &step.id), (Ink::Faint, &after)]);
        }
    }
    page.finish()
}

fn decision(page: &mut Page, change: &Change, depth: Depth) {
    page.line(2, 4, &[(Ink::Faint, "action "), (Ink::Strong, action_words(change.action))]);
    let whys = whys(change, depth);
    if whys.is_empty() && change.action == Action::Reuse {
        page.line(4, 6, &[(Ink::Plain, "it is as declared")]);
    }
    for why in whys {
        let source = why.source.map_or(String::new(), |s| format!(" ({s})"));
        page.line(4, 6, &[(Ink::Plain, &why.text), (Ink::Faint, &source)]);
    }
    for text in why_nots(change, true, depth) {
        page.line(4, 6, &[(Ink::Faint, &text)]);
    }
    if let Some(loss) = &change.loss {
        page.line(4, 6, &[(Ink::Bad, "destroys: "), (Ink::Bad, &loss_words(loss))]);
    }
}

/// Columns without news are left out: nothing recorded, or nothing checked live.
fn field_table(known: &Known, style: &Style) -> String {
    let empty = Fields::new();
    let desired = known.desired.as_ref().unwrap_or(&empty);
    let recorded = known.found.and_then(|f| f.recorded.as_ref()).unwrap_or(&empty);
    let live = known.found.map_or(&empty, |f| &f.live);
    let names: BTreeSet<&String> = desired.keys().chain(recorded.keys()).chain(live.keys()).collect();
    let depth = Depth { style, verbose: false };
    let side = |field: &str, fields: &Fields, against: Option<&Value>| match fields.get(field) {
        None => "-".to_owned(),
        value if value == against => "same".to_owned(),
        Some(_) if is_hash(field) => "differs".to_owned(),
        Some(Value::Null) => "not there".to_owned(),
        value => value_words(field, value, depth),
    };
    let mut headers = vec!["field", "value", "source"];
    if !recorded.is_empty() {
        headers.push("recorded");
    }
    if !live.is_empty() {
        headers.push("live");
    }
    // Parts of a variable or a mount that nobody asks about unless they are wrong.
    let minor = |field: &str| {
        field.starts_with("env.") && field.ends_with(".digest")
            || field.starts_with("mounts.") && (field.ends_with(".kind") || field.ends_with(".readonly"))
    };
    let agrees = |field: &str| {
        let want = desired.get(field);
        (recorded.is_empty() || recorded.get(field) == want) && live.get(field).is_none_or(|is| Some(is) == want)
    };
    let rows: Vec<Vec<String>> = names
        .into_iter()
        .filter(|field| !minor(field) || !agrees(field))
        .map(|field| {
            let want = desired.get(field);
            let mut row = vec![
                field_words(field),
                want.map_or("-".to_owned(), |v| value_words(field, Some(v), depth)),
                source_of(&known.sources, field).unwrap_or("-").to_owned(),
            ];
            if !recorded.is_empty() {
                row.push(side(field, recorded, want));
            }
            if !live.is_empty() {
                row.push(side(field, live, want));
            }
            row
        })
        .collect();
    table(&rows, &headers, style)
}

/// What lies in one direction, to the end. What was shown already is not followed again.
fn tree<'a>(page: &mut Page, title: &str, plan: &Plan, root: &'a Address, next: &dyn Fn(&Address) -> Vec<&'a Address>, style: &Style) {
    let mut seen = BTreeSet::new();
    let mut lines: Vec<(String, &Address, bool)> = Vec::new();
    branch(&mut lines, &mut seen, root, "", next, style);
    if lines.is_empty() {
        return;
    }
    page.blank();
    page.line(0, 2, &[(Ink::Strong, title)]);
    for (lead, address, again) in lines {
        let action = plan.change(address).map_or(String::new(), |c| format!("  {}", action_words(c.action)));
        let again = if again { "  (shown above)" } else { "" };
        page.line(
            2,
            4 + width(&lead),
            &[(Ink::Faint, &lead), (Ink::Plain, &address.to_string()), (Ink::Faint, &action), (Ink::Faint, again)],
        );
    }
}

fn branch<'a>(
    lines: &mut Vec<(String, &'a Address, bool)>,
    seen: &mut BTreeSet<&'a Address>,
    at: &Address,
    lead: &str,
    next: &dyn Fn(&Address) -> Vec<&'a Address>,
    style: &Style,
) {
    let below = next(at);
    for (number, address) in below.iter().enumerate() {
        let last = number + 1 == below.len();
        let (mark, rest) = match (style.unicode, last) {
            (true, false) => ("├─ ", "│  "),
            (true, true) => ("└─ ", "   "),
            (false, false) => ("|- ", "|  "),
            (false, true) => ("`- ", "   "),
        };
        let again = !seen.insert(address) && !next(address).is_empty();
        lines.push((format!("{lead}{mark}"), address, again));
        if !again {
            branch(lines, seen, address, &format!("{lead}{rest}"), next, style);
        }
    }
}

/// The same as data; `None` when the address is neither declared nor there.
pub fn explain_json(graph: &Graph, plan: &Plan, observed: &Observed, address: &Address) -> Option<Value> {
    let known = known(graph, plan, observed, address)?;
    let empty = Fields::new();
    let desired = known.desired.as_ref().unwrap_or(&empty);
    let recorded = known.found.and_then(|f| f.recorded.as_ref());
    let live = known.found.map_or(&empty, |f| &f.live);
    let names: BTreeSet<&String> = desired.keys().chain(recorded.into_iter().flat_map(Fields::keys)).chain(live.keys()).collect();
    let fields: Vec<Value> = names
        .into_iter()
        .map(|field| {
            let mut row = serde_json::Map::from_iter([("field".to_owned(), Value::from(field.as_str()))]);
            let sides = [("value", desired.get(field)), ("recorded", recorded.and_then(|r| r.get(field))), ("live", live.get(field))];
            for (name, value) in sides {
                if let Some(value) = value {
                    row.insert(name.to_owned(), value.clone());
                }
            }
            if let Some(source) = source_of(&known.sources, field) {
                row.insert("source".to_owned(), source.into());
            }
            Value::Object(row)
        })
        .collect();
    let dependents = graph.dependents();
    Some(json!({
        "address": address,
        "change": known.change,
        "found": known.found,
        "fields": fields,
        "fingerprint": {
            "desired": known.desired.as_ref().map(crate::resource::fingerprint),
            "recorded": recorded.map(crate::resource::fingerprint),
        },
        "depends_on": graph.resources.get(address).map(|r| &r.depends_on),
        "needed_by": dependents.get(address).cloned().unwrap_or_default(),
        "steps": plan.steps.iter().filter(|s| s.address == *address).collect::<Vec<_>>(),
    }))
}
