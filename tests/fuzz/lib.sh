# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# What t-corpus.sh and t-fuzz.sh share: the targets, and inputs to begin with.
HERE=$DROVER_SRCDIR/tests/fuzz
TARGETS=(fuzz-apply fuzz-chunk fuzz-conf fuzz-frame fuzz-qmp fuzz-snapshot fuzz-wal)
TEMP=$(mktemp -d /tmp/drover-fuzz-XXXXXX)
export TMPDIR=$TEMP
trap 'rm -rf "$TEMP"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

"$HERE/seeds" "$DROVER_SRCDIR" "$TEMP/seeds"
for target in "${TARGETS[@]}"; do
	[ -n "$(ls -A "$TEMP/seeds/$target")" ] || {
		echo "FAILED: no seeds for $target"
		exit 1
	}
	mkdir -p "$TEMP/new/$target"
done
