//! Statistics of the bare backbone's tokens over generic pictures: what the prior of inversion compares with.

use super::inversion::{moments, site};
use engine::loss::TokenStatisticsCollector;
use engine::operation::OperationError;
use engine::session::{Input, Session, Wanted};
use model::tensor::Tensor;

/// Adds the tokens of `pixels` `[batch, 3, side, side]` at every LayerNorm input of the bare backbone to `collector`.
///
/// # Errors
/// [`OperationError`] for pixels that do not fit the backbone.
pub fn add_pictures(
    session: &mut Session,
    pixels: &Tensor,
    collector: &mut TokenStatisticsCollector,
) -> Result<(), OperationError> {
    let width = session.config().width;
    let wanted = Wanted {
        norm_input_sums: true,
        ..Wanted::default()
    };
    let output = session.forward(&Input::pixels(pixels), wanted)?;
    let sums = output.norm_input_sums.as_deref().unwrap_or_default();
    for (index, &count) in output.norm_input_counts.iter().enumerate() {
        collector.add_moments(&site(index), &moments(sums, count, index, width))?;
    }
    Ok(())
}
