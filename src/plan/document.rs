//! The plan as a document: its parts, its identity, reading and writing it. Same inputs, same bytes.

use super::action::{Action, Considered, Reason};
use super::diff::FieldChange;
use super::steps::Step;
use crate::diagnostic::{Diagnostic, Severity};
pub use crate::graph::prewarm::SidecarGoal;
use crate::graph::{Graph, InstanceInfo, Resource};
use crate::observed::{Loss, Observed};
use crate::resource::{Address, Spec, sha256_json};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub const PLAN_FORMAT: u32 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Instances exist and are healthy.
    Launch,
    /// Caches, images or a kept sidecar exist.
    PrewarmOnly,
    /// An instance runs again round its saved state.
    Restore,
    /// Instances' Docker resources are absent.
    Remove,
}

/// Which observed instances the command is about; things outside it are not looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    All,
    /// Instances whose key starts with one of these workspaces.
    Workspaces(Vec<String>),
    /// Exactly these instance keys.
    Instances(Vec<String>),
}

impl Scope {
    pub fn covers(&self, instance: &str) -> bool {
        match self {
            Scope::All => true,
            Scope::Workspaces(names) => instance.rsplit_once('/').is_some_and(|(workspace, _)| names.iter().any(|n| n == workspace)),
            Scope::Instances(keys) => keys.iter().any(|k| k == instance),
        }
    }
}

/// What the person asked for, beside the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanOptions {
    pub mode: Mode,
    /// The verb, for reasons and headings: `apply`, `eject`.
    pub command: String,
    pub scope: Scope,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<Address>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replace: Vec<Address>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub prune: bool,
    /// Remove durable homes too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub purge: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rebuild: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar: Option<SidecarGoal>,
    /// Median milliseconds of earlier steps by `<effect> <kind>`; feeds the estimate only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub history: BTreeMap<String, u64>,
}

impl PlanOptions {
    pub fn new(mode: Mode, command: &str, scope: Scope) -> Self {
        Self {
            mode,
            command: command.to_owned(),
            scope,
            targets: Vec::new(),
            replace: Vec::new(),
            prune: false,
            purge: false,
            rebuild: false,
            sidecar: None,
            history: BTreeMap::new(),
        }
    }
}

/// The observed thing a change is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FoundRef {
    pub id: String,
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Change {
    pub address: Address,
    pub action: Action,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldChange>,
    /// Cheaper actions, cheapest first, each with what ruled it out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub considered: Vec<Considered>,
    /// What carrying it out destroys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Loss>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<FoundRef>,
    /// Made only to see it work: it is removed before the plan has ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disposable: bool,
    /// Its container is paused when it is ready: a spare.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub spare: bool,
    /// Further things of the same address that go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub duplicates: Vec<FoundRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<Spec>,
    /// Where desired values were written, by field or leading part of field names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sources: BTreeMap<String, String>,
}

impl Change {
    /// It goes on as it is: nothing but its pause, and what was held back in it, ends.
    pub fn takes_spare(&self) -> bool {
        self.action == Action::Adopt && self.found.is_some()
    }

    pub(super) fn new(address: &Address, resource: Option<&Resource>, action: Action, reasons: Vec<Reason>) -> Self {
        Self {
            address: address.clone(),
            action,
            reasons,
            fields: Vec::new(),
            considered: Vec::new(),
            loss: None,
            found: None,
            disposable: false,
            spare: false,
            duplicates: Vec::new(),
            desired: resource.map(|r| r.spec.clone()),
            sources: resource.map(|r| r.sources.clone()).unwrap_or_default(),
        }
    }

    pub fn is_reuse(&self) -> bool {
        self.action == Action::Reuse
    }
}

/// How long it may take, from the history of runs on this machine. Not part of the plan's identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Estimate {
    /// Length of the critical path in milliseconds, over steps whose duration is known.
    pub milliseconds: u64,
    /// Step ids on it, in order.
    pub critical_path: Vec<String>,
    /// Steps without a history.
    pub unknown_steps: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    pub format_version: u32,
    pub goal: PlanOptions,
    pub instances: BTreeMap<String, InstanceInfo>,
    /// By instance, then kind; artifacts first. Reuse included.
    pub changes: Vec<Change>,
    pub steps: Vec<Step>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blockers: Vec<Diagnostic>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Diagnostic>,
    /// Changes by action.
    pub counts: BTreeMap<Action, usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<Estimate>,
    /// Prewarming: by how much the next launch is shorter afterwards. Not part of the plan's identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saving: Option<Estimate>,
    /// Sha256 of the observation it rests on.
    pub observation_digest: String,
    /// Sha256 of everything above but the estimates and the observation.
    pub digest: String,
}

