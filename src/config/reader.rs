//! Reads a TOML document field by field and remembers every mistake with its place.
//!
//! In: the text of one file and the name to show for it. Out: typed fields as `Located` values, and diagnostics in file order.
//! Absent: what the fields mean. No source line that leaves here shows the value of an env entry, whatever is wrong around it.

use super::model::Located;
use crate::diagnostic::{Diagnostic, Diagnostics, Severity, Span};
use std::cell::RefCell;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// A configuration is a few kilobytes; something larger is the wrong file, and reading it would only take time.
pub const LARGEST_FILE: usize = 8 << 20;
const MOST_MISTAKES: usize = 100;
const LONGEST_SOURCE_LINE: usize = 300;
const MARK: usize = 64;

pub type Key<'r> = Spanned<DeString<'r>>;
pub type Value<'r> = Spanned<DeValue<'r>>;

/// Which rules of reading hold for a sort of file.
#[derive(Clone, Copy)]
pub struct Sort {
    /// First half of every code: `config` or `role`.
    pub area: &'static str,
    /// Operators' env tables hold credentials; a role manifest declares its variables in public.
    pub hides_env: bool,
    /// Keys that belong above the first table; used when one of them turns up inside a table.
    pub top_level: &'static [&'static str],
}

/// Bytes to text, or the one diagnostic that says why not.
pub fn decode<'b>(sort: Sort, file: &str, bytes: &'b [u8]) -> Result<&'b str, Diagnostic> {
    if bytes.len() > LARGEST_FILE {
        return Err(too_large(sort, file, bytes.len()));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let good = error.valid_up_to();
        let before = std::str::from_utf8(&bytes[..good]).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.matches('\n').count() as u32 + 1;
        let column = before[line_start..].chars().count() as u32 + 1;
        Diagnostic::error(
            &format!("{}.encoding", sort.area),
            "The file is not UTF-8 text",
            format!("byte {good} (0x{:02x}) does not belong to a UTF-8 character", bytes[good]),
        )
        // The line may hold a credential around the bad byte, so it is not shown.
        .at(Some(Span { file: file.to_owned(), line, column, length: 0, source_line: String::new() }))
        .help("save the file as UTF-8")
    })
}

fn too_large(sort: Sort, file: &str, size: usize) -> Diagnostic {
    Diagnostic::error(
        &format!("{}.too_large", sort.area),
        "The file is too large",
        format!("`{}` has {size} bytes; at most {LARGEST_FILE} are read", quote(file)),
    )
    .at(Some(Span { file: file.to_owned(), line: 1, column: 1, length: 0, source_line: String::new() }))
    .help("check that this is the file you meant")
}

/// The document's tree. Kept apart from `Reader` because the tree borrows the text only.
pub fn parse<'t>(sort: Sort, file: &str, text: &'t str) -> Result<Spanned<DeTable<'t>>, Diagnostic> {
    if text.len() > LARGEST_FILE {
        return Err(too_large(sort, file, text.len()));
    }
    DeTable::parse(text).map_err(|error| {
        let at = error.span().unwrap_or(0..0);
        let places = Places::new(text);
        let mut span = places.span(file, &at, &[]);
        span.source_line = guarded_line(text, at.start, &span.source_line);
        if span.source_line.ends_with('…') {
            span.length = 0;
        }
        let message = error.message().trim().replace('\n', "; ");
        Diagnostic::error(&format!("{}.syntax", sort.area), "The file is not valid TOML", quote_long(&message))
            .at(Some(span))
            .help("correct the syntax at this place; see https://toml.io for the format")
    })
}

