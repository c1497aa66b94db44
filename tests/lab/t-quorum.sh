#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The last resorts: a minority is told to go on alone, and a cluster is restored from a backup that is older than what runs. VMs run on
# all the while; nothing is moved until every host has spoken or is fenced; no VM runs twice.
# shellcheck source-path=SCRIPTDIR source=testlib.sh
. "$(dirname "$0")/testlib.sh"
# shellcheck source=drainlib.sh
. "$(dirname "$0")/drainlib.sh"
requires ip qemu-system-x86_64 corosync jq

lab_start --vms 3

data() { echo "$LAB_DIR/$1/lib-drover"; }
leads() { says '.leader == "node1" and .quorate' --on node1 cluster status; }
vm_on() { says ".vms[] | select(.name == \"$1\") | .node == \"$2\" and .state == \"running\"" --on node1 vm list; } # VM NODE
move_to() { # VM NODE
	drover vm move "$1" --to "$2" --wait >/dev/null || fail "$1 could not be moved to $2"
	poll 30 "$1 to run on $2" vm_on "$1" "$2"
}
unquorate() { [ "$(drover --on node1 --timeout 5s limit set --max-moves 2 >/dev/null 2>&1; echo $?)" = 3 ]; }
event_says() { says ".events | map(select(.text | test(\"$1\"))) | length > 0" --on node1 event list; }

move_to vm2 node2

note "a backup, and then vm3 moves on"
drover --on node1 cluster backup "$LAB_DIR/backup" >/dev/null
[ "$(stat -c %a "$LAB_DIR/backup")" = 600 ] || fail "others may read the backup"
move_to vm3 node3

note "node2 and node3 crash; node1 is told to go on alone"
expect_exit 6 'leads the cluster|nothing to force' --on node1 cluster force-quorum --dead node2,node3 --confirmed
lab crash node2
lab crash node3
poll 60 "node1 to have no quorum" unquorate
silent() { [ "$(djson --on node1 cluster status | jq '[.coordinators[] | select(.state == "lost")] | length')" = 2 ]; }
poll 30 "node1 to miss both" silent
forgotten_one() { { drover --on node1 cluster force-quorum --dead node2 --confirmed 2>&1 || true; } | grep -q 'name it, too'; }
poll 30 "node1 to ask for the other name" forgotten_one
expect_exit 6 'confirmed' --on node1 cluster force-quorum --dead node2,node3
expect_exit 4 'node9' --on node1 cluster force-quorum --dead node2,node3,node9 --confirmed
drover --on node1 cluster force-quorum --dead node2,node3 --confirmed >/dev/null
poll 60 "node1 to lead alone" leads
poll 60 "the new incarnation" event_says 'incarnation 2'
expect_exit 6 'node2' --on node1 vm start vm2 --node node1
expect_one_copy vm1
for n in node2 node3; do poll 60 "$n to be fenced" drover --on node1 node fence "$n" --confirmed; done
poll 60 "the audit to end" event_says 'the cluster goes on'
poll 30 "vm1 to run on node1" vm_on vm1 node1
drover --on node1 vm start vm2 --node node1 --wait >/dev/null
poll 60 "vm2 to run on node1" vm_on vm2 node1

note "node2 comes back: its coordinator belongs to the old incarnation, its agent to the new one"
lab boot node2
poll 90 "node2's agent to have a session" says '.nodes[] | select(.name == "node2") | .agent == "connected"' --on node1 node list
told() { grep -q 'went on without this member' "$LAB_DIR/log/node2-coordinator.log"; }
poll 60 "node2's coordinator to say that it is out" told
same "coordinators" 1 "$(djson --on node1 cluster status | jq '.coordinators | length')"
drover --on node1 vm move vm2 --to node2 --wait >/dev/null
poll 30 "vm2 to run on node2" vm_on vm2 node2

note "node1's disk is gone; the backup knows neither where vm2 nor where vm3 is"
lab stop-daemon node2 coordinator
lab kill-daemon node1 coordinator
rm -rf "$(data node1)"/log.* "$(data node1)/member"
lab start-daemon node1 coordinator
truncate -s 1000 "$LAB_DIR/half"
cp "$LAB_DIR/backup" "$LAB_DIR/damaged"
printf 'x' | dd of="$LAB_DIR/damaged" bs=1 seek=3000 conv=notrunc 2>/dev/null
fresh() { [ "$(drover --on node1 cluster status 2>&1 >/dev/null | grep -c 'in no cluster')" = 1 ]; }
poll 30 "node1 to be in no cluster" fresh
expect_exit 2 'no file of drover cluster backup' --on node1 cluster restore "$LAB_DIR/half"
expect_exit 2 'damaged|no file' --on node1 cluster restore "$LAB_DIR/damaged"
drover --on node1 cluster restore "$LAB_DIR/backup" >/dev/null
poll 60 "node1 to lead" leads
expect_exit 6 'node3' --on node1 vm start vm3 --node node1
poll 60 "node2 to have spoken" event_says 'node2 has reported'
drover --on node1 node fence node3 --confirmed >/dev/null
poll 60 "vm2 to be where it runs" vm_on vm2 node2
poll 60 "vm1 to be where it runs" vm_on vm1 node1
for v in vm1 vm2; do expect_one_copy "$v"; done
