//! Text for a picture: made harmless, wrapped. Everything from outside comes through here.

use crate::render::{clean, width};

/// Lines of at most so many columns. Broken at blanks where there are any, with the line's own indent.
pub fn wrap(text: &str, columns: usize) -> Vec<String> {
    text.lines().flat_map(|line| wrap_line(&clean(line), columns.max(1))).collect()
}

fn wrap_line(line: &str, columns: usize) -> Vec<String> {
    let indent = line.len() - line.trim_start_matches(' ').len();
    // What goes on below it has room for a wide character at least.
    let indent = if indent * 2 > columns || indent + 2 > columns { 0 } else { indent };
    let mut done = Vec::new();
    let mut rest = line.trim_end().to_owned();
    while width(&rest) > columns {
        let mut used = 0;
        let fits = rest.char_indices().find(|(_, c)| {
            used += width(c.encode_utf8(&mut [0; 4]));
            used > columns
        });
        // A character wider than the line goes alone.
        let first = rest.chars().next().map_or(0, char::len_utf8);
        let end = fits.map_or(rest.len(), |(at, _)| at).max(first);
        let blank = rest[..end].rfind(' ').filter(|at| *at > indent && !rest[..*at].trim().is_empty());
        let tail = match blank {
            _ if rest[end..].starts_with(' ') => end,
            Some(at) => at,
            None => end,
        };
        let next = rest[tail..].trim_start().to_owned();
        rest.truncate(tail);
        let done_with_it = next.is_empty();
        done.push(std::mem::replace(&mut rest, " ".repeat(indent) + &next));
        if done_with_it {
            return done;
        }
    }
    done.push(rest);
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_are_broken_at_blanks_and_keep_their_indent() {
        assert_eq!(wrap("  one two three\n\nfour", 9), ["  one two", "  three", "", "four"]);
        assert_eq!(wrap("abcdefgh ij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("a\x1b[2Jb", 20), ["a\\x1b[2Jb"]);
    }

    proptest! {
        #[test]
        fn nothing_is_wider_than_it_may_be_and_nothing_is_lost(text in "[ a-d漢é\u{1b}\n]{0,60}", columns in 2_usize..30) {
            let lines = wrap(&text, columns);
            prop_assert!(lines.iter().all(|line| width(line) <= columns), "{lines:?}");
            let dense = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            let all: String = text.lines().map(clean).collect();
            prop_assert_eq!(dense(&lines.concat()), dense(&all));
        }
    }
}
