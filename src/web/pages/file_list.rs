//! Which files the pages are made of. The build script lists them too, so this file uses the standard library alone.

use std::io;
use std::path::{Path, PathBuf};

/// Folders of the project, and the path in front of the names of their files.
pub const FOLDERS: [(&str, &str); 3] = [
    ("static", ""),
    ("assets/examples", "examples/"),
    ("templates", TEMPLATES),
];

/// In front of the names of templates, which are rendered and never served as they are.
pub const TEMPLATES: &str = "templates/";

/// `(name, place on disk)` of every file, in order of their names; names beginning with a dot are left out.
///
/// # Errors
/// A folder that cannot be read.
pub fn list(project: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut files = Vec::new();
    for (folder, prefix) in FOLDERS {
        collect(&project.join(folder), prefix, &mut files)?;
    }
    files.sort();
    Ok(files)
}

fn collect(folder: &Path, prefix: &str, files: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            collect(&path, &format!("{prefix}{name}/"), files)?;
        } else {
            files.push((format!("{prefix}{name}"), path));
        }
    }
    Ok(())
}
