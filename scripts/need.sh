#!/usr/bin/env bash
# Makes sure that commands exist, or says what to do and fails.
#
#     scripts/need.sh COMMAND[=PACKAGE,PACKAGE...] ...
#
# A missing command is installed from the Debian packages named after it (its
# own name by default), as root or with sudo. Where that cannot be done, the
# script fails with the names of what is missing: nothing is ever skipped.
#
# python:MODULE=PACKAGE asks for a module of Python instead: Debian has parts of
# the standard library in packages of their own.
set -euo pipefail

# Debian keeps servers such as nginx where only root looks for commands.
PATH=$PATH:/usr/sbin:/sbin

there() {
    case $1 in
        python:*) python3 -c "import ${1#python:}" 2>/dev/null ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

missing=()
packages=()
for need in "$@"; do
    command=${need%%=*}
    if ! there "$command"; then
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
    || give_up "this is not a Debian system; install what Debian calls ${packages[*]}, then run this again"
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
    there "$command" || give_up "${packages[*]} installed, and $command is still not there"
done
