//! Originals of generated pictures. The crops of every decoder and the fixtures check them too.

use ::image::DynamicImage;

use super::tests::{BLUE, GREEN, RED, YELLOW, assert_close, jpeg, recipe, run};
use super::*;
use crate::Original;

fn with_original() -> Recipe {
    Recipe {
        keep_original: true,
        ..recipe()
    }
}

/// The original of a picture, decoded.
fn original(bytes: &[u8], crop: Option<Crop>) -> (Original, DynamicImage) {
    let (_, outputs) = run(bytes, &with_original(), crop).unwrap();
    let Some(Output::Original(original, bytes)) = outputs.first() else {
        panic!("the original comes first")
    };
    let picture = ::image::load_from_memory(bytes).unwrap();
    assert_eq!(
        (picture.width(), picture.height()),
        (original.width, original.height)
    );
    (*original, picture)
}

/// The colours in the middle of the quarters, clockwise from the upper left.
fn quarters_of(picture: &DynamicImage) -> [[u8; 3]; 4] {
    let picture = picture.to_rgb8();
    let (near, far) = (picture.width() / 4, picture.width() * 3 / 4);
    let (upper, lower) = (picture.height() / 4, picture.height() * 3 / 4);
    [(near, upper), (far, upper), (far, lower), (near, lower)]
        .map(|(x, y)| picture.get_pixel(x, y).0)
}

#[test]
fn an_original_is_the_whole_upright_picture_whatever_the_crop_is() {
    let crop = Crop {
        x: 10,
        y: 20,
        width: 100,
        height: 100,
    };
    for crop in [None, Some(crop)] {
        for (orientation, size, colors) in [
            (1, (640, 480), [RED, GREEN, YELLOW, BLUE]),
            (3, (640, 480), [YELLOW, BLUE, RED, GREEN]),
            (6, (480, 640), [BLUE, RED, GREEN, YELLOW]),
            (8, (480, 640), [GREEN, YELLOW, BLUE, RED]),
        ] {
            let (original, picture) = original(&jpeg(640, 480, orientation), crop);
            assert_eq!((original.width, original.height), size);
            assert_eq!(original.format, Format::Jpeg);
            for (found, expected) in quarters_of(&picture).iter().zip(colors) {
                assert_close(found, &expected);
            }
        }
    }
}

#[test]
fn a_large_original_is_shrunk_and_a_small_crop_keeps_its_detail() {
    // At an eighth of the size, the crop would have fewer pixels than the largest variant.
    let crop = Crop {
        x: 2700,
        y: 1100,
        width: 200,
        height: 200,
    };
    let bytes = jpeg(3000, 1500, 1);
    let (_, outputs) = run(&bytes, &with_original(), Some(crop)).unwrap();
    let largest = outputs.iter().find_map(|output| match output {
        Output::Rendition(rendition, bytes) if rendition.width == 200 => Some(bytes),
        _ => None,
    });
    let largest = ::image::load_from_memory(largest.unwrap()).unwrap();
    assert_close(&quarters_of(&largest)[0], &YELLOW);
    let (original, picture) = original(&bytes, Some(crop));
    assert_eq!((original.width, original.height), (2048, 1024));
    for (found, expected) in quarters_of(&picture).iter().zip([RED, GREEN, YELLOW, BLUE]) {
        assert_close(found, &expected);
    }
}

#[test]
fn an_original_keeps_alpha() {
    let mut pixels = ::image::RgbaImage::new(90, 40);
    for (x, _, pixel) in pixels.enumerate_pixels_mut() {
        pixel.0 = [220, 30, 30, if x < 45 { 0 } else { 255 }];
    }
    let mut png = Vec::new();
    let encoder = ::image::codecs::png::PngEncoder::new(&mut png);
    pixels.write_with_encoder(encoder).unwrap();
    let (original, picture) = original(&png, None);
    assert_eq!(original.format, Format::Webp);
    assert_eq!((original.width, original.height), (90, 40));
    let picture = picture.to_rgba8();
    assert_eq!(picture.get_pixel(10, 20).0[3], 0);
    assert_close(&picture.get_pixel(80, 20).0, &[220, 30, 30, 255]);
}

#[test]
fn without_the_setting_no_original_is_made() {
    let (_, outputs) = run(&jpeg(640, 480, 1), &recipe(), None).unwrap();
    let is_rendition = |output: &Output| matches!(output, Output::Rendition(..));
    assert!(outputs.iter().all(is_rendition));
}
