#!/usr/bin/env bash
# Runs MinIO. The server and its client are the last versions of their sources, built from the Go
# module proxy. lib.sh explains the usage. server.env has two more lines:
#
#     MC=...                          the path of the client
#     MC_VERSION=...
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# The proxy names these releases only by their commits. They are the last ones, of February 2026 and
# of March 2025.
version=v0.0.0-20260212201848-7aac2a2c5b7c
minio=$(go_install minio github.com/minio/minio $version)
mc_version=v0.0.0-20250313080218-cf909e1063a9
mc=$(go_install mc github.com/minio/mc $mc_version)
begin "$@"

export MINIO_ROOT_USER=minio MINIO_ROOT_PASSWORD=minio-secret
run "$minio" server --quiet --address "127.0.0.1:$port" --console-address "127.0.0.1:$(free_ports 1)" \
    "$folder/data"
wait_for 60 answers --fail "http://127.0.0.1:$port/minio/health/ready"
# A user has only the rights of the policies that are attached to it.
export MC_CONFIG_DIR=$folder/mc
ask() { "$mc" "$@" >>"$folder/log" 2>&1 || fail "mc $*: $(tail -n 3 "$folder/log")"; }
ask alias set here "http://127.0.0.1:$port" "$MINIO_ROOT_USER" "$MINIO_ROOT_PASSWORD"
ask admin user add here other other-secret
ready "$MINIO_ROOT_USER" "$MINIO_ROOT_PASSWORD" us-east-1 "${version##*-} (2026-02-12)" \
    other other-secret "MC=$mc" "MC_VERSION=${mc_version##*-} (2025-03-13)"
