#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# time-limit: 420
# Two networks of the same rank carry a copy together; one of them is cut in mid-copy, by its carrier and silently: the move
# completes and its VM is intact. Of two ranks the better one carries all; cut, the next takes over; healed, it is used again.
# shellcheck source-path=SCRIPTDIR source=testlib.sh
. "$(dirname "$0")/testlib.sh"
# shellcheck source=drainlib.sh
. "$(dirname "$0")/drainlib.sh"
requires ip qemu-system-x86_64 corosync jq

lab_start --vms 1 --vm-memory 384MiB --fill random --rate mig1=200mbit --rate mig2=200mbit

declare -A before
# shellcheck disable=SC2016 # awk expands it
sent_over() { lab exec "$1" awk -F'[: ]+' -v net="$2" '{ sub(/^ +/, "") } $1 == net { print $10 }' /proc/net/dev; } # NODE NET
sent_start() { # NODE
	from=$1
	before[mig1]=$(sent_over "$1" mig1)
	before[mig2]=$(sent_over "$1" mig2)
}
mib_over() { # NET
	echo $((($(sent_over "$from" "$1") - ${before[$1]}) >> 20))
}
carried() { [ "$(mib_over "$1")" -ge "$2" ]; } # NET MIB
move_start() { # TO [OPTIONS]: begins a move of vm1, and waits until some of it is copied
	move=$(djq .move.id vm move vm1 --to "$@")
	poll 60 "the copy of move $move" says '.move.state == "copying" and .move.bytes_wire > 20000000' move show "$move"
}
move_end() {
	poll 120 "move $move to end" says '.move.state == "done" or .move.state == "failed"' move show "$move"
	check "move $move failed: $(drover move show "$move")" says '.move.state == "done"' move show "$move"
	expect_intact
	note "move $move: attempt $(djq .move.attempt move show "$move"), mig1 $(mib_over mig1) MiB, mig2 $(mib_over mig2) MiB, $(djq .move.duration_ms move show "$move") ms"
}
event_says() { says "[.events[] | select(.move == $move and (.text | test(\"$1\")))] | length > 0" event list; }

drover network order mig1=1 mig2=1 >/dev/null
drover vm set vm1 --blackout 2s >/dev/null # this is not about pauses, and the machine may be busy

note "both networks of the rank"
sent_start node1
move_start node2 --mode multichannel
poll 60 "both networks to be in use" says '.move.networks == ["mig1", "mig2"]' move show "$move"
poll 60 "figures of both" says \
	'[.move.channels[] | select(.up and .bytes_wire > 5000000 and .bytes_again == 0) | .network] == ["mig1", "mig2"]' move show "$move"
move_end
check "mig1 carried $(mib_over mig1) MiB" carried mig1 100
check "mig2 carried $(mib_over mig2) MiB" carried mig2 100

note "one of them loses its carrier in mid-copy"
sent_start node2
move_start node1
lab cut node2 mig1
poll 10 "an event" event_says "lost network mig1"
move_end
check "mig2 carried $(mib_over mig2) MiB" carried mig2 250
check_not "QEMU or Drover lost all channels" event_says "every channel"
lab heal node2 mig1

note "one of them drops everything silently"
sent_start node1
move_start node2
lab cut node1 mig2 --silent
poll 10 "an event" event_says "lost network mig2"
move_end
check "mig1 carried $(mib_over mig1) MiB" carried mig1 250
check_not "QEMU or Drover lost all channels" event_says "every channel"
lab heal node1 mig2

note "mode tcp: one stream on one network"
sent_start node2
move_start node1 --mode tcp
move_end
check "mig2 carried $(mib_over mig2) MiB" [ "$(mib_over mig2)" -le 5 ]

note "the second rank takes over, and gives back"
drover network order mig1=1 mig2=2 >/dev/null
sent_start node1
move_start node2
check "mig2 carried $(mib_over mig2) MiB" [ "$(mib_over mig2)" -le 5 ]
lab cut node1 mig1 --silent
poll 10 "mig2 to carry the copy" carried mig2 20
check "no event says so" event_says "uses network mig2 .rank 2."
healed=$(date +%s%3N)
lab heal node1 mig1
poll 10 "mig1 to be used again" says '.move.state == "done" or .move.state == "failed" or .move.networks == ["mig1"]' move show "$move"
took=$(($(date +%s%3N) - healed))
check "the copy was over before mig1 was used again" says '.move.networks == ["mig1"]' move show "$move"
note "used again after $took ms (wanted: 3000)"
check "mig1 was used again only after $took ms" [ "$took" -le 4500 ]
move_end
check "no event says that mig1 is used again" event_says "uses network mig1 .rank 1. again"
expect_no_remains node1 node2
