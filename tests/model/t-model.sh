#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# Spin searches the model of ownership (ownership.pml) completely: it must find nothing in the model as it is, no loop in it (so
# that each run ends, where the model checks that all is well), and something in each of the seeded faults.
# DROVER_FULL=1: larger bounds, among them one search that is not complete (bitstate).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
model=$here/ownership.pml
MEMORY_MB=2000
SECONDS_MOST=600

if ! command -v spin >/dev/null; then
	echo "spin is not installed: packaging/setup test installs it"
	[ "${CI:-}" != true ] || exit 1
	exit 77
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
failures=0

# search "SPIN OPTIONS" "COMPILER OPTIONS" [PAN OPTIONS...]: leaves pan's words in out
search() {
	local spin_options cc_options
	read -ra spin_options <<<"$1"
	read -ra cc_options <<<"$2"
	shift 2
	rm -f pan pan.* out ./*.trail
	spin "${spin_options[@]}" -a "$model" >spin.out 2>&1 || {
		cat spin.out
		exit 1
	}
	# One process: nothing to reduce.
	gcc -w -DNOREDUCE -DMEMLIM=$MEMORY_MB "${cc_options[@]}" -o pan pan.c
	timeout $SECONDS_MOST ./pan -m100000 -n "$@" >out 2>&1 || echo "pan ended with status $?" >>out
}

figures() {
	sed -n 's/^ *\([0-9e+.]*\) states, stored.*/\1 states/p; s/.*depth reached \([0-9]*\).*/depth \1/p;
		s/^ *\([0-9.]*\).total actual memory usage/\1 MB/p; s/^pan: elapsed time \(.*\) seconds/\1 s/p' out | paste -sd, -
}

# Nothing found, and nothing left out.
clean() { # NAME, and what search takes
	local name=$1
	shift
	search "$@"
	if ! grep -q 'errors: 0' out || grep -q 'not completed\|max search depth\|reached -DMEMLIM\|pan ended\|out of memory' out; then
		echo "FAILED: $name"
		cat out
		failures=$((failures + 1))
	else
		echo "$name: complete, nothing found ($(figures))"
	fi
}

fault() { # NAME RULE BOUNDS
	search "-D$1 $3" "-O0 -DSAFETY"
	if grep -q 'assertion violated' out; then
		echo "fault $1 ($2): found ($(figures))"
	else
		echo "FAILED: fault $1 ($2) is not found"
		cat out
		failures=$((failures + 1))
	fi
}

clean "one attempt, two faults, one start" "-DATTEMPTS=1 -DFAULTS=2 -DSTARTS=1" "-O1 -DSAFETY"
clean "two attempts, one fault, one start" "-DATTEMPTS=2 -DFAULTS=1 -DSTARTS=1" "-O1 -DSAFETY"
clean "no loop: one attempt, one fault" "-DATTEMPTS=1 -DFAULTS=1 -DSTARTS=1" "-O1 -DNP" -l
clean "no loop: two attempts" "-DATTEMPTS=2 -DFAULTS=0 -DSTARTS=1" "-O1 -DNP" -l

fault COMMIT_ON_ONE_WORD R1 "-DATTEMPTS=1 -DFAULTS=0"
fault WORD_NOT_READ_BACK R1 "-DATTEMPTS=1 -DFAULTS=0"
fault CONT_ON_COMPLETED R4 "-DATTEMPTS=1 -DFAULTS=0"
fault CONT_UNDECIDED R4 "-DATTEMPTS=1 -DFAULTS=1"
fault ATTEMPT_NOT_COMPARED R5 "-DATTEMPTS=2 -DFAULTS=0"
fault LEASE_IS_PROOF R9 "-DATTEMPTS=1 -DFAULTS=1"
fault BOOT_NOT_COMPARED R9 "-DATTEMPTS=1 -DFAULTS=2 -DSTARTS=2"
fault TIMEOUT_MOVES_RIGHT R12 "-DATTEMPTS=1 -DFAULTS=1 -DSTARTS=2"
fault NEVER_TOLD progress "-DATTEMPTS=1 -DFAULTS=1"

if [ "${DROVER_FULL:-0}" = 1 ]; then
	MEMORY_MB=8000
	SECONDS_MOST=3600
	clean "one attempt, two faults, two starts" "-DATTEMPTS=1 -DFAULTS=2 -DSTARTS=2" "-O2 -DSAFETY"
	clean "no loop: one attempt, two faults" "-DATTEMPTS=1 -DFAULTS=2 -DSTARTS=2" "-O2 -DNP" -l
	clean "one attempt, three faults" "-DATTEMPTS=1 -DFAULTS=3 -DSTARTS=1" "-O2 -DSAFETY"
	clean "two attempts, two faults (bitstate: not all states)" "-DATTEMPTS=2 -DFAULTS=2 -DSTARTS=1" "-O2 -DSAFETY -DBITSTATE" -w32
fi

[ "$failures" = 0 ] || exit 1
