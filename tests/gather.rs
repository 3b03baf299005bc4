//! Gathering against real files, real git and real processes, in temporary folders.

use jackin::config::Agent;
use jackin::config::role_key::RoleKey;
use jackin::facts::{Arch, BinarySource, PathKind, RoleProblem, RoleSnapshot, TreeKind};
use jackin::gather::*;
use secrecy::ExposeSecret;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

struct World {
    root: tempfile::TempDir,
    paths: Paths,
}

fn world() -> World {
    let root = tempfile::tempdir().unwrap();
    let paths = paths_in(root.path());
    World { root, paths }
}

fn paths_in(root: &Path) -> Paths {
    let home = root.join("home");
    fs::create_dir_all(&home).unwrap();
    Paths::from_env(|name| (name == "HOME").then(|| home.clone().into())).unwrap()
}

fn git(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(dir)
        .args(["-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "init.defaultBranch=main"])
        .args(args)
        .output()
        .unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

const MANIFEST: &str = "version = \"v1alpha6\"\ndockerfile = \"./docker/Dockerfile\"\n[claude]\n[hooks]\npreflight = \"hooks/pre.sh\"\n";

impl World {
    /// A remote with one commit.
    fn remote(&self, name: &str) -> PathBuf {
        let dir = self.root.path().join(name);
        fs::create_dir_all(&dir).unwrap();
        git(&dir, &["init", "-q"]);
        write(&dir.join("jackin.role.toml"), MANIFEST);
        write(&dir.join("docker/Dockerfile"), "FROM projectjackin/construct:0.1-trixie\n");
        write_program(&dir.join("hooks/pre.sh"), "true\n");
        commit(&dir, "first");
        dir
    }

    fn role(&self, remote: &Path) -> RoleRepo {
        role("smith", &format!("file://{}", remote.display()))
    }

    async fn resolve(&self, role: &RoleRepo, refresh: Refresh) -> RoleSnapshot {
        role.resolve(&self.paths, refresh, &quiet).await.unwrap()
    }
}

fn role(key: &str, url: &str) -> RoleRepo {
    RoleRepo { key: RoleKey::parse(key).unwrap(), url: url.to_owned(), branch: None, pinned: None }
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Written by a process of its own: a program that is open for writing here, even in a child another test is just starting, cannot
/// be run.
fn write_program(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut shell =
        Command::new("sh").args(["-c", "cat > \"$1\"; chmod 755 \"$1\"", "sh"]).arg(path).stdin(Stdio::piped()).spawn().unwrap();
    shell.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(shell.wait().unwrap().success());
}

fn commit(dir: &Path, message: &str) -> String {
    git(dir, &["add", "-A"]);
    git(dir, &["commit", "-q", "--allow-empty", "-m", message]);
    git(dir, &["rev-parse", "HEAD"])
}

fn quiet(_: &str) {}

const MINUTE: Refresh = Refresh::Ttl(Duration::from_secs(60));
const ALWAYS: Refresh = Refresh::Ttl(Duration::ZERO);

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

// ---- paths and files ----

#[test]
fn paths_come_from_the_environment_and_every_mistake_is_told() {
    let env = |pairs: &'static [(&str, &str)]| move |name: &str| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v));
    let paths = Paths::from_env(env(&[("HOME", "/home/ann/"), ("JACKIN_HOME_DIR", "/data/jackin/"), ("JACKIN_CONFIG_DIR", "")])).unwrap();
    assert_eq!(paths.home, Path::new("/home/ann"));
    assert_eq!(paths.config_file(), Path::new("/home/ann/.config/jackin/config.toml"));
    assert_eq!(paths.runs(), Path::new("/data/jackin/data/diagnostics/runs"));
    assert_eq!(paths.shorten(Path::new("/home/ann/x")), "~/x");
    let key = RoleKey::parse("acme/web").unwrap();
    assert_eq!(paths.role_lock(&key), Path::new("/data/jackin/data/acme_web.locks/default.repo.lock"));
    assert_eq!(paths.role_cache(&key), Path::new("/data/jackin/roles/acme/web/default"));

    let wrong = Paths::from_env(env(&[("JACKIN_HOME_DIR", "~/x"), ("JACKIN_CONFIG_DIR", "/a/../b")])).unwrap_err();
    let codes: Vec<_> = wrong.0.iter().map(|d| d.code.as_str()).collect();
    assert_eq!(codes, ["paths.no_home", "paths.not_absolute", "paths.not_absolute"]);
    let wrong = Paths::from_env(env(&[("HOME", "relative")])).unwrap_err();
    assert_eq!(wrong.0.iter().map(|d| d.code.as_str()).collect::<Vec<_>>(), ["paths.not_absolute"]);
}

#[test]
fn a_file_in_place_of_a_folder_is_reported() {
    let world = world();
    world.paths.check().unwrap();
    write(&world.paths.jackin_home, "not a folder");
    let wrong = world.paths.check().unwrap_err();
    assert_eq!(wrong.0[0].code, "file.not_a_directory");
    assert!(wrong.0[0].detail.contains(".jackin"));
    assert_eq!(installation(&world.paths).unwrap_err().code, "file.not_a_directory");
}

#[test]
fn config_files_are_read_sorted_and_leftovers_ignored() {
    let world = world();
    assert_eq!(read_config(&world.paths), (ConfigFiles::default(), vec![]));
    assert!(!world.paths.config_dir.exists());
    let dir = world.paths.workspaces();
    write(&world.paths.config_file(), "version = \"v1alpha9\"\n");
    for name in ["b.toml", "a b.toml", "b.toml.tmp.12.0", ".#b.toml", "notes.txt"] {
        write(&dir.join(name), "x = 1");
    }
    let (files, wrong) = read_config(&world.paths);
    assert_eq!(wrong, vec![]);
    assert_eq!(files.global.unwrap().name, "config.toml");
    assert_eq!(files.workspaces.iter().map(|f| f.stem()).collect::<Vec<_>>(), ["a b", "b"]);
    assert_eq!(files.workspaces[0].name, "workspaces/a b.toml");
}

#[test]
fn unreadable_config_files_are_reported_and_the_others_read() {
    let world = world();
    let dir = world.paths.workspaces();
    write(&dir.join("good.toml"), "x = 1");
    fs::create_dir(dir.join("folder.toml")).unwrap();
    symlink("/nowhere", dir.join("dangling.toml")).unwrap();
    fs::write(dir.join("latin.toml"), b"a = 1\nb = \"\xe9\"\n").unwrap();
    // Root reads everything; the case is only made where it can fail.
    if !is_root() {
        write(&dir.join("zlocked.toml"), "x = 1");
        fs::set_permissions(dir.join("zlocked.toml"), fs::Permissions::from_mode(0o000)).unwrap();
    }
    let (files, wrong) = read_config(&world.paths);
    assert_eq!(files.workspaces.len(), 1);
    let mut expected = vec!["file.missing", "file.is_a_directory", "config.not_utf8"];
    expected.extend((!is_root()).then_some("file.denied"));
    assert_eq!(wrong.iter().map(|d| d.code.as_str()).collect::<Vec<_>>(), expected);
    assert!(wrong[2].detail.ends_with("latin.toml, line 2"), "{}", wrong[2].detail);
    assert!(wrong.iter().all(|d| d.help.is_some()));
    let places: Vec<String> = wrong.iter().map(|d| d.span.as_ref().unwrap().file.clone()).collect();
    let named: Vec<String> = files.unreadable.iter().map(|name| format!("workspaces/{name}.toml")).collect();
    assert_eq!((places[0].as_str(), &places), ("workspaces/dangling.toml", &named));
}

#[test]
fn an_atomic_write_leaves_no_temporary_file() {
    let world = world();
    let file = world.root.path().join("x.toml");
    atomic::write(&file, b"one", 0o600).unwrap();
    atomic::write(&file, b"two", 0o640).unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"two");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
    let staged = atomic::stage(&file, b"three", 0o600).unwrap();
    assert!(names(world.root.path()).iter().any(|name| name.starts_with("x.toml.tmp.")));
    drop(staged);
    assert!(!atomic::create(&file, b"four", 0o600).unwrap());
    assert_eq!(fs::read(&file).unwrap(), b"two");
    assert_eq!(names(world.root.path()), ["home", "x.toml"]);

    symlink(&file, world.root.path().join("link")).unwrap();
    atomic::write(&world.root.path().join("link"), b"five", 0o600).unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"five");

    let gone = atomic::write(&world.root.path().join("no/x"), b"", 0o600).unwrap_err();
    assert!(gone.code == "file.missing" && gone.detail.contains("/no/x"), "{gone}");
    if Path::new("/dev/full").exists() {
        let full = failure::io_failed("write", Path::new("/x"), &fs::write("/dev/full", "x").unwrap_err());
        assert_eq!(full.code, "file.disk_full");
    }
}

#[test]
fn leftovers_of_killed_writers_are_removed() {
    let world = world();
    let file = world.root.path().join("x");
    write(&file.with_file_name("x.tmp.1.0"), "");
    write(&file.with_file_name("x.tmp.1.1").join("below"), "");
    write(&file.with_file_name("xy.tmp.1.0"), "");
    atomic::remove_leftovers(&file);
    assert_eq!(names(world.root.path()), ["home", "xy.tmp.1.0"]);
}

// ---- identity and digests ----

#[test]
fn the_installation_is_made_once_however_many_start() {
    let world = world();
    let start = || (installation(&world.paths).unwrap(), KeyedDigest::open(&world.paths).unwrap().of(b"x"));
    let ids: Vec<_> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_eq!(ids[0].0.len(), 16);
    assert_eq!(names(&world.paths.data()), ["digest.key", "installation"]);
    assert_eq!(fs::metadata(world.paths.digest_key()).unwrap().permissions().mode() & 0o777, 0o600);
    fs::write(world.paths.digest_key(), "short").unwrap();
    assert_eq!(KeyedDigest::open(&world.paths).err().unwrap().code, "digest.key_invalid");
}

#[test]
fn keyed_digests_are_hmac_sha256() {
    // The expected value was made with openssl.
    assert_eq!(KeyedDigest::with_key([0x0b; 32]).of(b"Hi There"), "hmac-sha256:198a607eb44bfbc6");
    assert_ne!(KeyedDigest::with_key([0; 32]).of(b"a"), KeyedDigest::with_key([1; 32]).of(b"a"));
}

#[test]
fn run_ids_sort_by_time_and_seeds_differ() {
    let time = "2026-11-20T15:55:44Z".parse().unwrap();
    assert_eq!(clock::run_id_at(time, "1a2b3c4d"), "20261120T155544.000Z-1a2b3c4d");
    assert!(seed().unwrap().len() == 32 && seed().unwrap() != seed().unwrap());
}

// ---- locks ----

/// Not a test by itself: the tests run it as a process of its own, with a variable set.
#[test]
fn process_that_holds_a_lock() {
    let Some(path) = std::env::var_os("TEST_HOLD") else {
        return;
    };
    let _lock = block_on(Lock::exclusive(Path::new(&path), "the test", None, &quiet)).unwrap();
    println!("\nlocked");
    let _ = std::io::stdin().read(&mut [0]);
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn child(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--quiet"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

#[tokio::test]
async fn waiting_names_the_holder_and_ends_when_it_is_killed() {
    let world = world();
    let path = world.paths.instance_lock("jk-x");
    let mut holder = child("process_that_holds_a_lock").env("TEST_HOLD", &path).spawn().unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "locked"));
    let pid = holder.id();
    let holder = Mutex::new(holder);
    assert!(Lock::try_exclusive(&path).unwrap().is_none());
    let late = Lock::exclusive(&path, "the instance", Some(Duration::ZERO), &quiet).await.unwrap_err();
    assert_eq!(late.code, "lock.timeout");
    assert!(late.detail.contains(&format!("PID {pid}")), "{late}");

    let told = Mutex::new(Vec::new());
    // Killed with SIGKILL only once we are known to wait.
    let notice = |text: &str| {
        told.lock().unwrap().push(text.to_owned());
        holder.lock().unwrap().kill().unwrap();
        holder.lock().unwrap().wait().unwrap();
    };
    let lock = Lock::exclusive(&path, "the instance", None, &notice).await.unwrap();
    assert_eq!(*told.lock().unwrap(), [format!("waiting for the instance, held by PID {pid}")]);
    assert_eq!(lock::holder(&path), Some(std::process::id()));
    drop(lock);
    assert!(path.exists());
}

#[tokio::test]
async fn readers_share_and_create_nothing() {
    let world = world();
    let path = world.paths.config_lock();
    assert!(Lock::shared(&path, "the configuration", None, &quiet).await.unwrap().is_none());
    assert!(!path.exists());
    drop(Lock::exclusive(&path, "the configuration", None, &quiet).await.unwrap());
    let one = Lock::shared(&path, "the configuration", Some(lock::CONFIG_TIMEOUT), &quiet).await.unwrap();
    let two = Lock::shared(&path, "the configuration", Some(lock::CONFIG_TIMEOUT), &quiet).await.unwrap();
    assert!(one.is_some() && two.is_some() && Lock::try_exclusive(&path).unwrap().is_none());
}

#[tokio::test]
async fn a_removed_lock_is_not_held_by_two() {
    let world = world();
    let path = world.paths.instance_lock("jk-x");
    let first = Mutex::new(Some(Lock::try_exclusive(&path).unwrap().unwrap()));
    let notice = |_: &str| first.lock().unwrap().take().unwrap().remove().unwrap();
    let _second = Lock::exclusive(&path, "the instance", None, &notice).await.unwrap();
    assert!(path.exists());
    assert!(Lock::try_exclusive(&path).unwrap().is_none());
}

// ---- role repos ----

#[test]
fn trap_a_role_named_default_or_branches_cannot_collide() {
    for good in ["smith", "a/b", "Agent-Smith", "default", "branches", "default/x", "ns/default", "ns/branches"] {
        RoleKey::parse(good).unwrap();
    }
    let cache =
        |key: &str| Paths::from_env(|name| (name == "HOME").then(|| "/h".into())).unwrap().role_cache(&RoleKey::parse(key).unwrap());
    assert_ne!(cache("ns/default"), cache("ns"));
    assert!(!cache("ns/default").starts_with(cache("ns")));
    assert!(!cache("ns/branches").starts_with(cache("ns").with_file_name("branches")));
    for bad in ["", "..", "a/..", "/a", "a/", "a/b/c", "a_b", "a.b", "jk-x", "a\nb", "é"] {
        assert_eq!(RoleKey::parse(bad).unwrap_err().code, "role.key", "{bad}");
    }
}

/// The original locked `<slug>.repo.lock` when registering and `<slug>.locks/default.repo.lock` when loading.
#[tokio::test]
async fn trap_every_path_to_a_role_takes_the_same_lock() {
    let world = world();
    let role = world.role(&world.remote("role"));
    let head = world.resolve(&role, MINUTE).await.commit.unwrap();
    let lock = || Lock::try_exclusive(&world.paths.role_lock(&role.key)).unwrap();
    let held = Mutex::new(lock());
    let waits = std::sync::atomic::AtomicU32::new(0);
    let notice = |_: &str| {
        waits.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        held.lock().unwrap().take();
    };
    role.resolve(&world.paths, MINUTE, &notice).await.unwrap();
    *held.lock().unwrap() = lock();
    role_repo::checkout(&world.paths, &role.key, &head, &notice).await.unwrap();
    *held.lock().unwrap() = lock();
    role_repo::forget(&world.paths, &role.key, &notice).await.unwrap();
    assert_eq!(waits.into_inner(), 3);
    // Roles are resolved side by side, so the future must be able to move between tasks.
    fn movable(_: impl Send) {}
    movable(role.resolve(&world.paths, MINUTE, &quiet));
}

#[test]
fn role_urls_are_normalized_and_never_shown_with_credentials() {
    let shown = |text: &str| role_url::RoleUrl::parse(text).map(|url| url.shown().to_owned());
    assert_eq!(shown("git@github.com:a/b.git").unwrap(), "https://github.com/a/b.git");
    assert_eq!(shown("ssh://git@github.com:22/a/b.git").unwrap(), "https://github.com/a/b.git");
    assert_eq!(shown("https://user:secret@example.com/a/b.git?token=secret#x").unwrap(), "https://example.com/a/b.git");
    assert_eq!(shown("git@gitlab.com:a/b").unwrap(), "git@gitlab.com:a/b");
    assert_eq!(shown("/srv/a").unwrap(), "/srv/a");
    let bad = "|-x|ext::sh|fd::7|relative/path|../x|ftp://h/x|ssh://-oProxyCommand=x/y|-oX:y|https://h|a b:c|file://host/x|https:///a/b";
    for bad in bad.split('|') {
        assert!(shown(bad).is_err(), "{bad}");
    }
    let same = |a: &str, b: &str| role_url::RoleUrl::parse(a).unwrap().same_repository(&role_url::RoleUrl::parse(b).unwrap());
    assert!(same("https://gitlab.com/A/b.git", "git@GitLab.com:a/b"));
    assert!(!same("https://github.com/a/b", "https://gitlab.com/a/b"), "another host's owner is somebody else");
    assert!(!same("https://gitlab.com/one/a/b", "https://gitlab.com/two/a/b"));
    assert!(!same("https://host/srv/a/b", "/srv/a/b"));
    assert!(same("file:///srv/a/b.git", "/srv/a/b"));
    assert!(!same("/srv/a/b", "/tmp/a/b"));
    assert!(!same("https://github.com/a/b", "https://github.com/a/c"));
    assert_eq!(role_url::redact("fatal: repository 'https://u:p@h/x?t=1' not found"), "fatal: repository 'https://h/x' not found");
    assert!(!format!("{:?}", role_url::RoleUrl::parse("https://user:secret@h/a/b").unwrap()).contains("secret"));
}

#[tokio::test]
async fn a_role_is_cloned_and_read_from_objects() {
    let world = world();
    let remote = world.remote("role");
    symlink("jackin.role.toml", remote.join("link")).unwrap();
    fs::write(remote.join("docker/data.bin"), [0xff, 0xfe]).unwrap();
    let head = commit(&remote, "second");
    let role = world.role(&remote);
    assert_eq!(world.resolve(&role, Refresh::Offline).await.problem, Some(RoleProblem::NotCached));

    let found = world.resolve(&role, MINUTE).await;
    assert_eq!(found.problem, None);
    assert_eq!(found.commit.as_deref(), Some(head.as_str()));
    assert_eq!(found.checked_out, None);
    assert_eq!(found.dirty, Vec::<String>::new());
    assert_eq!(found.tree["link"], TreeKind::Symlink);
    assert_eq!(found.tree["hooks/pre.sh"], TreeKind::Executable);
    assert_eq!(found.tree["docker/data.bin"], TreeKind::File);
    assert_eq!(found.files.keys().collect::<Vec<_>>(), ["docker/Dockerfile", "hooks/pre.sh", "jackin.role.toml"]);
    assert_eq!(found.files["jackin.role.toml"], MANIFEST);
    assert_eq!(names(&world.paths.role_dir(&role.key)), ["default"]);

    role_repo::checkout(&world.paths, &role.key, &head, &quiet).await.unwrap();
    let found = world.resolve(&role, Refresh::Offline).await;
    assert_eq!((found.checked_out.as_deref(), found.dirty.len()), (Some(head.as_str()), 0));
    assert_eq!(fs::read_to_string(world.paths.role_cache(&role.key).join("jackin.role.toml")).unwrap(), MANIFEST);
}

#[tokio::test]
async fn a_fetch_happens_when_the_ttl_is_over() {
    let world = world();
    let remote = world.remote("role");
    let role = world.role(&remote);
    let first = world.resolve(&role, MINUTE).await.commit.unwrap();
    let second = commit(&remote, "second");
    assert_eq!(world.resolve(&role, MINUTE).await.commit.unwrap(), first);
    assert_eq!(world.resolve(&role, Refresh::CacheOnly).await.commit.unwrap(), first);
    assert_eq!(world.resolve(&role, ALWAYS).await.commit.unwrap(), second);
    let third = commit(&remote, "third");
    let fetched = fs::File::open(world.paths.role_cache(&role.key).join(".git/FETCH_HEAD")).unwrap();
    fetched.set_modified(std::time::SystemTime::now() - Duration::from_secs(61)).unwrap();
    assert_eq!(world.resolve(&role, MINUTE).await.commit.unwrap(), third);

    // The default branch gets another name.
    git(&remote, &["checkout", "-q", "-b", "trunk"]);
    git(&remote, &["branch", "-D", "main"]);
    let fourth = commit(&remote, "fourth");
    assert_eq!(world.resolve(&role, ALWAYS).await.commit.unwrap(), fourth);

    // A fetch that failed does not count as one, and what is cached is still told.
    fs::rename(&remote, remote.with_extension("away")).unwrap();
    for refresh in [ALWAYS, MINUTE] {
        let found = world.resolve(&role, refresh).await;
        assert!(matches!(found.problem, Some(RoleProblem::FetchFailed { .. })), "{:?}", found.problem);
        assert_eq!(found.commit.as_deref(), Some(fourth.as_str()));
    }
}

#[tokio::test]
async fn branches_and_recorded_commits_are_read_without_a_checkout() {
    let world = world();
    let remote = world.remote("role");
    let main = git(&remote, &["rev-parse", "HEAD"]);
    let mut role = world.role(&remote);
    world.resolve(&role, MINUTE).await;
    git(&remote, &["checkout", "-q", "-b", "feature/x"]);
    write(&remote.join("extra"), "");
    let feature = commit(&remote, "feature");
    git(&remote, &["checkout", "-q", "main"]);
    role.branch = Some("feature/x".to_owned());
    let found = world.resolve(&role, MINUTE).await;
    assert_eq!(found.commit.as_deref(), Some(feature.as_str()));
    assert!(found.tree.contains_key("extra"));
    for missing in ["nope", "-x", "a..b", "x\ny"] {
        role.branch = Some(missing.to_owned());
        assert_eq!(world.resolve(&role, MINUTE).await.problem, Some(RoleProblem::NoSuchBranch { branch: missing.to_owned() }));
    }
    role.branch = None;
    role.pinned = Some(main.clone());
    commit(&remote, "later");
    assert_eq!(world.resolve(&role, ALWAYS).await.commit, Some(main));
    role.pinned = Some("0".repeat(40));
    assert!(matches!(world.resolve(&role, ALWAYS).await.problem, Some(RoleProblem::FetchFailed { .. })));
}

#[tokio::test]
async fn a_dirty_clone_is_told_and_not_checked_out() {
    let world = world();
    let remote = world.remote("role");
    let role = world.role(&remote);
    let head = world.resolve(&role, MINUTE).await.commit.unwrap();
    role_repo::checkout(&world.paths, &role.key, &head, &quiet).await.unwrap();
    let cache = world.paths.role_cache(&role.key);
    write(&cache.join("new file"), "");
    write(&cache.join("hooks/pre.sh"), "changed");
    git(&cache, &["mv", "docker/Dockerfile", "moved"]);
    let found = world.resolve(&role, MINUTE).await;
    let mut dirty = found.dirty.clone();
    dirty.sort();
    assert_eq!(dirty, ["hooks/pre.sh", "moved", "new file"]);
    assert_eq!(found.commit.as_deref(), Some(head.as_str()));
    let second = commit(&remote, "second");
    world.resolve(&role, ALWAYS).await;
    let refused = role_repo::checkout(&world.paths, &role.key, &second, &quiet).await.unwrap_err();
    assert_eq!(refused.code, "role.dirty");
    assert!(cache.join("new file").exists());
}

#[tokio::test]
async fn a_checkout_that_was_killed_is_finished() {
    let world = world();
    let remote = world.remote("role");
    let role = world.role(&remote);
    let head = world.resolve(&role, MINUTE).await.commit.unwrap();
    // What a kill leaves: the marker, git's lock, some files of the commit.
    let cache = world.paths.role_cache(&role.key);
    write(&cache.join(".git/jackin-checkout"), &head);
    write(&cache.join(".git/index.lock"), "");
    write(&cache.join("jackin.role.toml"), "half");
    let found = world.resolve(&role, MINUTE).await;
    assert_eq!((found.dirty.len(), found.checked_out.as_deref()), (0, Some(head.as_str())));
    assert!(!cache.join(".git/jackin-checkout").exists());
}

#[tokio::test]
async fn a_foreign_origin_is_told() {
    let world = world();
    let (one, two) = (world.remote("one"), world.remote("two"));
    world.resolve(&world.role(&one), MINUTE).await;
    let found = world.resolve(&world.role(&two), ALWAYS).await;
    assert_eq!(found.problem, Some(RoleProblem::ForeignOrigin { found: format!("file://{}", one.display()) }));
    assert_eq!(found.commit, None);
    // Removing the clone is the way out.
    role_repo::forget(&world.paths, &RoleKey::parse("smith").unwrap(), &quiet).await.unwrap();
    assert_eq!(world.resolve(&world.role(&two), MINUTE).await.problem, None);
    // The same repository under another spelling is not foreign.
    let plain = role("smith", two.to_str().unwrap());
    assert_eq!(world.resolve(&plain, MINUTE).await.problem, None);
    assert_eq!(git(&world.paths.role_cache(&plain.key), &["config", "remote.origin.url"]), two.to_str().unwrap());
}

#[tokio::test]
async fn repositories_without_what_is_needed_are_told() {
    let world = world();
    let empty = world.root.path().join("empty");
    fs::create_dir(&empty).unwrap();
    git(&empty, &["init", "-q"]);
    assert_eq!(world.resolve(&world.role(&empty), MINUTE).await.problem, Some(RoleProblem::NoCommit));

    let missing = world.resolve(&role("gone", "https://user:secret@localhost:1/a/b.git"), MINUTE).await;
    let Some(RoleProblem::CloneFailed { message }) = &missing.problem else { panic!("{:?}", missing.problem) };
    assert!(!message.contains("secret") && message.contains("localhost"), "{message}");
    assert_eq!(missing.url, "https://localhost:1/a/b.git");
    assert_eq!(names(&world.paths.role_dir(&RoleKey::parse("gone").unwrap())), Vec::<String>::new());

    fs::create_dir_all(world.paths.role_cache(&RoleKey::parse("odd").unwrap())).unwrap();
    let odd = world.resolve(&role("odd", "/srv/x"), MINUTE).await;
    assert!(matches!(odd.problem, Some(RoleProblem::NotARepository { .. })));
    assert!(matches!(world.resolve(&role("bad", "ext::sh"), MINUTE).await.problem, Some(RoleProblem::CloneFailed { .. })));
}

/// The oldest layout has the clone directly in `roles/<name>`.
#[tokio::test]
async fn a_clone_of_the_oldest_layout_is_moved() {
    let world = world();
    let remote = world.remote("role");
    let role = world.role(&remote);
    let dir = world.paths.role_dir(&role.key);
    fs::create_dir_all(dir.parent().unwrap()).unwrap();
    git(world.root.path(), &["clone", "-q", &role.url, dir.to_str().unwrap()]);
    write(&dir.join("local"), "kept");
    let found = world.resolve(&role, Refresh::Offline).await;
    assert_eq!(found.dirty, ["local"]);
    assert!(found.commit.is_some() && found.commit == found.checked_out);
    assert_eq!(names(&dir), ["default"]);
}

#[tokio::test]
async fn an_archive_is_the_whole_tree_and_always_the_same() {
    let world = world();
    let remote = world.remote("role");
    write(&remote.join(".gitattributes"), "docker export-ignore\nstamp export-subst\n*.sh text eol=lf\n");
    write(&remote.join("stamp"), "$Format:%H$\n");
    commit(&remote, "second");
    let found = world.resolve(&world.role(&remote), MINUTE).await;
    let (cache, commit) = (PathBuf::from(&found.cache), found.commit.unwrap());
    let tar = role_repo::archive(&cache, &commit).await.unwrap();
    assert_eq!(tar, role_repo::archive(&cache, &commit).await.unwrap());
    let mut files = std::collections::BTreeMap::new();
    for entry in tar::Archive::new(tar.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        files.insert(entry.path().unwrap().to_string_lossy().into_owned(), (entry.header().mode().unwrap() & 0o777, text));
    }
    assert_eq!(files["stamp"].1, "$Format:%H$\n");
    assert_eq!(files["hooks/pre.sh"].0, 0o755);
    assert!(files.contains_key("docker/Dockerfile"));
    assert!(role_repo::archive(&cache, "--output=/tmp/x").await.is_err());
}

/// Not a test by itself: resolves one role in a process of its own and prints the commit.
#[test]
fn process_that_resolves() {
    let Ok(root) = std::env::var("TEST_ROOT") else {
        return;
    };
    let role = role("smith", &std::env::var("TEST_URL").unwrap());
    let refresh = if std::env::var("TEST_CACHED").is_ok() { MINUTE } else { ALWAYS };
    let found = block_on(role.resolve(&paths_in(Path::new(&root)), refresh, &quiet)).unwrap();
    println!("\ncommit {} {:?}", found.commit.unwrap_or_default(), found.problem);
}

impl World {
    fn resolving(&self, role: &RoleRepo) -> Command {
        let mut command = child("process_that_resolves");
        command.env("TEST_ROOT", self.root.path()).env("TEST_URL", &role.url);
        command
    }

    /// A search path on which `git` is this script, which finds the real one in `$GIT`.
    fn path_with_git(&self, script: &str) -> String {
        let path = std::env::var("PATH").unwrap();
        let git = program::find("git", Some(path.as_ref())).unwrap();
        let bin = self.root.path().join("bin");
        write_program(&bin.join("git"), &format!("#!/bin/sh\nGIT={}\n{script}\nexec $GIT \"$@\"\n", git.display()));
        format!("{}:{path}", bin.display())
    }
}

#[test]
fn eight_processes_resolve_one_role_at_once() {
    let world = world();
    let remote = world.remote("role");
    let role = world.role(&remote);
    // The first round clones, the second fetches a new commit.
    for message in ["clone", "fetch"] {
        let head = commit(&remote, message);
        let children: Vec<_> = (0..8).map(|_| world.resolving(&role).spawn().unwrap()).collect();
        for child in children {
            let text = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
            assert!(text.lines().any(|line| line == format!("commit {head} None")), "{text}");
        }
        assert_eq!(names(&world.paths.role_dir(&role.key)), ["default"]);
    }
}

/// jackin is killed while git clones. git still holds the lock, so nobody works in the same folder; when it is gone too, the next
/// run finds nothing half-made.
#[tokio::test]
async fn a_killed_clone_keeps_the_lock_until_git_is_gone_and_leaves_nothing() {
    let world = world();
    let role = world.role(&world.remote("role"));
    let fifo = world.root.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let path = world.path_with_git(&format!("case \" $* \" in *' fetch '*) echo $$ > {}; exec sleep 1000;; esac", fifo.display()));
    let mut jackin = world.resolving(&role).env("PATH", path).spawn().unwrap();
    // Opening the pipe waits until git has come to the fetch.
    let fetching = fs::read_to_string(&fifo).unwrap();
    jackin.kill().unwrap();
    jackin.wait().unwrap();
    assert_eq!(names(&world.paths.role_dir(&role.key)).len(), 1);
    assert!(Lock::try_exclusive(&world.paths.role_lock(&role.key)).unwrap().is_none());

    let end_git = |_: &str| assert!(Command::new("kill").args(["-9", fetching.trim()]).status().unwrap().success());
    let found = role.resolve(&world.paths, MINUTE, &end_git).await.unwrap();
    assert_eq!(found.problem, None);
    assert_eq!(names(&world.paths.role_dir(&role.key)), ["default"]);
}

#[tokio::test]
async fn a_resolve_that_changes_nothing_starts_two_processes() {
    let world = world();
    let role = world.role(&world.remote("role"));
    let start = std::time::Instant::now();
    world.resolve(&role, MINUTE).await;
    let clone = start.elapsed();
    let log = world.root.path().join("log");
    let path = world.path_with_git(&format!("echo \"$*\" >> {}", log.display()));
    let output = world.resolving(&role).env("TEST_CACHED", "1").env("PATH", path).output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().contains("commit "));
    let lines = fs::read_to_string(&log).unwrap();
    assert_eq!(lines.lines().count(), 2, "{lines}");

    // Shown, not asserted: time belongs to the benchmarks.
    let mut times = Vec::new();
    for _ in 0..20 {
        let start = std::time::Instant::now();
        world.resolve(&role, MINUTE).await;
        times.push(start.elapsed());
    }
    times.sort();
    println!("clone {clone:?}; no-op resolve: best {:?}, median {:?}", times[0], times[10]);
}

// ---- environment, mounts, binaries ----

#[test]
fn host_variables_are_secrets_with_digests() {
    let values = env::host_values(["A", "UNSET"], |name| (name == "A").then(|| "hunter2".into()));
    assert_eq!(values.keys().collect::<Vec<_>>(), ["A"]);
    assert!(!format!("{values:?}").contains("hunter2"));
    let digests = env::digests(&values, &KeyedDigest::with_key([0; 32]));
    assert!(digests["A"].starts_with("hmac-sha256:") && digests["A"].len() == 28);
    let all = [("TZ", "UTC"), ("JACKIN_DISABLE_TIRITH", "1"), ("PATH", "/bin"), ("NO_PROXY", "x"), ("https_proxy", "http://u:p@h:1")];
    let all = || all.map(|(name, value)| (name.into(), value.into()));
    assert_eq!(env::passthrough(all()).keys().collect::<Vec<_>>(), ["JACKIN_DISABLE_TIRITH", "NO_PROXY", "TZ"]);
    assert_eq!(env::secret_proxies(all()).keys().collect::<Vec<_>>(), ["https_proxy"]);
    assert!(env::is_image_reference("registry:5000/a/b@sha256:0f") && !env::is_image_reference("a b"));
}

#[test]
fn mount_paths_are_looked_at() {
    let world = world();
    let root = fs::canonicalize(world.root.path()).unwrap();
    write(&root.join("file"), "");
    symlink(root.join("home"), root.join("link")).unwrap();
    symlink("/nowhere", root.join("dangling")).unwrap();
    let kind = |name: &str| path_fact(root.join(name).to_str().unwrap()).kind;
    assert_eq!(kind("home"), PathKind::Directory);
    assert_eq!(kind("file"), PathKind::File);
    assert_eq!(kind("none"), PathKind::Missing);
    assert_eq!(kind("file/below"), PathKind::Missing);
    assert_eq!(kind("dangling"), PathKind::Missing);
    assert_eq!(path_fact("/dev/null").kind, PathKind::Other);
    assert_eq!(path_fact(root.join("link").to_str().unwrap()).canonical, root.join("home").to_str().unwrap());
    if !is_root() {
        fs::create_dir_all(root.join("closed/in")).unwrap();
        fs::set_permissions(root.join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
        assert_eq!(kind("closed/in"), PathKind::Unreadable);
        fs::set_permissions(root.join("closed"), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn binaries_come_from_the_environment_or_the_newest_in_the_cache() {
    let world = world();
    let mut digests = binaries::FileDigests::load(&world.paths);
    let none = |_: &str| None;
    assert_eq!(binaries::agent_binary(Agent::Amp, &world.paths, none, Arch::Amd64, &mut digests).unwrap(), None);
    for version in ["0.9.2", "0.10.0", "0.10.0-rc1", "junk"] {
        write(&world.paths.agent_binaries().join(format!("amp/{version}/linux-amd64/amp")), version);
    }
    let found = binaries::agent_binary(Agent::Amp, &world.paths, none, Arch::Amd64, &mut digests).unwrap().unwrap();
    assert_eq!((found.version.as_str(), found.executable, found.source), ("0.10.0", false, BinarySource::Cache));
    assert_eq!(found.digest, jackin::resource::sha256_hex(b"0.10.0"));
    digests.save();
    let mut again = binaries::FileDigests::load(&world.paths);
    assert_eq!(again.of(Path::new(&found.path)).unwrap(), found.digest);
    // A changed file is seen, even with the size and the time of the old one.
    let modified = fs::metadata(&found.path).unwrap().modified().unwrap();
    fs::write(&found.path, "0.10.9").unwrap();
    fs::File::options().write(true).open(&found.path).unwrap().set_modified(modified).unwrap();
    assert_eq!(again.of(Path::new(&found.path)).unwrap(), jackin::resource::sha256_hex(b"0.10.9"));

    let given = found.path.clone();
    let env = |name: &str| (name == "JACKIN_AGENT_BIN_AMP").then(|| OsString::from(&given));
    let found = binaries::agent_binary(Agent::Amp, &world.paths, env, Arch::Amd64, &mut digests).unwrap().unwrap();
    assert_eq!((found.version, found.source), (format!("env-{}", &found.digest[..8]), BinarySource::Environment));
    for wrong in ["/nowhere", "/", "relative"] {
        let env = |_: &str| Some(OsString::from(wrong));
        let error = binaries::capsule_binary(&world.paths, env, None, "0.1.0", Arch::Amd64, &mut digests).unwrap_err();
        assert!(error.code == "binary.unusable" && error.detail.contains("JACKIN_CAPSULE_BIN"), "{error}");
    }

    // Beside the executable, when it is a Linux program of the right machine; else the cache.
    let exe = world.root.path().join("bin/jackin");
    write(&world.paths.capsule_binaries().join("0.1.0/linux-amd64/jackin-capsule"), "cached");
    write(&exe.with_file_name("jackin-capsule"), "something for another system, long enough");
    let mut find =
        |arch: Arch| binaries::capsule_binary(&world.paths, none, Some(&exe), "0.1.0", arch, &mut digests).unwrap().map(|fact| fact.source);
    assert_eq!((find(Arch::Amd64), find(Arch::Arm64)), (Some(BinarySource::Cache), None));
    let mut elf = [0; 64];
    elf[..4].copy_from_slice(b"\x7fELF");
    elf[18] = 183;
    fs::write(exe.with_file_name("jackin-capsule"), elf).unwrap();
    assert_eq!((find(Arch::Amd64), find(Arch::Arm64)), (Some(BinarySource::Cache), Some(BinarySource::Beside)));
}

// ---- credentials ----

#[tokio::test]
async fn credential_files_are_digested_not_shown() {
    let world = world();
    let (home, digest) = (&world.paths.home, KeyedDigest::with_key([7; 32]));
    let fact = async |agent| credentials::credential_fact(agent, home, None, &digest).await.unwrap();
    assert_eq!(fact(Agent::Codex).await, None);
    write(&home.join(".claude/.credentials.json"), "s3cret");
    write(&home.join(".claude.json"), r#"{"oauthAccount":{"id":1},"numStartups":1}"#);
    let before = fact(Agent::Claude).await.unwrap();
    assert_eq!(before.files.keys().collect::<Vec<_>>(), ["claude/account.json", "claude/credentials.json"]);
    assert!(!format!("{before:?}").contains("s3cret"));
    write(&home.join(".claude.json"), r#"{"oauthAccount":{"id":1},"numStartups":2}"#);
    assert_eq!(fact(Agent::Claude).await.unwrap(), before);
    write(&home.join(".claude.json"), r#"{"oauthAccount":{"id":2},"numStartups":2}"#);
    assert_ne!(fact(Agent::Claude).await.unwrap(), before);

    for file in ["config.toml", "device_id", "credentials/a.json", "credentials/deep/b.json", "sessions/x"] {
        write(&home.join(".kimi-code").join(file), file);
    }
    symlink("/etc/passwd", home.join(".kimi-code/credentials/link")).unwrap();
    let kimi: Vec<_> = credentials::handoff_files(Agent::Kimi, home, None).unwrap().into_iter().map(|handoff| handoff.to).collect();
    assert_eq!(kimi, ["kimi-code/config.toml", "kimi-code/credentials/a.json", "kimi-code/credentials/deep/b.json", "kimi-code/device_id"]);

    fs::create_dir(home.join(".codex")).unwrap();
    symlink(home.join(".claude.json"), home.join(".codex/auth.json")).unwrap();
    assert_eq!(credentials::handoff_files(Agent::Codex, home, None).unwrap_err().code, "credential.symlink");
    let direct = credentials::read(&credentials::Source::File(home.join(".codex/auth.json"))).await;
    assert_eq!(direct.unwrap_err().code, "credential.symlink");

    let other = world.root.path().join("other");
    assert_eq!(credentials::handoff_files(Agent::Grok, home, Some(&other)).unwrap_err().code, "credential.source_incomplete");
    write(&other.join("auth.json"), "x");
    assert_eq!(credentials::handoff_files(Agent::Grok, home, Some(&other)).unwrap().len(), 1);
}

#[tokio::test]
async fn the_github_token_is_given_or_in_the_hosts_file_or_asked_of_gh() {
    let world = world();
    let (config, bin) = (world.root.path().join("gh"), world.root.path().join("bin"));
    let token = async |given: Option<&str>| github::github_token(given.map(Into::into), &config, Some(bin.as_os_str())).await;
    assert!(token(None).await.is_none());
    assert_eq!(token(Some("given")).await.unwrap().expose_secret(), "given");
    write_program(&bin.join("gh"), "#!/bin/sh\necho from-gh\n");
    assert_eq!(token(None).await.unwrap().expose_secret(), "from-gh");
    let hosts = "ghe.example.com:\n    oauth_token: other\ngithub.com:\n    users:\n        ann:\n            oauth_token: nested\n    oauth_token: \"top\"\n    user: ann\n";
    write(&config.join("hosts.yml"), hosts);
    assert_eq!(token(None).await.unwrap().expose_secret(), "top");
}

/// Not a test by itself: reads one reference with the `op` found on its search path.
#[test]
fn process_that_reads_a_reference() {
    if std::env::var("TEST_OP").is_err() {
        return;
    }
    match block_on(op::resolve_op("op://vault/item/field", Some("acc"), Duration::from_secs(20))) {
        Ok(value) => println!("\nvalue {:?}", value.expose_secret()),
        Err(error) => println!("\nerror {} {} {:?}", error.code, error, error),
    }
}

#[test]
fn references_are_read_with_op_and_never_told() {
    let world = world();
    let bin = world.root.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let read = || {
        let output = child("process_that_reads_a_reference").env("TEST_OP", "1").env("PATH", &bin).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(read().contains("error op.missing"));
    write_program(&bin.join("op"), "#!/bin/sh\n[ \"$*\" = 'read --account=acc -- op://vault/item/field' ] && printf 'line\\nlast\\n'\n");
    assert!(read().contains("value \"line\\nlast\""));
    write_program(&bin.join("op"), "#!/bin/sh\necho s3cret; echo '[ERROR] You are not currently signed in.' >&2; exit 1\n");
    let text = read();
    assert!(text.contains("error op.signed_out") && !text.contains("s3cret"), "{text}");
    let wrong = block_on(op::resolve_op("https://x", None, op::LAUNCH_LIMIT)).unwrap_err();
    assert_eq!(wrong.code, "op.reference_invalid");
}

// ---- questions ----

#[test]
fn questions_take_defaults_options_and_skips() {
    let options = ["red".to_owned(), "2".to_owned()];
    let ask = |question: &prompt::Question<'_>, typed: &str| {
        let mut shown = Vec::new();
        let answer = prompt::ask_on(question, &mut typed.as_bytes(), &mut shown).map(|answer| match answer {
            prompt::Answer::Given(text) => text.expose_secret().to_owned(),
            prompt::Answer::Skipped => "(skipped)".to_owned(),
        });
        (answer.unwrap_or_else(|d| d.code), String::from_utf8(shown).unwrap())
    };
    let plain = prompt::Question { text: "Name", default: Some("ann"), ..Default::default() };
    assert_eq!(ask(&plain, "\n"), ("ann".to_owned(), "Name [ann]: ".to_owned()));
    assert_eq!(ask(&plain, "bob\n").0, "bob");
    let choice = prompt::Question { text: "Colour", options: &options, ..Default::default() };
    assert_eq!(ask(&choice, "green\n1\n").0, "red");
    assert_eq!(ask(&choice, "2\n").0, "2");
    assert_eq!(ask(&choice, "").0, "prompt.cancelled");
    let skippable = prompt::Question { text: "Token", skippable: true, ..Default::default() };
    assert_eq!(ask(&skippable, "\n").0, "(skipped)");
    let mut shown = Vec::new();
    assert!(prompt::confirm_on("Remove?", &mut "what\nyes\n".as_bytes(), &mut shown).unwrap());
    assert!(!prompt::confirm_on("Remove?", &mut "\n".as_bytes(), &mut shown).unwrap());
    assert_eq!(prompt::hidden_line(&mut "aé\x7fb\r".as_bytes()).unwrap().unwrap().as_str(), "ab");
    assert!(prompt::hidden_line(&mut "ab\x03".as_bytes()).unwrap().is_none());
}
