//! A rule pack: what an agent's screen looks like in each state. TOML in, rules out, or the file, rule and field that is
//! wrong; and which rules match a screen. Absent: where packs come from, and what follows from a match.

use std::fmt;

use regex_lite::{Regex, RegexBuilder};
use toml::{Table, Value};

use super::RawState;
use super::regions::{Part, Region, Regions};

/// Of this program; a pack may ask for a newer one.
const ENGINE: i64 = 2;
const SCHEMA: i64 = 1;
const MAX_RULES: usize = 128;
const MAX_MATCHERS: usize = 64;
const MAX_MATCHER: usize = 512;
const MAX_DEPTH: usize = 16;
const MAX_REGEX: usize = 256 << 10;

#[derive(Debug)]
pub struct Pack {
    /// The file, or `embedded`.
    pub origin: String,
    pub agent: String,
    pub validated_versions: String,
    /// The first that matches counts.
    pub rules: Vec<Rule>,
}

#[derive(Debug)]
pub struct Rule {
    pub id: String,
    pub state: RuleState,
    pub priority: i64,
    pub region: Region,
    /// A weak rule shows up in reports and explanations but decides nothing.
    pub strong: bool,
    condition: Condition,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleState {
    Working,
    Blocked,
    Idle,
    /// The screen says nothing now, so what was before stays.
    Freeze,
}

#[derive(Debug)]
enum Condition {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    /// In small letters.
    Contains(String),
    Regex(Regex),
    /// Some line by itself.
    LineRegex(Regex),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct PackError {
    pub origin: String,
    pub rule: Option<String>,
    pub field: Option<String>,
    pub problem: String,
}

impl fmt::Display for PackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if let Some(rule) = &self.rule {
            write!(f, "rule {rule:?}: ")?;
        }
        if let Some(field) = &self.field {
            write!(f, "`{field}` ")?;
        }
        f.write_str(&self.problem)
    }
}

impl RuleState {
    pub fn raw(self) -> Option<RawState> {
        match self {
            Self::Working => Some(RawState::Working),
            Self::Blocked => Some(RawState::Blocked),
            Self::Idle => Some(RawState::Idle),
            Self::Freeze => None,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Working, Self::Blocked, Self::Idle, Self::Freeze].into_iter().find(|state| state.to_string() == text)
    }
}

impl fmt::Display for RuleState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.raw() {
            Some(state) => state.fmt(f),
            None => f.write_str("freeze"),
        }
    }
}

impl Pack {
    pub fn parse(origin: &str, text: &str) -> Result<Self, PackError> {
        let error = |problem| PackError { origin: origin.to_owned(), rule: None, field: None, problem };
        let table: Table = text.parse().map_err(|e: toml::de::Error| error(e.to_string().trim_end().to_owned()))?;
        let mut fields = Fields { origin, rule: None, table };
        let schema = fields.integer("schema_version")?.ok_or_else(|| fields.missing("schema_version"))?;
        if schema != SCHEMA {
            return Err(fields.wrong("schema_version", format!("is {schema}; this program reads {SCHEMA}")));
        }
        let engine = fields.integer("min_engine_version")?.unwrap_or(1);
        if engine > ENGINE {
            return Err(fields.wrong("min_engine_version", format!("is {engine}; this program has {ENGINE}")));
        }
        let agent = fields.name("agent")?;
        let validated_versions = fields.text("validated_versions")?.ok_or_else(|| fields.missing("validated_versions"))?;
        if validated_versions.trim().is_empty() {
            return Err(fields.wrong("validated_versions", "is empty".to_owned()));
        }
        let rules = match fields.table.remove("rule") {
            None => Vec::new(),
            Some(Value::Array(rules)) => rules,
            Some(_) => return Err(fields.wrong("rule", "has to be a list of tables: [[rule]]".to_owned())),
        };
        fields.end()?;
        if rules.len() > MAX_RULES {
            return Err(error(format!("has {} rules; {MAX_RULES} are allowed", rules.len())));
        }
        let mut parsed: Vec<Rule> = Vec::with_capacity(rules.len());
        for (index, rule) in rules.into_iter().enumerate() {
            let rule = Rule::parse(origin, index, rule)?;
            if parsed.iter().any(|other| other.id == rule.id) {
                return Err(PackError { rule: Some(rule.id), ..error("is there twice".to_owned()) });
            }
            parsed.push(rule);
        }
        parsed.sort_by_key(|rule| std::cmp::Reverse(rule.priority));
        Ok(Self { origin: origin.to_owned(), agent, validated_versions, rules: parsed })
    }

