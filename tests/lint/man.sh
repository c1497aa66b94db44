#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# The manual pages are clean roff, and say every verb and option that the command has and every key of the configuration.
. "$(dirname "$0")/lib.sh"

requires groff
drover=${DROVER_BUILDDIR:-$SRC}/cli/drover
[ -x "$drover" ] || skip "$drover is not built"

text() { # PAGE: its words in one line, without marks
	groff -t -man -Tascii -P-c -rHY=0 -rLL=1000n "$1" | sed 's/.\x08//g' | tr -s ' \n\t' ' '
}

for page in man/*.[158]; do
	warnings=$(groff -t -man -ww -Tutf8 -z "$page" 2>&1)
	[ -z "$warnings" ] || complain "$page: $warnings"
done

page=$(text man/drover.1)
while read -r _ noun verb _; do
	# "limit set [..]" and "update, top" alike
	[[ $page == *" $noun $verb"[\ ,.]* ]] || complain "man/drover.1 does not have: drover $noun $verb"
	while read -r option; do
		[[ $page == *"$option"[\ ,=.\|\]]* ]] || complain "man/drover.1 does not have: $option of drover $noun $verb"
	done < <("$drover" "$noun" "$verb" --help | sed -n '/not supported yet/!s/^  \(--[a-z-]*\).*/\1/p')
done < <(for noun in $("$drover" --help | sed -n '/^Nouns:/,/^$/s/^  \([a-z]*\) .*/\1/p'); do
	[ "$noun" = top ] || "$drover" "$noun" --help | sed -n 's/^  drover \(.*\)/drover \1/p'
done)

page=$(text man/drover.conf.5)
while read -r key; do
	[[ $page == *" $key="* ]] || complain "man/drover.conf.5 does not have the key $key"
done < <(sed -n 's/^\t{"\(node\|agent\)", "\([a-z_]*\)".*/\2/p' common/conf.c)
finish
