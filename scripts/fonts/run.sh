#!/usr/bin/env bash
# Makes the fonts in src/defaults/fonts again, byte for byte.
#
#     scripts/fonts/run.sh
#
# It downloads Noto Sans from the npm registry and fontTools from PyPI into .tools/fonts, in pinned
# versions, and checks the fonts against sources.sha256.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=scripts/fonts
work=.tools/fonts

scripts/need.sh npm python3 python:ensurepip=python3-venv
mkdir -p "$work/packages" "$work/sources"
if [[ ! -x $work/venv/bin/pip ]]; then
    python3 -m venv "$work/venv"
fi
"$work/venv/bin/pip" --quiet install --requirement "$here/requirements.txt"

# Prints the path of a package's archive, and downloads it if it is missing.
package() {
    local archive=${1#@}
    archive=$work/packages/${archive/\//-}-$2.tgz
    if [[ ! -f $archive ]]; then
        npm pack --silent --pack-destination "$work/packages" "$1@$2" >/dev/null
    fi
    echo "$archive"
}

tar --extract --gzip --file "$(package @expo-google-fonts/noto-sans 0.4.2)" --directory "$work/sources" \
    --strip-components 2 package/500Medium/NotoSans_500Medium.ttf
for script in arabic armenian bengali devanagari ethiopic georgian gujarati gurmukhi hebrew jp kannada \
    khmer kr lao malayalam myanmar oriya sc sinhala tamil telugu thaana thai; do
    case $script in
        jp) part=japanese ;;
        kr) part=korean ;;
        sc) part=chinese-simplified ;;
        *) part=$script ;;
    esac
    tar --extract --gzip --file "$(package "@fontsource/noto-sans-$script" 5.3.0)" \
        --directory "$work/sources" --strip-components 2 \
        "package/files/noto-sans-$script-$part-500-normal.woff2"
done
(cd "$work/sources" && sha256sum --check --quiet) <"$here/sources.sha256"
"$work/venv/bin/python" "$here/subset.py" "$work/sources" src/defaults/fonts
