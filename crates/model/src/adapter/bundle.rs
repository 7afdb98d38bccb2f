//! A bundle: one zip that carries an adapter to another machine, with the digest of its backbone, its import report and a list of
//! checksums that `sha256sum -c` checks too.

use super::Adapter;
use super::export::{ExportError, export_peft};
use super::export_options::ExportOptions;
use super::files::{FileLimits, FilesError, NamedFile, read_zip};
use super::import::{Imported, import};
use super::report::{BackboneCandidate, ImportReport};
use crate::digest::hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use thiserror::Error;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

const FORMAT: &str = "lora-recycle-adapter";
const VERSION: u32 = 1;
const MANIFEST: &str = "bundle.json";
const REPORT: &str = "report.json";
const CHECKSUMS: &str = "SHA256SUMS";
const FOLDER: &str = "adapter/";

/// The bundle's page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Manifest {
    format: String,
    version: u32,
    name: String,
    adapter_digest: String,
    backbone_name: String,
    backbone_digest: String,
    backbone_architecture: String,
}

/// An adapter from a bundle.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The name that the adapter had on the other machine.
    pub name: String,
    /// The adapter, checked again here.
    pub imported: Imported,
    /// The report of the first import, on the other machine.
    pub first_report: Option<ImportReport>,
    /// The adapter's files.
    pub files: Vec<NamedFile>,
}

/// Why a bundle could not be written or read.
#[derive(Debug, Error)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
pub enum BundleError {
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error("the zip could not be written: {0}")]
    Write(String),
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error("this is not an adapter bundle: {0}")]
    NotABundle(String),
    #[error("the bundle has version {found}; this program reads version {VERSION}")]
    Version { found: u32 },
    #[error("{path} is not what the bundle's list of checksums says; copy the bundle again")]
    Checksum { path: String },
    #[error("{path} is not on the bundle's list of checksums")]
    Unlisted { path: String },
    #[error("{path} is on the bundle's list of checksums, but not in the bundle")]
    Absent { path: String },
    #[error(
        "the adapter is for the backbone {name} with digest {digest}, which is not here; add that backbone first"
    )]
    UnknownBackbone { name: String, digest: String },
    #[error("the bundle's adapter is refused: {}", .0.errors.join("; "))]
    Refused(Box<ImportReport>),
    #[error("the adapter has digest {found}, the bundle says {expected}")]
    Digest { found: String, expected: String },
}

/// Writes a bundle. The same input gives the same bytes.
///
/// # Errors
/// [`BundleError`]
pub fn export_bundle(
    adapter: &Adapter,
    options: &ExportOptions<'_>,
    report: Option<&ImportReport>,
) -> Result<Vec<u8>, BundleError> {
    let manifest = Manifest {
        format: FORMAT.into(),
        version: VERSION,
        name: options.title.into(),
        adapter_digest: adapter.digest(),
        backbone_name: options.backbone.name.clone(),
        backbone_digest: options.backbone.digest.clone(),
        backbone_architecture: options.backbone.config.architecture.name().into(),
    };
    let mut files = vec![NamedFile::new(MANIFEST, pretty(&manifest)?)];
    for file in export_peft(adapter, options)? {
        files.push(NamedFile::new(format!("{FOLDER}{}", file.path), file.bytes));
    }
    if let Some(report) = report {
        files.push(NamedFile::new(REPORT, pretty(report)?));
    }
    files.push(checksums(&files));
    write_zip(&files)
}

/// The list of checksums of `files`, as `sha256sum` writes it.
pub fn checksums(files: &[NamedFile]) -> NamedFile {
    let line = |file: &NamedFile| format!("{}  {}\n", sha256(&file.bytes), file.path);
    NamedFile::new(CHECKSUMS, files.iter().map(line).collect::<String>())
}

/// Compares the files of a bundle with its list of checksums.
///
/// # Errors
/// [`BundleError`] that names the file, or where there is no list.
pub fn check_checksums(files: &[NamedFile]) -> Result<(), BundleError> {
    let list = files.iter().find(|file| file.path == CHECKSUMS);
    let list = list.ok_or_else(|| BundleError::NotABundle(format!("{CHECKSUMS} is missing")))?;
    check_sums(files, &list.bytes)
}

