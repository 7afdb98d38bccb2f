//! Losses of logits: cross-entropy against labels, Kullback-Leibler divergence against a teacher, entropy without either.

use crate::operation::{Checks, OperationError};

/// Mean cross-entropy of `logits` `[rows, classes]` against one label per row.
/// Overwrites `dlogits` `[rows, classes]`.
///
/// # Errors
/// Zero rows or classes, lengths that do not fit, a label past the classes, logits that are not finite.
pub fn cross_entropy(
    logits: &[f32],
    labels: &[usize],
    classes: usize,
    dlogits: Option<&mut [f32]>,
) -> Result<f32, OperationError> {
    let checks = Checks("cross-entropy");
    let rows = labels.len();
    let shape = [rows, classes];
    checks.finite("logits", logits, &shape)?;
    checks.labels(labels, rows, classes)?;
    if let Some(dlogits) = &dlogits {
        checks.length("dlogits", dlogits, &shape)?;
    }
    let mut loss = 0.0;
    for (row, &label) in logits.chunks_exact(classes).zip(labels) {
        loss += log_sum_exp(row, 1.0) - f64::from(row[label]);
    }
    if let Some(dlogits) = dlogits {
        let share = 1.0 / rows as f64;
        let drows = dlogits.chunks_exact_mut(classes);
        for ((row, drow), &label) in logits.chunks_exact(classes).zip(drows).zip(labels) {
            let normaliser = log_sum_exp(row, 1.0);
            for (class, (value, dvalue)) in row.iter().zip(drow).enumerate() {
                let target = if class == label { 1.0 } else { 0.0 };
                *dvalue = (((f64::from(*value) - normaliser).exp() - target) * share) as f32;
            }
        }
    }
    Ok((loss / rows as f64) as f32)
}

/// KL(softmax(teacher / temperature) ‖ softmax(student / temperature)), mean over rows; both are `[rows, classes]`.
/// Not multiplied by the squared temperature. Overwrites `dstudent` `[rows, classes]`; the teacher is a constant.
///
/// # Errors
/// Zero rows or classes, lengths that do not fit, values that are not finite, a temperature that is not above zero.
pub fn distillation(
    teacher: &[f32],
    student: &[f32],
    classes: usize,
    temperature: f32,
    dstudent: Option<&mut [f32]>,
) -> Result<f32, OperationError> {
    let checks = Checks("distillation");
    let rows = student.len().checked_div(classes).unwrap_or(0);
    let shape = [rows, classes];
    checks.positive("the temperature", temperature)?;
    checks.finite("student", student, &shape)?;
    checks.finite("teacher", teacher, &shape)?;
    if let Some(dstudent) = &dstudent {
        checks.length("dstudent", dstudent, &shape)?;
    }
    let temperature = f64::from(temperature);
    let rows_of = |values| <[f32]>::chunks_exact(values, classes);
    let mut loss = 0.0;
    for (teacher, student) in rows_of(teacher).zip(rows_of(student)) {
        let teacher_normaliser = log_sum_exp(teacher, temperature);
        let student_normaliser = log_sum_exp(student, temperature);
        for (t, s) in teacher.iter().zip(student) {
            let log_t = f64::from(*t) / temperature - teacher_normaliser;
            let log_s = f64::from(*s) / temperature - student_normaliser;
            loss += log_t.exp() * (log_t - log_s);
        }
    }
    if let Some(dstudent) = dstudent {
        let share = 1.0 / (rows as f64 * temperature);
        let drows = dstudent.chunks_exact_mut(classes);
        for ((teacher, student), drow) in rows_of(teacher).zip(rows_of(student)).zip(drows) {
            let teacher_normaliser = log_sum_exp(teacher, temperature);
            let student_normaliser = log_sum_exp(student, temperature);
            for ((t, s), dvalue) in teacher.iter().zip(student).zip(drow) {
                let probability_t = (f64::from(*t) / temperature - teacher_normaliser).exp();
                let probability_s = (f64::from(*s) / temperature - student_normaliser).exp();
                *dvalue = ((probability_s - probability_t) * share) as f32;
            }
        }
    }
    Ok((loss / rows as f64) as f32)
}

