//! What a run that is interrupted behind meta-training keeps: the end of meta-training, and the lines of its evaluation that are finished.
//! Before, a checkpoint is the state of meta-training alone.

use crate::app::evaluation::MethodRun;
use crate::jobs::JobError;

/// What begins a checkpoint of an evaluation; a state of meta-training begins otherwise.
const MAGIC: &[u8] = b"lora-recycle evaluation\n";
const LENGTH_BYTES: usize = size_of::<u64>();

/// How far an interrupted run came.
#[derive(Debug)]
pub struct Checkpoint {
    /// Of meta-training.
    pub state: Vec<u8>,
    pub finished: Vec<MethodRun>,
}

impl Checkpoint {
    /// From what was stored. Lines of an evaluation that cannot be read are computed again.
    pub fn of(stored: Vec<u8>) -> Self {
        let parts = stored.strip_prefix(MAGIC).and_then(|rest| {
            let (length, rest) = rest.split_first_chunk::<LENGTH_BYTES>()?;
            let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
            rest.split_at_checked(length)
        });
        match parts {
            Some((state, finished)) => Self {
                state: state.to_vec(),
                finished: serde_json::from_slice(finished).unwrap_or_default(),
            },
            None => Self {
                state: stored,
                finished: Vec::new(),
            },
        }
    }

    /// What [`Self::of`] reads.
    ///
    /// # Errors
    /// [`JobError`] where the lines cannot be written down.
    pub fn to_store(state: &[u8], finished: &[MethodRun]) -> Result<Vec<u8>, JobError> {
        let finished = serde_json::to_vec(finished)
            .map_err(|error| JobError::failure("checkpoint", error.to_string()))?;
        let length = (state.len() as u64).to_le_bytes();
        Ok([MAGIC, &length, state, &finished].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_state_of_meta_training_alone_and_one_with_an_evaluation_come_back_as_they_were() {
        let alone = Checkpoint::of(vec![1, 2, 3]);
        assert_eq!((alone.state, alone.finished.len()), (vec![1, 2, 3], 0));
        let line = json!({"kind": "bare", "adapter": null, "accuracies": [0.5, 0.1], "merge": null, "tuning": null});
        let runs: Vec<MethodRun> = serde_json::from_value(json!([line])).unwrap();
        let stored = Checkpoint::to_store(&[7; 40], &runs).unwrap();
        let both = Checkpoint::of(stored.clone());
        assert_eq!(both.state, [7; 40]);
        assert_eq!(json!(both.finished), json!([line]));
        // Lines that are cut off are computed again, not believed.
        let cut = Checkpoint::of(stored[..stored.len() - 1].to_vec());
        assert_eq!((cut.state, cut.finished.len()), (vec![7; 40], 0));
    }
}
