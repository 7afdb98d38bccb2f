//! The files that the binary carries for the page. All of them share one digest, which is part of their address:
//! ES modules can import each other by relative address and still be cached for good.

use super::headers;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::LazyLock;

/// `(served path, content)`, written by the build script from `static/` and `assets/examples/`.
static EMBEDDED_FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/embedded_files.rs"));

static ASSETS: LazyLock<Assets> = LazyLock::new(Assets::new);

struct Assets {
    digest: String,
    base_path: String,
    by_path: HashMap<&'static str, Entry>,
}

struct Entry {
    bytes: &'static [u8],
    content_type: String,
    etag: String,
}

/// One embedded file.
pub struct EmbeddedFile {
    pub bytes: &'static [u8],
    pub content_type: &'static str,
    pub etag: &'static str,
}

impl Assets {
    fn new() -> Self {
        let mut hasher = Sha256::new();
        let mut by_path = HashMap::new();
        for &(path, bytes) in EMBEDDED_FILES {
            hasher.update((path.len() as u64).to_le_bytes());
            hasher.update(path);
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
            let entry = Entry {
                bytes,
                content_type: content_type(path),
                etag: headers::etag_of(bytes),
            };
            by_path.insert(path, entry);
        }
        let digest = headers::short_hex(&hasher.finalize());
        Self {
            base_path: format!("/static/{digest}"),
            digest,
            by_path,
        }
    }
}

fn content_type(path: &str) -> String {
    // Browsers show plain text, but save Markdown as a file.
    if path.ends_with(".md") {
        return "text/plain; charset=utf-8".to_owned();
    }
    let kind = mime_guess::from_path(path).first_or_octet_stream();
    if kind.type_() == mime_guess::mime::TEXT || path.ends_with(".json") {
        format!("{kind}; charset=utf-8")
    } else {
        kind.to_string()
    }
}

/// Names the content of all embedded files.
pub fn digest() -> &'static str {
    &ASSETS.digest
}

/// Where the embedded files are served, without a slash at the end.
pub fn base_path() -> &'static str {
    &ASSETS.base_path
}

/// The embedded file with this path.
pub fn find(path: &str) -> Option<EmbeddedFile> {
    ASSETS.by_path.get(path).map(|entry| EmbeddedFile {
        bytes: entry.bytes,
        content_type: &entry.content_type,
        etag: &entry.etag,
    })
}

/// What a browser fetches for `/` besides the document: all but the example pictures and what is for other pages alone.
#[cfg(test)]
pub fn first_page_bytes() -> usize {
    EMBEDDED_FILES
        .iter()
        .filter(|(path, _)| {
            let elsewhere = [
                "examples/",
                "admin.css",
                "compare.css",
                "jobs.css",
                "js/admin/",
                "vendor/",
            ];
            !elsewhere.iter().any(|start| path.starts_with(start))
        })
        .map(|(_, bytes)| bytes.len())
        .sum()
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
    fn every_example_picture_of_the_manifest_is_embedded() {
        let manifest = find("examples/manifest.json").expect("a manifest of the examples");
        let manifest: serde_json::Value =
            serde_json::from_slice(manifest.bytes).expect("a manifest in JSON");
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
