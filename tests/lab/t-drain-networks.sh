#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# time-limit: 420
# The best-ranked network is dead before the drain: the next one is used and an event says so. All are cut in mid-copy: healed,
# the moves go on or are tried again; never healed, they fail cleanly. No VM is lost, doubled or stopped for long.
# shellcheck source-path=SCRIPTDIR source=testlib.sh
. "$(dirname "$0")/testlib.sh"
# shellcheck source=drainlib.sh
. "$(dirname "$0")/drainlib.sh"
requires ip qemu-system-x86_64 corosync jq

lab_start --vms 3 --ws 4 --dirty 500 --rate mig1=100mbit --rate mig2=200mbit

note "rank 1 is dead"
lab cut node1 mig1 --silent
drover node drain node1 --wait || fail "the drain failed: $(drover drain show node1)"
check "rank 2 was not used" says '[.moves[] | select(.networks == ["mig2"])] | length == 3' drain show node1
check "no event says that rank 2 was used" says '[.events[] | select(.text | test("mig2"))] | length > 0' event list
expect_intact
lab heal node1 mig1
drover node resume node1 >/dev/null

note "all migration networks are cut in mid-copy and healed after 20 s"
for vm in vm1 vm2 vm3; do drover vm move "$vm" --to node1 --wait >/dev/null; done
id=$(djq .drain.id node drain node1)
poll 60 "a copy" says '[.moves[] | select(.state == "copying" and .bytes_wire > 1000000)] | length > 0' move list --active
lab cut node1 mig1 --silent
lab cut node1 mig2 --silent
end=$((SECONDS + 20))
until [ "$SECONDS" -ge "$end" ]; do sleep 0.2; done
lab heal node1 mig1
lab heal node1 mig2
poll 180 "the drain to end" drain_over "$id"
check "the drain is not done: $(drover drain show "$id")" says '.drain.state == "done"' drain show "$id"
expect_intact
expect_no_remains node1 node2 node3

note "cut in mid-copy and never healed"
drover node resume node1 >/dev/null
drover vm move vm1 --to node1 --wait >/dev/null
move=$(djq .move.id vm move vm1 --to node2)
poll 60 "a copy" says '.move.state == "copying" and .move.bytes_wire > 1000000' move show "$move"
lab cut node1 mig1 --silent
lab cut node1 mig2 --silent
lab cut node1 mgmt --silent
# node1 is alone with its VM; the others decide.
poll 240 "the move to end" says '.move.state == "failed" or .move.state == "done"' --on node2 move show "$move"
expect_one_copy vm1
lab heal-all
poll 60 "the agent of node1 to be back" says '[.nodes[] | select(.name == "node1" and .agent == "connected")] | length == 1' node list
poll 60 "the remains to go" moves_over
expect_intact
