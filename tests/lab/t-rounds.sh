#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# time-limit: 420
# Rounds of faults (kill -9, partition, SIGSTOP, a full disk) while four clients give commands and a drain goes back and forth.
# Afterwards no command that was answered "ok" is missing on any coordinator, all have the same state, no heartbeat was lost or repeated.
# DROVER_ROUNDS=200: how many; default 10. DROVER_COORDINATORS=5: of as many nodes. DROVER_SEED: of the faults.
# shellcheck source-path=SCRIPTDIR source=testlib.sh
. "$(dirname "$0")/testlib.sh"
# shellcheck source=drainlib.sh
. "$(dirname "$0")/drainlib.sh"
requires ip qemu-system-x86_64 corosync jq python3

ROUNDS=${DROVER_ROUNDS:-10}
COORDINATORS=${DROVER_COORDINATORS:-3}
CLIENTS=4
RANDOM=${DROVER_SEED:-1}
LONGEST_S=5 # of a fault

lab_start --nodes "$COORDINATORS" --coordinators "$COORDINATORS" --vms 3 --vm-memory 64MiB --ws 2 --dirty 200
mapfile -t NODES < <(seq -f 'node%g' "$COORDINATORS")
SMALL=${NODES[-1]} # its data directory is on a small disk
ACKED=$LAB_DIR/acked
mkdir "$ACKED"

random_node() { echo "${NODES[RANDOM % ${#NODES[@]}]}"; }

small_disk() {
	local data
	data="$LAB_DIR/$SMALL/lib-drover"
	lab stop-daemon "$SMALL" coordinator
	lab stop-daemon "$SMALL" agent
	cp -a "$data" "$LAB_DIR/small"
	lab exec "$SMALL" mount -t tmpfs -o size=48m tmpfs /var/lib/drover
	lab exec "$SMALL" cp -a "$LAB_DIR/small/." /var/lib/drover/
	lab start-daemon "$SMALL" coordinator
	lab start-daemon "$SMALL" agent
}

# Each value is given once only; the history of every coordinator must hold it if it was answered "ok".
client() { # NUMBER
	local n=0 value
	while [ ! -e "$ACKED/stop" ]; do
		n=$((n + 1))
		value=$((1000000000000 + $1 * 10000000 + n))
		if drover --on "${NODES[(n + $1) % ${#NODES[@]}]}" --timeout 20s limit set --node "${NODES[$1 % ${#NODES[@]}]}" --bandwidth "$value" \
			>/dev/null 2>&1; then
			echo "$value" >>"$ACKED/$1"
		else
			echo "$value" >>"$ACKED/refused"
		fi
	done
}

back_and_forth() {
	local node
	while [ ! -e "$ACKED/stop" ]; do
		node=$(djson vm list 2>/dev/null | jq -r '[.vms[].node] | group_by(.) | max_by(length)[0] // empty') || true
		[ -n "$node" ] || continue
		drover --timeout 60s node drain "$node" --wait >>"$ACKED/drains" 2>&1 || true
		drover --timeout 20s node resume "$node" >/dev/null 2>&1 || true
	done
}

fault() {
	local node kind seconds=$((1 + RANDOM % LONGEST_S))
	node=$(random_node)
	kind=$((RANDOM % 6))
	case $kind in
	0 | 1)
		note "$SECONDS: kill -9 coordinator of $node, $seconds s"
		lab kill-daemon "$node" coordinator
		sleep "$seconds"
		lab start-daemon "$node" coordinator
		;;
	2)
		note "$SECONDS: kill -9 agent of $node, $seconds s"
		lab kill-daemon "$node" agent
		sleep "$seconds"
		lab start-daemon "$node" agent
		;;
	3)
		note "$SECONDS: $node alone for $seconds s"
		lab partition "$node" "$(printf '%s\n' "${NODES[@]}" | grep -vx "$node" | tr '\n' ' ')"
		sleep "$seconds"
		lab heal-all
		;;
	4)
		note "$SECONDS: the coordinator of $node stands still for $seconds s"
		lab pause-daemon "$node" coordinator
		sleep "$seconds"
		lab resume-daemon "$node" coordinator
		;;
	5)
		note "$SECONDS: the disk of $SMALL is full for $seconds s"
		lab exec "$SMALL" dd if=/dev/zero of=/var/lib/drover/filler bs=64k 2>/dev/null || true
		sleep "$seconds"
		lab exec "$SMALL" rm -f /var/lib/drover/filler
		;;
	esac
}

whole() {
	says ".quorate == true and .stale == false and ([.coordinators[] | select(.state == \"leader\" or .state == \"voter\")] | length) == $COORDINATORS" \
		cluster status && says "[.nodes[] | select(.agent == \"connected\")] | length == $COORDINATORS" node list
}
no_drains() { says '.drains.active == 0' cluster status; }
all_run() { says '[.vms[] | select(.state != "running")] == []' vm list; }

small_disk
poll 60 "the cluster to be whole" whole
pids=()
for ((c = 0; c < CLIENTS; c++)); do
	client "$c" &
	pids+=($!)
done
back_and_forth &
pids+=($!)
stop_clients() {
	local status=$?
	touch "$ACKED/stop" 2>/dev/null || true
	kill "${pids[@]}" 2>/dev/null || true
	set +e # or the next line ends the script before the lab is taken down
	(exit "$status")
	cleanup
}
trap stop_clients EXIT

for ((round = 1; round <= ROUNDS; round++)); do fault; done

note "$SECONDS: no more faults"
poll 90 "the cluster to be whole" whole
touch "$ACKED/stop"
wait "${pids[@]}" || true
for n in "${NODES[@]}"; do poll 30 "$n to be resumed" drover node resume "$n"; done
poll 180 "no drain" no_drains
poll 60 "no move" moves_over
poll 60 "every VM to run" all_run
poll 30 "the digests to be equal" same_digests
expect_intact
touch "$ACKED/refused"
note "$(cat "$ACKED"/[0-9]* | wc -l) commands acknowledged, $(wc -l <"$ACKED/refused") not"
[ "$(cat "$ACKED"/[0-9]* | wc -l)" -gt $((ROUNDS * 4)) ] || fail "too few commands were acknowledged for this to mean anything"

for n in "${NODES[@]}"; do lab stop-daemon "$n" coordinator; done
for n in "${NODES[@]}"; do
	data=$LAB_DIR/$n/lib-drover
	if [ "$n" = "$SMALL" ]; then
		lab exec "$n" cp -a /var/lib/drover "$LAB_DIR/small-end"
		data=$LAB_DIR/small-end
	fi
	cat "$ACKED"/[0-9]* | python3 -c '
import sqlite3, sys
have = "".join(row[0] + "\n" for row in sqlite3.connect(sys.argv[1]).execute("SELECT what FROM history WHERE exit = 0"))
have = {int(word.split("=")[1]) for word in have.split() if word.startswith("bandwidth=")}
acked = {int(line) for line in sys.stdin}
if acked - have:
    sys.exit(f"acknowledged and missing: {sorted(acked - have)[:10]} ({len(acked - have)} of {len(acked)})")
' "$data/state.db" || fail "$n has lost commands"
done
