# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# For lab tests that use Drover itself; sourced after testlib.sh.

drover() { lab cli "$@" </dev/null; }
djson() { # [--on NODE] ARGS...
	local on=()
	if [ "$1" = --on ]; then
		on=(--on "$2")
		shift 2
	fi
	drover "${on[@]}" --json "$@"
}

# djq FILTER ARGS...: a field of an answer.
djq() {
	local filter=$1
	shift
	djson "$@" | jq -r "$filter"
}

# says CONDITION ARGS...: whether jq's condition holds for an answer; a command that fails does not hold.
says() {
	local condition=$1 answer
	shift
	answer=$(djson "$@" 2>/dev/null) || return 1
	jq -e "$condition" <<<"$answer" >/dev/null
}

# Every coordinator has applied the same commands and has the same state. Each tells of its own soon after it has applied one, and
# an idle cluster applies one a second: they are seen at one index.
same_digests() { says '[.coordinators[] | [.index, .digest]] | unique | length == 1' --on "${1:-node1}" cluster status; } # [NODE]

# expect_exit STATUS WORDS ARGS...: the exit status, and what the message must name.
expect_exit() {
	local wanted=$1 words=$2 status=0 out
	shift 2
	out=$(drover "$@" 2>&1) || status=$?
	[ "$status" = "$wanted" ] || fail "drover $*: exit status $status, wanted $wanted; it said: $out"
	[ -z "$words" ] || grep -qiE -- "$words" <<<"$out" || fail "drover $*: its message does not name \"$words\": $out"
}

vms() { djq '.vms[].name' vm list; }
vms_on() { # NODE
	djson vm list | jq -r --arg n "$1" '.vms[] | select(.node == $n) | .name'
}
count_on() { vms_on "$1" | grep -c . || true; }

# Every VM's memory is intact and no beat was lost or repeated; each runs on exactly one node, the one that Drover says.
expect_intact() {
	local vm verdict node
	for vm in $(vms); do
		verdict=$(lab guest "$vm") || fail "$vm is not intact: $verdict"
		node=$(djson vm list | jq -r --arg v "$vm" '.vms[] | select(.name == $v) | .node')
		same "$vm runs on" "[\"$node\"]" "$(jq -c .nodes_running <<<"$verdict")"
	done
}

expect_one_copy() { # VM: beats come from one node, none twice
	local verdict
	verdict=$(lab guest "$1") || true
	jq -e '.repeated == 0 and .backward == 0 and .errors == 0 and (.nodes_running | length) <= 1' <<<"$verdict" >/dev/null ||
		fail "$1: $verdict"
}

drain_over() { says '.drain.state == "done" or .drain.state == "failed" or .drain.state == "cancelled"' drain show "$1"; } # ID|NODE
moves_over() { says '.moves == []' move list --active; }

# Nothing of a move is left on any node: no relay, no QEMU beyond the VMs, no nonce.
expect_no_remains() {
	local n running
	for n in "$@"; do
		check_not "a relay is left on $n" lab exec "$n" pgrep -x drover-relay
		running=$(lab exec "$n" pgrep -c -x 'qemu-system-x86' || true)
		same "QEMUs on $n" "$(djson vm list | jq --arg n "$n" '[.vms[] | select(.node == $n and .state == "running")] | length')" "$running"
	done
	[ -z "$(find "$LAB_DIR" -name '.drover-nonce-*' 2>/dev/null)" ] || fail "nonces are left: $(find "$LAB_DIR" -name '.drover-nonce-*')"
}
