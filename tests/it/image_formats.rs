//! The list of picture formats that the pages have is the one of `model::image_input`.

use model::image_input::ImageFormat;
use std::fmt::Write;
use std::path::Path;

const FILE: &str = "static/js/image_formats.js";
const REWRITE: &str = "LORA_RECYCLE_REWRITE";

/// The module of the pages.
fn module() -> String {
    let mut text = String::from(
        "// The picture formats that the server reads, from crates/model/src/image_input/format.rs.
// Do not edit: tests/it/image_formats.rs compares the two and says how to write this file again.

export const IMAGE_FORMATS = [
",
    );
    for format in ImageFormat::ALL {
        let extensions: Vec<String> = format
            .extensions()
            .iter()
            .map(|extension| format!("{extension:?}"))
            .collect();
        writeln!(
            text,
            "  {{ name: {:?}, mediaType: {:?}, extensions: [{}] }},",
            format.name(),
            format.media_type(),
            extensions.join(", ")
        )
        .unwrap();
    }
    text + "];\n"
}

#[test]
fn the_pages_know_the_formats_that_the_server_reads() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    if std::env::var_os(REWRITE).is_some() {
        std::fs::write(&path, module()).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        module(),
        "{FILE} is not up to date: {REWRITE}=1 cargo test --test it image_formats writes it again"
    );
}

#[test]
fn no_script_lists_formats_itself() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("static/js");
    let mut scripts = Vec::new();
    for folder in [folder.join("admin"), folder] {
        let entries = std::fs::read_dir(folder).unwrap();
        scripts.extend(entries.map(|entry| entry.unwrap().path()));
    }
    for script in scripts.iter().filter(|path| path.is_file()) {
        if script.ends_with(FILE) {
            continue;
        }
        let text = std::fs::read_to_string(script).unwrap();
        // The two that no script needs for another purpose.
        for name in ["webp", "tiff"] {
            let is_listed = text.to_lowercase().contains(name);
            assert!(!is_listed, "{} lists {name}", script.display());
        }
    }
}
