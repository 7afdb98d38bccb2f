//! The pictures of a batch on their way to the disk: one is in memory at a time, whether they come as parts of a form or in a zip.

use super::super::store;
use crate::app::App;
use crate::web::ApiError;
use crate::web::api::images::{decode_name, form_error, nameless, open_form, require_form};
use crate::web::limits::Admission;
use axum::extract::multipart::Field;
use axum::extract::{DefaultBodyLimit, Request};
use model::adapter::{CheckedZip, FileLimits, FilesError, hidden};
use std::fs::File;
use std::io::{Seek, Write};
use store::{JobInput, LONGEST_TITLE, MOST_BATCH_PICTURES, Staged, Store};

/// What a part with a picture is called.
pub const IMAGES: &str = "images";
/// What the part with a zip is called.
pub const ARCHIVE: &str = "archive";
/// What the part with the name of the batch is called.
pub const NAME: &str = "name";
/// Most bytes of a part with text.
const LONGEST_TEXT: usize = 4096;
/// Pieces of a zip are written once they are this many bytes.
const WRITTEN_AT_ONCE: usize = 1 << 20;

/// Pictures that are on disk.
pub struct Received {
    /// For people.
    pub name: String,
    /// In the order in which they came.
    pub files: Vec<JobInput>,
    /// Keeps them until a job has them.
    pub staged: Staged,
}

/// What came so far.
struct Receiving<'a> {
    admission: &'a Admission,
    store: &'a Store,
    largest_file_bytes: usize,
    staged: Staged,
    files: Vec<JobInput>,
    name: Option<String>,
    archive_name: Option<String>,
}

/// Receives the form of a batch.
///
/// # Errors
/// [`ApiError`]: what is wrong with the form, the zip or its size; [`ApiError::InvalidParameter`] where there is no picture.
pub async fn receive(
    app: &App,
    admission: &Admission,
    mut request: Request,
) -> Result<Received, ApiError> {
    require_form(request.headers())?;
    let limit_bytes = admission.limits.max_body_bytes;
    DefaultBodyLimit::max(limit_bytes).apply(&mut request);
    let mut form = open_form(request).await?;
    let store = store(app)?;
    let mut receiving = Receiving {
        admission,
        store,
        largest_file_bytes: app.limits().max_bytes,
        staged: store.stage()?,
        files: Vec::new(),
        name: None,
        archive_name: None,
    };
    let failed = |error| form_error(error, limit_bytes);
    while let Some(field) = admission
        .receive(async { form.next_field().await.map_err(failed) })
        .await?
    {
        receiving.take(field).await?;
    }
    receiving.finish()
}

