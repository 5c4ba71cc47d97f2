//! GIF that contains more than a picture.

use super::super::tests::{recipe, run};
use super::super::*;

#[test]
fn markup_in_a_comment_does_not_make_a_gif_a_page() {
    let dot = b"GIF89a\x01\0\x01\0\x80\0\0\x80\x80\x80\0\0\0!\xfe\x08<script>\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;";
    let recipe = Recipe {
        limits: Limits {
            min_edge_px: 1,
            ..recipe().limits
        },
        ..recipe()
    };
    let (_, outputs) = run(dot, &recipe, None).unwrap();
    for output in outputs {
        let (Output::Rendition(_, bytes) | Output::Original(_, bytes)) = output;
        assert!(!bytes.windows(6).any(|window| window == b"script"));
    }
}

#[test]
fn an_animation_beyond_its_limits_is_refused() {
    let mut gif = b"GIF89a\x40\0\x40\0\x80\0\0\x80\x80\x80\0\0\0".to_vec();
    for _ in 0..300 {
        gif.extend(b",\0\0\0\0\x40\0\x40\0\0\x02\x02D\x01\0");
    }
    let kept = Recipe {
        animated: true,
        ..recipe()
    };
    assert_eq!(
        probe_for(&gif, &kept, None),
        Err(Error::TooManyFrames {
            frames: 300,
            max_frames: 200
        })
    );
    assert_eq!(probe_for(&gif, &recipe(), None).unwrap().frames, 300);
    let mut gif = b"GIF89a\x00\x10\x00\x10\x80\0\0\x80\x80\x80\0\0\0".to_vec();
    for _ in 0..20 {
        gif.extend(b",\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0");
    }
    assert!(matches!(
        probe_for(&gif, &kept, None),
        Err(Error::TooManyPixels { .. })
    ));
    probe_for(&gif, &recipe(), None).unwrap();
}
