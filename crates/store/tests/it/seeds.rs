//! What the tests that compare the store with a model in memory share: their seeds, and what they did where they fail.

/// The seeds that are run; `LORA_RECYCLE_TEST_SEED=n` runs that one alone.
pub fn seeds() -> Vec<u64> {
    match std::env::var("LORA_RECYCLE_TEST_SEED") {
        Ok(text) => vec![text.parse().expect("a seed is a whole number")],
        Err(_) => vec![1, 2, 3],
    }
}

/// One line per step, printed when the test fails.
pub struct Trace {
    pub seed: u64,
    pub lines: Vec<String>,
}

impl Drop for Trace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {} failed in its last line:", self.seed);
            for (step, line) in self.lines.iter().enumerate() {
                eprintln!("{step:4} {line}");
            }
        }
    }
}
