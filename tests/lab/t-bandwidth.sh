#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# alone
# time-limit: 420
# --bandwidth 50MB holds with one move and with four, seen from the sending interface: seconds, 10 s windows, and the median.
# The moves' own bytes_wire agree with the interface.
# shellcheck source-path=SCRIPTDIR source=testlib.sh
. "$(dirname "$0")/testlib.sh"
# shellcheck source=drainlib.sh
. "$(dirname "$0")/drainlib.sh"
requires ip qemu-system-x86_64 corosync jq python3

LIMIT=50000000
lab_start --vms 4 --vm-memory 512MiB --fill random
drover limit set --bandwidth 50MB >/dev/null

sampler=''
# shellcheck disable=SC2016 # awk expands it
sent_bytes() { lab exec "$1" awk -F'[: ]+' '$2 == "mig1" { print $11 }' /proc/net/dev; } # NODE
sample_start() { # NODE MOVES
	mkfifo "$LAB_DIR/sampler"
	lab exec "$1" "$TEST_SOURCE/rate-sample" mig1 "$LIMIT" "$2" <"$LAB_DIR/sampler" >"$LAB_DIR/rates" &
	sampler=$!
	exec 7>"$LAB_DIR/sampler"
	tx_before=$(sent_bytes "$1")
}
sample_end() { # NODE
	tx_after=$(sent_bytes "$1")
	echo >&7
	exec 7>&-
	wait "$sampler"
	rm "$LAB_DIR/sampler"
	note "$(cat "$LAB_DIR/rates")  (wanted: max <= 1.05, median >= 0.95, max_10s <= 1.05)"
	jq -e '.seconds >= 5 and .max <= 1.05 and .median >= 0.95 and (.max_10s == null or .max_10s <= 1.05)' "$LAB_DIR/rates" >/dev/null ||
		fail "the limit of 50 MB/s does not hold: $(cat "$LAB_DIR/rates")"
}
agree() { # BYTES-WIRE: the counter includes headers (4.5 %) and what is repeated
	jq -en --argjson tx "$((tx_after - tx_before))" --argjson wire "$1" '($tx * 1448 / 1514 / $wire) as $r | $r > 0.94 and $r < 1.06' >/dev/null ||
		fail "the interface sent $((tx_after - tx_before)) bytes, the moves say $1"
}

note "one move"
drover limit set --max-moves 1 >/dev/null
sample_start node1 1
drover vm move vm1 --to node2 --wait >/dev/null
sample_end node1
agree "$(djson move list | jq '[.moves[].bytes_wire] | add')"

note "four moves"
drover vm move vm1 --to node1 --wait >/dev/null
drover limit set --max-moves 4 >/dev/null
sample_start node1 4
drover node drain node1 --wait || fail "the drain failed"
sample_end node1
agree "$(djson drain show node1 | jq '[.moves[].bytes_wire] | add')"
expect_intact
