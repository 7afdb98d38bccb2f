//! The program; everything is in the library.

fn main() -> std::process::ExitCode {
    lora_recycle::cli::main()
}
