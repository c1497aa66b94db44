# shellcheck shell=bash
# What the lint tests share. DROVER_SRCDIR: the source tree (default: the one that this file is in).
set -euo pipefail

SRC=${DROVER_SRCDIR:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
cd "$SRC"

# Automake's word for a test that cannot run here.
skip() {
	echo "SKIP: $*"
	exit 77
}

requires() { # PROGRAM
	command -v "$1" >/dev/null || skip "$1 is not installed: packaging/setup test installs it"
}

# Every C file of ours; no generated ones, no build directories. The build may be anywhere below the source.
c_files() {
	find common proto db coordinator agent relay cli tests -name '*.[ch]' ! -name '*.pb-c.*' -not -path '*/build/*' 2>/dev/null | sort
}

failures=0
complain() {
	echo "$*"
	failures=$((failures + 1))
}

finish() {
	if [ "$failures" != 0 ]; then
		echo "$failures to mend"
		exit 1
	fi
}
