#!/usr/bin/env bash
# Checks that commands exist, and installs missing ones.
#
#     scripts/need.sh COMMAND[=PACKAGE,PACKAGE...] ...
#
# A missing command is installed from the given Debian packages (by default the
# package of the same name), as root or with sudo. If that is not possible, the
# script names what is missing and fails.
#
# python:MODULE=PACKAGE checks for a Python module, because Debian has separate
# packages for parts of the standard library.
set -euo pipefail

# Debian installs servers such as nginx in sbin, which is not in the PATH of ordinary users.
PATH=$PATH:/usr/sbin:/sbin

exists() {
    case $1 in
        python:*) python3 -c "import ${1#python:}" 2>/dev/null ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

missing=()
packages=()
for need in "$@"; do
    command=${need%%=*}
    if ! exists "$command"; then
        missing+=("$command")
        IFS=, read -ra names <<<"${need#*=}"
        packages+=("${names[@]}")
    fi
done
[[ ${#missing[@]} -gt 0 ]] || exit 0

give_up() {
    echo "missing: ${missing[*]}: $1" >&2
    exit 1
}

command -v apt-get >/dev/null \
    || give_up "this is not a Debian system; install the equivalents of the Debian packages ${packages[*]}, then run this again"
as_root=()
if [[ $EUID -ne 0 ]]; then
    command -v sudo >/dev/null || give_up "run this as root: apt-get install ${packages[*]}"
    as_root=(sudo)
fi

echo "installing ${packages[*]} (for ${missing[*]})"
"${as_root[@]}" apt-get update -qq || give_up "apt-get update failed"
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null \
    || give_up "apt-get install failed"

hash -r
for command in "${missing[@]}"; do
    exists "$command" || give_up "${packages[*]} is installed, but $command is still missing"
done
