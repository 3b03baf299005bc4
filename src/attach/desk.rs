//! What an attached capsule asks of the operator's own machine: open a link, take a file, show one, fetch an image. In: its
//! requests and what was pasted; out: frames for it. The capsule is not trusted: nothing here runs what it sends.
//! Absent: the terminal. A thread of its own, so that no program and no disk ever holds up a key.

use super::export::{Arrived, Exports, Wanted};
use super::programs::Programs;
use jackin_capsule::client::{self, FromDesk, ImagePaste, ToDesk};
use jackin_capsule::wire::{ClientFrame, ImageFormat, MAX_CHUNK, MAX_IMAGE_ERROR, MAX_NOTICE, MAX_TRANSFER, ServerFrame};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Requests and answers on their way.
const QUEUE: usize = 4;
/// A transfer that stops for so long is over.
const STALLED: Duration = Duration::from_secs(5 * 60);
/// No person opens links faster than this; a program in the capsule might.
const BETWEEN_LINKS: Duration = Duration::from_millis(500);
const MAX_URL: usize = 8 << 10;
const MAX_PASTED_PATH: u64 = 4 << 10;
const PIECE: usize = MAX_CHUNK / 2;
/// What may be opened at once: nothing that a desktop runs.
const HARMLESS: [&str; 17] =
    ["bmp", "csv", "flac", "gif", "jpeg", "jpg", "json", "log", "md", "mp3", "mp4", "pdf", "png", "tif", "tiff", "txt", "webp"];

#[derive(Debug, Clone)]
pub struct Desk {
    /// Where exports go.
    pub downloads: PathBuf,
    pub home: PathBuf,
    /// Folders of this host and where the capsule sees them.
    pub mounts: Vec<(PathBuf, String)>,
    pub programs: Programs,
    /// A pasted path of an image means the image.
    pub paste_paths: bool,
    /// A link may be opened in this host's browser.
    pub opens_links: bool,
}

impl Desk {
    /// Begins to serve, until the client drops its ends.
    pub fn open(self) -> std::io::Result<client::Desk> {
        let (ask, asked) = mpsc::channel(QUEUE);
        let (says, said) = mpsc::channel(QUEUE);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("desk".to_owned()).spawn(move || runtime.block_on(self.serve(asked, says)))?;
        Ok(client::Desk { ask, said })
    }

    async fn serve(self, mut asked: mpsc::Receiver<ToDesk>, says: mpsc::Sender<FromDesk>) {
        let mut exports = Exports::into(self.downloads.clone());
        let mut last_link: Option<Instant> = None;
        loop {
            let question = match tokio::time::timeout(STALLED, asked.recv()).await {
                Ok(Some(question)) => question,
                Ok(None) => return,
                Err(_) => {
                    exports.give_up();
                    continue;
                }
            };
            let done = match question {
                ToDesk::Pasted { paste, read } => {
                    let image = match paste {
                        ImagePaste::Clipboard => self.programs.clipboard_image(MAX_TRANSFER).await.and_then(image),
                        ImagePaste::Path(_) if !self.paste_paths => None,
                        ImagePaste::Path(text) => self.image_at(&text).ok(),
                    };
                    let typed = if image.is_some() { Vec::new() } else { read };
                    if let Some((format, bytes)) = image
                        && send_image(&says, format, &bytes).await.is_none()
                    {
                        return;
                    }
                    says.send(FromDesk::Typed(typed)).await.ok()
                }
                ToDesk::Frame(ServerFrame::PasteImage | ServerFrame::StageImage) => {
                    let image = self.programs.clipboard_image(MAX_TRANSFER).await.and_then(image);
                    answer_image(&says, image.ok_or_else(|| "there is no image on the clipboard".to_owned())).await
                }
                ToDesk::Frame(ServerFrame::StageImageFromPath) => {
                    let text = self.programs.clipboard_text(MAX_PASTED_PATH).await;
                    let image = text.ok_or_else(|| "there is no path on the clipboard".to_owned()).and_then(|text| self.image_at(&text));
                    answer_image(&says, image).await
                }
                ToDesk::Frame(frame) => match self.obey(frame, &mut exports, &mut last_link).await {
                    Some(text) => says.send(FromDesk::Frame(ClientFrame::HostNotice(cut(text, MAX_NOTICE)))).await.ok(),
                    None => Some(()),
                },
            };
            if done.is_none() {
                return;
            }
        }
    }

