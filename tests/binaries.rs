//! Programs from their makers: looked up, downloaded, fallen back on. A real HTTPS server stands in for every maker, through the mirror that the
//! operator can name as well, and breaks on demand. Times that matter are given, not waited for.

mod support;

use jackin::config::{Agent, Binaries};
use jackin::event::Event;
use jackin::facts::{Arch, Lookup, Release};
use jackin::gather::binaries::{FileDigests, agent_binary, cached_agent, capsule_place, host_arch};
use jackin::gather::download::{Installed, Wanted, install};
use jackin::gather::http::{Http, Limits, Surroundings};
use jackin::gather::mirror::Mirrors;
use jackin::gather::releases::{Asking, FAILURE_TTL, Makers, Program, TTL};
use jackin::gather::{Lock, Paths};
use jackin::graph::programs;
use jackin::resource::{Download, sha256_hex};
use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const CA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/binaries/ca.pem");

// ---- the makers ----

#[derive(Debug, Clone)]
enum Fault {
    Status(u16),
    /// So many bytes of the body, then the connection is gone.
    Reset(usize),
    /// So many bytes, then nothing more, but the connection stays.
    Stall(usize),
    Redirect(String),
    /// As if it knew no ranges.
    Whole,
    /// Without saying how long it is; so many bytes.
    Cut(usize),
    /// Nothing before this path exists.
    Until(PathBuf),
}

#[derive(Debug, Clone, PartialEq)]
struct Asked {
    path: String,
    range: Option<(u64, u64)>,
    agent: String,
    token: bool,
}

#[derive(Default)]
struct World {
    files: BTreeMap<String, Vec<u8>>,
    /// For the next requests of a path; the last stays when `forever`.
    faults: Vec<(String, Fault, bool)>,
    log: Vec<Asked>,
    no_ranges: bool,
}

/// Serves until the test is over.
struct Server {
    port: u16,
    world: Arc<Mutex<World>>,
}

impl Server {
    fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let world = Arc::new(Mutex::new(World::default()));
        let (config, shared) = (tls(), world.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, shared) = (config.clone(), shared.clone());
                std::thread::spawn(move || serve(stream, config, &shared));
            }
        });
        Server { port, world }
    }

    fn base(&self) -> String {
        format!("https://localhost:{}/m", self.port)
    }

    /// At a maker's URL.
    fn put(&self, url: &str, content: impl AsRef<[u8]>) {
        let path = format!("/m/{}", url.strip_prefix("https://").unwrap());
        self.world.lock().unwrap().files.insert(path, content.as_ref().to_vec());
    }

    fn next(&self, path: &str, fault: Fault) {
        self.world.lock().unwrap().faults.push((path.to_owned(), fault, false));
    }

    fn always(&self, path: &str, fault: Fault) {
        self.world.lock().unwrap().faults.push((path.to_owned(), fault, true));
    }

    fn mend(&self) {
        self.world.lock().unwrap().faults.clear();
    }

    /// What was asked for since the last time.
    fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.world.lock().unwrap().log)
    }

    fn download(&self, name: &str, content: &[u8]) -> Download {
        let url = format!("https://maker.example/{name}");
        self.put(&url, content);
        let url = format!("{}/maker.example/{name}", self.base());
        Download { url, sha256: Some(sha256_hex(content)), member: None }
    }
}

fn tls() -> Arc<rustls::ServerConfig> {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let file = |name: &str| fs::read(Path::new(CA).with_file_name(name)).unwrap();
    let chain = CertificateDer::pem_slice_iter(&file("server.pem")).collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(&file("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap())
}

/// One request; whatever breaks is the client's to notice.
fn serve(stream: TcpStream, config: Arc<rustls::ServerConfig>, world: &Mutex<World>) {
    let connection = rustls::ServerConnection::new(config).unwrap();
    let mut stream = BufReader::new(rustls::StreamOwned::new(connection, stream));
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        match stream.read_line(&mut line) {
            Ok(n) if n > 2 => head.push(line.trim_end().to_owned()),
            _ => break,
        }
    }
    let Some(path) = head.first().and_then(|line| line.split(' ').nth(1)).map(str::to_owned) else { return };
    let header = |name: &str| {
        head.iter().find_map(|line| line.split_once(": ").filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.to_owned()))
    };
    let range = header("range").and_then(|r| {
        let (first, last) = r.strip_prefix("bytes=")?.split_once('-').map(|(a, b)| (a.to_owned(), b.to_owned()))?;
        Some((first.parse::<u64>().ok()?, last.parse::<u64>().ok()?))
    });
    let (mut file, fault, no_ranges) = {
        let mut world = world.lock().unwrap();
        let asked =
            Asked { path: path.clone(), range, agent: header("user-agent").unwrap_or_default(), token: header("authorization").is_some() };
        world.log.push(asked);
        let at = world.faults.iter().position(|(of, fault, _)| {
            // Asking for a single byte is how the length is found out; what breaks a body leaves it alone.
            let body = matches!(fault, Fault::Reset(_) | Fault::Stall(_) | Fault::Whole);
            path.ends_with(of.as_str()) && !(body && range == Some((0, 0)))
        });
        let fault = at.map(|at| if world.faults[at].2 { world.faults[at].1.clone() } else { world.faults.remove(at).1 });
        (world.files.get(&path).cloned(), fault, world.no_ranges)
    };
    if let Some(Fault::Until(path)) = &fault {
        let began = Instant::now();
        while !path.exists() && began.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(5));
        }
        file = file.filter(|_| path.exists());
    }
    let out = stream.get_mut();
    let range = range.filter(|_| !no_ranges && !matches!(fault, Some(Fault::Whole)));
    let (status, body, more) = match (&fault, file, range) {
        (Some(Fault::Status(code)), ..) => (*code, Vec::new(), String::new()),
        (Some(Fault::Redirect(to)), ..) => (302, Vec::new(), format!("Location: {to}\r\n")),
        (_, None, _) => (404, Vec::new(), String::new()),
        (_, Some(file), Some((first, last))) => {
            let last = last.min(file.len() as u64 - 1);
            let more = format!("Content-Range: bytes {first}-{last}/{}\r\n", file.len());
            (206, file[first as usize..=last as usize].to_vec(), more)
        }
        (_, Some(file), None) => (200, file, String::new()),
    };
    let length = if matches!(fault, Some(Fault::Cut(_))) { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let _ = write!(out, "HTTP/1.1 {status} So\r\n{length}{more}Connection: close\r\n\r\n");
    match fault {
        Some(Fault::Reset(bytes)) => {
            let _ = out.write_all(&body[..bytes.min(body.len())]).and_then(|()| out.flush());
            return;
        }
        Some(Fault::Stall(bytes)) => {
            let _ = out.write_all(&body[..bytes.min(body.len())]).and_then(|()| out.flush());
            // Until the client has had enough.
            let _ = out.read(&mut [0; 1]);
            return;
        }
        Some(Fault::Cut(bytes)) => {
            let _ = out.write_all(&body[..bytes.min(body.len())]);
        }
        _ => {
            let _ = out.write_all(&body);
        }
    }
    out.conn.send_close_notify();
    let _ = out.flush();
}

// ---- this host ----

struct Site {
    root: tempfile::TempDir,
    server: Server,
}

fn site() -> Site {
    Site { root: tempfile::tempdir().unwrap(), server: Server::start() }
}

/// Short enough to run into, long enough for a busy machine.
fn limits() -> Limits {
    Limits {
        connect: Duration::from_secs(20),
        text: Duration::from_secs(20),
        pause: Duration::from_millis(1),
        idle: Duration::from_secs(20),
        download: Duration::from_secs(60),
        least_range: 64 << 10,
        ..Limits::default()
    }
}

fn http(limits: Limits) -> Http {
    Http::new("jackin/9.9.9".to_owned(), Surroundings { authorities: Some(CA.into()), ..Surroundings::default() }, limits)
}

fn quiet(_: &str) {}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

impl Site {
    fn paths(&self) -> Paths {
        let root = self.root.path().to_string_lossy().into_owned();
        Paths::from_env(|name| (name == "HOME").then(|| root.clone().into())).unwrap()
    }

    fn makers(&self, arch: Arch) -> Makers {
        self.makers_with(arch, limits(), true)
    }

    fn makers_with(&self, arch: Arch, limits: Limits, can_run: bool) -> Makers {
        let base = self.server.base();
        let mirrors = Mirrors::new(|name| (name == "JACKIN_AGENT_MIRROR").then(|| base.clone().into()), &Binaries::default()).unwrap();
        Makers::new(http(limits), mirrors, &self.paths(), arch, can_run)
    }

