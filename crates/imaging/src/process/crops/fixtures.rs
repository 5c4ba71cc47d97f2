//! Crops of the fixtures, which show the same face.

use super::super::fixtures::fixtures;
use super::*;

/// All fixtures show the same face as a JPEG that another library decodes.
#[test]
fn every_crop_of_the_fixtures_shows_the_same_part_of_the_face() {
    let fixtures = fixtures();
    let face = by_zune(&fixtures["samples-444.jpg"], false).unwrap();
    let mut random = fastrand::Rng::with_seed(17);
    let (mut wrong, mut crops) = (Vec::new(), 0);
    for (name, bytes) in &fixtures {
        let other_colors = ["display-p3", "adobe", "coded", "gray", "inks", "one-bit"];
        // Their first frames show only a part of the face.
        let other_parts = ["moving.gif", "moving.png", "moving.webp"];
        if other_colors.iter().any(|other| name.starts_with(other))
            || other_parts.contains(&name.as_str())
        {
            continue;
        }
        let probe = probe(bytes, &recipe().limits).unwrap();
        let (width, height) = (probe.width, probe.height);
        // Pixels that Pillow made transparent are not compared.
        let transparent = ["alpha", "palette", "pages", "gray-alpha", "premultiplied"];
        let any_alpha = transparent.iter().any(|kind| name.starts_with(kind));
        let case = Case {
            name: name.clone(),
            bytes: bytes.clone(),
            expected: face.resize_exact(width, height, FilterType::Lanczos3),
            tolerance: 10.0,
            formats: if any_alpha { ONLY_PNG } else { BOTH },
            any_alpha,
        };
        wrong.extend(check(&case, 8, &mut random));
        crops += 8;
    }
    assert_none(&wrong, crops);
}
