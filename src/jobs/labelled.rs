//! Labelled pictures from a zip that may be hostile: each folder is a class, as on the command line.

use super::request::{LabelledImage, RequestError, sort_by_class};
use crate::base64_bytes::Base64Bytes;
use model::adapter::{FileLimits, NamedFile, read_zip};

/// What a zip of labelled pictures may hold. They hardly compress; pictures of letters on one colour do, a little.
pub const ARCHIVE_LIMITS: FileLimits = FileLimits {
    most_files: 20_000,
    // As much as a picture may have anywhere.
    largest_file_bytes: 20 << 20,
    largest_total_bytes: 512 << 20,
    largest_ratio: 200,
};

/// The pictures in `zip` by class; where all folders are in one outer folder, that one is skipped. Pictures may be at any
/// depth below their class.
///
/// # Errors
/// [`RequestError::Invalid`] that names the part `archive` and the file at fault.
pub fn labelled_images(
    zip: &[u8],
    limits: &FileLimits,
) -> Result<Vec<LabelledImage>, RequestError> {
    let invalid = |detail: String| RequestError::invalid("archive", detail);
    let mut files = read_zip(zip, limits).map_err(|error| invalid(error.to_string()))?;
    strip_outer_folder(&mut files);
    let mut images = Vec::with_capacity(files.len());
    for NamedFile { path, bytes } in files {
        let Some((class, file_name)) = path.split_once('/') else {
            return Err(invalid(format!(
                "\"{path}\" is in no folder; make one folder per class and put its pictures inside"
            )));
        };
        images.push(LabelledImage {
            class: class.to_owned(),
            file_name: file_name.to_owned(),
            bytes,
        });
    }
    images.sort_by(|a, b| (&a.class, &a.file_name).cmp(&(&b.class, &b.file_name)));
    Ok(images)
}

/// The labelled pictures of a request with those of its zip, by class.
///
/// # Errors
/// [`RequestError::Invalid`] that names the part `archive`.
pub async fn all_pictures(
    mut pictures: Vec<LabelledImage>,
    archive: Option<Base64Bytes>,
) -> Result<Vec<LabelledImage>, RequestError> {
    let Some(archive) = archive else {
        return Ok(pictures);
    };
    let unpack = move || {
        pictures.extend(labelled_images(&archive.0, &ARCHIVE_LIMITS)?);
        sort_by_class(&mut pictures);
        Ok(pictures)
    };
    // Unpacking takes long enough to hold up other requests of this worker.
    tokio::task::spawn_blocking(unpack)
        .await
        .map_err(|error| RequestError::Registry(error.into()))?
}

/// Removes the folder that holds all class folders, as zips of one folder have it.
fn strip_outer_folder(files: &mut [NamedFile]) {
    let Some((outer, _)) = files.first().and_then(|file| file.path.split_once('/')) else {
        return;
    };
    let outer = format!("{outer}/");
    let is_outer = files.iter().all(|file| {
        file.path
            .strip_prefix(&outer)
            .is_some_and(|rest| rest.contains('/'))
    });
    if is_outer {
        for file in files {
            file.path.drain(..outer.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::adapter::write_zip;

    fn zip_of(paths: &[&str]) -> Vec<u8> {
        let files: Vec<NamedFile> = paths
            .iter()
            .map(|path| NamedFile::new(*path, path.as_bytes()))
            .collect();
        write_zip(&files).expect("zip")
    }

    fn unpacked(paths: &[&str]) -> Result<Vec<(String, String)>, String> {
        labelled_images(&zip_of(paths), &ARCHIVE_LIMITS)
            .map(|images| {
                images
                    .into_iter()
                    .map(|image| (image.class, image.file_name))
                    .collect()
            })
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_folder_is_a_class_also_inside_one_outer_folder() {
        let expected = [("cat", "1.png"), ("cat", "more/2.png"), ("dog", "1.png")]
            .map(|(class, name)| (class.to_owned(), name.to_owned()));
        assert_eq!(
            unpacked(&["dog/1.png", "cat/more/2.png", "cat/1.png"]).expect("plain"),
            expected
        );
        assert_eq!(
            unpacked(&[
                "pets/dog/1.png",
                "pets/cat/more/2.png",
                "pets/cat/1.png",
                "__MACOSX/pets/cat/._1.png",
                "pets/.DS_Store"
            ])
            .expect("outer"),
            expected
        );
    }

    #[test]
    fn what_is_no_labelled_picture_or_leads_out_is_refused_by_its_name() {
        for (paths, words) in [
            (
                &["cat/1.png", "stray.png"][..],
                "\"stray.png\" is in no folder",
            ),
            (&["cat/../../x.png"], "leads out"),
            (&["/etc/passwd"], "leads out"),
            (&["cat\\..\\x.png"], "leads out"),
        ] {
            let error = unpacked(paths).expect_err("refused");
            assert!(error.contains(words), "{paths:?}: {error}");
        }
    }

    #[test]
    fn a_zip_that_is_too_much_is_refused_before_it_is_unpacked() {
        let mut bomb = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let packed = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Deflated);
        bomb.start_file("cat/1.png", packed).expect("entry");
        std::io::Write::write_all(&mut bomb, &vec![0; 1 << 20]).expect("zeros");
        let bomb = bomb.finish().expect("zip").into_inner();
        let error = labelled_images(&bomb, &ARCHIVE_LIMITS).expect_err("bomb");
        assert!(error.to_string().contains("zip bomb"), "{error}");
        let few = FileLimits {
            most_files: 1,
            ..ARCHIVE_LIMITS
        };
        let error = labelled_images(&zip_of(&["cat/1.png", "cat/2.png"]), &few).expect_err("many");
        assert!(error.to_string().contains("2 files"), "{error}");
        let small = FileLimits {
            largest_total_bytes: 10,
            ..ARCHIVE_LIMITS
        };
        let error =
            labelled_images(&zip_of(&["cat/1.png", "cat/2.png"]), &small).expect_err("large");
        assert!(error.to_string().contains("together"), "{error}");
        assert!(labelled_images(b"no zip", &ARCHIVE_LIMITS).is_err());
    }
}
