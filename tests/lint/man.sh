#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# The manual pages are clean roff, and say every verb and option that the command has, every key of the configuration, and every phase and
# state of a move; the limits that they state are those of the code.
. "$(dirname "$0")/lib.sh"

requires groff
drover=${DROVER_BUILDDIR:-$SRC}/cli/drover
[ -x "$drover" ] || skip "$drover is not built"

text() { # PAGE: its words in one line, without marks
	groff -t -man -Tascii -P-c -rHY=0 -rLL=1000n "$1" | sed 's/.\x08//g' | tr -s ' \n\t' ' '
}

for page in man/*.[1578]; do
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

page=$(text man/drover-protocol.7)
while read -r word; do
	[[ $page == *[\ ,.]"$word"[\ ,.:]* ]] || complain "man/drover-protocol.7 does not have the phase or state $word"
done < <(
	sed -n 's/^\t\(SRC_[A-Z]*\|DST_[A-Z]*\|PHASE_GONE\) = .*/\1/p' proto/drover.proto
	sed -n '/^} transitions/,/^};/d; s/^\t{"\([a-z]*\)", {"[a-z].*/\1/p' coordinator/apply_move.c
	printf '%s\n' "done" cancelled failed
)

page=$(text man/drover-security.7)
while IFS=: read -r file define words; do
	grep -qF "define $define" "$file" || complain "man/drover-security.7 states another limit than $file: $define"
	[[ $page == *"$words"* ]] || complain "man/drover-security.7 does not say '$words' ($define)"
done <<'END'
proto/frame.h:FRAME_LENGTH_MAX (8u << 20):8 MiB
proto/conn.h:CONN_QUEUE_MAX	      (64u << 20):64 MiB for a connection
proto/conn.h:CONN_HANDSHAKE_MS     5000:64 connections, 5 s each
proto/conn.h:LISTENER_UNAUTHED_MAX 64:64 connections, 5 s each
relay/chunk.h:CHUNK_SIZE_MAX (1u << 20):chunk of a move 1 MiB
relay/stream.h:TX_WINDOW_MAX (64u << 20):window of 64 MiB
relay/sandbox.h:SANDBOX_FILES  64:64 descriptors
relay/sandbox.h:SANDBOX_MEMORY (512u << 20):512 MiB of addresses
agent/qmp.h:QMP_LINE_MAX	   (1u << 20):1 MiB, 64 levels deep
agent/lease.h:LEASE_DURATION_MAX 600000000ull:10 minutes at most
coordinator/raft_rpc.h:RAFT_RPC_SNAPSHOT_MAX (1u << 30):1 GiB; its digest
coordinator/server.h:SERVER_TOKEN_BYTES     24:24 random bytes
END
finish
