//! Heads: what reads features. From the features of labelled examples a head is fitted, which scores the features of other images.
//! A head measures squared distances to the mean of each class in a metric; heads differ in where the metric comes from.
//! Knows features and class numbers; knows no images but in [`copies`], no backbone and no adapter.

mod calibration;
mod choice;
pub mod copies;
mod fit;
mod metric;
mod settings;

pub use calibration::{Calibration, LeftOut, NoveltyScale, Squares, leave_out, temperature};
pub use choice::HeadChoice;
pub use fit::{FittedHead, HeadError, LabelledFeature, nearest_classes, with_copies};
pub use metric::{Metric, Shrinkage};
pub use settings::{HeadKind, HeadSettings, USUAL_SHRINKAGE};

#[cfg(test)]
mod tests;
