//! The `FROM` lines of a role's Dockerfile, and the contract on the last of them.
//!
//! In: the text. Out: which construct the role builds on, with places; or the text with another construct in it.
//! Absent: every other instruction; the engine parses those.

use super::reader::{Places, quote};
use crate::diagnostic::{Diagnostic, Span};
use std::ops::Range;

pub const CONSTRUCT: &str = "projectjackin/construct";

/// The construct image that a role is built on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConstructRef {
    /// The whole tag, such as `0.4-trixie`; it is also what "construct version" means everywhere.
    pub tag: String,
    /// `sha256:…`.
    pub digest: Option<String>,
    pub span: Option<Span>,
}

impl ConstructRef {
    pub fn image(&self) -> String {
        match &self.digest {
            Some(digest) => format!("{CONSTRUCT}:{}@{digest}", self.tag),
            None => format!("{CONSTRUCT}:{}", self.tag),
        }
    }
}

struct Word {
    text: String,
    at: Range<usize>,
}

struct Stage {
    keyword: Range<usize>,
    flags: Vec<Word>,
    image: Option<Word>,
}

/// Why an image name must not be given to the engine: the characters and length of `JACKIN_CONSTRUCT_IMAGE`.
pub fn image_name_problem(image: &str) -> Option<&'static str> {
    if image.is_empty() {
        Some("it is empty")
    } else if image.len() > 256 {
        Some("it is longer than 256 characters")
    } else if !image.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:@+".contains(&b)) {
        Some("only letters, digits and `. _ - / : @ +` are allowed")
    } else if image.starts_with('-') {
        Some("it starts with `-`")
    } else {
        None
    }
}

/// The construct of the last `FROM`, which must be written out in full.
pub fn check(file: &str, text: &str) -> Result<ConstructRef, Diagnostic> {
    let places = Places::new(text);
    let span = |at: &Range<usize>| Some(places.span(file, at, &[]));
    let wrong = |at: &Range<usize>, detail: String| {
        Diagnostic::error("role.construct", "A role's last stage is not built on the construct", detail)
            .at(span(at))
            .help(format!("end with a stage that begins `FROM {CONSTRUCT}:0.1-trixie`"))
    };
    let froms = find(text).map_err(|(at, problem)| {
        Diagnostic::error("role.dockerfile_syntax", "A Dockerfile is not readable", problem).at(span(&at)).help("correct the Dockerfile")
    })?;
    let Some(last) = froms.last() else {
        return Err(wrong(&(0..0), "the Dockerfile has no `FROM`".to_owned()));
    };
    if let Some(flag) = last.flags.first() {
        return Err(wrong(&flag.at, format!("`{}` is not allowed on the last `FROM`", quote(&flag.text))));
    }
    let Some(image) = &last.image else {
        return Err(wrong(&last.keyword, "a `FROM` names no image".to_owned()));
    };
    if image.text.contains('$') {
        return Err(wrong(&image.at, format!("`{}` is not literal: an `ARG` cannot choose the construct", quote(&image.text))));
    }
    let (name, digest) = match image.text.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image.text.as_str(), None),
    };
    let (repo, tag) = match name.rsplit_once(':') {
        Some((repo, tag)) if !tag.contains('/') => (repo, Some(tag)),
        _ => (name, None),
    };
    if repo != CONSTRUCT {
        return Err(wrong(&image.at, format!("`{}` is not an image of `{CONSTRUCT}`", quote(&image.text))));
    }
    let pinned = tag.filter(|tag| {
        let proper = tag.len() <= 128 && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        proper && !tag.starts_with(['.', '-']) && tag.strip_suffix("-trixie").is_some_and(|prefix| !prefix.is_empty())
    });
    let Some(tag) = pinned else {
        return Err(Diagnostic::error(
            "role.construct_pin",
            "A role does not pin its construct",
            match tag {
                Some(tag) => format!("tag `{}` is not `<version>-trixie`", quote(tag)),
                None => format!("`{}` has no tag", quote(&image.text)),
            },
        )
        .at(span(&image.at))
        .help(format!("write a version, such as `{CONSTRUCT}:0.1-trixie`")));
    };
    if let Some(digest) = digest
        && !digest.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
    {
        return Err(wrong(&image.at, format!("`{}` is not a sha256 digest", quote(digest))));
    }
    Ok(ConstructRef { tag: tag.to_owned(), digest: digest.map(str::to_owned), span: span(&image.at) })
}

/// Every stage that is built on the construct, built on `image` instead. Flags and alias stay, the digest goes with the name.
pub fn override_construct(text: &str, image: &str) -> String {
    let Ok(froms) = find(text) else {
        return text.to_owned();
    };
    let mut out = text.to_owned();
    for from in froms.iter().rev() {
        if let Some(old) = &from.image
            && (old.text == CONSTRUCT || old.text.strip_prefix(CONSTRUCT).is_some_and(|rest| rest.starts_with([':', '@'])))
        {
            out.replace_range(old.at.clone(), image);
        }
    }
    out
}

