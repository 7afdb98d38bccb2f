//! An adapter with its synthetic images, ready to be drawn from: which images are learned from, which tokens enter, and what the
//! layers before the student's first have made of them.

use super::MetaTrainError;
use super::recipe::MetaTrainRecipe;
use crate::kept_tokens::{mirrored, most_attended};
use crate::labelled_images::normalise;
use crate::pool::Pool;
use engine::operation::OperationError;
use engine::session::{Input, Session, Wanted};
use model::adapter::Adapter;
use model::backbone::{Backbone, BackboneConfig};
use model::tensor::Tensor;
use std::collections::BTreeSet;
use std::ops::Range;

/// What meta-training learns from: an adapter, which is the teacher, and its synthetic images.
#[derive(Debug, Clone)]
pub struct Member {
    /// For messages.
    pub label: String,
    /// The teacher, with its head.
    pub adapter: Adapter,
    /// Images of the adapter's classes.
    pub pool: Pool,
}

/// Images that are prepared together.
pub(super) const IMAGES_AT_ONCE: usize = 64;

/// A member with what is drawn from.
pub(super) struct TaskSource {
    pub member: Member,
    /// Patches along a side.
    pub grid: usize,
    /// Tokens of an image that enter.
    pub kept: usize,
    /// `[images, kept]`; `None` where all enter.
    tokens: Option<Vec<u32>>,
    /// Where the pictures stay on the session's device.
    pub kept_at: Option<KeptAt>,
    /// `[images, kept, width]` before the student's first layer, of the images and of their mirror images.
    prefix: Option<[Tensor; 2]>,
}

/// A set of pictures on the device ([`Session::keep_pictures`]), and the place of a source's first one there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeptAt {
    pub set: usize,
    pub first: u32,
}

/// Leaves the pictures of `sources` on the device of `session`, those of one side together, as far as it has room.
pub(super) fn keep_on_device(
    session: &mut Session,
    sources: &mut [TaskSource],
    table: &[[f32; 256]; 3],
) -> Result<(), OperationError> {
    let sides: BTreeSet<usize> = sources.iter().map(TaskSource::side).collect();
    for side in sides {
        let own = sources.iter().filter(|own| own.side() == side);
        let parts: Vec<&[u8]> = own.map(|own| own.pool().images()).collect();
        let Some(set) = session.keep_pictures(&parts, side, table)? else {
            continue;
        };
        let mut first = 0;
        for source in sources.iter_mut().filter(|own| own.side() == side) {
            source.kept_at = Some(KeptAt { set, first });
            first += source.images() as u32;
        }
    }
    Ok(())
}

/// One image as a task takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    pub source: usize,
    pub image: usize,
    pub is_mirrored: bool,
}

impl TaskSource {
    pub fn new(
        member: Member,
        backbone: &Backbone,
        recipe: &MetaTrainRecipe,
    ) -> Result<Self, MetaTrainError> {
        let config = &backbone.config;
        let manifest = member.pool.manifest();
        if manifest.backbone_digest != backbone.digest {
            return Err(MetaTrainError::OtherBackbone {
                label: member.label,
                found: manifest.backbone_digest.clone(),
                expected: backbone.digest.clone(),
            });
        }
        check_adapter(&member, config)?;
        let grid = config
            .grid(manifest.image_size)
            .filter(|&grid| grid == manifest.grid)
            .ok_or_else(|| MetaTrainError::ImageSize {
                label: member.label.clone(),
                found: manifest.image_size,
                patch: config.patch_size,
            })?;
        let patches = grid * grid;
        let (kept, tokens) = match recipe.sparsity.dropped(patches) {
            Some(dropped) => (1 + patches - dropped, None),
            None => {
                let kept = manifest.kept_tokens_per_image;
                let stored = || member.pool.kept_tokens().to_vec();
                (kept, (kept <= patches).then(stored))
            }
        };
        Ok(Self {
            grid,
            kept,
            tokens,
            kept_at: None,
            prefix: None,
            member,
        })
    }

    pub fn pool(&self) -> &Pool {
        &self.member.pool
    }

    pub fn side(&self) -> usize {
        self.pool().manifest().image_size
    }

    pub fn images(&self) -> usize {
        self.pool().labels().len()
    }

    fn patches(&self) -> usize {
        self.grid * self.grid
    }

    /// Whether only some tokens enter.
    fn is_sparse(&self) -> bool {
        self.kept <= self.patches()
    }

    /// `[3, side, side]`
    pub fn levels(&self, image: usize) -> &[u8] {
        let length = 3 * self.side() * self.side();
        &self.pool().images()[image * length..][..length]
    }

