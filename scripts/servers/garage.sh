#!/usr/bin/env bash
# Runs Garage on one node, built from crates.io. lib.sh explains the usage.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

version=2.5.0
garage=$(cargo_install garage $version)
begin "$@"

read -r rpc < <(free_ports 1)
cat >"$folder/garage.toml" <<TOML
metadata_dir = "$folder/meta"
data_dir = "$folder/data"
db_engine = "sqlite"
replication_factor = 1
rpc_bind_addr = "127.0.0.1:$rpc"
rpc_public_addr = "127.0.0.1:$rpc"
rpc_secret = "$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')"
[s3_api]
s3_region = "garage"
api_bind_addr = "127.0.0.1:$port"
TOML
key=GK0123456789abcdef01234567
secret=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
ask() { "$garage" -c "$folder/garage.toml" "$@"; }
do_ask() { ask "$@" >>"$folder/log" 2>&1 || fail "garage $*: $(tail -n 3 "$folder/log")"; }

RUST_LOG=garage=warn run "$garage" -c "$folder/garage.toml" server
wait_for 30 ask status
do_ask layout assign -z here -c 10G "$(ask node id -q 2>>"$folder/log" | cut -d@ -f1)"
do_ask layout apply --version 1
wait_for 10 ask key import --yes -n cameo $key $secret
do_ask key allow --create-bucket $key
other=GK000000000000000000000001
do_ask key import --yes -n other $other $secret
ready $key $secret garage $version $other $secret
