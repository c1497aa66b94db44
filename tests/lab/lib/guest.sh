# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# Probe VMs: how their QEMUs are called, the collector of their heartbeats (outside all nodes), and its judgement.

QBOOT=/usr/share/qemu/qboot.rom

beat_dir() { echo "$LAB_DIR/beat"; }
guest_kernel() { echo "$LAB_DIR/probe-guest.elf"; } # a copy that every user can read
beat_socket() { echo "$(beat_dir)/$1.sock"; } # VM

beatmon_start() {
	local d i program
	d=$(beat_dir)
	program=$(built tests/guest/beatmon)
	cp "$(built tests/guest/probe-guest.elf)" "$(guest_kernel)"
	mkdir -p "$d"
	for ((i = 1; i <= VMS; i++)); do echo "vm$i"; done >"$d/names"
	setsid "$program" "$d" </dev/null >>"$LAB_DIR/log/beatmon.log" 2>&1 9>&- &
	echo $! >"$d/pid"
	disown
	for ((i = 1; i <= VMS; i++)); do wait_for 10 "beatmon to listen for vm$i" test -S "$(beat_socket "vm$i")"; done
}

# The process of the pid file, if it still is ours.
beatmon_pid() {
	local pid
	pid=$(cat "$(beat_dir)/pid" 2>/dev/null) && [ -n "$pid" ] || return 1
	tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "beatmon $(beat_dir) " && echo "$pid"
}

beatmon_stop() {
	local pid
	pid=$(beatmon_pid) || return 0
	kill -TERM "$pid" 2>/dev/null || true
	wait_for 10 "the end of beatmon" test ! -e "/proc/$pid/exe"
}

beats_add() {
	need_arguments 1 "beats VM" "$@"
	local pid
	[[ $1 =~ ^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$ ]] || die "\"$1\" is no name for a VM"
	pid=$(beatmon_pid) || die "beatmon has died: $(tail -n 2 "$LAB_DIR/log/beatmon.log")"
	grep -qxF "$1" "$(beat_dir)/names" || echo "$1" >>"$(beat_dir)/names"
	kill -HUP "$pid"
	wait_for 10 "beatmon to listen for $1" test -S "$(beat_socket "$1")"
	beat_socket "$1"
}

# kvm or tcg, found out by running the probe guest with kvm for a moment: /dev/kvm alone proves nothing.
guest_accel() {
	if [ -n "${DROVER_LAB_ACCEL:-}" ]; then
		echo "$DROVER_LAB_ACCEL"
		return
	fi
	[ -e "$LAB_DIR/accel" ] || (guest_kvm_works && echo kvm || echo tcg) >"$LAB_DIR/accel"
	cat "$LAB_DIR/accel"
}

guest_kvm_works() {
	local out=$LAB_DIR/kvm-probe pid ok=1 deadline
	[ -w /dev/kvm ] || return 1
	: >"$out"
	qemu-system-x86_64 -accel kvm -cpu "$(guest_cpu kvm)" -machine pc -bios "$QBOOT" -m 32 -nodefaults -display none -vga none \
		-chardev "file,id=beat,path=$out" -device isa-debugcon,iobase=0xe9,chardev=beat \
		-kernel "$(guest_kernel)" -append "mem=8" </dev/null >/dev/null 2>&1 9>&- &
	pid=$!
	deadline=$(deadline_in 10)
	while [ -d "/proc/$pid" ] && ! deadline_passed "$deadline"; do
		if grep -q '^h ' "$out"; then
			ok=0
			break
		fi
		pause
	done
	kill -KILL "$pid" 2>/dev/null || true
	wait "$pid" 2>/dev/null || true
	rm -f "$out"
	return $ok
}

# A CPU model that also nested "PVM" KVM can offer.
guest_cpu() { if [ "$1" = kvm ]; then echo qemu64,-sse3; else echo qemu64; fi; }

# TCG of QEMU 7.2 loses dirty pages in live migration unless the guest drops its TLB now and then (guest.c).
guest_append() {
	local flush=0
	[ "$(guest_accel)" = kvm ] || flush=1
	echo "fill=$FILL ws=$WS rate=$DIRTY hb=$HB flush=$flush"
}

guest_console_args() { # VM: one argument a line
	printf '%s\n' -chardev "socket,id=beat,path=$(beat_socket "$1"),reconnect=1" -device isa-debugcon,iobase=0xe9,chardev=beat
}

guest_memory_mib() {
	local n=${VM_MEMORY%[KMG]iB}
	case $VM_MEMORY in *KiB) echo $((n / 1024)) ;; *MiB) echo "$n" ;; *GiB) echo $((n * 1024)) ;; esac
}

guest_qemu_args() {
	need_arguments 1 "qemu-args VM" "$@"
	local accel
	accel=$(guest_accel)
	printf '%s\n' -name "$1" -accel "$accel" -cpu "$(guest_cpu "$accel")" -machine pc -bios "$QBOOT" -m "$(guest_memory_mib)" \
		-nodefaults -display none -vga none -kernel "$(guest_kernel)" -append "$(guest_append)"
	guest_console_args "$1"
}

guest_verdict() {
	need_arguments 1 "guest VM [--since US] [--window MS]" "$@"
	local vm=$1 status=0 program
	shift
	program=$(built tests/guest/beatcheck) || exit
	[ -e "$(beat_dir)/$vm.beats" ] || die "nobody listens for \"$vm\": drover-lab beats $vm"
	"$program" --nodes "$LAB_DIR/nodes" "$@" "$(beat_dir)" "$vm" || status=$?
	[ "$status" -le 1 ] || status=$LAB_ERROR
	return "$status"
}

guest_beats() { # VM: has it been heard at all?
	local program
	program=$(built tests/guest/beatcheck) || exit
	[ "$("$program" --window 0 "$(beat_dir)" "$1" | jq .beats)" -gt 0 ]
}

guests_status() {
	local vm
	while read -r vm; do
		[ -s "$(beat_dir)/$vm.beats" ] || continue
		guest_verdict "$vm" | jq -r '"\(.vm): runs on \(.nodes_running | join(", ") | if . == "" then "no node" else . end), beats \(.beats), lost \(.lost), repeated \(.repeated), backward \(.backward), longest gap \(.max_gap_ms) ms, bad words \(.errors), passes \(.passes), boots \(.boots)"' || true
	done <"$(beat_dir)/names"
}
