//! The desk with made-up desktop programs: shell scripts that note how they were called.

use super::*;
use jackin_capsule::client::ToDesk::{Frame, Pasted};

struct Office {
    dir: tempfile::TempDir,
    desk: Desk,
}

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n and so on";

impl Office {
    fn new() -> Office {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["bin", "home", "src/sub", "outside"] {
            std::fs::create_dir_all(path(name)).unwrap();
        }
        let programs = Programs { path: path("bin").into(), macos: false, wayland: true, x11: false };
        let desk = Desk {
            downloads: path("home/Downloads/jackin/c"),
            home: path("home"),
            mounts: vec![(path("src"), "/work".to_owned())],
            programs,
            paste_paths: true,
            opens_links: true,
        };
        Office { dir, desk }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A program that adds its arguments to `calls`, then does as it is told.
    fn program(&self, name: &str, script: &str) {
        let calls = self.path("calls");
        let text = format!("#!/bin/sh\nprintf '%s\\n' \"${{0##*/}} $*\" >> '{}'\n{script}\n", calls.display());
        // By another process: a file that a fork of ours holds open for writing cannot be run.
        let write = "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"";
        let path = self.path("bin").join(name);
        assert!(std::process::Command::new("sh").args(["-c", write, "sh", &text]).arg(path).status().unwrap().success());
    }

    fn clipboard(&self, types: &str, file: &[u8]) {
        std::fs::write(self.path("clip"), file).unwrap();
        let script = format!("case $1 in --list-types) echo '{types}';; *) /bin/cat '{}';; esac", self.path("clip").display());
        self.program("wl-paste", &script);
    }

    fn calls(&self) -> Vec<String> {
        std::fs::read_to_string(self.path("calls")).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Everything that is said to these questions.
    fn ask(&self, questions: Vec<ToDesk>) -> Vec<FromDesk> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut client = self.desk.clone().open().unwrap();
            let asking = async {
                for question in questions {
                    client.ask.send(question).await.unwrap();
                }
                drop(client.ask);
            };
            let listening = async {
                let mut answers = Vec::new();
                while let Some(answer) = client.said.recv().await {
                    answers.push(answer);
                }
                answers
            };
            tokio::join!(asking, listening).1
        })
    }

    fn notices(&self, questions: Vec<ServerFrame>) -> Vec<String> {
        let text = |answer| match answer {
            FromDesk::Frame(ClientFrame::HostNotice(text) | ClientFrame::ImageError(text)) => text,
            other => panic!("{other:?}"),
        };
        self.ask(questions.into_iter().map(Frame).collect()).into_iter().map(text).collect()
    }

    fn paste(&self, paste: ImagePaste) -> Vec<FromDesk> {
        self.ask(vec![Pasted { paste, read: b"as typed".to_vec() }])
    }
}

fn image_in(answers: &[FromDesk]) -> Option<Vec<u8>> {
    let [
        FromDesk::Frame(ClientFrame::ImageStart { transfer, format: 1, size }),
        pieces @ ..,
        FromDesk::Frame(ClientFrame::ImageEnd { transfer: end, sha256 }),
    ] = answers
    else {
        return None;
    };
    let mut bytes = Vec::new();
    for piece in pieces {
        let FromDesk::Frame(ClientFrame::ImageChunk { transfer: of, offset, bytes: piece }) = piece else { return None };
        assert!(of == transfer && *offset == bytes.len() as u64 && piece.len() <= MAX_CHUNK);
        bytes.extend_from_slice(piece);
    }
    assert!(transfer == end && *size == bytes.len() as u64);
    assert_eq!(*sha256, <[u8; 32]>::from(Sha256::digest(&bytes)));
    Some(bytes)
}

fn typed(answers: &[FromDesk]) -> &[u8] {
    match answers.last() {
        Some(FromDesk::Typed(bytes)) => bytes,
        other => panic!("{other:?}"),
    }
}

#[test]
fn links_are_opened_if_they_are_links() {
    let office = Office::new();
    office.program("xdg-open", "");
    let bad = ["file:///etc/passwd", "javascript:alert(1)", "--help", "ssh://h", "https", "http://a b", "https://a\nb", "HTTPS\u{a0}://x"];
    for url in bad {
        assert_eq!(office.notices(vec![ServerFrame::HostOpenUrl(url.into())]), ["only http, https and mailto links are opened"], "{url}");
    }
    assert!(office.calls().is_empty());
    for url in ["https://example.org/?token=s3cret", "mailto:a@b.c", "HTTP://x"] {
        assert_eq!(office.notices(vec![ServerFrame::HostOpenUrl(url.into())]), [""; 0]);
        assert_eq!(office.calls().last(), Some(&format!("xdg-open {url}")));
    }
    let link = || ServerFrame::HostOpenUrl("https://u:p@h/a?q=s3cret#f".into());
    assert_eq!(office.notices(vec![link(), link()]), ["not opened, too soon after another: https://h/a?…"]);
}

