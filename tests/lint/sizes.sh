#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# DESIGN §2: files stay under 800 lines and functions under about 80, so that each can be read at once.
. "$(dirname "$0")/lib.sh"

FILE_MOST=800
FUNCTION_MOST=90

# Functions begin with "{" and end with "}" in the first column (clang-format sees to that).
long_functions() { # FILE
	awk -v most=$FUNCTION_MOST '
		/^[a-zA-Z_].*\(/ { name = $0 }
		/^\{/ { start = FNR }
		/^\}/ && start {
			if (FNR - start > most)
				printf "%s:%d: function of %d lines, at most %d: %s\n", FILENAME, start, FNR - start, most, name
			start = 0
		}' "$1"
}

while read -r file; do
	lines=$(wc -l <"$file")
	[ "$lines" -le $FILE_MOST ] || complain "$file: $lines lines, at most $FILE_MOST: split it"
	while read -r line; do
		complain "$line"
	done < <(long_functions "$file")
done < <(c_files; find quickstart packaging/setup tests -name '*.sh' -o -name quickstart -o -name setup)
finish