impl Receiving<'_> {
    async fn take(&mut self, field: Field<'_>) -> Result<(), ApiError> {
        let part = decode_name(field.name().ok_or_else(nameless)?);
        let file_name = field.file_name().map(decode_name);
        match part.as_str() {
            IMAGES => {
                let path = file_name.unwrap_or_else(|| self.files.len().to_string());
                if is_hidden(&path) {
                    return Ok(());
                }
                let bytes = self.bytes(field, &path, self.largest_file_bytes).await?;
                self.add(path, bytes).await
            }
            ARCHIVE => {
                let file = self.to_disk(field).await?;
                self.archive_name = file_name.or_else(|| self.archive_name.take());
                self.unpack(file).await
            }
            NAME => {
                let bytes = self.bytes(field, NAME, LONGEST_TEXT).await?;
                let text = String::from_utf8(bytes).map_err(|_| ApiError::InvalidParameter {
                    parameter: NAME.into(),
                    detail: "the part is not UTF-8 text".into(),
                })?;
                self.name = Some(text).filter(|text| !text.trim().is_empty());
                Ok(())
            }
            _ => Err(ApiError::InvalidParameter {
                detail: format!(
                    "a part is named \"{part}\"; the names are {IMAGES} for pictures, {ARCHIVE} for a zip of them and {NAME}"
                ),
                parameter: part,
            }),
        }
    }

    /// Waits for the next piece of a part; each has the time of a whole body.
    async fn piece(&self, field: &mut Field<'_>) -> Result<Option<axum::body::Bytes>, ApiError> {
        let limit_bytes = self.admission.limits.max_body_bytes;
        let piece = async {
            let piece = field.chunk().await;
            piece.map_err(|error| form_error(error, limit_bytes))
        };
        self.admission.receive(piece).await
    }

    async fn bytes(
        &self,
        mut field: Field<'_>,
        name: &str,
        limit: usize,
    ) -> Result<Vec<u8>, ApiError> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.piece(&mut field).await? {
            if bytes.len() + piece.len() > limit {
                return Err(ApiError::InvalidParameter {
                    parameter: IMAGES.into(),
                    detail: format!("\"{name}\" has more than the {limit} bytes allowed"),
                });
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    /// A part as a file without a name, which is gone when the program ends.
    async fn to_disk(&self, mut field: Field<'_>) -> Result<File, ApiError> {
        let folder = self.store.folder().to_path_buf();
        let mut file = blocking(move || tempfile::tempfile_in(folder)).await?;
        let mut pieces = Vec::new();
        loop {
            let piece = self.piece(&mut field).await?;
            let is_last = piece.is_none();
            pieces.extend_from_slice(&piece.unwrap_or_default());
            if pieces.len() >= WRITTEN_AT_ONCE || is_last {
                let written = std::mem::take(&mut pieces);
                file = blocking(move || {
                    file.write_all(&written)?;
                    Ok(file)
                })
                .await?;
            }
            if is_last {
                break;
            }
        }
        blocking(move || {
            file.rewind()?;
            Ok(file)
        })
        .await
    }

    async fn unpack(&mut self, file: File) -> Result<(), ApiError> {
        let limits = FileLimits {
            // With its folders.
            most_files: 2 * MOST_BATCH_PICTURES as usize,
            largest_file_bytes: self.largest_file_bytes as u64,
            largest_total_bytes: self.admission.limits.max_body_bytes as u64,
            // Pictures hardly compress; those of letters on one colour do, a little.
            largest_ratio: 200,
        };
        let mut zip = blocking_zip(move || CheckedZip::open(file, &limits)).await?;
        self.check_count(self.files.len() + zip.len())?;
        for place in 0..zip.len() {
            let (own, file) = blocking_zip(move || {
                let file = zip.read(place)?;
                Ok((zip, file))
            })
            .await?;
            zip = own;
            self.add(file.path, file.bytes).await?;
        }
        Ok(())
    }

    async fn add(&mut self, path: String, bytes: Vec<u8>) -> Result<(), ApiError> {
        self.check_count(self.files.len() + 1)?;
        let size_bytes = bytes.len() as u64;
        self.files.push(JobInput {
            role: IMAGES.to_owned(),
            name: shown_path(&path),
            digest: self.staged.add(bytes).await?,
            size_bytes,
        });
        Ok(())
    }

    fn check_count(&self, found: usize) -> Result<(), ApiError> {
        let limit = MOST_BATCH_PICTURES as usize;
        if found <= limit {
            return Ok(());
        }
        Err(ApiError::TooMany {
            parameter: IMAGES,
            what: "pictures",
            found,
            limit,
        })
    }

    fn finish(self) -> Result<Received, ApiError> {
        if self.files.is_empty() {
            return Err(ApiError::InvalidParameter {
                parameter: IMAGES.into(),
                detail: format!("there is no picture; send parts {IMAGES}, or a zip as {ARCHIVE}"),
            });
        }
        let name = self
            .name
            .or(self.archive_name)
            .unwrap_or_else(|| name_of(&self.files));
        Ok(Received {
            name: shown_path(&name),
            files: self.files,
            staged: self.staged,
        })
    }
}

/// Whether a file manager hides it. Steps to outer folders are no names.
fn is_hidden(path: &str) -> bool {
    let parts = path.split(['/', '\\']);
    parts
        .filter(|part| !matches!(*part, "." | ".."))
        .any(hidden)
}

/// The folder that all pictures are in, else how many they are.
fn name_of(files: &[JobInput]) -> String {
    let folder = |file: &JobInput| {
        file.name
            .split_once('/')
            .map(|(folder, _)| folder.to_owned())
    };
    let first = files.first().and_then(folder);
    match first {
        Some(first)
            if files
                .iter()
                .all(|file| folder(file).as_ref() == Some(&first)) =>
        {
            first
        }
        _ => format!("{} pictures", files.len()),
    }
}

/// A path as it can be kept and shown, with `/` between its parts; of a long one the end.
fn shown_path(path: &str) -> String {
    let plain: String = path
        .replace('\\', "/")
        .chars()
        .filter(|own| !own.is_control())
        .collect();
    let plain = plain.trim().trim_start_matches("./");
    let skipped = plain.chars().count().saturating_sub(LONGEST_TITLE);
    let plain: String = plain.chars().skip(skipped).collect();
    match plain.trim() {
        "" => "picture".to_owned(),
        plain => plain.to_owned(),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|error| ApiError::Internal(format!("writing a zip: {error}")))?;
    done.map_err(|error| {
        if error.kind() == std::io::ErrorKind::StorageFull {
            return ApiError::from(store::StoreError::DiskFull {
                path: "the data folder".into(),
            });
        }
        ApiError::Internal(format!("writing a zip: {error}"))
    })
}

async fn blocking_zip<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FilesError> + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|error| ApiError::Internal(format!("unpacking a zip: {error}")))?;
    done.map_err(|error| ApiError::InvalidParameter {
        parameter: ARCHIVE.into(),
        detail: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::Digest;

    #[test]
    fn a_path_is_kept_as_far_as_it_can_be_shown() {
        assert_eq!(shown_path("a\\b/c.png"), "a/b/c.png");
        assert_eq!(shown_path("./a\nb.png"), "ab.png");
        assert_eq!(shown_path(""), "picture");
        let long = format!("{}/x.png", "ä".repeat(300));
        let shown = shown_path(&long);
        assert!(shown.ends_with("/x.png") && shown.chars().count() == LONGEST_TITLE);
    }

    #[test]
    fn a_batch_is_called_like_the_folder_of_all_its_pictures() {
        let named = |names: &[&str]| {
            let file = |name: &&str| JobInput {
                role: IMAGES.into(),
                name: (*name).to_owned(),
                digest: Digest::of(b""),
                size_bytes: 0,
            };
            name_of(&names.iter().map(file).collect::<Vec<_>>())
        };
        assert_eq!(named(&["holiday/1.png", "holiday/b/2.png"]), "holiday");
        assert_eq!(named(&["holiday/1.png", "2.png"]), "2 pictures");
    }
}
