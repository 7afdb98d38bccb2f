//! Makes cargo notice new migrations: `sqlx::migrate!` reads the folder while compiling.

#![allow(
    clippy::print_stdout,
    reason = "cargo reads what a build script prints"
)]

fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
