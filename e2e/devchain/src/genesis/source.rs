//! A genesis file as text: where each value stands, and whether it is what its field takes.
//!
//! Deserialising stops at the first error, and who writes a file of a thousand neurons wants to hear of all of them. So
//! the text is walked first, along a table of the fields there are; each value is then tried by the type of its field.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// What a value must be.
pub(super) enum Rule {
    /// What a type reads.
    Value(fn(&str) -> Result<(), String>),
    /// A list.
    List(&'static Rule),
    /// An object with these fields.
    Object(&'static [Field]),
}

/// A field of an object.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) required: bool,
    pub(super) rule: Rule,
}

/// Tries a value by its type.
pub(super) fn is<T: DeserializeOwned>(text: &str) -> Result<(), String> {
    serde_json::from_str::<T>(text).map(drop).map_err(|error| without_position(&error))
}

/// What is wrong, without where: a position within the value says nothing about the file.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(message, _)| message.to_owned())
}

/// Path of what was being read where the text stops being JSON.
fn innermost(text: &str) -> String {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    match serde_path_to_error::deserialize::<_, serde_json::Value>(&mut deserializer) {
        Err(error) if error.path().iter().next().is_some() => error.path().to_string(),
        Ok(_) | Err(_) => String::new(),
    }
}

/// Something that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Line, from 1.
    pub line: usize,
    /// Path of the field, such as `subnets[0].netuid`; empty for the file itself.
    pub field: String,
    /// What is wrong.
    pub why: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        if !self.field.is_empty() {
            write!(f, ", {}", self.field)?;
        }
        write!(f, ": {}", self.why)
    }
}

/// The text of a file and its values by path.
pub(super) struct Source<'a> {
    text: &'a str,
    /// Offsets at which lines start.
    lines: Vec<usize>,
    values: BTreeMap<String, &'a RawValue>,
    problems: Vec<Problem>,
}

impl<'a> Source<'a> {
    /// Walks a text along a rule. What is wrong with the JSON itself is one problem, for nothing behind it has a meaning.
    pub(super) fn read(text: &'a str, rule: &Rule) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let mut source = Self { text, lines, values: BTreeMap::new(), problems: Vec::new() };
        match serde_json::from_str::<&RawValue>(text) {
            Ok(whole) => source.walk(rule, whole, String::new()),
            Err(error) => {
                let why = format!("{} (column {})", without_position(&error), error.column());
                source.problems.push(Problem { line: error.line(), field: innermost(text), why });
            }
        }
        source
    }

    fn line(&self, value: &RawValue) -> usize {
        // A value is borrowed from the text, so the distance of their addresses is its offset.
        let offset = value.get().as_ptr().addr().saturating_sub(self.text.as_ptr().addr());
        self.lines.partition_point(|start| *start <= offset)
    }

    fn note(&mut self, value: &RawValue, field: String, why: String) {
        let line = self.line(value);
        self.problems.push(Problem { line, field, why });
    }

    fn walk(&mut self, rule: &Rule, value: &'a RawValue, path: String) {
        match rule {
            Rule::Value(check) => {
                if let Err(why) = check(value.get()) {
                    self.note(value, path.clone(), why);
                }
            }
            Rule::List(rule) => match serde_json::from_str::<Vec<&'a RawValue>>(value.get()) {
                Ok(items) => {
                    for (index, item) in items.into_iter().enumerate() {
                        self.walk(rule, item, format!("{path}[{index}]"));
                    }
                }
                Err(_) => self.note(value, path.clone(), "this is not a list".into()),
            },
            Rule::Object(fields) => match serde_json::Deserializer::from_str(value.get()).deserialize_map(Entries) {
                Ok(entries) => self.walk_object(fields, value, &path, &entries),
                Err(_) => self.note(value, path.clone(), "this is not an object".into()),
            },
        }
        self.values.insert(path, value);
    }

    fn walk_object(&mut self, fields: &[Field], object: &'a RawValue, path: &str, entries: &[(String, &'a RawValue)]) {
        let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        for field in fields.iter().filter(|field| field.required) {
            if entries.iter().all(|(name, _)| name != field.name) {
                self.note(object, below(field.name), "this field is missing".into());
            }
        }
        for (index, (name, value)) in entries.iter().enumerate() {
            let Some(field) = fields.iter().find(|field| field.name == name) else {
                let known: Vec<&str> = fields.iter().map(|field| field.name).collect();
                self.note(value, below(name), format!("there is no such field: known are {}", known.join(", ")));
                continue;
            };
            if entries[..index].iter().any(|(other, _)| other == name) {
                self.note(value, below(name), "this field is there twice".into());
            }
            // An optional field that is null is absent.
            if field.required || value.get() != "null" {
                self.walk(&field.rule, value, below(name));
            }
        }
    }

    /// A value by its path, if it is there and is what its field takes.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Option<T> {
        self.values.get(path).and_then(|value| serde_json::from_str(value.get()).ok())
    }

    /// How many elements the list at a path has.
    pub(super) fn len(&self, path: &str) -> usize {
        self.get::<Vec<serde::de::IgnoredAny>>(path).map_or(0, |items| items.len())
    }

    /// Adds a problem with the value at a path, or with what holds it where it is absent.
    pub(super) fn refuse(&mut self, path: &str, why: String) {
        let mut at = path;
        let value = loop {
            if let Some(value) = self.values.get(at) {
                break *value;
            }
            match at.rfind(['.', '[']) {
                Some(end) => at = &at[..end],
                None => break self.values[""],
            }
        };
        self.note(value, path.to_owned(), why);
    }

    /// Every problem, in the order of the text.
    pub(super) fn problems(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| problem.line);
        self.problems
    }
}

/// Reads an object as it is written: a field that is there twice is twice.
struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(entries)
    }
}
