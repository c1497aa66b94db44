#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# cppcheck finds nothing. A false alarm is silenced where it is, with a cppcheck-suppress comment.
. "$(dirname "$0")/lib.sh"

requires cppcheck
mapfile -t files < <(c_files | grep '\.c$' | grep -v '^tests/guest/')
# It does not know the cleanup attribute (common/cleanup.h), so its leaks are none; the sanitizers look for those. Tables of
# strings with fewer elements than room confuse its guess about redundant conditions.
cppcheck --quiet --std=c11 --enable=warning,portability --inline-suppr --error-exitcode=1 -j 2 \
	--suppress=missingInclude --suppress=unknownMacro --suppress=resourceLeak --suppress=memleak \
	--suppress=nullPointerRedundantCheck --suppress=getpwnamCalled --suppress=readdirCalled --suppress=leakReturnValNotUsed:tests/* \
	-D_GNU_SOURCE -I. "${files[@]}" || complain "cppcheck found the above"
finish
