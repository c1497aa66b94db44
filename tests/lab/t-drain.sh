#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# An operator drains a node and gets it back: every VM runs elsewhere, intact, moved by priority; done twice counts as done.
# shellcheck source-path=SCRIPTDIR source=testlib.sh
. "$(dirname "$0")/testlib.sh"
# shellcheck source=drainlib.sh
. "$(dirname "$0")/drainlib.sh"
requires ip qemu-system-x86_64 corosync jq

lab_start --ws 4 --dirty 500
drover vm set vm5 --priority high >/dev/null
drover vm set vm2 --priority low >/dev/null
drover limit set --max-moves 1 >/dev/null

note "a dry run changes nothing"
drover node drain node1 --dry-run >/dev/null
same "VMs on node1" 6 "$(count_on node1)"
check "node1 is not up" says '.nodes[] | select(.name == "node1") | .state == "up"' node list

note "the drain"
drover node drain node1 --wait || fail "the drain failed: $(drover drain show node1)"
same "VMs on node1" 0 "$(count_on node1)"
check "node1 is not drained" says '.nodes[] | select(.name == "node1") | .state == "drained"' node list
check "the drain is not done" says '.drain.state == "done" and .drain.moves_total == 6 and .drain.moves_done == 6 and .drain.moves_failed == 0' drain show node1
check "a move lacks its figures" says '[.moves[] | select(.state == "done" and .bytes_wire > 0 and .passes > 0 and .duration_ms > 0 and .networks == ["mig1"] and .from == "node1")] | length == 6' drain show node1
expect_intact
expect_no_remains node1 node2 node3

note "order of priority"
same "first and last VM moved" "vm5 vm2" "$(djson drain show node1 | jq -r '[.moves | sort_by(.started)[].vm] | "\(.[0]) \(.[-1])"')"

note "drained already"
same "changed" false "$(djq .changed node drain node1)"

note "back to work, and VMs can come home"
drover node resume node1 >/dev/null
check "node1 is not up" says '.nodes[] | select(.name == "node1") | .state == "up"' node list
drover vm move vm1 --to node1 --wait >/dev/null
same "vm1 runs on" node1 "$(djson vm list | jq -r '.vms[] | select(.name == "vm1").node')"
expect_intact
