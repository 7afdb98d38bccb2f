//! Puts the files of the pages into release builds. Development builds read them from disk, so that a change to a script, a style
//! or a template needs no compilation.

#![allow(
    clippy::print_stdout,
    reason = "cargo reads what a build script prints"
)]

#[path = "src/web/pages/file_list.rs"]
mod file_list;

use std::env;
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
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
    let mut table = String::from("&[\n");
    for (name, path) in file_list::list(&project)? {
        writeln!(table, "    ({name:?}, include_bytes!({path:?})),").map_err(io::Error::other)?;
    }
    table.push_str("]\n");
    let output = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    std::fs::write(output.join("embedded_pages.rs"), table)
}