    /// The rules that match, by their place among all, the first one first.
    pub fn matching(&self, regions: &Regions) -> Vec<usize> {
        let matches = |(index, rule): (usize, &Rule)| rule.matches(regions).then_some(index);
        self.rules.iter().enumerate().filter_map(matches).collect()
    }
}

impl Rule {
    fn parse(origin: &str, index: usize, value: Value) -> Result<Self, PackError> {
        let Value::Table(table) = value else {
            let problem = "has to be a list of tables: [[rule]]".to_owned();
            return Err(PackError { origin: origin.to_owned(), rule: None, field: Some("rule".to_owned()), problem });
        };
        // Until its name is known, its place has to do.
        let mut fields = Fields { origin, rule: Some(format!("#{}", index + 1)), table };
        let id = fields.name("id")?;
        fields.rule = Some(id.clone());
        let state = fields.text("state")?.ok_or_else(|| fields.missing("state"))?;
        let state = RuleState::parse(&state)
            .ok_or_else(|| fields.wrong("state", format!("is {state:?}; it can be working, blocked, idle or freeze")))?;
        let priority = fields.integer("priority")?.ok_or_else(|| fields.missing("priority"))?;
        let region = fields.text("region")?.ok_or_else(|| fields.missing("region"))?;
        let region = Region::parse(&region).ok_or_else(|| fields.wrong("region", format!("is {region:?}, which is no region")))?;
        let strong = match fields.text("strength")?.as_deref() {
            None | Some("weak") => false,
            Some("strong") => true,
            Some(other) => return Err(fields.wrong("strength", format!("is {other:?}; it can be weak or strong"))),
        };
        let mut left = MAX_MATCHERS;
        let mut all = fields.contains("requires_all", &mut left)?;
        let any = fields.contains("requires_any", &mut left)?;
        if !any.is_empty() {
            all.push(Condition::Any(any));
        }
        for text in fields.contains("forbids", &mut left)? {
            all.push(Condition::Not(Box::new(text)));
        }
        all.extend(fields.regexes("regex", Condition::Regex, &mut left)?);
        all.extend(fields.regexes("line_regex", Condition::LineRegex, &mut left)?);
        for regex in fields.regexes("forbids_regex", Condition::LineRegex, &mut left)? {
            all.push(Condition::Not(Box::new(regex)));
        }
        match fields.table.remove("gate") {
            None => {}
            Some(Value::Table(gate)) => all.push(fields.gate(gate, 1, &mut left)?),
            Some(_) => return Err(fields.wrong("gate", "has to be a table".to_owned())),
        }
        fields.end()?;
        if all.is_empty() {
            return Err(PackError {
                origin: origin.to_owned(),
                rule: Some(id),
                field: None,
                problem: "has no condition and would always match".to_owned(),
            });
        }
        Ok(Self { id, state, priority, region, strong, condition: Condition::All(all) })
    }

    /// Where there is nothing, no rule matches: conditions that only forbid would always hold there.
    fn matches(&self, regions: &Regions) -> bool {
        let part = regions.part(self.region);
        let part = Part { text: part.text.trim_end(), small: part.small.trim_end() };
        !part.text.is_empty() && self.condition.holds(part)
    }
}

impl Condition {
    fn holds(&self, part: Part<'_>) -> bool {
        match self {
            Self::All(all) => all.iter().all(|condition| condition.holds(part)),
            Self::Any(any) => any.iter().any(|condition| condition.holds(part)),
            Self::Not(condition) => !condition.holds(part),
            Self::Contains(text) => part.small.contains(text.as_str()),
            Self::Regex(regex) => regex.is_match(part.text),
            Self::LineRegex(regex) => part.text.lines().any(|line| regex.is_match(line)),
        }
    }
}

/// A table that is taken apart field by field; what is left at the end is a mistake.
struct Fields<'a> {
    origin: &'a str,
    rule: Option<String>,
    table: Table,
}

