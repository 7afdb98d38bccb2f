//! The queue of a device: buffers that grow, launches, copies to the host. What goes wrong in an operation is kept until somebody asks.

use super::Device;
use super::driver::{Geometry, Pinned};
use super::geometry::{by_row, int};
use super::kernels::{
    Arguments, Doubles, DoublesMut, Fill, Indices, IndicesMut, Ints, IntsMut, Kernel, Rows,
    RowsMut, Values, ValuesMut,
};
use super::memory::Buffer;
pub use super::memory::Stored;
use super::product::{Operand, Precision, Product, Repeat};
use super::recording::{Recordings, queue_all};
use super::work::Work;
use crate::backend::{BufferLengths, DeviceError, Matrix, Region, VectorPart};
use std::sync::Arc;

/// A buffer for each region.
struct Buffers {
    /// One a micro-batch that waits for its backward; the first serves all others.
    kept: Vec<Buffer>,
    /// The one in use.
    slot: usize,
    scratch: Buffer,
    gradients: Buffer,
    pixels: Buffer,
    images: Buffer,
}

impl Buffers {
    fn of(&self, region: Region) -> &Buffer {
        match region {
            Region::Kept => &self.kept[self.slot],
            Region::Scratch => &self.scratch,
            Region::Gradients => &self.gradients,
            Region::Pixels => &self.pixels,
            Region::Images => &self.images,
        }
    }
}

impl Buffers {
    /// What tells a copy of a matrix from that of another micro-batch.
    fn place_of(&self, matrix: Matrix) -> (usize, Matrix) {
        let slot = match matrix.region {
            Region::Kept | Region::Scratch | Region::Pixels => self.slot,
            Region::Gradients | Region::Images => 0,
        };
        (slot, matrix)
    }
}

/// A copy to the host.
struct Download {
    /// As [`Buffers::place_of`].
    source: Option<(usize, Matrix)>,
    values: Pinned,
}

/// Operations of a device in order, and the memory that they work on.
pub struct Queue {
    device: Arc<Device>,
    precision: Precision,
    buffers: Buffers,
    /// Sums of columns over parts of the rows.
    sums: Buffer,
    downloads: Vec<Download>,
    /// How many of `downloads` are in use, and whether the host has waited for them.
    downloaded: (usize, bool),
    /// Work that is put off, with the values of its uploads, where it is to become one piece.
    put_off: Option<(Vec<Work>, Vec<f32>)>,
    recordings: Recordings,
    fault: Option<DeviceError>,
}

impl Queue {
    /// Without memory.
    pub fn new(device: &Arc<Device>, precision: Precision) -> Self {
        Self {
            device: device.clone(),
            precision,
            buffers: Buffers {
                kept: vec![Buffer::default()],
                slot: 0,
                scratch: Buffer::default(),
                gradients: Buffer::default(),
                pixels: Buffer::default(),
                images: Buffer::default(),
            },
            sums: Buffer::default(),
            downloads: Vec::new(),
            downloaded: (0, true),
            put_off: None,
            recordings: Recordings::default(),
            fault: None,
        }
    }

    /// How exact products are.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// As [`crate::backend::Backend::enter`].
    pub fn enter(&mut self, slot: usize, lengths: BufferLengths) -> Result<(), DeviceError> {
        self.take_fault()?;
        let (kept, own) = (self.buffers.kept.get(slot), &self.buffers);
        let grows = [
            (kept, lengths.kept),
            (Some(&own.scratch), lengths.scratch),
            (Some(&own.pixels), lengths.pixels),
        ];
        if grows
            .iter()
            .any(|(buffer, length)| buffer.map_or(0, Buffer::length) < *length)
        {
            self.catch_up();
        }
        let (device, own) = (&self.device, &mut self.buffers);
        if own.kept.len() <= slot {
            own.kept.resize_with(slot + 1, Buffer::default);
        }
        own.slot = slot;
        own.kept[slot].reserve(device, lengths.kept)?;
        own.scratch.reserve(device, lengths.scratch)?;
        own.pixels.reserve(device, lengths.pixels)
    }

    /// As [`crate::backend::Backend::clear_gradients`].
    pub fn clear_gradients(&mut self, length: usize) -> Result<(), DeviceError> {
        self.catch_up();
        self.take_fault()?;
        self.buffers.gradients.clear(&self.device, length)
    }

