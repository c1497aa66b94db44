#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The lab's nodes behave like hosts: cables, partitions, a sudden death and a new start; nothing stays behind.
# shellcheck source-path=SCRIPTDIR source=testlib.sh
. "$(dirname "$0")/testlib.sh"
requires ip nft corosync jq ping unshare

hears() { lab exec "$1" ping -c 1 -W 1 "$2" >/dev/null; } # NODE ADDRESS
boot_id() { lab exec "$1" cat /proc/sys/kernel/random/boot_id; }
members() { grep -q "^$1: on, corosync, quorum: $2" <<<"$(lab status)"; } # NODE "COUNT Yes|No"
carrier() { lab exec "$1" ip -o link show "$2" | grep -q LOWER_UP; }

lab_start --no-cluster --vms 1 --rate mig1=200mbit

note "every node is a host of its own"
same "name of node2" node2 "$(lab exec node2 hostname)"
first=$(boot_id node2)
[ "$first" != "$(boot_id node1)" ] || fail "two nodes with the same boot id"
same "exit status of exec" 7 "$(lab exec node1 bash -c 'exit 7' || echo $?)"
same "arguments of exec" "a b|*" "$(lab exec node1 printf '%s|%s' 'a b' '*')"
lab exec node1 sh -c 'echo hello >/srv/shared/x; echo mine >/srv/local/x'
same "shared storage" hello "$(lab exec node3 cat /srv/shared/x)"
check_not "local storage is visible on another node" lab exec node3 test -e /srv/local/x
check "rate of mig1 is not set" grep -q 'tbf.*200Mbit' <<<"$(lab exec node1 tc qdisc show dev mig1)"

note "cables"
check "node1 does not reach node2" hears node1 10.77.1.2
lab cut node1 mig1
check_not "mig1 has a carrier after the cut" carrier node1 mig1
check_not "mig1 works after the cut" hears node1 10.77.1.2
check "mig2 does not work" hears node1 10.77.2.2
lab heal node1 mig1
poll 10 "mig1 to come back" hears node1 10.77.1.2
lab cut node1 mig1 --silent
check "a silent cut shows at the carrier" carrier node1 mig1
check_not "mig1 works after the silent cut" hears node1 10.77.1.2
lab heal node1 mig1
poll 10 "mig1 to come back" hears node1 10.77.1.2

note "a partition"
lab partition "node1 node2" "node3"
poll 60 "node3 to lose quorum" members node3 "1 No"
poll 60 "node1 and node2 to go on" members node1 "2 Yes"
check_not "node1 hears node3" hears node1 10.77.3.3
lab heal-all
poll 60 "the cluster to be whole again" members node3 "3 Yes"

note "a daemon is paused, resumed, killed, started"
pid=$(lab pid node1 corosync)
lab pause-daemon node1 corosync
check "corosync is not stopped" grep -q '^State:.*T' "/proc/$pid/status"
lab resume-daemon node1 corosync
lab kill-daemon node1 corosync
check_not "corosync lives" test -e "/proc/$pid/exe"
lab start-daemon node1 corosync
poll 60 "node1 to be a member again" members node1 "3 Yes"

note "a host dies and comes back"
lab exec node2 sh -c 'setsid sleep 1000 </dev/null >/dev/null 2>&1 & mkdir -p /var/lib/drover && echo kept >/var/lib/drover/f; echo gone >/run/f'
lab crash node2
same "processes of node2" "" "$(lab pids node2)"
check "node2 is not off" grep -q '^node2: off' <<<"$(lab status)"
poll 60 "the others to notice" members node1 "2 Yes"
lab boot node2
[ "$(boot_id node2)" != "$first" ] || fail "the boot id is the old one"
same "disk of node2" kept "$(lab exec node2 cat /var/lib/drover/f)"
check_not "/run has survived the crash" lab exec node2 test -e /run/f
poll 60 "node2 to be a member again" members node2 "3 Yes"
check "rate of mig1 is lost" grep -q 'tbf.*200Mbit' <<<"$(lab exec node2 tc qdisc show dev mig1)"

note "the end"
lab down
check "something is left behind" nothing_left
