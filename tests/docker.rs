//! The real command on real engines with a real private Docker. Only when asked for: JACKIN_TEST_DOCKER=1, and once more on the
//! engine that JACKIN_TEST_ENGINE2 names.

#[path = "docker/proxy.rs"]
mod proxy;
#[path = "docker/scenarios.rs"]
mod scenarios;
#[path = "docker/support.rs"]
mod support;

use support::Engine;

/// Every scenario on both engines.
macro_rules! scenarios {
    ($($file:ident :: $name:ident),* $(,)?) => {
        mod engine {
            use super::*;
            $(#[test] fn $name() { if let Some(engine) = Engine::asked_for(false) { $file::$name(&engine) } })*
        }
        mod second_engine {
            use super::*;
            $(#[test] fn $name() { if let Some(engine) = Engine::asked_for(true) { $file::$name(&engine) } })*
        }
    };
}

scenarios! {
    scenarios::a_second_apply_changes_nothing,
    scenarios::plans_of_an_untouched_world_are_empty,
    scenarios::a_kill_after_any_call_is_mended_by_the_next_apply,
}
