//! Tests of both forms of a default. The names and user ids that give initials are in
//! `initials.rs`, the shapes of letters in `typeface.rs`.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use image::RgbImage;
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg;
use resvg::usvg::roxmltree::Document;

use super::*;

fn subject(text: &str) -> SubjectId {
    SubjectId::new(text).unwrap()
}

fn text(kind: Kind, id: &str, name: Option<&str>) -> String {
    String::from_utf8(svg(kind, &subject(id), name).to_vec()).unwrap()
}

fn picture(kind: Kind, id: &str, name: Option<&str>, edge: RasterEdge, format: Format) -> RgbImage {
    let bytes = raster(kind, &subject(id), name, edge, format).unwrap();
    image::load_from_memory(&bytes).unwrap().to_rgb8()
}

/// Names in many scripts, and none.
const NAMES: [Option<&str>; 9] = [
    Some("Ada Lovelace"),
    Some("Ångström Ötzi"),
    Some("محمد علي"),
    Some("שרה"),
    Some("श्रीनिवास शर्मा"),
    Some("山田 太郎"),
    Some("김민준"),
    Some("བོད"),
    None,
];

#[test]
fn an_svg_is_well_formed_and_has_only_outlines() {
    for (kind, name) in Kind::ALL
        .into_iter()
        .flat_map(|kind| NAMES.map(|name| (kind, name)))
    {
        let svg = text(kind, "ada", name);
        let document = Document::parse(&svg).unwrap();
        let root = document.root_element();
        assert_eq!(root.tag_name().name(), "svg");
        assert_eq!(
            root.tag_name().namespace(),
            Some("http://www.w3.org/2000/svg")
        );
        let children: Vec<_> = root.children().collect();
        assert_eq!(children.len(), 2, "{svg}");
        for child in children {
            assert_eq!(child.tag_name().name(), "path");
            let names: Vec<_> = child
                .attributes()
                .map(|attribute| attribute.name())
                .collect();
            assert_eq!(names, ["fill", "d"]);
            assert_eq!(child.children().count(), 0);
        }
    }
}

#[test]
fn nothing_of_a_name_is_copied_into_the_svg() {
    let hostile = [
        "<script>alert(1)</script>",
        "\"/><image href=x>",
        "&lt; ]]>",
        "'&#60;",
        "\u{0} \u{202e}abc",
        "--><a xlink:href='javascript:1'>",
    ];
    let plain = text(Kind::Initials, "ada", Some("S")).len();
    for name in hostile {
        let svg = text(Kind::Initials, "ada", Some(name));
        Document::parse(&svg).unwrap();
        for forbidden in [
            "script",
            "href",
            "image",
            "text",
            "foreignObject",
            "javascript",
            "&",
            "<a",
        ] {
            assert!(!svg.contains(forbidden), "{forbidden} is in {svg}");
        }
        assert!(svg.len() < plain + 2000, "{svg}");
    }
}

#[test]
fn another_renderer_draws_the_svg_like_the_raster() {
    let edge = RasterEdge::covering(256);
    for (kind, name) in Kind::ALL
        .into_iter()
        .flat_map(|kind| NAMES.map(|name| (kind, name)))
    {
        let tree =
            usvg::Tree::from_str(&text(kind, "ada", name), &usvg::Options::default()).unwrap();
        assert_eq!((tree.size().width(), tree.size().height()), (256.0, 256.0));
        let mut pixmap = Pixmap::new(256, 256).unwrap();
        resvg::render(&tree, Transform::identity(), &mut pixmap.as_mut());
        let ours = picture(kind, "ada", name, edge, Format::Png);
        let pairs = pixmap.pixels().iter().zip(ours.pixels());
        let mut total = 0_u64;
        for (theirs, ours) in pairs {
            assert_eq!(theirs.alpha(), 255);
            let theirs = [theirs.red(), theirs.green(), theirs.blue()];
            let off = theirs
                .iter()
                .zip(ours.0)
                .map(|(one, other)| one.abs_diff(other));
            let worst = off.max().unwrap();
            // They differ in the number of levels at the edge of a shape, and nowhere else.
            assert!(worst < 64, "{kind:?} {name:?}: {worst}");
            total += u64::from(worst);
        }
        assert!(total < 256 * 256 / 4, "{kind:?} {name:?}: {total}");
    }
}