    /// As [`crate::image_backend::ImageBackend::lay_out_images`].
    pub fn lay_out_images(&mut self, length: usize) -> Result<(), DeviceError> {
        self.catch_up();
        self.take_fault()?;
        self.buffers.images.clear(&self.device, length)
    }

    /// As [`crate::backend::Backend::finish`].
    pub fn finish(&mut self) -> Result<(), DeviceError> {
        self.end_piece();
        let waited = self.device.lane.stream.synchronize();
        self.recordings.waited();
        self.downloaded.1 = true;
        self.take_fault()?;
        waited
    }

    /// As [`crate::backend::Backend::begin_piece`].
    pub fn begin_piece(&mut self) {
        self.put_off = Some((Vec::new(), Vec::new()));
    }

    /// As [`crate::backend::Backend::end_piece`].
    pub fn end_piece(&mut self) {
        let Some((work, values)) = self.put_off.take() else {
            return;
        };
        if self.fault.is_none() && !work.is_empty() {
            // SAFETY: as in `catch_up`; a graph names the same memory as the work that it is launched for.
            let done = unsafe { self.recordings.queue(&self.device, work, &values) };
            self.attempt(done);
        }
    }

    /// Queues what is put off, before memory that it names goes.
    fn catch_up(&mut self) {
        let Some((work, values)) = &mut self.put_off else {
            return;
        };
        let (work, values) = (std::mem::take(work), std::mem::take(values));
        if self.fault.is_none() {
            let (device, values) = (&self.device, values.as_ptr());
            // SAFETY: the work was made by `work`, and no memory has gone since.
            let done = unsafe { queue_all(device, &device.lane, &work, values) };
            self.attempt(done);
        }
    }

    /// Queues `work`, or puts it off. Its places in memory have been checked; `values` are those of an upload.
    fn work(&mut self, mut work: Work, values: &[f32]) {
        if self.fault.is_some() {
            return;
        }
        if let Some((all, all_values)) = &mut self.put_off {
            if let Work::Upload { first, .. } = &mut work {
                *first = all_values.len();
            }
            all_values.extend_from_slice(values);
            return all.push(work);
        }
        let device = &self.device;
        // SAFETY: who makes the work has checked its places; values of the host are pageable.
        let done = unsafe { work.queue(&device.kernels, &device.lane, values.as_ptr()) };
        self.attempt(done);
    }

    fn take_fault(&mut self) -> Result<(), DeviceError> {
        self.fault.take().map_or(Ok(()), Err)
    }

    /// Keeps the first error of an operation; those that follow are left out.
    pub fn fail(&mut self, error: DeviceError) {
        self.fault.get_or_insert(error);
    }

    fn attempt(&mut self, done: Result<(), DeviceError>) {
        if let Err(error) = done {
            self.fail(error);
        }
    }

    fn address(&self, matrix: Matrix) -> u64 {
        self.buffers
            .of(matrix.region)
            .address(matrix.start, matrix.extent())
    }

    /// Rows to read.
    pub fn rows(&self, matrix: Matrix) -> Rows {
        Rows(self.address(matrix), int(matrix.stride))
    }

    /// Rows to write.
    pub fn rows_mut(&self, matrix: Matrix) -> RowsMut {
        RowsMut(self.address(matrix), int(matrix.stride))
    }

    fn dense(&self, matrix: Matrix) -> u64 {
        let without_gaps = matrix.stride == matrix.columns || matrix.rows <= 1;
        assert!(without_gaps, "{matrix:?} has gaps");
        self.address(matrix)
    }

    /// Values without gaps to read.
    pub fn values(&self, matrix: Matrix) -> Values {
        Values(self.dense(matrix))
    }

    /// Values without gaps to write.
    pub fn values_mut(&self, matrix: Matrix) -> ValuesMut {
        ValuesMut(self.dense(matrix))
    }

    /// Indices to read, or none.
    pub fn indices(&self, matrix: Option<Matrix>) -> Indices {
        Indices(matrix.map_or(0, |matrix| self.dense(matrix)))
    }

    /// Indices to write.
    pub fn indices_mut(&self, matrix: Matrix) -> IndicesMut {
        IndicesMut(self.dense(matrix))
    }