    fn wanted(&self, download: Download) -> Wanted {
        let path = self.paths().agent_binaries().join("claude/2.0/linux-amd64/claude");
        let digest = download.sha256.clone().unwrap_or_else(|| "unpublished-2.0".to_owned());
        Wanted {
            name: "claude".to_owned(),
            version: "2.0".to_owned(),
            path,
            digest,
            download,
            variable: "JACKIN_AGENT_BIN_CLAUDE".to_owned(),
            arch: Arch::Amd64,
        }
    }

    fn install(&self, wanted: &Wanted, limits: Limits) -> Result<Installed, jackin::diagnostic::Diagnostic> {
        run(install(&http(limits), wanted, &|_| {}, &quiet))
    }

    /// Files beside a program.
    fn beside(&self, wanted: &Wanted) -> Vec<String> {
        let entries = fs::read_dir(wanted.path.parent().unwrap()).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|e| e.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Of no pattern that a mistake in offsets could hide behind.
fn bytes(count: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..count).map(|_| next()).collect()
}

fn archive(member: &str, content: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (name, content) in [("README", b"read me".as_slice()), (member, content)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

fn github(tag: &str, repo: &str, assets: &[(&str, &[u8])]) -> String {
    let asset = |(name, content): &(&str, &[u8])| {
        let url = format!("https://github.com/{repo}/releases/download/{tag}/{name}");
        serde_json::json!({ "name": name, "digest": format!("sha256:{}", sha256_hex(content)), "browser_download_url": url })
    };
    serde_json::json!({ "tag_name": tag, "assets": assets.iter().map(asset).collect::<Vec<_>>() }).to_string()
}

fn is_whole(wanted: &Wanted, content: &[u8]) {
    assert!(fs::read(&wanted.path).unwrap() == content, "other bytes were installed");
    assert_eq!(fs::metadata(&wanted.path).unwrap().permissions().mode() & 0o777, 0o755);
}

fn length(asked: &[Asked]) -> u64 {
    asked.iter().filter_map(|a| a.range).map(|(first, last)| last - first + 1).sum()
}

// ---- looking up and downloading, maker by maker ----

#[track_caller]
fn from_release_to_cache(site: &Site, arch: Arch, agent: Agent, version: &str, content: &[u8]) -> Release {
    let makers = site.makers(arch);
    let lookup = run(makers.look_up(&Program::Agent(agent), false, Asking::WhenNeeded, 1000, &quiet));
    let Some(Lookup::Newest(release)) = lookup else { panic!("{agent}: {lookup:?}") };
    assert_eq!(release.version, version);
    let paths = site.paths();
    let folder = version.replace('+', "_");
    let path = paths.agent_binaries().join(format!("{agent}/{folder}/linux-{arch}/{agent}"));
    let wanted = Wanted {
        name: agent.to_string(),
        version: version.to_owned(),
        path,
        digest: release.digest(),
        download: release.download.clone(),
        variable: programs::variable(agent),
        arch,
    };
    assert_eq!(site.install(&wanted, limits()).unwrap(), Installed::Downloaded);
    is_whole(&wanted, content);
    let mut digests = FileDigests::load(&paths);
    let fact = cached_agent(agent, &paths, version, arch, &mut digests).unwrap().unwrap();
    assert_eq!((&fact.digest, fact.version.as_str(), fact.executable), (&release.digest(), folder.as_str(), true));
    assert_eq!(agent_binary(agent, &paths, |_| None, arch, &mut digests).unwrap(), Some(fact));
    release
}

#[test]
fn every_agent_comes_from_its_maker() {
    let site = site();
    let put = |url: &str, content: &[u8]| site.server.put(url, content);
    let sum = |content: &[u8]| sha256_hex(content);
    for (arch, x64, x86_64) in [(Arch::Amd64, "x64", "x86_64"), (Arch::Arm64, "arm64", "aarch64")] {
        let program = |name: &str| format!("#!/bin/sh\necho {name} for {arch}\n").into_bytes();
        let check = |agent, version: &str, content: &[u8]| from_release_to_cache(&site, arch, agent, version, content);

        let claude = program("claude");
        let base = "https://downloads.claude.ai/claude-code-releases";
        put(&format!("{base}/latest"), b"2.1.0+build\n");
        let manifest = format!("{{\"platforms\":{{\"linux-{x64}\":{{\"binary\":\"claude\",\"checksum\":\"{}\"}}}}}}", sum(&claude));
        put(&format!("{base}/2.1.0+build/manifest.json"), manifest.as_bytes());
        put(&format!("{base}/2.1.0+build/linux-{x64}/claude"), &claude);
        check(Agent::Claude, "2.1.0+build", &claude);

        let codex = program("codex");
        let member = format!("codex-{x86_64}-unknown-linux-musl");
        let (asset, packed) = (format!("{member}.tar.gz"), archive(&member, &codex));
        put(
            "https://api.github.com/repos/openai/codex/releases/latest",
            github("rust-v0.9.1", "openai/codex", &[(&asset, &packed)]).as_bytes(),
        );
        put(&format!("https://github.com/openai/codex/releases/download/rust-v0.9.1/{asset}"), &packed);
        check(Agent::Codex, "0.9.1", &codex);

        let amp = program("amp");
        put("https://static.ampcode.com/cli/cli-version.txt", b"0.0.17-g1");
        put(&format!("https://static.ampcode.com/cli/0.0.17-g1/linux-{x64}-amp.sha256"), format!("{}  amp\n", sum(&amp)).as_bytes());
        put(&format!("https://static.ampcode.com/cli/0.0.17-g1/amp-linux-{x64}"), &amp);
        check(Agent::Amp, "0.0.17-g1", &amp);

        let kimi = program("kimi");
        let base = "https://code.kimi.com/kimi-code";
        put(&format!("{base}/latest"), b"1.2");
        let manifest = format!("{{\"platforms\":{{\"linux-{x64}\":{{\"filename\":\"kimi-{x64}\",\"checksum\":\"{}\"}}}}}}", sum(&kimi));
        put(&format!("{base}/binaries/1.2/manifest.json"), manifest.as_bytes());
        put(&format!("{base}/binaries/1.2/kimi-{x64}"), &kimi);
        check(Agent::Kimi, "1.2", &kimi);

        let opencode = program("opencode");
        let (asset, packed) = (format!("opencode-linux-{x64}.tar.gz"), archive("opencode", &opencode));
        put(
            "https://api.github.com/repos/anomalyco/opencode/releases/latest",
            github("v3.0", "anomalyco/opencode", &[(&asset, &packed)]).as_bytes(),
        );
        put(&format!("https://github.com/anomalyco/opencode/releases/download/v3.0/{asset}"), &packed);
        check(Agent::Opencode, "3.0", &opencode);

        let grok = program("grok");
        let base = "https://storage.googleapis.com/grok-build-public-artifacts/cli";
        // The first address for it does not answer.
        put(&format!("{base}/stable"), b"0.4.2");
        put(&format!("{base}/grok-0.4.2-linux-{x86_64}"), &grok);
        let release = check(Agent::Grok, "0.4.2", &grok);
        assert_eq!((release.download.sha256.as_deref(), release.digest().as_str()), (None, "unpublished-0.4.2"));
    }
    let asked = site.server.asked();
    assert!(asked.iter().all(|a| a.agent == "jackin/9.9.9"), "{asked:?}");
    assert!(asked.iter().all(|a| !a.token), "a mirror gets no GitHub token");
}

#[test]
fn the_capsule_is_a_release_of_this_very_version() {
    let site = site();
    let makers = site.makers(Arch::Amd64);
    let look = || run(makers.look_up(&Program::Capsule("0.1.0+abc1234".to_owned()), false, Asking::WhenNeeded, 1000, &quiet));
    let Some(Lookup::Failed { why }) = look() else { panic!("there is none yet") };
    assert!(why.contains("/tags/v0.1.0+abc1234") && why.contains("404"), "{why}");
    let packed = archive("jackin-capsule", b"capsule");
    let of = "https://api.github.com/repos/jackin-project/jackin/releases/tags/v0.1.0+abc1234";
    let asset = "jackin-capsule-linux-amd64.tar.gz";
    site.server.put(of, github("v0.1.0+abc1234", "jackin-project/jackin", &[(asset, &packed)]).replace("sha256:", "md5:"));
    // No failure is remembered, for nothing stands in for a capsule.
    let Some(Lookup::Failed { why }) = look() else { panic!("without a digest it is refused") };
    assert!(why.contains("no checksum is published"), "{why}");
    site.server.put(of, github("v0.1.0+abc1234", "jackin-project/jackin", &[(asset, &packed)]));
    site.server.put(&format!("https://github.com/jackin-project/jackin/releases/download/v0.1.0+abc1234/{asset}"), &packed);
    let Some(Lookup::Newest(release)) = look() else { panic!("it is there now") };
    assert_eq!(release.version, "0.1.0+abc1234");
    let path = capsule_place(&site.paths(), &release.version, Arch::Amd64);
    assert!(path.ends_with("jackin-capsule/0.1.0_abc1234/linux-amd64/jackin-capsule"));
    let (digest, download) = (release.digest(), release.download);
    let (name, variable, arch) = ("jackin-capsule".to_owned(), "V".to_owned(), Arch::Amd64);
    let wanted = Wanted { name, version: release.version, path, digest, download, variable, arch };
    site.install(&wanted, limits()).unwrap();
    is_whole(&wanted, b"capsule");
}

#[test]
fn an_answer_of_no_use_is_a_failure_with_its_reason() {
    let latest = "https://downloads.claude.ai/claude-code-releases/latest";
    let manifest = "https://downloads.claude.ai/claude-code-releases/2.0/manifest.json";
    let check = |prepare: &dyn Fn(&Server), requests: usize, reason: &str| {
        let site = site();
        site.server.put(latest, "2.0");
        prepare(&site.server);
        let limits = Limits { text: Duration::from_secs(3), ..limits() };
        let lookup =
            run(site.makers_with(Arch::Amd64, limits, true).look_up(&Program::Agent(Agent::Claude), false, Asking::Always, 0, &quiet));
        let Some(Lookup::Failed { why }) = &lookup else { panic!("{reason}: {lookup:?}") };
        assert!(why.contains(reason), "{why}");
        assert_eq!(site.server.asked().len(), requests, "{reason}");
    };
    check(&|s| s.always("latest", Fault::Status(403)), 1, "the server answers 403");
    check(&|s| s.always("latest", Fault::Status(503)), 2, "the server answers 503");
    check(&|s| s.always("latest", Fault::Stall(1)), 2, "in time");
    check(&|s| s.put(latest, "<html>"), 1, "this is no version");
    check(&|s| s.put(latest, "../../etc"), 1, "this is no version");
    check(&|_| {}, 2, "404");
    check(&|s| s.put(manifest, "{"), 2, "no JSON");
    check(&|s| s.put(manifest, "{\"platforms\":{\"linux-x64\":{\"binary\":\"claude\"}}}"), 2, "no checksum is published");
    check(&|s| s.put(manifest, "{\"platforms\":{\"linux-x64\":{\"binary\":\"../x\"}}}"), 2, "names no file");
    check(&|s| s.always("latest", Fault::Redirect("http://localhost:1/latest".to_owned())), 1, "not encrypted");
    check(&|s| s.always("latest", Fault::Redirect("latest".to_owned())), 8, "in a circle");
}

#[test]
fn a_passing_error_is_tried_again() {
    let site = site();
    site.server.put("https://static.ampcode.com/cli/cli-version.txt", "1");
    site.server.put("https://static.ampcode.com/cli/1/linux-x64-amp.sha256", "a".repeat(64));
    site.server.next("cli-version.txt", Fault::Status(500));
    let lookup = run(site.makers(Arch::Amd64).look_up(&Program::Agent(Agent::Amp), false, Asking::WhenNeeded, 0, &quiet));
    assert!(matches!(lookup, Some(Lookup::Newest(_))), "{lookup:?}");
    assert_eq!(site.server.asked().len(), 3);
}

#[test]
fn nobody_there_is_said_at_once() {
    let site = site();
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mirrors = Mirrors::new(|_| Some(format!("https://localhost:{port}").into()), &Binaries::default()).unwrap();
    let makers = Makers::new(http(limits()), mirrors, &site.paths(), Arch::Amd64, true);
    let lookup = run(makers.look_up(&Program::Agent(Agent::Kimi), true, Asking::Always, 0, &quiet));
    assert!(matches!(&lookup, Some(Lookup::Failed { why }) if why.contains("no connection to localhost")), "{lookup:?}");
}

#[test]
fn a_server_that_nobody_vouches_for_is_not_trusted() {
    let site = site();
    let stranger =
        Http::new("jackin".to_owned(), Surroundings { authorities: Some("/nonexistent.pem".into()), ..Surroundings::default() }, limits());
    let trouble = run(stranger.text(&format!("{}/x", site.server.base()), None)).unwrap_err().to_string();
    assert!(trouble.contains("SSL_CERT_FILE"), "{trouble}");
    let wrong_name = run(http(limits()).text(&format!("https://127.0.0.2:{}/x", site.server.port), None)).unwrap_err().to_string();
    assert!(wrong_name.contains("cannot be trusted") || wrong_name.contains("no connection"), "{wrong_name}");
}

#[test]
fn an_answer_holds_for_an_hour_and_a_failure_for_five_minutes() {
    let site = site();
    let amp = Program::Agent(Agent::Amp);
    let makers = site.makers(Arch::Amd64);
    let look = |cached, asking, now| run(makers.look_up(&amp, cached, asking, now, &quiet));
    let failed = |lookup: Option<Lookup>| matches!(lookup, Some(Lookup::Failed { .. }));
    let newest = |lookup: Option<Lookup>| matches!(lookup, Some(Lookup::Newest(_)));
    let requests = || site.server.asked().len();

    assert_eq!((look(true, Asking::WhenNeeded, 0), look(false, Asking::Never, 0)), (Some(Lookup::Stale), None));
    assert_eq!(requests(), 0, "what is cached waits for nobody, and offline is offline");
    assert!(failed(look(false, Asking::WhenNeeded, 0)));
    assert_eq!(requests(), 1);
    assert!(failed(look(true, Asking::WhenNeeded, FAILURE_TTL - 1)) && failed(look(false, Asking::WhenNeeded, 1)));
    assert_eq!(requests(), 0, "the failure is remembered");
    assert!(failed(look(true, Asking::Fresh, 0)));
    assert_eq!(requests(), 1, "who wants the newest tries again");
    site.server.put("https://static.ampcode.com/cli/cli-version.txt", "1");
    site.server.put("https://static.ampcode.com/cli/1/linux-x64-amp.sha256", "a".repeat(64));
    assert!(newest(look(false, Asking::WhenNeeded, FAILURE_TTL)));
    assert_eq!(requests(), 2);
    let since = FAILURE_TTL;
    assert!(newest(look(true, Asking::WhenNeeded, since + TTL - 1)) && newest(look(false, Asking::WhenNeeded, since)));
    assert!(newest(look(true, Asking::Fresh, since + TTL - 1)));
    assert_eq!(requests(), 0, "the answer is remembered");
    assert_eq!(look(true, Asking::WhenNeeded, since + TTL), Some(Lookup::Stale));
    assert_eq!(look(true, Asking::WhenNeeded, since - 1), Some(Lookup::Stale), "a time to come was written under another clock");
    assert_eq!(requests(), 0);
    assert!(newest(look(true, Asking::Always, since)));
    assert_eq!(requests(), 2, "asked for by name");
    run(makers.refresh(&amp, since + TTL));
    assert!(newest(look(true, Asking::WhenNeeded, since + TTL + 1)));
    makers.remember_failure(&amp, "its download broke", since + TTL + 2);
    assert_eq!(look(true, Asking::WhenNeeded, since + TTL + 3), Some(Lookup::Failed { why: "its download broke".to_owned() }));
    // Another mirror may know another release.
    let other = Mirrors::new(|_| Some("https://localhost:1".into()), &Binaries::default()).unwrap();
    let other = Makers::new(http(limits()), other, &site.paths(), Arch::Amd64, true);
    assert_eq!(run(other.look_up(&amp, true, Asking::WhenNeeded, since + TTL + 3, &quiet)), Some(Lookup::Stale));
    let off = Mirrors::new(|_| Some("off".into()), &Binaries::default()).unwrap();
    let off = Makers::new(http(limits()), off, &site.paths(), Arch::Amd64, true);
    assert_eq!(run(off.look_up(&amp, false, Asking::Always, 0, &quiet)), None);
    // A damaged memory is none.
    fs::write(site.paths().releases().join("amp-linux-amd64.json"), "{").unwrap();
    assert_eq!(look(true, Asking::WhenNeeded, since), Some(Lookup::Stale));
}

#[test]
fn many_who_need_one_answer_ask_once() {
    let site = site();
    site.server.put("https://static.ampcode.com/cli/cli-version.txt", "1");
    site.server.put("https://static.ampcode.com/cli/1/linux-x64-amp.sha256", "a".repeat(64));
    let makers = site.makers(Arch::Amd64);
    let amp = Program::Agent(Agent::Amp);
    let all = run(futures_util::future::join_all((0..8).map(|_| makers.look_up(&amp, false, Asking::WhenNeeded, 0, &quiet))));
    assert!(all.iter().all(|l| matches!(l, Some(Lookup::Newest(_)))), "{all:?}");
    assert_eq!(site.server.asked().len(), 2);
}

#[test]
fn without_a_checksum_a_program_has_to_run_here() {
    let site = site();
    site.server.put("https://x.ai/cli/stable", "7");
    let elsewhere = site.makers_with(Arch::Arm64, limits(), false);
    let lookup = run(elsewhere.look_up(&Program::Agent(Agent::Grok), false, Asking::WhenNeeded, 0, &quiet));
    assert!(matches!(&lookup, Some(Lookup::Failed { why }) if why.contains("no checksum")), "{lookup:?}");

    let check = |content: &str, reason: &str| {
        let download = Download { sha256: None, ..site.server.download("grok", content.as_bytes()) };
        let wanted = site.wanted(download);
        let limits = Limits { probe: Duration::from_millis(300), ..limits() };
        let refused = site.install(&wanted, limits).unwrap_err();
        assert!(refused.code == "binary.not_runnable" && refused.detail.contains(reason), "{refused}");
        assert_eq!(site.beside(&wanted), ["claude.lock"]);
    };
    check("#!/bin/sh\necho broken >&2; exit 3\n", "fails: broken");
    check("#!/bin/sh\nwhile :; do :; done\n", "does not end");
    check("\u{7f}ELF, but not really", "be started");
}

// ---- downloads that break ----

#[test]
fn a_large_file_comes_in_parallel_ranges() {
    let site = site();
    let content = bytes(1 << 20);
    let wanted = site.wanted(site.server.download("claude", &content));
    let said = std::cell::RefCell::new(Vec::new());
    run(install(&http(limits()), &wanted, &|line| said.borrow_mut().push(line), &quiet)).unwrap();
    is_whole(&wanted, &content);
    let asked = site.server.asked();
    assert_eq!((asked.len(), length(&asked)), (9, (1 << 20) + 1), "one byte to learn the length, then eight ranges: {asked:?}");
    assert_eq!(site.beside(&wanted), ["claude", "claude.lock", "release.json"]);
    assert_eq!(said.borrow().last().unwrap(), "\r1.0 MiB of 1.0 MiB");

    // Ranges no smaller than the least.
    let content = bytes(200 << 10);
    let small = Wanted {
        path: wanted.path.with_file_name("other"),
        digest: sha256_hex(&content),
        download: site.server.download("other", &content),
        ..wanted
    };
    site.install(&small, limits()).unwrap();
    assert_eq!(site.server.asked().len(), 1 + 3);
}

#[test]
fn a_connection_that_breaks_is_taken_up_where_it_broke() {
    let site = site();
    let content = bytes(1 << 20);
    let wanted = site.wanted(site.server.download("claude", &content));
    site.server.next("claude", Fault::Reset(600_000));
    site.server.next("claude", Fault::Reset(100_000));
    site.install(&wanted, Limits { ranges: 1, ..limits() }).unwrap();
    is_whole(&wanted, &content);
    let ranges: Vec<(u64, u64)> = site.server.asked().iter().filter_map(|a| a.range).collect();
    let [(0, 0), (0, last), (second, _), (third, end)] = ranges[..] else { panic!("{ranges:?}") };
    assert_eq!((last, end), ((1 << 20) - 1, (1 << 20) - 1));
    assert!(second > 400_000 && second <= 600_000 && third > second && third <= second + 100_000, "{ranges:?}");
}

#[test]
fn the_next_run_goes_on_where_the_last_one_stopped() {
    let site = site();
    let content = bytes(1 << 20);
    let wanted = site.wanted(site.server.download("claude", &content));
    let once = Limits { ranges: 2, download_tries: 1, ..limits() };
    site.server.next("claude", Fault::Reset(300_000));
    let failed = site.install(&wanted, once.clone()).unwrap_err();
    assert_eq!(failed.code, "binary.download");
    let help = failed.help.unwrap();
    assert!(help.contains("JACKIN_AGENT_MIRROR") && help.contains("JACKIN_AGENT_BIN_CLAUDE=PATH"), "{help}");
    assert_eq!(site.beside(&wanted), ["claude.lock", "claude.part", "claude.part.json"]);
    site.server.asked();
    site.install(&wanted, once).unwrap();
    is_whole(&wanted, &content);
    let asked = site.server.asked();
    assert!(asked.len() == 1 && length(&asked) < 400_000, "{asked:?}");
}

#[test]
fn a_partial_file_that_was_damaged_costs_only_time() {
    let content = bytes(1 << 20);
    let check = |damage: &dyn Fn(&Path)| {
        let site = site();
        let wanted = site.wanted(site.server.download("claude", &content));
        let once = Limits { ranges: 2, download_tries: 1, ..limits() };
        site.server.next("claude", Fault::Reset(300_000));
        site.install(&wanted, once.clone()).unwrap_err();
        damage(&wanted.path.with_file_name("claude.part"));
        site.install(&wanted, once).unwrap();
        is_whole(&wanted, &content);
    };
    check(&|part| {
        let mut all = fs::read(part).unwrap();
        all[600_000] ^= 1;
        fs::write(part, all).unwrap();
    });
    check(&|part| fs::write(part, "short").unwrap());
    check(&|part| fs::remove_file(part).unwrap());
    check(&|part| fs::write(part.with_file_name("claude.part.json"), "{}").unwrap());
}

#[test]
fn what_its_maker_did_not_publish_is_not_installed() {
    let site = site();
    let old = site.wanted(site.server.download("old", b"old"));
    let old = Wanted { path: site.paths().agent_binaries().join("claude/1.0/linux-amd64/claude"), version: "1.0".to_owned(), ..old };
    site.install(&old, limits()).unwrap();
    let mut wanted = site.wanted(site.server.download("claude", &bytes(100_000)));
    wanted.download.sha256 = Some("0".repeat(64));
    site.server.asked();
    let refused = site.install(&wanted, limits()).unwrap_err();
    assert_eq!((refused.code.as_str(), site.server.asked().len()), ("binary.wrong_digest", 2));
    assert!(refused.detail.contains(&"0".repeat(64)) && refused.detail.contains(&sha256_hex(bytes(100_000))), "{refused}");
    assert_eq!(site.beside(&wanted), ["claude.lock"]);
    is_whole(&old, b"old");
    let mut digests = FileDigests::load(&site.paths());
    assert_eq!(agent_binary(Agent::Claude, &site.paths(), |_| None, Arch::Amd64, &mut digests).unwrap().unwrap().version, "1.0");
}

#[test]
fn a_server_without_ranges_will_do() {
    let content = bytes(1 << 20);
    let check = |faults: &[Fault], requests: usize| {
        let site = site();
        site.server.world.lock().unwrap().no_ranges = true;
        let wanted = site.wanted(site.server.download("claude", &content));
        faults.iter().for_each(|fault| site.server.next("claude", fault.clone()));
        site.install(&wanted, limits()).unwrap();
        is_whole(&wanted, &content);
        assert_eq!(site.server.asked().len(), requests, "{faults:?}");
    };
    check(&[], 1);
    check(&[Fault::Status(500), Fault::Status(503)], 3);
    // One that loses the ability half-way.
    let site = site();
    let wanted = site.wanted(site.server.download("claude", &content));
    (0..8).for_each(|_| site.server.next("claude", Fault::Whole));
    site.install(&wanted, limits()).unwrap();
    is_whole(&wanted, &content);
}

#[test]
fn a_file_that_was_cut_short_is_noticed() {
    let site = site();
    site.server.world.lock().unwrap().no_ranges = true;
    let content = bytes(500_000);
    let wanted = site.wanted(site.server.download("claude", &content));
    // Its length was not told, so only the digest knows.
    site.server.next("claude", Fault::Cut(250_000));
    assert_eq!(site.install(&wanted, limits()).unwrap_err().code, "binary.wrong_digest");
    site.install(&wanted, limits()).unwrap();
    is_whole(&wanted, &content);
}

#[test]
fn what_no_further_try_would_mend_is_not_tried_again() {
    let site = site();
    let wanted = site.wanted(site.server.download("claude", b"x"));
    site.server.always("claude", Fault::Status(404));
    let failed = site.install(&wanted, limits()).unwrap_err();
    assert!(failed.detail.contains("404") && failed.detail.contains(&wanted.download.url), "{failed}");
    assert_eq!(site.server.asked().len(), 1);
    site.server.mend();
    site.server.always("claude", Fault::Status(502));
    site.install(&wanted, limits()).unwrap_err();
    assert_eq!(site.server.asked().len(), 3);
}

#[test]
fn redirects_are_followed() {
    let site = site();
    let content = bytes(300_000);
    let elsewhere = site.server.download("elsewhere", &content).url;
    let wanted = site.wanted(site.server.download("claude", &content));
    site.server.always("claude", Fault::Redirect(elsewhere));
    site.install(&wanted, limits()).unwrap();
    is_whole(&wanted, &content);
}

#[test]
fn one_that_stands_still_is_given_up() {
    let site = site();
    let content = bytes(400_000);
    let wanted = site.wanted(site.server.download("claude", &content));
    site.server.next("claude", Fault::Stall(100_000));
    let started = Instant::now();
    site.install(&wanted, Limits { ranges: 1, idle: Duration::from_millis(500), ..limits() }).unwrap();
    is_whole(&wanted, &content);
    assert!(started.elapsed() < Duration::from_secs(20));

    // The whole download has a limit too, and what came until then is kept.
    let site = self::site();
    let wanted = site.wanted(site.server.download("claude", &content));
    site.server.always("claude", Fault::Stall(300_000));
    let failed = site.install(&wanted, Limits { ranges: 1, download: Duration::from_secs(2), ..limits() }).unwrap_err();
    assert!(failed.detail.contains("not whole after 2.0 s"), "{failed}");
    site.server.mend();
    site.server.asked();
    site.install(&wanted, limits()).unwrap();
    is_whole(&wanted, &content);
    assert!(length(&site.server.asked()) < 400_000);
}

#[test]
fn an_archive_has_to_hold_the_program() {
    let check = |content: &[u8], reason: &str| {
        let site = site();
        let download = Download { member: Some("codex".to_owned()), ..site.server.download("codex.tar.gz", content) };
        let wanted = site.wanted(download);
        let refused = site.install(&wanted, limits()).unwrap_err();
        assert!(refused.code == "binary.archive" && refused.detail.contains(reason), "{refused}");
        assert_eq!(site.beside(&wanted), ["claude.lock"]);
    };
    check(&archive("other", b"x"), "it has no `codex`");
    check(b"no archive at all", "cannot be unpacked");
    let whole = archive("codex", &bytes(100_000));
    check(&whole[..whole.len() / 2], "cannot be unpacked");
}

#[test]
fn what_is_there_and_sound_is_not_downloaded_again() {
    let site = site();
    let content = bytes(50_000);
    let wanted = site.wanted(site.server.download("claude", &content));
    site.install(&wanted, limits()).unwrap();
    site.server.asked();
    fs::set_permissions(&wanted.path, PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(site.install(&wanted, limits()).unwrap(), Installed::AlreadyThere);
    is_whole(&wanted, &content);
    assert_eq!(site.server.asked(), []);
    // A file that was damaged since counts as none, and is replaced.
    fs::write(&wanted.path, "damaged").unwrap();
    let mut digests = FileDigests::load(&site.paths());
    assert_eq!(agent_binary(Agent::Claude, &site.paths(), |_| None, Arch::Amd64, &mut digests).unwrap(), None);
    assert_eq!(site.install(&wanted, limits()).unwrap(), Installed::Downloaded);
    is_whole(&wanted, &content);
}

#[test]
fn eight_tasks_download_once() {
    let site = site();
    let content = bytes(1 << 20);
    let wanted = site.wanted(site.server.download("claude", &content));
    let http = http(limits());
    let all = run(futures_util::future::join_all((0..8).map(|_| install(&http, &wanted, &|_| {}, &quiet))));
    let downloaded = all.into_iter().map(Result::unwrap).filter(|i| *i == Installed::Downloaded).count();
    assert_eq!((downloaded, length(&site.server.asked())), (1, (1 << 20) + 1));
    is_whole(&wanted, &content);
}

const CHILD: &str = "JACKIN_TEST_DOWNLOAD";

/// Does its work only as a process that the test below starts.
#[test]
fn as_a_process() {
    let Some(given) = std::env::var_os(CHILD) else { return };
    let given = given.into_string().unwrap();
    let [path, url, sha256] = given.split('\n').collect::<Vec<_>>()[..] else { panic!("{given}") };
    let download = Download { url: url.to_owned(), sha256: Some(sha256.to_owned()), member: None };
    let (name, version, variable) = ("claude".to_owned(), "2.0".to_owned(), "V".to_owned());
    let wanted = Wanted { name, version, path: PathBuf::from(path), digest: sha256.to_owned(), download, variable, arch: Arch::Amd64 };
    run(install(&http(limits()), &wanted, &|_| {}, &quiet)).unwrap();
}

#[test]
fn eight_processes_download_once_and_a_killed_one_costs_nothing() {
    let site = site();
    let content = bytes(1 << 20);
    let wanted = site.wanted(site.server.download("claude", &content));
    let given = format!("{}\n{}\n{}", wanted.path.display(), wanted.download.url, sha256_hex(&content));
    let start = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "as_a_process", "--test-threads=1"]).env(CHILD, &given).stdout(std::process::Stdio::null());
        command.spawn().unwrap()
    };
    // One hangs in the middle of its download, and is killed there.
    site.server.always("claude", Fault::Stall(50_000));
    let mut hangs = start();
    let began = Instant::now();
    while site.server.world.lock().unwrap().log.len() < 9 && began.elapsed() < Duration::from_secs(60) {
        std::thread::yield_now();
    }
    hangs.kill().unwrap();
    hangs.wait().unwrap();
    site.server.mend();
    site.server.asked();
    let children: Vec<_> = (0..8).map(|_| start()).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    is_whole(&wanted, &content);
    assert!(length(&site.server.asked()) <= (1 << 20) + 1);
    assert_eq!(site.beside(&wanted), ["claude", "claude.lock", "release.json"]);
    assert!(Lock::try_exclusive(&wanted.path.with_file_name("claude.lock")).unwrap().is_some());
}

// ---- the command ----

const MANIFEST: &str = "version = \"v1alpha6\"\ndockerfile = \"Dockerfile\"\nagents = [\"amp\"]\n\n[amp]\n";

impl Site {
    /// A workspace whose role runs amp.
    fn configure(&self, more: &str) {
        let root = self.root.path();
        let write = |path: &str, text: &str| {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), text).unwrap();
        };
        write("role/jackin.role.toml", MANIFEST);
        write("role/Dockerfile", "FROM projectjackin/construct:0.1-trixie\n");
        write("src/app/x", "");
        write("capsule", "capsule");
        let script = "cd role && git init -q -b main . && git add . && git -c user.name=a -c user.email=a@example.org commit -q -m role";
        if !root.join("role/.git").exists() {
            assert!(Command::new("sh").args(["-c", script]).current_dir(root).env("HOME", root).status().unwrap().success());
        }
        let role = root.join("role");
        write(
            ".config/jackin/config.toml",
            &format!("version = \"v1alpha9\"\n{more}\n[roles.local]\ngit = \"{}\"\ntrusted = true\n", role.display()),
        );
        write(
            ".config/jackin/workspaces/app.toml",
            "version = \"v1alpha8\"\nworkdir = \"/w\"\ndefault_role = \"local\"\n\n[[mounts]]\nsrc = \"~/src/app\"\ndst = \"/w\"\n",
        );
    }

    fn jackin(&self, args: &[&str], mirror: Option<&str>) -> (String, String) {
        let (_, out, err) = finished(&mut self.command(args, mirror));
        (out, err)
    }

    fn command(&self, args: &[&str], mirror: Option<&str>) -> Command {
        let root = self.root.path();
        let mut command = Command::new(env!("CARGO_BIN_EXE_jackin"));
        command.args(args).env_clear().current_dir(root).env("HOME", root).env("PATH", std::env::var_os("PATH").unwrap());
        command
            .env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
            .env("JACKIN_CAPSULE_BIN", root.join("capsule"))
            .env("SSL_CERT_FILE", CA);
        command.envs(mirror.map(|mirror| ("JACKIN_AGENT_MIRROR", mirror)));
        command
    }

    /// An older amp that runs.
    fn cached_amp(&self, version: &str) {
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let cached = self.paths().agent_binaries().join(format!("amp/{version}/linux-{arch}/amp"));
        fs::create_dir_all(cached.parent().unwrap()).unwrap();
        fs::write(&cached, "#!/bin/sh\necho 0\n").unwrap();
        fs::set_permissions(&cached, PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// What amp's maker says, but not the program itself.
    fn announce_amp(&self) {
        self.server.put("https://static.ampcode.com/cli/cli-version.txt", "1");
        self.server.put("https://static.ampcode.com/cli/1/linux-x64-amp.sha256", sha256_hex("amp"));
        self.server.put("https://static.ampcode.com/cli/1/linux-arm64-amp.sha256", sha256_hex("amp"));
    }

    fn publish_amp(&self, content: &str) {
        for platform in ["linux-x64", "linux-arm64"] {
            self.server.put(&format!("https://static.ampcode.com/cli/1/amp-{platform}"), content);
        }
    }

    /// The program's spec in the graph of the command, and what is said.
    fn amp(&self, mirror: Option<&str>) -> (serde_json::Value, String) {
        let (out, err) = self.jackin(&["graph", "--format", "json"], mirror);
        let graph: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"));
        let spec = graph["resources"]["agent-binary/amp"]["spec"]["agent-binary"].clone();
        assert!(spec.is_object(), "{out}{err}");
        (spec, err)
    }
}

/// Exit code, standard output, standard error.
fn finished(command: &mut Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// An engine that answers the ping, and tells its version while `arch` is something.
struct Engine {
    socket: PathBuf,
    /// Its name, its architecture, what it was asked.
    said: Arc<Mutex<(&'static str, &'static str, Vec<String>)>>,
}

impl Engine {
    fn start(folder: &Path, name: &str, arch: &'static str) -> Engine {
        let socket = folder.join(name);
        let listener = UnixListener::bind(&socket).unwrap();
        let said = Arc::new(Mutex::new(("Docker/1 (linux)", arch, Vec::new())));
        let shared = said.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut stream = BufReader::new(stream);
                let mut first = String::new();
                stream.read_line(&mut first).unwrap();
                let mut line = first.clone();
                while line.trim() != "" {
                    line.clear();
                    stream.read_line(&mut line).unwrap();
                }
                let mut said = shared.lock().unwrap();
                let path = first.split(' ').nth(1).unwrap().replace("/v1.41", "");
                let body = if path == "/version" { format!("{{\"Arch\": \"{}\"}}", said.1) } else { "OK".to_owned() };
                let status = if body.contains("\"\"") { "403 Forbidden" } else { "200 OK" };
                let head = format!("Api-Version: 1.41\r\nServer: {}\r\nContent-Length: {}\r\nConnection: close", said.0, body.len());
                said.2.push(path);
                let _ = write!(stream.get_mut(), "HTTP/1.1 {status}\r\n{head}\r\n\r\n{body}");
            }
        });
        Engine { socket, said }
    }

    /// What it was asked since the last time.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.said.lock().unwrap().2)
    }

    /// Exit code and everything said of `jackin`, with this engine and mirror.
    fn jackin(&self, site: &Site, args: &[&str], mirror: &str) -> (i32, String) {
        let mut command = site.command(args, Some(mirror));
        let (code, out, err) = finished(command.env("DOCKER_HOST", format!("unix://{}", self.socket.display())));
        (code, out + &err)
    }
}

