#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The storage of one VM hangs (a frozen file system, as a lost NFS server would): its move fails and says which disk it is, while
# the agent goes on: its lease stays young, another VM moves. When the storage is back, so is everything.
# shellcheck source-path=SCRIPTDIR source=testlib.sh
. "$(dirname "$0")/testlib.sh"
# shellcheck source=drainlib.sh
. "$(dirname "$0")/drainlib.sh"
requires ip qemu-system-x86_64 qemu-img corosync jq mkfs.ext4 fsfreeze losetup

store=$(mktemp -d "${TMPDIR:-/var/tmp}/drover-storage-XXXXXX")
frozen=no
thaw() {
	fsfreeze --unfreeze "$store/fs"
	frozen=no
}
storage_gone() {
	local tries=50
	[ "$frozen" = no ] || thaw || true
	while mountpoint -q "$store/fs" && ! umount "$store/fs" 2>/dev/null; do
		tries=$((tries - 1))
		[ "$tries" -gt 0 ] || umount -l "$store/fs"
		sleep 0.2
	done
	rm -rf "$store"
}
over() {
	local status=$?
	trap - EXIT
	[ "$frozen" = no ] || thaw || true
	(
		(exit "$status")
		cleanup
	) || true
	storage_gone
	exit "$status"
}
trap storage_gone EXIT
mkdir "$store/fs"
truncate -s 64M "$store/image"
mkfs.ext4 -q "$store/image"
mount -o loop "$store/image" "$store/fs" 2>/dev/null || skip "no loop devices here"
chmod 755 "$store" "$store/fs"
qemu-img create -q -f raw "$store/fs/disk.raw" 8M

lab_start --vms 2
trap over EXIT
drover vm stop vm1 --force --wait >/dev/null
drover vm set vm1 --disk "$store/fs/disk.raw,format=raw" >/dev/null
drover vm start vm1 --node node1 --wait >/dev/null

lab_has_no_storage_child() { ! lab exec node1 pgrep -x drover-storage; }
nonces_gone() { [ -z "$(find "$store/fs" -name '.drover-nonce-*')" ]; }

note "the storage hangs"
fsfreeze --freeze "$store/fs"
frozen=yes
move=$(djq .move.id vm move vm1 --to node2)
drover vm move vm2 --to node3 --wait >/dev/null || fail "another VM cannot be moved: $(drover move list)"
end=$((SECONDS + 60)) worst=0
until says '.move.error // "" | test("disk.raw.*does not answer")' move show "$move"; do
	[ "$SECONDS" -lt "$end" ] || fail "the move does not say which disk hangs: $(djson move show "$move")"
	lease=$(djq '.nodes[] | select(.name == "node1") | if .agent == "connected" then .lease_ms else 99999 end' node list)
	[ "$lease" -le "$worst" ] || worst=$lease
	sleep 0.1
done
check "the agent of node1 was lost, or late with its lease: $worst ms" test "$worst" -lt 99999
check "vm1 does not run on" says '.vm.node == "node1" and (.vm.state == "running" or .vm.state == "moving")' vm show vm1

note "and comes back"
thaw
poll 120 "the move to end" says '.move.state == "done" or .move.state == "failed"' move show "$move"
says '.move.state == "done"' move show "$move" || drover vm move vm1 --to node2 --wait >/dev/null || fail "vm1 cannot be moved: $(drover move list)"
check "vm1 does not run on node2" says '.vm.node == "node2" and .vm.state == "running"' vm show vm1
expect_no_remains node1 node2 node3
poll 20 "the children that hung to end" lab_has_no_storage_child
poll 20 "the nonces to go" nonces_gone
