//! Losses with their gradients, exact over the whole batch, summed in one fixed order.
//! Knows rows, classes and pixels; knows nothing of the network that made them.
//!
//! Each function says whether it overwrites its gradient or adds to it: gradients of small values (logits, scores,
//! features) are overwritten, gradients of pixels are added with a weight, since several priors meet there.

mod classification;
mod lda;
mod leave_one_out;
mod linear_head;
mod pixels;
mod prototype;
mod statistics;
mod token_statistics;

pub use classification::{cross_entropy, distillation, entropy};
pub use lda::{LdaScores, LdaScoring};
pub use leave_one_out::LeaveOneOut;
pub use linear_head::{LinearHeadGradients, linear_head, linear_head_backward};
pub(crate) use pixels::{add_mean_norm, add_total_variation, pairs};
pub use pixels::{mean_norm, total_variation};
pub use prototype::{PrototypeScores, Scoring};
pub use statistics::{Moments, StatisticsTerm};
pub use token_statistics::{
    SiteStatistics, TokenStatistics, TokenStatisticsCollector, TokenStatisticsError,
};
