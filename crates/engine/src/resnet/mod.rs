//! A convolutional network that serves as a prior on images: a ResNet in torchvision's layout, in eval mode.
//! Its BatchNorm layers remember mean and variance of the pictures it was trained on; images that reproduce them look
//! like pictures. Knows tensors by torchvision's names; knows nothing of where the file comes from.

mod convolution;
mod pass;
mod prior;
mod weights;

pub(crate) use convolution::{Convolution, PlaneSize};
pub(crate) use pass::ResNetPlan;
pub use prior::BatchNormPrior;
pub(crate) use weights::Unit;
pub use weights::{ResNet, ResNetError};