#[test]
fn every_size_and_format_decodes_to_a_square_with_the_ground_in_its_corners() {
    let ground = colors::of(&SubjectHash::of(&subject("ada"))).strong.0;
    for edge in RasterEdge::LADDER {
        for format in Format::ALL {
            let picture = picture(Kind::Initials, "ada", Some("Ada"), edge, format);
            assert_eq!(picture.dimensions(), (edge.px(), edge.px()));
            let tolerance = if format == Format::Jpeg { 6 } else { 0 };
            let last = edge.px() - 1;
            for (x, y) in [(0, 0), (last, 0), (0, last), (last, last)] {
                let corner = picture.get_pixel(x, y).0;
                let off = corner
                    .iter()
                    .zip(ground)
                    .map(|(one, other)| one.abs_diff(other));
                assert!(
                    off.max() <= Some(tolerance),
                    "{edge:?} {format:?} {corner:?} {ground:?}"
                );
            }
            let white = picture
                .pixels()
                .filter(|pixel| pixel.0.iter().all(|level| *level > 200));
            let share = white.count() as f32 / (edge.px() * edge.px()) as f32;
            assert!(
                (0.01..0.3).contains(&share),
                "{edge:?} {format:?}: {share} is white"
            );
        }
    }
}

#[test]
fn the_next_step_of_the_ladder_covers_a_size() {
    let covering = |px| RasterEdge::covering(px).px();
    let sizes = [0, 1, 16, 17, 100, 128, 129, 1023, 1024, 1025, u32::MAX];
    assert_eq!(
        sizes.map(covering),
        [16, 16, 16, 32, 128, 128, 200, 1024, 1024, 1024, 1024]
    );
    assert!(RasterEdge::LADDER.is_sorted());
}

#[test]
fn colour_and_shape_depend_on_the_subject_alone() {
    for kind in [Kind::Identicon, Kind::Silhouette] {
        assert_eq!(
            text(kind, "ada", None),
            text(kind, "ada", Some("Grace Hopper"))
        );
        assert_ne!(text(kind, "ada", None), text(kind, "grace", None));
    }
    let fill = |svg: String| svg.split("fill=\"").nth(1).unwrap()[..7].to_owned();
    let named = fill(text(Kind::Initials, "ada", Some("Grace")));
    assert_eq!(named, fill(text(Kind::Initials, "ada", Some("Linus"))));
    assert_eq!(named, fill(text(Kind::Silhouette, "ada", None)));
}

#[test]
fn without_initials_that_a_font_has_the_default_is_the_silhouette() {
    let silhouette = text(Kind::Silhouette, "42", None);
    for name in [
        None,
        Some("བོད"),
        Some("𝓐𝓭𝓪"),
        Some("🦊🦊"),
        Some(""),
        Some("\u{301}"),
    ] {
        assert_eq!(text(Kind::Initials, "42", name), silhouette, "{name:?}");
    }
    assert_ne!(text(Kind::Initials, "42", Some("4")), silhouette);
}

#[test]
fn an_identicon_is_its_own_mirror_image() {
    for index in 0..50 {
        let id = format!("user-{index}");
        let edge = RasterEdge::covering(128);
        let pixels = picture(Kind::Identicon, &id, None, edge, Format::Png);
        for (x, y, pixel) in pixels.enumerate_pixels() {
            let mirrored = pixels.get_pixel(127 - x, y).0;
            let off = pixel
                .0
                .iter()
                .zip(mirrored)
                .map(|(one, other)| one.abs_diff(other));
            // The rasteriser rounds curves to the left and to the right differently.
            assert!(off.max() < Some(16), "{id} at {x}, {y}");
        }
    }
}

#[test]
fn identicons_of_different_subjects_rarely_match() {
    let all: std::collections::BTreeSet<_> = (0..1000)
        .map(|index| text(Kind::Identicon, &format!("user-{index}"), None))
        .collect();
    assert!(all.len() > 990, "{}", all.len());
}

