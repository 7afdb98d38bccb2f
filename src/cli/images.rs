//! Pictures named on the command line.

use super::CliError;
use crate::app::{NamedImage, SupportClass};
use crate::jobs::LabelledImage;
use model::adapter::{NamedFile, write_zip};
use model::backbone::Preprocess;
use model::image_input::{ImageLimits, load_levels};
use rayon::prelude::*;
use recycle::labelled_images::LabelledImages;
use std::path::{Path, PathBuf};

/// Classes of a folder: each sub-folder is a class, its files (at any depth) are the pictures, in the order of their names.
///
/// # Errors
/// Where the folder cannot be read or has no sub-folders.
pub fn class_folders(folder: &Path) -> Result<Vec<(String, Vec<PathBuf>)>, CliError> {
    let mut classes = Vec::new();
    for entry in sub_folders(folder)? {
        let label = entry
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        classes.push((label, files(&entry)?));
    }
    if classes.is_empty() {
        return Err(
            CliError::user(format!("{} has no sub-folders", folder.display()))
                .hint("make one sub-folder per class and put its pictures inside"),
        );
    }
    Ok(classes)
}

/// The files of these classes of `folder` (all where none is named), as a job takes them.
///
/// # Errors
/// As [`class_folders`], and a file that cannot be read.
pub fn labelled_files(folder: &Path, classes: &[String]) -> Result<Vec<LabelledImage>, CliError> {
    let mut pictures = Vec::new();
    for (class, paths) in class_folders(folder)? {
        if !classes.is_empty() && !classes.contains(&class) {
            continue;
        }
        for path in paths {
            let file_name = path
                .file_name()
                .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            pictures.push(LabelledImage {
                class: class.clone(),
                file_name,
                bytes: read(&path)?.bytes,
            });
        }
    }
    Ok(pictures)
}

/// Pictures as a job takes them, as the zip that a request carries.
///
/// # Errors
/// Where they are too large for one.
pub fn zip_of(images: Vec<LabelledImage>) -> Result<Vec<u8>, CliError> {
    let files = images.into_iter().map(|image| {
        let LabelledImage {
            class,
            file_name,
            bytes,
        } = image;
        NamedFile::new(format!("{class}/{file_name}"), bytes)
    });
    write_zip(&files.collect::<Vec<_>>()).map_err(|error| CliError::internal(error.to_string()))
}

/// The pictures of [`class_folders`] in the size that a backbone sees. What cannot be used is left out with a warning on stderr, and so
/// is a class that has no picture then.
///
/// # Errors
/// A file that cannot be read, fewer than two classes with pictures.
pub fn labelled(
    classes: &[(String, Vec<PathBuf>)],
    preprocess: &Preprocess,
) -> Result<LabelledImages, CliError> {
    let limits = ImageLimits::default();
    let (mut names, mut levels, mut labels) = (Vec::new(), Vec::new(), Vec::new());
    let mut side = None;
    for (label, paths) in classes {
        let decoded: Vec<_> = paths
            .par_iter()
            .map(|path| Ok(load_levels(&read(path)?.bytes, &limits, preprocess)))
            .collect::<Result<_, CliError>>()?;
        let before = labels.len();
        for (path, decoded) in paths.iter().zip(decoded) {
            let problem = match decoded {
                Ok(own)
                    if own.width == own.height && *side.get_or_insert(own.width) == own.width =>
                {
                    labels.push(names.len() as u32);
                    levels.extend(own.planes);
                    continue;
                }
                Ok(own) => format!(
                    "it is {} × {} pixels after the backbone's preprocessing, unlike the others",
                    own.width, own.height
                ),
                Err(error) => error.to_string(),
            };
            eprintln!("warning: {}: {problem}", path.display());
        }
        if labels.len() > before {
            names.push(label.clone());
        }
    }
    LabelledImages::new(names, side.unwrap_or(1), levels, labels)
        .map_err(|error| CliError::user(error.to_string()))
}

/// Reads the pictures of [`class_folders`].
pub fn read_classes(folder: &Path) -> Result<Vec<SupportClass>, CliError> {
    class_folders(folder)?
        .into_iter()
        .map(|(label, paths)| {
            Ok(SupportClass {
                label,
                images: paths
                    .iter()
                    .map(|path| read(path))
                    .collect::<Result<_, _>>()?,
            })
        })
        .collect()
}

/// Replaces each folder by the files in it.
pub fn expand(paths: &[PathBuf]) -> Result<Vec<PathBuf>, CliError> {
    let mut expanded = Vec::new();
    for path in paths {
        if path.is_dir() {
            expanded.extend(files(path)?);
        } else {
            expanded.push(path.clone());
        }
    }
    Ok(expanded)
}

/// Reads a file as a picture called by its path.
pub fn read(path: &Path) -> Result<NamedImage, CliError> {
    let bytes = std::fs::read(path)
        .map_err(|error| CliError::user(format!("{}: {error}", path.display())))?;
    Ok(NamedImage {
        name: path.display().to_string(),
        bytes,
    })
}

/// The sub-folders of `folder` in the order of their names.
fn sub_folders(folder: &Path) -> Result<Vec<PathBuf>, CliError> {
    let entries = entries(folder)?;
    Ok(entries.into_iter().filter(|entry| entry.is_dir()).collect())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, CliError> {
    let fail = |error: std::io::Error| CliError::user(format!("{}: {error}", folder.display()));
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        // Hidden files are other programs' notes, e.g. .DS_Store.
        if !entry.file_name().to_string_lossy().starts_with('.') {
            entries.push(entry.path());
        }
    }
    entries.sort();
    Ok(entries)
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, CliError> {
    let mut found = Vec::new();
    for entry in entries(folder)? {
        if entry.is_dir() {
            found.extend(files(&entry)?);
        } else {
            found.push(entry);
        }
    }
    Ok(found)
}