impl Fields<'_> {
    fn wrong(&self, field: &str, problem: String) -> PackError {
        PackError { origin: self.origin.to_owned(), rule: self.rule.clone(), field: Some(field.to_owned()), problem }
    }

    fn missing(&self, field: &str) -> PackError {
        self.wrong(field, "is missing".to_owned())
    }

    fn end(&self) -> Result<(), PackError> {
        match self.table.keys().next() {
            None => Ok(()),
            Some(key) => Err(self.wrong(key, "is not known".to_owned())),
        }
    }

    fn text(&mut self, field: &str) -> Result<Option<String>, PackError> {
        match self.table.remove(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(field, "has to be a text".to_owned())),
        }
    }

    fn integer(&mut self, field: &str) -> Result<Option<i64>, PackError> {
        match self.table.remove(field) {
            None => Ok(None),
            Some(Value::Integer(number)) => Ok(Some(number)),
            Some(_) => Err(self.wrong(field, "has to be a whole number".to_owned())),
        }
    }

    fn name(&mut self, field: &str) -> Result<String, PackError> {
        let name = self.text(field)?.ok_or_else(|| self.missing(field))?;
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > 64 || !name.bytes().all(fits) {
            return Err(self.wrong(field, format!("is {name:?}; letters, digits, `-`, `_` and `.` make a name")));
        }
        Ok(name)
    }

    /// One text, or a list of them.
    fn texts(&self, field: &str, value: Option<Value>, left: &mut usize) -> Result<Vec<String>, PackError> {
        let list = match value {
            None => Vec::new(),
            Some(Value::String(text)) => vec![Value::String(text)],
            Some(Value::Array(list)) => list,
            Some(_) => return Err(self.wrong(field, "has to be a text or a list of texts".to_owned())),
        };
        *left = left
            .checked_sub(list.len())
            .ok_or_else(|| self.wrong(field, format!("exceeds the {MAX_MATCHERS} conditions that a rule may have")))?;
        list.into_iter()
            .map(|value| match value {
                Value::String(text) if text.is_empty() => Err(self.wrong(field, "has an empty text".to_owned())),
                Value::String(text) if text.chars().count() > MAX_MATCHER => {
                    Err(self.wrong(field, format!("has a text of more than {MAX_MATCHER} characters")))
                }
                Value::String(text) => Ok(text),
                _ => Err(self.wrong(field, "has to be a text or a list of texts".to_owned())),
            })
            .collect()
    }

    fn contains(&mut self, field: &str, left: &mut usize) -> Result<Vec<Condition>, PackError> {
        let value = self.table.remove(field);
        let texts = self.texts(field, value, left)?;
        Ok(texts.into_iter().map(|text| Condition::Contains(text.to_ascii_lowercase())).collect())
    }

    fn regexes(&mut self, field: &str, kind: fn(Regex) -> Condition, left: &mut usize) -> Result<Vec<Condition>, PackError> {
        let value = self.table.remove(field);
        self.compile(field, self.texts(field, value, left)?, kind)
    }

    fn compile(&self, field: &str, patterns: Vec<String>, kind: fn(Regex) -> Condition) -> Result<Vec<Condition>, PackError> {
        let compile = |pattern: &String| RegexBuilder::new(pattern).case_insensitive(true).size_limit(MAX_REGEX).build().map(kind);
        patterns.iter().map(|pattern| compile(pattern).map_err(|error| self.wrong(field, format!("has {pattern:?}: {error}")))).collect()
    }

    /// All keys of a gate have to hold.
    fn gate(&self, gate: Table, depth: usize, left: &mut usize) -> Result<Condition, PackError> {
        if depth > MAX_DEPTH {
            return Err(self.wrong("gate", format!("is nested more than {MAX_DEPTH} deep")));
        }
        if gate.is_empty() {
            return Err(self.wrong("gate", "has an empty table, which would always hold".to_owned()));
        }
        let mut all = Vec::new();
        for (key, value) in gate {
            let field = format!("gate.{key}");
            match key.as_str() {
                "all" => all.extend(self.gates(&field, value, depth, left)?),
                "any" => all.push(Condition::Any(self.gates(&field, value, depth, left)?)),
                "not" => all.push(Condition::Not(Box::new(Condition::Any(self.gates(&field, value, depth, left)?)))),
                "contains" => {
                    let texts = self.texts(&field, Some(value), left)?;
                    all.extend(texts.into_iter().map(|text| Condition::Contains(text.to_ascii_lowercase())));
                }
                "regex" => all.extend(self.compile(&field, self.texts(&field, Some(value), left)?, Condition::Regex)?),
                "line_regex" => all.extend(self.compile(&field, self.texts(&field, Some(value), left)?, Condition::LineRegex)?),
                _ => return Err(self.wrong(&field, "is not known".to_owned())),
            }
        }
        Ok(Condition::All(all))
    }

    /// One gate, or a list of them.
    fn gates(&self, field: &str, value: Value, depth: usize, left: &mut usize) -> Result<Vec<Condition>, PackError> {
        let list = match value {
            Value::Array(list) => list,
            table => vec![table],
        };
        if list.is_empty() {
            return Err(self.wrong(field, "is empty".to_owned()));
        }
        list.into_iter()
            .map(|value| match value {
                Value::Table(gate) => self.gate(gate, depth + 1, left),
                _ => Err(self.wrong(field, "has to be a table or a list of tables".to_owned())),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::agent::View;

    const HEAD: &str = "schema_version = 1\nagent = \"claude\"\nvalidated_versions = \">=2, <3\"\n";

    fn pack(rule: &str) -> Result<Pack, String> {
        let text = format!("{HEAD}[[rule]]\nid = \"r\"\nstate = \"idle\"\npriority = 1\nregion = \"bottom:9\"\n{rule}\n");
        Pack::parse("test.toml", &text).map_err(|error| error.to_string())
    }

    fn check(rule: &str, screen: &str, expected: bool) {
        let rows: Vec<String> = screen.lines().map(str::to_owned).collect();
        let regions = Regions::new(&View { rows: &rows, title: "", progress: None });
        assert_eq!(!pack(rule).unwrap().matching(&regions).is_empty(), expected, "{rule} on {screen:?}");
    }

    #[test]
    fn conditions() {
        for (rule, yes, no) in [
            ("requires_all = [\"one\", \"TWO\"]", "Two\nOne", "two"),
            ("requires_any = [\"one\", \"two\"]", "two", "three"),
            ("requires_all = \"x\"\nforbids = [\"one\", \"two\"]", "x three", "x two"),
            ("regex = 'a\\nb$'", "a\nB", "a b"),
            ("line_regex = ['^b$', '^a']", "a\nb", "ab"),
            ("requires_all = \"x\"\nforbids_regex = '^b$'", "x\nbb", "x\nb"),
            ("gate = { contains = \"a\" }", "ba", "b"),
            ("gate = { any = [{ contains = \"a\" }, { all = [{ contains = \"b\" }, { line_regex = \"^c\" }] }] }", "b\nc", "b"),
            ("gate = { contains = \"a\", not = { regex = \"b\" } }", "a", "ab"),
            ("gate = { contains = \"a\", not = [{ contains = \"b\" }, { contains = \"c\" }] }", "a", "ac"),
        ] {
            check(rule, yes, true);
            check(rule, no, false);
        }
        check("forbids = \"x\"", "\n\n", false);
    }

    #[test]
    fn the_first_by_priority() {
        let rule = |id: &str, priority| {
            format!("[[rule]]\nid = \"{id}\"\nstate = \"idle\"\npriority = {priority}\nregion = \"bottom:1\"\nrequires_all = \"x\"\n")
        };
        let text = format!("{HEAD}{}{}{}", rule("low", -1), rule("high", 7), rule("also-high", 7));
        let pack = Pack::parse("test.toml", &text).unwrap();
        assert_eq!(pack.rules.iter().map(|rule| rule.id.as_str()).collect::<Vec<_>>(), ["high", "also-high", "low"]);
        let rows = ["x".to_owned()];
        assert_eq!(pack.matching(&Regions::new(&View { rows: &rows, title: "", progress: None })), [0, 1, 2]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let long = "x".repeat(513);
        let deep = format!("gate = {}{{ contains = \"x\" }}{}", "{ not = ".repeat(16), " }".repeat(16));
        for (rule, expected) in [
            ("", "test.toml: rule \"r\": has no condition and would always match"),
            ("requires_all = [1]", "test.toml: rule \"r\": `requires_all` has to be a text or a list of texts"),
            ("requires_all = [\"\"]", "test.toml: rule \"r\": `requires_all` has an empty text"),
            (&format!("forbids = \"{long}\""), "test.toml: rule \"r\": `forbids` has a text of more than 512 characters"),
            ("requires_some = \"x\"", "test.toml: rule \"r\": `requires_some` is not known"),
            ("strength = \"firm\"", "test.toml: rule \"r\": `strength` is \"firm\"; it can be weak or strong"),
            ("gate = { maybe = [] }", "test.toml: rule \"r\": `gate.maybe` is not known"),
            ("gate = { any = [] }", "test.toml: rule \"r\": `gate.any` is empty"),
            ("gate = {}", "test.toml: rule \"r\": `gate` has an empty table, which would always hold"),
            (&deep, "test.toml: rule \"r\": `gate` is nested more than 16 deep"),
        ] {
            assert_eq!(pack(rule).unwrap_err(), expected, "{rule}");
        }
        let error = pack("regex = \"(\"").unwrap_err();
        assert!(error.starts_with("test.toml: rule \"r\": `regex` has \"(\": "), "{error}");
        let many = format!("requires_all = [{}]", "\"x\",".repeat(65));
        assert!(pack(&many).unwrap_err().contains("`requires_all` exceeds"));
    }

    #[test]
    fn what_is_wrong_with_the_head_is_named() {
        for (text, expected) in [
            ("", "test.toml: `schema_version` is missing"),
            ("schema_version = 2", "test.toml: `schema_version` is 2; this program reads 1"),
            ("schema_version = 1\nmin_engine_version = 3", "test.toml: `min_engine_version` is 3; this program has 2"),
            ("schema_version = 1\nagent = \"a b\"", "test.toml: `agent` is \"a b\"; letters, digits, `-`, `_` and `.` make a name"),
            ("schema_version = 1\nagent = \"a\"", "test.toml: `validated_versions` is missing"),
            (&format!("{HEAD}colour = 1"), "test.toml: `colour` is not known"),
            (&format!("{HEAD}rule = 1"), "test.toml: `rule` has to be a list of tables: [[rule]]"),
            (&format!("{HEAD}[[rule]]\nid = \"x\""), "test.toml: rule \"x\": `state` is missing"),
            (&format!("{HEAD}[[rule]]\nstate = \"idle\""), "test.toml: rule \"#1\": `id` is missing"),
        ] {
            assert_eq!(Pack::parse("test.toml", text).unwrap_err().to_string(), expected, "{text}");
        }
        assert!(Pack::parse("test.toml", "a = ").unwrap_err().to_string().starts_with("test.toml: TOML parse error"));
        let twice = "[[rule]]\nid = \"r\"\nstate = \"idle\"\npriority = 1\nregion = \"bottom:9\"\nregex = \"x\"\n".repeat(2);
        let error = Pack::parse("test.toml", &format!("{HEAD}{twice}")).unwrap_err();
        assert_eq!(error.to_string(), "test.toml: rule \"r\": is there twice");
    }

    proptest! {
        #[test]
        fn any_text_is_a_pack_or_an_error(text in any::<String>()) {
            let _ = Pack::parse("x", &text);
        }

        /// Whatever is put into a field, the answer is a pack or an error that names it.
        #[test]
        fn any_value_in_any_field(
            field in prop::sample::select(vec!["id", "state", "priority", "region", "strength", "requires_all", "requires_any",
                "forbids", "regex", "line_regex", "forbids_regex", "gate", "other"]),
            value in prop::sample::select(vec!["1", "\"x\"", "[\"x\"]", "[[1]]", "{}", "{ not = { contains = \"x\" } }", "true", "\"[a\"", "1.5"]),
        ) {
            let mut table: Table = "id = 'r'\nstate = 'idle'\npriority = 1\nregion = 'bottom:9'\nrequires_all = 'y'".parse().unwrap();
            let value: Table = format!("v = {value}").parse().unwrap();
            table.insert(field.to_owned(), value["v"].clone());
            let text = format!("{HEAD}[[rule]]\n{table}");
            if let Err(error) = Pack::parse("x", &text) {
                let named = error.field.as_deref().is_some_and(|named| named == field || named.starts_with(&format!("{field}.")));
                prop_assert!(named, "{} for {}", error, field);
            }
        }

        #[test]
        fn no_screen_makes_the_rules_panic(rows in prop::collection::vec(any::<String>(), 0..8), title in any::<String>()) {
            let rows: Vec<String> = rows.iter().map(|row| row.replace('\n', " ")).collect();
            let pack = pack("regex = '\\bé?\\w+$'\nline_regex = '^\\s*[^x]'\nforbids = \"İ\"").unwrap();
            pack.matching(&Regions::new(&View { rows: &rows, title: &title, progress: None }));
        }
    }
}
