#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# alone
# Nothing stays behind, however an `up` ends: killed outright at several moments, or asked to stop. And two labs live side by side.
# shellcheck source-path=SCRIPTDIR source=testlib.sh
. "$(dirname "$0")/testlib.sh"
requires ip nft corosync
trap cleanup EXIT

started() { # FILE: or the `up` in the background has ended already
	[ -e "$1" ] || ! kill -0 "$up" 2>/dev/null
}

up_until() { # FILE
	"$TEST_SOURCE/drover-lab" up --name "$DROVER_LAB" --no-cluster </dev/null >/dev/null 2>&1 &
	up=$!
	poll 60 "$1" started "$1"
}

for file in "$LAB_DIR/shape" "$LAB_DIR/node1/boot_id" "$LAB_DIR/node2/ready" "$LAB_DIR/node3/daemon/corosync" "$LAB_DIR/beat/vm1.sock"; do
	note "up is killed as soon as there is ${file#"$LAB_DIR/"}"
	up_until "$file"
	kill -KILL "$up" 2>/dev/null || true
	wait "$up" 2>/dev/null || true
	lab down
	poll 10 "everything to be gone" nothing_left
done

note "up is asked to stop"
up_until "$LAB_DIR/node2/ready"
kill -TERM "$up" 2>/dev/null || true
wait "$up" 2>/dev/null || true
poll 10 "everything to be gone" nothing_left

note "a second lab beside the first"
lab up --nodes 1 --no-cluster --vms 1
second=$DROVER_LAB-b
"$TEST_SOURCE/drover-lab" up --name "$second" --nodes 1 --no-cluster --vms 1
same "status of a second up" 125 "$(lab up --no-cluster 2>/dev/null || echo $?)"
"$TEST_SOURCE/drover-lab" down --name "$second"
same "the first lab" node1 "$(lab exec node1 hostname)"
lab down
poll 10 "everything to be gone" nothing_left
