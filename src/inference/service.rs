//! One thread that owns an encoder, and the queue in front of it: requests of several callers are put together into batches.

use super::encoder::{EncodeError, EncodeRow, Encoded, Encoder, EncoderInfo, Outputs};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;
use tokio::sync::oneshot;

/// Limits of an [`EncoderService`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceLimits {
    /// Most images in one computation.
    pub max_batch: usize,
    /// Most images that wait; more are refused as [`EncodeError::Overloaded`].
    pub max_waiting: usize,
}

impl Default for ServiceLimits {
    fn default() -> Self {
        Self {
            max_batch: 32,
            max_waiting: 16_384,
        }
    }
}

/// An encoder without work gives back the memory of adapters that were deleted.
const TIDY_AFTER: Duration = Duration::from_secs(1);

/// A part of a request: at most a batch of rows, and where its answer goes.
struct Work {
    rows: Vec<EncodeRow>,
    outputs: Outputs,
    reply: oneshot::Sender<Result<Vec<Encoded>, EncodeError>>,
}

impl Work {
    /// Whether both can be computed at once.
    fn goes_with(&self, other: &Self) -> bool {
        let size = |work: &Self| work.rows.first().map(|row| row.pixels.shape().to_vec());
        self.outputs == other.outputs && size(self) == size(other)
    }
}

/// Handle to the encoder's thread; clones share it. The thread ends with the last handle.
#[derive(Clone)]
pub struct EncoderService {
    queue: Sender<Work>,
    waiting: Arc<AtomicUsize>,
    limits: ServiceLimits,
    info: EncoderInfo,
}

impl EncoderService {
    /// Starts the thread and opens the encoder on it.
    ///
    /// # Errors
    /// What `open` says, or [`EncodeError::Engine`] where no thread can be had.
    pub fn start(
        open: impl FnOnce() -> Result<Box<dyn Encoder>, EncodeError> + Send + 'static,
        limits: ServiceLimits,
    ) -> Result<Self, EncodeError> {
        let (queue, works) = channel();
        let (opened, wait_for_opened) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&waiting);
        std::thread::Builder::new()
            .name("encoder".into())
            .spawn(move || match open() {
                Ok(encoder) => {
                    if opened.send(Ok(encoder.info())).is_ok() {
                        serve(encoder, &works, &counter, limits.max_batch);
                    }
                }
                Err(error) => {
                    // The caller has gone if this fails; there is nobody left to tell.
                    let _ = opened.send(Err(error));
                }
            })
            .map_err(|error| EncodeError::Engine(format!("no thread for the encoder: {error}")))?;
        let info = wait_for_opened.recv().map_err(|_| EncodeError::Stopped)??;
        Ok(Self {
            queue,
            waiting,
            limits,
            info,
        })
    }

    /// Which engine computes, and where.
    pub fn info(&self) -> &EncoderInfo {
        &self.info
    }

    /// Images that wait or are being computed.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Encodes `rows`, in order. Dropping the future drops what has not been computed yet.
    ///
    /// # Errors
    /// [`EncodeError::Overloaded`] where too many images wait already, and what [`Encoder::encode`] says.
    pub async fn encode(
        &self,
        rows: Vec<EncodeRow>,
        outputs: Outputs,
    ) -> Result<Vec<Encoded>, EncodeError> {
        let total = rows.len();
        let before = self.waiting.fetch_add(total, Ordering::Relaxed);
        if before > 0 && before + total > self.limits.max_waiting {
            self.waiting.fetch_sub(total, Ordering::Relaxed);
            return Err(EncodeError::Overloaded);
        }
        let mut replies = Vec::new();
        let mut rows = rows.into_iter();
        loop {
            let part: Vec<EncodeRow> = rows.by_ref().take(self.limits.max_batch).collect();
            if part.is_empty() {
                break;
            }
            let (reply, answer) = oneshot::channel();
            let count = part.len();
            let work = Work {
                rows: part,
                outputs,
                reply,
            };
            if self.queue.send(work).is_err() {
                self.waiting
                    .fetch_sub(count + rows.len(), Ordering::Relaxed);
                return Err(EncodeError::Stopped);
            }
            replies.push(answer);
        }
        let mut encoded = Vec::with_capacity(total);
        for answer in replies {
            encoded.extend(answer.await.map_err(|_| EncodeError::Stopped)??);
        }
        Ok(encoded)
    }
}

