//! Where the matrices of a batch are in the images of a queue, and which of them are searched for values that are not finite.

use crate::backend::{Matrix, Region};

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
    Gradient,
    ImageGradient,
    ParameterGradient,
}

impl Suspect {
    /// In the order in which a step comes to them.
    pub const ALL: [Self; 4] = [
        Self::Parameters,
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
    /// `[1, REPORT]`: flags, then a loss for each prior
    pub report: Matrix,
    /// `[1, 1]`, the first value of the report
    pub flags: Matrix,
    /// Values of all of them.
    pub length: usize,
}

impl Places {
    /// Values of the report: flags and three losses.
    pub const REPORT: usize = 8;

    pub fn new([batch, channels, height, width]: [usize; 4]) -> Self {
        let mut layout = Layout::default();
        let image = channels * height * width;
        let report = layout.take(1, Self::REPORT);
        let rates = layout.take(1, 2);
        let draw = layout.take(3, 1);
        let [images, dimages, augmented, daugmented] = [(); 4].map(|()| layout.take(batch, image));
        let line = |images: Matrix| Matrix {
            rows: 1,
            columns: batch * image,
            stride: batch * image,
            ..images
        };
        let [first, second] = [(); 2].map(|()| layout.take(1, batch * image));
        Self {
            parameters: line(images),
            dparameters: line(dimages),
            first,
            second,
            rates,
            images,
            dimages,
            augmented,
            daugmented,
            draw,
            report,
            flags: report.columns_from(0, 1),
            length: layout.next,
        }
    }

    /// What a step looks at; matrices that are the same are looked at once.
    pub fn suspects(&self) -> impl Iterator<Item = Suspect> {
        let same = self.dimages.start == self.dparameters.start;
        let all = Suspect::ALL.into_iter();
        all.filter(move |own| !(same && *own == Suspect::ParameterGradient))
    }

    /// The matrix that may be at fault.
    pub fn of(&self, suspect: Suspect) -> Matrix {
        match suspect {
            Suspect::Parameters => self.parameters,
            Suspect::Gradient => self.daugmented,
            Suspect::ImageGradient => self.dimages,
            Suspect::ParameterGradient => self.dparameters,
        }
    }
}
