# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# For lab tests that fence; sourced after drainlib.sh. The lab's power switch: a process outside of the nodes that takes one
# request of the fence agent (fence/fence_lab) after the other. What a host asked for that is dead by then is dropped, as its
# connection would be.

FENCE_PID=''

fence_device_start() {
	mkdir -p "$LAB_DIR/shared/fence"
	chmod 777 "$LAB_DIR/shared/fence"
	fence_device </dev/null >"$LAB_DIR/log/fence-device.log" 2>&1 &
	FENCE_PID=$!
}

fence_device() {
	local request name plug from
	trap - EXIT
	while [ -e "$LAB_DIR/shape" ]; do
		for request in "$LAB_DIR/shared/fence"/node*.node*.*; do
			[ -e "$request" ] || continue
			name=${request##*/} plug=${name%%.*} from=${name#*.} from=${from%%.*}
			if node_off "$from"; then
				echo "$name: dropped, $from is off"
			elif node_off "$plug" || lab crash "$plug"; then
				: >"$LAB_DIR/shared/fence/$plug.off"
				echo "$name: done"
			fi
			rm -f "$request"
		done
		sleep 0.1
	done
}

fence_device_stop() { [ -z "$FENCE_PID" ] || kill "$FENCE_PID" 2>/dev/null || true; }

node_off() { grep -q "^$1: off" <<<"$(lab status)"; }

# Powers a fenced host on again.
fence_boot() { # NODE
	rm -f "$LAB_DIR/shared/fence/$1.off"
	lab boot "$1"
}

fence_set() { # NODE MODE
	drover node set "$1" --fence "fence_lab,plug=$1,mode=$2,password=hunter2" >/dev/null
}
