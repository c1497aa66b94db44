#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# Every C file is formatted as .clang-format says.
. "$(dirname "$0")/lib.sh"

requires clang-format
version=$(clang-format --version | sed -n 's/.*version \([0-9]*\)\..*/\1/p')
[ "$version" = 14 ] || skip "clang-format $version formats otherwise than 14, which the tree is written with"

while read -r file; do
	clang-format "$file" | cmp -s - "$file" || complain "$file: run clang-format -i on it"
done < <(c_files)
finish
