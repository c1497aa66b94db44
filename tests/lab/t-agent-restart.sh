#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# An agent is stopped and started during a copy (an upgrade), on either side, or killed: the copy goes on, the VM does not notice.
# shellcheck source-path=SCRIPTDIR source=testlib.sh
. "$(dirname "$0")/testlib.sh"
# shellcheck source=drainlib.sh
. "$(dirname "$0")/drainlib.sh"
requires ip qemu-system-x86_64 corosync jq

lab_start --vms 1 --ws 2 --dirty 200 --rate mig1=100mbit

restart_during_copy() { # AGENT'S NODE, VERB, FROM, TO
	local move
	move=$(djq .move.id vm move vm1 --to "$4")
	poll 60 "the copy" says '.move.state == "copying" and .move.bytes_wire > 1000000' move show "$move"
	lab "$2-daemon" "$1" agent
	lab start-daemon "$1" agent
	poll 90 "the move to end" says '.move.state == "done" or .move.state == "failed"' move show "$move"
	check "the move was not carried on: $(djson move show "$move")" says '.move.state == "done" and .move.attempt == 1' move show "$move"
	expect_intact
	expect_no_remains node1 node2 node3
}

note "the source's agent is upgraded"
restart_during_copy node1 stop node1 node2
note "the destination's agent is upgraded"
restart_during_copy node3 stop node2 node3
note "the source's agent is killed"
restart_during_copy node3 kill node3 node1
note "the destination's agent is killed"
restart_during_copy node2 kill node1 node2
