//! The common part of the fuzz targets: runs one picture through all of imaging.

pub mod webp;

use std::ops::ControlFlow;
use std::time::Duration;

use cameo_imaging::{
    self as imaging, CancelToken, Control, Crop, Format, Limits, Output, Recipe, SourceFormat,
    Target, VariantName, Workspace,
};

/// The largest edge of a fuzzed picture: large enough for every code path, and fast.
const MAX_EDGE_PX: u32 = 400;

/// Processes `data` if it is one of `formats`, and checks the output.
pub fn run(data: &[u8], formats: &[SourceFormat]) {
    // The length selects the recipe, so that changing one byte does not change the recipe.
    let choice = data.len();
    let recipe = Recipe {
        limits: Limits {
            formats: formats.to_vec(),
            min_edge_px: 1,
            max_edge_px: MAX_EDGE_PX,
            max_frames: 20,
        },
        variants: [("full", 96), ("small", 24)]
            .into_iter()
            .filter_map(|(name, edge_px)| {
                let name = VariantName::new(name).ok()?;
                Some(Target { name, edge_px })
            })
            .collect(),
        formats: vec![Format::ALL[choice % 3]],
        webp_quality: 50,
        jpeg_quality: 50,
        background: [255; 3],
        animated: choice % 2 == 0,
        keep_original: choice % 7 == 0,
    };
    let Ok(probe) = imaging::probe(data, &recipe.limits) else {
        return;
    };
    assert!(probe.width.max(probe.height) <= MAX_EDGE_PX);
    let crop = (choice % 5 == 0).then_some(Crop {
        x: probe.width / 3,
        y: probe.height / 4,
        width: probe.width.div_ceil(2),
        height: probe.height.div_ceil(2),
    });
    let control = Control::starting_now(Duration::from_secs(5), CancelToken::new());
    let _ = imaging::process(
        bytes::Bytes::copy_from_slice(data),
        &recipe,
        crop,
        &control,
        &mut Workspace::new(),
        &mut |output| {
            match output {
                Output::Rendition(rendition, _) => assert!(rendition.width <= 96),
                Output::Original(..) => assert!(recipe.keep_original),
            }
            ControlFlow::Continue(())
        },
    );
}
