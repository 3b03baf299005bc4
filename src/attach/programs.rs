//! The desktop's own programs: what opens a link or a folder, and what knows the clipboard. Absent: what is to be opened and
//! whether it may be. A program that is missing or slow is an answer, never a wait without end.

use std::ffi::OsString;
use std::io;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// A clipboard's owner may be slow to convert; a person waits no longer for a key.
const PATIENCE: Duration = Duration::from_secs(3);
/// A program that still runs then has opened what it should.
const OPENED: Duration = Duration::from_secs(2);

#[derive(Debug, Clone)]
pub struct Programs {
    /// Where they are looked for.
    pub path: OsString,
    pub macos: bool,
    pub wayland: bool,
    pub x11: bool,
}

impl Programs {
    pub fn from_env() -> Programs {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        Programs {
            path: std::env::var_os("PATH").unwrap_or_default(),
            macos: cfg!(target_os = "macos"),
            wayland: set("WAYLAND_DISPLAY"),
            x11: set("DISPLAY"),
        }
    }

    fn command(&self, argv: &[&str]) -> Command {
        let mut command = Command::new(argv[0]);
        command.args(&argv[1..]).env("PATH", &self.path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Lets the desktop open a link, a file or a folder.
    pub async fn open(&self, what: &str) -> Result<(), String> {
        self.start(&[if self.macos { "open" } else { "xdg-open" }, what]).await
    }

    /// Shows a file in its folder.
    pub async fn reveal(&self, path: &str, folder: &str) -> Result<(), String> {
        if self.macos { self.start(&["open", "-R", path]).await } else { self.start(&["xdg-open", folder]).await }
    }

    async fn start(&self, argv: &[&str]) -> Result<(), String> {
        let mut child = self.command(argv).process_group(0).spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!("there is no {} here", argv[0]),
            _ => format!("{}: {error}", argv[0]),
        })?;
        match tokio::time::timeout(OPENED, child.wait()).await {
            Ok(Ok(status)) if !status.success() => Err(format!("{} failed", argv[0])),
            _ => Ok(()),
        }
    }

    /// What the program prints, if it is there and succeeds in time.
    async fn output(&self, argv: &[&str], limit: u64) -> Option<Vec<u8>> {
        let mut child = self.command(argv).stdout(Stdio::piped()).kill_on_drop(true).spawn().ok()?;
        let stdout = child.stdout.take()?;
        let reading = async {
            let mut bytes = Vec::new();
            stdout.take(limit + 1).read_to_end(&mut bytes).await.ok()?;
            let whole = bytes.len() as u64 <= limit;
            (whole && child.wait().await.ok()?.success()).then_some(bytes)
        };
        tokio::time::timeout(PATIENCE, reading).await.ok()?
    }

    /// The clipboard's image in whatever form it has.
    pub async fn clipboard_image(&self, limit: u64) -> Option<Vec<u8>> {
        if self.macos {
            for class in ["PNGf", "TIFF"] {
                let script = format!("get the clipboard as «class {class}»");
                let text = self.output(&["osascript", "-e", &script], 2 * limit + 32).await;
                if let Some(bytes) = text.and_then(|text| apple_data(&text, class)) {
                    return Some(bytes);
                }
            }
            return None;
        }
        for tool in self.tools() {
            let types = self.output(tool.list, 64 << 10).await.unwrap_or_default();
            let types = String::from_utf8_lossy(&types).into_owned();
            let image = ["image/png", "image/jpeg", "image/webp", "image/gif", "image/tiff"];
            if let Some(image) = image.into_iter().find(|image| types.lines().any(|line| line.trim() == *image)) {
                return self.output(&[tool.get, &[image][..]].concat(), limit).await;
            }
        }
        None
    }

    pub async fn clipboard_text(&self, limit: u64) -> Option<String> {
        if self.macos {
            return String::from_utf8(self.output(&["pbpaste"], limit).await?).ok();
        }
        for tool in self.tools() {
            if let Some(text) = self.output(tool.text, limit).await {
                return String::from_utf8(text).ok();
            }
        }
        None
    }

    fn tools(&self) -> impl Iterator<Item = &'static Tool> {
        const WAYLAND: Tool =
            Tool { list: &["wl-paste", "--list-types"], get: &["wl-paste", "--no-newline", "--type"], text: &["wl-paste", "--no-newline"] };
        const X11: Tool = Tool {
            list: &["xclip", "-selection", "clipboard", "-target", "TARGETS", "-out"],
            get: &["xclip", "-selection", "clipboard", "-out", "-target"],
            text: &["xclip", "-selection", "clipboard", "-out"],
        };
        [(self.wayland, &WAYLAND), (self.x11, &X11)].into_iter().filter_map(|(there, tool)| there.then_some(tool))
    }
}

struct Tool {
    list: &'static [&'static str],
    /// The type comes behind.
    get: &'static [&'static str],
    text: &'static [&'static str],
}

/// AppleScript prints binary data as `«data PNGf89504E47…»`.
fn apple_data(text: &[u8], class: &str) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let digits = text.strip_prefix("«data ")?.strip_prefix(class)?.strip_suffix('»')?;
    let pairs = digits.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    if digits.len() % 2 == 0 { pairs.collect() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_applescript_prints() {
        assert_eq!(apple_data("«data PNGf89504E47»\n".as_bytes(), "PNGf"), Some(vec![0x89, b'P', b'N', b'G']));
        for text in ["«data TIFF00»", "«data PNGf0»", "«data PNGfxx»", "", "89504E47"] {
            assert_eq!(apple_data(text.as_bytes(), "PNGf"), None, "{text}");
        }
    }
}