/// All `FROM`s. Comments and blank lines may stand inside a continued instruction; the bodies of here-documents are not instructions.
fn find(text: &str) -> Result<Vec<Stage>, (Range<usize>, String)> {
    let escape = escape_character(text);
    let mut froms = Vec::new();
    let mut lines = Lines { text, at: if text.starts_with('\u{feff}') { 3 } else { 0 } };
    while let Some(start) = lines.peek() {
        let words = read_instruction(&mut lines, escape);
        let Some(keyword) = words.first() else {
            continue;
        };
        let mut rest = words[1..].iter();
        let name = keyword.text.to_ascii_uppercase();
        match name.as_str() {
            "FROM" => {
                let mut flags = Vec::new();
                let mut image = None;
                for word in rest.by_ref() {
                    let word = Word { text: word.text.clone(), at: word.at.clone() };
                    if image.is_none() && word.text.starts_with("--") {
                        flags.push(word);
                    } else {
                        image = Some(word);
                        break;
                    }
                }
                let tail: Vec<&str> = rest.map(|w| w.text.as_str()).collect();
                if !(tail.is_empty() || tail.len() == 2 && tail[0].eq_ignore_ascii_case("as")) {
                    return Err((keyword.at.clone(), "`FROM` takes an image and perhaps `AS name`".to_owned()));
                }
                froms.push(Stage { keyword: keyword.at.clone(), flags, image });
            }
            "RUN" | "COPY" | "ADD" => {
                for marker in heredocs(&words[1..]) {
                    if !lines.skip_past(&marker) {
                        return Err((start..keyword.at.end, format!("the here-document `{}` has no end", quote(&marker.name))));
                    }
                }
            }
            _ if !name.bytes().all(|b| b.is_ascii_alphabetic()) => {
                return Err((keyword.at.clone(), format!("`{}` is not an instruction", quote(&keyword.text))));
            }
            _ => {}
        }
    }
    Ok(froms)
}

/// `# escape=\`` as one of the first lines.
fn escape_character(text: &str) -> char {
    for line in text.trim_start_matches('\u{feff}').lines() {
        let Some(directive) = line.trim().strip_prefix('#') else {
            break;
        };
        let Some((key, value)) = directive.split_once('=') else {
            break;
        };
        if key.trim().eq_ignore_ascii_case("escape") {
            return if value.trim() == "`" { '`' } else { '\\' };
        }
    }
    '\\'
}

struct Lines<'t> {
    text: &'t str,
    at: usize,
}

struct Marker {
    name: String,
    /// `<<-`: tabs before the end marker are skipped.
    tabs: bool,
}

impl<'t> Lines<'t> {
    fn peek(&self) -> Option<usize> {
        (self.at < self.text.len()).then_some(self.at)
    }

    /// Start and content of the next line, without its end.
    fn take(&mut self) -> Option<(usize, &'t str)> {
        let start = self.peek()?;
        let rest = &self.text[start..];
        let (line, next) = match rest.find('\n') {
            Some(end) => (&rest[..end], start + end + 1),
            None => (rest, self.text.len()),
        };
        self.at = next;
        Some((start, line.strip_suffix('\r').unwrap_or(line)))
    }

    fn skip_past(&mut self, marker: &Marker) -> bool {
        while let Some((_, line)) = self.take() {
            let line = if marker.tabs { line.trim_start_matches('\t') } else { line };
            if line == marker.name {
                return true;
            }
        }
        false
    }
}

/// The words of the next instruction; empty for a comment or a blank line.
fn read_instruction(lines: &mut Lines<'_>, escape: char) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut open = false;
    let mut continued = false;
    while let Some((start, line)) = lines.take() {
        let trimmed = line.trim();
        if trimmed.starts_with('#') || (continued && trimmed.is_empty()) {
            if continued {
                continue;
            }
            return words;
        }
        let content = line.trim_end();
        let (content, goes_on) = match content.strip_suffix(escape) {
            Some(content) => (content, true),
            None => (line, false),
        };
        for (i, c) in content.char_indices() {
            if c.is_whitespace() {
                open = false;
                continue;
            }
            let at = start + i;
            match words.last_mut() {
                Some(word) if open => {
                    word.text.push(c);
                    word.at.end = at + c.len_utf8();
                }
                _ => words.push(Word { text: c.to_string(), at: at..at + c.len_utf8() }),
            }
            open = true;
        }
        if !goes_on {
            return words;
        }
        continued = true;
    }
    words
}

/// `<<EOF`, `<<-EOF`, `<<"EOF"`, also behind a file descriptor; not `<<<`.
fn heredocs(words: &[Word]) -> Vec<Marker> {
    let mut markers = Vec::new();
    for word in words {
        let text = word.text.trim_start_matches(|c: char| c.is_ascii_digit());
        let Some(rest) = text.strip_prefix("<<") else {
            continue;
        };
        let (rest, tabs) = match rest.strip_prefix('-') {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        let bare = ['"', '\''].iter().find_map(|q| rest.strip_prefix(*q)?.strip_suffix(*q)).unwrap_or(rest);
        if !bare.is_empty() && bare.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.' || b == b'-') {
            markers.push(Marker { name: bare.to_owned(), tabs });
        }
    }
    markers
}
