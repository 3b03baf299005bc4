//! What people do behind jackin's back: each is seen, named, and mended.

use super::support::{COMPAT, Engine, Home, Output, Plan, STANDARD, construct_image};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

/// One thing that somebody did.
struct Edit {
    what: &'static str,
    done: fn(&Home, &str),
    address: &'static str,
    action: &'static str,
    /// Code of a reason, and what stands in its field or state.
    reason: (&'static str, &'static str),
    /// What a person must be able to read of it.
    words: &'static str,
}

/// Memory and CPUs limited, and a private Docker.
const LIMITED: &str = "[docker]\nprofile = \"standard\"\n[docker.grants]\ndind = \"privileged\"\n";

const EDITS: &[Edit] = &[
    Edit {
        what: "docker update",
        done: |home, capsule| {
            home.engine.docker(&["update", "--memory", "512m", "--memory-swap", "1g", capsule]);
        },
        address: "capsule/w/default",
        action: "update",
        reason: ("drifted", "limits.memory"),
        words: "memory",
    },
    Edit {
        what: "docker rename",
        done: |home, capsule| {
            home.engine.docker(&["rename", capsule, &format!("renamed-{capsule}")]);
        },
        address: "capsule/w/default",
        action: "update",
        reason: ("drifted", "name"),
        words: "renamed-jk-",
    },
    Edit {
        what: "docker network disconnect of the capsule",
        done: |home, capsule| {
            home.engine.docker(&["network", "disconnect", &format!("{capsule}-net"), capsule]);
        },
        address: "capsule/w/default",
        action: "update",
        reason: ("drifted", "network"),
        words: "network",
    },
    Edit {
        what: "docker network disconnect of the sidecar",
        done: |home, capsule| {
            home.engine.docker(&["network", "disconnect", &format!("{capsule}-net"), &format!("{capsule}-dind")]);
        },
        address: "sidecar/w/default",
        action: "update",
        reason: ("drifted", "network"),
        words: "network",
    },
    Edit {
        what: "docker pause",
        done: |home, capsule| {
            home.engine.docker(&["pause", capsule]);
        },
        address: "capsule/w/default",
        action: "start",
        reason: ("unhealthy", "paused"),
        words: "paused",
    },
    Edit {
        what: "docker kill",
        done: |home, capsule| {
            home.engine.docker(&["kill", capsule]);
        },
        address: "capsule/w/default",
        action: "start",
        reason: ("unhealthy", "137"),
        words: "137",
    },
    Edit {
        what: "docker stop",
        done: |home, capsule| {
            home.engine.docker(&["stop", "--time", "20", capsule]);
        },
        address: "capsule/w/default",
        action: "start",
        reason: ("unhealthy", "exited"),
        words: "exited",
    },
    Edit {
        what: "docker stop of the sidecar",
        done: |home, capsule| {
            home.engine.docker(&["stop", "--time", "20", &format!("{capsule}-dind")]);
        },
        address: "sidecar/w/default",
        action: "start",
        reason: ("unhealthy", "exited"),
        words: "exited",
    },
    Edit {
        what: "docker rm of the capsule",
        done: |home, capsule| {
            home.engine.docker(&["rm", "-fv", capsule]);
        },
        address: "capsule/w/default",
        action: "create",
        reason: ("missing", ""),
        words: "does not exist",
    },
    Edit {
        what: "docker rm of the sidecar",
        done: |home, capsule| {
            home.engine.docker(&["rm", "-fv", &format!("{capsule}-dind")]);
        },
        address: "sidecar/w/default",
        action: "create",
        reason: ("missing", ""),
        words: "does not exist",
    },
    Edit {
        what: "a deleted agent.toml",
        done: |home, capsule| fs::remove_file(home.path(&format!("state/sockets/{capsule}/agent.toml"))).unwrap(),
        address: "home/w/default",
        action: "update",
        reason: ("drifted", "agent_toml"),
        words: "agent.toml",
    },
    Edit {
        what: "another commit checked out in the role cache",
        done: |home, _| {
            home.git(&format!("state/roles/{}/default", home.role()), &["checkout", "-q", "HEAD~1"]);
        },
        address: "role-repo/",
        action: "fetch",
        reason: ("field_changed", "commit"),
        words: "commit",
    },
];

fn has_reason(plan: &Plan, address: &str, (code, value): (&str, &str)) -> bool {
    plan.reasons(address).iter().any(|reason| {
        let values = ["field", "state"].map(|key| reason[key].as_str().unwrap_or_default());
        reason["code"] == code && (value.is_empty() || values.iter().any(|v| v.contains(value)))
    })
}

