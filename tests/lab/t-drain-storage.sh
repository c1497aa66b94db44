#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A disk must be the same storage on both hosts: the same path alone is refused, shared storage moves (SAFETY R26).
# shellcheck source-path=SCRIPTDIR source=testlib.sh
. "$(dirname "$0")/testlib.sh"
# shellcheck source=drainlib.sh
. "$(dirname "$0")/drainlib.sh"
requires ip qemu-system-x86_64 qemu-img corosync jq

lab_start --vms 1
for n in node1 node2 node3; do lab exec "$n" qemu-img create -q -f raw /srv/local/disk.raw 16M; done
lab exec node1 qemu-img create -q -f raw /srv/shared/disk.raw 16M
drover vm stop vm1 --force --wait >/dev/null

note "the same path, another file"
drover vm set vm1 --disk /srv/local/disk.raw,format=raw >/dev/null
drover vm start vm1 --node node1 --wait >/dev/null
expect_exit 6 'storage' vm move vm1 --to node2 --wait
poll 30 "vm1 to run on" says '.vms[0].state == "running" and .vms[0].node == "node1" and .vms[0].move == null' vm list
expect_no_remains node1 node2 node3
drover vm stop vm1 --force --wait >/dev/null

note "shared storage"
drover vm set vm1 --disk /srv/shared/disk.raw,format=raw >/dev/null
drover vm start vm1 --node node1 --wait >/dev/null
drover vm move vm1 --to node2 --wait || fail "the move failed: $(drover move list)"
check "vm1 does not run on node2" says '.vms[0].state == "running" and .vms[0].node == "node2"' vm list
expect_no_remains node1 node2 node3
