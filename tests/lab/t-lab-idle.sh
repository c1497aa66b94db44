#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# alone
# An idle lab leaves the machine to the tests: 3 nodes with corosync and 6 VMs together use less than a core, each VM little of it.
# shellcheck source-path=SCRIPTDIR source=testlib.sh
. "$(dirname "$0")/testlib.sh"
requires ip qemu-system-x86_64 corosync python3 jq

SECONDS_MEASURED=10
MAX_LAB_PERCENT=100 # of one core

# Nanoseconds on a CPU so far of all threads of these processes.
cpu_ns() { # PID...
	local p f
	for p; do
		for f in /proc/"$p"/task/*/schedstat; do cat "$f" 2>/dev/null || true; done
	done | awk '{s += $1} END {printf "%.0f\n", s}'
}

everything() {
	local i
	for i in 1 2 3; do lab pids "node$i"; done
	cat "$LAB_DIR/beat/pid"
}

lab_start --no-cluster --vms 6
for i in 1 2 3 4 5 6; do qemu_start node1 "vm$i"; done
for i in 1 2 3 4 5 6; do poll 60 "vm$i to have checked its memory" guest_says "vm$i" '.passes >= 1'; done

# shellcheck disable=SC2046 # lists of numbers
{
	all=$(cpu_ns $(everything)) vms=$(cpu_ns $(lab pids node1)) start=$(date +%s%N)
	sleep "$SECONDS_MEASURED" # the measurement itself
	all=$(($(cpu_ns $(everything)) - all)) vms=$(($(cpu_ns $(lab pids node1)) - vms)) time=$(($(date +%s%N) - start))
}
note "the whole lab: $((all * 100 / time)) % of a core; node1 with its 6 VMs: $((vms * 100 / time)) %"
[ $((vms * 1000 / time)) -gt 0 ] || fail "six beating VMs cannot use no CPU at all: this measures nothing"
[ $((all * 100 / time)) -lt "$MAX_LAB_PERCENT" ] || fail "an idle lab uses $((all * 100 / time)) % of a core"
for i in 1 2 3 4 5 6; do
	lab guest "vm$i" || fail "vm$i is not intact"
done
