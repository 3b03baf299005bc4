//! The real command on real engines with a real private Docker. Only when asked for: JACKIN_TEST_DOCKER=1, and once more on the
//! engine that JACKIN_TEST_ENGINE2 names.

#[path = "docker/console.rs"]
mod console;
#[path = "docker/edits.rs"]
mod edits;
#[path = "docker/prewarm.rs"]
mod prewarm;
#[path = "docker/proxy.rs"]
mod proxy;
#[path = "docker/scenarios.rs"]
mod scenarios;
#[path = "docker/sessions.rs"]
mod sessions;
#[path = "docker/spares.rs"]
mod spares;
#[path = "docker/support.rs"]
mod support;

use support::Engine;

/// Every scenario on both engines.
macro_rules! scenarios {
    ($($file:ident :: $name:ident),* $(,)?) => {
        mod first {
            use super::*;
            $(#[test] fn $name() { if let Some(engine) = Engine::asked_for(false) { $file::$name(&engine) } })*
        }
        mod second {
            use super::*;
            $(#[test] fn $name() { if let Some(engine) = Engine::asked_for(true) { $file::$name(&engine) } })*
        }
    };
}

scenarios! {
    scenarios::a_second_apply_changes_nothing,
    scenarios::plans_of_an_untouched_world_are_empty,
    scenarios::a_kill_after_any_write_is_mended_by_the_next_apply,
    scenarios::a_kill_at_any_call_is_mended_by_the_next_apply,
    scenarios::ctrl_c_leaves_a_world_that_is_mended_by_the_next_apply,
    scenarios::eight_applies_at_once_make_one_of_everything,
    scenarios::workspaces_that_share_an_image_to_be_built_all_come_up,
    scenarios::an_engine_that_goes_away_is_one_clear_message,
    scenarios::a_saved_plan_is_carried_out_or_refused,
    scenarios::a_kill_in_the_middle_of_a_build_is_mended_by_the_next_apply,
    scenarios::a_kill_of_eject_is_mended_by_the_next_eject,
    scenarios::a_build_that_fails_says_why_and_stops_nothing_else,
    scenarios::an_instance_that_is_declared_no_more_goes_when_asked,
    scenarios::a_capsule_that_ends_at_once_says_why,
    scenarios::programs_are_those_of_the_engine,
    prewarm::a_tried_sidecar_tells_its_latency_and_goes,
    prewarm::a_tried_sidecar_that_fails_or_is_interrupted_goes_as_well,
    prewarm::a_kept_sidecar_is_taken_over_by_a_launch,
    prewarm::taking_over_makes_only_the_capsule,
    prewarm::eight_launches_share_three_kept_sidecars,
    prewarm::a_kill_of_prewarm_leaves_nothing_that_the_next_does_not_take_or_remove,
    prewarm::a_kill_of_prewarm_between_images_is_made_up_for_by_the_next,
    prewarm::what_nobody_can_use_is_told_and_pruned,
    prewarm::a_kept_sidecar_that_could_not_be_looked_at_stays,
    prewarm::a_trusted_role_from_another_url_is_asked_about,
    spares::a_spare_is_taken_by_apply,
    spares::five_loads_share_three_spares,
    spares::a_spare_that_no_longer_fits_is_made_anew,
    spares::a_kill_while_a_spare_is_made_leaves_one_spare_to_the_next,
    spares::a_kill_while_a_spare_is_taken_is_mended_by_the_next_apply,
    prewarm::a_kept_sidecar_that_hangs_is_left_alone_and_cleared_away,
    prewarm::runs_at_once_build_an_image_once,
    prewarm::a_new_capsule_rebuilds_the_last_layer,
    edits::every_edit_behind_its_back_is_named_and_mended,
    edits::a_lost_or_exchanged_image_is_named_and_made_again,
    edits::a_changed_role_cache_blocks_and_is_left_alone,
    edits::a_lost_run_bit_of_a_cached_program_is_given_back,
    edits::a_stranger_under_our_name_blocks_and_is_left_alone,
    edits::networks_of_one_name_become_one,
    edits::a_full_disk_is_one_clear_message,
    console::a_launch_from_the_console_takes_the_spare,
    console::what_ends_the_console_ends_a_launch_in_order,
    console::the_console_outlives_an_engine_that_goes_and_a_session_that_ends,
    sessions::an_agent_finds_its_docker_at_work,
    sessions::the_private_docker_runs_containers_over_tls,
    sessions::a_kept_sidecar_is_free_while_a_person_is_asked,
    sessions::a_person_loads_types_resizes_detaches_and_comes_back,
    sessions::a_crashed_agent_keeps_everything_and_comes_back,
    sessions::an_engine_that_may_be_far_away_is_reached_through_its_api,
    sessions::a_home_too_deep_for_a_socket_is_reached_through_the_engine,
    sessions::tabs_are_opened_and_inspected_from_the_host,
    sessions::terminals_share_and_watch_one_picture,
    sessions::a_killed_mux_comes_back_under_an_attached_terminal,
    sessions::an_upgrade_in_the_container_ends_no_session,
    sessions::an_exit_ends_the_container_and_keeps_the_home,
    sessions::an_engine_that_stops_the_container_waits_for_a_polite_end,
    sessions::a_terminal_that_is_told_to_go_is_restored,
    sessions::what_the_agent_reports_is_seen_on_the_host,
    sessions::a_mux_that_cannot_start_ends_the_container_with_a_report,
    sessions::secrets_reach_the_container_and_nothing_else,
}
