#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# alone
# Two moves at once under a budget of 8 MB/s: the switch-over token goes round without anybody being stopped in vain, and no VM is
# stopped for longer than three times its blackout limit, as its guest sees it.
# shellcheck source-path=SCRIPTDIR source=testlib.sh
. "$(dirname "$0")/testlib.sh"
# shellcheck source=drainlib.sh
. "$(dirname "$0")/drainlib.sh"
requires ip qemu-system-x86_64 corosync jq

LIMIT_MS=300 # a VM's blackout limit unless it says otherwise

lab_start --vms 4 --vm-memory 32MiB --ws 4 --dirty 300
drover limit set --bandwidth 8MB >/dev/null
drover node drain node1 --wait >/dev/null || fail "the drain failed: $(drover drain show node1)"
note "$(djson drain show node1 | jq -c '[.moves[] | {vm, attempt, blackout_ms}]')"
check "moves were stopped in vain: $(drover drain show node1)" says '[.moves[] | select(.attempt > 1)] | length <= 1' drain show node1
for vm in vm1 vm2 vm3 vm4; do
	gap=$(lab guest "$vm" | jq '.max_gap_ms | floor')
	note "$vm: longest gap $gap ms"
	[ "$gap" -le $((3 * LIMIT_MS)) ] || fail "$vm was stopped for $gap ms"
done
expect_intact
expect_no_remains node1 node2 node3
