//! What a picture may cost in memory, whatever its header promises and its chunks unpack to.

use crate::image_input::{clip_style, read, resize_only, with_sides};
use crate::thread_memory::highest;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder, ImageFormat, RgbImage};
use model::backbone::Resample;
use model::image_input::{ImageLimits, PICTURES, decode, load_pixels, needed_bytes, thumbnail};
use std::io::Cursor;

const MIB: usize = 1 << 20;

fn encoded(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    let picture = RgbImage::new(width, height);
    picture.write_to(&mut file, format).unwrap();
    file.into_inner()
}

#[test]
fn a_picture_of_one_row_and_fifty_million_columns_is_refused_before_a_kernel_is_made() {
    let limits = ImageLimits::default();
    let preprocess = resize_only(Resample::Bicubic, 224, 224);
    for (width, height) in [(50_000_000, 1), (1, 50_000_000), (65_536, 2)] {
        let bytes = with_sides("rgb.png", width, height);
        let (result, taken) = highest(|| load_pixels(&bytes, &limits, &preprocess));
        assert_eq!(result.unwrap_err().code(), "image_side_too_long");
        assert!(taken < MIB, "{taken} bytes");
        let error = thumbnail(&bytes, &limits).unwrap_err();
        assert_eq!(error.code(), "image_side_too_long");
    }
}

#[test]
fn a_colour_profile_and_texts_that_unpack_to_much_are_never_unpacked() {
    let mut bomb = Vec::new();
    let mut encoder = PngEncoder::new(&mut bomb);
    encoder.set_icc_profile(vec![0; 64 * MIB]).unwrap();
    encoder
        .write_image(&[1, 2, 3], 1, 1, ExtendedColorType::Rgb8)
        .unwrap();
    assert!(bomb.len() < MIB, "{} bytes", bomb.len());
    let (picture, taken) = highest(|| decode(&bomb, &ImageLimits::default()));
    assert_eq!(picture.unwrap().as_raw(), &[1, 2, 3]);
    assert!(taken < 4 * MIB, "{taken} bytes");
}

#[test]
fn what_a_header_promises_is_at_least_what_reading_takes() {
    let limits = ImageLimits::default();
    let formats = [
        ImageFormat::Jpeg,
        ImageFormat::Png,
        ImageFormat::Bmp,
        ImageFormat::Tiff,
        ImageFormat::Gif,
        ImageFormat::WebP,
    ];
    let styles = [
        resize_only(Resample::Bicubic, 224, 224),
        resize_only(Resample::Lanczos, 518, 518),
        clip_style(224, 224),
    ];
    for format in formats {
        for (width, height) in [(900, 700), (4000, 40), (40, 4000), (65_535, 3), (3, 5000)] {
            if format == ImageFormat::WebP && width.max(height) > 16_383 {
                continue;
            }
            let bytes = encoded(width, height, format);
            for style in &styles {
                let Ok(promised) = needed_bytes(&bytes, &limits, Some(style)) else {
                    continue;
                };
                let (pixels, taken) = highest(|| load_pixels(&bytes, &limits, style));
                let Ok(pixels) = pixels else { continue };
                // Beside it: the result, and what decoders and the resampler need for lines and blocks of the picture.
                let beside = 4 * pixels.data().len() + 3 * MIB;
                assert!(
                    taken as u64 <= promised + beside as u64,
                    "{format:?} {width} × {height} took {taken}, promised {promised}"
                );
            }
        }
    }
}

#[test]
fn a_picture_gives_its_share_back_however_reading_ends() {
    let limits = ImageLimits::default();
    for bytes in [read("rgb.png"), with_sides("rgb.png", 3000, 3000)] {
        let _ = decode(&bytes, &limits);
    }
    // Other tests hold parts for a moment.
    let whole = PICTURES.take(u64::MAX);
    assert_eq!(PICTURES.free_bytes(), 0);
    drop(whole);
}
