//! One reference file: which of its tensors were compared, which were inputs, and which nobody asked for.

use super::{TensorCheck, Verification, VerifyError};
use model::tensor::Tensor;
use model::tensor_file::{TensorError, TensorFile};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub(super) struct ReferenceChecks<'a> {
    file: TensorFile<'a>,
    path: PathBuf,
    /// Stands before the names of tensors of this file that were not compared.
    folder: String,
    tensors: Vec<TensorCheck>,
    compared: BTreeSet<String>,
    inputs: BTreeSet<String>,
}

impl<'a> ReferenceChecks<'a> {
    pub fn parse(bytes: &'a [u8], path: &Path, folder: &str) -> Result<Self, VerifyError> {
        let file = TensorFile::parse(bytes).map_err(|source| VerifyError::File {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            file,
            path: path.to_owned(),
            folder: folder.to_owned(),
            tensors: Vec::new(),
            compared: BTreeSet::new(),
            inputs: BTreeSet::new(),
        })
    }

    pub fn has(&self, name: &str) -> bool {
        self.file.shape(name).is_some()
    }

    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.file.shape(name)
    }

    /// All names, so that the caller may compare while it goes through them.
    pub fn names(&self) -> Vec<String> {
        self.file.names().map(str::to_owned).collect()
    }

    /// A tensor that others are computed from.
    pub fn input(&mut self, name: &str) -> Result<Tensor, VerifyError> {
        self.inputs.insert(name.to_owned());
        self.read(name)
    }

    pub fn input_integers(&mut self, name: &str) -> Result<Vec<i64>, VerifyError> {
        self.inputs.insert(name.to_owned());
        self.file
            .read_integers(name)
            .map_err(|source| self.unusable(source))
    }

    /// Pixels `[batch, 3, size, size]`.
    pub fn input_pixels(&mut self, name: &str) -> Result<(Tensor, [usize; 4]), VerifyError> {
        let pixels = self.input(name)?;
        match *pixels.shape() {
            [batch, 3, height, width] if batch > 0 => Ok((pixels, [batch, 3, height, width])),
            _ => Err(self.wrong(format!(
                "{name} has the shape {:?}, expected [batch, 3, size, size]",
                pixels.shape()
            ))),
        }
    }

    /// One class for each of `images` images, where the file has labels.
    pub fn input_labels(&mut self, images: usize) -> Result<Option<Vec<usize>>, VerifyError> {
        if !self.has("labels") {
            return Ok(None);
        }
        let labels = self.input_integers("labels")?;
        if labels.len() != images {
            return Err(self.wrong(format!("{images} images, {} labels", labels.len())));
        }
        let labels: Result<Vec<usize>, _> = labels.iter().map(|&l| usize::try_from(l)).collect();
        labels
            .map(Some)
            .map_err(|_| self.wrong("labels has a negative value".into()))
    }

    /// An error in what this file holds.
    pub fn wrong(&self, reason: String) -> VerifyError {
        VerifyError::Content {
            path: self.path.clone(),
            reason,
        }
    }

    /// Compares `computed` of `shape` with the tensor `name`, if the file has it; `label` stands before its name.
    pub fn compare(
        &mut self,
        label: &str,
        name: &str,
        shape: &[usize],
        computed: &[f32],
        tolerance: f32,
    ) -> Result<(), VerifyError> {
        self.compare_where(label, name, shape, computed, |_| true, tolerance)
    }

    /// [`Self::compare`] of the values whose index is `is_certain`; that must be most of them.
    pub fn compare_where(
        &mut self,
        label: &str,
        name: &str,
        shape: &[usize],
        computed: &[f32],
        is_certain: impl Fn(usize) -> bool,
        tolerance: f32,
    ) -> Result<(), VerifyError> {
        if !self.has(name) {
            return Ok(());
        }
        let expected = self.read(name)?;
        let difference = if shape == expected.shape() {
            let pairs = expected.data().iter().zip(computed).enumerate();
            let pairs = pairs.filter(|&(index, _)| is_certain(index));
            let widened =
                |(index, (&e, &c)): (_, (&f32, &f32))| (index, (f64::from(e), f64::from(c)));
            let compared = pairs.clone().count();
            if compared as f64 >= SURE_SHARE * computed.len() as f64 {
                largest_difference(pairs.map(widened))
            } else {
                Deviation::too_few_compared(compared, computed.len())
            }
        } else {
            Deviation::shapes(shape, expected.shape())
        };
        self.record(label, name, difference, tolerance);
        Ok(())
    }

    /// Compares whole numbers, which must be equal.
    pub fn compare_exactly(
        &mut self,
        label: &str,
        name: &str,
        computed: &[u32],
    ) -> Result<(), VerifyError> {
        if !self.has(name) {
            return Ok(());
        }
        let expected = self
            .file
            .read_integers(name)
            .map_err(|source| self.unusable(source))?;
        let difference = if computed.len() == expected.len() {
            let pairs = expected.iter().zip(computed).enumerate();
            largest_difference(pairs.map(|(index, (&e, &c))| (index, (e as f64, f64::from(c)))))
        } else {
            Deviation::shapes(&[computed.len()], &[expected.len()])
        };
        self.record(label, name, difference, 0.0);
        Ok(())
    }

    fn record(&mut self, label: &str, name: &str, difference: Deviation, tolerance: f32) {
        self.compared.insert(name.to_owned());
        let ok = difference.relative <= tolerance;
        self.tensors.push(TensorCheck {
            name: format!("{label}{name}"),
            max_error: difference.relative,
            tolerance,
            ok,
            detail: (!ok).then_some(difference.detail),
        });
    }

    /// A tensor as it stands in the file.
    pub fn read(&self, name: &str) -> Result<Tensor, VerifyError> {
        self.file.read(name).map_err(|source| self.unusable(source))
    }

    fn unusable(&self, source: TensorError) -> VerifyError {
        VerifyError::Tensor {
            path: self.path.clone(),
            source,
        }
    }

    /// Adds this file's share to `verification`.
    pub fn finish(self, verification: &mut Verification) {
        let full = |name: &str| format!("{}{name}", self.folder);
        verification.tensors.extend(self.tensors);
        for name in self.file.names() {
            if self.inputs.contains(name) {
                verification.inputs.push(full(name));
            } else if !self.compared.contains(name) {
                verification.skipped.push(full(name));
            }
        }
    }
}

