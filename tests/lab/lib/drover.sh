# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# Drover's daemons in the nodes, and the few uses of its command that bring a cluster up. Everything that depends on the words
# of the command line stands in a function of its own.

PORT=7420
RELAY_PORT=7421

drover_configure() { # NODE-INDEX
	local d roles=agent connect='' i
	d=$(node_dir "$1")/etc-drover
	[ "$1" -gt "$COORDINATORS" ] || roles=coordinator,agent
	for ((i = 1; i <= COORDINATORS; i++)); do connect+="${connect:+,}$(management_address "$i"):$PORT"; done
	cat >"$d/drover.conf" <<-END
		[node]
		name=node$1
		roles=$roles
		listen=0.0.0.0:$PORT
		connect=$connect
		key_file=/etc/drover/cluster.key
		data_dir=/var/lib/drover
		run_dir=/run/drover
		fence_dir=$LAB_SOURCE/fence
		log_level=info

		[agent]
		qemu=qemu-system-x86_64
		accel=auto
		relay_port=$RELAY_PORT
	END
	[ -e "$LAB_DIR/cluster.key" ] || (umask 077 && head -c 32 /dev/urandom >"$LAB_DIR/cluster.key")
	cp -p "$LAB_DIR/cluster.key" "$d/cluster.key"
}

drover_start() { # NODE-INDEX coordinator|agent
	local relay program
	[ "$2" = agent ] || [ "$1" -le "$COORDINATORS" ] || die "node$1 is no coordinator"
	program=$(built "$2/drover-$2") || exit
	relay=$(built relay/drover-relay) || exit
	mkdir -p "$LAB_DIR/points"
	daemon_launch "$1" "$2" env DROVER_RELAY="$relay" DROVER_POINTS_FILE="$LAB_DIR/points/node$1-$2" "$program" -c /etc/drover/drover.conf
}

# What a host starts at boot.
node_start_daemons() { # NODE-INDEX
	if [ "$1" -le "$COORDINATORS" ]; then drover_start "$1" coordinator; fi
	drover_start "$1" agent
}

drover_on() { # NODE-INDEX ARGS...
	local i=$1 program
	shift
	program=$(built cli/drover) || exit
	in_node "$i" "$program" "$@"
}

# The coordinator of this node answers, quorate or not. 7 = nobody there, 5 = no answer in time.
coordinator_answers() { # NODE-INDEX
	local status=0
	node_is_on "$1" || return 1
	drover_on "$1" --json --timeout 3s cluster status >/dev/null 2>&1 </dev/null || status=$?
	case $status in 0 | 1 | 3) return 0 ;; *) return 1 ;; esac
}

lab_cli() {
	local i on=''
	if [ "${1:-}" = --on ]; then
		need_arguments 2 "cli --on NODE ARGS..." "$@"
		on=$(node_index "$2")
		shift 2
	else
		for ((i = 1; i <= COORDINATORS; i++)); do
			if coordinator_answers "$i"; then
				on=$i
				break
			fi
		done
		[ -n "$on" ] || die "no coordinator answers; see: drover-lab status --name $LAB"
	fi
	drover_on "$on" "$@"
}

# --- bringing up a cluster ----------------------------------------------------------------------------------------------

cluster_init() { drover_on 1 cluster init --name "$LAB" >/dev/null; }
cluster_token() { drover_on 1 --json cluster token | jq -r .token; }
cluster_join() { drover_on "$1" cluster join "$(management_address 1):$PORT" --token "$2" >/dev/null; } # NODE-INDEX TOKEN

# Answers at all, be it only "not in a cluster yet".
coordinator_is_there() { # NODE-INDEX
	local status=0
	daemon_is_running "$1" coordinator || die "the coordinator of node$1 has died: $(tail -n 3 "$(daemon_log "$1" coordinator)")"
	drover_on "$1" --json --timeout 3s cluster status >/dev/null 2>&1 || status=$?
	[ "$status" != 7 ] && [ "$status" != 5 ]
}

cluster_is_complete() { # NODE-INDEX: quorate there, and everybody votes
	drover_on "$1" --json --timeout 3s cluster status 2>/dev/null </dev/null |
		jq -e --argjson n "$COORDINATORS" '.quorate and ([.coordinators[] | select(.state == "voter" or .state == "leader")] | length) == $n' \
			>/dev/null 2>&1
}

nodes_are_up() {
	drover_on 1 --json --timeout 3s node list 2>/dev/null </dev/null |
		jq -e --argjson n "$NODES" '[.nodes[] | select(.state == "up" and .agent == "connected")] | length == $n' >/dev/null 2>&1
}

networks_are_known() {
	drover_on 1 --json --timeout 3s network list 2>/dev/null </dev/null |
		jq -e --arg names "${NETWORKS[*]}" --argjson n "$NODES" \
			'[.networks[] | select(.nodes | length == $n) | .name] as $have | ($names | split(" ")) - $have == []' >/dev/null 2>&1
}

# The last network is for management, the others are for moves, in their order.
networks_rank() {
	local args=() l count=${#NETWORKS[@]}
	for ((l = 1; l < count; l++)); do args+=("${NETWORKS[l - 1]}=$l"); done
	drover_on 1 network order ${args[@]+"${args[@]}"} "${NETWORKS[count - 1]}=$((count > 9 ? count : 9))" >/dev/null
}

cluster_form() {
	local i token
	drover_start 1 coordinator
	wait_for 30 "the coordinator of node1" coordinator_is_there 1
	cluster_init
	wait_for 30 "node1 to lead" coordinator_answers 1
	for ((i = 2; i <= COORDINATORS; i++)); do
		drover_start "$i" coordinator
		wait_for 30 "the coordinator of node$i" coordinator_is_there "$i"
		token=$(cluster_token)
		cluster_join "$i" "$token"
	done
	for ((i = 1; i <= COORDINATORS; i++)); do wait_for 60 "all coordinators to vote, seen from node$i" cluster_is_complete "$i"; done
	for ((i = 1; i <= NODES; i++)); do drover_start "$i" agent; done
	wait_for 60 "all $NODES agents to be connected" nodes_are_up
	wait_for 30 "all networks to be known on all nodes" networks_are_known
	networks_rank
}

vm_add() { # VM
	local accel args=() a
	accel=$(guest_accel)
	while read -r a; do args+=("--qemu-arg=$a"); done < <(guest_console_args "$1")
	drover_on 1 vm add "$1" --memory "$VM_MEMORY" --cpus 1 --machine pc --accel "$accel" --cpu "$(guest_cpu "$accel")" --allow-tcg-live \
		--firmware "$QBOOT" --kernel "$(guest_kernel)" --append "$(guest_append)" ${HA:+--ha "$HA"} \
		"${args[@]}" >/dev/null
}

vm_start() { drover_on 1 vm start "$1" --node "$2" >/dev/null; } # VM NODE

vms_start() {
	local i
	for ((i = 1; i <= VMS; i++)); do
		vm_add "vm$i"
		vm_start "vm$i" node1
	done
	for ((i = 1; i <= VMS; i++)); do wait_for 120 "the first heartbeat of vm$i" guest_beats "vm$i"; done
}