/// Entropy `H = −Σ_j p_j·ln p_j` of `p = softmax(logits)`, mean over rows; `logits` is `[rows, classes]`.
/// Overwrites `dlogits` `[rows, classes]` with `∂H/∂z_j = −p_j·(ln p_j + H)`, divided by the number of rows.
///
/// # Errors
/// Zero rows or classes, lengths that do not fit, logits that are not finite.
pub fn entropy(
    logits: &[f32],
    classes: usize,
    dlogits: Option<&mut [f32]>,
) -> Result<f32, OperationError> {
    let checks = Checks("entropy");
    let rows = logits.len().checked_div(classes).unwrap_or(0);
    let shape = [rows, classes];
    checks.finite("logits", logits, &shape)?;
    if let Some(dlogits) = &dlogits {
        checks.length("dlogits", dlogits, &shape)?;
    }
    let of_row = |row: &[f32]| {
        let normaliser = log_sum_exp(row, 1.0);
        let terms = row.iter().map(|value| {
            let log = f64::from(*value) - normaliser;
            log.exp() * log
        });
        (normaliser, -terms.sum::<f64>())
    };
    let loss: f64 = logits.chunks_exact(classes).map(|row| of_row(row).1).sum();
    if let Some(dlogits) = dlogits {
        let drows = dlogits.chunks_exact_mut(classes);
        for (row, drow) in logits.chunks_exact(classes).zip(drows) {
            let (normaliser, entropy) = of_row(row);
            for (value, dvalue) in row.iter().zip(drow) {
                let log = f64::from(*value) - normaliser;
                *dvalue = (-log.exp() * (log + entropy) / rows as f64) as f32;
            }
        }
    }
    Ok((loss / rows as f64) as f32)
}