    /// Whole numbers to read.
    pub fn ints(&self, matrix: Matrix) -> Ints {
        Ints(self.dense(matrix))
    }

    /// Values to add to, `count` without gaps, or none.
    pub fn optional_values_mut(&self, matrix: Option<Matrix>, count: usize) -> ValuesMut {
        let Some(matrix) = matrix else {
            return ValuesMut(0);
        };
        assert_eq!(matrix.rows * matrix.columns, count, "{matrix:?}");
        self.values_mut(matrix)
    }

    fn of_f64(&self, matrix: Matrix) -> u64 {
        let holds = matrix.start.is_multiple_of(2) && matrix.columns.is_multiple_of(2);
        assert!(holds, "{matrix:?} holds no f64");
        self.dense(matrix)
    }

    /// Values of `f64` to read.
    pub fn doubles(&self, matrix: Matrix) -> Doubles {
        Doubles(self.of_f64(matrix))
    }

    /// `count` values of `f64` to write.
    pub fn doubles_mut(&self, matrix: Matrix, count: usize) -> DoublesMut {
        assert_eq!(matrix.rows * matrix.columns, 2 * count, "{matrix:?}");
        DoublesMut(self.of_f64(matrix))
    }

    /// Whole numbers to change.
    pub fn ints_mut(&self, matrix: Matrix) -> IntsMut {
        IntsMut(self.dense(matrix))
    }

    fn stored(&mut self, stored: &Stored, start: usize, length: usize) -> u64 {
        match &stored.memory {
            Ok(memory) => memory.address(start, length),
            Err(error) => {
                self.fail(error.clone());
                0
            }
        }
    }

    /// The first `length` values of a vector.
    pub fn vector(&mut self, vector: &Stored, length: usize) -> Values {
        Values(self.stored(vector, 0, length))
    }

    /// As [`Self::vector`], or none.
    pub fn optional(&mut self, vector: Option<&Stored>, length: usize) -> Values {
        vector.map_or(Values(0), |vector| self.vector(vector, length))
    }

    /// `length` values of a part of a vector.
    pub fn part(&mut self, part: &VectorPart<'_, Stored>, length: usize) -> Values {
        Values(self.stored(part.vector, part.start, length))
    }

    /// Rows of a matrix as an operand.
    pub fn operand(&self, matrix: Matrix, transposed: bool) -> Operand {
        Operand {
            address: self.address(matrix),
            stride: int(matrix.stride.max(matrix.columns)),
            transposed,
        }
    }

    /// Rows of `columns` values that are stored from `start` on, as an operand.
    pub fn stored_operand(
        &mut self,
        stored: &Stored,
        start: usize,
        [rows, columns]: [usize; 2],
        transposed: bool,
    ) -> Operand {
        Operand {
            address: self.stored(stored, start, rows * columns),
            stride: int(columns),
            transposed,
        }
    }

    /// Queues `c = alpha·a·b`, with `add` added to what `c` holds; `inner` is the number of columns of a.
    pub fn product(
        &mut self,
        a: Operand,
        b: Operand,
        inner: usize,
        alpha: f32,
        c: Matrix,
        add: bool,
    ) {
        if inner == 0 {
            if !add {
                self.fill_zero(c);
            }
            return;
        }
        let product = Product {
            sizes: [c.rows, c.columns, inner].map(int),
            alpha,
            a,
            b,
            beta: f32::from(u8::from(add)),
            c: self.address(c),
            c_stride: int(c.stride.max(c.columns)),
            repeat: Repeat::ONCE,
        };
        self.queue_product(product, self.precision);
    }

    /// Queues products `c = a·b` in `f32`; the rows of `c` are those of all results one after another.
    pub fn exact_products(
        &mut self,
        a: Operand,
        b: Operand,
        inner: usize,
        c: Matrix,
        repeat: Repeat,
    ) {
        let product = Product {
            sizes: [c.rows / repeat.count, c.columns, inner].map(int),
            alpha: 1.0,
            a,
            b,
            beta: 0.0,
            c: self.address(c),
            c_stride: int(c.stride),
            repeat,
        };
        self.queue_product(product, Precision::Fp32);
    }