#[test]
fn links_stay_closed_when_that_is_wished() {
    let mut office = Office::new();
    office.program("xdg-open", "");
    office.desk.opens_links = false;
    let link = ServerFrame::HostOpenUrl("https://h/a?q=s3cret".into());
    assert_eq!(office.notices(vec![link]), ["not opened, JACKIN_OPEN_LINKS denies it: https://h/a?…"]);
    assert!(office.calls().is_empty());
}

#[test]
fn a_link_that_nobody_opens_is_said() {
    let office = Office::new();
    let link = || vec![ServerFrame::HostOpenUrl("https://h".into())];
    assert_eq!(office.notices(link()), ["the link was not opened: there is no xdg-open here"]);
    office.program("xdg-open", "exit 3");
    assert_eq!(office.notices(link()), ["the link was not opened: xdg-open failed"]);
}

#[test]
fn secrets_of_links_are_not_shown() {
    for (url, shown) in [
        ("https://h/a", "https://h/a"),
        ("https://h/a?b", "https://h/a?…"),
        ("https://h#b?c", "https://h?…"),
        ("https://user:pass@h/a@b", "https://h/a@b"),
        ("mailto:a@b?subject=x", "mailto:a@b?…"),
    ] {
        assert_eq!(redacted(url), shown);
    }
}

fn export(name: &str, bytes: &[u8], reveal: bool, open: bool) -> Vec<ServerFrame> {
    let (transfer, size) = (1, bytes.len() as u64);
    vec![
        ServerFrame::FileExportStart { transfer, size, reveal, open, source: "/work/x".into(), name: name.into() },
        ServerFrame::FileExportChunk { transfer, offset: 0, bytes: bytes.to_vec() },
        ServerFrame::FileExportEnd { transfer, sha256: Sha256::digest(bytes).into() },
    ]
}

#[test]
fn exports_arrive_and_are_shown_as_asked() {
    let office = Office::new();
    office.program("xdg-open", "");
    let folder = office.path("home/Downloads/jackin/c");
    assert_eq!(office.notices(export("../r.pdf", b"one", false, false)), ["saved ~/Downloads/jackin/c/_r.pdf"]);
    assert_eq!(office.calls(), [""; 0]);
    assert_eq!(office.notices(export("r.pdf", b"two", true, false)), ["saved ~/Downloads/jackin/c/r.pdf"]);
    assert_eq!(office.calls(), [format!("xdg-open {}", folder.display())]);
    assert_eq!(office.notices(export("r.pdf", b"three", false, true)), ["saved ~/Downloads/jackin/c/r-1.pdf"]);
    assert_eq!(office.calls()[1], format!("xdg-open {}", folder.join("r-1.pdf").display()));
    assert_eq!(std::fs::read(folder.join("r-1.pdf")).unwrap(), b"three");
}

#[test]
fn what_a_desktop_would_run_is_shown_and_not_opened() {
    let office = Office::new();
    office.program("xdg-open", "");
    for name in ["evil.desktop", "evil.command", "evil", "evil.pdf.sh"] {
        let notices = office.notices(export(name, b"x", false, true));
        assert!(notices.len() == 1 && notices[0].ends_with("a file of that sort is not opened from here"), "{notices:?}");
    }
    assert!(office.calls().iter().all(|call| call.ends_with("/Downloads/jackin/c")), "{:?}", office.calls());
}

#[test]
fn a_broken_export_is_said_once() {
    let office = Office::new();
    let mut frames = export("a", b"hello", false, false);
    frames[1] = ServerFrame::FileExportChunk { transfer: 1, offset: 0, bytes: b"hellO".to_vec() };
    assert_eq!(office.notices(frames), ["a was not saved: it is not what the capsule announced"]);
    assert_eq!(std::fs::read_dir(&office.desk.downloads).unwrap().count(), 0);
}

