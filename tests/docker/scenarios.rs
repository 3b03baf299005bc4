//! Launching, looking again, and being cut off.

use super::proxy::{Call, Proxy, Strike, What, When};
use super::support::{COMPAT, Engine, Home};
use rustix::process::Signal;
use std::collections::BTreeMap;

/// At most four lists, one inspect per container and image, pings; nothing else, and above all no write.
fn assert_budget(calls: &[Call], containers_and_images: usize) {
    let lists = calls.iter().filter(|call| call.lists()).count();
    assert!(lists <= 4, "{lists} lists: {calls:?}");
    assert!(!calls.iter().any(|call| call.path == "/images/json"), "{calls:?}");
    assert!(!calls.iter().any(Call::writes), "{calls:?}");
    let mut inspects: BTreeMap<&str, usize> = BTreeMap::new();
    for call in calls.iter().filter(|call| call.inspects()) {
        *inspects.entry(&call.path).or_default() += 1;
    }
    assert!(inspects.values().all(|count| *count == 1), "{inspects:?}");
    assert_eq!(inspects.len(), containers_and_images, "{inspects:?}");
    let others: Vec<&Call> = calls.iter().filter(|c| !c.lists() && !c.inspects() && c.path != "/_ping").collect();
    assert!(others.is_empty(), "{others:?}");
}

/// Capsule and sidecar; construct, private Docker, the role's image and what is derived from it.
const IN_SCOPE: usize = 2 + 4;

pub fn a_second_apply_changes_nothing(engine: &Engine) {
    let home = Home::new(engine, COMPAT);
    home.apply();
    home.assert_one_of_each(true, "after the first apply");

    let proxy = Proxy::start(home.folder(), &engine.host, None);
    let again = home.jackin_by(&proxy, &["apply", "w", "--yes"]);
    assert_eq!(again.code, Some(0), "{again}");
    assert!(again.out.contains("No changes"), "{again}");
    assert_budget(&proxy.calls(), IN_SCOPE);

    proxy.forget();
    let plan = home.jackin_by(&proxy, &["plan", "w", "--detailed-exitcode"]);
    assert_eq!(plan.code, Some(0), "{plan}");
    assert_budget(&proxy.calls(), IN_SCOPE);
    home.assert_one_of_each(true, "after the second apply");
}

pub fn plans_of_an_untouched_world_are_empty(engine: &Engine) {
    let home = Home::new(engine, COMPAT);
    home.apply();
    let first = home.plan().text;
    for round in 0..20 {
        home.assert_settled(&format!("in round {round}"));
    }
    assert_eq!(home.plan().text, first);
}

pub fn a_kill_after_any_call_is_mended_by_the_next_apply(engine: &Engine) {
    let home = Home::new(engine, COMPAT);
    let proxy = Proxy::start(home.folder(), &engine.host, None);
    let clean = home.jackin_by(&proxy, &["apply", "w", "--yes"]);
    assert_eq!(clean.code, Some(0), "{clean}");
    let writes = proxy.calls().iter().filter(|call| call.writes()).count();
    // A network, a volume, two containers that are created and started.
    assert!(writes >= 6, "{:?}", proxy.calls());
    home.eject();

    let anonymous = home.anonymous_volumes();
    for at in 1..=writes {
        for when in [When::Sent, When::Answered] {
            let after = format!("after a kill at call {at} of {writes}, {when:?}");
            let strike = Strike { at, when, what: What::Kill(Signal::KILL) };
            let proxy = Proxy::start(home.folder(), &engine.host, Some(strike));
            let killed = home.jackin_by(&proxy, &["apply", "w", "--yes"]);
            assert!(proxy.struck(), "{after}: {killed}");
            assert_eq!(killed.signal, Some(9), "{after}: {killed}");

            home.apply();
            home.assert_settled(&after);
            home.assert_one_of_each(true, &after);
            home.eject();
            home.assert_nothing_left(&after);
            assert!(home.anonymous_volumes().is_subset(&anonymous), "{after}: anonymous volumes stay");
        }
    }
}