/// The head of a program that runs nowhere else.
fn elf(arch: Arch) -> Vec<u8> {
    let mut head = b"\x7fELF\x02\x01".to_vec();
    head.resize(64, 0);
    head[18] = if arch == Arch::Arm64 { 183 } else { 62 };
    head
}

const PREWARM_AMP: [&str; 4] = ["prewarm", "--agent", "amp", "--yes"];

#[test]
fn programs_are_for_the_engines_architecture_and_it_is_asked_once() {
    let site = site();
    site.configure("");
    site.announce_amp();
    site.publish_amp("amp");
    let (far, near) = (Engine::start(site.root.path(), "far", "aarch64"), Engine::start(site.root.path(), "near", "amd64"));
    let prewarm = |engine: &Engine| {
        let (code, said) = engine.jackin(&site, &PREWARM_AMP, &site.server.base());
        assert_eq!(code, 0, "{said}");
        (
            said,
            site.server.asked().into_iter().map(|asked| asked.path).filter(|path| !path.ends_with("cli-version.txt")).collect::<Vec<_>>(),
        )
    };
    let of = |platform: &str| {
        let base = "/m/static.ampcode.com/cli/1";
        let (sum, program) = (format!("{base}/{platform}-amp.sha256"), format!("{base}/amp-{platform}"));
        // How long it is, and all of it.
        vec![sum, program.clone(), program]
    };
    let (said, asked) = prewarm(&far);
    assert_eq!((asked, far.asked()), (of("linux-arm64"), vec!["/_ping".to_owned(), "/version".to_owned()]), "{said}");
    assert_eq!(prewarm(&near).1, of("linux-x64"));
    let place = |platform: &str| site.paths().agent_binaries().join(format!("amp/1/{platform}/amp"));
    assert!(place("linux-arm64").is_file() && place("linux-amd64").is_file(), "side by side");
    assert_eq!((prewarm(&far).1, far.asked()), (Vec::new(), Vec::new()), "both answers are kept");

    // Of what an engine that is gone said, the last counts.
    fs::remove_file(&far.socket).unwrap();
    assert_eq!(prewarm(&far).1, Vec::<String>::new(), "{:?}", far.said);
    fs::remove_dir_all(site.paths().engines()).unwrap();
    let (said, _) = prewarm(&far);
    let host = host_arch();
    assert!(said.contains(&format!("so programs are for linux/{host}: unix://{}", far.socket.display())), "{said}");
    assert!(!site.paths().engines().exists(), "nothing was learnt");

    // One that lets only some questions through, and one that nobody makes programs for.
    near.said.lock().unwrap().1 = "";
    let (said, asked) = prewarm(&near);
    assert!(asked.is_empty() && !said.contains("No engine tells"), "{said}");
    near.said.lock().unwrap().1 = "riscv64";
    let (code, said) = near.jackin(&site, &PREWARM_AMP, &site.server.base());
    assert!(code == 1 && said.contains("docker.architecture") && said.contains("runs on `riscv64`"), "{said}");
}