/// Share of a tensor's values that must be comparable.
const SURE_SHARE: f64 = 0.99;

/// How far apart two tensors are.
struct Deviation {
    relative: f32,
    detail: String,
}

impl Deviation {
    fn shapes(computed: &[usize], expected: &[usize]) -> Self {
        Self {
            relative: f32::INFINITY,
            detail: format!("computed shape {computed:?}, expected {expected:?}"),
        }
    }

    fn too_few_compared(compared: usize, all: usize) -> Self {
        Self {
            relative: f32::INFINITY,
            detail: format!("only {compared} of {all} values are sure enough to compare"),
        }
    }
}

/// Of pairs of an expected and a computed value with their index.
fn largest_difference(pairs: impl Iterator<Item = (usize, (f64, f64))>) -> Deviation {
    let (mut largest, mut worst, mut detail) = (0.0f64, -1.0, String::new());
    for (index, (expected, computed)) in pairs {
        largest = largest.max(expected.abs());
        // Not a number is as wrong as can be.
        let difference = match (expected - computed).abs() {
            difference if difference.is_nan() => f64::INFINITY,
            difference => difference,
        };
        if difference > worst {
            worst = difference;
            detail = format!("value {index} is {computed}, expected {expected}");
        }
    }
    Deviation {
        relative: if worst > 0.0 {
            (worst / largest.max(f64::from(f32::MIN_POSITIVE))) as f32
        } else {
            0.0
        },
        detail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::tensor_file;
    use std::collections::BTreeMap;

    fn compared(expected: Vec<f32>, computed: &[f32]) -> TensorCheck {
        let tensor = Tensor::new([expected.len()], expected).unwrap();
        let tensors = BTreeMap::from([("x".to_owned(), tensor)]);
        let bytes = tensor_file::write(&tensors, &BTreeMap::new()).unwrap();
        let mut checks = ReferenceChecks::parse(&bytes, Path::new("file"), "").unwrap();
        checks
            .compare("a/", "x", &[computed.len()], computed, 1e-2)
            .unwrap();
        checks.tensors.remove(0)
    }

    #[test]
    fn an_error_is_relative_to_the_largest_value_of_the_reference() {
        let check = compared(vec![1.0, -4.0], &[1.02, -4.0]);
        assert!((check.max_error - 0.005).abs() < 1e-6);
        assert!(check.ok && check.detail.is_none());
    }

    #[test]
    fn another_shape_and_values_that_are_not_numbers_are_never_within_tolerance() {
        let check = compared(vec![1.0, 2.0], &[1.0]);
        assert_eq!(
            (check.ok, check.detail.unwrap().as_str()),
            (false, "computed shape [1], expected [2]")
        );
        let check = compared(vec![1.0, 2.0], &[1.0, f32::NAN]);
        assert_eq!(
            (check.ok, check.detail.unwrap().as_str()),
            (false, "value 1 is NaN, expected 2")
        );
        assert!(!compared(vec![0.0], &[1e-30]).ok);
        assert!(compared(vec![0.0], &[0.0]).ok);
    }
}