/// `ln Σ exp(row / temperature)`, shifted by the largest value so that nothing overflows.
fn log_sum_exp(row: &[f32], temperature: f64) -> f64 {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row
        .iter()
        .map(|&value| ((f64::from(value) - f64::from(largest)) / temperature).exp())
        .sum();
    f64::from(largest) / temperature + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use test_support::gradient_check::{assert_gradient, assert_near, noise};

    fn softmax(row: &[f64]) -> Vec<f64> {
        let sum: f64 = row.iter().map(|v| v.exp()).sum();
        row.iter().map(|v| v.exp() / sum).collect()
    }

    fn plain_cross_entropy(logits: &[f64], labels: &[usize], classes: usize) -> f64 {
        let rows = logits.chunks(classes).zip(labels);
        rows.map(|(row, &label)| -softmax(row)[label].ln())
            .sum::<f64>()
            / labels.len() as f64
    }

    fn plain_distillation(teacher: &[f64], student: &[f64], classes: usize, t: f64) -> f64 {
        let cool = |row: &[f64]| softmax(&row.iter().map(|v| v / t).collect::<Vec<_>>());
        let pairs = teacher.chunks(classes).zip(student.chunks(classes));
        let terms = pairs.flat_map(|(a, b)| {
            let (p, q) = (cool(a), cool(b));
            p.into_iter()
                .zip(q)
                .map(|(p, q)| p * (p / q).ln())
                .collect::<Vec<_>>()
        });
        terms.sum::<f64>() / (student.len() / classes) as f64
    }

    fn plain_entropy(logits: &[f64], classes: usize) -> f64 {
        let rows = logits.chunks(classes);
        let terms = rows.flat_map(|row| softmax(row).into_iter().map(|p| -p * p.ln()));
        terms.sum::<f64>() / (logits.len() / classes) as f64
    }

    proptest! {
        #[test]
        fn entropy_and_its_gradient_equal_the_plain_formula(
            rows in 1usize..6, classes in 1usize..8, seed in 0u64..1000,
        ) {
            let logits: Vec<f32> = noise(seed, rows * classes).iter().map(|v| v * 5.0).collect();
            let mut dlogits = vec![f32::NAN; logits.len()];
            let loss = entropy(&logits, classes, Some(&mut dlogits)).unwrap();
            let forward = |at: &[f64]| plain_entropy(at, classes);
            assert_near("loss", loss, forward(&test_support::gradient_check::widen(&logits)), 1e-6);
            assert_gradient("dlogits", &logits, &dlogits, forward);
        }

        #[test]
        fn cross_entropy_and_its_gradient_equal_the_plain_formula(
            rows in 1usize..6, classes in 1usize..8, seed in 0u64..1000,
        ) {
            let logits: Vec<f32> = noise(seed, rows * classes).iter().map(|v| v * 5.0).collect();
            let labels: Vec<usize> = (0..rows).map(|row| (row * 3 + seed as usize) % classes).collect();
            let mut dlogits = vec![f32::NAN; logits.len()];
            let loss = cross_entropy(&logits, &labels, classes, Some(&mut dlogits)).unwrap();
            let forward = |at: &[f64]| plain_cross_entropy(at, &labels, classes);
            assert_near("loss", loss, forward(&test_support::gradient_check::widen(&logits)), 1e-6);
            assert_gradient("dlogits", &logits, &dlogits, forward);
        }

        #[test]
        fn distillation_and_its_gradient_equal_the_plain_formula(
            rows in 1usize..6, classes in 1usize..8, seed in 0u64..1000, temperature in 0.3f32..5.0,
        ) {
            let teacher: Vec<f32> = noise(seed, rows * classes).iter().map(|v| v * 5.0).collect();
            let student: Vec<f32> = noise(seed + 7, rows * classes).iter().map(|v| v * 5.0).collect();
            let mut dstudent = vec![f32::NAN; student.len()];
            let loss = distillation(&teacher, &student, classes, temperature, Some(&mut dstudent)).unwrap();
            let wide = test_support::gradient_check::widen(&teacher);
            let forward = |at: &[f64]| plain_distillation(&wide, at, classes, f64::from(temperature));
            assert_near("loss", loss, forward(&test_support::gradient_check::widen(&student)), 1e-6);
            assert_gradient("dstudent", &student, &dstudent, forward);
        }
    }

    #[test]
    fn logits_of_a_thousand_neither_overflow_nor_vanish() {
        let mut dlogits = [0.0; 2];
        let loss = cross_entropy(&[1000.0, -1000.0], &[1], 2, Some(&mut dlogits)).unwrap();
        assert_eq!((loss, dlogits), (2000.0, [1.0, -1.0]));
        let loss = entropy(&[1000.0, -1000.0], 2, Some(&mut dlogits)).unwrap();
        assert_eq!((loss, dlogits), (0.0, [0.0, 0.0]));
    }

    #[test]
    fn an_even_choice_has_the_largest_entropy_and_no_slope() {
        let mut dlogits = [f32::NAN; 4];
        let loss = entropy(&[3.0; 4], 4, Some(&mut dlogits)).unwrap();
        assert!((loss - 4f32.ln()).abs() < 1e-6, "{loss}");
        assert!(
            dlogits.iter().all(|value| value.abs() < 1e-7),
            "{dlogits:?}"
        );
    }

    #[test]
    fn a_batch_of_zero_a_wrong_label_and_nan_are_refused_by_name() {
        let message = |result: Result<f32, OperationError>| result.unwrap_err().to_string();
        assert_eq!(
            message(cross_entropy(&[], &[], 3, None)),
            "cross-entropy: logits has shape [0, 3]; no axis may be zero"
        );
        assert_eq!(
            message(cross_entropy(&[0.0; 3], &[3], 3, None)),
            "cross-entropy: label 0 is 3, but there are 3 classes, counted from 0"
        );
        assert_eq!(
            message(cross_entropy(&[0.0, f32::NAN], &[0], 2, None)),
            "cross-entropy: value 1 of logits, shape [1, 2], is NaN; all values must be finite numbers"
        );
        assert_eq!(
            message(entropy(&[0.0; 4], 2, Some(&mut [0.0; 3]))),
            "entropy: dlogits with shape [2, 2]: 3 values where 4 are needed"
        );
        assert_eq!(
            message(entropy(&[f32::INFINITY], 1, None)),
            "entropy: value 0 of logits, shape [1, 1], is inf; all values must be finite numbers"
        );
        assert_eq!(
            message(distillation(&[0.0; 4], &[0.0; 6], 2, 1.0, None)),
            "distillation: teacher with shape [3, 2]: 4 values where 6 are needed"
        );
        assert_eq!(
            message(distillation(&[0.0; 2], &[0.0; 2], 2, 0.0, None)),
            "distillation: the temperature is 0; it must be a finite number above zero"
        );
    }
}
