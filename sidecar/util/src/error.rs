//! One error for every value that was not what its field expects.

/// A value that a field cannot take: which field, what came, what was expected.
///
/// The value is cut to a length that fits a condition message; secrets never pass through here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: `{value}` {expected}")]
pub struct ValueError {
    /// Name of the field as the user wrote it.
    pub field: String,
    /// The value as it came, cut to [`ValueError::SHOWN`] characters.
    pub value: String,
    /// What was wrong and what is expected, as the end of a sentence.
    pub expected: String,
}

impl ValueError {
    /// How many characters of a bad value are repeated to the user.
    pub const SHOWN: usize = 80;

    /// A bad `value` of `field`; `expected` reads as the end of the sentence "`value` ...".
    pub fn new(field: &str, value: impl std::fmt::Display, expected: impl Into<String>) -> Self {
        let value = value.to_string();
        let shown: String = value.chars().take(Self::SHOWN).collect();
        let value = if shown.len() < value.len() { shown + "…" } else { value };
        Self { field: field.to_owned(), value, expected: expected.into() }
    }

    /// The same error under the name by which the user knows the field.
    #[must_use]
    pub fn of_field(mut self, field: &str) -> Self {
        field.clone_into(&mut self.field);
        self
    }
}
