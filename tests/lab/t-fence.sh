#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# time-limit: 420
# Fence agents: one that fails, one that hangs, one that lies and one that works. A host that is being fenced gets no lease and no
# order; a failed fencing harms nothing; VMs of a host count as stopped only when it is off.
# shellcheck source-path=SCRIPTDIR source=testlib.sh
. "$(dirname "$0")/testlib.sh"
# shellcheck source=drainlib.sh
. "$(dirname "$0")/drainlib.sh"
# shellcheck source=fencelib.sh
. "$(dirname "$0")/fencelib.sh"
requires ip qemu-system-x86_64 corosync jq

leader() { djq .leader cluster status; }
lease_below() { says ".node.lease_ms < $2" --on "$(leader)" node show "$1"; }
lease_fresh() { says '.node.lease_ms > 27000' --on "$(leader)" node show "$1"; }
fencing() { says ".node.fencing == $2" node show "$1"; }
said() { djson event list | jq -e --arg t "$1" '[.events[] | select(.text | test($t))] | length > 0' >/dev/null; }
intact() { lab guest "$1" >/dev/null; }
state_of() { djq ".vms[] | select(.name == \"$1\") | .state" vm list; }

lab_start --nodes 3 --coordinators 3 --vms 3
fence_device_start

note "words"
expect_exit 6 "no fence agent.*--confirmed" node fence node1
expect_exit 2 "bare name" node set node1 --fence /bin/sh
fence_set node1 fail
same "changed" false "$(djq .changed node set node1 --fence fence_lab,plug=node1,mode=fail,password=hunter2)"
same "shown" 'fence_lab,plug=node1,mode=fail,password=***' "$(djq .node.fence node show node1)"
expect_exit 6 "alive" node fence node1

note "an agent that fails"
expect_exit 1 'exit status 1: no contact with the device, password \*\*\*\*\*\*\*' node fence node1 --force
poll 10 "the end of the fencing" fencing node1 false
check "no event about the failure" said 'node1 is not fenced: fence_lab'
poll 10 "node1's lease to be renewed again" lease_fresh node1
expect_intact

note "an agent that lies"
drover vm stop vm2 --force --wait >/dev/null
fence_set node1 lie
status=0
drover --timeout 5s node fence node1 --force >/dev/null 2>&1 || status=$?
same "exit status" 5 "$status"
check "node1 counts as fenced" fencing node1 true

note "meanwhile: no lease, no order, no new work"
poll 30 "node1's lease to run down" lease_below node1 24000
expect_exit 6 "being fenced" vm start vm2 --node node1
drover vm stop vm3 --force >/dev/null

check "an order has come through" intact vm3
note "the leader dies: the next one takes it back, nobody is dead"
old=$(leader)
lab kill-daemon "$old" coordinator
poll 60 "the announcement to be taken back" fencing node1 false
lab start-daemon "$old" coordinator
poll 30 "node1's lease to be renewed again" lease_fresh node1
poll 20 "the order that waited" says '[.vms[] | select(.name == "vm3" and .state == "stopped")] | length == 1' vm list
check "vm1 is not intact" intact vm1
drover vm start vm2 --node node1 >/dev/null
poll 60 "vm2 to run again" says '[.vms[] | select(.state == "running")] | length == 2' vm list

note "an agent that hangs is waited for a minute, not longer"
fence_set node1 hang
SECONDS=0
expect_exit 1 "action off for node1: not done within 60 s" node fence node1 --force
[ "$SECONDS" -ge 55 ] || fail "it was over after $SECONDS s"
check_not "its process is left" pgrep -f "bash .*fence/fence_lab"
poll 10 "node1's lease to be renewed again" lease_fresh node1
check "vm1 is not intact" intact vm1

note "node1's agent is silent, its VMs run on: nothing starts elsewhere until the host is off"
fence_set node1 ok
lab pause-daemon node1 agent
poll 60 "the loss of the session" says '.node.agent == "lost"' node show node1
drover vm start vm1 --node node2 >/dev/null 2>&1 || true
same "vm1 on" node1 "$(djq '.vms[] | select(.name == "vm1") | .node' vm list)"
drover --on node2 node fence node1 || fail "node1 was not fenced"
check "node1 is not off" node_off node1
same "vm1" stopped "$(state_of vm1)"
check "history does not tell who asked" says '[.history[] | select(.what == "node fence node1" and .exit == 0)] | length > 0' history list
same "changed, the second time" false "$(djq .changed node fence node1)"
poll 30 "node2's agent to find another coordinator" says '.node.agent == "connected"' node show node2
drover vm start vm1 --node node2 >/dev/null
poll 90 "vm1 on node2" says '[.vms[] | select(.name == "vm1" and .node == "node2" and .state == "running")] | length == 1' vm list
expect_one_copy vm1

note "it comes back"
fence_boot node1
poll 90 "node1 to be up" says '.node.state == "up" and .node.agent == "connected"' node show node1
same "vm1 on" node2 "$(djq '.vms[] | select(.name == "vm1") | .node' vm list)"

note "the password stands where it must, and nowhere else"
for what in "event list" "history list" "node show node1" "node list"; do
	# shellcheck disable=SC2086 # two words
	check_not "it is in $what" grep -q hunter2 <<<"$(djson $what)"
done
check_not "it is in a log" grep -rq hunter2 "$LAB_DIR/log"
for n in 1 2 3; do
	for f in "$LAB_DIR/node$n/lib-drover"/{log,state}.db*; do same "mode of $f" 600 "$(stat -c %a "$f")"; done
done
fence_device_stop
