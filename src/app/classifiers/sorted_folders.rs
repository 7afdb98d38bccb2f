//! Names for pictures that are put into folders by class: nothing that came from outside leads out of its folder, is a device of Windows,
//! or takes the place of another file.

use std::collections::HashMap;

/// Most characters of a name, so that a number and the path before it still fit.
const LONGEST: usize = 100;
/// Names that Windows keeps for devices, whatever comes after a dot.
const DEVICES: [&str; 4] = ["con", "prn", "aux", "nul"];
const NUMBERED_DEVICES: [&str; 2] = ["com", "lpt"];

/// Gives each picture a path of its own: `folder/name`.
#[derive(Debug, Default)]
pub struct SortedFolders {
    /// Folders by the class that they stand for.
    folders: HashMap<String, String>,
    /// How often a path was wanted, as file systems without case compare it.
    wanted: HashMap<String, u32>,
}

impl SortedFolders {
    /// The path of a picture called `name`, of which only the last part counts, in the folder of `class`.
    pub fn path(&mut self, class: &str, name: &str) -> String {
        let folder = match self.folders.get(class) {
            Some(folder) => folder.clone(),
            None => {
                let folder = self.free(&safe_part(class, "class"));
                self.folders.insert(class.to_owned(), folder.clone());
                folder
            }
        };
        let last = name.rsplit(['/', '\\']).next().unwrap_or(name);
        let path = format!("{folder}/{}", safe_part(last, "picture"));
        self.free(&path)
    }

    /// `path`, with a number where it was given before.
    fn free(&mut self, path: &str) -> String {
        let (stem, extension) = match path.rsplit_once('.') {
            Some((stem, extension)) if !stem.ends_with('/') && !extension.contains('/') => {
                (stem, format!(".{extension}"))
            }
            _ => (path, String::new()),
        };
        let mut number = self.wanted.get(&path.to_lowercase()).copied().unwrap_or(0);
        loop {
            number += 1;
            let candidate = match number {
                1 => path.to_owned(),
                number => format!("{stem} ({number}){extension}"),
            };
            let key = candidate.to_lowercase();
            if number == 1 || !self.wanted.contains_key(&key) {
                self.wanted.insert(path.to_lowercase(), number);
                self.wanted.entry(key).or_insert(1);
                return candidate;
            }
        }
    }
}

/// `text` as one part of a path on every system; `other` where nothing of it is left.
fn safe_part(text: &str, other: &str) -> String {
    let plain = text.chars().map(|own| match own {
        '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|' => '_',
        own if own.is_control() => '_',
        own => own,
    });
    let plain: String = plain.collect();
    let plain = plain.trim().trim_end_matches(['.', ' ']);
    // The end has the extension.
    let skipped = plain.chars().count().saturating_sub(LONGEST);
    let mut plain: String = plain.chars().skip(skipped).collect();
    if plain.starts_with('.') {
        plain.insert(0, '_');
    }
    let stem = plain.split('.').next().unwrap_or_default().to_lowercase();
    let is_numbered = |device: &str| {
        let number = stem.strip_prefix(device);
        number.is_some_and(|number| number.len() == 1 && number.chars().all(|own| own.is_numeric()))
    };
    if DEVICES.contains(&stem.as_str()) || NUMBERED_DEVICES.into_iter().any(is_numbered) {
        plain.insert(0, '_');
    }
    if plain.is_empty() {
        other.to_owned()
    } else {
        plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_out_of_its_folder_or_is_a_device() {
        let mut folders = SortedFolders::default();
        for (class, name, path) in [
            ("cat", "a/b/1.png", "cat/1.png"),
            ("cat", "../../etc/passwd", "cat/passwd"),
            ("..", "..", "class/picture"),
            ("/etc", "C:\\x\\..\\y.png", "_etc/y.png"),
            ("a/../b", "c:d.png", "a_.._b/c_d.png"),
            (".ssh", ".hidden", "_.ssh/_.hidden"),
            ("con", "NUL.txt", "_con/_NUL.txt"),
            ("com1", "com10.png", "_com1/com10.png"),
            ("ends. . ", "x\u{0}y.png", "ends/x_y.png"),
            ("", "", "class (2)/picture"),
        ] {
            assert_eq!(folders.path(class, name), path, "{class:?} {name:?}");
        }
        let long = folders.path("cat", &format!("{}.png", "ä".repeat(300)));
        assert!(
            long.ends_with("ä.png") && long.chars().count() == 104,
            "{long}"
        );
    }

    #[test]
    fn equal_names_are_numbered_without_regard_to_case_and_none_takes_the_place_of_another() {
        let mut folders = SortedFolders::default();
        let names = ["1.png", "a/1.PNG", "1 (2).png", "b/1.png", "1", "1"];
        let paths = names.map(|name| folders.path("cat", name));
        let expected = [
            "1.png",
            "1 (2).PNG",
            "1 (2) (2).png",
            "1 (3).png",
            "1",
            "1 (2)",
        ];
        assert_eq!(paths, expected.map(|name| format!("cat/{name}")));
        // Another class whose folder would be the same.
        assert_eq!(folders.path("Cat", "1.png"), "Cat (2)/1.png");
        assert_eq!(folders.path("cat", "2.png"), "cat/2.png");
    }
}
