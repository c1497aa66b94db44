#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# Runs each fuzzer for $DROVER_FUZZ_SECONDS (default 60), as many at a time as there are processors (configure --enable-fuzzers).
# What fails is kept beside this script's output, in the build tree: crash-* of tests/fuzz; put it into corpus/TARGET with its fix.
# --keep: new inputs that reach more of the code are put into corpus/TARGET.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

SECONDS_EACH=${DROVER_FUZZ_SECONDS:-60}

fuzz() { # TARGET
	local target=$1 folders
	folders=("$TEMP/new/$target" "$TEMP/seeds/$target")
	[ ! -d "$HERE/corpus/$target" ] || folders+=("$HERE/corpus/$target")
	if "./$target" -max_total_time="$SECONDS_EACH" -timeout=20 -rss_limit_mb=2048 -max_len=16384 -print_final_stats=1 \
		-artifact_prefix="$PWD/crash-$target-" "${folders[@]}" >"$TEMP/$target.log" 2>&1; then
		echo "ok: $target: $(awk '/number_of_executed_units/ { print $2 }' "$TEMP/$target.log") inputs, $(
			awk '/ cov: / { for (i = 1; i < NF; i++) if ($i == "cov:") cov = $(i + 1) } END { print cov }' "$TEMP/$target.log"
		) edges"
	else
		echo "FAILED: $target:"
		tail -n 40 "$TEMP/$target.log"
		return 1
	fi
}

keep() { # TARGET: the least set of inputs that reaches as much
	mkdir -p "$HERE/corpus/$1"
	"./$1" -merge=1 -max_len=4096 "$HERE/corpus/$1" "$TEMP/new/$1" >"$TEMP/merge.log" 2>&1 || {
		cat "$TEMP/merge.log"
		return 1
	}
}

status=0 waiting=("${TARGETS[@]}")
while [ ${#waiting[@]} -gt 0 ]; do
	pids=()
	for target in "${waiting[@]:0:$(nproc)}"; do
		fuzz "$target" &
		pids+=($!)
	done
	waiting=("${waiting[@]:$(nproc)}")
	for pid in "${pids[@]}"; do wait "$pid" || status=1; done
done
if [ "${1:-}" = --keep ]; then
	for target in "${TARGETS[@]}"; do keep "$target"; done
fi
exit $status
