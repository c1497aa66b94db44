#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# The completion script of bash, driven as bash drives it, with the command that was built. No daemon is needed.
. "$(dirname "$0")/lib.sh"

drover=${DROVER_BUILDDIR:-$SRC}/cli/drover
[ -x "$drover" ] || skip "$drover is not built"
# shellcheck source=/dev/null
. packaging/bash-completion/drover

expect() { # LINE WORDS: what is offered for the line up to the cursor
	local offered
	COMP_LINE="$drover $1" COMP_POINT=$((${#drover} + 1 + ${#1})) COMPREPLY=()
	_drover
	offered="${COMPREPLY[*]}"
	[ "$offered" = "$2" ] || complain "drover $1: offers \"$offered\", not \"$2\""
}

expect "no" "node"
expect "node d" "drain"
expect "node drain n1 --wa" "--wait"
expect "vm add v --accel " "auto kvm tcg"
expect "vm add v --accel=k" "kvm"
expect "--json limit set --encrypt o" "on off"
expect "vm console" ""
expect "nonsense x" ""
finish
