#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Bad input gets its exit status and a message that names the value and what to do; nothing changes.
# shellcheck source-path=SCRIPTDIR source=testlib.sh
. "$(dirname "$0")/testlib.sh"
# shellcheck source=drainlib.sh
. "$(dirname "$0")/drainlib.sh"
requires ip qemu-system-x86_64 corosync jq

lab_start --vms 2
state() { djson vm list | jq -c '[.vms[] | {name, node, generation, state}]'; djson limit show | jq -c .; djson node list | jq -c '[.nodes[] | {name, state}]'; }
before=$(state)

note "unknown names"
expect_exit 4 nowhere node drain nowhere
expect_exit 4 nothing vm move nothing --to node2
expect_exit 4 nowhere vm move vm1 --to nowhere
expect_exit 4 4711 move show 4711
expect_exit 4 4711 drain show 4711
expect_exit 4 nonet network order nonet=1

note "wrong words and values"
expect_exit 2 frobnicate node frobnicate node1
expect_exit 2 12xyz limit set --bandwidth 12xyz
expect_exit 2 'max-moves' limit set --max-moves many
expect_exit 2 '' vm add vmX --memory 0 --cpus 1
expect_exit 2 '' vm add vmX --memory 128MiB --cpus 0
expect_exit 2 'bad name' vm add 'bad name' --memory 128MiB --cpus 1
expect_exit 2 'gigantic' limit set --bandwidth gigantic

note "a VM spec whose disk is not there"
drover vm add ghost --memory 64MiB --cpus 1 --disk /srv/shared/no-such-disk.raw >/dev/null
expect_exit 1 'no-such-disk' vm start ghost --node node1 --wait
drover vm remove ghost >/dev/null

note "drained already"
drover node drain node3 --wait >/dev/null
same "changed" false "$(djq .changed node drain node3)"

note "no room elsewhere"
drover node pause node2 >/dev/null
expect_exit 6 'vm1' node drain node1
expect_exit 6 'node2|paused' vm move vm1 --to node2
drover node resume node2 >/dev/null
drover node resume node3 >/dev/null

note "a target that is down"
lab crash node3
poll 60 "node3 to be seen as lost" says '.nodes[] | select(.name == "node3") | .agent == "lost"' node list
expect_exit 6 'node3' vm move vm1 --to node3
lab boot node3
poll 60 "node3 to be back" says '.nodes[] | select(.name == "node3") | .agent == "connected" and .state == "up"' node list

note "a wrong cluster key"
lab exec node1 sh -c 'umask 077; head -c 32 /dev/urandom >/tmp/drover-wrong-key'
status=0
lab exec node1 "$(lab built cli/drover)" --connect 10.77.3.1:7420 --key-file /tmp/drover-wrong-key vm list >/dev/null 2>"$LAB_DIR/wrong" || status=$?
lab exec node1 rm -f /tmp/drover-wrong-key
same "exit status with a wrong key: $(cat "$LAB_DIR/wrong")" 8 "$status"

note "a corrupt frame, and a stranger on the relay port"
lab exec node1 bash -c 'exec 3<>/dev/tcp/10.77.3.1/7420; head -c 4096 /dev/urandom >&3' || true
lab exec node1 bash -c 'exec 3<>/dev/tcp/10.77.3.1/7421; head -c 4096 /dev/urandom >&3' || true
check "the coordinator did not survive" drover cluster status
check "the agent of node1 did not survive" says '.nodes[] | select(.name == "node1") | .agent == "connected"' node list

note "a configuration file with an unknown word"
conf=$LAB_DIR/bad.conf
printf '[node]\nname=node1\nfrobs=3\n' >"$conf"
for daemon in coordinator agent; do
	status=0
	lab exec node1 "$(lab built "$daemon/drover-$daemon")" -c "$conf" 2>"$LAB_DIR/bad" || status=$?
	same "exit status of drover-$daemon" 2 "$status"
	grep -q frobs "$LAB_DIR/bad" || fail "drover-$daemon does not name the word: $(cat "$LAB_DIR/bad")"
done

note "a second daemon on the same data directory"
for daemon in coordinator agent; do
	status=0
	lab exec node1 "$(lab built "$daemon/drover-$daemon")" -c /etc/drover/drover.conf 2>"$LAB_DIR/second" || status=$?
	[ "$status" != 0 ] || fail "a second drover-$daemon started"
	grep -q '/var/lib/drover' "$LAB_DIR/second" || fail "drover-$daemon does not name the directory: $(cat "$LAB_DIR/second")"
done

same "the cluster's state" "$before" "$(state)"
expect_intact
