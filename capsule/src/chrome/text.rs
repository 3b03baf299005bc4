//! Text measured in columns: how wide, cut to fit, wrapped. Nothing here splits a wide character or a cluster.

use std::borrow::Cow;

use crate::frame::columns;

/// The columns that a `Frame` gives it.
pub fn width(text: &str) -> usize {
    if is_plain(text) { text.len() } else { columns(text) }
}

/// A column for each byte: nearly all there is.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// The text in pieces that a cell or two show, each with its place: a character and the zero-width ones behind it.
pub fn clusters(text: &str) -> Vec<(usize, &str)> {
    let shows = |c: char| width(c.encode_utf8(&mut [0; 4])) > 0;
    let starts = |(at, c): (usize, char)| (at == 0 || shows(c)).then_some(at);
    let mut starts: Vec<_> = text.char_indices().filter_map(starts).collect();
    starts.push(text.len());
    starts.windows(2).map(|ends| (ends[0], &text[ends[0]..ends[1]])).collect()
}

/// The longest beginning within `cols`.
fn head(text: &str, cols: usize) -> &str {
    if is_plain(text) {
        return &text[..cols.min(text.len())];
    }
    let mut used = 0;
    for (at, cluster) in clusters(text) {
        used += width(cluster);
        if used > cols {
            return &text[..at];
        }
    }
    text
}

/// The longest end within `cols`.
fn tail(text: &str, cols: usize) -> &str {
    let mut used = 0;
    for (at, cluster) in clusters(text).into_iter().rev() {
        used += width(cluster);
        if used > cols {
            return &text[at + cluster.len()..];
        }
    }
    text
}

/// What does not fit loses its end, and `mark` (one column) says so.
pub fn cut<'a>(text: &'a str, cols: usize, mark: &str) -> Cow<'a, str> {
    if width(text) <= cols {
        return text.into();
    }
    if cols == 0 { "".into() } else { format!("{}{mark}", head(text, cols - 1).trim_end()).into() }
}

/// As `cut`, but the end stays: of a path it says the most.
pub fn cut_front<'a>(text: &'a str, cols: usize, mark: &str) -> Cow<'a, str> {
    if width(text) <= cols {
        return text.into();
    }
    if cols == 0 { "".into() } else { format!("{mark}{}", tail(text, cols - 1)).into() }
}

/// Lines of at most `cols`, broken between words; a word longer than that is broken where the line ends. Never empty.
pub fn wrap(text: &str, cols: usize) -> Vec<String> {
    let cols = cols.max(1);
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            let gap = usize::from(!line.is_empty());
            if width(&line) + gap + width(word) <= cols {
                line.extend((gap == 1).then_some(' '));
                line.push_str(word);
                continue;
            }
            if !line.is_empty() {
                lines.push(std::mem::take(&mut line));
            }
            let mut rest = word;
            while width(rest) > cols {
                // A wide character in a single column has no place at all; it goes on alone and the painter drops it.
                let first = clusters(rest).first().map_or(rest.len(), |(_, cluster)| cluster.len());
                let taken = head(rest, cols).len().max(first);
                lines.push(rest[..taken].to_owned());
                rest = &rest[taken..];
            }
            line = if rest.is_empty() { lines.pop().unwrap_or_default() } else { rest.to_owned() };
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cutting_says_so_and_spares_wide_characters() {
        assert_eq!(cut("branch", 6, "…"), "branch");
        assert_eq!(cut("branch", 4, "…"), "bra…");
        assert_eq!(cut("日本語", 4, "…"), "日…");
        assert_eq!(cut("日本語", 1, "…"), "…");
        assert_eq!(cut("x", 0, "…"), "");
        assert_eq!(cut_front("/workspace/app", 6, "…"), "…e/app");
        assert_eq!(cut_front("日本語", 4, "…"), "…語");
    }

    #[test]
    fn wrapping() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefgh ij", 3), ["abc", "def", "gh", "ij"]);
        assert_eq!(wrap("a\n\nb", 9), ["a", "", "b"]);
        assert_eq!(wrap("日本", 1), ["日", "本"]);
        assert_eq!(wrap("", 5), [""]);
    }

    proptest! {
        #[test]
        fn nothing_gets_wider_than_asked(text in "[ a-d日é\u{301}👩‍🚀\n]{0,40}", cols in 2usize..20) {
            prop_assert!(wrap(&text, cols).iter().all(|line| width(line) <= cols));
            prop_assert!(width(&cut(&text, cols, "…")) <= cols);
            prop_assert!(width(&cut_front(&text, cols, "…")) <= cols);
            let kept: String = wrap(&text, cols).concat().replace(' ', "");
            prop_assert_eq!(kept, text.replace([' ', '\n'], ""));
        }
    }
}
