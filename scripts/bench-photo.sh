#!/usr/bin/env bash
# Makes the photo that the benchmarks upload: 12 megapixels, as a phone writes it.
#
#     scripts/bench-photo.sh [PHOTO]
#
# The result is target/bench/phone-12mp.jpg: 4032 x 3024 px, baseline 4:2:0,
# stored on its side with EXIF orientation 6, a camera's name and a GPS position,
# about 2.6 MB. The script makes it once; remove it to make it again.
#
# Without PHOTO the source is a picture from the Debian package
# lomiri-wallpapers-16.04: Dragonfly, copyright 2018 "Bolly", CC BY-SA 4.0. The
# package is downloaded, not installed. Neither it nor the result is part of
# Cameo. PHOTO names another photo of at least 12 megapixels, on any system.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

result=target/bench/phone-12mp.jpg
package=lomiri-wallpapers-16.04
source=usr/share/backgrounds/Dragonfly_by_Bolly.jpg
venv=.tools/pillow-13.0.0

fail() {
    echo "bench-photo: $*" >&2
    exit 1
}

if [[ $# -eq 0 && -s $result ]]; then
    echo "bench-photo: $result exists already"
    exit 0
fi

scripts/need.sh python3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [[ $# -gt 0 ]]; then
    photo=$1
    [[ -r $photo ]] || fail "cannot read $photo"
else
    photo=$work/$source
    command -v apt-get >/dev/null \
        || fail "the source photo is in a Debian package; on another system name a photo: scripts/bench-photo.sh PHOTO"
    echo "bench-photo: downloading $package (16 MB)"
    chmod 755 "$work" # apt downloads as another user
    fetch() { (cd "$work" && apt-get download -qq "$package" 2>"$work/apt.log"); }
    if ! fetch; then
        # A new machine may have no package lists yet.
        [[ $EUID -ne 0 ]] || apt-get update -qq || fail "apt-get update failed"
        fetch || fail "cannot download $package: $(<"$work/apt.log")"
    fi
    dpkg-deb -x "$work"/"$package"_*.deb "$work"
    [[ -r $photo ]] || fail "$package no longer holds /$source; name a photo: scripts/bench-photo.sh PHOTO"
fi

if [[ ! -x $venv/bin/python ]] || ! "$venv/bin/python" -c 'import PIL' 2>/dev/null; then
    echo "bench-photo: installing Pillow into $venv"
    rm -rf "$venv"
    python3 -m venv "$venv" || fail "python3 cannot make a virtual environment (Debian: apt-get install python3-venv)"
    "$venv/bin/python" -m pip install -q --disable-pip-version-check "Pillow==${venv##*-}" \
        || fail "cannot install Pillow ${venv##*-}"
fi

echo "bench-photo: making $result"
mkdir -p "${result%/*}"
"$venv/bin/python" - "$photo" "$result.part" <<'PYTHON'
import sys

from PIL import ExifTags, Image

WIDTH, HEIGHT = 4032, 3024  # as stored; orientation 6 shows it as 3024 x 4032

source, result = sys.argv[1:]
photo = Image.open(source).convert("RGB")
scale = max(WIDTH / photo.width, HEIGHT / photo.height)
if scale > 1:
    sys.exit(f"bench-photo: {source} has {photo.width} x {photo.height} px; needs {WIDTH} x {HEIGHT}")
crop_width, crop_height = WIDTH / scale, HEIGHT / scale
left, top = (photo.width - crop_width) / 2, (photo.height - crop_height) / 2
photo = photo.resize(
    (WIDTH, HEIGHT), Image.Resampling.LANCZOS, box=(left, top, left + crop_width, top + crop_height)
)

exif = Image.Exif()
exif[ExifTags.Base.Orientation] = 6
exif[ExifTags.Base.Make] = "Example"
exif[ExifTags.Base.Model] = "Phone"
gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
gps[ExifTags.GPS.GPSLatitudeRef], gps[ExifTags.GPS.GPSLatitude] = "N", (28.0, 34.0, 22.0)
gps[ExifTags.GPS.GPSLongitudeRef], gps[ExifTags.GPS.GPSLongitude] = "W", (80.0, 38.0, 56.0)

# The source was compressed before. So quality 95 gives the size that a phone
# reaches with a quality of about 90.
photo.save(result, "JPEG", quality=95, subsampling="4:2:0", exif=exif)
PYTHON
mv "$result.part" "$result"
echo "bench-photo: $result, $(wc -c <"$result") bytes"
