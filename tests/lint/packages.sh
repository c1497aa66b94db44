#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# packaging/setup is the list of packages. What packaging/debian/control builds with is the same: nothing else, nothing missing.
. "$(dirname "$0")/lib.sh"

setup=$(packaging/setup --list build | sort)
control=$(sed -n '/^Build-Depends:/,/^[A-Z]/{s/^ \([a-z0-9.+-]*\).*/\1/p}' packaging/debian/control | sort)

for package in $control; do
	case $package in debhelper-compat) continue ;; esac
	grep -qx "$package" <<<"$setup" || complain "packaging/debian/control has $package, packaging/setup has not"
done
# dh brings these or Debian has them always.
for package in $setup; do
	case $package in autoconf | automake | binutils | gcc | libc6-dev | make) continue ;; esac
	grep -qx "$package" <<<"$control" || complain "packaging/setup has $package, packaging/debian/control has not"
done
finish
