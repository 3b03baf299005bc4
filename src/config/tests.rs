//! Configuration from text to values, as its users see it: what is said about a mistake, where, and what is accepted.
//! One `trap_` test for each mistake of the original that must not come back.

use super::dockerfile::{check as check_dockerfile, override_construct};
use super::file::{GlobalFile, parse_global, parse_workspace};
use super::layer::{self, Layer};
use super::role::parse_manifest;
use super::role_key::{RoleKey, clone_url, git_url_problem, shown_url, url_identity};
use super::version::{GLOBAL_VERSION, Version};
use super::write::{
    NewMount, NewWorkspace, migrate_global_text, migrate_role_text, migrate_workspace_text, render_workspace, same_workspace,
    split_global_text,
};
use super::*;
use crate::diagnostic::Severity;
use crate::facts::{RoleProblem, RoleSnapshot, TreeKind};
use crate::graph::role_repo::{self, check_role};
use proptest::prelude::*;
use secrecy::ExposeSecret;
use std::collections::BTreeMap;

const WORKSPACE: &str = "workdir = \"/w\"\n[[mounts]]\nsrc = \"/src\"\ndst = \"/w\"\n";

/// `place code` for each diagnostic, warnings with a `?`.
fn lines(diagnostics: &[Diagnostic]) -> Vec<String> {
    diagnostics
        .iter()
        .map(|d| {
            let place = d.span.as_ref().map_or_else(|| "-".to_owned(), |s| format!("{}:{}:{}", s.file, s.line, s.column));
            let mark = if d.severity == Severity::Warning { "?" } else { "" };
            format!("{place} {}{mark}", d.code)
        })
        .collect()
}

fn sources(global: &str, workspace: &str) -> Vec<SourceFile> {
    let file = |kind, shown: &str, text: &str| SourceFile { kind, shown: shown.to_owned(), bytes: text.as_bytes().to_vec() };
    vec![file(FileKind::Global, "config.toml", global), file(FileKind::Workspace { name: "app".to_owned() }, "app.toml", workspace)]
}

fn said(global: &str, workspace: &str) -> Vec<Diagnostic> {
    match load(&sources(global, workspace)) {
        Ok((_, warnings)) => warnings,
        Err(mistakes) => mistakes.0,
    }
}

/// What is said about a global file, a workspace file and a manifest; the other files are sound.
#[track_caller]
fn check_global(text: &str, expected: &[&str]) {
    assert_eq!(lines(&said(text, WORKSPACE)), expected, "{:#?}", said(text, WORKSPACE));
}

#[track_caller]
fn check_app(text: &str, expected: &[&str]) {
    assert_eq!(lines(&said("", text)), expected, "{:#?}", said("", text));
}

#[track_caller]
fn check_manifest(text: &str, expected: &[&str]) {
    let found = match parse_manifest("m", text) {
        Ok((_, warnings)) => warnings,
        Err(mistakes) => mistakes.0,
    };
    assert_eq!(lines(&found), expected, "{found:#?}");
}