#[test]
fn a_tag_differs_exactly_when_the_bytes_of_a_subject_do() {
    let ada = subject("ada");
    let of = |kind, name, form| tag(kind, &ada, name, form);
    let svg = of(Kind::Initials, Some("Ada Lovelace"), Form::Svg);
    assert_eq!(svg, of(Kind::Initials, Some("Dr. Ada Lovelace"), Form::Svg));
    assert_eq!(
        of(Kind::Identicon, None, Form::Svg),
        of(Kind::Identicon, Some("Ada"), Form::Svg)
    );
    let mut tags = vec![
        svg,
        of(Kind::Initials, Some("Ada"), Form::Svg),
        of(Kind::Initials, Some("Lovelace"), Form::Svg),
        of(Kind::Identicon, None, Form::Svg),
        of(Kind::Silhouette, None, Form::Svg),
        tag(Kind::Silhouette, &subject("grace"), None, Form::Svg),
    ];
    for edge in RasterEdge::LADDER {
        for format in Format::ALL {
            tags.push(of(Kind::Initials, Some("Ada"), Form::Raster(edge, format)));
        }
    }
    assert!(tags.iter().all(|tag| tag.len() == 32));
    let count = tags.len();
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), count);
}

/// This snapshot changes when the bytes of a default change. In that case, increment [`REVISION`].
#[test]
fn the_bytes_of_a_revision_do_not_change() {
    let mut report = format!("revision {REVISION}\n");
    for (kind, name) in Kind::ALL
        .into_iter()
        .flat_map(|kind| NAMES.map(|name| (kind, name)))
    {
        let hash =
            |bytes: &[u8]| HEXLOWER.encode(&digest::digest(&digest::SHA256, bytes).as_ref()[..8]);
        let ada = subject("ada");
        let _ = write!(
            report,
            "{} {name:?}: svg {}",
            kind.name(),
            hash(&svg(kind, &ada, name))
        );
        for format in Format::ALL {
            let bytes = raster(kind, &ada, name, RasterEdge::covering(64), format).unwrap();
            let _ = write!(report, ", {} {}", format.name(), hash(&bytes));
        }
        report.push('\n');
    }
    insta::assert_snapshot!(report);
}

#[test]
fn svgs_of_samples() {
    let samples = [
        (Kind::Initials, Some("Ada Lovelace")),
        (Kind::Initials, Some("山田 太郎")),
        (Kind::Identicon, None),
        (Kind::Silhouette, None),
    ];
    let svgs = samples.map(|(kind, name)| text(kind, "ada", name));
    insta::assert_snapshot!(svgs.join("\n"));
}

#[test]
fn any_name_and_subject_gives_a_small_svg_quickly() {
    let mut random = fastrand::Rng::with_seed(20_260_131);
    let legal = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._~@:+-|";
    let began = Instant::now();
    let (mut bytes, mut longest) = (0, 0);
    for _ in 0..10_000 {
        let id: String = (0..random.usize(1..=128))
            .map(|_| legal[random.usize(..legal.len())] as char)
            .collect();
        let Ok(subject) = SubjectId::new(id) else {
            continue;
        };
        let length = random.usize(0..=80);
        let name: String = match random.u8(0..4) {
            0 => (0..length)
                .map(|_| random.char('\u{0}'..='\u{10ffff}'))
                .collect(),
            1 => (0..length)
                .map(|_| random.char('\u{0}'..='\u{24f}'))
                .collect(),
            // Scripts with shaping, and many marks.
            2 => (0..length)
                .map(|_| random.char('\u{300}'..='\u{18af}'))
                .collect(),
            _ => {
                let start = 0x900 + 0x80 * random.u32(0..20);
                let end = char::from_u32(start + 0x7f).unwrap();
                let start = char::from_u32(start).unwrap();
                (0..length).map(|_| random.char(start..=end)).collect()
            }
        };
        for kind in Kind::ALL {
            let size = svg(kind, &subject, Some(&name)).len();
            longest = longest.max(size);
            bytes += size;
        }
        assert!(longest < 12 * 1024, "{name:?}");
    }
    assert!(bytes / 30_000 < 2048, "{} bytes on average", bytes / 30_000);
    let limit = Duration::from_mins(1);
    assert!(began.elapsed() < limit, "{:?} for 30,000", began.elapsed());
}

#[test]
fn very_long_names_cost_no_more_than_short_ones() {
    let long = "\u{915}\u{94d}".repeat(100_000);
    let marks = format!("A{}", "\u{301}".repeat(100_000));
    let words = "Ada ".repeat(100_000);
    for name in [long, marks, words] {
        assert!(text(Kind::Initials, "ada", Some(&name)).len() < 4096);
    }
}
