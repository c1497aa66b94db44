# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# The switch: a namespace with a bridge per network. A node's port on network L is called nIlL; the node's end is named after
# the network. Faults that nobody may notice (silent cuts, partitions) are drops in the switch, which take effect at once.

port_of() { echo "n$1l$2"; } # NODE-INDEX NETWORK-INDEX
in_switch() { ip netns exec "$SWITCH" "$@"; }

switch_up() {
	local l
	locked ip netns add "$SWITCH"
	ip -n "$SWITCH" link set lo up
	for l in $(seq "${#NETWORKS[@]}"); do
		ip -n "$SWITCH" link add "br$l" type bridge stp_state 0 forward_delay 0 mcast_snooping 0
		ip -n "$SWITCH" link set "br$l" up
	done
	in_switch nft -f - <<-'END'
		table bridge lab {
			set dead { type ifname; }
			set split { type ifname . ifname; }
			chain forward {
				type filter hook forward priority 0;
				iifname @dead drop
				oifname @dead drop
				iifname . oifname @split drop
			}
		}
	END
}

ports_plug() { # NODE-INDEX
	local i=$1 ns l net
	ns=$(namespace_of "$i")
	for l in $(seq "${#NETWORKS[@]}"); do
		net=${NETWORKS[l - 1]}
		ip -n "$SWITCH" link add "$(port_of "$i" "$l")" type veth peer name "$net" netns "$ns"
		ip -n "$SWITCH" link set "$(port_of "$i" "$l")" master "br$l" up
		ip -n "$ns" addr add "$(address_of "$i" "$l")/24" dev "$net"
		ip -n "$ns" link set "$net" up
		port_shape "$i" "$l"
	done
}

# Removes every interface that the node has, whoever made it.
ports_unplug() { # NODE-INDEX
	local ns link
	ns=$(namespace_of "$1")
	for link in $(ip -n "$ns" -o link show | awk -F': ' '{sub(/@.*/, "", $2); if ($2 != "lo") print $2}'); do
		ip -n "$ns" link del "$link" 2>/dev/null || true
	done
}

# Both directions of a port at the rate that is set for its network.
port_shape() { # NODE-INDEX NETWORK-INDEX
	local file=$LAB_DIR/rate/${NETWORKS[$2 - 1]} rate=none
	[ -e "$file" ] && rate=$(cat "$file")
	device_shape "$SWITCH" "$(port_of "$1" "$2")" "$rate"
	device_shape "$(namespace_of "$1")" "${NETWORKS[$2 - 1]}" "$rate"
}

device_shape() { # NAMESPACE DEVICE RATE|none
	if [ "$3" = none ]; then
		tc -n "$1" qdisc del dev "$2" root 2>/dev/null || true
	else
		tc -n "$1" qdisc replace dev "$2" root tbf rate "$3" burst 256kb latency 50ms
	fi
}

net_rate() {
	need_arguments 2 "rate NET RATE|none" "$@"
	local l i
	l=$(network_index "$1")
	echo "$2" >"$LAB_DIR/rate/$1"
	for ((i = 1; i <= NODES; i++)); do
		node_is_on "$i" && port_shape "$i" "$l"
	done
	return 0
}

net_cut() {
	need_arguments 2 "cut NODE NET [--silent]" "$@"
	local i l port
	i=$(node_index "$1")
	l=$(network_index "$2")
	port=$(port_of "$i" "$l")
	case ${3:-} in
	--silent) in_switch nft add element bridge lab dead "{ \"$port\" }" ;;
	'') ip -n "$SWITCH" link set "$port" down ;;
	*) die "cut: unknown option \"$3\"" ;;
	esac
}

net_heal() {
	need_arguments 2 "heal NODE NET" "$@"
	local i l port
	i=$(node_index "$1")
	l=$(network_index "$2")
	node_is_on "$i" || die "$1 is switched off: drover-lab boot $1"
	port=$(port_of "$i" "$l")
	in_switch nft delete element bridge lab dead "{ \"$port\" }" 2>/dev/null || true
	ip -n "$SWITCH" link set "$port" up
}

# Any number of groups; nodes in different groups do not hear each other on any network. Replaces an earlier partition.
net_partition() {
	need_arguments 2 'partition "node1 node2" "node3"' "$@"
	local -a group
	local elements='' a b l ia ib n=0 g
	for g; do
		for a in $g; do
			ia=$(node_index "$a")
			[ -z "${group[ia]:-}" ] || die "partition: $a stands in two groups"
			group[ia]=$n
		done
		n=$((n + 1))
	done
	for a in "${!group[@]}"; do
		for b in "${!group[@]}"; do
			[ "${group[a]}" = "${group[b]}" ] && continue
			for l in $(seq "${#NETWORKS[@]}"); do
				ia=$(port_of "$a" "$l") ib=$(port_of "$b" "$l")
				elements+="${elements:+, }\"$ia\" . \"$ib\""
			done
		done
	done
	in_switch nft -f - <<-END
		flush set bridge lab split
		add element bridge lab split { $elements }
	END
}

net_heal_all() {
	local i l
	in_switch nft -f - <<-'END'
		flush set bridge lab split
		flush set bridge lab dead
	END
	for ((i = 1; i <= NODES; i++)); do
		node_is_on "$i" || continue
		for l in $(seq "${#NETWORKS[@]}"); do ip -n "$SWITCH" link set "$(port_of "$i" "$l")" up; done
	done
}

# From one instant on nothing of the node reaches the others, and nothing tells its processes so.
ports_drop() { # NODE-INDEX
	local l elements=''
	for l in $(seq "${#NETWORKS[@]}"); do elements+="${elements:+, }\"$(port_of "$1" "$l")\""; done
	in_switch nft add element bridge lab dead "{ $elements }"
}

ports_undrop() { # NODE-INDEX
	local l
	for l in $(seq "${#NETWORKS[@]}"); do
		in_switch nft delete element bridge lab dead "{ \"$(port_of "$1" "$l")\" }" 2>/dev/null || true
	done
}

net_status() {
	local i l down=''
	for ((i = 1; i <= NODES; i++)); do
		node_is_on "$i" || continue
		for l in $(seq "${#NETWORKS[@]}"); do
			ip -n "$SWITCH" -o link show "$(port_of "$i" "$l")" | grep -q ',UP' || down+=" node$i:${NETWORKS[l - 1]}"
		done
	done
	echo "cut:${down:- nothing}"
	in_switch nft -j list table bridge lab | jq -r '
		.nftables[] | .set? // empty | select(.elem) | "\(.name): \([.elem[] | if type == "object" then (.concat | join(">")) else . end] | join(" "))"'
}
