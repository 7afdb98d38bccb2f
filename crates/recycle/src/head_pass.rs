//! A linear head with its cross-entropy on parts of a batch, as micro-batches come, and with its entropy on a whole one.

use engine::loss::{
    LinearHeadGradients, cross_entropy, entropy, linear_head, linear_head_backward,
};
use engine::operation::OperationError;
use model::adapter::Head;

/// `logits = weight·(scale·feature) + bias`.
#[derive(Debug, Clone, Copy)]
pub struct HeadPass<'a> {
    /// `[classes, width]`
    pub weight: &'a [f32],
    /// `[classes]`
    pub bias: Option<&'a [f32]>,
    /// Rows of `weight`.
    pub classes: usize,
    /// Of a feature.
    pub width: usize,
    /// What the features are multiplied with.
    pub scale: f32,
}

/// What a part of a batch gives.
#[derive(Debug)]
pub struct HeadPart {
    /// Its share of the batch's mean cross-entropy.
    pub loss: f64,
    /// Scaled, `[rows, width]`
    pub features: Vec<f32>,
    /// `[rows, classes]`
    pub logits: Vec<f32>,
    /// `[rows, classes]`
    pub dlogits: Vec<f32>,
}

impl<'a> HeadPass<'a> {
    /// The pass of `head` with a scale of 1.
    pub fn of(head: &'a Head) -> Self {
        Self {
            weight: head.weight.data(),
            bias: head.bias.as_ref().map(|bias| bias.data()),
            classes: head.weight.shape()[0],
            width: head.weight.shape()[1],
            scale: 1.0,
        }
    }

    /// `[rows, classes]` from `features` `[rows, width]`.
    ///
    /// # Errors
    /// Zero rows, lengths that do not fit, values that are not finite.
    pub fn logits(&self, features: &[f32]) -> Result<Vec<f32>, OperationError> {
        let scaled = self.scaled(features);
        self.logits_of_scaled(&scaled)
    }

    fn scaled(&self, features: &[f32]) -> Vec<f32> {
        features.iter().map(|value| value * self.scale).collect()
    }

    fn logits_of_scaled(&self, features: &[f32]) -> Result<Vec<f32>, OperationError> {
        let rows = features.len().checked_div(self.width).unwrap_or(0);
        let mut logits = vec![0.0; rows * self.classes];
        linear_head(features, self.width, self.weight, self.bias, &mut logits)?;
        Ok(logits)
    }

    /// Loss and gradients of the rows `features` of a batch of `batch` rows; overwrites `dfeatures` `[rows, width]`.
    ///
    /// # Errors
    /// As [`Self::logits`], and for a label past the classes.
    pub fn part(
        &self,
        features: &[f32],
        labels: &[usize],
        batch: usize,
        dfeatures: &mut [f32],
    ) -> Result<HeadPart, OperationError> {
        let features = self.scaled(features);
        let logits = self.logits_of_scaled(&features)?;
        let mut dlogits = vec![0.0; logits.len()];
        let loss = cross_entropy(&logits, labels, self.classes, Some(&mut dlogits))?;
        let share = labels.len() as f64 / batch as f64;
        dlogits
            .iter_mut()
            .for_each(|value| *value = (f64::from(*value) * share) as f32);
        self.backward(&features, &dlogits, dfeatures)?;
        Ok(HeadPart {
            loss: f64::from(loss) * share,
            features,
            logits,
            dlogits,
        })
    }

    /// Mean entropy of the softmax over the classes for the rows `features`, see [`engine::loss::entropy`]; overwrites `dfeatures`
    /// `[rows, width]` with its gradient.
    ///
    /// # Errors
    /// As [`Self::logits`].
    pub fn entropy(&self, features: &[f32], dfeatures: &mut [f32]) -> Result<f32, OperationError> {
        let features = self.scaled(features);
        let logits = self.logits_of_scaled(&features)?;
        let mut dlogits = vec![0.0; logits.len()];
        let loss = entropy(&logits, self.classes, Some(&mut dlogits))?;
        self.backward(&features, &dlogits, dfeatures)?;
        Ok(loss)
    }

    /// Overwrites `dfeatures` `[rows, width]`; `features` are scaled.
    fn backward(
        &self,
        features: &[f32],
        dlogits: &[f32],
        dfeatures: &mut [f32],
    ) -> Result<(), OperationError> {
        let gradients = LinearHeadGradients {
            dfeatures: Some(&mut *dfeatures),
            ..LinearHeadGradients::default()
        };
        linear_head_backward(features, self.width, self.weight, dlogits, gradients)?;
        dfeatures.iter_mut().for_each(|value| *value *= self.scale);
        Ok(())
    }
}

/// How many rows of `logits` `[rows, classes]` are largest at their label.
pub(super) fn count_correct(logits: &[f32], labels: &[usize], classes: usize) -> usize {
    let rows = logits.chunks_exact(classes).zip(labels);
    rows.filter(|(row, label)| largest(row) == **label).count()
}

/// Position of the largest value, the first of equals.
pub(super) fn largest(row: &[f32]) -> usize {
    let better = |best: usize, index: usize| if row[index] > row[best] { index } else { best };
    (0..row.len()).fold(0, better)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_batch_add_up_to_its_whole() {
        let weight = [0.5, -1.0, 2.0, 0.25, -0.75, 1.5];
        let pass = HeadPass {
            weight: &weight,
            bias: Some(&[0.1, -0.2, 0.3]),
            classes: 3,
            width: 2,
            scale: 1.7,
        };
        let features = [1.0, 2.0, -0.5, 0.3, 0.7, -1.1];
        let labels = [0, 2, 1];
        let mut whole = [0.0; 6];
        let all = pass.part(&features, &labels, 3, &mut whole).unwrap();
        let mut parts = [0.0; 6];
        let (left, right) = parts.split_at_mut(2);
        let first = pass.part(&features[..2], &labels[..1], 3, left).unwrap();
        let second = pass.part(&features[2..], &labels[1..], 3, right).unwrap();
        assert!((all.loss - first.loss - second.loss).abs() < 1e-6);
        for (a, b) in whole.iter().zip(parts) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
        assert_eq!(all.logits, [first.logits, second.logits].concat());
        assert_eq!(pass.logits(&features).unwrap(), all.logits);
    }

    #[test]
    fn equal_logits_count_for_the_first_class() {
        assert_eq!(count_correct(&[1.0, 1.0, 0.0, 2.0], &[0, 1], 2), 2);
        assert_eq!(count_correct(&[1.0, 1.0, 0.0, 2.0], &[1, 0], 2), 0);
    }
}