/// Every row is tried, so that one change shows all the rows it touches.
fn check_table<T: AsRef<str>>(table: &[(T, &[&str])], check: fn(&str, &[&str])) {
    let failed = table
        .iter()
        .map(|(text, expected)| (text.as_ref(), *expected))
        .filter(|(text, expected)| std::panic::catch_unwind(|| check(text, expected)).is_err());
    let failed: Vec<&str> = failed.map(|(text, _)| text).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

fn global(text: &str) -> Global {
    read_global(text).global
}

#[track_caller]
fn read_global(text: &str) -> GlobalFile {
    parse_global("config.toml", text).unwrap_or_else(|m| panic!("{m}")).0
}

#[track_caller]
fn app(text: &str) -> Workspace {
    parse_workspace("app", "app.toml", text).unwrap_or_else(|m| panic!("{m}")).0
}

#[track_caller]
fn manifest(text: &str) -> RoleManifest {
    parse_manifest("m", text).unwrap_or_else(|m| panic!("{m}")).0
}

fn with(extra: &str) -> String {
    // Above the first table, where plain keys belong.
    format!("{extra}\n{WORKSPACE}")
}

fn below(extra: &str) -> String {
    format!("{WORKSPACE}{extra}\n")
}

#[test]
fn mistakes_of_a_global_file() {
    let table: &[(&str, &[&str])] = &[
        ("", &[]),
        ("data_dir = \"/x\"", &[]),
        ("defualt_role = 1\ndirty_exit_polcy = \"ask\"", &["config.toml:2:1 config.unknown_field?"]),
        ("env = 3", &["config.toml:1:7 config.wrong_type"]),
        ("[claude]\nauth_forward = \"snyc\"", &["config.toml:2:16 config.unknown_value"]),
        ("[claude]\nauth_forward = \"oauth_token\"", &[]),
        ("[codex]\nauth_forward = \"oauth_token\"", &["config.toml:2:16 config.auth_mode"]),
        ("[codex]\nauth_foward = \"sync\"", &["config.toml:2:1 config.unknown_field"]),
        (
            "[github]\nauth_forward = \"oauth_token\"\n[github.env]\nGH_TOKN = \"x\"",
            &["config.toml:2:16 config.unknown_value", "config.toml:4:1 config.no_effect?"],
        ),
        (
            "[env]\nJACKIN = \"1\"\nA = \"b\"\nDOCKER_HOST = \"x\"",
            &["config.toml:2:1 config.reserved_env", "config.toml:4:1 config.reserved_env"],
        ),
        (
            "[env]\nA = 1\nB = { op = \"x\" }\nC = { }\nD = { value = \"x\", vaule = 1 }\n\"E=F\" = \"x\"",
            &[
                "config.toml:2:5 config.wrong_type",
                "config.toml:3:12 config.op_reference",
                "config.toml:4:1 config.missing_field",
                "config.toml:5:20 config.unknown_field",
                "config.toml:6:1 config.env_name",
            ],
        ),
        (
            "[env]\nA = \"op://v/i\"\nB = \"op://v//f\"\nC = \"op://v/i/${X}\"\nD = \"op://v/i/s/f?attribute=otp\"",
            &["config.toml:2:5 config.op_reference", "config.toml:3:5 config.op_reference", "config.toml:4:5 config.op_reference"],
        ),
        ("[env]\nA = \"x\\u0000\"", &["config.toml:2:5 config.env_value"]),
        ("[env]\nA = { op = \"op://a/b/c\", value = \"x\" }", &["config.toml:2:34 config.env_value"]),
        ("[roles.web]\ntrusted = true", &["config.toml:1:8 config.missing_field"]),
        (
            "[roles.web]\ngit = \"-x\"\n[roles.api]\ngit = \"ext::sh -c id\"\n[roles.ok]\ngit = \"git@host:a/b\"",
            &["config.toml:2:7 config.git_url", "config.toml:4:7 config.git_url"],
        ),
        ("[roles.acme.web]\ngit = \"https://h/x\"", &["config.toml:1:8 config.missing_field", "config.toml:1:13 config.role_key_quotes"]),
        ("[roles.Web]\ngit = \"https://h/x\"", &["config.toml:1:8 config.role_key?"]),
        (
            "[docker]\nprofile = \"loose\"\n[docker.grants]\nnetwork = \"opne\"\ndind = true\nmemory = 8",
            &[
                "config.toml:2:11 config.unknown_value",
                "config.toml:4:11 config.unknown_value",
                "config.toml:5:8 config.wrong_type",
                "config.toml:6:10 config.wrong_type",
            ],
        ),
        (
            "[docker.grants]\nmemory = \"1.5G\"\nmemory_reservation = \"1X\"\ncpus = 0\npids = 0\nnofile = -1",
            &[
                "config.toml:2:10 config.size",
                "config.toml:3:22 config.size",
                "config.toml:4:8 config.out_of_range",
                "config.toml:5:8 config.out_of_range",
                "config.toml:6:10 config.out_of_range",
            ],
        ),
        (
            "[docker.grants]\ncpus = nan\npids = 99999999999999999999\nmemory = \"9999999T\"",
            &["config.toml:2:8 config.out_of_range", "config.toml:3:8 config.out_of_range", "config.toml:4:10 config.size"],
        ),
        (
            "[docker.grants]\nmemory = \"1G\"\nmemory_reservation = \"2G\"\nuser = \"root\"\nsudo = true",
            &["config.toml:3:22 config.reservation_over_memory", "config.toml:4:8 config.user_and_sudo"],
        ),
        (
            "[docker.grants]\ncapabilities_add = [\"cap_sys_ptrace\", \"SYS_PTRAEC\"]\nallowed_hosts = [\"https://x\", \"a b\", \"ok\"]",
            &["config.toml:2:39 config.capability", "config.toml:3:18 config.host", "config.toml:3:31 config.host"],
        ),
        (
            "[docker.mounts]\na = { src = \"/a\", dst = \"/b\", isolation = \"clone\" }\nb = { src = \"x\", dst = \"/c/..\" }",
            &["config.toml:2:31 config.global_isolation"],
        ),
        (
            "[docker.mounts]\nb = { src = \"x\", dst = \"/c/..\" }\nc = { src = \"/a\" }\nd = 1",
            &["config.toml:3:1 config.missing_field", "config.toml:4:5 config.wrong_type"],
        ),
        (
            "[docker.mounts]\nb = { src = \"x\", dst = \"/c/..\" }",
            &["config.toml:2:13 config.mount_source", "config.toml:2:24 config.mount_target"],
        ),
        (
            "[docker.mounts]\na = { src = \"/a\", dst = \"/x\" }\n[docker.mounts.\"acme/*\"]\nb = { src = \"/b\", dst = \"/x/\" }",
            &["config.toml:4:25 config.global_mount_twice"],
        ),
        ("[docker.mounts.\"a/*\"]\na = { src = \"/a\", dst = \"/x\" }\n[docker.mounts.\"b/*\"]\nb = { src = \"/b\", dst = \"/x\" }", &[]),
        ("[docker.mounts.\"a/b/c\"]\na = { src = \"/a\", dst = \"/x\" }", &["config.toml:1:16 config.mount_scope"]),
        (
            "[runtime]\ndefault_backend = \"podman\"\ndefault_bakend = \"x\"",
            &["config.toml:2:19 config.backend?", "config.toml:3:1 config.unknown_field"],
        ),
        (
            "[telemetry]\nlevel = \"loud\"\ncategories = \"*\"",
            &["config.toml:2:9 config.unknown_value", "config.toml:3:14 config.wrong_type"],
        ),
        (
            "[binaries]\nmirror = \"https://m.example/a\"\n[binaries.mirrors]\ngrok = \"off\"\ncapsule = \"http://10.0.0.1:8080\"\nclaude = \"file:///srv/a mirror\"",
            &[],
        ),
        (
            "[binaries]\nmirror = \"ftp://m\"\n[binaries.mirrors]\namp = \"https://u:p@m\"\nvim = \"off\"\nkimi = \"https://m?x\"\nclaude = \"file://srv\"",
            &[
                "config.toml:2:10 config.mirror",
                "config.toml:4:7 config.mirror",
                "config.toml:5:1 config.unknown_field",
                "config.toml:6:8 config.mirror",
                "config.toml:7:10 config.mirror",
            ],
        ),
        ("[git]\ncoauthor_trailer = 1\nsign = true", &["config.toml:2:20 config.wrong_type", "config.toml:3:1 config.unknown_field"]),
        (
            "dirty_exit_policy = \"never\"\nrole_repo_refresh_ttl_seconds = -1",
            &["config.toml:1:21 config.unknown_value", "config.toml:2:33 config.out_of_range"],
        ),
        ("[agent]\n[[claude]]\nx = 1", &["config.toml:2:1 config.wrong_type"]),
        ("version = 9", &["config.toml:1:11 config.wrong_type"]),
        ("version = \"1\"\nenv = 3", &["config.toml:1:11 config.version"]),
        ("version = \"v1alpha10\"\nenv = 3", &["config.toml:1:11 config.version_too_new"]),
        ("version = \"v1beta1\"", &["config.toml:1:11 config.version_too_new"]),
        ("[env]\nü = \"x\" A = 1", &["config.toml:2:9 config.syntax"]),
        ("a = 1\na = 2", &["config.toml:2:1 config.syntax"]),
    ];
    check_table(table, check_global);
}

#[test]
fn mistakes_of_a_workspace_file() {
    let table: &[(String, &[&str])] = &[
        (with(""), &[]),
        (String::new(), &["app.toml:1:1 config.missing_field", "app.toml:1:1 config.missing_field"]),
        ("workdir = \"w\"\nmounts = []".to_owned(), &["app.toml:1:11 config.workdir", "app.toml:1:11 config.no_mounts"]),
        ("workdir = \"\"\n[[mounts]]\nsrc = \"/a\"".to_owned(), &["app.toml:1:11 config.empty", "app.toml:2:1 config.missing_field"]),
        ("workdir = \"/elsewhere\"\n[[mounts]]\nsrc = \"/a\"\ndst = \"/b\"".to_owned(), &["app.toml:1:11 config.workdir"]),
        ("workdir = \"/\"\n[[mounts]]\nsrc = \"/a\"\ndst = \"/b\"".to_owned(), &[]),
        ("workdir = \"/b/c/d\"\n[[mounts]]\nsrc = \"/a\"\ndst = \"/b\"".to_owned(), &[]),
        ("workdir = \"/bc\"\n[[mounts]]\nsrc = \"/a\"\ndst = \"/b\"".to_owned(), &["app.toml:1:11 config.workdir"]),
        (
            below(
                "[[mounts]]\nsrc = \"rel\"\ndst = \"rel\"\n[[mounts]]\nsrc = \"/a/./b\"\ndst = \"/x/..\"\n[[mounts]]\nsrc = \"~/x\"\ndst = \"/\"",
            ),
            &[
                "app.toml:6:7 config.mount_source",
                "app.toml:7:7 config.mount_target",
                "app.toml:9:7 config.mount_source",
                "app.toml:10:7 config.mount_target",
                "app.toml:13:7 config.mount_target",
            ],
        ),
        (below("[[mounts]]\nsrc = \"~user/x\"\ndst = \"/w/\""), &["app.toml:6:7 config.mount_source", "app.toml:7:7 config.mount_twice"]),
        (
            below("[[mounts]]\nsrc = \"/x\"\ndst = \"/x\"\nreadonyl = true\nnote = 1"),
            &["app.toml:8:1 config.unknown_field", "app.toml:9:1 config.unknown_field?"],
        ),
        (
            with("default_role = \"web\"\nallowed_roles = [\"wep\"]"),
            &["app.toml:1:16 config.role_not_allowed", "app.toml:1:16 config.unknown_role?"],
        ),
        (with("default_role = \"agent-smiht\""), &["app.toml:1:16 config.unknown_role?"]),
        (with("default_agent = \"cluade\""), &["app.toml:1:17 config.unknown_value"]),
        (with("defualt_role = \"x\"\nmy_note = \"x\""), &["app.toml:1:1 config.unknown_field?"]),
        (
            below(
                "isolation = \"worktree\"\n[[mounts]]\nsrc = \"/b\"\ndst = \"/w/b/c\"\nisolation = \"clone\"\n[[mounts]]\nsrc = \"/src/\"\ndst = \"/z\"\nisolation = \"worktree\"\nreadonly = true",
            ),
            &["app.toml:13:13 config.isolation_readonly", "app.toml:9:13 config.isolation_nested", "app.toml:11:7 config.worktree_twice"],
        ),
        (
            below("[roles.web]\nmodel = 1\n[roles.web.codex]\nauth_forward = \"oauth_token\"\n[roles.web.env]\nJACKIN_ROLE = \"x\""),
            &["app.toml:6:1 config.unknown_field", "app.toml:8:16 config.auth_mode", "app.toml:10:1 config.reserved_env"],
        ),
        (below("[keep_awake]\nenabeld = true"), &["app.toml:6:1 config.unknown_field"]),
        (below("[docker.mounts]\nx = { src = \"/\", dst = \"/\" }"), &["app.toml:5:9 config.unknown_field"]),
        (
            below("[[instance]]\nname = \"A\"\nagnet = \"codex\"\n[[instance]]\nrole = \"x/y\""),
            &["app.toml:6:8 config.instance_name", "app.toml:7:1 config.unknown_field", "app.toml:8:1 config.missing_field"],
        ),
        (
            below("[[instance]]\nname = \"a\"\n[[instance]]\nname = \"a\"\nrole = \"X\"\n[instance.docker]\nprofile = \"x\""),
            &["app.toml:11:11 config.unknown_value"],
        ),
        (
            below("[[instance]]\nname = \"a\"\n[[instance]]\nname = \"a\"\nrole = \"X\""),
            &["app.toml:6:8 config.instance_role", "app.toml:8:8 config.instance_twice", "app.toml:9:8 config.role_key"],
        ),
        (below("[env]\nGIT = { op = \"op://a/b/c\", on_demand = \"yes\" }"), &["app.toml:6:40 config.wrong_type"]),
        (format!("version = \"v1alpha9\"\n{WORKSPACE}"), &["app.toml:1:11 config.version_too_new"]),
        (format!("op_account = \"a\"\nversion = \"v1alpha5\"\n{WORKSPACE}"), &["app.toml:1:1 config.no_effect?"]),
        (format!("op_account = 3\n{WORKSPACE}"), &["app.toml:1:14 config.wrong_type"]),
    ];
    check_table(table, check_app);
}

#[test]
fn mistakes_of_a_manifest() {
    let table: &[(&str, &[&str])] = &[
        ("version = \"v1alpha6\"\ndockerfile = \"Dockerfile\"\n[claude]", &[]),
        ("dockerfile = \"Dockerfile\"", &["m:1:1 role.missing_field"]),
        ("[claude]", &["m:1:1 role.missing_field"]),
        (
            "dockerfile = \"../D\"\n[claude]\n[hooks]\nsource = \"/etc/x\"\npreflight = \"./.git/x\"\nsetup = \"x\"",
            &["m:1:14 role.path", "m:4:10 role.path", "m:5:13 role.path", "m:6:1 role.unknown_field"],
        ),
        ("dockerfile = \"D\"\nagents = []", &["m:2:10 role.no_agents"]),
        (
            "dockerfile = \"D\"\nagents = [\"codex\", \"cluade\", \"codex\"]\n[codex]\n[amp]\nmodel = \"x\"",
            &["m:2:20 role.unknown_value", "m:2:30 role.agent_twice?", "m:4:2 role.agent_unlisted?", "m:5:1 role.unknown_field"],
        ),
        ("dockerfile = \"D\"\nagents = [\"codex\", \"grok\"]\n[codex]", &["m:2:20 role.agent_table"]),
        (
            "dockerfile = \"D\"\nagents = [\"opencode\", \"kimi\"]\n[opencode]\n[kimi]",
            &["m:2:11 role.version_too_old", "m:2:23 role.version_too_old", "m:3:2 role.version_too_old", "m:4:2 role.version_too_old"],
        ),
        (
            "version = \"v1alpha5\"\ndockerfile = \"D\"\n[claude]\n[claude.providers.zai]\nmodel = \"glm\"\n[docker]\ndind = \"none\"",
            &["m:6:2 role.version_too_old"],
        ),
        (
            "version = \"v1alpha4\"\ndockerfile = \"D\"\n[claude.providers.zia]\nmodel = \"glm\"",
            &["m:3:9 role.version_too_old", "m:3:19 role.provider?"],
        ),
        ("version = \"v1alpha7\"\nx = 1", &["m:1:11 role.version_too_new"]),
        (
            "dockerfile = \"D\"\npublished_image = \"a b\"\n[claude]\nplugin = []\n[[claude.marketplaces]]\nsparse = [\"x\"]\n[identity]",
            &["m:2:19 role.image_name", "m:4:1 role.unknown_field", "m:5:1 role.missing_field", "m:7:2 role.missing_field"],
        ),
        (
            "dockerfile = \"D\"\n[claude]\n[env.1A]\ndefault = \"\"\n[env.JACKIN]\ndefault = \"\"\n[env.B]\noptions = [\"x\"]\nprompt = \"?\"",
            &[
                "m:3:6 role.env_name",
                "m:5:6 role.reserved_env",
                "m:7:6 role.missing_field",
                "m:8:11 role.options",
                "m:9:10 role.no_effect?",
            ],
        ),
        (
            "dockerfile = \"D\"\n[claude]\n[env.A]\ninteractive = true\nprompt = \"${env.B} ${env.C} ${HOME}\"\ndepends_on = [\"env.A\", \"B\", \"env.D\", \"env.D\"]\n[env.B]\ndefault = \"x\"",
            &[
                "m:5:10 role.undeclared_env",
                "m:5:10 role.undeclared_env",
                "m:6:14 role.undeclared_env",
                "m:6:15 role.depends_on",
                "m:6:24 role.depends_on",
                "m:6:38 role.depends_on",
            ],
        ),
        ("dockerfile = \"D\"\n[claude]\n[env.A]\ninteractive = true\noptions = [\"${env.A}\"]", &["m:5:11 role.options"]),
    ];
    check_table(table, check_manifest);
}

#[test]
fn a_circle_of_variables_is_shown_as_a_path() {
    let variable = |name: &str, on: &str| format!("[env.{name}]\ndefault = \"\"\ndepends_on = [\"env.{on}\"]\n");
    let text =
        format!("dockerfile = \"D\"\n[claude]\n{}{}{}{}", variable("A", "B"), variable("B", "C"), variable("C", "D"), variable("D", "B"));
    let mistakes = parse_manifest("m", &text).unwrap_err().0;
    assert_eq!(lines(&mistakes), ["m:6:6 role.env_cycle"]);
    assert_eq!(mistakes[0].detail, "B -> C -> D -> B");
}

#[test]
fn a_long_chain_of_variables_does_not_exhaust_the_stack() {
    let mut text = "dockerfile = \"D\"\n[claude]\n[env.V0]\ndefault = \"x\"\n".to_owned();
    for i in 1..5000 {
        text.push_str(&format!("[env.V{i}]\ndefault = \"${{env.V{p}}}\"\ndepends_on = [\"env.V{p}\"]\n", p = i - 1));
    }
    let declared = manifest(&text).env;
    let variables = prompts::resolve(&declared, &BTreeMap::new(), &BTreeMap::new());
    let Some(prompts::State::Default(value)) = variables.last().map(|v| v.state.clone()) else { panic!() };
    assert_eq!(value.expose_secret(), "x");
}

#[test]
fn a_diagnostic_names_what_where_and_the_way_out() {
    let found = said("", &with("default_agent = \"cluade\""));
    let d = &found[0];
    assert_eq!(d.summary, "A field has a value that is not known");
    assert_eq!(d.detail, "`default_agent` is `cluade`");
    assert!(d.help.as_deref().unwrap().starts_with("did you mean `claude`?"));
    let span = d.span.clone().unwrap();
    assert_eq!((span.length, span.source_line.as_str()), (8, "default_agent = \"cluade\""));
}

#[test]
fn columns_and_lengths_count_characters() {
    let found = said("", "workdir = \"/w\" # ääää\r\n[[mounts]]\r\nsrc = \"/ü\"\r\ndst = \"/w\"\r\nisolation = \"öö\"\r\n");
    let span = found[0].span.clone().unwrap();
    assert_eq!((span.line, span.column, span.length, span.source_line.as_str()), (5, 13, 4, "isolation = \"öö\""));
    let found = said("", "workdir = \"/w\"\nmounts = [{ src = \"/äöü\", dst = \"/w\", isolation = \"x\" }]");
    assert_eq!((found[0].span.as_ref().unwrap().column, found[0].span.as_ref().unwrap().length), (51, 3));
}

#[test]
fn not_utf8_is_one_diagnostic_with_its_place() {
    let mut files = sources("", WORKSPACE);
    files[1].bytes = b"workdir = \"/w\"\n# \xc3\xa4 \xff\n".to_vec();
    let mistakes = load(&files).unwrap_err().0;
    assert_eq!(lines(&mistakes), ["app.toml:2:5 config.encoding"]);
    assert!(mistakes[0].detail.contains("byte 20 (0xff)"), "{}", mistakes[0].detail);
}

#[test]
fn mistakes_of_all_files_come_at_once() {
    let found = said("[git]\nx = 1", "workdir = 1");
    assert_eq!(
        lines(&found),
        ["config.toml:2:1 config.unknown_field", "app.toml:1:1 config.missing_field", "app.toml:1:11 config.wrong_type"]
    );
}

#[test]
fn a_large_file_is_refused_and_a_crowded_one_is_cut_short() {
    let huge = " ".repeat(reader::LARGEST_FILE + 1);
    check_global(&huge, &["config.toml:1:1 config.too_large"]);
    let crowded: String = (0..5000).map(|i| format!("k{i} = 1\n")).collect();
    let found = said(&format!("[git]\n{crowded}"), WORKSPACE);
    assert_eq!(found.len(), 101);
    assert_eq!(found.last().unwrap().code, "config.too_many");
    // One line: without an index, columns alone would take minutes.
    let wide: String = (0..20_000).map(|i| format!("K{i} = \"ä\", ")).collect();
    let started = std::time::Instant::now();
    assert_eq!(global(&format!("env = {{ {} }}", wide.trim_end_matches(", "))).env.len(), 20_000);
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

#[test]
fn deep_nesting_is_a_diagnostic() {
    for text in ["a = [".to_owned() + &"[".repeat(100_000), "a.".repeat(100_000) + "a = 1", format!("[{}a]", "a.".repeat(100_000))] {
        assert_eq!(said(&text, WORKSPACE)[0].code, "config.syntax");
    }
}

const CANARY: &str = "canary-4f1c";

fn everything_said(files: &[SourceFile]) -> String {
    let mut out = String::new();
    let all = match load(files) {
        Ok((mut config, warnings)) => {
            // The URL itself is what git is given; only its showing is the matter here.
            config.global.roles.values_mut().for_each(|role| role.git.value.clear());
            out.push_str(&format!("{config:?}"));
            warnings
        }
        Err(mistakes) => mistakes.0,
    };
    for d in all {
        out.push_str(&format!("{d:?}\n{d}\n{}\n", serde_json::to_string(&d).unwrap()));
    }
    out
}

#[test]
fn a_literal_env_value_is_never_repeated() {
    let table = [
        format!("[env]\nTOKEN = \"{CANARY}\" # once {CANARY}\nJACKIN = \"{CANARY}\"\n"),
        format!("[env]\nTOKEN = {{ value = \"{CANARY}\", vlaue = \"{CANARY}\", on_demand = \"{CANARY}\" }}\n"),
        format!("[env]\nTOKEN = [\"{CANARY}\"]\nB = {{ op = \"{CANARY}\" }}\n"),
        format!("[env]\nTOKEN = {{ x = \"{CANARY}\" }}\n[env.y]\nz = \"{CANARY}\"\n"),
        format!("[env]\nTOKEN = {{ v.alue = \"{CANARY}\", w.x.y = \"{CANARY}\", z = [{{ k = \"{CANARY}\" }}] }}\n"),
        format!("[[env]]\nTOKEN = \"{CANARY}\"\n[env.a.b.c]\nd = \"{CANARY}\" # {CANARY}\n"),
        format!("[env.a.b.c]\nd = \"{CANARY}\"\nd = 1\n"),
        format!("env = {{ {} Z = \"$Z\" }}", (0..200).map(|i| format!("K{i} = \"{CANARY}\", ")).collect::<String>()),
        format!("env = {{ JACKIN = \"x\", {} Z = 1 }}", (0..200).map(|i| format!("ä{i} = \"{CANARY}\", ")).collect::<String>()),
        format!("[env]\nTOKEN = \"{CANARY}\nB = 1\n"),
        format!("[env]\nTOKEN = \"\"\"\n{CANARY}\n{CANARY}=\n\\q{CANARY}\"\"\"\n"),
        format!("[env]\nTOKEN = \"{CANARY}\"\nTOKEN = \"{CANARY}\"\n"),
        format!("[env]\nTOKEN {CANARY}\n"),
        format!("[env]\nTOKEN = {CANARY}\n"),
        format!("[git]\nTOKEN = \"{CANARY}\"\n"),
        format!("env = \"{CANARY}\"\n"),
        format!("env = {{ T = \"{CANARY}\", JACKIN = \"{CANARY}\" }}\n"),
        format!("roles = {{ web = {{ env = {{ T = \"{CANARY}\" }}, typo = 1 }} }}\n"),
        format!("[github.env]\nGH_TOKN = \"{CANARY}\"\n"),
        format!("[roles.web]\ngit = \"https://me:{CANARY}@host/x\"\ntrusted = 1\n"),
        format!("[env]\nTOKEN = \"{CANARY}\\u0000\"\n"),
        format!("[env]\nTOKEN = '''{CANARY}'''\nX = \"$A\" Y = \"{CANARY}\"\n"),
    ];
    for text in table {
        let said = everything_said(&sources(&text, WORKSPACE));
        assert!(!said.contains(CANARY), "{text}\n{said}");
    }
    // A place of a masked value still fits its shown line.
    let found = said(&format!("[env]\nT = \"{CANARY}\\u0000\""), WORKSPACE);
    let span = found[0].span.clone().unwrap();
    assert_eq!((span.column, span.length, span.source_line.as_str()), (5, 3, "T = \"…\""));
}

#[test]
fn what_a_terminal_would_act_on_is_not_repeated() {
    let found = said("[git]\n\"\\u001b[31m\\u202e\" = 1\n", WORKSPACE);
    assert!(!format!("{:?}", found).contains("\\u{1b}") && !found[0].detail.contains(['\u{1b}', '\u{202e}']), "{found:?}");
}

#[test]
fn versions_are_ordered() {
    let ascending = ["v1alpha1", "v1alpha2", "v1alpha10", "v1beta1", "v1", "v2alpha1"].map(|v| Version::parse(v).unwrap());
    assert!(ascending.is_sorted() && version::LEGACY < ascending[0]);
    for version in ascending {
        assert_eq!(Version::parse(&version.to_string()), Some(version));
    }
    for bad in ["", "1", "v", "v0", "v01", "v1alpha", "v1alpha0", "v1alpha01", "v1gamma1", "V1", "v1 ", "v-1", "v1alpha+1", "v99999999999"]
    {
        assert_eq!(Version::parse(bad), None, "{bad}");
    }
}

#[test]
fn every_version_of_every_file_is_read() {
    for n in 1..=9 {
        read_global(&format!("version = \"v1alpha{n}\"\n[env]\nA = \"b\""));
    }
    for n in 1..=8 {
        app(&format!("version = \"v1alpha{n}\"\n{WORKSPACE}"));
    }
    for n in 1..=6 {
        manifest(&format!("version = \"v1alpha{n}\"\ndockerfile = \"D\"\n[claude]"));
    }
}

#[test]
fn op_account_moves_onto_references() {
    let text = "# mine\nop_account = \"acc\" # gone\nworkdir = \"/w\" # kept\n[[mounts]]\nsrc = \"/s\"\ndst = \"/w\"\n\
        [env]\nA = { op = \"op://a/b/c\", path = \"p\" }\nB = { op = \"op://a/b/c\", account = \"own\" }\nC = \"op://a/b/c\"\nD = \"text\"\n\
        [github.env.GH_TOKEN]\nop = \"op://a/b/c\"\n[roles.web.env]\nE = { op = \"op://a/b/c\" }\n[roles.web.github.env]\nGH_TOKEN = { value = \"op://a/b/c\" }\n";
    let accounts = |workspace: &Workspace| -> Vec<Option<String>> {
        let web = &workspace.roles["web"];
        [&workspace.env, &workspace.github.env, &web.env, &web.github.env]
            .into_iter()
            .flat_map(|map| map.values())
            .map(|entry| match &entry.value {
                EnvValue::Op { account, .. } => account.clone(),
                EnvValue::Literal { .. } | EnvValue::Host { .. } => None,
            })
            .collect()
    };
    let expected = ["acc", "own", "acc", "", "acc", "acc", "acc"].map(|a| (!a.is_empty()).then(|| a.to_owned()));
    assert_eq!(accounts(&app(text)), expected);
    let migrated = migrate_workspace_text(text).unwrap();
    assert_eq!(accounts(&app(&migrated)), expected, "{migrated}");
    assert!(migrated.starts_with("version = \"v1alpha8\"\n# mine\nworkdir = \"/w\" # kept\n"), "{migrated}");
    assert!(!migrated.contains("op_account"));
    assert_eq!(migrate_workspace_text(&migrated), None);
    assert_eq!(migrate_workspace_text(&format!("op_account = 3\n{WORKSPACE}")), None);
    // From v1alpha5 on the key means nothing.
    assert_eq!(accounts(&app(&format!("version = \"v1alpha5\"\n{text}")))[0], None);
}

#[test]
fn stamping_keeps_every_other_byte() {
    let table = [
        ("", "version = \"v1alpha9\"\n"),
        ("# top\n\n[env] # e\nA = 'b'", "version = \"v1alpha9\"\n# top\n\n[env] # e\nA = 'b'"),
        ("# top\nversion = 'v1alpha1' # why\r\n[env]\r\n", "# top\nversion = \"v1alpha9\" # why\r\n[env]\r\n"),
        ("a = 1\n  version = \"v1alpha2\" # why\nb = 2\n", "version = \"v1alpha9\" # why\na = 1\nb = 2\n"),
        ("a = 1\nversion = \"v1alpha2\"", "version = \"v1alpha9\"\na = 1\n"),
    ];
    for (text, expected) in table {
        assert_eq!(migrate_global_text(text).as_deref(), Some(expected));
        assert_eq!(migrate_global_text(expected), None);
    }
    for untouched in ["version = \"v1alpha10\"", "version = 3", "not toml", "version = \"x\""] {
        assert_eq!(migrate_global_text(untouched), None);
    }
    assert_eq!(migrate_role_text("dockerfile = \"D\"").as_deref(), Some("version = \"v1alpha6\"\ndockerfile = \"D\""));
}

const EMBEDDED: &str = "# mine\n[env]\nA = \"b\"\n\n[workspaces.app]\nworkdir = \"/w\"\nop_account = \"acc\"\n[[workspaces.app.mounts]]\nsrc = \"/src\"\ndst = \"/w\"\n[workspaces.app.env]\nT = { op = \"op://a/b/c\" }\n[workspaces.\"my app\"]\nworkdir = \"/w\"\nmounts = [{ src = \"/s\", dst = \"/w\" }]\n";

#[test]
fn embedded_workspaces_are_read_and_split() {
    let read = read_global(EMBEDDED);
    let names: Vec<&str> = read.embedded.iter().map(|w| w.name.as_str()).collect();
    assert_eq!(names, ["app", "my app"]);
    let split = split_global_text(EMBEDDED).unwrap().unwrap();
    assert_eq!(split.global, "version = \"v1alpha9\"\n# mine\n[env]\nA = \"b\"\n");
    let alone = app(&split.workspaces["app"]);
    for workspace in [&alone, &read.embedded[0]] {
        assert!(matches!(&workspace.env["T"].value, EnvValue::Op { account: Some(a), .. } if a == "acc"));
        assert_eq!(workspace.mounts[0].src.value, "/src");
    }
    assert!(split.workspaces["app"].starts_with("version = \"v1alpha8\"\n"));
    assert_eq!(app(&split.workspaces["my app"]).mounts.len(), 1);
    assert_eq!(split_global_text(&split.global), Ok(None));
    let bad = split_global_text("[workspaces.\"a/b\"]\nworkdir = \"/\"").unwrap_err();
    assert_eq!(bad.code, "config.workspace_name");
}

#[test]
fn a_workspace_split_before_may_still_be_embedded() {
    let split = split_global_text(EMBEDDED).unwrap().unwrap();
    let own = &split.workspaces["app"];
    assert_eq!(lines(&said(EMBEDDED, own)), Vec::<String>::new());
    assert!(same_workspace(own, &format!("# a comment\n{own}")));
    let edited = own.replace("/src", "/other");
    assert_eq!(lines(&said(EMBEDDED, &edited)), ["config.toml:6:11 config.workspace_twice"]);
    // The same in a stamped file.
    let stamped = format!("version = \"v1alpha9\"\n{EMBEDDED}");
    let (config, _) = load(&sources(&stamped, own)).unwrap();
    assert_eq!(config.workspaces.len(), 2);
}

#[test]
fn workspace_names() {
    for name in ["app", "my app", "ünïcode", "a.b", "...", "CON"] {
        assert_eq!(validate::workspace_name_problem(name), None, "{name}");
    }
    for name in ["", ".", "..", "a/b", "a\\b", "a\nb"] {
        assert!(validate::workspace_name_problem(name).is_some(), "{name}");
    }
}

#[test]
fn env_values_have_four_forms() {
    let env = global(
        "[env]\nA = \"text\"\nB = \"$HOME\"\nC = \"${HOME}\"\nD = \"$A/x\"\nE = \"${A}${B}\"\nF = \"$1\"\n\
         G = { op = \"op://v/i/f\", path = \"V/I/F\", account = \"a\", on_demand = true }\nH = { value = \"$X\", on_demand = true }\nI = \"$\"\n",
    )
    .env;
    let literal = |name: &str| match &env[name].value {
        EnvValue::Literal { value, on_demand: false } => value.expose_secret().to_owned(),
        other => panic!("{other:?}"),
    };
    assert_eq!(["A", "D", "E", "F", "I"].map(literal), ["text", "$A/x", "${A}${B}", "$1", "$"]);
    for (name, host, demanded) in [("B", "HOME", false), ("C", "HOME", false), ("H", "X", true)] {
        assert!(matches!(&env[name].value, EnvValue::Host { name, on_demand } if name == host && *on_demand == demanded), "{name}");
    }
    let EnvValue::Op { reference, path, account, on_demand } = &env["G"].value else { panic!() };
    assert_eq!((reference.as_str(), path.as_deref(), account.as_deref(), *on_demand), ("op://v/i/f", Some("V/I/F"), Some("a"), true));
}

#[test]
fn sizes() {
    let good = [("1K", 1 << 10), ("2mb", 2 << 20), ("8G", 8 << 30), ("1TB", 1 << 40), ("512", 512), ("7b", 7)];
    for (text, bytes) in good {
        assert_eq!(docker::parse_size(text), Ok(bytes), "{text}");
    }
    for bad in ["", "G", "1.5G", "-1G", "1P", "0", "0G", "8388608T", "1GiB", "99999999999999999999"] {
        assert!(docker::parse_size(bad).is_err(), "{bad}");
    }
}

#[test]
fn what_is_sound_is_read_beside_what_is_not() {
    let mut files = sources("", WORKSPACE);
    let broken = ["workdir = ", "workdir = \"relative\"\n", "workdir = \"/w\"\ndefault_role = \"nobody\"\n"];
    for (at, text) in broken.into_iter().enumerate() {
        let kind = FileKind::Workspace { name: format!("broken{at}") };
        files.push(SourceFile { kind, shown: format!("broken{at}.toml"), bytes: text.as_bytes().to_vec() });
    }
    let (config, said) = load_sound(&files);
    assert_eq!(config.workspaces.keys().collect::<Vec<_>>(), ["app"]);
    for at in 0..broken.len() {
        let file = format!("broken{at}.toml");
        assert!(said.iter().any(|d| d.is_error() && d.span.as_ref().is_some_and(|span| span.file == file)), "{file}: {said:#?}");
    }
    // A role cannot be unknown while nobody can read which there are.
    let (config, said) =
        load_sound(&sources("roles = ", "workdir = \"/w\"\ndefault_role = \"nobody\"\n[[mounts]]\nsrc = \"/s\"\ndst = \"/w\"\n"));
    assert_eq!((config.workspaces.len(), lines(&said).len()), (1, 1), "{said:#?}");
}

#[test]
fn declared_instances() {
    assert!(app(WORKSPACE).declared().is_empty());
    let one = app(&with("default_role = \"acme/web\"\ndefault_agent = \"codex\"")).declared();
    assert_eq!((one[0].name.value.as_str(), one[0].role.value.as_str()), ("default", "acme/web"));
    assert_eq!(one[0].agent.as_ref().map(|a| a.value), Some(Agent::Codex));
    let two = app(&format!(
        "default_role = \"acme/web\"\n{WORKSPACE}[[instance]]\nname = \"a\"\n[[instance]]\nname = \"b\"\nrole = \"x/y\"\nagent = \"kimi\"\n\
         [instance.docker]\nprofile = \"locked\"\ngrants = {{ dind = \"rootless\" }}\n"
    ))
    .declared();
    assert_eq!(two.iter().map(|d| d.role.value.as_str()).collect::<Vec<_>>(), ["acme/web", "x/y"]);
    assert_eq!(two[1].docker.profile.as_ref().map(|p| p.value), Some(Profile::Locked));
    assert_eq!(two[1].docker.grants.dind.as_ref().map(|d| d.value), Some(Dind::Rootless));
}

#[test]
fn a_rendered_workspace_reads_back() {
    let new = NewWorkspace {
        workdir: "/work \"quoted\"/ü\\".to_owned(),
        mounts: vec![
            NewMount { src: "/a'b\"".to_owned(), dst: "/work \"quoted\"".to_owned(), readonly: true, isolation: Isolation::Shared },
            NewMount { src: "/c".to_owned(), dst: "/c".to_owned(), readonly: false, isolation: Isolation::Worktree },
        ],
        allowed_roles: vec!["agent-smith".to_owned(), "acme/web".to_owned()],
        default_role: Some("agent-smith".to_owned()),
        default_agent: Some(Agent::Kimi),
        git_pull_on_entry: true,
        keep_awake: true,
    };
    let text = render_workspace(&new);
    check_app(&text, &[]);
    let read = app(&text);
    assert_eq!(read.workdir.value, new.workdir);
    assert_eq!(
        read.mounts.iter().map(|m| (m.src.value.as_str(), m.readonly, m.isolation.value)).collect::<Vec<_>>(),
        [("/a'b\"", true, Isolation::Shared), ("/c", false, Isolation::Worktree)]
    );
    assert!(read.git_pull_on_entry && read.keep_awake && read.allowed_roles.len() == 2 && read.default_agent.is_some());
    assert_eq!(migrate_workspace_text(&text), None);
}

#[test]
fn builtin_roles_are_always_there() {
    let roles = global("[roles.agent-smith]\ngit = \"https://evil/x\"\ntrusted = false\n[roles.agent-smith.env]\nA = \"b\"").roles;
    assert_eq!(roles["agent-smith"].git.value, "https://github.com/jackin-project/jackin-agent-smith.git");
    assert!(roles["agent-smith"].trusted && roles["agent-smith"].env.contains_key("A") && roles["the-architect"].trusted);
    check_global("[roles.agent-smith]\ngit = \"https://evil/x\"", &["config.toml:1:8 config.builtin_role?"]);
}

// ---- layers ----

#[test]
fn env_layers_later_wins_and_says_from_where() {
    let global = global(
        "[env]\nA = \"1\"\nB = \"1\"\nC = \"1\"\nD = \"1\"\n[roles.\"x/y\"]\ngit = \"u\"\n[roles.\"x/y\".env]\nB = \"2\"\nC = \"2\"\nD = \"2\"",
    );
    let workspace = app(&below("[env]\nC = \"3\"\nD = \"3\"\n[roles.\"x/y\".env]\nD = \"4\""));
    let merged = layer::env(&global, Some(&workspace), "x/y");
    let layers: Vec<Layer> = merged.values().map(|c| c.layer).collect();
    assert_eq!(layers, [Layer::Global, Layer::Role, Layer::Workspace, Layer::WorkspaceRole]);
    assert_eq!(merged["D"].span.as_ref().unwrap().to_string(), "app.toml:9:5");
    assert_eq!(layer::env(&global, None, "z")["D"].layer, Layer::Global);
}

#[test]
fn github_and_policies_have_layers() {
    let global = global(
        "dirty_exit_policy = \"keep\"\n[github]\nauth_forward = \"token\"\n[github.env]\nGH_TOKEN = \"$T\"\nGH_HOST = \"a\"\n[runtime]\ndefault_backend = \"apple-container\"",
    );
    let workspace =
        app(&below("[github.env]\nGH_HOST = \"b\"\n[roles.r.github]\nauth_forward = \"ignore\"\n[runtime]\nbackend = \"docker\""));
    let github = layer::github(&global, Some(&workspace), "r");
    assert_eq!((github.mode.value, github.mode.layer, github.env.len()), (GithubMode::Ignore, Layer::WorkspaceRole, 2));
    assert_eq!(github.env["GH_HOST"].layer, Layer::Workspace);
    assert_eq!(layer::github(&global, Some(&workspace), "other").mode.value, GithubMode::Token);
    assert_eq!(layer::dirty_exit(&global, Some(&workspace)).value, DirtyExit::Keep);
    assert_eq!(layer::backend(&global, Some(&workspace)).value, "docker");
    assert_eq!(layer::role_refresh_seconds(&global), 60);
}

#[test]
fn global_mounts_merge_by_name() {
    let global = global(
        "[docker.mounts]\ncache = { src = \"/all\", dst = \"/c\" }\nkeys = { src = \"/k\", dst = \"/k\", readonly = true }\n\
         [docker.mounts.\"acme/*\"]\ncache = { src = \"/acme\", dst = \"/c\" }\n[docker.mounts.\"acme/web\"]\ncache = { src = \"/web\", dst = \"/c\" }\n",
    );
    let sources = |role: &str| layer::global_mounts(&global, role).iter().map(|m| m.src.value.clone()).collect::<Vec<_>>();
    assert_eq!(sources("acme/web"), ["/web", "/k"]);
    assert_eq!(sources("acme/api"), ["/acme", "/k"]);
    assert_eq!(sources("acme"), ["/all", "/k"]);
}

#[test]
fn a_global_mount_may_not_cover_a_workspace_mount() {
    let text = with("default_role = \"acme/web\"");
    let mounts = "[docker.mounts.\"acme/*\"]\nx = { src = \"/x\", dst = \"/w/\" }";
    assert_eq!(lines(&said(mounts, &text)), ["app.toml:5:7 config.mount_conflict"]);
    assert_eq!(lines(&said(&mounts.replace("acme", "other"), &text)), Vec::<String>::new());
}

fn granted(global_text: &str, workspace_text: &str, role: &str) -> Result<(layer::EffectiveGrants, Vec<Diagnostic>), Vec<Diagnostic>> {
    let global = global(global_text);
    let workspace = app(&below(workspace_text));
    let role = manifest(&format!("version = \"v1alpha6\"\ndockerfile = \"D\"\n[claude]\n{role}"));
    layer::grants(&global, Some(&workspace), None, None, &role.docker)
}

#[test]
fn docker_in_docker_is_on_by_default() {
    let (grants, warnings) = granted("", "", "").unwrap();
    assert_eq!((grants.profile, grants.dind, grants.network, grants.sudo), (Profile::Compat, Dind::Privileged, NetworkMode::Open, true));
    assert!(!grants.no_new_privileges && grants.memory.is_none() && grants.cap_add.is_empty() && warnings.is_empty());
}

#[test]
fn profile_precedence() {
    let global = global("[docker]\nprofile = \"locked\"");
    let workspace = app(&below("[docker]\nprofile = \"hardened\""));
    let instance = DockerPolicy { profile: Some(Located::bare(Profile::Standard)), grants: Grants::default() };
    let chosen = |w, i, f| layer::profile(&global, w, i, f).value;
    assert_eq!(chosen(None, None, None), Profile::Locked);
    assert_eq!(chosen(Some(&workspace), None, None), Profile::Hardened);
    assert_eq!(chosen(Some(&workspace), Some(&instance), None), Profile::Standard);
    assert_eq!(chosen(Some(&workspace), Some(&instance), Some(Profile::Compat)), Profile::Compat);
}

#[test]
fn grants_take_the_maximum_and_unions() {
    let (grants, _) = granted(
        "[docker]\nprofile = \"hardened\"\n[docker.grants]\nmemory = \"32G\"\npids = 1\nallowed_hosts = [\"b\"]\ncapabilities_add = [\"cap_sys_ptrace\"]",
        "[docker.grants]\nmemory = \"24G\"\nallowed_hosts = [\"a\"]\nsudo = true\ndind = \"rootless\"",
        "[docker]\nallowed_hosts = [\"c\"]\ncapabilities_add = [\"MKNOD\"]\n",
    )
    .unwrap();
    assert_eq!((grants.memory, grants.pids, grants.cpus), (Some(32 << 30), Some(2048), Some(4.0)));
    assert_eq!(grants.allowed_hosts, ["a", "b", "c"]);
    assert_eq!((grants.dind, grants.sudo, grants.no_new_privileges, grants.system_writes), (Dind::Rootless, true, false, false));
    assert_eq!(grants.cap_add.join(" "), "CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_ADMIN NET_RAW SETFCAP SETGID SETUID SYS_PTRACE");
    assert_eq!(grants.sources["memory"].1.as_ref().unwrap().to_string(), "config.toml:4:10");
    assert_eq!(grants.sources["dind"].0, Layer::Workspace);
}

#[test]
fn a_role_may_take_the_sidecar_away() {
    let (grants, _) = granted("", "[docker.grants]\ndind = \"privileged\"", "[docker]\ndind = \"none\"").unwrap();
    assert_eq!((grants.dind, grants.sources["dind"].0), (Dind::None, Layer::Manifest));
    let (grants, _) = granted("[docker]\nprofile = \"standard\"", "", "[docker]\ndind = \"rootless\"").unwrap();
    assert_eq!(grants.dind, Dind::Rootless);
}

#[test]
fn grants_that_cannot_hold() {
    let codes = |result: Result<_, Vec<Diagnostic>>| {
        result.map(|_: (layer::EffectiveGrants, _)| ()).unwrap_err().iter().map(|d| d.code.clone()).collect::<Vec<_>>()
    };
    assert_eq!(codes(granted("", "[docker.grants]\nuser = \"root\"", "")), ["config.user_and_sudo"]);
    assert!(granted("[docker]\nprofile = \"standard\"", "[docker.grants]\nuser = \"root\"", "").unwrap().0.user_root);
    assert_eq!(
        codes(granted("[docker]\nprofile = \"locked\"", "[docker.grants]\nmemory_reservation = \"5G\"", "")),
        ["config.reservation_over_memory"]
    );
    let unmet = granted("[docker]\nprofile = \"locked\"", "", "[docker]\nmin_profile = \"standard\"").unwrap_err();
    assert_eq!(unmet[0].code, "config.min_profile");
    assert!(unmet[0].detail.contains("config.toml:2:11"), "{}", unmet[0].detail);
    assert!(granted("[docker]\nprofile = \"standard\"", "", "[docker]\nmin_profile = \"standard\"").is_ok());
    let (_, warnings) = granted("[docker]\nprofile = \"hardened\"", "[docker.grants]\ndind = \"privileged\"", "").unwrap();
    assert_eq!(lines(&warnings), ["app.toml:6:8 config.privileged_sidecar?"]);
}

// ---- roles ----

#[test]
fn role_keys_and_urls() {
    for (text, key) in [("Agent-Smith", "agent-smith"), ("acme/Web-1", "acme/web-1"), ("acme/jk-x", "acme/jk-x"), ("9", "9")] {
        assert_eq!(RoleKey::parse(text).unwrap().to_string(), key);
    }
    for bad in ["", "/", "a/", "/a", "a/b/c", "a_b", "a.b", "jk-abc", "a b", "ä", "-x", "../x", "a/-/b"] {
        assert_eq!(RoleKey::parse(bad).unwrap_err().code, "role.key", "{bad}");
    }
    let url = |key: &str| RoleKey::parse(key).unwrap().derived_url();
    assert_eq!(url("acme/web").as_deref(), Some("https://github.com/acme/jackin-web.git"));
    assert_eq!(url("acme/jackin-web").as_deref(), Some("https://github.com/acme/jackin-web.git"));
    assert_eq!(url("web"), None);
    assert_eq!(clone_url("git@github.com:a/b.git"), "https://github.com/a/b.git");
    assert_eq!(clone_url("ssh://git@github.com/a/b"), "https://github.com/a/b");
    assert_eq!(clone_url("git@gitlab.com:a/b"), "git@gitlab.com:a/b");
    assert_eq!(shown_url("https://me:secret@h/a/b?token=x#y"), "https://h/a/b");
    assert_eq!(shown_url("/srv/a?b"), "/srv/a?b");
    for same in ["https://github.com/A/b.git", "git@github.com:a/b", "ssh://x@other:22/a/b/", "https://u:p@github.com/a/b?x"] {
        assert_eq!(url_identity(same), "a/b", "{same}");
    }
    for good in ["https://h/x", "git@h:a/b", "/srv/x", "file:///x", "ssh://[::1]/x", "C:/x"] {
        assert_eq!(git_url_problem(good), None, "{good}");
    }
    for bad in ["", "-u", "ext::sh", "fd::3", "a b", "https://h/\n"] {
        assert!(git_url_problem(bad).is_some(), "{bad}");
    }
}

#[track_caller]
fn check_from(text: &str, expected: Result<&str, &str>) {
    let found = check_dockerfile("D", text);
    let shown = found.as_ref().map(|c| c.image()).map_err(|d| {
        let span = d.span.as_ref().unwrap();
        format!("{}:{} {}", span.line, span.column, d.code)
    });
    assert_eq!(shown.as_deref().map_err(String::as_str), expected, "{text}\n{found:?}");
}

#[test]
fn the_last_from_is_the_construct() {
    let digest = format!("sha256:{}", "a".repeat(64));
    let good = [
        "FROM projectjackin/construct:0.4-trixie",
        "\u{feff}from projectjackin/construct:0.4-trixie as base",
        "# FROM x\nARG A=1\nFROM --platform=linux/amd64 rust:1 AS build\nRUN x \\\n# FROM a comment\n\n  FROM inside\nFROM \\\n  projectjackin/construct:0.4-trixie",
        "RUN <<EOF\nFROM busybox\nEOF\nFROM projectjackin/construct:0.4-trixie\nRUN cat <<-'X' <<Y\n\tFROM busybox\n\tX\nFROM busybox\nY\nCOPY a b\n",
        "# escape=`\nFROM x\nRUN a `\n  FROM y\nFROM projectjackin/construct:0.4-trixie\r\n",
    ];
    for text in good {
        check_from(text, Ok("projectjackin/construct:0.4-trixie"));
    }
    let pinned = format!("projectjackin/construct:0.4-trixie@{digest}");
    check_from(&format!("FROM {pinned} AS x"), Ok(&pinned));
    let bad = [
        ("", "1:1 role.construct"),
        ("# FROM projectjackin/construct:0.4-trixie", "1:1 role.construct"),
        ("FROM", "1:1 role.construct"),
        ("FROM --platform=linux/amd64 projectjackin/construct:0.4-trixie", "1:6 role.construct"),
        ("FROM debian:trixie", "1:6 role.construct"),
        ("FROM docker.io/projectjackin/construct:0.4-trixie", "1:6 role.construct"),
        ("FROM projectjackin/construct:trixie", "1:6 role.construct_pin"),
        ("FROM projectjackin/construct:-trixie", "1:6 role.construct_pin"),
        ("FROM projectjackin/construct:latest", "1:6 role.construct_pin"),
        ("FROM projectjackin/construct", "1:6 role.construct_pin"),
        ("FROM projectjackin/construct:0.4-trixie@sha256:abc", "1:6 role.construct"),
        ("ARG V=0.4\nFROM projectjackin/construct:${V}-trixie", "2:6 role.construct"),
        ("FROM projectjackin/construct:0.4-trixie AS a\nFROM a", "2:6 role.construct"),
        ("FROM projectjackin/construct:0.4-trixie b", "1:1 role.dockerfile_syntax"),
        ("RUN <<EOF\nFROM projectjackin/construct:0.4-trixie", "1:1 role.dockerfile_syntax"),
        ("<html>", "1:1 role.dockerfile_syntax"),
    ];
    for (text, expected) in bad {
        check_from(text, Err(expected));
    }
}

#[test]
fn overriding_the_construct_keeps_all_else() {
    let text = "# FROM projectjackin/construct:0-trixie\nfrom --platform=x projectjackin/construct:1-trixie AS a\nFROM rust\nFROM \\\n projectjackin/construct:2-trixie@sha256:00 AS b # x\n";
    // `# x` makes that FROM malformed, so nothing is touched.
    assert_eq!(override_construct(text, "local/c:1"), text);
    let text = text.replace(" # x", "");
    assert_eq!(
        override_construct(&text, "local/c:1"),
        "# FROM projectjackin/construct:0-trixie\nfrom --platform=x local/c:1 AS a\nFROM rust\nFROM \\\n local/c:1 AS b\n"
    );
}

fn snapshot(files: &[(&str, &str)]) -> RoleSnapshot {
    RoleSnapshot {
        key: "acme/web".to_owned(),
        url: "https://github.com/acme/jackin-web.git".to_owned(),
        elsewhere: false,
        branch: None,
        cache: "/roles/acme/web".to_owned(),
        commit: Some("0".repeat(40)),
        checked_out: None,
        dirty: Vec::new(),
        tree: files.iter().map(|(path, _)| ((*path).to_owned(), TreeKind::File)).collect(),
        files: files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect(),
        problem: None,
    }
}

const FROM: &str = "FROM projectjackin/construct:0.1-trixie\n";
const HOOKED: &str = "dockerfile = \"./docker/Dockerfile\"\n[claude]\n[hooks]\nsource = \"hooks/source.sh\"\n";

#[track_caller]
fn check_repo(snapshot: &RoleSnapshot, expected: &[&str]) {
    let found = match check_role(snapshot) {
        Ok(checked) => checked.warnings,
        Err(mistakes) => mistakes,
    };
    assert_eq!(lines(&found), expected, "{found:#?}");
    assert!(found.iter().all(|d| d.help.is_some() && d.address.as_deref() == Some("role-repo/acme/web")), "{found:#?}");
}

#[test]
fn the_contract_of_a_role_repo() {
    let sound = snapshot(&[("jackin.role.toml", HOOKED), ("docker/Dockerfile", FROM), ("hooks/source.sh", "true\n")]);
    assert_eq!(check_role(&sound).unwrap().construct.tag, "0.1-trixie");
    let place = "acme/web/jackin.role.toml";
    let change = |edit: &dyn Fn(&mut RoleSnapshot)| {
        let mut changed = sound.clone();
        edit(&mut changed);
        changed
    };
    check_repo(&change(&|s| s.dirty = vec!["Dockerfile".to_owned()]), &["- role.dirty_cache"]);
    check_repo(
        &change(&|s| {
            s.tree.remove("jackin.role.toml");
        }),
        &["- role.no_manifest"],
    );
    check_repo(
        &change(&|s| {
            s.tree.remove("hooks/source.sh");
        }),
        &[&format!("{place}:4:10 role.path")],
    );
    check_repo(&change(&|s| drop(s.files.remove("hooks/source.sh"))), &["- role.encoding"]);
    check_repo(
        &change(&|s| drop(s.files.insert("hooks/source.sh".to_owned(), " \n".to_owned()))),
        &[&format!("{place}:4:10 role.empty_hook")],
    );
    check_repo(
        &change(&|s| {
            s.tree.insert("README".to_owned(), TreeKind::Symlink);
        }),
        &["- role.symlink"],
    );
    check_repo(
        &change(&|s| {
            s.tree.insert("vendor".to_owned(), TreeKind::Submodule);
        }),
        &["- role.submodule?"],
    );
    check_repo(
        &change(&|s| drop(s.files.insert("docker/Dockerfile".to_owned(), "FROM x".to_owned()))),
        &["acme/web/./docker/Dockerfile:1:6 role.construct"],
    );
    check_repo(
        &change(&|s| {
            s.tree.insert("hooks/source.sh".to_owned(), TreeKind::Symlink);
        }),
        &["- role.symlink", &format!("{place}:4:10 role.path")],
    );
    // A link above the file leads out of the repo as well as a link itself does.
    check_repo(
        &change(&|s| {
            s.tree.remove("docker/Dockerfile");
            s.tree.insert("docker".to_owned(), TreeKind::Symlink);
        }),
        &["- role.symlink", &format!("{place}:1:14 role.path")],
    );
    check_repo(
        &change(&|s| {
            s.tree.insert("docker/Dockerfile/x".to_owned(), TreeKind::File);
            s.tree.remove("docker/Dockerfile");
        }),
        &[&format!("{place}:1:14 role.path")],
    );
}

#[test]
fn a_role_that_could_not_be_pinned_is_explained() {
    let problems = [
        (RoleProblem::Unknown, "role.unknown"),
        (RoleProblem::CloneFailed { message: "fatal: unable to access 'https://u:canary@h/x/': no\n\n".to_owned() }, "role.clone_failed"),
        (RoleProblem::FetchFailed { message: String::new() }, "role.fetch_failed"),
        (RoleProblem::ForeignOrigin { found: "https://u:canary@h/x".to_owned() }, "role.foreign_origin"),
        (RoleProblem::NoCommit, "role.no_commit"),
        (RoleProblem::NoSuchBranch { branch: "b".to_owned() }, "role.no_such_branch"),
        (RoleProblem::NotARepository { message: "x".to_owned() }, "role.not_a_repository"),
        (RoleProblem::NotCached, "role.not_cached"),
    ];
    for (problem, code) in problems {
        let mut broken = snapshot(&[]);
        broken.problem = Some(problem);
        check_repo(&broken, &[&format!("- {code}")]);
        assert!(!format!("{:?}", check_role(&broken)).contains("canary"));
    }
}

// ---- prompts ----

const ASKING: &str = "dockerfile = \"D\"\n[claude]\n\
    [env.PROJECT]\ninteractive = true\nskippable = true\nprompt = \"Which project?\"\n\
    [env.BRANCH]\ninteractive = true\nprompt = \"Branch of ${env.PROJECT}?\"\ndefault = \"main\"\noptions = [\"main\", \"dev\"]\ndepends_on = [\"env.PROJECT\"]\n\
    [env.LABEL]\ndefault = \"${env.PROJECT}@${env.BRANCH} ${HOME}\"\ndepends_on = [\"env.BRANCH\", \"env.PROJECT\"]\n\
    [env.ALWAYS]\ndefault = \"x\"\n";

fn outcome(operator: &[(&str, Option<&str>)], answers: &[(&str, Option<&str>)]) -> Vec<String> {
    use prompts::{Answer, State};
    let operator = operator.iter().map(|(n, v)| ((*n).to_owned(), v.map(secrecy::SecretString::from))).collect();
    let answers = answers.iter().map(|(n, v)| ((*n).to_owned(), v.map_or(Answer::Skip, |v| Answer::Value(v.into())))).collect();
    prompts::resolve(&manifest(ASKING).env, &operator, &answers)
        .into_iter()
        .map(|v| {
            let state = match v.state {
                State::Operator(value) => format!("operator {}", value.as_ref().map_or("later", |v| v.expose_secret())),
                State::Default(value) => format!("default {}", value.expose_secret()),
                State::Answered(value) => format!("answered {}", value.expose_secret()),
                State::Ask(question) => format!("ask {}", question.text.expose_secret()),
                State::Waiting { on } => format!("waits for {on}"),
                State::Skipped { because } => format!("skipped with {because}"),
                State::Refused(d) => d.code,
            };
            format!("{} {state}", v.name)
        })
        .collect()
}

#[test]
fn variables_are_asked_in_order_of_dependence() {
    assert_eq!(
        outcome(&[], &[]),
        ["ALWAYS default x", "PROJECT ask Which project?", "BRANCH waits for PROJECT", "LABEL waits for PROJECT"]
    );
    assert_eq!(
        outcome(&[], &[("PROJECT", Some("p"))]),
        ["ALWAYS default x", "PROJECT answered p", "BRANCH ask Branch of p?", "LABEL waits for BRANCH"]
    );
    let done = outcome(&[], &[("PROJECT", Some("${env.BRANCH}")), ("BRANCH", Some("dev"))]);
    assert_eq!(done[3], "LABEL default ${env.BRANCH}@dev ${HOME}");
}

#[test]
fn a_skip_reaches_everything_below_it() {
    assert_eq!(
        outcome(&[], &[("PROJECT", None)])[1..],
        ["PROJECT skipped with PROJECT", "BRANCH skipped with PROJECT", "LABEL skipped with PROJECT"]
    );
    // Unless the operator has set a name: that stops the skip for the name.
    assert_eq!(
        outcome(&[("BRANCH", Some("b"))], &[("PROJECT", None)])[1..],
        ["PROJECT skipped with PROJECT", "BRANCH operator b", "LABEL skipped with PROJECT"]
    );
}

#[test]
fn refused_answers() {
    assert_eq!(outcome(&[], &[("PROJECT", Some("p")), ("BRANCH", Some("nope"))])[2], "BRANCH role.answer");
    assert_eq!(outcome(&[], &[("PROJECT", Some("p")), ("BRANCH", None)])[2], "BRANCH role.answer_needed");
    assert_eq!(outcome(&[("PROJECT", None)], &[])[1..3], ["PROJECT operator later", "BRANCH ask Branch of ${env.PROJECT}?"]);
}

#[test]
fn without_a_person_defaults_answer() {
    let declared = manifest(ASKING).env;
    let none = BTreeMap::new();
    let settled = prompts::settle(&declared, &none, &BTreeMap::new());
    assert_eq!(lines(&prompts::unanswered(&settled, &declared)), ["m:3:6 role.open_question"]);
    let operator = BTreeMap::from([("PROJECT".to_owned(), Some("p".into()))]);
    let settled = prompts::settle(&declared, &operator, &BTreeMap::new());
    assert!(prompts::unanswered(&settled, &declared).is_empty());
    assert!(matches!(&settled[3].state, prompts::State::Default(v) if v.expose_secret() == "p@main ${HOME}"));
}

// ---- traps: mistakes of the original ----

#[test]
fn trap_a_table_with_only_sync_source_dir_does_not_override_the_mode() {
    let global = global("[claude]\nauth_forward = \"api_key\"\nsync_source_dir = \"/g\"");
    let workspace = app(&below("[claude]\nsync_source_dir = \"/w\"\n[roles.r.claude]\nauth_forward = \"ignore\""));
    let auth = layer::auth(&global, Some(&workspace), "other", Agent::Claude);
    assert_eq!((auth.mode.value, auth.mode.layer), (AuthMode::ApiKey, Layer::Global));
    assert_eq!(auth.sync_source_dir.map(|d| d.value).as_deref(), Some("/w"));
    let auth = layer::auth(&global, Some(&workspace), "r", Agent::Claude);
    assert_eq!((auth.mode.value, auth.sync_source_dir.unwrap().layer), (AuthMode::Ignore, Layer::Workspace));
    assert_eq!(layer::auth(&global, None, "r", Agent::Codex).mode.value, AuthMode::Sync);
}

#[test]
fn trap_a_scalar_op_reference_is_resolved() {
    let env = global("[env]\nA = \"op://v/i/f\"\nB = { value = \"op://v/i/f\", on_demand = true }").env;
    assert!(matches!(&env["A"].value, EnvValue::Op { reference, on_demand: false, .. } if reference == "op://v/i/f"));
    assert!(matches!(&env["B"].value, EnvValue::Op { on_demand: true, .. }));
}

#[test]
fn trap_toml_order_a_key_below_a_table_belongs_to_it() {
    let found = said("", &below("[runtime]\nbackend = \"docker\"\ngit_pull_on_entry = true"));
    assert_eq!(lines(&found), ["app.toml:7:1 config.unknown_field"]);
    assert!(found[0].help.as_deref().unwrap().contains("`git_pull_on_entry` belongs above the first table"));
    // In `[env]` it would even become a variable.
    check_app(&below("[env]\ndirty_exit_policy = \"keep\""), &["app.toml:6:1 config.misplaced_field?"]);
    check_app(&below("[env]\ngit_pull_on_entry = true"), &["app.toml:6:21 config.wrong_type"]);
    check_app(&below("default_role = \"x/y\""), &["app.toml:5:1 config.unknown_field"]);
}

#[test]
fn trap_a_mount_name_does_not_hide_a_scope() {
    let global = global(
        "[docker.mounts.agent-smith]\nsrc = \"/all\"\ndst = \"/all\"\n[docker.mounts.agent-smith.cache]\nsrc = \"/smith\"\ndst = \"/c\"\n\
         [docker.mounts.\"x/y\"]\nsrc = { src = \"/s\", dst = \"/s\" }\n",
    );
    let sources = |role: &str| layer::global_mounts(&global, role).iter().map(|m| m.src.value.clone()).collect::<Vec<_>>();
    assert_eq!(sources("agent-smith"), ["/all", "/smith"]);
    assert_eq!(sources("the-architect"), ["/all"]);
    assert_eq!(sources("x/y"), ["/all", "/s"]);
}

#[test]
fn trap_config_is_at_v1alpha9() {
    assert_eq!(GLOBAL_VERSION.to_string(), "v1alpha9");
    read_global("version = \"v1alpha9\"\n[telemetry]\nlevel = \"debug\"");
}

#[test]
fn trap_grok_has_no_version_but_the_same_rules() {
    check_manifest("dockerfile = \"D\"\nagents = [\"grok\"]\n[grok]\nmodel = \"g\"", &[]);
    check_manifest("dockerfile = \"D\"\n[claude]\n[grok]", &["m:3:2 role.agent_unlisted?"]);
}

#[test]
fn trap_capabilities_belong_into_docker() {
    let found = parse_manifest("m", "version = \"v1alpha6\"\ndockerfile = \"D\"\n[claude]\n[capabilities]\nadd = []").unwrap_err().0;
    assert_eq!(lines(&found), ["m:4:2 role.unknown_field"]);
    assert!(found[0].help.as_deref().unwrap().contains("capabilities_add"));
}

#[test]
fn trap_older_examples_of_manifests_are_accepted() {
    manifest(
        "version = \"v1alpha4\"\ndockerfile = \"Dockerfile\"\nagents = [\"claude\", \"kimi\"]\n[claude]\nplugins = [\"a@b\"]\n[kimi]\n[identity]\nname = \"X\"",
    );
}

#[test]
fn trap_the_construct_version_is_the_whole_tag() {
    assert_eq!(check_dockerfile("D", FROM).unwrap().tag, "0.1-trixie");
}

#[test]
fn trap_a_published_label_may_be_a_short_commit() {
    let commit = "0123456789abcdef0123456789abcdef01234567";
    for label in [commit, "0123456", "0123456789AB"] {
        assert!(role_repo::label_names_commit(label, commit), "{label}");
    }
    for label in ["", "012345", "1234567", "012345x", &format!("{commit}0")] {
        assert!(!role_repo::label_names_commit(label, commit), "{label}");
    }
}

#[test]
fn trap_a_role_named_default_does_not_share_a_cache_folder() {
    let folder = |key: &str| RoleKey::parse(key).unwrap().cache_folder();
    // Checkouts lie in `<folder>/default` and `<folder>/branches/…`.
    assert_eq!(folder("acme/web"), "acme/web");
    for name in ["default", "branches"] {
        assert!(!format!("{}/", folder(&format!("acme/{name}"))).starts_with(&format!("{}/{name}/", folder("acme"))));
    }
    assert_ne!(RoleKey::parse("a/b").unwrap().slug(), RoleKey::parse("a-b").unwrap().slug());
}

#[test]
fn trap_a_grant_does_not_bring_a_limit_into_compat() {
    let (grants, warnings) = granted("", "[docker.grants]\nmemory = \"8G\"\nnetwork = \"allowlist\"", "").unwrap();
    assert_eq!((grants.memory, grants.network), (None, NetworkMode::Open));
    // But nobody is left to believe that there is one.
    assert_eq!(lines(&warnings), ["app.toml:7:11 config.grant_no_effect?", "app.toml:6:10 config.grant_no_effect?"]);
}

#[test]
fn trap_a_locked_network_can_reach_its_allow_list() {
    let (grants, _) = granted("[docker]\nprofile = \"locked\"", "", "").unwrap();
    assert_eq!((grants.network, grants.internal_network), (NetworkMode::Allowlist, false));
}

// ---- anything at all ----

const EVERYTHING: &str = "version = \"v1alpha9\"\ndirty_exit_policy = \"keep\"\n[claude]\nauth_forward = \"sync\"\n[env]\nA = \"canary-4f1c\"\nB = { op = \"op://a/b/c\", path = \"x\" }\nC = '''canary-4f1c\ncanary-4f1c'''\n[roles.\"acme/web\"]\ngit = \"https://h/x\"\n[roles.\"acme/web\".env]\nD = { value = \"canary-4f1c\", on_demand = true }\n[docker.mounts]\nm = { src = \"/a\", dst = \"/b\" }\n[docker.grants]\nmemory = \"8G\"\n";

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for kind in [FileKind::Global, FileKind::Workspace { name: "x".to_owned() }] {
            let _ = load(&[SourceFile { kind, shown: "f".to_owned(), bytes: bytes.clone() }]);
        }
        let text = String::from_utf8_lossy(&bytes);
        let _ = (parse_manifest("m", &text), check_dockerfile("D", &text), override_construct(&text, "x"));
        let _ = (migrate_workspace_text(&text), split_global_text(&text), Version::parse(&text), docker::parse_size(&text));
    }

    #[test]
    fn no_toml_panics(text in "(version|workdir|mounts|env|instance|docker|grants|agents|claude|roles|\\[|\\]|\\[\\[|\\]\\]|\\{|\\}|=|\\.|,|\"|\"\"\"|'|\n| |\\$X|op://a/b/c|1|-9|nan|true|ä|#|FROM |\\\\){0,40}") {
        for kind in [FileKind::Global, FileKind::Workspace { name: "x".to_owned() }] {
            let _ = load(&[SourceFile { kind, shown: "f".to_owned(), bytes: text.clone().into_bytes() }]);
        }
        let _ = (parse_manifest("m", &text), check_dockerfile("D", &text), override_construct(&text, "x"));
        let _ = (migrate_global_text(&text), migrate_workspace_text(&text), split_global_text(&text));
    }

    /// One slip anywhere in a sound file: the credential stays unsaid, and every place lies inside the file.
    #[test]
    fn no_slip_tells_a_credential(at in 0..EVERYTHING.len(), cut in 0..3usize, insert in "[\"'=\\[\\]\\{\\}\n#.,\\\\ a]{0,2}") {
        let mut text = EVERYTHING.to_owned();
        text.replace_range(at..(at + cut).min(text.len()), &insert);
        let whole = sources(&text, WORKSPACE);
        let said = everything_said(&whole);
        prop_assert!(!said.contains(CANARY), "{text}\n----\n{said}");
        if let Err(mistakes) = load(&whole) {
            for d in mistakes.0 {
                let span = d.span.unwrap();
                let line = text.split('\n').nth(span.line as usize - 1).unwrap();
                prop_assert!(span.column as usize <= line.chars().count() + 1);
                prop_assert!(d.help.is_some());
            }
        }
    }

    #[test]
    fn migration_is_settled_and_keeps_the_meaning(n in 0..9usize, at in 0..3usize, note in "[a-z #=\\[\\]]{0,12}") {
        let version = if n == 0 { String::new() } else { format!("version = \"v1alpha{n}\" # {note}\n") };
        let others = [format!("# {note}\nrole_repo_refresh_ttl_seconds = 5\n"), "dirty_exit_policy = \"keep\" # x\n".to_owned()];
        let mut parts: Vec<String> = others.to_vec();
        parts.insert(at.min(parts.len()), version);
        let text = parts.concat() + "[env]\nA = \"$B\"\n";
        let migrated = migrate_global_text(&text).unwrap();
        prop_assert_eq!(migrate_global_text(&migrated), None);
        prop_assert_eq!(migrated.matches("version =").count(), 1);
        let read = read_global(&migrated);
        prop_assert_eq!((read.version, layer::role_refresh_seconds(&read.global), read.global.env.len()), (GLOBAL_VERSION, 5, 1));
        prop_assert!(migrated.contains(&others[1]));
    }
}
