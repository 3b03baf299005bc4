//! Three sides of one resource: desired spec, recorded spec, live facts -> field changes.
//! Desired against recorded = edited; recorded against live = drifted.

use super::action::Reason;
use crate::resource::{Fields, Kind, Rung, rung_of};
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    Edited,
    Drifted,
}

/// One field that is not as it should be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FieldChange {
    pub field: String,
    pub cause: Cause,
    /// The recorded value of an edit, the live value of a drift.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// The desired value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
    /// What a difference in this field costs.
    pub needs: Rung,
    /// Where the desired value was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// A difference as a reason, before it is given a place in the plan.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Difference {
    pub reason: Reason,
    pub needs: Rung,
    pub field: Option<FieldChange>,
}

/// Every field in which the three sides disagree, in field order, edits before drift.
pub(super) fn differences(kind: Kind, desired: &Fields, recorded: &Fields, live: &Fields) -> Vec<Difference> {
    let mut out = Vec::new();
    let mut names: Vec<&String> = Vec::new();
    // Nearly always they are the same, and then nothing was edited.
    if desired != recorded {
        names.extend(desired.keys().chain(recorded.keys()));
    }
    names.sort_unstable();
    names.dedup();
    for name in &names {
        let (want, had) = (present(desired, name), present(recorded, name));
        // What the living thing already is needs no change, whatever was recorded: an in-place update cannot rewrite labels.
        let settled = live.contains_key(*name) && present(live, name) == want && rung_of(kind, name) == Rung::Update;
        if want != had && !settled {
            let needs = needed(kind, name, Cause::Edited, want);
            out.push(Difference {
                reason: Reason::FieldChanged { field: (*name).clone(), recorded: had.cloned(), desired: want.cloned() },
                needs,
                field: Some(FieldChange {
                    field: (*name).clone(),
                    cause: Cause::Edited,
                    before: had.cloned(),
                    after: want.cloned(),
                    needs,
                    source: None,
                }),
            });
        }
    }
    for name in live.keys() {
        let (want, had, is) = (present(desired, name), present(recorded, name), present(live, name));
        // An edited field is explained by its edit; one that already is as desired is fine.
        if is == had || is == want || want != had {
            continue;
        }
        let needs = needed(kind, name, Cause::Drifted, want);
        let reason = match kind {
            Kind::AgentBinary | Kind::CapsuleBinary if name == "executable" => Reason::NotExecutable,
            _ => Reason::Drifted { field: name.clone(), recorded: had.cloned(), live: is.cloned() },
        };
        out.push(Difference {
            reason,
            needs,
            field: Some(FieldChange {
                field: name.clone(),
                cause: Cause::Drifted,
                before: is.cloned(),
                after: want.cloned(),
                needs,
                source: None,
            }),
        });
    }
    out
}

/// A null says: declared, looked for, not there.
pub(super) fn present<'a>(fields: &'a Fields, name: &str) -> Option<&'a Value> {
    fields.get(name).filter(|value| !value.is_null())
}

/// The field's rung, unless the engine cannot do this very change in place.
fn needed(kind: Kind, field: &str, cause: Cause, want: Option<&Value>) -> Rung {
    let cannot = match field {
        // Memory and processes can be set free in place, CPUs cannot.
        "limits.cpus" => want.is_none(),
        // A lost network is connected again. Moving to another one would leave the old one attached, and in use when it goes.
        "network" => cause == Cause::Edited || want.is_some_and(|w| w == "none"),
        _ => false,
    };
    if kind.is_container() && cannot { Rung::Replace } else { rung_of(kind, field) }
}