    /// The result for the person, if there is one yet.
    async fn obey(&self, frame: ServerFrame, exports: &mut Exports, last_link: &mut Option<Instant>) -> Option<String> {
        match frame {
            ServerFrame::HostOpenUrl(url) => {
                let link = match safe_link(&url) {
                    Ok(link) => link,
                    Err(why) => return Some(why),
                };
                if !self.opens_links {
                    return Some(format!("not opened, JACKIN_OPEN_LINKS denies it: {}", redacted(link)));
                }
                tracing::info!("opening {}", redacted(link));
                if last_link.is_some_and(|last| last.elapsed() < BETWEEN_LINKS) {
                    return Some(format!("not opened, too soon after another: {}", redacted(link)));
                }
                let opened = self.programs.open(link).await;
                *last_link = Some(Instant::now());
                opened.err().map(|why| format!("the link was not opened: {why}"))
            }
            ServerFrame::HostRevealPath(path) => {
                let Some(path) = self.on_host(&path) else {
                    return Some(format!("{path} lies only in the container; export it instead"));
                };
                self.reveal(&path).await.err()
            }
            ServerFrame::FileExportStart { transfer, size, reveal, open, name, .. } => {
                exports.start(transfer, Wanted { size, name, reveal, open }).err()
            }
            ServerFrame::FileExportChunk { transfer, offset, bytes } => exports.chunk(transfer, offset, &bytes).err(),
            ServerFrame::FileExportEnd { transfer, sha256 } => match exports.end(transfer, sha256) {
                Ok(Some(arrived)) => Some(self.show(arrived).await),
                Ok(None) => None,
                Err(why) => Some(why),
            },
            _ => None,
        }
    }

    async fn show(&self, Arrived { path, reveal, open }: Arrived) -> String {
        let saved = format!(
            "saved {}",
            path.strip_prefix(&self.home).map_or_else(|_| path.display().to_string(), |p| format!("~/{}", p.display()))
        );
        let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        let harmless = HARMLESS.contains(&extension.as_str());
        let shown = match (open, reveal) {
            (true, _) if harmless => self.programs.open(&path.to_string_lossy()).await,
            (true, _) | (_, true) => self.reveal(&path).await,
            (false, false) => Ok(()),
        };
        match shown {
            Ok(()) if open && !harmless => format!("{saved}; a file of that sort is not opened from here"),
            Ok(()) => saved,
            Err(why) => format!("{saved}; {why}"),
        }
    }

    async fn reveal(&self, path: &Path) -> Result<(), String> {
        let folder = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
        self.programs.reveal(&path.to_string_lossy(), &folder.to_string_lossy()).await
    }

    /// Where a path of the capsule lies on this host, if it does, within the mount it seems to be in.
    fn on_host(&self, path: &str) -> Option<PathBuf> {
        let path = Path::new(path);
        let (host, rest) = (self.mounts.iter())
            .filter_map(|(host, inside)| Some((host, inside, path.strip_prefix(inside).ok()?)))
            .max_by_key(|(_, inside, _)| inside.len())
            .map(|(host, _, rest)| (host, rest))?;
        // A link in the mount may lead anywhere.
        let (mount, path) = (std::fs::canonicalize(host).ok()?, std::fs::canonicalize(host.join(rest)).ok()?);
        path.starts_with(mount).then_some(path)
    }