/// The plan's lines about one address.
fn lines_about<'a>(text: &'a str, address: &str) -> Vec<&'a str> {
    let mut lines = text.lines().skip_while(|line| !line.contains(address));
    let first = lines.next();
    first.into_iter().chain(lines.take_while(|line| line.starts_with("      "))).collect()
}

fn sees_and_mends(home: &Home, edit: &Edit) {
    let what = edit.what;
    (edit.done)(home, &home.capsule());
    let address = if edit.address.ends_with('/') { format!("{}{}", edit.address, home.role()) } else { edit.address.to_owned() };
    let plan = home.plan();
    assert_eq!(plan.action(&address), edit.action, "{what}: {}", plan.change(&address));
    assert!(has_reason(&plan, &address, edit.reason), "{what}: {:?}", plan.reasons(&address));
    let human = home.good(&["plan", "w"]).out;
    let about = lines_about(&human, &address).join("\n");
    assert!(about.contains(edit.words), "{what} is not named: {human}");
    home.good(&["apply", "w", "--yes", "--allow-loss"]);
    home.assert_settled(&format!("after {what}"));
    home.assert_one_of_each(true, what);
}

/// Two commits, so that the cache can be at the wrong one.
fn second_commit(home: &Home) {
    home.write("role/notes", "a second commit\n");
    home.commit("role", "Notes");
}

pub fn every_edit_behind_its_back_is_named_and_mended(engine: &Engine) {
    let home = Home::with_own_role(engine, LIMITED);
    second_commit(&home);
    home.apply();
    home.assert_settled("after the first apply");
    for edit in EDITS {
        sees_and_mends(&home, edit);
    }
}

pub fn a_lost_or_exchanged_image_is_named_and_made_again(engine: &Engine) {
    let home = Home::with_own_role(engine, STANDARD);
    home.apply();
    let address = format!("derived-image/{}", home.role());
    let image = home.plan().change(&address)["found"]["name"].as_str().expect("an image").to_owned();

    // A running container needs no image, and is not made anew for one.
    home.engine.docker(&["image", "rm", "-f", &image]);
    home.assert_settled("while the capsule of a lost image runs");
    home.engine.docker(&["rm", "-fv", &home.capsule()]);
    let plan = home.plan();
    assert_eq!(plan.action(&address), "build", "{}", plan.change(&address));
    assert!(has_reason(&plan, &address, ("missing", "")), "{}", plan.change(&address));
    home.good(&["apply", "w", "--yes", "--allow-loss"]);
    home.assert_settled("after the image was removed");

    let construct = construct_image();
    home.engine.docker(&["tag", &construct, &image]);
    home.assert_settled("while the capsule of an exchanged image runs");
    home.engine.docker(&["rm", "-fv", &home.capsule()]);
    let plan = home.plan();
    assert_eq!(plan.action(&address), "rebuild", "{}", plan.change(&address));
    let human = home.good(&["plan", "w"]).out;
    assert!(lines_about(&human, &address).join("\n").contains("jackin."), "the missing label is not named: {human}");
    home.good(&["apply", "w", "--yes", "--allow-loss"]);
    home.assert_settled("after the image was exchanged");
    home.assert_one_of_each(false, "after the image was exchanged");
}

pub fn a_changed_role_cache_blocks_and_is_left_alone(engine: &Engine) {
    let home = Home::new(engine, STANDARD);
    home.apply();
    let file = format!("state/roles/{}/default/Dockerfile", home.role());
    home.write(&file, "FROM scratch\n");
    let plan = home.jackin(&["plan", "w"]);
    assert_eq!(plan.code, Some(1), "{plan}");
    assert!(plan.out.contains("[role.dirty_cache]") && plan.out.contains("Dockerfile"), "{plan}");
    let apply = home.jackin(&["apply", "w", "--yes"]);
    assert_eq!(apply.code, Some(1), "{apply}");
    assert_eq!(fs::read_to_string(home.path(&file)).unwrap(), "FROM scratch\n");
    home.git(&format!("state/roles/{}/default", home.role()), &["checkout", "-q", "Dockerfile"]);
    home.assert_settled("after the change was taken back");
}

pub fn a_lost_run_bit_of_a_cached_program_is_given_back(engine: &Engine) {
    let mut home = Home::with_own_role(engine, STANDARD);
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let cached = format!("state/cache/jackin-capsule/{}/linux-{arch}/jackin-capsule", env!("CARGO_PKG_VERSION"));
    let cached = home.path(&cached);
    fs::create_dir_all(cached.parent().unwrap()).unwrap();
    fs::copy(&home.env()["JACKIN_CAPSULE_BIN"], &cached).unwrap();
    home.unset_env("JACKIN_CAPSULE_BIN");
    home.move_program();
    home.apply();
    home.assert_settled("with a cached capsule");

    fs::set_permissions(&cached, fs::Permissions::from_mode(0o644)).unwrap();
    let plan = home.plan();
    let address = "capsule-binary/jackin-capsule".to_owned();
    assert_eq!(plan.action(&address), "repair", "{}", plan.change(&address));
    assert!(has_reason(&plan, &address, ("not_executable", "")), "{}", plan.change(&address));
    home.apply();
    home.assert_settled("after the run bit was lost");
    assert_eq!(fs::metadata(&cached).unwrap().permissions().mode() & 0o111, 0o111);
}