fn serve(
    mut encoder: Box<dyn Encoder>,
    works: &Receiver<Work>,
    waiting: &AtomicUsize,
    max_batch: usize,
) {
    let mut queue: VecDeque<Work> = VecDeque::new();
    loop {
        if queue.is_empty() {
            match works.recv_timeout(TIDY_AFTER) {
                Ok(work) => queue.push_back(work),
                Err(RecvTimeoutError::Timeout) => {
                    encoder.tidy();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        queue.extend(works.try_iter());
        let batch = take_batch(&mut queue, max_batch);
        answer(encoder.as_mut(), batch, waiting);
    }
}

/// Takes the first work and all that go with it, up to `max_batch` images, keeping the order of the rest.
fn take_batch(queue: &mut VecDeque<Work>, max_batch: usize) -> Vec<Work> {
    let mut batch: Vec<Work> = Vec::new();
    let mut rest = VecDeque::with_capacity(queue.len());
    let mut count = 0;
    for work in queue.drain(..) {
        let fits = match batch.first() {
            None => true,
            Some(first) => first.goes_with(&work) && count + work.rows.len() <= max_batch,
        };
        if fits {
            count += work.rows.len();
            batch.push(work);
        } else {
            rest.push_back(work);
        }
    }
    *queue = rest;
    batch
}

fn answer(encoder: &mut dyn Encoder, batch: Vec<Work>, waiting: &AtomicUsize) {
    let finish = |work: Work, result| {
        waiting.fetch_sub(work.rows.len(), Ordering::Relaxed);
        // The caller may have gone meanwhile.
        let _ = work.reply.send(result);
    };
    let (abandoned, batch): (Vec<Work>, Vec<Work>) =
        batch.into_iter().partition(|work| work.reply.is_closed());
    for work in abandoned {
        finish(work, Err(EncodeError::Stopped));
    }
    let Some(outputs) = batch.first().map(|work| work.outputs) else {
        return;
    };
    if batch.len() > 1 {
        let rows: Vec<EncodeRow> = batch
            .iter()
            .flat_map(|work| work.rows.iter().cloned())
            .collect();
        if let Ok(encoded) = guarded(encoder, &rows, outputs) {
            let mut encoded = encoded.into_iter();
            for work in batch {
                let part = encoded.by_ref().take(work.rows.len()).collect();
                finish(work, Ok(part));
            }
            return;
        }
        // One bad request must not harm the others: each is tried by itself.
    }
    for work in batch {
        let result = guarded(encoder, &work.rows, outputs);
        finish(work, result);
    }
}

/// Encodes, turning a panic into an error so that the thread goes on.
fn guarded(
    encoder: &mut dyn Encoder,
    rows: &[EncodeRow],
    outputs: Outputs,
) -> Result<Vec<Encoded>, EncodeError> {
    catch_unwind(AssertUnwindSafe(|| encoder.encode(rows, outputs)))
        .unwrap_or_else(|_| Err(EncodeError::Engine("the encoder panicked".into())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::tensor::Tensor;

    /// Answers each image with its first value and counts its calls; refuses negative values, panics on infinity.
    struct Echo {
        calls: Arc<AtomicUsize>,
        gate: Option<Receiver<()>>,
    }

    impl Encoder for Echo {
        fn info(&self) -> EncoderInfo {
            EncoderInfo {
                engine: "echo".into(),
                device: "cpu".into(),
                providers: Vec::new(),
                version: "0".into(),
                threads: 1,
            }
        }

        fn encode(&mut self, rows: &[EncodeRow], _: Outputs) -> Result<Vec<Encoded>, EncodeError> {
            if let Some(gate) = self.gate.take() {
                gate.recv().map_err(|_| EncodeError::Stopped)?;
            }
            self.calls.fetch_add(1, Ordering::SeqCst);
            rows.iter()
                .map(|row| {
                    let value = row.pixels.data()[0];
                    assert!(value.is_finite());
                    if value < 0.0 {
                        return Err(EncodeError::BadInput("negative".into()));
                    }
                    Ok(Encoded {
                        feature: vec![value],
                        cls_attention: vec![],
                        last_hidden_state: None,
                    })
                })
                .collect()
        }
    }

    fn row(value: f32, size: usize) -> EncodeRow {
        EncodeRow::bare(Arc::new(
            Tensor::new([3, size, size], vec![value; 3 * size * size]).unwrap(),
        ))
    }

    fn echo(
        gate: Option<Receiver<()>>,
        limits: ServiceLimits,
    ) -> (EncoderService, Arc<AtomicUsize>) {
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&calls);
        let service = EncoderService::start(
            move || {
                Ok(Box::new(Echo {
                    calls: counter,
                    gate,
                }))
            },
            limits,
        )
        .unwrap();
        (service, calls)
    }

    #[tokio::test]
    async fn a_long_request_is_split_into_batches_and_answered_in_order() {
        let limits = ServiceLimits {
            max_batch: 4,
            max_waiting: 100,
        };
        let (service, _) = echo(None, limits);
        let rows = (0..11).map(|value| row(value as f32, 1)).collect();
        let encoded = service.encode(rows, Outputs::default()).await.unwrap();
        let values: Vec<f32> = encoded.iter().map(|encoded| encoded.feature[0]).collect();
        assert_eq!(
            values,
            (0..11).map(|value| value as f32).collect::<Vec<_>>()
        );
        assert_eq!(service.waiting(), 0);
    }

    #[tokio::test]
    async fn waiting_requests_of_one_size_share_a_batch_and_keep_their_own_answers() {
        let (open, gate) = channel();
        let (service, calls) = echo(Some(gate), ServiceLimits::default());
        let requests: Vec<_> = (0..6)
            .map(|value| {
                let service = service.clone();
                let size = 1 + value % 2;
                tokio::spawn(async move {
                    service
                        .encode(vec![row(value as f32, size)], Outputs::default())
                        .await
                })
            })
            .collect();
        while service.waiting() < 6 {
            tokio::task::yield_now().await;
        }
        open.send(()).unwrap();
        for (value, request) in requests.into_iter().enumerate() {
            let encoded = request.await.unwrap().unwrap();
            assert_eq!(encoded[0].feature, [value as f32]);
        }
        // The first request may have been alone; the others need at most one batch a size.
        assert!(calls.load(Ordering::SeqCst) <= 3);
    }

    #[tokio::test]
    async fn one_bad_request_does_not_harm_the_others_of_its_batch() {
        let (open, gate) = channel();
        let (service, _) = echo(Some(gate), ServiceLimits::default());
        let values = [0.0, 1.0, -1.0, f32::INFINITY, 2.0];
        let requests: Vec<_> = values
            .into_iter()
            .map(|value| {
                let service = service.clone();
                tokio::spawn(async move {
                    service
                        .encode(vec![row(value, 1)], Outputs::default())
                        .await
                })
            })
            .collect();
        while service.waiting() < values.len() {
            tokio::task::yield_now().await;
        }
        open.send(()).unwrap();
        for (value, request) in values.into_iter().zip(requests) {
            let result = request.await.unwrap();
            if value == -1.0 {
                assert!(matches!(result, Err(EncodeError::BadInput(_))));
            } else if value.is_infinite() {
                assert!(matches!(result, Err(EncodeError::Engine(_))));
            } else {
                assert_eq!(result.unwrap()[0].feature, [value]);
            }
        }
    }

    #[tokio::test]
    async fn more_waiting_images_than_allowed_are_refused() {
        let (open, gate) = channel();
        let limits = ServiceLimits {
            max_batch: 2,
            max_waiting: 3,
        };
        let (service, _) = echo(Some(gate), limits);
        let first = {
            let service = service.clone();
            tokio::spawn(async move {
                service
                    .encode(vec![row(0.0, 1), row(0.0, 1)], Outputs::default())
                    .await
            })
        };
        while service.waiting() < 2 {
            tokio::task::yield_now().await;
        }
        let refused = service
            .encode(vec![row(1.0, 1), row(1.0, 1)], Outputs::default())
            .await;
        assert!(matches!(refused, Err(EncodeError::Overloaded)));
        open.send(()).unwrap();
        assert_eq!(first.await.unwrap().unwrap().len(), 2);
        assert_eq!(service.waiting(), 0);
    }

    #[tokio::test]
    async fn an_encoder_that_cannot_open_says_why() {
        let result = EncoderService::start(
            || Err(EncodeError::Engine("no library".into())),
            ServiceLimits::default(),
        );
        assert!(matches!(result, Err(EncodeError::Engine(reason)) if reason == "no library"));
    }
}
