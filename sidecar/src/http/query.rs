//! The query of a request, read strictly: what is not understood is refused, and everything that is wrong is said at once.

use std::collections::BTreeSet;

use sidecar_util::ValueError;

/// Parameters of one request.
const PAIRS_MAX: usize = 64;

/// What is wrong with a request, until it is known in full.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Vec<ValueError>);

impl Refusals {
    pub(crate) fn add(&mut self, error: ValueError) {
        self.0.push(error);
    }

    /// All of it.
    pub(crate) fn into_result(self) -> Result<(), Vec<ValueError>> {
        if self.0.is_empty() { Ok(()) } else { Err(self.0) }
    }
}

/// The parameters in the order they came.
#[derive(Debug)]
pub(crate) struct Pairs(Vec<(String, String)>);

impl Pairs {
    /// Reads `a=1&b=2`.
    pub(crate) fn parse(text: &str, refusals: &mut Refusals) -> Self {
        let mut pairs = vec![];
        for (count, part) in text.split('&').filter(|part| !part.is_empty()).enumerate() {
            if count == PAIRS_MAX {
                let expected = format!("are more than {PAIRS_MAX} parameters: ask with fewer");
                refusals.add(ValueError::new("query", text, expected));
                break;
            }
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            match (decode(name, true), decode(value, true)) {
                (Ok(name), Ok(value)) => pairs.push((name, value)),
                (Err(expected), _) | (_, Err(expected)) => refusals.add(ValueError::new(name, value, expected)),
            }
        }
        Self(pairs)
    }

    /// A value as it came.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    /// Names and values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Takes the values by name.
    pub(crate) fn take<'a>(&'a self, refusals: &'a mut Refusals) -> Take<'a> {
        Take { pairs: self, refusals, known: vec![] }
    }
}

/// Reads each parameter and remembers which there are.
pub(crate) struct Take<'a> {
    pairs: &'a Pairs,
    refusals: &'a mut Refusals,
    known: Vec<&'static str>,
}

impl Take<'_> {
    /// A parameter that may be given once; `read` ends the sentence "`value` ..." when it cannot be used.
    pub(crate) fn one<T>(&mut self, name: &'static str, read: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        self.known.push(name);
        let mut values = self.pairs.iter().filter(|(found, _)| *found == name).map(|(_, value)| value);
        let first = values.next()?;
        if let Some(second) = values.next() {
            self.refusals.add(ValueError::new(name, second, "is given twice: give it once"));
            return None;
        }
        read(first).map_err(|expected| self.refusals.add(ValueError::new(name, first, expected))).ok()
    }

    /// One of a few words.
    pub(crate) fn word<T: Copy>(&mut self, name: &'static str, words: &[(&str, T)]) -> Option<T> {
        self.one(name, |value| {
            let known = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
            let found = words.iter().find(|(word, _)| *word == value);
            found.map(|(_, meaning)| *meaning).ok_or_else(|| format!("is none of {}", known()))
        })
    }

    /// Values separated by commas, or given several times.
    pub(crate) fn list<T: Ord>(
        &mut self,
        name: &'static str,
        count_max: usize,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<BTreeSet<T>> {
        self.known.push(name);
        let values: Vec<&str> = self.pairs.iter().filter(|(found, _)| *found == name).map(|(_, value)| value).collect();
        if values.is_empty() {
            return None;
        }
        let mut list = BTreeSet::new();
        for (count, value) in values.iter().flat_map(|value| value.split(',')).enumerate() {
            if count == count_max {
                let expected = format!("are more than {count_max} values: ask in several requests");
                self.refusals.add(ValueError::new(name, values.join(","), expected));
                return None;
            }
            match read(value) {
                Ok(value) => drop(list.insert(value)),
                Err(_) if value.is_empty() && values.join("").is_empty() => {
                    self.refusals.add(ValueError::new(name, "", "is an empty list: give a value or leave it out"));
                    return None;
                }
                Err(expected) => self.refusals.add(ValueError::new(name, value, expected)),
            }
        }
        Some(list)
    }

    /// Refuses what nobody took.
    pub(crate) fn end(self) {
        for (name, value) in self.pairs.iter().filter(|(name, _)| !self.known.contains(name)) {
            let near = self.known.iter().find(|known| is_near(name, known));
            let hint = near.map_or_else(
                || {
                    if self.known.is_empty() {
                        "there is none".into()
                    } else {
                        format!("there are {}", self.known.join(", "))
                    }
                },
                |near| format!("did you mean `{near}`?"),
            );
            self.refusals.add(ValueError::new(name, value, format!("is no parameter here: {hint}")));
        }
    }
}

/// Whether one is most likely the other with one letter too many, too few or wrong.
fn is_near(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let head = one.iter().zip(other).take_while(|(a, b)| a == b).count();
    let (one, other) = (&one[head..], &other[head..]);
    let tail = one.iter().rev().zip(other.iter().rev()).take_while(|(a, b)| a == b).count();
    one.len() - tail <= 1 && other.len() - tail <= 1
}

/// One segment of a path, decoded.
pub(crate) fn decode_segment(field: &str, text: &str) -> Result<String, ValueError> {
    decode(text, false).map_err(|expected| ValueError::new(field, text, expected))
}

/// Undoes percent-encoding; the error ends the sentence "`text` ...".
fn decode(text: &str, is_query: bool) -> Result<String, &'static str> {
    if !text.contains(['%', '+']) {
        return Ok(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match first {
            b'+' if is_query => bytes.push(b' '),
            b'%' => {
                let pair = tail.split_first_chunk::<2>().filter(|(pair, _)| pair.iter().all(u8::is_ascii_hexdigit));
                let (pair, tail) = pair.ok_or("has a % without two hex digits behind it")?;
                let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                let value = digit(pair[0]).zip(digit(pair[1])).map(|(high, low)| high << 4 | low);
                bytes.push(value.ok_or("has a % without two hex digits behind it")?);
                rest = tail;
            }
            other => bytes.push(*other),
        }
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 when decoded")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoding_is_undone_strictly() {
        assert_eq!(decode("a%20b+c", true).unwrap(), "a b c");
        assert_eq!(decode("a+%C3%BC", false).unwrap(), "a+ü");
        for text in ["%", "%4", "%zz", "%+1", "%ff", "%c3"] {
            assert!(decode(text, true).is_err(), "{text}");
        }
    }

    #[test]
    fn near_names_are_those_that_fingers_slip_to() {
        for (one, other) in [("sortt", "sort"), ("srt", "sort"), ("sart", "sort"), ("limi", "limit")] {
            assert!(is_near(one, other), "{one} {other}");
        }
        for (one, other) in [("uid", "kind"), ("x", "sort"), ("minstake", "max_stake")] {
            assert!(!is_near(one, other), "{one} {other}");
        }
    }
}
