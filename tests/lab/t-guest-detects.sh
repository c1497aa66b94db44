#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The ruler would show it: two copies of a VM, a wrong word of memory, a second boot, a VM that stood still.
# shellcheck source-path=SCRIPTDIR source=testlib.sh
. "$(dirname "$0")/testlib.sh"
requires ip qemu-system-x86_64 python3 jq

not_intact() { # VM
	local status=0
	lab guest "$1" >/dev/null || status=$?
	[ "$status" = 1 ]
}

lab_start --nodes 2 --no-cluster --vms 4 --vm-memory 64MiB

note "two copies: the source goes on after the destination has begun"
qemu_start node1 vm1
poll 60 "vm1 to beat" guest_says vm1 '.beats > 50'
qemu_migrate vm1 node1 node2 10.77.1.2
check "vm1 is not intact before the accident" lab guest vm1
qmp node1 vm1 cont >/dev/null
poll 20 "two copies to be seen" guest_says vm1 '(.repeated + .backward) > 10 and .nodes_running == ["node1", "node2"]'
check "two copies are called intact" not_intact vm1

note "two boots of one VM at once"
qemu_start node1 vm2
poll 60 "vm2 to beat" guest_says vm2 '.beats > 50'
qemu_start node2 vm2
poll 60 "a second copy to be seen" guest_says vm2 '.boots == 2 and .backward > 10 and (.nodes_running | length) == 2'
check "a VM that was started twice is called intact" not_intact vm2

note "one wrong word"
ram=$LAB_DIR/shared/vm3.ram
qemu_start node1 vm3 -object "memory-backend-file,id=ram,size=64M,mem-path=$ram,share=on" -machine memory-backend=ram
poll 60 "vm3 to check its memory" guest_says vm3 '.passes >= 1 and .errors == 0'
printf x | dd of="$ram" bs=1 seek=$((40 << 20)) conv=notrunc status=none
poll 60 "the wrong word to be found" guest_says vm3 '.errors > 0'
check "a VM with a wrong word is called intact" not_intact vm3

note "a VM that stands still for a second, and one that is started again"
qemu_start node1 vm4
poll 60 "vm4 to beat" guest_says vm4 '.beats > 50'
qmp node1 vm4 stop >/dev/null
poll 10 "vm4 to stop" guest_says vm4 '.nodes_running == []'
qmp node1 vm4 cont >/dev/null
poll 10 "the gap to be seen" guest_says vm4 '.max_gap_ms >= 290 and .lost == 0 and .gap_at != null'
check "a VM that stood still is damaged" lab guest vm4
qmp node1 vm4 system_reset >/dev/null
poll 60 "the second boot" guest_says vm4 '.boots == 2'
check "a VM that was started again is called intact" not_intact vm4
