//! Requests for jobs as forms: what the text of a part means.

use crate::jobs::RequestParts;
use crate::web::ApiError;
use crate::web::api::images::Part;
use crate::web::api::labelled_parts::{LabelledParts, LabelledPlace};
use serde_json::Value;
use std::collections::BTreeMap;

/// How the text of a part is read.
enum Reading {
    Text,
    Number,
    /// JSON, commas between entries, or one part for each.
    List,
    Json,
}

fn reading_of(part: &str) -> Reading {
    match part {
        "episodes" | "way" => Reading::Number,
        "classes" | "adapters" | "pool" | "waits_for" => Reading::List,
        "recipe" | "inversion" | "evaluation" | "recipe_file" | "use_failed_images" | "dry_run" => {
            Reading::Json
        }
        _ => Reading::Text,
    }
}

fn is_file(part: &str) -> bool {
    [
        "archive",
        "batch_norm",
        "token_statistics",
        "validation",
        "real",
    ]
    .contains(&part)
}

/// Sorts the parts of a form.
///
/// # Errors
/// [`ApiError::InvalidParameter`] that names the part.
pub fn request_parts(parts: Vec<Part<String>>) -> Result<RequestParts, ApiError> {
    let mut request = RequestParts::default();
    let mut labelled = LabelledParts::default();
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for part in parts {
        let (part, name) = part.without_place();
        if let Some(place) = LabelledPlace::of(&name) {
            labelled.take(place, part)?;
        } else if is_file(&name) {
            request.files.insert(name, part.into_place_and_bytes().1);
        } else {
            let text = part.into_text(&name)?;
            texts.entry(name).or_default().push(text);
        }
    }
    request.pictures = labelled.into_pictures()?;
    for (name, texts) in texts {
        match value_of(&name, texts) {
            Ok(Some(value)) => drop(request.fields.insert(name, value)),
            Ok(None) => {}
            Err(detail) => {
                return Err(ApiError::InvalidParameter {
                    parameter: name,
                    detail,
                });
            }
        }
    }
    Ok(request)
}

/// What the texts of all parts of one name say; `None` where a number or a list is left empty.
fn value_of(part: &str, mut texts: Vec<String>) -> Result<Option<Value>, String> {
    let json = |text: &str| {
        serde_json::from_str(text)
            .map(Some)
            .map_err(|error| format!("the part is not JSON: {error}"))
    };
    let reading = reading_of(part);
    if texts.len() > 1 && matches!(reading, Reading::List) {
        return Ok(Some(texts.into()));
    }
    let Some(text) = texts.pop() else {
        return Ok(None);
    };
    match reading {
        Reading::Text => Ok(Some(text.into())),
        Reading::Json => json(&text),
        Reading::Number | Reading::List if text.trim().is_empty() => Ok(None),
        Reading::Number => match text.trim().parse::<u64>() {
            Ok(number) => Ok(Some(number.into())),
            Err(_) => Err(format!("\"{text}\" is not a whole number")),
        },
        Reading::List if text.trim_start().starts_with('[') => json(&text),
        Reading::List => {
            let entries = text.split(',').map(|entry| entry.trim().to_owned());
            Ok(Some(entries.collect()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(part: &str, texts: &[&str]) -> Result<Option<Value>, String> {
        value_of(part, texts.iter().map(|&text| text.to_owned()).collect())
    }

    #[test]
    fn texts_become_what_their_field_is() {
        for (part, texts, value) in [
            ("name", &["7"][..], json!("7")),
            ("episodes", &[" 20 "], json!(20)),
            ("classes", &["a, b"], json!(["a", "b"])),
            ("classes", &["[\"a, b\"]"], json!(["a, b"])),
            ("classes", &["a, b", "c"], json!(["a, b", "c"])),
            ("recipe", &["{\"rank\": 2}"], json!({"rank": 2})),
            ("dry_run", &["true"], json!(true)),
        ] {
            assert_eq!(read(part, texts), Ok(Some(value)), "{part} {texts:?}");
        }
        assert_eq!(read("way", &[" "]), Ok(None));
        assert_eq!(read("classes", &[""]), Ok(None));
    }

    #[test]
    fn texts_that_are_something_else_are_refused() {
        assert!(
            read("way", &["two"])
                .unwrap_err()
                .contains("not a whole number")
        );
        assert!(read("recipe", &["{"]).unwrap_err().contains("not JSON"));
        assert!(read("adapters", &["[1"]).unwrap_err().contains("not JSON"));
    }
}
