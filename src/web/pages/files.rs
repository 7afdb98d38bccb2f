//! The files of the pages: inside the binary in a release build, read from the checkout in a development build. All of them share
//! one digest, which is part of their address: ES modules can import each other by relative address and still be cached for good.

use super::file_list::TEMPLATES;
use super::headers;
use axum::body::Bytes;
use sha2::{Digest, Sha256};

/// One file as it is served.
pub struct PageFile {
    pub bytes: Bytes,
    pub content_type: &'static str,
    pub etag: String,
}

/// Names the content of all files.
pub fn digest() -> String {
    source::digest()
}

/// Where the files are served, without a slash at the end.
pub fn base_path() -> String {
    format!("/static/{}", digest())
}

/// The file that is served under `path`.
pub fn find(path: &str) -> Option<PageFile> {
    if path.starts_with(TEMPLATES) {
        return None;
    }
    let bytes = source::read(path)?;
    Some(PageFile {
        etag: headers::etag_of(&bytes),
        content_type: content_type(path),
        bytes,
    })
}

/// The text of the template called `name`.
pub fn template(name: &str) -> Option<String> {
    let bytes = source::read(&format!("{TEMPLATES}{name}"))?;
    String::from_utf8(bytes.into()).ok()
}

/// By the ending of the name; what has none is plain text, such as a licence.
fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, ending)| ending) {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("json") => "application/json; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("jpg") => "image/jpeg",
        Some("png") => "image/png",
        // Browsers show plain text, but save Markdown as a file.
        _ => "text/plain; charset=utf-8",
    }
}

#[cfg(embedded_pages)]
mod source {
    use super::{Bytes, Digest, Sha256, headers};
    use std::sync::LazyLock;

    /// `(name, content)` in order of the names, written by the build script.
    static FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/embedded_pages.rs"));

    static DIGEST: LazyLock<String> = LazyLock::new(|| {
        let mut hasher = Sha256::new();
        for (name, bytes) in FILES {
            hasher.update((name.len() as u64).to_le_bytes());
            hasher.update(name);
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        }
        headers::short_hex(&hasher.finalize())
    });

    pub fn digest() -> String {
        DIGEST.clone()
    }

    pub fn read(name: &str) -> Option<Bytes> {
        let index = FILES
            .binary_search_by(|(other, _)| (*other).cmp(name))
            .ok()?;
        Some(Bytes::from_static(FILES[index].1))
    }
}

#[cfg(not(embedded_pages))]
mod source {
    use super::super::bundle::{BUNDLES, bundle};
    use super::super::file_list;
    use super::{Bytes, Digest, Sha256, headers};
    use std::io;
    use std::path::{Path, PathBuf};
    use std::time::UNIX_EPOCH;

    fn files() -> Vec<(String, PathBuf)> {
        file_list::list(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap_or_default()
    }

    /// Of names, sizes and times of change: reading every file for every page would be slow.
    pub fn digest() -> String {
        let mut hasher = Sha256::new();
        for (name, path) in files() {
            let state = path.metadata().ok().map(|metadata| {
                let changed = metadata.modified().ok();
                let changed = changed.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
                (metadata.len(), changed)
            });
            hasher.update(format!("{name} {state:?}\n"));
        }
        headers::short_hex(&hasher.finalize())
    }

    /// Only what is listed is read: no path is made from `name`.
    pub fn read(name: &str) -> Option<Bytes> {
        let files = files();
        let text = |wanted: &str| {
            let found = files.iter().find(|(other, _)| other == wanted);
            let (_, path) =
                found.ok_or_else(|| io::Error::other(format!("there is no {wanted}")))?;
            std::fs::read_to_string(path)
        };
        if let Some((_, entry)) = BUNDLES.iter().find(|(bundle, _)| *bundle == name) {
            return match bundle(entry, &text) {
                Ok(joined) => Some(joined.into()),
                Err(error) => {
                    tracing::error!("{error}");
                    None
                }
            };
        }
        let (_, path) = files.iter().find(|(other, _)| other == name)?;
        std::fs::read(path).ok().map(Bytes::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_and_styles_have_types_that_browsers_accept_under_nosniff() {
        assert_eq!(content_type("js/main.js"), "text/javascript; charset=utf-8");
        assert_eq!(content_type("page.css"), "text/css; charset=utf-8");
        assert_eq!(content_type("logo.svg"), "image/svg+xml");
        assert_eq!(
            content_type("examples/manifest.json"),
            "application/json; charset=utf-8"
        );
    }

    #[test]
    fn templates_and_names_that_lead_elsewhere_are_not_served() {
        assert!(template("sort.html").is_some());
        for path in [
            "templates/sort.html",
            "../Cargo.toml",
            "js/../page.css",
            "/etc/passwd",
            "",
        ] {
            assert!(find(path).is_none(), "{path}");
        }
    }

    #[test]
    fn bundles_are_served_as_one_file_each() {
        for (name, _) in crate::web::pages::bundle::BUNDLES {
            let bundle = find(name).expect(name);
            let text = std::str::from_utf8(&bundle.bytes).expect("text");
            assert!(!text.contains("\nimport "), "{name} asks for more files");
            assert!(text.len() > 1000, "{name} has {} bytes", text.len());
        }
    }

    #[test]
    fn every_example_picture_of_the_manifest_is_served() {
        let manifest = find("examples/manifest.json").expect("a manifest of the examples");
        let manifest: serde_json::Value =
            serde_json::from_slice(&manifest.bytes).expect("a manifest in JSON");
        let classes = manifest["classes"].as_array().expect("classes");
        let supports = classes.iter().flat_map(|class| class["images"].as_array());
        let pictures = supports
            .chain(manifest["queries"].as_array())
            .flatten()
            .filter_map(|path| path.as_str())
            .collect::<Vec<_>>();
        assert!(classes.len() >= 2 && pictures.len() > classes.len());
        for path in pictures {
            assert!(
                find(&format!("examples/{path}")).is_some(),
                "{path} is missing"
            );
        }
    }
}
