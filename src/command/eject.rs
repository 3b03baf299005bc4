//! `jackin eject` and `jackin exile`: these instances' Docker resources are absent. Durable homes stay, unless purged.

use super::live::ArchBy;
use super::run::{Asks, Run};
use super::select::{self, Candidate};
use super::ui::{DONE, Failure};
use crate::cli::{Carrying, EjectArgs, ExileArgs};
use crate::gather::session::{Freshness, Session};
use crate::graph::Graph;
use crate::graph::build::Built;
use crate::observed::Observed;
use crate::plan::{Mode, PlanOptions, Scope};
use crate::provider::Provider;
use std::collections::BTreeSet;

pub async fn run(run: &mut Run, args: EjectArgs) -> Result<i32, Failure> {
    let mut session = run.open(&[], Freshness::Offline, false, ArchBy::Memory).await?;
    let keys = match &args.selector {
        None => everything(&mut session).await?,
        Some(selector) => {
            let candidates = all(&mut session).await?;
            let found = select::matching(&candidates, selector);
            if args.all && !found.is_empty() {
                found.into_iter().map(|c| c.key.clone()).collect()
            } else {
                vec![select::one(&candidates, Some(selector), None)?.key.clone()]
            }
        }
    };
    remove(run, &mut session, "eject", keys, args.purge, &args.carrying).await
}

pub async fn exile(run: &mut Run, args: ExileArgs) -> Result<i32, Failure> {
    let mut session = run.open(&[], Freshness::Offline, false, ArchBy::Memory).await?;
    let keys = everything(&mut session).await?;
    remove(run, &mut session, "exile", keys, false, &args.carrying).await
}

pub async fn remove(
    run: &mut Run,
    session: &mut Session,
    command: &str,
    keys: Vec<String>,
    purge: bool,
    carrying: &Carrying,
) -> Result<i32, Failure> {
    if keys.is_empty() {
        run.ui.talk("There is no instance.");
        return Ok(DONE);
    }
    let mut options = PlanOptions::new(Mode::Remove, command, Scope::Instances(keys));
    options.purge = purge;
    run.carry_out(session, Built::default(), &options, carrying, Asks::Always, None).await
}

/// Instances with a record here, and those of which only containers are left.
async fn all(session: &mut Session) -> Result<Vec<Candidate>, Failure> {
    let mut candidates = select::recorded(&session.facts);
    for key in observed_keys(session).await? {
        if !candidates.iter().any(|c| c.key == key) {
            candidates.push(Candidate { key, id: String::new(), container: String::new(), role: String::new(), spare: false });
        }
    }
    Ok(candidates)
}

async fn everything(session: &mut Session) -> Result<Vec<String>, Failure> {
    Ok(all(session).await?.into_iter().map(|c| c.key).collect())
}

async fn observed_keys(session: &mut Session) -> Result<BTreeSet<String>, Failure> {
    let observed = observe_all(session).await?;
    Ok(observed.resources.iter().filter(|(_, f)| !f.is_empty()).filter_map(|(a, _)| a.instance().map(str::to_owned)).collect())
}

async fn observe_all(session: &mut Session) -> Result<Observed, Failure> {
    let provider = super::live::connect(session, Default::default()).await?;
    Ok(provider.observe(&Graph::default(), &Scope::All).await?)
}