/// Somebody else's things are never touched.
pub fn a_stranger_under_our_name_blocks_and_is_left_alone(engine: &Engine) {
    let home = Home::new(engine, COMPAT);
    let container = home.plan().json["instances"]["w/default"]["container"].as_str().expect("a name").to_owned();
    let construct = construct_image();
    for (address, kind, name) in [
        ("capsule/w/default", "container", container.clone()),
        ("sidecar/w/default", "container", format!("{container}-dind")),
        ("network/w/default", "network", format!("{container}-net")),
        ("certs/w/default", "volume", format!("{container}-dind-certs")),
    ] {
        match kind {
            "container" => engine.docker(&["create", "--name", &name, &construct, "true"]),
            kind => engine.docker(&[kind, "create", &name]),
        };
        let look = || engine.docker(&[kind, "inspect", &name]);
        let before = look();
        let plan = home.jackin(&["plan", "w", "--format", "json"]);
        let apply = home.jackin(&["apply", "w", "--yes"]);
        let after = look();
        engine.docker(&[kind, "rm", &name]);
        assert_eq!(plan.code, Some(1), "{plan}");
        let plan = Plan { json: serde_json::from_str(&plan.out).unwrap(), text: plan.out };
        assert!(plan.blockers().iter().any(|b| b["address"] == address && b.to_string().contains(&name)), "{:?}", plan.blockers());
        assert_eq!(apply.code, Some(1), "{apply}");
        assert!(apply.err.contains(address) && apply.err.contains("Nothing was changed"), "{apply}");
        assert_eq!(before, after, "{address}");
        home.assert_nothing_left(address);
    }
}

/// Engines before 25 allow it.
pub fn networks_of_one_name_become_one(engine: &Engine) {
    let home = Home::new(engine, STANDARD);
    home.apply();
    let name = home.objects().networks[0].clone();
    let labels = engine.docker(&["network", "inspect", "--format", "{{json .Labels}}", &name]);
    let body = format!("{{\"Name\":\"{name}\",\"Labels\":{labels}}}");
    let answer = post(engine, "/v1.41/networks/create", &body);
    if engine.second {
        assert!(answer.contains(" 409 "), "{answer}");
        return;
    }
    assert!(answer.contains(" 201 "), "{answer}");
    assert_eq!(home.objects().networks, [name.clone(), name.clone()]);
    let plan = home.plan();
    assert!(has_reason(&plan, "network/w/default", ("duplicate", "")), "{}", plan.text);
    let human = home.good(&["plan", "w"]).out;
    assert!(lines_about(&human, "network/w/default").len() > 1, "{human}");
    home.apply();
    home.assert_settled("after the duplicate was removed");
    home.assert_one_of_each(false, "after the duplicate was removed");
}

/// What the docker command would not send.
fn post(engine: &Engine, path: &str, body: &str) -> String {
    let mut stream = UnixStream::connect(engine.host.strip_prefix("unix://").unwrap()).expect("connect");
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).expect("send");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    answer
}

pub fn a_full_disk_is_one_clear_message(engine: &Engine) {
    let home = Home::new(engine, STANDARD);
    fs::create_dir_all(home.path("state")).unwrap();
    let state = home.path("state").to_string_lossy().into_owned();
    let mounted = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=128k,mode=755", "tmpfs", &state]).output();
    if !mounted.is_ok_and(|m| m.status.success()) {
        println!("no tmpfs can be mounted here: left out");
        return;
    }
    let _unmount = Unmount(state);
    // Room for the installation's id, and no more.
    home.jackin(&["status"]);
    let filler = fs::write(home.path("state/filler"), vec![0; 1 << 20]);
    assert!(filler.is_err());
    let output: Output = home.jackin(&["apply", "w", "--yes"]);
    assert_eq!(output.code, Some(1), "{output}");
    assert_eq!(output.err.matches("error:").count(), 1, "{output}");
    assert!(output.err.contains("[file.disk_full]"), "{output}");
    home.assert_nothing_left("on a full disk");
    fs::remove_file(home.path("state/filler")).unwrap();
    let again = home.jackin(&["plan", "w"]);
    assert_eq!(again.code, Some(0), "{again}");
}

struct Unmount(String);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").args(["--lazy", &self.0]).status();
    }
}
