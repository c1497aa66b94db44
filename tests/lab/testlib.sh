# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# For the lab tests (t-*.sh), which source it first. A test gets a lab name of its own, which ends with it on every path; a test
# that cannot run here says so with skip. No sleeps: wait for what is meant, with poll.
set -euo pipefail

TEST_SOURCE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
TEST_NAME=$(basename "$0" .sh)
export DROVER_LAB=${DROVER_LAB:-${TEST_NAME#t-}-$$}
LAB_BASE=${DROVER_LAB_BASE:-/var/lib/drover-lab}
LAB_DIR=$LAB_BASE/$DROVER_LAB
SKIP_STATUS=77

note() { echo "# $*"; }
fail() {
	echo "FAILED: $*" >&2
	exit 1
}
skip() {
	echo "SKIP: $*"
	exit "$SKIP_STATUS"
}

requires() { # PROGRAM...
	local p
	[ "$(id -u)" = 0 ] || skip "needs root"
	for p; do command -v "$p" >/dev/null || skip "$p is not installed (packaging/setup installs it)"; done
}

lab() {
	local verb=$1
	shift
	"$TEST_SOURCE/drover-lab" "$verb" --name "$DROVER_LAB" "$@"
}

cleanup() {
	local status=$?
	trap - EXIT
	if [ "$status" != 0 ] && [ "$status" != "$SKIP_STATUS" ] && [ -e "$LAB_DIR/shape" ]; then
		echo "--- the lab at the end"
		timeout 60 "$TEST_SOURCE/drover-lab" status --name "$DROVER_LAB" || true
		tail -n 20 "$LAB_DIR"/log/* 2>/dev/null || true
	fi
	timeout 90 "$TEST_SOURCE/drover-lab" down --name "$DROVER_LAB" || true
	exit "$status"
}

lab_start() { # OPTIONS of drover-lab up
	trap cleanup EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	lab up "$@"
}

# poll SECONDS WHAT COMMAND...: until the command succeeds; fails with WHAT.
poll() {
	local seconds=$1 what=$2 end
	shift 2
	end=$((SECONDS + seconds))
	until "$@"; do
		[ "$SECONDS" -lt "$end" ] || fail "waited $seconds s in vain: $what"
		sleep 0.1
	done
}

check() { # WHAT COMMAND...
	local what=$1
	shift
	"$@" || fail "$what"
}

check_not() { # WHAT COMMAND...
	local what=$1
	shift
	! "$@" || fail "$what"
}

same() { # WHAT WANTED GOT
	[ "$2" = "$3" ] || fail "$1: wanted \"$2\", got \"$3\""
}

# True when nothing of the lab is left on this machine.
nothing_left() {
	local left
	left=$(
		find /run/netns -maxdepth 1 -name "drover-$DROVER_LAB-*" 2>/dev/null
		[ ! -e "$LAB_DIR" ] || echo "$LAB_DIR"
		grep -F "$LAB_DIR" /proc/self/mounts
		pgrep -a -f -- "$LAB_DIR(/| |\$)"
	) || true
	[ -z "$left" ] && return
	note "left: $left"
	return 1
}

guest_says() { # VM JQ-CONDITION
	local verdict
	verdict=$(lab guest "$1") || [ $? = 1 ] || return 1
	jq -e "$2" <<<"$verdict" >/dev/null
}

# --- QEMUs without Drover -----------------------------------------------------------------------------------------------

monitor_of() { echo "$LAB_DIR/shared/$1-$2.qmp"; }          # NODE VM
qmp() { "$TEST_SOURCE/qmp" "$(monitor_of "$1" "$2")" "${@:3}"; } # NODE VM COMMAND [JSON]

qemu_start() { # NODE VM MORE-ARGUMENTS...
	local node=$1 vm=$2 args
	shift 2
	mapfile -t args < <(lab qemu-args "$vm")
	# shellcheck disable=SC2016 # expanded by the inner shell
	lab exec "$node" bash -c 'log=$1; shift; setsid "$@" </dev/null >>"$log" 2>&1 &' _ "$LAB_DIR/log/$node-$vm.log" \
		qemu-system-x86_64 "${args[@]}" -qmp "unix:$(monitor_of "$node" "$vm"),server=on,wait=off" "$@"
	poll 20 "QEMU of $vm on $node to answer" qmp_answers "$node" "$vm"
}

qmp_answers() { qmp "$1" "$2" query-status >/dev/null 2>&1; }
qemu_runs() { [ "$(qmp "$1" "$2" query-status | jq -r .status)" = running ]; }

# qemu_migrate VM FROM TO ADDRESS: QEMU's own migration. The destination runs when it is over.
qemu_migrate() {
	qemu_start "$3" "$1" -incoming "tcp:$4:4444"
	qmp "$2" "$1" migrate-set-parameters '{"max-bandwidth": 0}' >/dev/null
	qmp "$2" "$1" migrate "{\"uri\": \"tcp:$4:4444\"}" >/dev/null
	poll 60 "the end of the migration of $1" migration_over "$2" "$1"
	same "migration of $1" completed "$(qmp "$2" "$1" query-migrate | jq -r .status)"
	poll 20 "$1 to run on $3" qemu_runs "$3" "$1"
}

migration_over() { qmp "$1" "$2" query-migrate | jq -e '.status == "completed" or .status == "failed"' >/dev/null; }
