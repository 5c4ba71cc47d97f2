#!/usr/bin/env bash
# MinIO, the last state of its source, built from the Go module proxy. lib.sh says how it is used.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# The proxy has its releases by their commits alone; this one, of February 2026, is the last.
version=v0.0.0-20260212201848-7aac2a2c5b7c
minio=$(go_install minio github.com/minio/minio $version)
begin "$@"

export MINIO_ROOT_USER=minio MINIO_ROOT_PASSWORD=minio-secret
run "$minio" server --quiet --address "127.0.0.1:$port" --console-address "127.0.0.1:$(free_ports 1)" \
    "$folder/data"
wait_for 60 answers --fail "http://127.0.0.1:$port/minio/health/ready"
ready minio minio-secret us-east-1 "${version##*-} (2026-02-12)"
