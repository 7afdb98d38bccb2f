//! The published code's inversion steps (`inversion.…`) through the product's inversion, with the start and the random
//! changes that the reference names.

use super::VerifyError;
use super::checks::ReferenceChecks;
use super::gradients::AT_PIXELS;
use super::published::Published;
use engine::augment::RollFlip;
use engine::operation::OperationError;
use engine::session::{Input, Session, Wanted};
use engine::tolerance;
use model::adapter::Adapter;
use model::backbone::Backbone;
use model::tensor::Tensor;
use recycle::head_pass::HeadPass;
use recycle::inversion::{GivenDraws, Inversion, InversionRecipe, PriorData, PriorWeights};
use recycle::steps::Steps;

const START: &str = "inversion.init";
const CHANGES: &str = "inversion.augment_dy_dx_flip";

impl Published<'_> {
    /// Loss and pixels of each step of the reference.
    ///
    /// Adam divides a gradient by its size: where that is within the gradient's tolerance of zero, size and sign of the step
    /// are as unsure as the gradient. Such pixels are not compared, and take the reference's value for the steps that follow: one
    /// that is off by a part of a step would move the gradients of all others of its image.
    pub(super) fn inversion(
        &self,
        checks: &mut ReferenceChecks<'_>,
        backbone: &Backbone,
        session: &mut Session,
    ) -> Result<(), VerifyError> {
        if !checks.has(START) || !checks.has(CHANGES) {
            return Ok(());
        }
        let start = checks.input(START)?;
        let changes = changes(checks)?;
        let mut inversion = self.start(checks, backbone, &start, &changes)?;
        let label = self.of.label();
        let shape = self.pixels.shape();
        let mut uncertain = vec![false; start.data().len()];
        for (step, &change) in changes.iter().enumerate() {
            let before = inversion.current_pixels()?;
            let dpixels = self.gradient(session, &before, change)?;
            let largest = dpixels.iter().fold(0.0f32, |a, b| a.max(b.abs()));
            for (uncertain, slope) in uncertain.iter_mut().zip(&dpixels) {
                *uncertain |= slope.abs() < tolerance::GRADIENT * largest;
            }
            let report = inversion.step()?;
            let loss = report
                .figures
                .iter()
                .find(|(name, _)| *name == "cross_entropy");
            let name = |part: &str| format!("inversion.step{}.{part}", step + 1);
            if let Some((_, loss)) = loss {
                let loss = *loss as f32;
                checks.compare(&label, &name("loss"), &[1], &[loss], tolerance::LOSS)?;
            }
            let mut pixels = inversion.current_pixels()?.data().to_vec();
            checks.compare_where(
                &label,
                &name("pixels"),
                shape,
                &pixels,
                |index| !uncertain[index],
                tolerance::GRADIENT,
            )?;
            if checks.shape(&name("pixels")) == Some(shape) {
                let reference = checks.read(&name("pixels"))?;
                let values = pixels.iter_mut().zip(reference.data());
                for ((value, reference), _) in
                    values.zip(&uncertain).filter(|(_, uncertain)| **uncertain)
                {
                    *value = *reference;
                }
            }
            inversion = inversion.with_given_draws(given(pixels, &changes))?;
        }
        Ok(())
    }

    /// The published recipe but for the prior, which the reference leaves out.
    fn start(
        &self,
        checks: &ReferenceChecks<'_>,
        backbone: &Backbone,
        start: &Tensor,
        changes: &[RollFlip],
    ) -> Result<Inversion, VerifyError> {
        let classes = self.head.weight.shape()[0];
        let in_turns = self.labels.iter().enumerate();
        let in_turns = in_turns
            .clone()
            .all(|(image, &label)| label == image % classes);
        if !in_turns
            || !self.labels.len().is_multiple_of(classes)
            || start.shape() != self.pixels.shape()
        {
            return Err(checks.wrong(format!(
                "{START} has the shape {:?}; inversion needs that of the pixels, {:?}, and labels that name the {classes} classes in turns",
                start.shape(),
                self.pixels.shape()
            )));
        }
        let recipe = InversionRecipe {
            images_per_class: self.labels.len() / classes,
            image_size: self.pixels.shape().last().copied(),
            priors: PriorWeights::default(),
            ..InversionRecipe::paper()
        };
        let teacher = Adapter {
            head: Some(self.head.clone()),
            ..Adapter::clone(&self.of.adapter)
        };
        let options = self.engine.clone();
        let inversion = Inversion::new(backbone, teacher, PriorData::default(), recipe, options)?;
        Ok(inversion.with_given_draws(given(start.data().to_vec(), changes))?)
    }

    /// Gradient of the changed images' cross-entropy at `pixels`: says which of them are unsure, nothing else.
    fn gradient(
        &self,
        session: &mut Session,
        pixels: &Tensor,
        change: RollFlip,
    ) -> Result<Vec<f32>, OperationError> {
        let mut dpixels = vec![0.0; pixels.data().len()];
        let &[batch, channels, height, width] = pixels.shape() else {
            return Ok(dpixels);
        };
        let shape = [batch, channels, height, width];
        let mut changed = Tensor::zeros(shape);
        change.apply(pixels.data(), shape, changed.data_mut())?;
        let input = Input {
            adapter: Some(&self.of.adapter),
            read: self.head.input,
            ..Input::pixels(&changed)
        };
        let output = session.forward_for(&input, Wanted::default(), AT_PIXELS)?;
        let mut dfeatures = vec![0.0; output.features.data().len()];
        HeadPass::of(self.head).part(
            output.features.data(),
            self.labels,
            self.labels.len(),
            &mut dfeatures,
        )?;
        if let Some(dchanged) = &session.backward(&dfeatures, None)?.pixels {
            change.adjoint(dchanged.data(), shape, &mut dpixels)?;
        }
        Ok(dpixels)
    }
}

fn given(start: Vec<f32>, changes: &[RollFlip]) -> GivenDraws {
    GivenDraws {
        start,
        augmentation: changes.to_vec(),
    }
}

/// Rows of (down, right, flip).
fn changes(checks: &mut ReferenceChecks<'_>) -> Result<Vec<RollFlip>, VerifyError> {
    let values = checks.input_integers(CHANGES)?;
    let changes: Option<Vec<RollFlip>> = values
        .chunks(3)
        .map(|row| {
            let &[down, right, flip] = row else {
                return None;
            };
            Some(RollFlip {
                down: down.try_into().ok()?,
                right: right.try_into().ok()?,
                flip: flip != 0,
            })
        })
        .collect();
    changes.ok_or_else(|| checks.wrong(format!("{CHANGES} needs rows of down, right and flip")))
}