    /// Overwrites `target` `[3, side, side]` with image `image`, normalised.
    pub fn read(
        &self,
        image: usize,
        is_mirrored: bool,
        table: &[[f32; 256]; 3],
        target: &mut [f32],
    ) {
        normalise(self.levels(image), table, target);
        if is_mirrored {
            let rows = target.chunks_exact_mut(self.side());
            rows.for_each(<[f32]>::reverse);
        }
    }

    /// The tokens of an image that enter; `None` where all do.
    pub fn tokens(&self, image: usize, is_mirrored: bool) -> Option<Vec<u32>> {
        let own = &self.tokens.as_ref()?[image * self.kept..][..self.kept];
        Some(match is_mirrored {
            true => mirrored(own, self.grid),
            false => own.to_vec(),
        })
    }

    /// `[kept, width]` before the student's first layer, where that has been computed.
    pub fn prefix(&self, image: usize, is_mirrored: bool) -> Option<&[f32]> {
        let prefix = &self.prefix.as_ref()?[usize::from(is_mirrored)];
        let length = prefix.data().len() / self.images();
        Some(&prefix.data()[image * length..][..length])
    }

    /// Prepares the images from `first` on: chooses their tokens by the teacher's attention where `sparsity` says how many, and
    /// computes what the layers before `first_layer` make of them where that layer is given.
    pub fn prepare(
        &mut self,
        session: &mut Session,
        table: &[[f32; 256]; 3],
        first: usize,
        first_layer: Option<usize>,
    ) -> Result<(), OperationError> {
        let end = (first + IMAGES_AT_ONCE).min(self.images());
        let seen = self.pixels(first..end, false, table);
        if self.needs_attention() {
            let wanted = Wanted {
                class_attention: true,
                ..Wanted::default()
            };
            let input = Input {
                adapter: Some(&self.member.adapter),
                ..Input::pixels(&seen)
            };
            let output = session.forward(&input, wanted)?;
            let dropped = 1 + self.patches() - self.kept;
            let mut tokens = Vec::with_capacity((end - first) * self.kept);
            if let Some(attention) = &output.class_attention {
                for row in 0..end - first {
                    tokens.extend(most_attended(attention.row(row), dropped));
                }
            }
            // Images are prepared in their order.
            self.tokens.get_or_insert_default().extend(tokens);
        }
        let Some(layer) = first_layer else {
            return Ok(());
        };
        let turned = self.pixels(first..end, true, table);
        for (is_mirrored, pixels) in [(false, &seen), (true, &turned)] {
            let tokens: Option<Vec<u32>> = (first..end)
                .map(|image| self.tokens(image, is_mirrored))
                .collect::<Option<Vec<_>>>()
                .map(|tokens| tokens.concat());
            let input = Input {
                tokens: tokens.as_deref(),
                ..Input::pixels(pixels)
            };
            let states = session.hidden_states(&input, layer)?;
            let shape = [self.images(), self.kept, session.config().width];
            let prefix = self
                .prefix
                .get_or_insert_with(|| [Tensor::zeros(shape), Tensor::zeros(shape)]);
            let length = self.kept * session.config().width;
            prefix[usize::from(is_mirrored)].data_mut()[first * length..end * length]
                .copy_from_slice(states.data());
        }
        Ok(())
    }

    /// `[images, 3, side, side]`
    fn pixels(&self, images: Range<usize>, is_mirrored: bool, table: &[[f32; 256]; 3]) -> Tensor {
        let side = self.side();
        let mut pixels = Tensor::zeros([images.len(), 3, side, side]);
        let targets = pixels.data_mut().chunks_exact_mut(3 * side * side);
        for (image, target) in images.zip(targets) {
            self.read(image, is_mirrored, table, target);
        }
        pixels
    }

    /// Whether the tokens are still to be chosen.
    fn needs_attention(&self) -> bool {
        let chosen = self.tokens.as_ref().map_or(0, Vec::len);
        self.is_sparse() && chosen < self.images() * self.kept
    }

    /// Whether there is anything to prepare.
    pub fn needs_preparation(&self, first_layer: Option<usize>) -> bool {
        first_layer.is_some() || self.needs_attention()
    }
}

fn check_adapter(member: &Member, config: &BackboneConfig) -> Result<(), MetaTrainError> {
    for (site, pair) in &member.adapter.pairs {
        let fits = site.layer < config.layers
            && (pair.outputs(), pair.inputs()) == site.target.widths(config);
        if !fits {
            return Err(MetaTrainError::OtherShape {
                label: member.label.clone(),
                site: *site,
            });
        }
    }
    Ok(())
}