impl Plan {
    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    pub fn is_blocked(&self) -> bool {
        !self.blockers.is_empty()
    }

    pub fn change(&self, address: &Address) -> Option<&Change> {
        self.changes.iter().find(|c| c.address == *address)
    }

    /// Changes that destroy something a person would miss.
    pub fn losses(&self) -> Vec<(&Address, &Loss)> {
        self.changes.iter().filter_map(|c| Some((&c.address, c.loss.as_ref()?))).collect()
    }

    /// Addresses whose change differs between two plans; empty = the same plan.
    pub fn differing(&self, other: &Plan) -> Vec<Address> {
        let index = |plan: &'_ Plan| plan.changes.iter().map(|c| (c.address.clone(), c.clone())).collect::<BTreeMap<_, _>>();
        let (ours, theirs) = (index(self), index(other));
        ours.keys()
            .chain(theirs.keys())
            .filter(|a| ours.get(*a) != theirs.get(*a))
            .cloned()
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// Pretty JSON with a final line end.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("BUG: a plan always serialises");
        text.push('\n');
        text
    }

    /// Reads a saved plan. Errors name what is wrong with the file.
    pub fn from_json(file: &str, text: &str) -> Result<Plan, Diagnostic> {
        let bad = |detail: String| {
            Diagnostic::error("plan.unreadable", "This is not a plan that jackin can read", detail)
                .help("Make one with `jackin plan --out FILE`.")
        };
        let value: serde_json::Value = serde_json::from_str(text).map_err(|e| bad(format!("{file}: {e}")))?;
        match value.get("format_version").and_then(serde_json::Value::as_u64) {
            Some(version) if version == u64::from(PLAN_FORMAT) => {}
            Some(version) => {
                return Err(bad(format!("{file} has plan format {version}, this jackin reads {PLAN_FORMAT}.")));
            }
            None => return Err(bad(format!("{file} has no `format_version`."))),
        }
        let plan: Plan = serde_json::from_value(value).map_err(|e| bad(format!("{file}: {e}")))?;
        if plan.compute_digest() != plan.digest {
            return Err(bad(format!("{file} was changed after it was written: its digest does not fit its content.")));
        }
        Ok(plan)
    }

    fn compute_digest(&self) -> String {
        let mut bare = self.clone();
        bare.digest = String::new();
        bare.observation_digest = String::new();
        bare.estimate = None;
        bare.saving = None;
        bare.goal.history = BTreeMap::new();
        bare.digest_as_it_is()
    }

    fn digest_as_it_is(&self) -> String {
        sha256_json(self)
    }
}

pub(super) fn assemble(
    graph: &Graph,
    observed: &Observed,
    options: &PlanOptions,
    changes: BTreeMap<Address, Change>,
    steps: Vec<Step>,
    diagnostics: Vec<Diagnostic>,
) -> Plan {
    let mut counts = BTreeMap::new();
    for change in changes.values() {
        *counts.entry(change.action).or_insert(0) += 1;
    }
    let mut changes: Vec<Change> = changes.into_values().collect();
    changes.sort_by(|a, b| (a.address.instance(), &a.address).cmp(&(b.address.instance(), &b.address)));
    let (mut blockers, mut warnings): (Vec<_>, Vec<_>) = diagnostics.into_iter().partition(|d| d.severity == Severity::Error);
    blockers.sort();
    blockers.dedup();
    warnings.sort();
    warnings.dedup();
    let mut goal = options.clone();
    goal.history = BTreeMap::new();
    let estimate = super::steps::estimate(&steps, &options.history);
    let saving = (options.mode == Mode::PrewarmOnly).then(|| super::steps::saving(&steps, &changes, &options.history)).flatten();
    let mut plan = Plan {
        format_version: PLAN_FORMAT,
        goal,
        instances: graph.instances.clone(),
        changes,
        steps,
        blockers,
        warnings,
        counts,
        estimate: None,
        saving: None,
        observation_digest: String::new(),
        digest: String::new(),
    };
    // Before what is not part of its identity comes in: a plan of thousands is not copied for that.
    plan.digest = plan.digest_as_it_is();
    plan.estimate = estimate;
    plan.saving = saving;
    plan.observation_digest = observed.digest();
    plan
}
