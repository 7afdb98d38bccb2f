//! Where the matrices of a batch are in the images of a queue, and which of them are searched for values that are not finite.

use crate::backend::{Matrix, Region};
use crate::image_backend::{SpectrumOperands, WARP_VALUES};

/// Values to which the start of each matrix is a multiple: a cache line, and an even number for those of `f64`.
const ALIGNMENT: usize = 32;

/// Hands out memory from its start on.
#[derive(Default)]
struct Layout {
    next: usize,
}

impl Layout {
    fn take(&mut self, rows: usize, columns: usize) -> Matrix {
        let start = self.next;
        self.next = (start + rows * columns).next_multiple_of(ALIGNMENT);
        Matrix {
            region: Region::Images,
            start,
            rows,
            columns,
            stride: columns,
        }
    }
}

/// What can be not finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspect {
    Parameters,
    Images,
    Gradient,
    ImageGradient,
    ParameterGradient,
}

impl Suspect {
    /// In the order in which a step comes to them.
    pub const ALL: [Self; 5] = [
        Self::Parameters,
        Self::Images,
        Self::Gradient,
        Self::ImageGradient,
        Self::ParameterGradient,
    ];

    /// Its bit among the flags.
    pub fn bit(self) -> u32 {
        1 << self as u32
    }

    /// The operation that reads it, and what it is to that.
    pub fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Parameters => ("image parameters", "parameters"),
            Self::Images => ("augmentation", "images"),
            Self::Gradient => ("augmentation backward", "daugmented"),
            Self::ImageGradient => ("image parameters backward", "dimages"),
            Self::ParameterGradient => ("Adam", "gradient"),
        }
    }
}

/// The matrices of a batch.
pub struct Places {
    /// `[1, count]`
    pub parameters: Matrix,
    pub dparameters: Matrix,
    pub first: Matrix,
    pub second: Matrix,
    /// `[1, 2]`: of Adam's next step
    pub rates: Matrix,
    /// `[batch, 3·height·width]`; those of pixels are the parameters
    pub images: Matrix,
    pub dimages: Matrix,
    pub augmented: Matrix,
    pub daugmented: Matrix,
    /// `[3, 1]`: of one roll and flip
    pub draw: Matrix,
    /// `[batch, WARP_VALUES]`: of one affine change an image
    pub maps: Matrix,
    /// What a spectrum becomes images with
    pub spectrum: Option<SpectrumOperands>,
    /// Scratch of a BatchNorm prior, one row
    pub batch_norm: Option<Matrix>,
    /// `[1, REPORT]`: flags, then a loss for each prior
    pub report: Matrix,
    /// `[1, 1]`, the first value of the report
    pub flags: Matrix,
    /// `[1, 6]`, all losses of the report
    pub losses: Matrix,
    /// Values of all of them.
    pub length: usize,
}

impl Places {
    /// Values of the report: flags and three losses.
    pub const REPORT: usize = 8;
    /// Places of the losses, each of two values.
    pub const TOTAL_VARIATION: usize = 1;
    pub const MEAN_NORM: usize = 2;
    pub const BATCH_NORM: usize = 3;

    /// For images of this shape with `count` parameters; with as many values of scratch as a spectrum and a BatchNorm prior need.
    pub fn new(
        [batch, channels, height, width]: [usize; 4],
        count: usize,
        spectrum: Option<usize>,
        batch_norm: Option<usize>,
    ) -> Self {
        let mut layout = Layout::default();
        let image = channels * height * width;
        let report = layout.take(1, Self::REPORT);
        let rates = layout.take(1, 2);
        let draw = layout.take(3, 1);
        let maps = layout.take(batch, WARP_VALUES);
        let [images, dimages, augmented, daugmented] = [(); 4].map(|()| layout.take(batch, image));
        let line = |images: Matrix| Matrix {
            rows: 1,
            columns: batch * image,
            stride: batch * image,
            ..images
        };
        let [parameters, dparameters] = match spectrum {
            None => [images, dimages].map(line),
            Some(_) => [(); 2].map(|()| layout.take(1, count)),
        };
        let [first, second] = [(); 2].map(|()| layout.take(1, parameters.columns));
        let spectrum = spectrum.map(|scratch| SpectrumOperands {
            parameters,
            levels: layout.take(batch, image),
            images,
            scratch: layout.take(1, scratch),
        });
        Self {
            parameters,
            dparameters,
            first,
            second,
            rates,
            images,
            dimages,
            augmented,
            daugmented,
            draw,
            maps,
            spectrum,
            batch_norm: batch_norm.map(|scratch| layout.take(1, scratch)),
            report,
            flags: report.columns_from(0, 1),
            losses: report.columns_from(2, Self::REPORT - 2),
            length: layout.next,
        }
    }

    /// `[1, 2]`: the loss at a place of the report
    pub fn loss(&self, place: usize) -> Matrix {
        self.report.columns_from(2 * place, 2)
    }

    /// What a step looks at; matrices that are the same are looked at once.
    pub fn suspects(&self) -> impl Iterator<Item = Suspect> {
        // Pixels are their own images.
        let copies = [Suspect::Images, Suspect::ParameterGradient];
        let all = Suspect::ALL.into_iter();
        all.filter(move |own| self.spectrum.is_some() || !copies.contains(own))
    }

    /// The matrix that may be at fault.
    pub fn of(&self, suspect: Suspect) -> Matrix {
        match suspect {
            Suspect::Parameters => self.parameters,
            Suspect::Images => self.images,
            Suspect::Gradient => self.daugmented,
            Suspect::ImageGradient => self.dimages,
            Suspect::ParameterGradient => self.dparameters,
        }
    }
}
