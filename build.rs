//! Puts the files of the pages into release builds. Development builds read them from disk, so that a change to a script, a style
//! or a template needs no compilation.

#![allow(
    clippy::print_stdout,
    reason = "cargo reads what a build script prints"
)]

#[path = "src/web/pages/bundle.rs"]
mod bundle;
#[path = "src/web/pages/file_list.rs"]
mod file_list;

use std::env;
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/web/pages/bundle.rs");
    println!("cargo::rerun-if-changed=src/web/pages/file_list.rs");
    println!("cargo::rustc-check-cfg=cfg(embedded_pages)");
    if env::var("PROFILE").as_deref() != Ok("release") {
        return Ok(());
    }
    println!("cargo::rustc-cfg=embedded_pages");
    let project = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    for (folder, _) in file_list::FOLDERS {
        println!("cargo::rerun-if-changed={folder}");
    }
    let output = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let mut files = file_list::list(&project)?;
    let read = |wanted: &str| {
        let found = files.iter().find(|(name, _)| name == wanted);
        let (_, path) = found.ok_or_else(|| io::Error::other(format!("there is no {wanted}")))?;
        std::fs::read_to_string(path)
    };
    let mut bundles = Vec::new();
    for (number, (name, entry)) in bundle::BUNDLES.into_iter().enumerate() {
        let path = output.join(format!("bundle-{number}.js"));
        std::fs::write(&path, bundle::bundle(entry, &read)?)?;
        bundles.push((name.to_owned(), path));
    }
    files.extend(bundles);
    files.sort();
    let mut table = String::from("&[\n");
    for (name, path) in files {
        writeln!(table, "    ({name:?}, include_bytes!({path:?})),").map_err(io::Error::other)?;
    }
    table.push_str("]\n");
    std::fs::write(output.join("embedded_pages.rs"), table)
}