fn pretty(value: &impl Serialize) -> Result<Vec<u8>, BundleError> {
    serde_json::to_vec_pretty(value).map_err(|error| BundleError::Write(error.to_string()))
}

/// Whether these files of a zip are a bundle's.
pub(super) fn is_bundle(files: &[NamedFile]) -> bool {
    files.iter().any(|file| file.path == MANIFEST)
}

/// A zip of `files` without compression: weights hardly shrink, and a ratio of 1 passes every limit.
///
/// # Errors
/// [`BundleError::Write`]
pub fn write_zip(files: &[NamedFile]) -> Result<Vec<u8>, BundleError> {
    let failed = |error: String| BundleError::Write(error);
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default());
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for file in files {
        writer
            .start_file(&file.path, options)
            .map_err(|error| failed(error.to_string()))?;
        writer
            .write_all(&file.bytes)
            .map_err(|error| failed(error.to_string()))?;
    }
    let cursor = writer.finish().map_err(|error| failed(error.to_string()))?;
    Ok(cursor.into_inner())
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Reads a bundle, checks every file against the list, and imports the adapter for the backbone that it names.
///
/// # Errors
/// [`BundleError`]
pub fn import_bundle(
    bytes: &[u8],
    candidates: &[BackboneCandidate],
    limits: &FileLimits,
) -> Result<Bundle, BundleError> {
    let files = read_zip(bytes, limits)?;
    let named = |name: &str| {
        files
            .iter()
            .find(|file| file.path == name)
            .ok_or_else(|| BundleError::NotABundle(format!("{name} is missing")))
    };
    let manifest: Manifest = serde_json::from_slice(&named(MANIFEST)?.bytes)
        .map_err(|error| BundleError::NotABundle(format!("{MANIFEST}: {error}")))?;
    if manifest.format != FORMAT {
        return Err(BundleError::NotABundle(format!(
            "its format is \"{}\", not \"{FORMAT}\"",
            manifest.format
        )));
    }
    if manifest.version != VERSION {
        return Err(BundleError::Version {
            found: manifest.version,
        });
    }
    check_sums(&files, &named(CHECKSUMS)?.bytes)?;
    let backbone: Vec<BackboneCandidate> = candidates
        .iter()
        .filter(|candidate| candidate.digest == manifest.backbone_digest)
        .take(1)
        .cloned()
        .collect();
    if backbone.is_empty() {
        return Err(BundleError::UnknownBackbone {
            name: manifest.backbone_name,
            digest: manifest.backbone_digest,
        });
    }
    let adapter: Vec<NamedFile> = files
        .iter()
        .filter_map(|file| {
            let path = file.path.strip_prefix(FOLDER)?;
            Some(NamedFile::new(path, file.bytes.clone()))
        })
        .collect();
    let imported = import(&adapter, &backbone).map_err(BundleError::Refused)?;
    let found = imported.adapter.digest();
    if found != manifest.adapter_digest {
        return Err(BundleError::Digest {
            found,
            expected: manifest.adapter_digest,
        });
    }
    let first_report = files
        .iter()
        .find(|file| file.path == REPORT)
        .and_then(|file| serde_json::from_slice(&file.bytes).ok());
    Ok(Bundle {
        name: manifest.name,
        imported,
        first_report,
        files: adapter,
    })
}

fn check_sums(files: &[NamedFile], list: &[u8]) -> Result<(), BundleError> {
    let list = std::str::from_utf8(list)
        .map_err(|_| BundleError::NotABundle(format!("{CHECKSUMS} is not text")))?;
    let mut listed: BTreeMap<&str, &str> = list
        .lines()
        .filter_map(|line| line.split_once("  "))
        .map(|(sum, path)| (path, sum))
        .collect();
    for file in files.iter().filter(|file| file.path != CHECKSUMS) {
        let path = file.path.clone();
        match listed.remove(path.as_str()) {
            None => return Err(BundleError::Unlisted { path }),
            Some(sum) if sum != sha256(&file.bytes) => return Err(BundleError::Checksum { path }),
            Some(_) => {}
        }
    }
    match listed.keys().next() {
        Some(path) => Err(BundleError::Absent {
            path: (*path).to_owned(),
        }),
        None => Ok(()),
    }
}
