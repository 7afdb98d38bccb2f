//! Joins the ES modules of a page into one, so that a browser asks for one file. The build script does it too, so this file uses the
//! standard library alone.
//!
//! Modules keep to what this can read, and anything else is an error: imports stand on a line of their own as
//! `import { a, b as c } from "./x.js";` or `import * as x from "./x.js";`, and what is exported is a function, class or constant where it
//! is declared. No module imports itself, not even by way of others.

use std::fmt::Write;
use std::io;

/// The bundles: the name under which each is served, and the module that it begins with.
pub const BUNDLES: [(&str, &str); 2] = [
    ("js/sort/bundle.js", "js/sort/main.js"),
    ("js/sort/more_bundle.js", "js/sort/more.js"),
];

struct Module {
    path: String,
    code: String,
    exported: Vec<String>,
}

/// The module `entry` with all that it imports, which exports what that module does. `read` gives the text of the file of a name such as `js/dom.js`.
///
/// # Errors
/// A file that cannot be read, or a module that does not keep to the rules above.
pub fn bundle(entry: &str, read: &impl Fn(&str) -> io::Result<String>) -> io::Result<String> {
    let mut modules = Vec::new();
    add(entry, read, &mut modules, &mut Vec::new())?;
    let mut joined = String::new();
    for module in &modules {
        // Writing to a string cannot fail.
        let _ = writeln!(joined, "// {}\n{}", module.path, module.code);
    }
    if let Some(last) = modules.last().filter(|last| !last.exported.is_empty()) {
        let names = last.exported.join(", ");
        let place = modules.len() - 1;
        let _ = writeln!(joined, "export const {{ {names} }} = module{place};");
    }
    Ok(joined)
}

/// Adds `path` after all that it imports, and returns its place.
fn add(
    path: &str,
    read: &impl Fn(&str) -> io::Result<String>,
    modules: &mut Vec<Module>,
    open: &mut Vec<String>,
) -> io::Result<usize> {
    if let Some(place) = modules.iter().position(|module| module.path == path) {
        return Ok(place);
    }
    if open.iter().any(|other| other == path) {
        return Err(wrong(path, "it imports itself"));
    }
    open.push(path.to_owned());
    let mut body = String::new();
    let mut exported = Vec::new();
    for line in read(path)?.lines() {
        if let Some(import) = line.strip_prefix("import ") {
            let (names, from) = import
                .strip_suffix("\";")
                .and_then(|import| import.split_once(" from \""))
                .ok_or_else(|| wrong(path, line))?;
            let place = add(&joined(path, from), read, modules, open)?;
            let names = match names.strip_prefix("* as ") {
                Some(all) => all.to_owned(),
                None if names.starts_with('{') => names.replace(" as ", ": "),
                None => return Err(wrong(path, line)),
            };
            let _ = writeln!(body, "const {names} = module{place};");
        } else if let Some(declared) = line.strip_prefix("export ") {
            exported.push(declared_name(declared).ok_or_else(|| wrong(path, line))?);
            let _ = writeln!(body, "{declared}");
        } else {
            let _ = writeln!(body, "{line}");
        }
    }
    open.pop();
    let code = format!(
        "const module{} = (() => {{\n{body}return {{ {} }};\n}})();",
        modules.len(),
        exported.join(", ")
    );
    modules.push(Module {
        path: path.to_owned(),
        code,
        exported,
    });
    Ok(modules.len() - 1)
}

/// The name that an exported declaration declares.
fn declared_name(declared: &str) -> Option<String> {
    let declared = declared.strip_prefix("async ").unwrap_or(declared);
    let rest = ["function ", "class ", "const "]
        .iter()
        .find_map(|word| declared.strip_prefix(word))?;
    let is_part =
        |letter: &char| letter.is_ascii_alphanumeric() || *letter == '_' || *letter == '$';
    let name: String = rest.chars().take_while(is_part).collect();
    (!name.is_empty()).then_some(name)
}

/// The name of the file that `path` calls `relative`.
fn joined(path: &str, relative: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in relative.split('/') {
        match part {
            "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn wrong(path: &str, what: &str) -> io::Error {
    io::Error::other(format!("{path} cannot be bundled: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundled(files: &[(&str, &str)]) -> io::Result<String> {
        let read = |path: &str| {
            let found = files.iter().find(|(name, _)| *name == path);
            found
                .map(|(_, text)| (*text).to_owned())
                .ok_or_else(|| io::Error::other(format!("no {path}")))
        };
        bundle("a/main.js", &read)
    }

    #[test]
    fn a_module_comes_once_and_after_what_it_imports() {
        let joined = bundled(&[
            ("a/main.js", "import { one as uno } from \"./x.js\";\nimport * as dom from \"../dom.js\";\nuno(dom);\n"),
            ("a/x.js", "import { two } from \"../dom.js\";\nexport const one = () => two;\n"),
            ("dom.js", "export async function two() {}\nexport class Three {}\n"),
        ])
        .expect("a bundle");
        let expected = "// dom.js\nconst module0 = (() => {\nasync function two() {}\nclass Three {}\nreturn { two, Three };\n})();\n\
            // a/x.js\nconst module1 = (() => {\nconst { two } = module0;\nconst one = () => two;\nreturn { one };\n})();\n\
            // a/main.js\nconst module2 = (() => {\nconst { one: uno } = module1;\nconst dom = module0;\nuno(dom);\nreturn {  };\n})();\n";
        assert_eq!(joined, expected);
    }

    #[test]
    fn a_bundle_exports_what_its_first_module_exports() {
        let joined = bundled(&[
            (
                "a/main.js",
                "import { one } from \"./x.js\";\nexport const two = one;\n",
            ),
            ("a/x.js", "export const one = 1;\n"),
        ])
        .expect("a bundle");
        assert!(
            joined.ends_with("export const { two } = module1;\n"),
            "{joined}"
        );
    }

    #[test]
    fn what_it_cannot_read_is_an_error_with_the_name_of_the_file() {
        for (text, said) in [
            ("import x from \"./x.js\";\n", "import x"),
            ("export { y };\n", "export { y }"),
            ("export default 1;\n", "export default"),
            ("import { main } from \"./main.js\";\n", "imports itself"),
            ("import { x } from \"./missing.js\";\n", "no a/missing.js"),
        ] {
            let error = bundled(&[("a/main.js", text), ("a/x.js", "")]).expect_err(text);
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}
