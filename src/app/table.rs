//! Tables with commas (RFC 4180) that a spreadsheet opens without running anything in them.

/// What a spreadsheet would take for a formula, or skip to find one.
const STARTS_A_FORMULA: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

/// A field with text from outside: in quotes where it needs them, and with an apostrophe before what would be a formula.
pub fn text_cell(text: &str) -> String {
    let plain = match text.starts_with(STARTS_A_FORMULA) {
        true => format!("'{text}"),
        false => text.to_owned(),
    };
    if plain.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", plain.replace('"', "\"\""))
    } else {
        plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_quoted_where_it_must_be_and_is_never_a_formula() {
        for (text, cell) in [
            ("a b.png", "a b.png"),
            ("a,b", "\"a,b\""),
            ("say \"a\"", "\"say \"\"a\"\"\""),
            ("=1+1", "'=1+1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("-2,5", "\"'-2,5\""),
            ("+1", "'+1"),
            ("\t=1", "'\t=1"),
            ("a=1", "a=1"),
            ("", ""),
        ] {
            assert_eq!(text_cell(text), cell, "{text:?}");
        }
    }
}
