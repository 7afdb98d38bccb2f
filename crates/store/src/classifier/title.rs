//! Names that people give to classifiers, classes and pictures, in any script.

use super::LONGEST_TITLE;
use super::error::ClassifierError;
use icu_normalizer::ComposingNormalizerBorrowed;

/// What two names of classes have in common where they are the same: trimmed, composed, without regard to case.
///
/// # Errors
/// [`ClassifierError`] where no class can have this name.
pub fn class_name_key(name: &str) -> Result<String, ClassifierError> {
    Ok(Title::new("class", name)?.key)
}

/// A name as it is shown and as it is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Title {
    /// Without white space at its ends, in Unicode's normal form C.
    pub text: String,
    /// The same without regard to case.
    pub key: String,
}

impl Title {
    /// `what` is a noun, for messages.
    pub(crate) fn new(what: &'static str, text: &str) -> Result<Self, ClassifierError> {
        let text = text.trim();
        let too_long = |characters| ClassifierError::TitleTooLong { what, characters };
        // Before it is copied. Normalising makes a text at most this much shorter.
        let given = text.chars().count();
        if given > 4 * LONGEST_TITLE {
            return Err(too_long(given));
        }
        let text = ComposingNormalizerBorrowed::new_nfc()
            .normalize(text)
            .into_owned();
        let characters = text.chars().count();
        if characters > LONGEST_TITLE {
            return Err(too_long(characters));
        }
        if characters == 0 {
            return Err(ClassifierError::EmptyTitle { what });
        }
        if let Some(character) = text.chars().find(|c| c.is_control()) {
            return Err(ClassifierError::ControlCharacter { what, character });
        }
        let key = text.to_lowercase();
        Ok(Self { text, key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn title(text: &str) -> Result<Title, ClassifierError> {
        Title::new("class", text)
    }

    #[test]
    fn names_of_classes_are_the_same_where_only_case_and_spelling_differ() {
        let key = |name| class_name_key(name).expect("key");
        assert_eq!(key(" Ba\u{308}r"), key("B\u{c4}R "));
        assert_ne!(key("Bar"), key("Bars"));
        assert!(class_name_key(" ").is_err());
    }

    #[test]
    fn names_are_trimmed_and_composed_and_compared_without_case() {
        let spelled = title("  Ba\u{308}r ").expect("title");
        assert_eq!(spelled.text, "B\u{e4}r");
        assert_eq!(spelled.key, title("B\u{c4}R").expect("title").key);
        assert_ne!(spelled.key, title("Bar").expect("title").key);
        assert_eq!(title("a  b").expect("title").text, "a  b");
    }

    #[test]
    fn names_that_cannot_be_shown_are_refused_with_the_limit() {
        for empty in ["", " \t\u{a0}"] {
            assert!(matches!(
                title(empty),
                Err(ClassifierError::EmptyTitle { .. })
            ));
        }
        assert!(matches!(
            title("a\nb"),
            Err(ClassifierError::ControlCharacter {
                character: '\n',
                ..
            })
        ));
        // Decomposed, the longest name has twice as many characters.
        assert!(title(&"a\u{308}".repeat(LONGEST_TITLE)).is_ok());
        let error = title(&"\u{e4}".repeat(LONGEST_TITLE + 1)).expect_err("too long");
        assert_eq!(
            error.to_string(),
            "the name of a class has 201 characters; at most 200 are allowed"
        );
        assert!(matches!(
            title(&"x".repeat(1_000_000)),
            Err(ClassifierError::TitleTooLong {
                characters: 1_000_000,
                ..
            })
        ));
    }
}
