"""Makes the fonts in src/defaults/fonts from Noto Sans.

The program draws initials: one or two graphemes, never running text. So each font keeps only the
glyphs that an initial can need. The script shapes every such grapheme with HarfBuzz and keeps the
glyphs that come out, with the layout rules between them.

`run.sh` beside this file installs the pinned tools and sources, and calls this script. The output
is the same on every machine, byte for byte.
"""

import sys
import zlib
from pathlib import Path

import uharfbuzz as hb
import unicodedata2 as unicodedata  # Unicode's data in a pinned version, whatever Python has
import zopfli.zlib
from fontTools import subset
from fontTools.ttLib import TTFont

# The features that shape a single grapheme. Features that the shaper applies to letters joined
# with others (init, medi, fina) are absent: an initial stands alone.
FEATURES = (
    "ccmp locl mark mkmk nukt akhn rphf rkrf pref blwf abvf half pstf vatu cjct cfar "
    "pres abvs blws psts haln dist abvm blwm isol rlig ljmo vjmo tjmo calt clig liga"
).split()


def chars(*ranges):
    """The assigned characters of some ranges of code points, both ends included."""
    found = []
    for first, last in ranges:
        found += [chr(code) for code in range(first, last + 1) if unicodedata.category(chr(code)) != "Cn"]
    return found


def letters(*ranges):
    """The letters and digits of some ranges, without small and modifier letters."""
    return [char for char in chars(*ranges) if unicodedata.category(char) in ("Lu", "Lt", "Lo", "Nd")]


def marks(*ranges):
    """The combining marks of some ranges."""
    return [char for char in chars(*ranges) if unicodedata.category(char)[0] == "M"]


def alphabet(*ranges, with_marks=()):
    """Each letter alone, and with each of some marks."""
    base = letters(*ranges)
    return base + [char + mark for char in base for mark in marks(*with_marks)]


def latin_greek_cyrillic():
    """The capitals alone, and those of the plain alphabets with each accent in use."""
    base = letters(
        (0x30, 0x39), (0x41, 0x5A), (0xC0, 0x24F), (0x370, 0x3E1), (0x400, 0x52F),
        (0x1E00, 0x1EFF), (0x1F00, 0x1FFF),
    )
    # Greek letters with an iota subscript have it beside them in capitals.
    base = [char for char in base if not 0x1F80 <= ord(char) <= 0x1FAF]
    accents = chars((0x300, 0x30C), (0x30F, 0x315), (0x31B, 0x31B), (0x323, 0x328), (0x32D, 0x332), (0x338, 0x338))
    plain = [char for char in base if char.isascii() or "\u0391" <= char <= "\u042f" or char in "ÆØŊƆƐƎ"]
    stacked = [base + below + above for base in "AEIOUYSTZNLR" for below in "\u0323\u0328\u0331" for above in "\u0300\u0301\u0302\u0304\u0308"]
    return base + [char + accent for char in plain for accent in accents] + stacked


def indic(block, virama=0x4D, nukta=0x3C):
    """The graphemes that can begin a name in a script of the Brahmi family: a vowel, or one or two
    consonants, and a vowel sign or another mark. The blocks of these scripts have the same order."""
    known = set(chars((block, block + 0x7F)))
    pick = lambda *offsets: [chr(block + offset) for offset in offsets if chr(block + offset) in known]
    base = [char for char in sorted(known) if unicodedata.category(char) in ("Lo", "Nd")]
    consonants = pick(*range(0x15, 0x3A))
    dependent = [char for char in sorted(known) if unicodedata.category(char)[0] == "M"]
    dependent = [char for char in dependent if char not in pick(virama, nukta)]
    link = chr(block + virama)
    liquids = pick(0x2F, 0x30, 0x32, 0x35)  # ya, ra, la, va
    stops = pick(0x15, 0x16, 0x24, 0x25, 0x28, 0x2A, 0x2B, 0x2E)  # ka, kha, ta, tha, na, pa, pha, ma
    pairs = [first + link + second for first in consonants for second in liquids]
    pairs += [first + link + second for first in pick(0x36, 0x38) for second in stops]  # sha, sa
    pairs += [link.join(pick(*pair)) for pair in ((0x15, 0x37), (0x1C, 0x1E))]  # kssa, jnya
    pairs += [link.join(pick(0x38, 0x24, 0x30))]  # stra
    dotted = [char + mark for char in consonants for mark in pick(nukta)]
    return [stem + tail for stem in base + dotted + pairs for tail in ["", *dependent]]


def listed(name):
    """The characters of a list beside this file, without its comments."""
    text = (Path(__file__).parent / name).read_text(encoding="utf-8")
    return [char for line in text.splitlines() if not line.startswith("#") for char in line if not char.isspace()]


