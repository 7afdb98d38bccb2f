//! Encoded bytes to an upright 8-bit RGB image.

use super::{
    ImageError, ImageFormat, ImageLimits, PICTURES, RgbImage, colour, format, header, needed_bytes,
    png_chunks,
};
use image::error::ImageError as CrateError;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader, Limits};
use std::io::{Cursor, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Decodes the first picture of a file in one of the formats of [`ImageFormat`], turned upright as its metadata asks, with alpha
/// laid over white. The format is told by content.
///
/// # Errors
/// [`ImageError`] says what is wrong with the file.
pub fn decode(bytes: &[u8], limits: &ImageLimits) -> Result<RgbImage, ImageError> {
    let needed = needed_bytes(bytes, limits, None)?;
    let _part = PICTURES.take(needed);
    decode_in_share(bytes, limits)
}

/// As [`decode`], for those who hold what it needs of [`PICTURES`].
pub(super) fn decode_in_share(bytes: &[u8], limits: &ImageLimits) -> Result<RgbImage, ImageError> {
    limits.check_encoded(bytes)?;
    let format = format::identify(bytes)?;
    without_panic(format, || decode_as(format, bytes, limits))
}

/// A panic in a decoder is the file's fault, not a reason to end the process.
fn without_panic<T>(
    format: ImageFormat,
    work: impl FnOnce() -> Result<T, ImageError>,
) -> Result<T, ImageError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(ImageError::DecoderFailed {
            format: format.name(),
        })
    })
}

fn decode_as(
    format: ImageFormat,
    bytes: &[u8],
    limits: &ImageLimits,
) -> Result<RgbImage, ImageError> {
    let refuse = |error| refusal(format, bytes, limits, error);
    let header = header::read(format, bytes)?;
    let pixels = limits.check_pixels(header.width, header.height)?;
    let spare_bytes = limits.check_memory(header.working_bytes + 3 * pixels)?;
    let bytes = match format {
        ImageFormat::Png => png_chunks::without_packed_texts(bytes),
        ImageFormat::Jpeg
        | ImageFormat::WebP
        | ImageFormat::Gif
        | ImageFormat::Bmp
        | ImageFormat::Tiff => bytes.into(),
    };
    let mut reader = ImageReader::with_format(Cursor::new(bytes.as_ref()), format.decoder());
    reader.limits(allocation_limit(spare_bytes));
    let mut decoder = reader.into_decoder().map_err(refuse)?;

    let (width, height) = decoder.dimensions();
    let pixels = limits.check_pixels(width, height)?;
    let colour = decoder.color_type();
    let sample_bytes = decoder.total_bytes();
    let working_bytes = match format {
        // Decoded aside and copied; CMYK has four channels there and three in the copy.
        ImageFormat::Tiff => sample_bytes / 3 * 4,
        ImageFormat::Jpeg
        | ImageFormat::Png
        | ImageFormat::WebP
        | ImageFormat::Gif
        | ImageFormat::Bmp => header.working_bytes,
    };
    let output_bytes = sample_bytes + pixels * colour::conversion_bytes(colour);
    limits.check_memory(output_bytes + working_bytes)?;
    let spare_bytes = limits.check_memory(output_bytes)?;
    decoder
        .set_limits(allocation_limit(spare_bytes))
        .map_err(refuse)?;

    // Unreadable metadata does not make the picture unreadable.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut samples = vec![0; sample_bytes as usize];
    decoder.read_image(&mut samples).map_err(refuse)?;
    let rgb =
        RgbImage::from_raw(width, height, colour::to_rgb(samples, colour)).ok_or_else(|| {
            ImageError::Damaged {
                format: format.name(),
                detail: "fewer samples than pixels".into(),
            }
        })?;
    let mut upright = DynamicImage::ImageRgb8(rgb);
    upright.apply_orientation(orientation);
    Ok(upright.into_rgb8())
}

fn allocation_limit(bytes: u64) -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(bytes);
    limits
}

fn refusal(
    format: ImageFormat,
    bytes: &[u8],
    limits: &ImageLimits,
    error: CrateError,
) -> ImageError {
    // The GIF decoder reports a cut file as a format error; a whole one ends with a trailer.
    let lacks_trailer = format == ImageFormat::Gif && !bytes.ends_with(b";");
    let format = format.name();
    match error {
        CrateError::Limits(_) => ImageError::TooMuchMemory {
            needed_bytes: limits.max_decode_bytes.saturating_add(1),
            limit_bytes: limits.max_decode_bytes,
        },
        CrateError::Unsupported(error) => ImageError::UnsupportedVariant {
            format,
            detail: error.to_string(),
        },
        CrateError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            ImageError::Truncated { format }
        }
        _ if lacks_trailer => ImageError::Truncated { format },
        error => ImageError::Damaged {
            format,
            detail: error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_a_decoder_is_an_error_of_that_file() {
        let result: Result<(), _> = without_panic(ImageFormat::Gif, || panic!("on purpose"));
        assert_eq!(result, Err(ImageError::DecoderFailed { format: "GIF" }));
    }
}
