#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# No shell script has anything that shellcheck would speak of.
. "$(dirname "$0")/lib.sh"

requires shellcheck
scripts() {
	local file
	while read -r file; do
		case $(head -c 64 "$file" | head -n 1 | tr -d '\0') in
		'#!'*sh | '#!'*'sh '* | '# shellcheck shell='*) echo "$file" ;;
		esac
	done < <(find quickstart .ci packaging tests -type f -size -200k ! -name '*.[cho]' -not -path '*/build/*' 2>/dev/null)
	echo packaging/bash-completion/drover
}
mapfile -t files < <(scripts | sort -u)
for file in "${files[@]}"; do
	dialect=()
	[ "$file" != packaging/bash-completion/drover ] || dialect=(-s bash)
	# Sourced files are looked at by themselves.
	shellcheck -x -e SC1090,SC1091 "${dialect[@]}" "$file" || complain "$file: shellcheck found the above"
done
echo "${#files[@]} scripts looked at"
finish
