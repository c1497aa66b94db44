#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A guest is asked to shut down and does not react (the probe guest has no ACPI): it runs on, its state says so, moves wait, the
# request can be taken back, and --force ends the VM.
# shellcheck source-path=SCRIPTDIR source=testlib.sh
. "$(dirname "$0")/testlib.sh"
# shellcheck source=drainlib.sh
. "$(dirname "$0")/drainlib.sh"
requires ip qemu-system-x86_64 corosync jq

lab_start --vms 1

vm_error() { says ".vm.error // \"\" | test(\"$1\")" vm show vm1; }
# --wait with --timeout passes: exit 5, also for who asks a second time.
expect_exit 5 "the work goes on" vm stop vm1 --wait --timeout 1s
expect_exit 5 "the work goes on" vm stop vm1 --wait --timeout 1s
note "a move waits"
move=$(djq .move.id vm move vm1 --to node2)
poll 60 "the report that the guest does not react" vm_error "power button.*--force"
check "it does not run on" says '.vm.state == "moving" or .vm.state == "running"' vm show vm1
check "no event says that the guest does not react" says '[.events[] | select(.text | test("power button"))] | length == 1' event list
check "the move does not wait: $(djson move show "$move")" says '.move.state == "queued"' move show "$move"
note "the request is taken back"
expect_exit 6 "being stopped" vm start vm1 --node node3
drover vm start vm1 --wait >/dev/null
poll 30 "the word that nothing is wrong any more" vm_error '^$'
poll 60 "the move to end" says '.move.state == "done"' move show "$move"
expect_intact
note "by force"
drover vm stop vm1 --force --wait >/dev/null
check "it is not stopped" says '.vm.state == "stopped"' vm show vm1
[ "$(drover vm stop vm1 --wait | tail -n 1 | grep -c stopped)" = 1 ] || fail "a VM that is off is not called stopped"
expect_no_remains node1 node2 node3
