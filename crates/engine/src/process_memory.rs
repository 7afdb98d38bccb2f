//! Memory of this process by the operating system's account. Knows nothing of what uses it.

/// Largest resident memory since the start or the last [`reset_peak`], in MiB; `None` where the system keeps no such account.
pub fn peak_mebibytes() -> Option<f64> {
    status_mebibytes("VmHWM:")
}

/// Memory that is resident now, in MiB; `None` where the system keeps no such account.
pub fn resident_mebibytes() -> Option<f64> {
    status_mebibytes("VmRSS:")
}

fn status_mebibytes(name: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kibibytes / 1024.0)
}

/// Resets the peak to what is resident now; `false` where the system cannot.
pub fn reset_peak() -> bool {
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}
