//! Draws a sheet of 200 defaults, the images of users without an avatar.
//!
//!     cargo test --test defaults_sheet -- docs/images/defaults.webp
//!
//! The extension of the file chooses the format: `webp` or `png`.

use std::error::Error;
use std::path::Path;

use cameo::avatar::{Format, SubjectId};
use cameo::defaults::{Kind, RasterEdge, raster};

/// The side of a default on the sheet in pixels.
const EDGE: u32 = 64;

/// The distance from one default to the next in pixels.
const STEP: u32 = 76;

/// The number of defaults in a row.
const COLUMNS: u32 = 20;

/// Names in the scripts that the bundled fonts cover.
const NAMES: [&str; 120] = [
    "Ada Lovelace",
    "Grace Hopper",
    "Alan Turing",
    "William Morris",
    "Jean-Luc Picard",
    "Ülkü Öztürk",
    "Quentin Quist",
    "Isabel Iglesias",
    "Łukasz Żak",
    "Åsa Ångström",
    "Émile Zola",
    "Björk",
    "Tove Jansson",
    "Ludwig van Beethoven",
    "Dr. Rosalind Franklin",
    "Nguyễn Thị Ánh",
    "José Ñandú",
    "Þóra Ðórðar",
    "Čapek",
    "William Wu",
    "Ірина Шевченко",
    "Юрий Гагарин",
    "Анна Ахматова",
    "Фёдор Достоевский",
    "Жанна",
    "Щука Эхо",
    "Ђорђе Њежић",
    "Қасым Ғани",
    "Άννα Ωνάση",
    "Κώστας Παπαδόπουλος",
    "Ξένια Ψαρρού",
    "Θεόδωρος",
    "Հայկ Գրիգորյան",
    "Անի",
    "Լիլիթ Ֆրունզե",
    "გიორგი ბერიძე",
    "ნინო",
    "ქეთევან წერეთელი",
    "דוד לוי",
    "שרה",
    "יוסף כהן",
    "רחל אברהם",
    "محمد علي",
    "فاطمة",
    "ليلى حسن",
    "أحمد",
    "پرویز چمران",
    "ژاله گلستان",
    "عمر ڈار",
    "އަހްމަދު",
    "नरेंद्र मोदी",
    "प्रिया शर्मा",
    "श्रीनिवास",
    "कृष्ण",
    "ज्ञान क्षत्रिय",
    "শেখ হাসিনা",
    "রবীন্দ্রনাথ ঠাকুর",
    "প্রিয়া",
    "ਗੁਰੂ ਨਾਨਕ",
    "ਹਰਪ੍ਰੀਤ",
    "ગાંધી મોહન",
    "હેમા",
    "ସୁଭାଷ ଦାସ",
    "ଅନିତା",
    "தமிழ் செல்வன்",
    "கமலா",
    "ஸ்டாலின்",
    "శ్రీదేవి",
    "రామ కృష్ణ",
    "ಕುವೆಂಪು",
    "ರಾಜ್ ಕುಮಾರ್",
    "മോഹൻ ലാൽ",
    "ശ്രീ",
    "සුනිල් පෙරේරා",
    "ශාන්ති",
    "สมชาย ใจดี",
    "เปรม ติณสูลานนท์",
    "ໄກສອນ ພົມວິຫານ",
    "ສຸກ",
    "အောင်ဆန်း",
    "ခင် မြ",
    "សុខា ចាន់",
    "រតនា",
    "አበበ ቢቂላ",
    "ሰላም",
    "ኃይሌ ገብረሥላሴ",
    "김민준",
    "이서연",
    "박지성",
    "최 수아",
    "황보",
    "뷔",
    "山田 太郎",
    "佐藤 花子",
    "鈴木一郎",
    "渡邊",
    "髙橋",
    "王伟",
    "李娜",
    "刘洋",
    "陳大文",
    "欧阳修",
    "龚",
    "さくら",
    "ひろし",
    "タロウ",
    "ポール",
    "7 of 9",
    "Ada 🦊",
    "straße",
    "ivan@example.com",
    "zoë.xu",
    "J. R. R. Tolkien",
    "Martin Luther King, Jr.",
    "Lovelace, Ada",
    "d'Artagnan",
    "O",
    "Mm",
    "Jj Qq",
    "Ǆ",
];

/// User ids without a name, from which the identicons and the rest are made.
const IDS: [&str; 20] = [
    "ada",
    "grace.hopper",
    "alan_turing",
    "user_42",
    "auth0|5f7c1e",
    "42",
    "tim@example.com",
    "z",
    "k-9",
    "r2d2",
    "linus",
    "margaret",
    "dennis",
    "ken",
    "barbara",
    "edsger",
    "donald",
    "frances",
    "john",
    "radia",
];

fn main() -> Result<(), Box<dyn Error>> {
    let target = std::env::args().nth(1).ok_or("name the file to write")?;
    let format = match Path::new(&target).extension().and_then(|end| end.to_str()) {
        Some("webp") => Format::Webp,
        Some("png") => Format::Png,
        _ => return Err("the name of the file must end in .webp or .png".into()),
    };
    let mut sheet = Vec::new();
    for (index, name) in NAMES.into_iter().enumerate() {
        sheet.push((
            Kind::Initials,
            SubjectId::new(format!("user-{index}"))?,
            Some(name),
        ));
    }
    for id in IDS {
        sheet.push((Kind::Initials, SubjectId::new(id)?, None));
    }
    for index in 0..40 {
        sheet.push((
            Kind::Identicon,
            SubjectId::new(format!("user-{index}"))?,
            None,
        ));
    }
    for index in 0..20 {
        sheet.push((
            Kind::Silhouette,
            SubjectId::new(format!("user-{index}"))?,
            None,
        ));
    }
    let rows = u32::try_from(sheet.len())?.div_ceil(COLUMNS);
    let (width, height) = (COLUMNS * STEP + STEP - EDGE, rows * STEP + STEP - EDGE);
    let mut canvas = vec![255; (width * height * 3) as usize];
    for (index, (kind, subject, name)) in (0..).zip(&sheet) {
        let left = STEP - EDGE + index % COLUMNS * STEP;
        let top = STEP - EDGE + index / COLUMNS * STEP;
        let png = raster(
            *kind,
            subject,
            *name,
            RasterEdge::covering(EDGE),
            Format::Png,
        )?;
        let picture = image::load_from_memory(&png)?.to_rgb8();
        for (x, y, pixel) in picture.enumerate_pixels() {
            let visible = inside(x, y, *kind == Kind::Identicon);
            let at = (((top + y) * width + left + x) * 3) as usize;
            for (value, level) in canvas[at..at + 3].iter_mut().zip(pixel.0) {
                *value = (f32::from(level) * visible + 255.0 * (1.0 - visible)).round() as u8;
            }
        }
    }
    let bytes = cameo_imaging::encode_drawing(width, height, canvas, format)?;
    std::fs::write(target, bytes)?;
    Ok(())
}

/// How much of a pixel is visible, 0 to 1: identicons have round corners, the others are circles, as
/// pages show them.
fn inside(x: u32, y: u32, square: bool) -> f32 {
    let half = EDGE as f32 / 2.0;
    let radius = if square { 12.0 } else { half };
    let from_middle = |at: u32| (at as f32 + 0.5 - half).abs();
    let beyond = |at: u32| (from_middle(at) - (half - radius)).max(0.0);
    (radius + 0.5 - beyond(x).hypot(beyond(y))).clamp(0.0, 1.0)
}
