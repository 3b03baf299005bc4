//! Spares: instances that were started and paused with their agent held back. Wanted as such by prewarming, taken by launches.
//!
//! In: the desired and the recorded hold of a home. Out: what that means for the instance's other parts. Absent: which instances are
//! wanted as spares; `graph/spare.rs` says that.

use super::action::{Action, Considered, Reason};
use super::document::{Change, FoundRef};
use super::{Planner, total_loss};
use crate::diagnostic::Diagnostic;
use crate::observed::{Found, Loss, State};
use crate::resource::{Address, Fields, HOLD, Kind, Spec};
use std::collections::BTreeSet;

/// Why a spare is not simply reused.
pub const HELD_BACK: &str = "held back as a spare";
/// The parts of an instance that a spare is made of.
const PARTS: [Kind; 4] = [Kind::Network, Kind::Certs, Kind::Sidecar, Kind::Capsule];

impl Planner<'_> {
    /// Is the instance of this part to be a spare?
    pub(super) fn is_spare_wanted(&self, address: &Address) -> bool {
        let home = address.instance().and_then(|instance| self.graph.resources.get(&Address::new(Kind::Home, instance)));
        matches!(home.map(|resource| &resource.spec), Some(Spec::Home(home)) if home.agent_toml.hold)
    }

    /// Has nothing begun in it? Its record and the file that the capsule reads must agree on that.
    pub(super) fn is_held(&self, instance: &str) -> bool {
        let home = self.observed.found(&Address::new(Kind::Home, instance)).first();
        let says = |fields: Option<&Fields>| fields.and_then(|fields| fields.get(HOLD)).is_some_and(|hold| *hold == true);
        home.is_some_and(|home| says(home.recorded.as_ref()) && says(Some(&home.live)))
    }

    fn capsule_lives(&self, instance: &str) -> bool {
        let capsules = self.observed.found(&Address::new(Kind::Capsule, instance));
        capsules.iter().any(|found| matches!(found.state, State::Running | State::Paused))
    }

    /// Wanted as a spare, but it has containers in which something has begun: then it is left alone. So what a spare holds was never
    /// used, its Docker included.
    pub(super) fn is_taken(&self, address: &Address) -> bool {
        let Some(instance) = address.instance() else {
            return false;
        };
        let has = |kind| !self.observed.found(&Address::new(kind, instance)).is_empty();
        self.is_spare_wanted(address) && !self.is_held(instance) && (has(Kind::Capsule) || has(Kind::Sidecar))
    }

    /// Said where a spare was asked for and is none any more.
    pub(super) fn taken(&self) -> Option<Diagnostic> {
        let homes = self.graph.resources.keys().filter(|address| address.kind == Kind::Home && self.is_taken(address));
        let keys: Vec<&str> = homes.filter_map(Address::instance).collect();
        let detail = format!("{}; it is left as it is.", keys.join(", "));
        (!keys.is_empty()).then(|| {
            Diagnostic::notice("prewarm.in_use", "An instance that has been at work is not made a spare", detail)
                .help("`jackin hardline` brings it back, `jackin eject` clears it away.")
        })
    }

    /// The name of the spare that this part belongs to.
    pub(super) fn spare_of(&self, address: &Address) -> Option<&str> {
        let instance = address.instance().filter(|instance| self.is_held(instance) && self.capsule_lives(instance))?;
        Some(&self.observed.found(&Address::new(Kind::Capsule, instance)).first()?.name)
    }

    /// Spares in the graph of a launch are there to be judged: one that a launch could not simply take is of no use.
    pub(super) fn decide_stale_spares(&mut self) {
        if self.options.mode != super::Mode::Launch || !self.options.prune || !self.options.targets.is_empty() {
            return;
        }
        let wanted: BTreeSet<&str> =
            self.graph.resources.keys().filter(|address| self.is_spare_wanted(address)).filter_map(Address::instance).collect();
        for instance in wanted {
            let at = |kind| Address::new(kind, instance);
            // What ruled a cheaper change out tells more than what follows from it.
            let telling =
                |change: &Change| change.considered.last().map(|c| c.ruled_out_by.clone()).or_else(|| change.reasons.first().cloned());
            let reason = PARTS.into_iter().filter_map(|kind| self.changes.get(&at(kind))).find_map(telling);
            for kind in PARTS.into_iter().chain([Kind::Home]) {
                self.changes.remove(&at(kind));
                if let (Some(reason), [first, rest @ ..], true) = (&reason, self.observed.found(&at(kind)), kind != Kind::Home) {
                    let mut change = Change::new(&at(kind), None, Action::Remove, vec![reason.clone()]);
                    change.found = Some(FoundRef { id: first.id.clone(), name: first.name.clone() });
                    change.duplicates = rest.iter().map(|f| FoundRef { id: f.id.clone(), name: f.name.clone() }).collect();
                    self.changes.insert(at(kind), change);
                }
            }
        }
    }

    /// What goes with things that are removed; with a spare's parts nothing.
    pub(super) fn loss_of(&self, address: &Address, found: &[Found]) -> Option<Loss> {
        if self.spare_of(address).is_some() && address.kind != Kind::Home { None } else { total_loss(found) }
    }
}

/// A container of a spare in which nothing else is wrong is taken as it is.
pub(super) fn take_spare(change: &mut Change, found: &Found, from: &str) {
    let only_paused = change.action == Action::Start && change.reasons.len() == 1 && found.state == State::Paused;
    let only_held = change.action == Action::Reuse && change.address.kind == Kind::Capsule;
    if !change.address.kind.is_container() {
        return;
    }
    if only_paused || only_held {
        change.action = Action::Adopt;
        change.reasons = vec![Reason::Adoptable { from: from.to_owned() }];
        change.considered = vec![Considered { action: Action::Reuse, ruled_out_by: Reason::Unhealthy { state: HELD_BACK.to_owned() } }];
    } else if change.action == Action::Replace
        && let Some(why) = change.considered.last().map(|considered| considered.ruled_out_by.clone())
    {
        change.considered.insert(1, Considered { action: Action::Adopt, ruled_out_by: why });
    }
}
