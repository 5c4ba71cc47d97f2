#!/usr/bin/env bash
# Runs Ceph's RADOS gateway with a monitor, a manager and one disk in memory, from Debian's packages.
# lib.sh explains the usage.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need ceph=ceph-common ceph-mon ceph-mgr ceph-osd radosgw
version=$(dpkg-query --showformat='${Version}' --show radosgw)
begin "$@"

mkdir -p "$folder"/{mon,mgr,osd,rgw,run,logs}
read -r mon mon2 < <(free_ports 2)
uuid() { cat /proc/sys/kernel/random/uuid; }
fsid=$(uuid)
cat >"$folder/ceph.conf" <<CONF
[global]
fsid = $fsid
mon host = [v2:127.0.0.1:$mon2,v1:127.0.0.1:$mon]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
auth allow insecure global id reclaim = false
run dir = $folder/run
admin socket = $folder/run/\$name.asok
pid file = $folder/run/\$name.pid
log file = $folder/logs/\$name.log
crash dir = $folder/run
keyring = $folder/keyring
mon data = $folder/mon
mgr data = $folder/mgr
osd data = $folder/osd
rgw data = $folder/rgw
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = 4294967296
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail crit = 1
mon data avail warn = 2
mgr initial modules =
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:$port
rgw enable usage log = false
rgw thread pool size = 64
CONF
export CEPH_CONF=$folder/ceph.conf
# Ceph's programs search for modules and keys in the current folder.
cd "$folder"
do_it() { "$@" >>"$folder/log" 2>&1 || fail "$*: $(tail -n 3 "$folder/log")"; }
key() { do_it ceph-authtool keyring --gen-key -n "$@"; }

do_it ceph-authtool --create-keyring keyring --gen-key -n mon. --cap mon 'allow *'
key client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
key mgr.x --cap mon 'allow profile mgr' --cap osd 'allow *'
key client.rgw --cap mon 'allow rw' --cap osd 'allow rwx' --cap mgr 'allow rw'
do_it monmaptool --create --clobber --fsid "$fsid" \
    --addv a "[v2:127.0.0.1:$mon2,v1:127.0.0.1:$mon]" monmap
do_it ceph-mon -i a --mkfs --monmap monmap --keyring keyring
run ceph-mon -i a -f
do_it ceph --connect-timeout 30 mon enable-msgr2
run ceph-mgr -i x -f
osd=$(uuid)
key osd.0 --cap mon 'allow profile osd' --cap osd 'allow *' --cap mgr 'allow profile osd'
do_it ceph osd new "$osd"
do_it ceph auth import -i keyring
do_it ceph-osd -i 0 --mkfs --osd-uuid "$osd"
run ceph-osd -i 0 -f
# shellcheck disable=SC2317 # wait_for calls it
osd_is_up() { ceph osd stat | grep -q '1 up'; }
wait_for 60 osd_is_up
run radosgw -n client.rgw -f
wait_for 120 answers "http://127.0.0.1:$port/"
do_it radosgw-admin -n client.rgw user create --uid cameo --display-name cameo \
    --access-key ceph --secret-key ceph-secret
do_it radosgw-admin -n client.rgw user create --uid other --display-name other \
    --access-key other --secret-key other-secret
ready ceph ceph-secret us-east-1 "$version" other other-secret