#[test]
fn another_engine_behind_the_same_address_is_noticed() {
    let site = site();
    site.configure("");
    let engine = Engine::start(site.root.path(), "engine", "x86_64");
    let plan = || engine.jackin(&site, &["plan"], "off");
    // It is asked what it is, and cannot list anything.
    let (code, said) = plan();
    assert!(code == 1 && !said.contains("docker.other_engine"), "{said}");
    assert_eq!(engine.asked().iter().filter(|path| *path == "/version").count(), 1);
    plan();
    assert_eq!(engine.asked().iter().filter(|path| *path == "/version").count(), 0, "it is known");
    {
        let mut said = engine.said.lock().unwrap();
        (said.0, said.1) = ("Docker/2 (linux)", "aarch64");
    }
    let (code, said) = plan();
    assert!(code == 1 && said.contains("docker.other_engine") && said.contains("runs linux/arm64 by now"), "{said}");
    assert!(!engine.asked().contains(&"/networks".to_owned()), "nothing is looked at");
    let (_, said) = plan();
    assert!(!said.contains("docker.other_engine"), "the next run goes by it: {said}");
}

#[test]
fn a_snapshot_says_whose_programs_a_plan_is_for() {
    let site = site();
    site.configure("");
    site.jackin(&["graph"], Some("off"));
    for (arch, said) in [("arm64", r#", "arch": "arm64""#), ("amd64", r#", "arch": "amd64""#), (host_arch().as_str(), "")] {
        for arch in ["amd64", "arm64"] {
            let file = site.paths().agent_binaries().join(format!("amp/1/linux-{arch}/amp"));
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, arch).unwrap();
        }
        let file = site.root.path().join("observed.json");
        fs::write(&file, format!(r#"{{"format_version": 1, "engine": {{"api_version": "1.41"{said}}}}}"#)).unwrap();
        let (plan, err) = site.jackin(&["plan", "--observed", "observed.json", "--format", "json"], Some("off"));
        assert!(plan.contains(&format!("amp/1/linux-{arch}/amp")), "{arch}: {plan}{err}");
        assert!(plan.contains(&sha256_hex(arch)), "{arch}: {plan}{err}");
    }
}

#[test]
fn a_program_for_another_machine_goes_nowhere() {
    let site = site();
    site.configure("");
    let engine = Engine::start(site.root.path(), "engine", "arm64");
    let (good, wrong) = (elf(Arch::Arm64), elf(Arch::Amd64));
    // A maker's, or a mirror's.
    let publish = |program: &[u8]| {
        site.server.put("https://static.ampcode.com/cli/cli-version.txt", "1");
        site.server.put("https://static.ampcode.com/cli/1/linux-arm64-amp.sha256", sha256_hex(program));
        site.server.put("https://static.ampcode.com/cli/1/amp-linux-arm64", program);
    };
    publish(&wrong);
    let folder = site.paths().agent_binaries().join("amp/1/linux-arm64");
    let (code, said) = engine.jackin(&site, &PREWARM_AMP, &site.server.base());
    assert!(code == 0 && said.contains("is built for amd64") && said.contains("JACKIN_AGENT_BIN_AMP"), "{said}");
    assert!(!folder.join("amp").exists() && !folder.join("release.json").exists(), "nothing was installed");
    publish(&good);
    let (code, said) = engine.jackin(&site, &PREWARM_AMP, &site.server.base());
    assert!(code == 0 && fs::read(folder.join("amp")).unwrap() == good, "{said}");

    // Exchanged since, by somebody who left no record of it.
    fs::remove_file(folder.join("release.json")).unwrap();
    fs::write(folder.join("amp"), &wrong).unwrap();
    let (code, said) = engine.jackin(&site, &PREWARM_AMP, "off");
    assert!(code == 1 && said.contains("binary.architecture") && said.contains("Remove ~/.jackin/cache/agent-binaries/amp/1"), "{said}");
    fs::remove_file(folder.join("amp")).unwrap();

    // The operator's own.
    for (file, program, refused) in [("wrong", wrong, true), ("good", good, false), ("script", b"#!/bin/sh\n".to_vec(), false)] {
        let path = site.root.path().join(file);
        fs::write(&path, program).unwrap();
        let mut command = site.command(&PREWARM_AMP, Some("off"));
        command.env("DOCKER_HOST", format!("unix://{}", engine.socket.display())).env("JACKIN_AGENT_BIN_AMP", &path);
        let (code, out, err) = finished(&mut command);
        assert_eq!(code, i32::from(refused), "{file}: {out}{err}");
        let named = err.contains("Set JACKIN_AGENT_BIN_AMP to amp for linux/arm64") && err.contains("~/wrong");
        assert_eq!(named, refused, "{file}: {out}{err}");
    }
    // As long as nobody has told for which machine, nothing is wrong with either.
    for program in ["wrong", "good"] {
        let mut command = site.command(&PREWARM_AMP, Some("off"));
        command.env("DOCKER_HOST", format!("unix://{}/away.sock", site.root.path().display()));
        let (code, out, err) = finished(command.env("JACKIN_AGENT_BIN_AMP", site.root.path().join(program)));
        assert!(code == 0 && !err.contains("binary.architecture"), "{program}: {out}{err}");
    }
}

#[test]
fn a_mirror_may_be_a_folder() {
    let site = site();
    site.configure("");
    let amp = bytes(300_000);
    let mirror = site.root.path().join("mirror");
    let put = |path: &str, content: &[u8]| {
        let file = mirror.join("static.ampcode.com/cli").join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    };
    let url = format!("file://{}", mirror.display());
    let platform = if host_arch() == Arch::Arm64 { "linux-arm64" } else { "linux-x64" };
    let installed = || fs::read(site.paths().agent_binaries().join(format!("amp/1/linux-{}/amp", host_arch()))).ok();
    let prewarm = || {
        let _ = fs::remove_dir_all(site.paths().releases());
        let (code, out, err) = finished(&mut site.command(&PREWARM_AMP, Some(&url)));
        assert_eq!(code, 0, "{out}{err}");
        (out + &err).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let said = prewarm();
    assert!(said.contains(&format!("{url}/static.ampcode.com/cli/cli-version.txt: there is no such file")), "{said}");
    put("cli-version.txt", b"1");
    put(&format!("1/{platform}-amp.sha256"), sha256_hex(&amp).as_bytes());
    let said = prewarm();
    assert!(said.contains(&format!("from {url}/static.ampcode.com/cli/1/amp-{platform}: there is no such file")), "{said}");

    put(&format!("1/amp-{platform}"), b"somebody else's");
    let said = prewarm();
    assert!(said.contains("its maker published") && installed().is_none(), "{said}");
    // A link out of the mirror, to the very program.
    let program = mirror.join(format!("static.ampcode.com/cli/1/amp-{platform}"));
    fs::write(site.root.path().join("outside"), &amp).unwrap();
    fs::remove_file(&program).unwrap();
    std::os::unix::fs::symlink(site.root.path().join("outside"), &program).unwrap();
    let said = prewarm();
    assert!(said.contains("it does not lie in a mirror's folder") && installed().is_none(), "{said}");
    // One that stays inside.
    fs::remove_file(&program).unwrap();
    fs::write(mirror.join("amp"), &amp).unwrap();
    std::os::unix::fs::symlink("../../../amp", &program).unwrap();
    let said = prewarm();
    assert!(installed() == Some(amp), "{said}");
}

#[test]
fn a_file_is_read_only_from_a_mirror_that_was_named() {
    let site = site();
    let root = fs::canonicalize(site.root.path()).unwrap();
    fs::create_dir_all(root.join("mirror/in")).unwrap();
    fs::write(root.join("mirror/in/x"), "inside").unwrap();
    fs::write(root.join("secret"), "outside").unwrap();
    let of = |folders: &[&str]| {
        let mut http = http(limits());
        http.folders = folders.iter().map(|folder| root.join(folder)).collect();
        http
    };
    let read = |http: &Http, path: &str| run(http.text(&format!("file://{}/{path}", root.display()), None)).map_err(|e| e.to_string());
    let mirror = of(&["mirror"]);
    assert_eq!(read(&mirror, "mirror/in/x").as_deref(), Ok("inside"));
    for (path, why) in [
        ("mirror/../secret", "does not lie"),
        ("mirror/in/../../secret", "does not lie"),
        ("secret", "does not lie"),
        ("mirror/in", "it is no file"),
        ("mirror/in/y", "no such file"),
    ] {
        assert!(read(&mirror, path).unwrap_err().contains(why), "{path}");
    }
    assert!(read(&of(&[]), "mirror/in/x").unwrap_err().contains("does not lie"), "nobody named it");
    // Nor where a server sends us.
    site.server.put("https://maker.example/x", "");
    site.server.next("/x", Fault::Redirect(format!("file://{}/mirror/in/x", root.display())));
    let refused = run(mirror.text(&format!("{}/maker.example/x", site.server.base()), None)).unwrap_err().to_string();
    assert!(refused.contains("redirect"), "{refused}");
}

#[test]
fn a_plan_asks_once_and_tells_what_it_found() {
    let site = site();
    let base = site.server.base();
    site.configure(&format!("[binaries]\nmirror = \"{base}\"\n"));
    site.announce_amp();

    // So that the role is cloned.
    let (spec, _) = site.amp(Some("off"));
    assert_eq!(spec["origin"], "vendor_installer");
    let (out, _) = site.jackin(&["plan", "--offline", "--format", "json"], None);
    let plan: serde_json::Value = serde_json::from_str(&out).unwrap();
    let of = |plan: &serde_json::Value| {
        let all = plan["changes"].as_array().unwrap();
        all.iter().find(|c| c["address"] == "agent-binary/amp").unwrap().clone()
    };
    assert_eq!((of(&plan)["reasons"][0]["code"].as_str(), site.server.asked()), (Some("not_cached"), Vec::new()), "offline asks nobody");

    let (spec, said) = site.amp(None);
    assert_eq!((&spec["origin"], &spec["version"], &spec["digest"]), (&"release".into(), &"1".into(), &sha256_hex("amp").into()), "{said}");
    assert!(spec["download"]["url"].as_str().unwrap().starts_with(&base), "{spec}");
    assert_eq!(site.server.asked().len(), 2);
    assert_eq!((site.amp(None).0, site.server.asked()), (spec, Vec::new()), "the answer is kept");

    // The variable beats the file; `off` asks nobody.
    let (spec, said) = site.amp(Some("off"));
    assert_eq!((&spec["origin"], site.server.asked()), (&"vendor_installer".into(), Vec::new()), "{said}");
    let (_, refused) = site.jackin(&["graph"], Some("ftp://mirror"));
    assert!(refused.contains("binary.mirror"), "{refused}");
}

#[test]
fn without_an_answer_there_is_the_cache_or_the_installer() {
    let site = site();
    let base = site.server.base();
    site.configure("");
    let (spec, said) = site.amp(Some(&base));
    assert_eq!(spec["origin"], "vendor_installer");
    assert!(said.contains("binary.installer") && said.contains("404"), "{said}");
    // Cached, and the failure still remembered.
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    for version in ["0.9.0", "0.10.0"] {
        let cached = site.paths().agent_binaries().join(format!("amp/{version}/linux-{arch}/amp"));
        fs::create_dir_all(cached.parent().unwrap()).unwrap();
        fs::write(cached, version).unwrap();
    }
    let (spec, said) = site.amp(Some(&base));
    assert_eq!((&spec["origin"], &spec["version"]), (&"cache".into(), &"0.10.0".into()));
    assert!(said.contains("binary.fallback") && said.contains("404"), "{said}");
    fs::remove_dir_all(site.paths().releases()).unwrap();
    site.server.asked();
    let (spec, said) = site.amp(Some(&base));
    assert_eq!((&spec["version"], site.server.asked()), (&"0.10.0".into(), Vec::new()));
    assert!(said.contains("binary.stale"), "{said}");
}

#[test]
fn a_program_that_cannot_be_fetched_is_a_warning_of_prewarm() {
    let site = site();
    site.configure("");
    site.announce_amp();
    let base = site.server.base();
    for wrong in [None, Some("somebody else's")] {
        if let Some(content) = wrong {
            site.publish_amp(content);
        }
        let (code, out, err) = finished(&mut site.command(&["prewarm", "--agent", "amp", "--yes"], Some(&base)));
        assert_eq!(code, 0, "{out}{err}");
        assert_eq!(err.lines().filter(|line| line.starts_with("warning: ")).count(), 1, "{err}");
        for wrong in ["error: ", "Failed.", "Plan again"] {
            assert!(!err.contains(wrong), "{wrong} in {err}");
        }
        assert!(err.contains("1 program could not be fetched."), "{err}");
    }
}

#[test]
fn a_plan_to_prewarm_shows_what_would_be_downloaded() {
    let site = site();
    site.configure("");
    site.announce_amp();
    site.publish_amp("amp");
    let base = site.server.base();
    let prewarm = |last: &str| {
        let (code, out, err) = finished(&mut site.command(&["prewarm", "--agent", "amp", last], Some(&base)));
        assert_eq!(code, 0, "{out}{err}");
        let asked = site.server.asked().iter().filter(|asked| asked.path.ends_with("cli-version.txt")).count();
        (out, asked)
    };
    let (planned, asked) = prewarm("--plan");
    assert!(planned.contains("agent-binary/amp") && planned.contains("1 to download"), "{planned}");
    assert_eq!(asked, 1);
    assert!(!site.paths().agent_binaries().exists(), "only planned");
    assert_eq!(prewarm("--plan"), (planned, 0), "the answer holds for an hour");
    let mode = || fs::metadata(site.root.path().join("capsule")).unwrap().permissions().mode();
    let before = mode();
    assert_eq!(prewarm("--yes").1, 0, "as it does for a launch");
    assert_eq!(mode(), before, "the operator's capsule has no run bit, and is the operator's");
    let (again, asked) = prewarm("--plan");
    assert!(again.contains("No changes") && asked == 0, "{again}");
}

#[test]
fn makers_are_asked_while_roles_are_fetched() {
    let site = site();
    site.configure("");
    site.announce_amp();
    site.publish_amp("amp");
    site.server.always("cli-version.txt", Fault::Until(site.root.path().join(".jackin/roles/local/default")));
    let words = ["prewarm", "--agent", "amp", "--roles", "--role", "local", "--yes"];
    let (code, out, err) = finished(&mut site.command(&words, Some(&site.server.base())));
    assert_eq!(code, 0, "{out}{err}");
    assert!(site.paths().agent_binaries().join("amp/1").is_dir(), "the answer came as soon as the clone was there: {err}");
}

/// Else the next launch would fetch the rest, and build the image once more.
#[test]
fn every_agent_of_a_role_is_looked_up_for_its_image() {
    let site = site();
    site.configure("");
    site.announce_amp();
    let manifest = MANIFEST.replace("[\"amp\"]", "[\"amp\", \"claude\"]") + "\n[claude]\n";
    fs::write(site.root.path().join("role/jackin.role.toml"), manifest).unwrap();
    let script = "git -c user.name=a -c user.email=a@example.org commit -q -a -m both";
    let role = site.root.path().join("role");
    assert!(Command::new("sh").args(["-c", script]).current_dir(role).env("HOME", site.root.path()).status().unwrap().success());
    let looked_up = |options: &[&str]| {
        let words = [&["prewarm", "--role", "local", "--agent", "claude", "--dry-run"], options].concat();
        site.jackin(&words, Some(&site.server.base()));
        let asked = site.server.asked();
        ["claude.ai", "ampcode.com"].map(|maker| asked.iter().any(|a| a.path.contains(maker)))
    };
    assert_eq!(looked_up(&["--roles"]), [true, false], "only those that were named");
    assert_eq!(looked_up(&["--roles", "--image"]), [true, true]);
}

/// On an engine, so only when asked for: JACKIN_TEST_DOCKER=1.
#[test]
fn an_image_is_prewarmed_without_what_could_not_be_downloaded() {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if variable("JACKIN_TEST_DOCKER").is_none_or(|asked| asked != "1") {
        return println!("not asked for: JACKIN_TEST_DOCKER=1 runs it against the engine");
    }
    let site = site();
    site.configure("");
    site.cached_amp("0.9.0");
    site.announce_amp();
    let prewarm = || {
        let mut command = site.command(&["prewarm", "--agent", "amp", "--image", "--role", "local", "--yes"], Some(&site.server.base()));
        command.env("DOCKER_HOST", variable("DOCKER_HOST").unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned()));
        for name in ["JACKIN_CAPSULE_BIN", "JACKIN_CONSTRUCT_IMAGE", "JACKIN_DIND_IMAGE"] {
            command.envs(variable(name).map(|value| (name, value)));
        }
        finished(&mut command)
    };
    // The program is not there: 404.
    let missing = prewarm();
    site.publish_amp("somebody else's");
    let wrong = prewarm();

    let installation = fs::read_to_string(site.root.path().join(".jackin/data/installation")).unwrap();
    let filter = format!("label=jackin.installation={}", installation.trim());
    let built = Command::new("docker").args(["images", "-q", "--filter", &filter]).output().unwrap().stdout;
    let built = String::from_utf8(built).unwrap();
    for image in built.split_whitespace() {
        let _ = Command::new("docker").args(["image", "rm", "-f", image]).output();
    }
    for (code, out, err) in [missing, wrong] {
        assert_eq!(code, 0, "{out}{err}");
        assert!((out.clone() + &err).contains("binary.fallback"), "{out}{err}");
    }
    assert!(!built.is_empty(), "an image with the amp of the cache");
}

#[test]
fn a_repaired_program_is_told_in_the_diary() {
    use support::*;
    let world = new_world();
    let graph = graph(&world, &[Want::new("app", "one", "smith")]);
    let first = plan_of(&world, &graph, &launch());
    assert!(apply(&world, &first, &mut Dice(0), usize::MAX).well());
    world.settle();
    world.drop_run_bit(CLAUDE);
    world.drop_run_bit(CAPSULE);
    let plan = plan_of(&world, &graph, &launch());
    let mut events = Vec::new();
    let (_stop, interrupts) = tokio::sync::watch::channel(0);
    let report = run(jackin::apply::apply(&world, &plan, Default::default(), interrupts, &mut |event| events.push(event)));
    assert!(report.succeeded());
    let repaired: Vec<String> = events
        .iter()
        .filter(|event| matches!(event, Event::AgentBinaryCacheRepaired { .. } | Event::CapsuleBinaryCacheRepaired { .. }))
        .map(|event| serde_json::to_string(event).unwrap())
        .collect();
    assert_eq!(repaired.len(), 2, "{repaired:?}");
    assert!(repaired.iter().any(|e| e.contains("\"agent_binary_cache_repaired\"") && e.contains(CLAUDE)), "{repaired:?}");
    assert!(repaired.iter().any(|e| e.contains("\"capsule_binary_cache_repaired\"") && e.contains(CAPSULE)), "{repaired:?}");
    assert_empty(&plan_of(&world, &graph, &launch()));
}
