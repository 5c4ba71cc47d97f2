#!/usr/bin/env bash
# Installs Redis, from Debian's packages.
#
#     scripts/servers/redis.sh install     installs it if it is missing
#     scripts/servers/redis.sh program     prints the path of its program
#
# Tests start as many servers as they need. TEST_REDIS_SERVER names the program.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need redis-server
[[ ${1-} == install ]] || command -v redis-server