FACES = {
    "latin": ("NotoSans_500Medium.ttf", latin_greek_cyrillic),
    "armenian": ("noto-sans-armenian-armenian-500-normal.woff2", lambda: alphabet((0x531, 0x58F))),
    "hebrew": ("noto-sans-hebrew-hebrew-500-normal.woff2", lambda: alphabet((0x5D0, 0x5F2), with_marks=((0x5B0, 0x5BC), (0x5C1, 0x5C2)))),
    "arabic": ("noto-sans-arabic-arabic-500-normal.woff2", lambda: alphabet(
        (0x620, 0x64A), (0x660, 0x669), (0x671, 0x6D5), (0x6EE, 0x6FF), (0x750, 0x77F), with_marks=((0x64B, 0x655), (0x670, 0x670)))),
    "thaana": ("noto-sans-thaana-thaana-500-normal.woff2", lambda: alphabet((0x780, 0x7B1), with_marks=((0x7A6, 0x7B0),))),
    "devanagari": ("noto-sans-devanagari-devanagari-500-normal.woff2", lambda: indic(0x900)),
    "bengali": ("noto-sans-bengali-bengali-500-normal.woff2", lambda: indic(0x980)),
    "gurmukhi": ("noto-sans-gurmukhi-gurmukhi-500-normal.woff2", lambda: indic(0xA00)),
    "gujarati": ("noto-sans-gujarati-gujarati-500-normal.woff2", lambda: indic(0xA80)),
    "oriya": ("noto-sans-oriya-oriya-500-normal.woff2", lambda: indic(0xB00)),
    "tamil": ("noto-sans-tamil-tamil-500-normal.woff2", lambda: indic(0xB80)),
    "telugu": ("noto-sans-telugu-telugu-500-normal.woff2", lambda: indic(0xC00)),
    "kannada": ("noto-sans-kannada-kannada-500-normal.woff2", lambda: indic(0xC80)),
    "malayalam": ("noto-sans-malayalam-malayalam-500-normal.woff2", lambda: indic(0xD00)),
    "sinhala": ("noto-sans-sinhala-sinhala-500-normal.woff2", lambda: [
        char + tail for char in chars((0xD85, 0xDC6)) for tail in [""] + chars((0xD82, 0xD83), (0xDCF, 0xDDF))]),
    "thai": ("noto-sans-thai-thai-500-normal.woff2", lambda: letters((0xE01, 0xE2E), (0xE50, 0xE59))),
    "lao": ("noto-sans-lao-lao-500-normal.woff2", lambda: letters((0xE81, 0xEAE), (0xED0, 0xEDF))),
    "myanmar": ("noto-sans-myanmar-myanmar-500-normal.woff2", lambda: letters((0x1000, 0x102A), (0x103F, 0x1049))),
    "georgian": ("noto-sans-georgian-georgian-500-normal.woff2", lambda: [chr(code) for code in range(0x10D0, 0x10FB)]),
    "ethiopic": ("noto-sans-ethiopic-ethiopic-500-normal.woff2", lambda: [char for char in chars((0x1200, 0x135A)) if unicodedata.category(char) == "Lo"]),
    "khmer": ("noto-sans-khmer-khmer-500-normal.woff2", lambda: letters((0x1780, 0x17B3), (0x17E0, 0x17E9))),
    "japanese": ("noto-sans-jp-japanese-500-normal.woff2", lambda: [char for char in chars((0x3041, 0x3094), (0x30A1, 0x30FA)) if unicodedata.category(char) == "Lo"] + listed("han.txt")),
    "chinese": ("noto-sans-sc-chinese-simplified-500-normal.woff2", lambda: listed("han.txt")),
    "korean": ("noto-sans-kr-korean-500-normal.woff2", lambda: listed("hangul.txt")),
}


def glyphs_of(path, texts):
    """The glyphs that some graphemes need, and the characters that the font has of them."""
    face = hb.Face(hb.Blob.from_file_path(str(path)))
    font = hb.Font(face)
    glyphs, known = set(), set()
    for text in texts:
        composed = unicodedata.normalize("NFC", text)
        if not all(font.get_nominal_glyph(ord(char)) for char in composed):
            continue
        buffer = hb.Buffer()
        buffer.add_str(text)
        buffer.guess_segment_properties()
        hb.shape(font, buffer)
        found = {info.codepoint for info in buffer.glyph_infos}
        if 0 in found:
            continue
        glyphs |= found
        known |= {char for char in composed + text if font.get_nominal_glyph(ord(char))}
    return glyphs, known


def make(source, texts, out):
    font = TTFont(source, recalcTimestamp=False)
    plain = out.with_suffix(".tmp")
    font.flavor = None
    font.save(plain)
    glyphs, known = glyphs_of(plain, texts)
    options = subset.Options()
    options.layout_closure = False
    options.layout_features = FEATURES
    options.hinting = False
    options.glyph_names = False
    options.notdef_outline = False
    options.drop_tables += ["name", "post", "OS/2", "STAT", "gasp", "DSIG", "vhea", "vmtx", "VORG", "BASE", "meta", "prep"]
    options.name_IDs = []
    options.legacy_cmap = False
    options.recalc_timestamp = False
    font = TTFont(plain, recalcTimestamp=False)
    subsetter = subset.Subsetter(options)
    subsetter.populate(gids=sorted(glyphs), unicodes=sorted(map(ord, known)))
    subsetter.subset(font)
    font.save(plain)
    data = plain.read_bytes()
    plain.unlink()
    packed = zopfli.zlib.compress(data, numiterations=15)
    assert zlib.decompress(packed) == data
    out.write_bytes(packed)
    return known, len(font.getGlyphOrder()), len(data), len(packed)


def main(sources, target):
    total = 0
    japanese = set()
    for name, (source, texts) in FACES.items():
        # The font for Chinese has the characters that the font for Japanese lacks.
        texts = [text for text in texts() if not (name == "chinese" and text in japanese)]
        known, glyphs, plain, packed = make(sources / source, texts, target / f"{name}.ttf.zz")
        if name == "japanese":
            japanese = known
        total += packed
        print(f"{name:12} {len(known):5} characters {glyphs:5} glyphs {plain:8} bytes, {packed:7} packed", flush=True)
    print(f"{total} bytes in all")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
