#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The ruler is straight: a busy probe guest that QEMU itself moves there and back is found intact.
# shellcheck source-path=SCRIPTDIR source=testlib.sh
. "$(dirname "$0")/testlib.sh"
requires ip qemu-system-x86_64 python3 jq

lab_start --nodes 2 --no-cluster --vms 1 --ws 16 --dirty 1000 --fill text
qemu_start node1 vm1
poll 60 "vm1 to beat on node1" guest_says vm1 '.nodes_running == ["node1"] and .passes >= 1'

note "there"
qemu_migrate vm1 node1 node2 10.77.1.2
poll 20 "vm1 to beat on node2 alone" guest_says vm1 '.nodes_running == ["node2"]'
qmp node1 vm1 quit >/dev/null

note "and back"
qemu_migrate vm1 node2 node1 10.77.2.1
qmp node2 vm1 quit >/dev/null
passes=$(lab guest vm1 | jq .passes)
poll 60 "two more complete passes over the memory" guest_says vm1 ".passes >= $passes + 2"

lab guest vm1 || fail "vm1 is not intact"
check "the verdict is wrong" guest_says vm1 \
	'.vm == "vm1" and .boots == 1 and .lost == 0 and .repeated == 0 and .backward == 0 and .errors == 0 and .first == 1 and
	.beats == .last and .noise == 0 and .nodes_running == ["node1"] and (.connections | length) == 3 and .max_gap_ms > 0'
