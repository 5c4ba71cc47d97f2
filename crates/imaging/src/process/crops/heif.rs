//! Crops of HEICs.

use super::*;

/// HEIC with one tile and with several.
#[test]
fn every_crop_of_a_heic_shows_the_stored_pixels() {
    let mut random = fastrand::Rng::with_seed(19);
    let (mut wrong, mut crops) = (Vec::new(), 0);
    for (width, height) in [(201, 143), (600, 330)] {
        let pixels = picture(width, height, 4, &mut random);
        let options = heifer::EncodeOptions {
            quality: 95,
            ..heifer::EncodeOptions::default()
        };
        let (across, down) = (width as u32, height as u32);
        let bytes = heifer::encode_rgb8(across, down, pixels.as_flattened(), &options).unwrap();
        let case = Case {
            name: format!("HEIC {width} × {height}"),
            bytes,
            expected: of_source(width, height, pixels.as_flattened(), false),
            tolerance: 6.0,
            formats: BOTH,
            any_alpha: false,
        };
        wrong.extend(check(&case, 12, &mut random));
        crops += 12;
    }
    assert_none(&wrong, crops);
}
