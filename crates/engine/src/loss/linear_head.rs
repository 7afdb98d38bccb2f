//! A linear classifier on features: `logits = features·weightᵀ + bias`.

use crate::matrix::{Layout, product};
use crate::operation::{Checks, OperationError};

/// Overwrites `logits` `[rows, classes]` from `features` `[rows, width]`, `weight` `[classes, width]` and, where there is
/// one, `bias` `[classes]`.
///
/// # Errors
/// Zero rows, width or classes, lengths that do not fit, values that are not finite.
pub fn linear_head(
    features: &[f32],
    width: usize,
    weight: &[f32],
    bias: Option<&[f32]>,
    logits: &mut [f32],
) -> Result<(), OperationError> {
    let (rows, classes) = sizes(Checks("linear head"), features, width, weight, bias)?;
    Checks("linear head").length("logits", logits, &[rows, classes])?;
    match bias {
        Some(bias) => logits
            .chunks_exact_mut(classes)
            .for_each(|row| row.copy_from_slice(bias)),
        None => logits.fill(0.0),
    }
    product(
        logits,
        [rows, classes, width],
        (features, Layout::Plain),
        (weight, Layout::Transposed),
    );
    Ok(())
}

/// Where [`linear_head_backward`] puts its gradients; what is absent is not computed. All are overwritten.
#[derive(Debug, Default)]
pub struct LinearHeadGradients<'a> {
    /// `[rows, width]`
    pub dfeatures: Option<&'a mut [f32]>,
    /// `[classes, width]`
    pub dweight: Option<&'a mut [f32]>,
    /// `[classes]`
    pub dbias: Option<&'a mut [f32]>,
}

/// Gradients of [`linear_head`] from `dlogits` `[rows, classes]`.
///
/// # Errors
/// As [`linear_head`].
pub fn linear_head_backward(
    features: &[f32],
    width: usize,
    weight: &[f32],
    dlogits: &[f32],
    gradients: LinearHeadGradients<'_>,
) -> Result<(), OperationError> {
    let checks = Checks("linear head backward");
    let (rows, classes) = sizes(checks, features, width, weight, None)?;
    checks.finite("dlogits", dlogits, &[rows, classes])?;
    let LinearHeadGradients {
        dfeatures,
        dweight,
        dbias,
    } = gradients;
    if let Some(dfeatures) = &dfeatures {
        checks.length("dfeatures", dfeatures, &[rows, width])?;
    }
    if let Some(dweight) = &dweight {
        checks.length("dweight", dweight, &[classes, width])?;
    }
    if let Some(dbias) = &dbias {
        checks.length("dbias", dbias, &[classes])?;
    }
    if let Some(dfeatures) = dfeatures {
        dfeatures.fill(0.0);
        product(
            dfeatures,
            [rows, width, classes],
            (dlogits, Layout::Plain),
            (weight, Layout::Plain),
        );
    }
    if let Some(dweight) = dweight {
        dweight.fill(0.0);
        product(
            dweight,
            [classes, width, rows],
            (dlogits, Layout::Transposed),
            (features, Layout::Plain),
        );
    }
    if let Some(dbias) = dbias {
        for (class, dvalue) in dbias.iter_mut().enumerate() {
            let column = dlogits.iter().skip(class).step_by(classes);
            *dvalue = column.map(|&value| f64::from(value)).sum::<f64>() as f32;
        }
    }
    Ok(())
}

/// Checks the input and gives `(rows, classes)`.
fn sizes(
    checks: Checks,
    features: &[f32],
    width: usize,
    weight: &[f32],
    bias: Option<&[f32]>,
) -> Result<(usize, usize), OperationError> {
    let rows = features.len().checked_div(width).unwrap_or(0);
    let classes = weight.len().checked_div(width).unwrap_or(0);
    checks.finite("features", features, &[rows, width])?;
    checks.finite("weight", weight, &[classes, width])?;
    if let Some(bias) = bias {
        checks.finite("bias", bias, &[classes])?;
    }
    Ok((rows, classes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use test_support::gradient_check::{assert_gradient, assert_near, noise, widen};

    fn plain(features: &[f64], width: usize, weight: &[f64], bias: &[f64]) -> Vec<f64> {
        let logit = |row: &[f64], class: usize| {
            let products = row.iter().zip(&weight[class * width..(class + 1) * width]);
            bias[class] + products.map(|(a, b)| a * b).sum::<f64>()
        };
        let rows = features.chunks(width);
        rows.flat_map(|row| (0..bias.len()).map(move |class| logit(row, class)))
            .collect()
    }

    proptest! {
        #[test]
        fn linear_head_and_its_gradients_equal_the_plain_formula(
            rows in 1usize..7, width in 1usize..20, classes in 1usize..7, seed in 0u64..1000,
        ) {
            let features = noise(seed, rows * width);
            let weight = noise(seed + 1, classes * width);
            let bias = noise(seed + 2, classes);
            let mut logits = vec![f32::NAN; rows * classes];
            linear_head(&features, width, &weight, Some(&bias), &mut logits).unwrap();
            let expected = plain(&widen(&features), width, &widen(&weight), &widen(&bias));
            for (found, expected) in logits.iter().zip(expected) {
                assert_near("logit", *found, expected, 1e-6);
            }

            let dlogits = noise(seed + 3, rows * classes);
            let [mut dfeatures, mut dweight, mut dbias] =
                [rows * width, classes * width, classes].map(|count| vec![f32::NAN; count]);
            let gradients = LinearHeadGradients {
                dfeatures: Some(&mut dfeatures),
                dweight: Some(&mut dweight),
                dbias: Some(&mut dbias),
            };
            linear_head_backward(&features, width, &weight, &dlogits, gradients).unwrap();
            let (wide_features, wide_weight, wide_bias) = (widen(&features), widen(&weight), widen(&bias));
            let weigh = |logits: Vec<f64>| -> f64 {
                logits.iter().zip(&dlogits).map(|(a, &b)| a * f64::from(b)).sum()
            };
            assert_gradient("dfeatures", &features, &dfeatures, |at| {
                weigh(plain(at, width, &wide_weight, &wide_bias))
            });
            assert_gradient("dweight", &weight, &dweight, |at| {
                weigh(plain(&wide_features, width, at, &wide_bias))
            });
            assert_gradient("dbias", &bias, &dbias, |at| {
                weigh(plain(&wide_features, width, &wide_weight, at))
            });
        }
    }

    #[test]
    fn a_weight_of_another_width_is_refused() {
        let error = linear_head(&[0.0; 6], 3, &[0.0; 8], None, &mut [0.0; 4]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "linear head: weight with shape [2, 3]: 8 values where 6 are needed"
        );
    }
}
