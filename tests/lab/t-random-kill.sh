#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# time-limit: 420
# During a drain of 6 VMs a random process is killed every 2 s: a daemon, relay or QEMU of any node. Daemons are started again after
# 1 to 3 s, as systemd would. Afterwards the drain ends by itself, every VM runs exactly once, or its QEMU was killed and Drover
# says so, and nothing is left behind. DROVER_SEEDS="1 2 3": which runs; default two.
# shellcheck source-path=SCRIPTDIR source=testlib.sh
. "$(dirname "$0")/testlib.sh"
# shellcheck source=drainlib.sh
. "$(dirname "$0")/drainlib.sh"
requires ip qemu-system-x86_64 corosync jq

KILL_EVERY_S=2
KILLS_MOST=20 # then it is left in peace
END_S=180

declare -A killed=()  # VMs one of whose QEMUs was killed in this run
declare -A comeback=() # "nodeI daemon" -> second at which it is started again
declare -A since=()    # VM -> from when on its beats are judged

# Of its arguments.
random_of() {
	local index=$((RANDOM % $# + 1))
	echo "${!index}"
}

# Pids of a node's processes of that name (the kernel's 15 characters), children that were just forked left out.
processes() { # NODE NAME
	local pid
	for pid in $(lab pids "$1"); do
		[ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$2" ] && echo "$pid"
	done
	return 0
}

qemu_vm() { tr '\0' '\n' <"/proc/$1/cmdline" 2>/dev/null | grep -oE '^(guest=)?vm[0-9]+' | head -n 1 | sed 's/guest=//'; } # PID

kill_one() {
	local node kind pids=() pid vm
	node=$(random_of node1 node2 node3)
	kind=$(random_of coordinator agent agent relay relay qemu)
	case $kind in
	coordinator | agent)
		[ -z "${comeback[$node $kind]:-}" ] || return 0
		note "$SECONDS: kill -9 $kind of $node"
		lab kill-daemon "$node" "$kind"
		comeback[$node $kind]=$((SECONDS + 1 + RANDOM % 3))
		;;
	relay)
		mapfile -t pids < <(processes "$node" drover-relay)
		[ ${#pids[@]} -gt 0 ] || return 0
		note "$SECONDS: kill -9 relay of $node"
		kill -KILL "$(random_of "${pids[@]}")" 2>/dev/null || true
		;;
	qemu)
		mapfile -t pids < <(processes "$node" qemu-system-x86)
		[ ${#pids[@]} -gt 0 ] || return 0
		pid=$(random_of "${pids[@]}")
		vm=$(qemu_vm "$pid") || true
		[ -n "$vm" ] || return 0
		killed[$vm]=yes
		note "$SECONDS: kill -9 QEMU of $vm on $node"
		kill -KILL "$pid" 2>/dev/null || true
		;;
	esac
}

start_again() { # [all]
	local daemon node kind
	for daemon in "${!comeback[@]}"; do
		[ "${1:-}" = all ] || [ "$SECONDS" -ge "${comeback[$daemon]}" ] || continue
		read -r node kind <<<"$daemon"
		lab start-daemon "$node" "$kind"
		unset "comeback[$daemon]"
	done
}

all_connected() {
	says '.quorate == true and .stale == false and ([.coordinators[] | select(.state == "leader" or .state == "voter")] | length) == 3' cluster status &&
		says '[.nodes[] | select(.agent == "connected")] | length == 3' node list
}

no_slots() { says '[.nodes[] | select(.moves_in + .moves_out > 0)] == []' node list; }
no_relays() { [ -z "$(for n in node1 node2 node3; do processes "$n" drover-relay; done)" ]; }

# Only QEMUs that a running VM's owner has.
qemus_fit() {
	local n wanted
	for n in node1 node2 node3; do
		wanted=$(djson vm list | jq --arg n "$n" '[.vms[] | select(.node == $n and .state == "running")] | length') || return 1
		[ "$(processes "$n" qemu-system-x86 | wc -l)" = "$wanted" ] || return 1
	done
}

now_us() { echo $(($(sed 's/\..*//;q' /proc/uptime) * 1000000)); }

verdict() { lab guest "$1" --since "${since[$1]:-0}"; } # VM

judge_vm() { # VM: what Drover says is what is so
	local vm=$1 row state node v intact=yes
	row=$(djson vm list | jq --arg v "$vm" '.vms[] | select(.name == $v)')
	state=$(jq -r .state <<<"$row") node=$(jq -r .node <<<"$row")
	v=$(verdict "$vm") || intact=no
	jq -e '.repeated == 0 and .backward == 0 and .errors == 0' <<<"$v" >/dev/null || fail "$vm ran twice or is damaged: $v"
	case $state in
	running)
		same "$vm ($state on $node) beats on" "[\"$node\"]" "$(jq -c .nodes_running <<<"$v")"
		[ "$intact" = yes ] || fail "$vm is not intact: $v"
		;;
	failed | stopped)
		[ -n "${killed[$vm]:-}" ] || fail "$vm is $state, and nobody killed its QEMU: $row"
		same "$vm ($state) beats on" "[]" "$(jq -c .nodes_running <<<"$v")"
		;;
	*) fail "$vm is $state: $row" ;;
	esac
	echo "$state"
}

# Everything runs, nothing is drained: ready for the next run.
make_ready() {
	local vm node
	for node in $(djq '.nodes[] | select(.state != "up") | .name' node list); do drover node resume "$node" >/dev/null; done
	for vm in $(djq '.vms[] | select(.state != "running") | .name' vm list); do
		since[$vm]=$(now_us)
		drover vm start "$vm" >/dev/null
		poll 30 "$vm to run again" says ".vms[] | select(.name == \"$vm\") | .state == \"running\"" vm list
		poll 30 "$vm to beat again" beats_now "$vm"
	done
	killed=()
}
beats_now() { verdict "$1" | jq -e '.nodes_running != []' >/dev/null; }

run_seed() { # SEED
	local id kills=0 next from vm state states=() start=$SECONDS
	RANDOM=$1
	from=$(djson vm list | jq -r '[.vms[].node] | group_by(.) | max_by(length)[0]')
	note "seed $1: drain of $from"
	id=$(djq .drain.id node drain "$from")
	next=$((SECONDS + 1))
	until drain_over "$id"; do
		[ $((SECONDS - start)) -lt $END_S ] || fail "seed $1: the drain does not end: $(drover drain show "$id")"
		if [ "$SECONDS" -ge "$next" ] && [ "$kills" -lt $KILLS_MOST ]; then
			kill_one
			kills=$((kills + 1)) next=$((next + KILL_EVERY_S))
		fi
		start_again
		sleep 0.1
	done
	start_again all
	poll 60 "the cluster to be whole" all_connected
	poll 60 "no move" moves_over
	poll 60 "all slots to be free" no_slots
	poll 20 "no relay" no_relays
	poll 20 "no QEMU too many" qemus_fit
	[ -z "$(find "$LAB_DIR" -name '.drover-nonce-*')" ] || fail "nonces are left: $(find "$LAB_DIR" -name '.drover-nonce-*')"
	for vm in $(vms); do
		state=$(judge_vm "$vm")
		states+=("$vm $state")
	done
	note "seed $1: drain $(djq .drain.state drain show "$id") after $((SECONDS - start)) s and $kills kills; killed QEMUs: ${!killed[*]}; ${states[*]}"
	drover drain show "$id"
	make_ready
}

lab_start --ws 4 --dirty 500 --vm-memory 64MiB --rate mig1=80mbit
for seed in ${DROVER_SEEDS:-1 2}; do run_seed "$seed"; done