#[test]
fn paths_are_shown_where_they_lie_on_the_host_and_nowhere_else() {
    let office = Office::new();
    office.program("xdg-open", "");
    std::fs::write(office.path("src/sub/f"), "").unwrap();
    std::os::unix::fs::symlink(office.path("outside"), office.path("src/link")).unwrap();
    let reveal = |path: &str| office.notices(vec![ServerFrame::HostRevealPath(path.into())]);
    assert_eq!(reveal("/work/sub/f"), [""; 0]);
    assert_eq!(reveal("/work/sub"), [""; 0]);
    let folder = std::fs::canonicalize(office.path("src/sub")).unwrap();
    assert_eq!(office.calls(), [format!("xdg-open {}", folder.display()), format!("xdg-open {}", folder.display())]);
    for path in ["/etc/passwd", "/work/../outside", "/work/link", "/work/none", "/workother"] {
        assert_eq!(reveal(path), [format!("{path} lies only in the container; export it instead")]);
    }
    assert_eq!(office.calls().len(), 2);
}

#[test]
fn ctrl_v_with_an_image_on_the_clipboard_sends_it_instead_of_the_key() {
    let office = Office::new();
    office.clipboard("text/plain\nimage/png", PNG);
    let answers = office.paste(ImagePaste::Clipboard);
    assert_eq!(typed(&answers), b"");
    assert_eq!(image_in(&answers[..answers.len() - 1]).as_deref(), Some(PNG));
    assert_eq!(office.calls(), ["wl-paste --list-types", "wl-paste --no-newline --type image/png"]);
}

#[test]
fn a_large_image_goes_in_pieces() {
    let office = Office::new();
    let mut large = PNG.to_vec();
    large.resize(3 * MAX_CHUNK + 7, 9);
    office.clipboard("image/png", &large);
    let answers = office.ask(vec![Frame(ServerFrame::StageImage)]);
    assert_eq!(image_in(&answers).map(|bytes| bytes == large), Some(true));
}

#[test]
fn ctrl_v_without_an_image_is_the_key() {
    let office = Office::new();
    assert_eq!(typed(&office.paste(ImagePaste::Clipboard)), b"as typed", "no program");
    office.clipboard("text/plain", b"text");
    assert_eq!(typed(&office.paste(ImagePaste::Clipboard)), b"as typed", "only text");
    office.clipboard("image/png", b"no image at all");
    assert_eq!(typed(&office.paste(ImagePaste::Clipboard)), b"as typed", "not what it says");
    office.program("wl-paste", "exit 1");
    assert_eq!(office.paste(ImagePaste::Clipboard).len(), 1);
}

#[test]
fn what_the_palette_asks_for_is_answered_either_way() {
    let office = Office::new();
    assert_eq!(office.notices(vec![ServerFrame::PasteImage]), ["there is no image on the clipboard"]);
    assert_eq!(office.notices(vec![ServerFrame::StageImageFromPath]), ["there is no path on the clipboard"]);
    std::fs::write(office.path("home/a.png"), PNG).unwrap();
    office.clipboard("text/plain", b"~/a.png\n");
    let answers = office.ask(vec![Frame(ServerFrame::StageImageFromPath)]);
    assert_eq!(image_in(&answers).as_deref(), Some(PNG));
    office.clipboard("text/plain", b"/etc/passwd");
    assert_eq!(office.notices(vec![ServerFrame::StageImageFromPath]), ["/etc/passwd: it is no image"]);
}

#[test]
fn a_pasted_path_is_the_image_there() {
    let mut office = Office::new();
    std::fs::write(office.path("home/a b.png"), PNG).unwrap();
    let path = office.path("home/a b.png").display().to_string();
    for text in [
        path.clone(),
        format!(" '{path}' "),
        format!("\"{path}\""),
        path.replace(' ', "\\ "),
        format!("file://{}", path.replace(' ', "%20")),
        format!("file://localhost{}", path.replace(' ', "%20")),
        "~/a b.png".to_owned(),
    ] {
        let answers = office.paste(ImagePaste::Path(text.clone()));
        assert_eq!((typed(&answers), image_in(&answers[..answers.len() - 1]).as_deref()), (&b""[..], Some(PNG)), "{text}");
    }
    std::fs::write(office.path("home/no.png"), "text").unwrap();
    std::process::Command::new("mkfifo").arg(office.path("home/pipe.png")).status().unwrap();
    for text in ["a b.png", "/none.png", "~/no.png", "~/pipe.png", "file://%zz.png", "file://x%"] {
        assert_eq!(typed(&office.paste(ImagePaste::Path(text.into()))), b"as typed", "{text}");
    }
    office.desk.paste_paths = false;
    let answers = office.paste(ImagePaste::Path(path));
    assert!(answers.len() == 1 && typed(&answers) == b"as typed", "the user does not want it");
}
