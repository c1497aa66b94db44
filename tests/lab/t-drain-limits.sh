#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# time-limit: 420
# No node ever has more moves than its limit, incoming counted like outgoing; two drains that cross never send a VM to a node
# that is being drained.
# shellcheck source-path=SCRIPTDIR source=testlib.sh
. "$(dirname "$0")/testlib.sh"
# shellcheck source=drainlib.sh
. "$(dirname "$0")/drainlib.sh"
requires ip qemu-system-x86_64 corosync jq

lab_start --ws 4 --dirty 500 --rate mig1=400mbit

# From the records: at no start of a move more moves at once on a node than allowed. Started and ended are in microseconds.
most_at_once() { # DRAIN
	djson move list | jq --argjson d "$1" '
		[.moves[] | select(.drain == $d and .started != null)] as $m |
		[$m[] as $x | ($x.from, $x.to) as $n |
			[$m[] | select((.from == $n or .to == $n) and .started <= $x.started and (.ended == null or .ended > $x.started))] | length] | max // 0'
}

for limit in 1 2 4; do
	note "--max-moves $limit"
	drover limit set --max-moves "$limit" >/dev/null
	from=$(djson vm list | jq -r '[.vms[].node] | group_by(.) | max_by(length)[0]')
	id=$(djq .drain.id node drain "$from")
	most=0
	until drain_over "$id"; do
		now=$(djson node list | jq '[.nodes[] | .moves_out + .moves_in] | max')
		[ "$now" -le "$limit" ] || fail "$now moves on one node, allowed: $limit"
		[ "$now" -le "$most" ] || most=$now
	done
	check "the drain is not done" says '.drain.state == "done"' drain show "$id"
	[ "$most" -ge 1 ] || fail "no move was seen while the drain ran"
	[ "$(most_at_once "$id")" -le "$limit" ] || fail "the records show $(most_at_once "$id") moves at once on a node, allowed: $limit"
	drover node resume "$from" >/dev/null
done

note "two drains that cross"
drover limit set --max-moves 2 >/dev/null
for vm in vm1 vm2 vm3; do drover vm move "$vm" --to node1 --wait >/dev/null || true; done
for vm in vm4 vm5 vm6; do drover vm move "$vm" --to node2 --wait >/dev/null || true; done
first=$(djq .drain.id node drain node1)
second=$(djq .drain.id node drain node2)
poll 120 "both drains to end" drain_over "$first"
poll 120 "both drains to end" drain_over "$second"
same "VMs on node3" 6 "$(count_on node3)"
check "a VM was moved to a node that was being drained" says "[.moves[] | select(.drain == $second and .to == \"node1\" and .state == \"done\")] == []" move list
expect_intact
expect_no_remains node1 node2 node3
