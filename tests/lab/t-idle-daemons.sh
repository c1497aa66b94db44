#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# alone
# A cluster at rest costs next to nothing: 3 nodes and 6 VMs, and each daemon of ours holds less than 20 MB of its own and uses
# less than 1 % of a core; the whole lab, QEMUs and corosync with it, uses less than a core.
# shellcheck source-path=SCRIPTDIR source=testlib.sh
. "$(dirname "$0")/testlib.sh"
# shellcheck source=drainlib.sh
. "$(dirname "$0")/drainlib.sh"
requires ip qemu-system-x86_64 corosync jq

WINDOWS=5          # the median counts: others on this machine may make a window costly, never cheap
WINDOW_SECONDS=5
DAEMON_MILLI=1000  # thousandths of a percent of a core
LAB_PERCENT=100
DAEMON_KB=20000

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

median() { printf '%s\n' "$@" | sort -n | sed -n "$((($# + 1) / 2))p"; }

lab_start --vms 6
for i in 1 2 3 4 5 6; do poll 60 "vm$i to have checked its memory" guest_says "vm$i" '.passes >= 1'; done

daemons=()
declare -A pid before used anon
for i in 1 2 3; do
	for d in coordinator agent; do
		daemons+=("node$i-$d")
		pid[node$i-$d]=$(lab pid "node$i" "$d")
	done
done
for ((w = 0; w < WINDOWS; w++)); do
	for d in "${daemons[@]}"; do before[$d]=$(cpu_ns "${pid[$d]}"); done
	# shellcheck disable=SC2046 # a list of numbers
	all=$(cpu_ns $(everything))
	start=$(date +%s%N)
	sleep "$WINDOW_SECONDS" # the measurement itself
	time=$(($(date +%s%N) - start))
	# Thousandths of a percent.
	for d in "${daemons[@]}"; do used[$d]+=" $((($(cpu_ns "${pid[$d]}") - ${before[$d]}) * 100000 / time))"; done
	# shellcheck disable=SC2046
	used[all]+=" $((($(cpu_ns $(everything)) - all) * 100000 / time))"
done
# shellcheck disable=SC2086 # a list of numbers
for d in "${daemons[@]}" all; do used[$d]=$(median ${used[$d]}); done

for d in "${daemons[@]}"; do
	anon[$d]=$(awk '/^RssAnon:/ {print $2}' "/proc/${pid[$d]}/status")
	note "$d: $(awk -v m="${used[$d]}" 'BEGIN {printf "%.2f", m / 1000}') % of a core, ${anon[$d]} kB of its own"
done
note "the whole lab: $((used[all] / 1000)) % of a core"
[ "${used[node1-coordinator]}" -gt 0 ] || fail "a daemon that beats cannot use no CPU at all: this measures nothing"
for d in "${daemons[@]}"; do
	[ "${used[$d]}" -lt "$DAEMON_MILLI" ] || fail "$d uses ${used[$d]} thousandths of a percent of a core at rest"
	[ "${anon[$d]}" -lt "$DAEMON_KB" ] || fail "$d holds ${anon[$d]} kB"
done
[ "${used[all]}" -lt $((LAB_PERCENT * 1000)) ] || fail "an idle lab uses $((used[all] / 1000)) % of a core"

note "a relay at work"
lab rate mig1 40mbit
lab rate mig2 40mbit
move=$(djq .move.id vm move vm1 --to node2)
poll 60 "a copy" says '.move.state == "copying" and .move.bytes_wire > 1000000' move show "$move"
relays=0
for n in node1 node2; do
	for p in $(lab pids "$n"); do
		[ "$(cat "/proc/$p/comm" 2>/dev/null)" = drover-relay ] || continue
		kb=$(awk '/^RssAnon:/ {print $2}' "/proc/$p/status")
		note "the relay on $n: $kb kB of its own"
		[ "$kb" -lt "$DAEMON_KB" ] || fail "the relay on $n holds $kb kB"
		relays=$((relays + 1))
	done
done
same "relays seen" 2 "$relays"
lab rate mig1 none
lab rate mig2 none
poll 60 "the move to end" says '.move.state == "done"' move show "$move"
expect_intact
