//! Adapters as named files in memory, read from a folder, a zip or a single file that may be hostile.
//! Knows paths and sizes, nothing of what the files mean beyond which of them make one adapter.

use std::collections::BTreeMap;
use std::io::{Cursor, Read, Seek};
use std::path::Path;
use thiserror::Error;
use zip::ZipArchive;

/// A file with its path relative to the adapter's folder, parts joined by `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// Relative, parts joined by `/`.
    pub path: String,
    /// The whole content.
    pub bytes: Vec<u8>,
}

impl NamedFile {
    /// A file with this path and content.
    pub fn new(path: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            path: path.into(),
            bytes: bytes.into(),
        }
    }

    /// The path without its folders.
    pub fn file_name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }
}

/// What is accepted from outside; checked before anything is unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileLimits {
    /// Files of one adapter, in a zip those that are listed.
    pub most_files: usize,
    /// Of one file, unpacked.
    pub largest_file_bytes: u64,
    /// Of all files together, unpacked.
    pub largest_total_bytes: u64,
    /// Most bytes that one packed byte of a zip may become. Weights hardly compress; a bomb reaches 1000.
    pub largest_ratio: u64,
}

impl Default for FileLimits {
    fn default() -> Self {
        Self {
            most_files: 256,
            largest_file_bytes: 1 << 30,
            largest_total_bytes: 2 << 30,
            largest_ratio: 200,
        }
    }
}

/// Why files could not be read at all.
#[derive(Debug, Error)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
pub enum FilesError {
    #[error("{path}: {source}")]
    Read {
        path: String,
        source: std::io::Error,
    },
    #[error("{path} is a link; links are not followed. Put the file itself there")]
    Link { path: String },
    #[error("the zip cannot be read: {0}")]
    Zip(String),
    #[error(
        "the zip holds \"{path}\", a path that leads out of its folder; pack it again with plain relative names"
    )]
    UnsafePath { path: String },
    #[error("the zip holds two files of one name; pack it again with one of them")]
    Duplicate,
    #[error("the zip holds \"{path}\" encrypted; pack it again without a password")]
    Encrypted { path: String },
    #[error(
        "the zip holds \"{path}\" damaged: it does not unpack to the {declared} bytes it declares; pack it again"
    )]
    Damaged { path: String, declared: u64 },
    #[error("there are {found} files, more than the {limit} allowed")]
    TooManyFiles { found: usize, limit: usize },
    #[error("{path} has {found} bytes, more than the {limit} allowed")]
    FileTooLarge {
        path: String,
        found: u64,
        limit: u64,
    },
    #[error("the files have {found} bytes together, more than the {limit} allowed")]
    TotalTooLarge { found: u64, limit: u64 },
    #[error(
        "{path} would grow from {packed} to {unpacked} bytes, more than {limit} times; this looks like a zip bomb"
    )]
    Ratio {
        path: String,
        packed: u64,
        unpacked: u64,
        limit: u64,
    },
    #[error("{path} holds no files")]
    Nothing { path: String },
}

