#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# time-limit: 420
# One of three coordinators' hosts crashes during a drain: it goes on. Two: writes answer 3, nothing moves, running VMs run on;
# when they are back the drain goes on.
# shellcheck source-path=SCRIPTDIR source=testlib.sh
. "$(dirname "$0")/testlib.sh"
# shellcheck source=drainlib.sh
. "$(dirname "$0")/drainlib.sh"
requires ip qemu-system-x86_64 corosync jq

lab_start --nodes 4 --coordinators 3 --ws 4 --dirty 500 --rate mig1=200mbit
drover limit set --max-moves 1 >/dev/null

note "node3 crashes during the drain"
id=$(djq .drain.id node drain node1)
poll 60 "the first copy" says '[.moves[] | select(.state == "copying")] | length > 0' move list --active
lab crash node3
poll 240 "the drain to end" drain_over "$id"
check "the drain is not done: $(drover drain show "$id")" says '.drain.state == "done"' drain show "$id"
for vm in $(vms_on node2) $(vms_on node4); do lab guest "$vm" >/dev/null || fail "$vm is not intact: $(lab guest "$vm")"; done

note "node2 crashes as well: no quorum"
before=$(djson vm list | jq -c '[.vms[] | {name, node}]')
lab crash node2
poll 30 "the loss of quorum" says '.quorate == false' cluster status
expect_exit 3 quorum limit set --max-moves 2
expect_exit 3 quorum vm move "$(vms_on node4 | head -n 1)" --to node1
check "reads are not marked stale" says '.stale == true' vm list
for vm in $(vms_on node4); do lab guest "$vm" >/dev/null || fail "$vm does not run on: $(lab guest "$vm")"; done
same "owners" "$before" "$(djson vm list | jq -c '[.vms[] | {name, node}]')"

note "they are back: work goes on"
lab boot node2
lab boot node3
poll 90 "quorum" says '.quorate == true' cluster status
poll 60 "all agents" says '[.nodes[] | select(.agent == "connected")] | length == 4' node list
drover node resume node1 >/dev/null
drover node drain node4 --wait || fail "the drain of node4 failed: $(drover drain show node4)"
same "VMs on node4" 0 "$(count_on node4)"
