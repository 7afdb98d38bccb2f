//! Makes cargo notice new migrations: `sqlx::migrate!` reads the folder while compiling.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