/// A broken file has no known structure, so any value on the line might be a credential: only what is surely
/// a key or a table header is shown.
fn guarded_line(text: &str, at: usize, line: &str) -> String {
    if inside_multiline_string(text, at) {
        return "…".to_owned();
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || " _-.".contains(c);
    if let Some((key, _)) = line.split_once('=') {
        return if key.chars().all(plain) { format!("{}= …", key) } else { "…".to_owned() };
    }
    let header = line.trim_end();
    if header.starts_with('[') && header.chars().all(|c| plain(c) || "[]/*\"'".contains(c)) { header.to_owned() } else { "…".to_owned() }
}

fn inside_multiline_string(text: &str, at: usize) -> bool {
    let line_start = text[..floor(text, at)].rfind('\n').map_or(0, |n| n + 1);
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < line_start {
        match bytes[i] {
            b'#' => i = end_of_line(bytes, i),
            quote @ (b'"' | b'\'') if bytes[i..].starts_with(&[quote; 3]) => {
                i += 3;
                loop {
                    if i >= line_start {
                        return true;
                    }
                    if bytes[i..].starts_with(&[quote; 3]) {
                        i += 3;
                        break;
                    }
                    i += if quote == b'"' && bytes[i] == b'\\' { 2 } else { 1 };
                }
            }
            quote @ (b'"' | b'\'') => {
                i += 1;
                while i < line_start && bytes[i] != quote && bytes[i] != b'\n' {
                    i += if quote == b'"' && bytes[i] == b'\\' { 2 } else { 1 };
                }
                i += 1;
            }
            _ => i += 1,
        }
    }
    false
}

fn end_of_line(bytes: &[u8], from: usize) -> usize {
    bytes[from..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |n| from + n)
}

fn floor(text: &str, mut at: usize) -> usize {
    at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Byte offsets to lines and columns, each in constant time: a column by plain counting would make a file of one long line
/// quadratic.
pub struct Places<'t> {
    text: &'t str,
    line_starts: Vec<usize>,
    /// Characters before byte `i * MARK`.
    marks: Vec<u32>,
}

impl<'t> Places<'t> {
    pub fn new(text: &'t str) -> Self {
        let mut line_starts = vec![0];
        let mut marks = Vec::with_capacity(text.len() / MARK + 1);
        let mut chars = 0;
        for (i, byte) in text.bytes().enumerate() {
            if i % MARK == 0 {
                marks.push(chars);
            }
            if byte & 0xc0 != 0x80 {
                chars += 1;
            }
            if byte == b'\n' {
                line_starts.push(i + 1);
            }
        }
        marks.push(chars);
        Self { text, line_starts, marks }
    }

    fn chars_before(&self, at: usize) -> u32 {
        let mark = at / MARK;
        if mark >= self.marks.len() {
            return self.marks.last().copied().unwrap_or(0);
        }
        let rest = &self.text.as_bytes()[mark * MARK..at];
        self.marks[mark] + rest.iter().filter(|b| **b & 0xc0 != 0x80).count() as u32
    }

    /// `hidden` holds the byte ranges that must not be shown, in order.
    pub fn span(&self, file: &str, at: &Range<usize>, hidden: &[Range<usize>]) -> Span {
        let start = floor(self.text, at.start);
        let end = floor(self.text, at.end.max(start));
        let line = self.line_starts.partition_point(|s| *s <= start) - 1;
        let line_start = self.line_starts[line];
        let mut line_end = self.line_starts.get(line + 1).map_or(self.text.len(), |next| next - 1);
        if self.text[line_start..line_end].ends_with('\r') {
            line_end -= 1;
        }
        let column = self.chars_before(start) - self.chars_before(line_start) + 1;
        let mut length = self.chars_before(end.min(line_end).max(start)) - self.chars_before(start);

        let mut shown = String::new();
        let mut done = line_start;
        let mut masked = false;
        let mut cut = false;
        let first = hidden.partition_point(|h| h.end <= line_start);
        for secret in hidden[first..].iter().take_while(|h| h.start < line_end) {
            if shown.len() > LONGEST_SOURCE_LINE {
                // What follows may hold more of them, so the line ends here.
                done = line_end;
                cut = true;
                break;
            }
            shown.push_str(&self.text[done..secret.start.clamp(done, line_end)]);
            shown.push_str("\"…\"");
            masked = true;
            if secret.start < end && start < secret.end {
                length = length.min(3);
            } else if secret.end <= start {
                // The mask has another length than what it covers, so nothing behind it can be pointed at.
                length = 0;
            }
            done = secret.end.clamp(done, line_end);
        }
        let tail_end = floor(self.text, line_end.min(done + 4 * LONGEST_SOURCE_LINE));
        let tail = &self.text[done..tail_end.max(done)];
        // A comment behind a credential often holds the one before.
        shown.push_str(if masked { tail.split('#').next().unwrap_or_default().trim_end() } else { tail });
        let mut source_line: String = shown.chars().take(LONGEST_SOURCE_LINE).map(harmless).collect();
        if cut || shown.chars().nth(LONGEST_SOURCE_LINE).is_some() || tail_end < line_end {
            if column as usize + length as usize > source_line.chars().count() {
                length = 0;
            }
            source_line.push('…');
        }
        Span { file: file.to_owned(), line: line as u32 + 1, column, length, source_line }
    }
}

/// One character for one, so that columns stay: a terminal must not act on what a file holds.
fn harmless(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c => c,
    }
}