/// Reads all files below `folder`; hidden files are left out.
///
/// # Errors
/// [`FilesError`]
pub fn read_folder(folder: &Path, limits: &FileLimits) -> Result<Vec<NamedFile>, FilesError> {
    let mut files = Vec::new();
    let mut total = 0;
    walk(folder, "", limits, &mut total, &mut files)?;
    if files.is_empty() {
        return Err(FilesError::Nothing {
            path: folder.display().to_string(),
        });
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn walk(
    folder: &Path,
    prefix: &str,
    limits: &FileLimits,
    total: &mut u64,
    files: &mut Vec<NamedFile>,
) -> Result<(), FilesError> {
    let failed = |source| FilesError::Read {
        path: folder.display().to_string(),
        source,
    };
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let path = format!("{prefix}{name}");
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_symlink() {
            return Err(FilesError::Link { path });
        }
        if kind.is_dir() {
            walk(&entry.path(), &format!("{path}/"), limits, total, files)?;
            continue;
        }
        let bytes = read_limited(&entry.path(), &path, limits)?;
        *total += bytes.len() as u64;
        if *total > limits.largest_total_bytes {
            return Err(FilesError::TotalTooLarge {
                found: *total,
                limit: limits.largest_total_bytes,
            });
        }
        files.push(NamedFile { path, bytes });
        if files.len() > limits.most_files {
            return Err(FilesError::TooManyFiles {
                found: files.len(),
                limit: limits.most_files,
            });
        }
    }
    Ok(())
}

pub(super) fn read_limited(
    path: &Path,
    name: &str,
    limits: &FileLimits,
) -> Result<Vec<u8>, FilesError> {
    let failed = |source| FilesError::Read {
        path: path.display().to_string(),
        source,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let found = file.metadata().map_err(failed)?.len();
    if found > limits.largest_file_bytes {
        return Err(FilesError::FileTooLarge {
            path: name.to_owned(),
            found,
            limit: limits.largest_file_bytes,
        });
    }
    let mut bytes = Vec::new();
    // The file may grow while it is read.
    file.take(limits.largest_file_bytes)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(bytes)
}

/// Reads all files of a zip after its table of contents has been checked against `limits`.
///
/// # Errors
/// [`FilesError`]: a broken archive, a path that leads out, a link, a name that appears twice, a size or a ratio over the limit.
pub fn read_zip(bytes: &[u8], limits: &FileLimits) -> Result<Vec<NamedFile>, FilesError> {
    let mut zip = CheckedZip::open(Cursor::new(bytes), limits)?;
    let files: Result<Vec<NamedFile>, FilesError> =
        (0..zip.len()).map(|place| zip.read(place)).collect();
    let mut files = files?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// A zip whose table of contents has been checked. Its files are read one by one, so that the archive may be far larger than the memory.
pub struct CheckedZip<R> {
    archive: ZipArchive<R>,
    /// Index, path and declared size in bytes of each file.
    files: Vec<(usize, String, u64)>,
}

impl<R: Read + Seek> CheckedZip<R> {
    /// Checks the table of contents against `limits`; nothing is unpacked.
    ///
    /// # Errors
    /// As [`read_zip`].
    pub fn open(reader: R, limits: &FileLimits) -> Result<Self, FilesError> {
        let mut archive = ZipArchive::new(reader).map_err(broken)?;
        // Readers disagree on which of two entries of one name counts.
        if archive.has_duplicate_names() {
            return Err(FilesError::Duplicate);
        }
        if archive.len() > limits.most_files {
            return Err(FilesError::TooManyFiles {
                found: archive.len(),
                limit: limits.most_files,
            });
        }
        let mut files = Vec::new();
        let mut total = 0u64;
        for index in 0..archive.len() {
            let entry = archive.by_index_raw(index).map_err(broken)?;
            let path = entry.name().map_err(broken)?.into_owned();
            if !safe(&path) {
                return Err(FilesError::UnsafePath { path });
            }
            if entry.is_symlink() {
                return Err(FilesError::Link { path });
            }
            if entry.is_dir() {
                continue;
            }
            if entry.encrypted() {
                return Err(FilesError::Encrypted { path });
            }
            let (packed, unpacked) = (entry.compressed_size(), entry.size());
            if unpacked > limits.largest_file_bytes {
                return Err(FilesError::FileTooLarge {
                    path,
                    found: unpacked,
                    limit: limits.largest_file_bytes,
                });
            }
            if unpacked / packed.max(1) > limits.largest_ratio {
                return Err(FilesError::Ratio {
                    path,
                    packed,
                    unpacked,
                    limit: limits.largest_ratio,
                });
            }
            total = total.saturating_add(unpacked);
            if !hidden(&path) {
                files.push((index, path, unpacked));
            }
        }
        if total > limits.largest_total_bytes {
            return Err(FilesError::TotalTooLarge {
                found: total,
                limit: limits.largest_total_bytes,
            });
        }
        if files.is_empty() {
            return Err(FilesError::Nothing {
                path: "the zip".into(),
            });
        }
        Ok(Self { archive, files })
    }

    /// How many files there are, without those that file managers leave.
    #[allow(
        clippy::len_without_is_empty,
        reason = "a zip without files is an error"
    )]
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// The file at `place`, from 0, in the order of the archive.
    ///
    /// # Errors
    /// [`FilesError::Damaged`]; [`FilesError::Nothing`] where there is no such place.
    pub fn read(&mut self, place: usize) -> Result<NamedFile, FilesError> {
        let Some((index, path, declared)) = self.files.get(place).cloned() else {
            return Err(FilesError::Nothing {
                path: format!("place {place} of the zip"),
            });
        };
        let entry = self.archive.by_index(index).map_err(broken)?;
        let mut bytes = Vec::new();
        // One byte more than declared shows an entry that lies about its size.
        let unpacked = entry.take(declared + 1).read_to_end(&mut bytes);
        if unpacked.is_err() || bytes.len() as u64 != declared {
            return Err(FilesError::Damaged { path, declared });
        }
        Ok(NamedFile { path, bytes })
    }
}

fn broken(error: zip::result::ZipError) -> FilesError {
    FilesError::Zip(error.to_string())
}

/// A relative path without parent steps, drive letters, backslashes and control characters.
pub(super) fn safe(path: &str) -> bool {
    let path = path.strip_suffix('/').unwrap_or(path);
    !path.is_empty()
        && !path.contains(['\\', ':'])
        && !path.chars().any(char::is_control)
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// What file managers leave beside files: hidden ones and the shadows that macOS packs.
pub fn hidden(path: &str) -> bool {
    path.split('/')
        .any(|part| part.starts_with('.') || part == "__MACOSX")
}

/// Splits a set of files into one set per adapter: each folder that holds an `adapter_config.json` or adapter weights, and each file in
/// the published layout on its own. The name is the folder (empty for the top) or the file's name without its extension.
pub fn split_adapters(files: &[NamedFile]) -> Vec<(String, Vec<NamedFile>)> {
    let folder_of = |path: &str| {
        path.rsplit_once('/')
            .map_or("", |(folder, _)| folder)
            .to_owned()
    };
    let mut folders: BTreeMap<String, Vec<NamedFile>> = BTreeMap::new();
    for file in files {
        if matches!(
            file.file_name(),
            "adapter_config.json" | "adapter_model.safetensors" | "adapter_model.bin"
        ) {
            folders.entry(folder_of(&file.path)).or_default();
        }
    }
    let mut single = Vec::new();
    for file in files {
        let plain = NamedFile::new(file.file_name(), file.bytes.clone());
        if let Some(folder) = folders.get_mut(&folder_of(&file.path)) {
            folder.push(plain);
        } else if let Some(name) = file.path.strip_suffix(".safetensors") {
            single.push((name.to_owned(), vec![plain]));
        }
    }
    folders.into_iter().chain(single).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_relative_paths_are_safe() {
        for path in ["a", "a/b.json", "folder/"] {
            assert!(safe(path), "{path}");
        }
        for path in [
            "",
            "/etc/passwd",
            "../a",
            "a/../b",
            "a//b",
            "C:/a",
            "a\\b",
            "./a",
            "a\nb",
        ] {
            assert!(!safe(path), "{path:?}");
        }
    }

    #[test]
    fn a_nested_folder_of_another_adapter_is_an_adapter_of_its_own() {
        let files = [
            NamedFile::new("top/adapter_config.json", "1"),
            NamedFile::new("top/adapter_model.safetensors", "2"),
            NamedFile::new("top/second/adapter_config.json", "3"),
            NamedFile::new("top/README.md", "4"),
        ];
        let adapters = split_adapters(&files);
        let names: Vec<&str> = adapters.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["top", "top/second"]);
        assert_eq!(adapters[0].1.len(), 3);
    }
}
