#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# time-limit: 420
# Coordinators whose log is damaged, old or gone never vote with it: they come back as new members. A node is removed and joins again.
# A full disk stops a coordinator, the others say why, and it comes back by itself.
# shellcheck source-path=SCRIPTDIR source=testlib.sh
. "$(dirname "$0")/testlib.sh"
# shellcheck source=drainlib.sh
. "$(dirname "$0")/drainlib.sh"
requires ip qemu-system-x86_64 corosync jq

lab_start --vms 1

data() { echo "$LAB_DIR/$1/lib-drover"; }
member_of() { djq ".coordinators[] | select(.name == \"$1\") | .member" --on node1 cluster status; } # NODE: all its ids, one a line
votes() { says "[.coordinators[] | select(.name == \"$1\" and (.state == \"voter\" or .state == \"leader\"))] | length == 1" --on node1 cluster status; }
alone_in_list() { says "[.coordinators[] | select(.name == \"$1\")] | length == 1" --on node1 cluster status; }
settled() { votes "$1" && alone_in_list "$1"; }
# Every member holds the same state in the end: the indexes move on once a second, so look until they meet.
expect_healthy() { # NODE
	poll 60 "$1 to vote, alone of its name" settled "$1"
	poll 30 "the digests to be equal" same_digests
}
busy() { # a few commands, so that the log goes on
	local i
	for i in 1 2 3 4 5; do drover --on node1 limit set --max-moves $((i % 3 + 1)) >/dev/null; done
}
new_id_of() { # NODE OLD: it has another id now
	local now
	now=$(member_of "$1")
	[ -n "$now" ] && [ "$now" != "$2" ]
}

for n in node1 node2 node3; do poll 60 "$n to vote" votes "$n"; done

note "node3: a byte of its log is changed"
old=$(member_of node3)
busy
lab stop-daemon node3 coordinator
python3 - "$(data node3)/log.db" <<'PY'
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
n = db.execute("UPDATE entry SET data = CAST(x'00' || substr(data, 2) AS BLOB) WHERE idx = (SELECT max(idx) FROM entry)").rowcount
assert n == 1
db.commit()
PY
busy
lab start-daemon node3 coordinator
poll 60 "node3 to come back under another id" new_id_of node3 "$old"
expect_healthy node3
[ -e "$(data node3)/log.db.aside" ] || fail "the damaged log was not kept"

note "node2: an old copy of its log, whole in itself"
old=$(member_of node2)
lab stop-daemon node2 coordinator
cp -a "$(data node2)" "$LAB_DIR/copy"
lab start-daemon node2 coordinator
expect_healthy node2
busy
same "node2's id after a plain restart" "$old" "$(member_of node2)"
index=$(djq .index --on node1 cluster status)
poll 30 "the others to have seen how far node2 is" says ".coordinators[] | select(.name == \"node2\") | .index >= $index" --on node1 cluster status
lab stop-daemon node2 coordinator
rm -rf "$(data node2)"/log.*
cp -a "$LAB_DIR"/copy/log.* "$(data node2)"
lab start-daemon node2 coordinator
poll 60 "node2 to come back under another id" new_id_of node2 "$old"
expect_healthy node2

note "node3: its disk is gone; it joins with a token and takes its old place"
old=$(member_of node3)
lab kill-daemon node3 coordinator
rm -rf "$(data node3)"/log.* "$(data node3)/member"
token=$(djq .token --on node1 cluster token)
lab start-daemon node3 coordinator
address=$(sed -n 's/^connect=\([^,]*\).*/\1/p' "$LAB_DIR/node1/etc-drover/drover.conf")
joined() { drover --on node3 cluster join "$address" --token "$token" >/dev/null 2>&1; }
poll 60 "node3 to join" joined
poll 60 "node3 to come back under another id" new_id_of node3 "$old"
expect_healthy node3

note "node2 is removed while its coordinator is down"
lab stop-daemon node2 agent
expect_exit 6 'coordinator of node2 runs' --on node1 node remove node2
lab stop-daemon node2 coordinator
poll 30 "node2 to be removed" drover --on node1 node remove node2
gone() { [ -z "$(member_of node2)" ]; }
poll 30 "node2 to leave Raft" gone
lab start-daemon node2 coordinator
forgotten() { [ ! -e "$(data node2)/member" ]; }
poll 60 "node2 to notice that it was removed" forgotten
answers_alone() { [ "$(djq .cluster --on node2 cluster status 2>/dev/null)" != "$DROVER_LAB" ]; }
poll 30 "node2 to be in no cluster" answers_alone

note "node3: its disk is full"
expect_exit 0 '' --on node1 limit set --max-moves 2
lab stop-daemon node3 coordinator
cp -a "$(data node3)" "$LAB_DIR/small"
lab exec node3 mount -t tmpfs -o size=6m tmpfs /var/lib/drover
lab exec node3 cp -a "$LAB_DIR/small/." /var/lib/drover/
lab start-daemon node3 coordinator
expect_healthy node3
lab exec node3 dd if=/dev/zero of=/var/lib/drover/filler bs=64k 2>/dev/null || true
says_why() { says '.coordinators[] | select(.name == "node3") | .error | test("full")' --on node1 cluster status; }
full() {
	busy
	says_why
}
poll 120 "the others to say why node3 stopped" full
lab exec node3 rm /var/lib/drover/filler
expect_healthy node3
poll 30 "nothing to be wrong with node3" says '.coordinators[] | select(.name == "node3") | (.error // "") == ""' --on node1 cluster status