/// Offending text as a detail shows it: short, and nothing a terminal would act on.
pub fn quote(text: &str) -> String {
    shorten(text, 60)
}

fn quote_long(text: &str) -> String {
    shorten(text, 240)
}

fn shorten(text: &str, most: usize) -> String {
    let mut shown: String = text.chars().take(most).map(|c| if c == '\t' { ' ' } else { harmless(c) }).collect();
    if text.chars().nth(most).is_some() {
        shown.push('…');
    }
    shown
}

/// The candidate that a slip of the finger would turn into `word`.
pub fn near<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    if word.len() > 64 {
        return None;
    }
    let most = (word.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .filter(|candidate| *candidate != word)
        .map(|candidate| (strsim::osa_distance(&word.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(steps, candidate)| *steps <= most && *steps < candidate.chars().count())
        .min()
        .map(|(_, candidate)| candidate)
}

pub fn did_you_mean(word: &str, allowed: &[&str]) -> String {
    let list = allowed.iter().map(|a| format!("`{a}`")).collect::<Vec<_>>().join(", ");
    match near(word, allowed.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`? Allowed: {list}"),
        None => format!("allowed: {list}"),
    }
}

pub struct Reader<'t> {
    pub sort: Sort,
    file: &'t str,
    places: Places<'t>,
    hidden: Vec<Range<usize>>,
    found: RefCell<Vec<(usize, Diagnostic)>>,
}

impl<'t> Reader<'t> {
    pub fn new(sort: Sort, file: &'t str, text: &'t str, tree: &DeTable<'_>) -> Self {
        let mut hidden = Vec::new();
        if sort.hides_env {
            hide_in_table(tree, &mut hidden);
            hidden.sort_by_key(|range| range.start);
        }
        Self { sort, file, places: Places::new(text), hidden, found: RefCell::new(Vec::new()) }
    }

    pub fn root<'r>(&'r self, tree: &'r DeTable<'r>) -> Table<'r> {
        Table { reader: self, path: String::new(), map: tree, place: 0..0, asked: RefCell::default(), passed: RefCell::default() }
    }

    pub fn span(&self, at: &Range<usize>) -> Option<Span> {
        Some(self.places.span(self.file, at, &self.hidden))
    }

    /// For an entry whose meaning is unknown: its value might be anything, so only what stands before it is shown.
    fn span_of_key(&self, key: &Range<usize>, value: &Range<usize>) -> Option<Span> {
        if value.start < key.end {
            return self.span(key);
        }
        let mut hidden = self.hidden.clone();
        let from = hidden.partition_point(|h| h.start < value.start);
        hidden.retain(|h| h.end <= value.start || h.start >= value.end);
        hidden.insert(from.min(hidden.len()), value.clone());
        hidden.sort_by_key(|range| range.start);
        Some(self.places.span(self.file, key, &hidden))
    }

    fn add(&self, at: usize, diagnostic: Diagnostic) {
        let mut found = self.found.borrow_mut();
        // A file of nothing but mistakes would otherwise cost a message per line.
        if found.len() <= MOST_MISTAKES || diagnostic.is_error() && found.len() < 2 * MOST_MISTAKES {
            found.push((at, diagnostic));
        }
    }

    pub fn full(&self) -> bool {
        self.found.borrow().len() >= 2 * MOST_MISTAKES
    }

    pub fn error(&self, at: Range<usize>, problem: &str, summary: &str, detail: impl Into<String>, help: impl Into<String>) {
        if !self.full() {
            let code = format!("{}.{problem}", self.sort.area);
            self.add(at.start, Diagnostic::error(&code, summary, detail).at(self.span(&at)).help(help));
        }
    }

    pub fn warn(&self, at: Range<usize>, problem: &str, summary: &str, detail: impl Into<String>, help: impl Into<String>) {
        if !self.full() {
            let code = format!("{}.{problem}", self.sort.area);
            self.add(at.start, Diagnostic::warning(&code, summary, detail).at(self.span(&at)).help(help));
        }
    }

    pub fn wrong_type(&self, path: &str, value: &Value<'_>, wanted: &str, help: &str) {
        self.error(
            value.span(),
            "wrong_type",
            "A field has the wrong type",
            format!("`{path}` must be {wanted}, not {}", type_name(value.get_ref())),
            help,
        );
    }

    /// Everything found, in file order: errors fail the file, else the warnings are handed on.
    pub fn finish(self) -> Result<Vec<Diagnostic>, Diagnostics> {
        let mut found = self.found.into_inner();
        found.sort_by_key(|(at, diagnostic)| (*at, diagnostic.severity));
        let mut all: Vec<Diagnostic> = found.into_iter().map(|(_, diagnostic)| diagnostic).collect();
        all.dedup();
        if all.len() > MOST_MISTAKES {
            // Errors first: a flood of warnings must not push the reason of the failure out.
            all.sort_by_key(|d| !d.is_error());
            all.truncate(MOST_MISTAKES);
            let last = Diagnostic {
                severity: if all[0].is_error() { Severity::Error } else { Severity::Warning },
                ..Diagnostic::error(
                    &format!("{}.too_many", self.sort.area),
                    "There are more mistakes than are shown",
                    format!("only the first {MOST_MISTAKES} in `{}` are listed", quote(self.file)),
                )
            };
            all.push(last.help("correct these first, then run the command again"));
        }
        if all.iter().any(Diagnostic::is_error) { Err(Diagnostics(all)) } else { Ok(all) }
    }
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

fn hide_in_table(table: &DeTable<'_>, hidden: &mut Vec<Range<usize>>) {
    for (key, value) in table {
        match (key.get_ref().as_ref(), value.get_ref()) {
            ("env", DeValue::Table(entries)) => entries.iter().for_each(|(_, entry)| hide_env_entry(entry, hidden)),
            ("env", _) => hide_all(value, hidden),
            ("git", DeValue::String(url)) if has_user_info(url) => hidden.push(value.span()),
            (_, DeValue::Table(inner)) => hide_in_table(inner, hidden),
            (_, DeValue::Array(items)) => items.iter().for_each(|item| {
                if let DeValue::Table(inner) = item.get_ref() {
                    hide_in_table(inner, hidden);
                }
            }),
            _ => {}
        }
    }
}

fn hide_env_entry(entry: &Value<'_>, hidden: &mut Vec<Range<usize>>) {
    match entry.get_ref() {
        DeValue::String(text) if is_reference(text) => {}
        DeValue::Table(form) => {
            for (key, value) in form {
                let shown = match (key.get_ref().as_ref(), value.get_ref()) {
                    ("op" | "value", DeValue::String(text)) => is_reference(text),
                    ("path" | "account", DeValue::String(_)) | ("on_demand", DeValue::Boolean(_)) => true,
                    _ => false,
                };
                if !shown {
                    hide_all(value, hidden);
                }
            }
        }
        _ => hide_all(entry, hidden),
    }
}

/// With every leaf on its own, because the span of a table is that of its header or of one dotted key.
fn hide_all(value: &Value<'_>, hidden: &mut Vec<Range<usize>>) {
    match value.get_ref() {
        DeValue::Table(inner) => inner.iter().for_each(|(_, value)| hide_all(value, hidden)),
        DeValue::Array(items) => {
            hidden.push(value.span());
            items.iter().for_each(|item| hide_all(item, hidden));
        }
        _ => hidden.push(value.span()),
    }
}

/// A value that names where a credential is, rather than being one.
fn is_reference(text: &str) -> bool {
    text.starts_with("op://") || host_variable(text).is_some()
}

/// `$NAME` or `${NAME}` as the whole value.
pub fn host_variable(text: &str) -> Option<&str> {
    let rest = text.strip_prefix('$')?;
    let name = rest.strip_prefix('{').and_then(|r| r.strip_suffix('}')).unwrap_or(rest);
    is_variable_name(name).then_some(name)
}

pub fn is_variable_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_') && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// `user:password@host`, in a URL or a broken one; not `git@host:path`.
fn has_user_info(url: &str) -> bool {
    url.rsplit_once('@').is_some_and(|(before, _)| before.contains(':'))
}

/// What to do with a key nobody asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    Reject,
    /// Say something only when it looks like a slip.
    WarnNear,
    /// A slip is an error, since ignoring it would change the meaning; anything else is ignored with a warning.
    RejectNear,
}

pub struct Table<'r> {
    pub reader: &'r Reader<'r>,
    /// Dotted, empty for the document itself.
    pub path: String,
    pub map: &'r DeTable<'r>,
    /// Where to point when something is absent from this table.
    pub place: Range<usize>,
    asked: RefCell<Vec<&'static str>>,
    /// Starts of keys that are read elsewhere.
    passed: RefCell<Vec<usize>>,
}

fn path_of(parent: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let key = if bare { quote(key) } else { format!("\"{}\"", quote(key)) };
    if parent.is_empty() { key } else { format!("{parent}.{key}") }
}

impl<'r> Table<'r> {
    pub fn path_of(&self, key: &str) -> String {
        path_of(&self.path, key)
    }

    pub fn get(&self, key: &'static str) -> Option<(&'r Key<'r>, &'r Value<'r>)> {
        self.asked.borrow_mut().push(key);
        self.map.get_key_value(key)
    }

    pub fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// This entry is somebody else's, so it is not unknown.
    pub fn pass(&self, key: &Key<'_>) {
        self.passed.borrow_mut().push(key.span().start);
    }

    /// All entries in file order.
    pub fn entries(&self) -> Vec<(&'r Key<'r>, &'r Value<'r>)> {
        let mut all: Vec<_> = self.map.iter().collect();
        all.sort_by_key(|(key, _)| key.span().start);
        all
    }

    pub fn child(&self, key: &'r Key<'r>, map: &'r DeTable<'r>) -> Table<'r> {
        Table {
            reader: self.reader,
            path: self.path_of(key.get_ref()),
            map,
            place: key.span(),
            asked: RefCell::default(),
            passed: RefCell::default(),
        }
    }

    pub fn string(&self, key: &'static str) -> Option<Located<String>> {
        let (_, value) = self.get(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some(Located::new(text.to_string(), self.reader.span(&value.span()))),
            _ => {
                self.reader.wrong_type(&self.path_of(key), value, "a string", "put the value in double quotes");
                None
            }
        }
    }

    /// A string that ends up in a path, an argument or a line of a file: not empty, one line, no control characters.
    pub fn line(&self, key: &'static str) -> Option<Located<String>> {
        let found = self.string(key)?;
        let (_, value) = self.map.get_key_value(key)?;
        self.check_line(&self.path_of(key), &found.value, value.span()).then_some(found)
    }

    fn check_line(&self, path: &str, text: &str, at: Range<usize>) -> bool {
        if text.trim().is_empty() {
            self.reader.error(at, "empty", "A field is empty", format!("`{path}` must not be empty"), "give it a value or remove the line");
            return false;
        }
        if text.chars().any(char::is_control) {
            self.reader.error(
                at,
                "control_character",
                "A field holds a control character",
                format!("`{path}` must be a single line without control characters"),
                "remove line breaks and escapes from the value",
            );
            return false;
        }
        true
    }

    pub fn required(&self, key: &'static str, why: &str) -> Option<Located<String>> {
        if !self.has(key) {
            self.asked.borrow_mut().push(key);
            self.missing(key, why);
            return None;
        }
        self.line(key)
    }

    pub fn missing(&self, key: &str, help: &str) {
        let whole = if self.path.is_empty() { "the file".to_owned() } else { format!("`[{}]`", self.path) };
        self.reader.error(self.place.clone(), "missing_field", "A required field is missing", format!("{whole} has no `{key}`"), help);
    }

    pub fn boolean(&self, key: &'static str) -> Option<Located<bool>> {
        let (_, value) = self.get(key)?;
        match value.get_ref() {
            DeValue::Boolean(on) => Some(Located::new(*on, self.reader.span(&value.span()))),
            _ => {
                self.reader.wrong_type(&self.path_of(key), value, "a boolean", "write `true` or `false`, without quotes");
                None
            }
        }
    }

    pub fn flag(&self, key: &'static str) -> bool {
        self.boolean(key).is_some_and(|found| found.value)
    }

    pub fn integer(&self, key: &'static str, least: i64) -> Option<Located<i64>> {
        let (_, value) = self.get(key)?;
        let DeValue::Integer(digits) = value.get_ref() else {
            self.reader.wrong_type(&self.path_of(key), value, "an integer", "write a whole number, without quotes");
            return None;
        };
        match i64::from_str_radix(digits.as_str(), digits.radix()) {
            Ok(number) if number >= least => Some(Located::new(number, self.reader.span(&value.span()))),
            _ => {
                self.out_of_range(key, value, digits.as_str(), &format!("a whole number of at least {least}"));
                None
            }
        }
    }

    pub fn out_of_range(&self, key: &str, value: &Value<'_>, text: &str, wanted: &str) {
        self.reader.error(
            value.span(),
            "out_of_range",
            "A number is out of range",
            format!("`{}` is `{}`", self.path_of(key), quote(text)),
            format!("give {wanted}"),
        );
    }

    /// One of a closed set of words.
    pub fn word<T: Copy>(&self, key: &'static str, words: &[(&'static str, T)]) -> Option<Located<T>> {
        let found = self.string(key)?;
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == found.value) {
            return Some(Located::new(*meaning, found.span));
        }
        let (_, value) = self.map.get_key_value(key)?;
        let allowed: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        self.reader.error(
            value.span(),
            "unknown_value",
            "A field has a value that is not known",
            format!("`{}` is `{}`", self.path_of(key), quote(&found.value)),
            did_you_mean(&found.value, &allowed),
        );
        None
    }

    pub fn lines(&self, key: &'static str) -> Vec<Located<String>> {
        self.lines_at(key).into_iter().map(|(_, line)| line).collect()
    }

    pub fn lines_at(&self, key: &'static str) -> Vec<(Range<usize>, Located<String>)> {
        let Some((_, value)) = self.get(key) else {
            return Vec::new();
        };
        let DeValue::Array(items) = value.get_ref() else {
            self.reader.wrong_type(&self.path_of(key), value, "an array of strings", "write `[\"one\", \"two\"]`");
            return Vec::new();
        };
        let mut found = Vec::new();
        for (i, item) in items.iter().enumerate() {
            let path = format!("{}[{i}]", self.path_of(key));
            match item.get_ref() {
                DeValue::String(text) => {
                    if self.check_line(&path, text, item.span()) {
                        found.push((item.span(), Located::new(text.to_string(), self.reader.span(&item.span()))));
                    }
                }
                _ => self.reader.wrong_type(&path, item, "a string", "put the value in double quotes"),
            }
        }
        found
    }

    pub fn table(&self, key: &'static str) -> Option<Table<'r>> {
        let (key, value) = self.get(key)?;
        self.as_table(key, value)
    }

    pub fn as_table(&self, key: &'r Key<'r>, value: &'r Value<'r>) -> Option<Table<'r>> {
        match value.get_ref() {
            DeValue::Table(map) => Some(self.child(key, map)),
            _ => {
                let path = self.path_of(key.get_ref());
                self.reader.wrong_type(&path, value, "a table", &format!("write it as `[{path}]`"));
                None
            }
        }
    }

    pub fn tables(&self, key: &'static str) -> Vec<Table<'r>> {
        let Some((name, value)) = self.get(key) else {
            return Vec::new();
        };
        let path = self.path_of(key);
        let DeValue::Array(items) = value.get_ref() else {
            let help = format!("begin each one with `[[{path}]]`");
            self.reader.wrong_type(&path, value, "an array of tables", &help);
            return Vec::new();
        };
        let mut found = Vec::new();
        for (i, item) in items.iter().enumerate() {
            let path = format!("{path}[{i}]");
            match item.get_ref() {
                DeValue::Table(map) => {
                    // An element of `[[x]]` has no key of its own; its span is that of the header.
                    let place = if item.span().is_empty() { name.span() } else { item.span() };
                    found.push(Table { reader: self.reader, path, map, place, asked: RefCell::default(), passed: RefCell::default() });
                }
                _ => self.reader.wrong_type(&path, item, "a table", "write `{ key = value }`"),
            }
        }
        found
    }

    /// Reports the keys nobody asked for.
    pub fn finish(&self, rule: Unknown) {
        let asked = self.asked.take();
        let passed = self.passed.take();
        let known = |key: &Key<'_>| asked.iter().any(|a| *a == key.get_ref().as_ref()) || passed.contains(&key.span().start);
        let mut strangers: Vec<_> = self.map.iter().filter(|(key, _)| !known(key)).collect();
        strangers.sort_by_key(|(key, _)| key.span().start);
        // Looking for slips costs more than reading; nobody has so many keys of their own.
        for (key, value) in strangers.into_iter().take(1000) {
            if self.reader.full() {
                return;
            }
            let name = key.get_ref().as_ref();
            let meant = near(name, asked.iter().copied().filter(|known| !self.map.contains_key(*known)));
            let misplaced = !self.path.is_empty() && self.reader.sort.top_level.contains(&name);
            let help = if misplaced {
                format!("`{name}` belongs above the first table: in TOML, everything below `[{}]` is part of it", self.path)
            } else if let Some(meant) = meant {
                format!("did you mean `{meant}`?")
            } else if asked.is_empty() {
                "this table holds no fields; remove the line".to_owned()
            } else {
                let mut known: Vec<String> = asked.iter().map(|a| format!("`{a}`")).collect();
                known.sort();
                known.dedup();
                format!("remove the line; known here: {}", known.join(", "))
            };
            let slip = misplaced || meant.is_some();
            let severity = match rule {
                Unknown::Reject => Severity::Error,
                Unknown::RejectNear if slip => Severity::Error,
                Unknown::WarnNear if !slip => continue,
                Unknown::RejectNear | Unknown::WarnNear => Severity::Warning,
            };
            let full = path_of(&self.path, name);
            let code = format!("{}.unknown_field", self.reader.sort.area);
            let detail = match severity {
                Severity::Error => format!("`{full}` is not a known field"),
                Severity::Warning | Severity::Notice => {
                    format!("`{full}` is not a known field and has no effect")
                }
            };
            let diagnostic = Diagnostic { severity, ..Diagnostic::error(&code, "There is no such field", detail) };
            self.reader.add(key.span().start, diagnostic.at(self.reader.span_of_key(&key.span(), &value.span())).help(help));
        }
    }
}