    /// The image whose path a person pasted, as terminals and file managers write paths.
    fn image_at(&self, text: &str) -> Result<(ImageFormat, Vec<u8>), String> {
        use std::io::Read;
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.pasted_path(text).ok_or_else(|| "there is no path of an image".to_owned())?;
        let refused = |why: &str| format!("{}: {why}", path.display());
        // A pipe of that name must not hold us up.
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = std::fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(&path).map_err(|e| refused(&e.to_string()))?;
        if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            return Err(refused("it is no regular file"));
        }
        let mut bytes = Vec::new();
        file.take(MAX_TRANSFER + 1).read_to_end(&mut bytes).map_err(|error| refused(&error.to_string()))?;
        if bytes.len() as u64 > MAX_TRANSFER {
            return Err(refused(&format!("it is larger than {} MB", MAX_TRANSFER >> 20)));
        }
        image(bytes).ok_or_else(|| refused("it is no image"))
    }

    fn pasted_path(&self, text: &str) -> Option<PathBuf> {
        let text = text.trim();
        let quoted = |quote| text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
        let path = if let Some(text) = quoted('\'').or_else(|| quoted('"')) {
            text.to_owned()
        } else if let Some(url) = text.strip_prefix("file://") {
            percent_decoded(&url[url.find('/')?..])?
        } else {
            // A dragged file comes with its blanks escaped.
            let mut escaped = false;
            text.chars()
                .filter(|c| {
                    escaped = *c == '\\' && !escaped;
                    !escaped
                })
                .collect()
        };
        let path = path.strip_prefix("~/").map_or_else(|| PathBuf::from(&path), |rest| self.home.join(rest));
        path.is_absolute().then_some(path)
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => u8::from_str_radix(std::str::from_utf8(&[rest.next()?, rest.next()?]).ok()?, 16).ok()?,
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn image(bytes: Vec<u8>) -> Option<(ImageFormat, Vec<u8>)> {
    Some((ImageFormat::of(&bytes)?, bytes))
}

async fn answer_image(says: &mpsc::Sender<FromDesk>, image: Result<(ImageFormat, Vec<u8>), String>) -> Option<()> {
    match image {
        Ok((format, bytes)) => send_image(says, format, &bytes).await,
        Err(why) => says.send(FromDesk::Frame(ClientFrame::ImageError(cut(why, MAX_IMAGE_ERROR)))).await.ok(),
    }
}

/// Nothing when the client has gone.
async fn send_image(says: &mpsc::Sender<FromDesk>, format: ImageFormat, bytes: &[u8]) -> Option<()> {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let transfer = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let size = bytes.len() as u64;
    says.send(FromDesk::Frame(ClientFrame::ImageStart { transfer, format: format as u8, size })).await.ok()?;
    for (number, piece) in bytes.chunks(PIECE).enumerate() {
        let offset = (number * PIECE) as u64;
        says.send(FromDesk::Frame(ClientFrame::ImageChunk { transfer, offset, bytes: piece.to_vec() })).await.ok()?;
    }
    let sha256 = Sha256::digest(bytes).into();
    says.send(FromDesk::Frame(ClientFrame::ImageEnd { transfer, sha256 })).await.ok()
}

/// Only what a browser or a mail program takes, and nothing that could be an option or more than one word.
fn safe_link(url: &str) -> Result<&str, String> {
    let (scheme, _) = url.split_once(':').unwrap_or_default();
    let known = ["http", "https", "mailto"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    if !known || url.len() > MAX_URL || url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("only http, https and mailto links are opened".to_owned());
    }
    Ok(url)
}

/// Without what may be secret: query, fragment, and a user's name and password.
fn redacted(url: &str) -> String {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let (shown, hidden) = (&url[..end], end < url.len());
    let shown = match shown.split_once("://") {
        Some((scheme, rest)) => {
            let host = rest.split('/').next().unwrap_or(rest);
            let user = host.rfind('@').map_or(0, |at| at + 1);
            format!("{scheme}://{}", &rest[user..])
        }
        None => shown.to_owned(),
    };
    if hidden { format!("{shown}?…") } else { shown }
}

fn cut(mut text: String, limit: usize) -> String {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
