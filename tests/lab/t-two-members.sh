#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# time-limit: 480
# Two coordinators, corosync with two_node (SAFETY R17). Without a fence agent one of two can't go on, crashed or split. With one, the
# survivor of a crash goes on alone and the other comes back by itself; of a split exactly one survives.
# shellcheck source-path=SCRIPTDIR source=testlib.sh
. "$(dirname "$0")/testlib.sh"
# shellcheck source=drainlib.sh
. "$(dirname "$0")/drainlib.sh"
# shellcheck source=fencelib.sh
. "$(dirname "$0")/fencelib.sh"
requires ip qemu-system-x86_64 corosync jq

leader() { djq .leader --on "$1" cluster status; }
other_of() { if [ "$1" = node1 ]; then echo node2; else echo node1; fi; }
quorate() { says ".quorate == $2" --on "$1" cluster status; }
leads() { says ".leader == \"$1\" and .quorate" --on "$1" cluster status; }
whole() { says '.quorate and ([.coordinators[] | select(.state == "voter" or .state == "leader")] | length) == 2' --on "$1" cluster status; }
# And nobody says that they differ.
same_state() { same_digests "$1" && says '[.coordinators[] | select((.error // "") != "")] | length == 0' --on "$1" cluster status; }
writes() { drover --on "$1" --timeout 3s limit set --max-moves "$2" >/dev/null 2>&1; }
max_moves() { djq .defaults.max_moves --on "$1" limit show; }
logged() { grep -q "$2" "$LAB_DIR/log/$1-coordinator.log"; } # NODE TEXT

lab_start --nodes 2 --coordinators 2 --vms 1
fence_device_start
poll 30 "both to vote" whole node1

note "no fence agent, a split: neither goes on, the VM does"
lab partition node1 node2
poll 30 "the loss of the majority on node1" quorate node1 false
poll 30 "the loss of the majority on node2" quorate node2 false
expect_exit 3 "" --on node1 --timeout 5s limit set --max-moves 3
expect_exit 3 "" --on node2 --timeout 5s limit set --max-moves 3
check "reads are not marked stale" says '.stale == true' --on node2 vm list
poll 30 "word of what to do" logged node1 'force-quorum --dead'
check "vm1 is not intact" lab guest vm1 >/dev/null
lab heal-all
poll 60 "one cluster again" whole node1

note "no fence agent, a crash: the other one does not go on"
one=$(leader node1)
two=$(other_of "$one")
[ "$one" != node1 ] || { drover vm move vm1 --to node2 --wait >/dev/null || fail "vm1 was not moved"; }
lab crash "$one"
poll 30 "the loss of the majority" quorate "$two" false
poll 40 "word of what to do" logged "$two" "Its host has no fence agent"
expect_exit 3 "" --on "$two" --timeout 5s limit set --max-moves 3
lab boot "$one"
poll 60 "one cluster again" whole "$two"

note "with fence agents the leader's host crashes: the survivor goes on alone"
for n in node1 node2; do fence_set "$n" ok; done
drover limit set --max-moves 5 >/dev/null
one=$(leader node1)
two=$(other_of "$one")
poll 30 "equal states" same_state "$two"
lab crash "$one"
poll 60 "$two to lead alone" leads "$two"
check "no write on $two" writes "$two" 6
same "what was acknowledged before" 6 "$(max_moves "$two")"
[ -e "$LAB_DIR/shared/fence/$one.off" ] || fail "$two leads, but nobody asked the fence device"
check "the survivor is not the only voter" says '[.coordinators[] | select(.state == "voter" or .state == "leader")] | length == 1' --on "$two" cluster status

note "the survivor's daemon starts anew: it still is a majority"
lab kill-daemon "$two" coordinator
lab start-daemon "$two" coordinator
poll 30 "$two to lead" leads "$two"
check "no write on $two" writes "$two" 7

note "the one with the old log alone: it must not go on, fence agent or not"
lab crash "$two"
fence_boot "$one"
poll 30 "$one to answer" lab cli --on "$one" cluster status >/dev/null
poll 60 "$one to say why it does not go on" logged "$one" "has not heard it since its own start"
check_not "$one writes with an old log" writes "$one" 8

note "both are back: the old one follows, votes again, and has what it missed"
lab boot "$two"
poll 90 "one cluster again" whole "$two"
poll 30 "equal states" same_state "$two"
same "what was acknowledged while $one was dead" 7 "$(max_moves "$one")"

note "a split with fence agents: exactly one survives"
rm -f "$LAB_DIR/shared/fence"/*.off
one=$(leader node1)
two=$(other_of "$one")
lab partition node1 node2
one_off() { [ "$(find "$LAB_DIR/shared/fence" -name '*.off' | wc -l)" -ge 1 ]; }
poll 90 "one host to be off" one_off
poll 60 "the former leader to lead alone" leads "$one"
check "no write on $one" writes "$one" 9
check "the other one is not off" node_off "$two"
check_not "both were fenced" node_off "$one"
lab heal-all
fence_boot "$two"
poll 90 "one cluster again" whole "$one"
poll 30 "equal states" same_state "$one"
same "what was acknowledged" 9 "$(max_moves "$two")"
fence_device_stop
