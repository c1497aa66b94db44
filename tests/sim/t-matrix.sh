#!/bin/sh
# The move matrix: every (source phase × destination phase) × fault. DROVER_FULL=1: all delays, more seeds.
set -eu
if [ "${DROVER_FULL:-0}" = 1 ]; then
	exec ./run --matrix --seeds 4
fi
exec ./run --matrix --quick
