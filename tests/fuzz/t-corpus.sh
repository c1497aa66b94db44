#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# What the fuzzers once found, and the seeds that they begin with, go through each parser once (configure without --enable-fuzzers).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

status=0
for target in "${TARGETS[@]}"; do
	inputs=("$TEMP/seeds/$target")
	[ ! -d "$HERE/corpus/$target" ] || inputs+=("$HERE/corpus/$target")
	if "./$target" "${inputs[@]}" >"$TEMP/out" 2>&1; then
		echo "ok: $target: $(cat "$TEMP/out")"
	else
		echo "FAILED: $target:"
		cat "$TEMP/out"
		status=1
	fi
done
exit $status
