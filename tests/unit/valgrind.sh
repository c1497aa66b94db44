#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# valgrind.sh [--jobs N] [PROGRAM...]: the unit tests and a slice of the simulator under valgrind, in the build tree
# $DROVER_BUILDDIR (default: the one that holds the current directory). An error, a leak or a failed test is a failure. What a
# test leaves out under valgrind says so in its source (tests/unit/valgrind.h). The last line is "N passed, N failed, N skipped".
#
# Children that only fork are looked at, too; programs that a test starts are not: they end by signals, with open books.
set -euo pipefail

BUILD=${DROVER_BUILDDIR:-$PWD}
while [ -z "${DROVER_BUILDDIR:-}" ] && [ ! -e "$BUILD/config.status" ] && [ "$BUILD" != / ]; do BUILD=$(dirname "$BUILD"); done
JOBS=$(nproc)
LIMIT=900 # seconds for one program

usage() {
	sed -n '4,6s/^# //p' "${BASH_SOURCE[0]}" >&2
	exit 2
}

programs=()
while [ $# -gt 0 ]; do
	case $1 in
	--jobs)
		JOBS=${2:?--jobs needs a number}
		shift
		;;
	-*) usage ;;
	*) programs+=("$1") ;;
	esac
	shift
done

command -v valgrind >/dev/null || {
	echo "valgrind is not installed: packaging/setup test installs it"
	echo "0 passed, 0 failed, 1 skipped"
	exit 77
}
if ! [ -x "$BUILD/tests/unit/test-fsm" ] || ! [ -x "$BUILD/tests/sim/run" ]; then
	echo "no unit tests in $BUILD: make check builds them" >&2
	exit 2
fi
if [ ${#programs[@]} = 0 ]; then
	# The long ones first.
	programs=(test-relay sim)
	for program in "$BUILD"/tests/unit/test-*; do
		if [ -x "$program" ] && [[ $program != *.* ]] && [ "${program##*/}" != test-relay ]; then
			programs+=("${program##*/}")
		fi
	done
fi

LOGS=$(mktemp -d "${TMPDIR:-/tmp}/drover-valgrind-XXXXXX")
trap 'rm -rf "$LOGS"' EXIT
end_early() {
	local pids
	pids=$(jobs -pr)
	# shellcheck disable=SC2086 # a list of numbers
	[ -z "$pids" ] || pkill -TERM -P "${pids//$'\n'/,}" || true
	exit 143
}
trap end_early INT TERM HUP

# Moves of the simulator with each fault, before and after the source's word, and one in each scene: the whole matrix takes an
# hour under valgrind (the sanitizers see it all: quickstart).
simulator() {
	local fault scene
	for fault in src-agent dst-agent src-relay dst-relay src-qemu dst-qemu leader return data all dst-all stop-src stop-dst late-order pid-reuse; do
		"$@" "$BUILD/tests/sim/run" --case "plain,4,23,$fault,0,1" || return
		"$@" "$BUILD/tests/sim/run" --case "plain,7,24,$fault,0,1" || return
	done
	for scene in plain large cancel other-storage no-room; do
		"$@" "$BUILD/tests/sim/run" --case "$scene,4,23,none,0,1" || return
	done
}

one() { # PROGRAM; its verdict in $LOGS/PROGRAM.status
	local status=0 start=$SECONDS
	local leaks=definite,indirect,possible
	local -a under=(timeout --kill-after=10 "$LIMIT" valgrind --quiet --error-exitcode=99 --leak-check=full
		--show-leak-kinds="$leaks" --errors-for-leak-kinds="$leaks" --child-silent-after-fork=yes)
	case $1 in
	sim) simulator "${under[@]}" ;;
	*) (cd "$BUILD/tests/unit" && "${under[@]}" "./$1") ;;
	esac >"$LOGS/$1.log" 2>&1 </dev/null || status=$?
	echo "$status $((SECONDS - start))" >"$LOGS/$1.status"
}

for program in "${programs[@]}"; do
	while [ "$(jobs -pr | wc -l)" -ge "$JOBS" ]; do wait -n || true; done
	one "$program" &
done
wait

passed=0 failed=0
for program in "${programs[@]}"; do
	read -r status seconds <"$LOGS/$program.status"
	if [ "$status" = 0 ]; then
		passed=$((passed + 1))
		echo "ok       $program ($seconds s)"
		continue
	fi
	failed=$((failed + 1))
	echo "FAILED   $program (status $status, $seconds s), what it said:"
	grep -v '^--[0-9]*--\|  OK \] \|\[ RUN ' "$LOGS/$program.log" | head -n 80 | sed 's/^/         | /'
done
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
