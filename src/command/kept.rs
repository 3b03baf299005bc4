//! Which kept sidecars this run has its hands on. A set is made, adopted or removed only by the run that holds its lock; the lock is
//! never waited for, because there may be another set, and a sidecar of one's own is always possible.

use super::ui::Failure;
use crate::gather::Paths;
use crate::gather::lock::Lock;
use crate::gather::session::Session;
use crate::graph::names;
use crate::observed::Observed;
use crate::plan::{Action, Plan};
use crate::resource::Spec;
use std::collections::{BTreeMap, BTreeSet};

pub struct KeptSets {
    paths: Paths,
    held: BTreeMap<String, Lock>,
    /// Those in the plan that a person looks at: where they are still free they are chosen again.
    shown: BTreeSet<String>,
    /// Too many came in between: none is taken any more.
    pub give_up: bool,
}

impl KeptSets {
    pub fn of(session: &Session) -> Self {
        Self { paths: session.paths.clone(), held: BTreeMap::new(), shown: BTreeSet::new(), give_up: false }
    }

    /// The provider sees that a set is held, not by whom. Ours come first, so that planning again chooses them again.
    pub fn mark(&self, observed: &mut Observed) {
        for member in &mut observed.pool {
            member.held = self.give_up || (member.held && !self.held.contains_key(&member.id));
        }
        observed.pool.sort_by_key(|member| !(self.held.contains_key(&member.id) || self.shown.contains(&member.id)));
    }

    /// Others may have the sets while a person thinks.
    pub fn let_go(&mut self) {
        self.shown = self.held.keys().cloned().collect();
        free(std::mem::take(&mut self.held));
    }

    /// Takes hold of every set that the plan touches and lets go of the others; true = something has changed, look again.
    pub fn hold(&mut self, plan: &Plan) -> Result<bool, Failure> {
        let touched = touched(plan);
        self.held.retain(|id, _| touched.contains_key(id));
        let mut again = false;
        for (id, found) in touched {
            if self.held.contains_key(&id) {
                continue;
            }
            match Lock::try_exclusive(&self.paths.kept_lock(&id))? {
                Some(lock) => {
                    self.held.insert(id, lock);
                    // What was there may have been taken between the look and the lock; what is made is nobody else's.
                    again |= found;
                }
                None => again = true,
            }
        }
        Ok(again)
    }

    /// The sets are somebody's now, or gone, or free: their locks guard nothing any more.
    pub fn release(self) {
        free(self.held);
    }
}

fn free(held: BTreeMap<String, Lock>) {
    for lock in held.into_values() {
        // A lock file that stays is taken again; it is in nobody's way.
        let _ = lock.remove();
    }
}

/// Sets by id; true = they were there before.
fn touched(plan: &Plan) -> BTreeMap<String, bool> {
    let mut out = BTreeMap::new();
    for change in plan.changes.iter().filter(|change| !change.is_reuse()) {
        if let Some(id) = change.address.pool_id() {
            *out.entry(id.to_owned()).or_default() |= change.found.is_some();
        } else if change.action == Action::Adopt
            && !change.takes_spare()
            && let Some(spec @ Spec::Sidecar(_)) = &change.desired
            && let Some(id) = names::pool_id(change.address.kind, spec.object_name())
        {
            out.insert(id.to_owned(), true);
        }
    }
    out
}
