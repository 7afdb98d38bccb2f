//! An adapter as it comes from outside: loose files or one zip, which may be a bundle.
//! Whatever is wrong with it ends in a report, so that a refusal looks the same whichever way the adapter came.

use super::MOST_RANK;
use super::bundle::{BundleError, import_bundle, is_bundle};
use super::files::{
    FileLimits, FilesError, NamedFile, read_folder, read_limited, read_zip, split_adapters,
};
use super::import::{CONFIG_FILE, HEAD_FILE, Imported, WEIGHTS_FILE, import};
use super::report::{BackboneCandidate, ImportReport};
use std::path::Path;

/// Files of one adapter, not yet looked at.
#[derive(Debug, Clone)]
pub enum Package {
    /// Loose files, with paths relative to their folder.
    Files(Vec<NamedFile>),
    /// The bytes of a zip.
    Zip(Vec<u8>),
}

/// An adapter that passed every check, with the files that belong to it.
#[derive(Debug, Clone)]
pub struct Unpacked {
    /// What was read from the files.
    pub imported: Imported,
    /// Configuration, weights, a head beside them and the model card; nothing else that lay there.
    pub files: Vec<NamedFile>,
}

impl Package {
    /// Reads `path`: a folder, a zip, or a single file.
    ///
    /// # Errors
    /// [`FilesError`]
    pub fn read(path: &Path, limits: &FileLimits) -> Result<Self, FilesError> {
        if path.is_dir() {
            return read_folder(path, limits).map(Self::Files);
        }
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let bytes = read_limited(path, &name, limits)?;
        Ok(Self::of(vec![NamedFile::new(name, bytes)]))
    }

    /// These files; a single one called `.zip` is a zip.
    pub fn of(mut files: Vec<NamedFile>) -> Self {
        let is_zip = |file: &NamedFile| file.path.to_ascii_lowercase().ends_with(".zip");
        match files.pop() {
            Some(only) if files.is_empty() && is_zip(&only) => Self::Zip(only.bytes),
            last => {
                files.extend(last);
                Self::Files(files)
            }
        }
    }

    /// Imports the adapter for one of the `candidates`; a bundle is known by its manifest.
    ///
    /// # Errors
    /// The report, with at least one sentence in `errors`.
    pub fn unpack(
        &self,
        candidates: &[BackboneCandidate],
        limits: &FileLimits,
    ) -> Result<Unpacked, Box<ImportReport>> {
        let unpacked;
        let files = match self {
            Self::Files(files) => files,
            Self::Zip(bytes) => {
                unpacked = read_zip(bytes, limits).map_err(|error| refusal(error.to_string()))?;
                if is_bundle(&unpacked) {
                    let bundle =
                        import_bundle(bytes, candidates, limits).map_err(|error| match error {
                            BundleError::Refused(report) => report,
                            error => refusal(error.to_string()),
                        })?;
                    return Ok(Unpacked {
                        files: own_files(&bundle.files),
                        imported: check_rank(bundle.imported)?,
                    });
                }
                &unpacked
            }
        };
        Ok(Unpacked {
            imported: check_rank(import(files, candidates)?)?,
            files: own_files(files),
        })
    }
}

/// A rank costs memory and time for each image; what is stored already goes on answering.
fn check_rank(imported: Imported) -> Result<Imported, Box<ImportReport>> {
    let pairs = imported.adapter.pairs.iter();
    let largest = pairs.max_by_key(|(_, pair)| pair.rank());
    match largest {
        Some((site, pair)) if pair.rank() > MOST_RANK => {
            let error = format!(
                "the rank is {} ({site}), more than the {MOST_RANK} allowed; keep the largest singular values of B·A and import that",
                pair.rank()
            );
            let mut report = imported.report;
            report.errors.push(error);
            Err(Box::new(report))
        }
        _ => Ok(imported),
    }
}

fn refusal(error: String) -> Box<ImportReport> {
    Box::new(ImportReport {
        errors: vec![error],
        ..ImportReport::default()
    })
}

/// The files of the one adapter in `files` that are kept: pickles and strangers are not.
fn own_files(files: &[NamedFile]) -> Vec<NamedFile> {
    let Some((_, mut own)) = split_adapters(files).into_iter().next() else {
        return Vec::new();
    };
    if own.len() > 1 {
        let kept = [CONFIG_FILE, WEIGHTS_FILE, HEAD_FILE, "README.md"];
        own.retain(|file| kept.contains(&file.path.as_str()));
    }
    own
}
