//! A batch as a file: a table, a list, or its pictures in a folder per class. A page of rows or one picture is in memory at a time.

use super::schema::BatchPicture;
use crate::app::classifiers::SortedFolders;
use crate::app::table::text_cell;
use crate::web::ApiError;
use crate::web::api::files::attachment;
use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use std::io::{self, Write};
use store::{BatchFilter, BatchRecord, BatchRow, ClassifierError, Privacy, Store};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, StreamWriter, ZipWriter};

/// Rows that are read together.
const PAGE: u32 = 500;
/// Pieces of a zip that wait for a slow client.
const PIECES: usize = 8;
/// Bytes of such a piece, about.
const PIECE_BYTES: usize = 256 << 10;
/// Where pictures without a class go.
const NONE_OF_THESE: &str = "none of these";
const HEADER: &str =
    "position,image,class,confidence,second_class,second_confidence,novelty,none_of_these,error\n";

/// What a batch is given as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Download {
    Csv,
    Json,
    Zip,
}

impl Download {
    /// The id and the kind of file of an address that ends in one.
    pub fn of(address: &str) -> Option<(&str, Self)> {
        let (id, extension) = address.rsplit_once('.')?;
        match extension {
            "csv" => Some((id, Self::Csv)),
            "json" => Some((id, Self::Json)),
            "zip" => Some((id, Self::Zip)),
            _ => None,
        }
    }
}

/// The file with all rows of `batch` that pass `filter`.
///
/// # Errors
/// [`ClassifierError::OriginalNotKept`] for a zip of a classifier that keeps no pictures. What fails later breaks the file off.
pub async fn download(
    store: &Store,
    batch: BatchRecord,
    filter: BatchFilter,
    kind: Download,
) -> Result<Response, ApiError> {
    let store = store.clone();
    let (media_type, extension, body) = match kind {
        Download::Csv => (
            "text/csv; charset=utf-8",
            "csv",
            table(store, &batch, filter),
        ),
        Download::Json => ("application/json", "json", list(store, &batch, filter)),
        Download::Zip => {
            if store.classifier(batch.classifier).await?.privacy == Privacy::Features {
                return Err(ClassifierError::OriginalNotKept(batch.name).into());
            }
            ("application/zip", "zip", folders(store, &batch, filter))
        }
    };
    let name = format!("batch-{}.{extension}", batch.id);
    let private = [(header::CACHE_CONTROL, "private, no-store")];
    Ok((attachment(media_type, &name), private, body).into_response())
}

/// The pages of rows, each row as `written` says for its place, between `begin` and `end`.
fn written(
    store: Store,
    batch: &BatchRecord,
    filter: BatchFilter,
    (begin, end): (&'static str, &'static str),
    written: fn(usize, BatchPicture) -> io::Result<String>,
) -> Body {
    let id = batch.id;
    let first = BatchFilter {
        limit: Some(PAGE),
        ..filter
    };
    let begin = (Some(first), 0, begin);
    Body::from_stream(stream::try_unfold(begin, move |(filter, count, begin)| {
        let store = store.clone();
        async move {
            let Some(filter) = filter else {
                return Ok::<_, io::Error>(None);
            };
            let rows = store.batch_rows(id, &filter).await;
            let rows = rows.map_err(io::Error::other)?;
            let next = rows.last().filter(|_| rows.len() == PAGE as usize);
            let next = next.map(|row| BatchFilter {
                after: Some(row.position),
                ..filter
            });
            let mut text = begin.to_owned();
            let read = rows.len();
            for (place, row) in (count..).zip(rows) {
                text += &written(place, row.into())?;
            }
            if next.is_none() {
                text += end;
            }
            Ok(Some((Bytes::from(text), (next, count + read, ""))))
        }
    }))
}

fn table(store: Store, batch: &BatchRecord, filter: BatchFilter) -> Body {
    written(store, batch, filter, (HEADER, ""), |_, row| {
        Ok(table_row(&row))
    })
}

fn table_row(row: &BatchPicture) -> String {
    let number = |value: Option<f32>| value.map_or_else(String::new, |value| value.to_string());
    let (second, second_probability) = row.second().unzip();
    let error = row
        .error
        .as_ref()
        .and_then(|error| error["message"].as_str());
    let cells = [
        row.position.to_string(),
        text_cell(&row.image),
        text_cell(row.label.as_deref().unwrap_or_default()),
        number(row.confidence),
        text_cell(second.unwrap_or_default()),
        number(second_probability),
        number(row.novelty),
        row.rejected.to_string(),
        text_cell(error.unwrap_or_default()),
    ];
    cells.join(",") + "\n"
}

fn list(store: Store, batch: &BatchRecord, filter: BatchFilter) -> Body {
    written(store, batch, filter, ("[", "]\n"), |place, row| {
        let comma = if place > 0 { ",\n" } else { "\n" };
        Ok(format!("{comma}{}", serde_json::to_string(&row)?))
    })
}

/// The pictures in a folder per class, packed on a thread that may wait for the disk and for the client.
fn folders(store: Store, batch: &BatchRecord, filter: BatchFilter) -> Body {
    let (sender, receiver) = mpsc::channel(PIECES);
    let (id, runtime) = (batch.id, Handle::current());
    tokio::task::spawn_blocking(move || {
        let pieces = Pieces {
            sender: sender.clone(),
            piece: Vec::new(),
        };
        if let Err(error) = pack(&store, id, filter, &runtime, pieces) {
            tracing::warn!(%error, "a zip of a batch broke off");
            // A client that has gone needs no reason.
            let _ = sender.blocking_send(Err(error));
        }
    });
    let pieces = stream::unfold(receiver, |mut receiver| async move {
        Some((receiver.recv().await?, receiver))
    });
    Body::from_stream(pieces)
}

fn pack(
    store: &Store,
    batch: uuid::Uuid,
    mut filter: BatchFilter,
    runtime: &Handle,
    pieces: Pieces,
) -> io::Result<()> {
    let mut zip: ZipWriter<StreamWriter<Pieces>> = ZipWriter::new_stream(pieces);
    // Pictures hardly compress.
    let plain = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut names = SortedFolders::default();
    filter.limit = Some(PAGE);
    loop {
        let rows = runtime.block_on(store.batch_rows(batch, &filter));
        let rows = rows.map_err(io::Error::other)?;
        let is_last = rows.len() < PAGE as usize;
        filter.after = rows.last().map(|row| row.position);
        for row in rows.iter().filter(|row| row.original.is_some()) {
            let bytes = runtime.block_on(store.read_batch_picture(row));
            zip.start_file(names.path(folder_of(row), &row.name), plain)?;
            zip.write_all(&bytes.map_err(io::Error::other)?)?;
        }
        if is_last {
            break;
        }
    }
    zip.finish()?.into_inner().flush()
}

fn folder_of(row: &BatchRow) -> &str {
    let best = row.labels.first().filter(|_| !row.rejected);
    best.map_or(NONE_OF_THESE, |best| &best.name)
}

/// Sends what is written on.
struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Pieces {
    fn send(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.piece);
        let sent = self.sender.blocking_send(Ok(piece.into()));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        self.send()
    }
}
