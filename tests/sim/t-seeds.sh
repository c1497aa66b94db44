#!/bin/sh
# Whole clusters under faults. DROVER_FULL=1: as many seeds as a release needs.
set -eu
if [ "${DROVER_FULL:-0}" = 1 ]; then
	exec ./run --seeds 1..20000
fi
exec ./run --seeds 1..2000
