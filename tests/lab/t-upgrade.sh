#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# time-limit: 900
# A rolling upgrade during a drain: three nodes of the version before this one are stopped and started with this one, one after the
# other. The cluster's version rises when the last one is new, and not before; no VM notices. A coordinator of the old kind that
# comes back then stops and says why; so does one that wants to join.
# DROVER_OLD_BUILDDIR: a build tree that was configured with --enable-compat-test; else one is made in $DROVER_BUILDDIR/old.
# shellcheck source-path=SCRIPTDIR source=testlib.sh
. "$(dirname "$0")/testlib.sh"
# shellcheck source=drainlib.sh
. "$(dirname "$0")/drainlib.sh"
requires ip qemu-system-x86_64 corosync jq

# Where the programs of the version before are; made when they are not there.
old_build() {
	local dir=${DROVER_OLD_BUILDDIR:-}
	if [ -z "$dir" ]; then
		dir=$DROVER_BUILDDIR/old
		mkdir -p "$dir"
		(
			cd "$dir"
			[ -e Makefile ] || "$TEST_SOURCE/../../configure" --enable-compat-test
			make -j2 SUBDIRS="common proto db coordinator agent relay cli"
		) >"$dir/build.log" 2>&1 || fail "the old version does not build: $(tail -n 5 "$dir/build.log")"
	fi
	echo "$dir"
}

[ -n "${DROVER_OLD_BUILDDIR:-}${DROVER_BUILDDIR:-}" ] || skip "set DROVER_BUILDDIR, or DROVER_OLD_BUILDDIR"
old=$(old_build)
old_programs=$old/programs
mkdir -p "$old_programs"
for program in coordinator/drover-coordinator agent/drover-agent relay/drover-relay cli/drover; do
	[ -x "$old/$program" ] || fail "$old/$program is missing"
	ln -sf "$old/$program" "$old_programs/"
done

raised() { djson event list | jq '[.events[] | select(.text | startswith("the cluster is at version"))] | length'; }
not_raised() { same "times that the cluster's version was raised" 0 "$(raised)"; }
is_raised() { [ "$(raised)" = 1 ]; }
all_vote() {
	says '.quorate and ([.coordinators[] | select(.state == "voter" or .state == "leader")] | length) == 3' cluster status &&
		says '[.nodes[] | select(.agent == "connected" and (.state == "up" or .state == "paused" or .state == "draining" or .state == "drained"))]
			| length == 3' node list
}

DROVER_BINDIR=$old_programs lab_start --ws 2 --dirty 100 --rate mig1=60mbit --vms 3
drover limit set --max-moves 1 >/dev/null
not_raised

id=$(djq .drain.id node drain node1)
poll 60 "the first copy" says '[.moves[] | select(.state == "copying")] | length > 0' move list --active
for node in node3 node2 node1; do
	note "$node is upgraded"
	not_raised
	for daemon in agent coordinator; do lab stop-daemon "$node" $daemon; done
	for daemon in coordinator agent; do lab start-daemon "$node" $daemon; done
	poll 60 "$node to take part again" all_vote
	[ "$node" != node3 ] || check "the drain was over too soon for this test" says '.drain.state == "running"' drain show "$id"
done
poll 30 "the cluster's version to rise" is_raised
poll 240 "the drain to end" drain_over "$id"
check "the drain is not done: $(drover drain show "$id")" says '.drain.state == "done"' drain show "$id"
expect_intact
expect_no_remains node1 node2 node3

note "a coordinator of the old version comes back"
lab stop-daemon node3 coordinator
DROVER_BINDIR=$old_programs lab start-daemon node3 coordinator
stopped() { grep -q 'upgrade this coordinator' "$(lab log node3 coordinator)" && ! lab pid node3 coordinator >/dev/null 2>&1; }
poll 30 "it to stop, and to say why" stopped
check "the others do not go on" says '.quorate' cluster status

note "it wants to join as a new one"
data=$LAB_DIR/node3/lib-drover
rm -rf "$data"/log.* "$data/member"
address=$(sed -n 's/^connect=\([^,]*\).*/\1/p' "$LAB_DIR/node1/etc-drover/drover.conf")
token=$(djq .token --on node1 cluster token)
DROVER_BINDIR=$old_programs lab start-daemon node3 coordinator
refused() {
	said=$(drover --on node3 cluster join "$address" --token "$token" 2>&1) && fail "an old coordinator was let in"
	[[ $said == *"upgrade it first"* ]]
}
poll 60 "the join to be refused" refused
lab stop-daemon node3 coordinator
lab start-daemon node3 coordinator
joined() { drover --on node3 cluster join "$address" --token "$token" >/dev/null 2>&1; }
poll 60 "the present version to join" joined
poll 60 "node3 to take part again" all_vote
drover node resume node1 >/dev/null
drover vm move "$(vms_on node2 | head -n 1)" --to node1 --wait >/dev/null || fail "nothing moves any more"
expect_intact