    fn queue_product(&mut self, product: Product, precision: Precision) {
        // `operand` and `stored_operand` have checked the ends of theirs, `address` that of the result.
        if !product.sizes.contains(&0) {
            self.work(Work::Product(product, precision), &[]);
        }
    }

    /// Queues the kernel of these arguments.
    pub fn launch<K: Kernel>(&mut self, geometry: Geometry, kernel: &K) {
        self.launch_variant(0, geometry, kernel);
    }

    /// As [`Self::launch`], for one of several kernels with the same arguments.
    pub fn launch_variant<K: Kernel>(&mut self, variant: usize, geometry: Geometry, kernel: &K) {
        // A device refuses a launch without blocks.
        if geometry.grid.contains(&0) {
            return;
        }
        let mut arguments = Arguments::default();
        kernel.push(&mut arguments);
        // `kernels.rs` compares number and types of the arguments with the sources; pointers come from this queue, which checks
        // their ends, and geometry and sizes are those of the same matrices.
        let launch = Work::Launch {
            kernel: K::NAMES[variant],
            geometry,
            arguments,
        };
        self.work(launch, &[]);
    }

    /// As [`crate::backend::Backend::fill_zero`]; gaps between rows are left as they are.
    pub fn fill_zero(&mut self, target: Matrix) {
        if target.stride != target.columns && target.rows > 1 {
            let kernel = Fill {
                target: self.rows_mut(target),
                columns: int(target.columns),
                value: 0.0,
            };
            return self.launch(by_row(target.rows, target.columns), &kernel);
        }
        let zero = Work::Zero {
            target: self.address(target),
            length: target.extent(),
        };
        self.work(zero, &[]);
    }

    /// As [`crate::backend::Backend::upload`].
    pub fn upload(&mut self, values: &[f32], target: Matrix) {
        assert_eq!(values.len(), target.rows * target.columns);
        let upload = Work::Upload {
            target: self.dense(target),
            first: 0,
            length: values.len(),
        };
        self.work(upload, values);
    }

    /// Address of scratch for `length` values of `f64`, or an error that is kept.
    pub fn sums(&mut self, length: usize) -> Option<u64> {
        if self.sums.length() < 2 * length {
            self.catch_up();
        }
        let reserved = self.sums.reserve(&self.device, 2 * length);
        self.attempt(reserved);
        match self.fault {
            None => Some(self.sums.address(0, 2 * length)),
            Some(_) => None,
        }
    }

    /// As [`crate::backend::Backend::download`]. The gaps between rows are copied too.
    pub fn download(&mut self, source: Matrix) {
        if self.downloaded.1 {
            self.downloaded = (0, false);
        }
        if self.fault.is_some() {
            return;
        }
        let done = self.queue_download(source);
        self.attempt(done);
    }

    fn queue_download(&mut self, source: Matrix) -> Result<(), DeviceError> {
        let (place, length) = (self.downloaded.0, source.extent());
        let roomy = self.downloads.get(place);
        if roomy.is_none_or(|own| own.values.length() < length) {
            self.catch_up();
            let values = Pinned::new(&self.device.context, length)?;
            self.downloads.truncate(place);
            self.downloads.push(Download {
                source: None,
                values,
            });
        }
        let place_of = self.buffers.place_of(source);
        let own = &mut self.downloads[place];
        own.source = Some(place_of);
        let download = Work::Download {
            target: own.values.values_mut().as_mut_ptr().addr(),
            source: self.address(source),
            length,
        };
        self.work(download, &[]);
        self.downloaded.0 += 1;
        Ok(())
    }

    /// The rows of `source` that have been sent.
    ///
    /// # Panics
    /// Where they have not been sent, or the host has not waited for them.
    pub fn sent(&self, source: Matrix) -> impl Iterator<Item = &[f32]> {
        assert!(self.downloaded.1, "read before the queue has finished");
        // Of several copies of one place the newest.
        let mut sent = self.downloads[..self.downloaded.0].iter().rev();
        let Some(own) = sent.find(|own| own.source == Some(self.buffers.place_of(source))) else {
            panic!("{source:?} has not been sent");
        };
        let values = own.values.values();
        (0..source.rows).map(move |row| &values[row * source.stride..][..source.columns])
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // Nothing is freed that is still in use; an error has nobody to hear it.
        let _ = self.device.lane.stream.synchronize();
    }
}
