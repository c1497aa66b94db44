# shellcheck shell=bash
# shellcheck disable=SC2034 # what is set here is read by the other parts
# SPDX-License-Identifier: BSD-3-Clause
# Names, places, waiting, and the shape of the lab (what `up` was asked for), which all other parts read.

LAB_ERROR=125
LAB_BASE=${DROVER_LAB_BASE:-/var/lib/drover-lab}
TOP_SOURCE=$(cd "$LAB_SOURCE/../.." && pwd)
# Where the nodes see their own version of what a host has. Missing ones are made on this machine and removed by `down`.
NODE_DIRECTORIES=(/etc/drover /etc/corosync /var/lib/drover /var/lib/corosync /srv/local /srv/shared)

say() { echo "drover-lab: $*" >&2; }
die() {
	say "$*"
	exit "$LAB_ERROR"
}

need_arguments() { # COUNT SYNOPSIS ARGS...
	local count=$1 synopsis=$2
	shift 2
	[ $# -ge "$count" ] || die "usage: drover-lab $synopsis"
}

# --- waiting: poll a condition until a deadline -------------------------------------------------------------------------

# In hundredths of a second on the machine's monotonic clock.
now_cs() {
	local up rest
	read -r up rest </proc/uptime
	echo "${up/./}"
}
deadline_in() { echo $(($(now_cs) + $1 * 100)); }
deadline_passed() { [ "$(now_cs)" -ge "$1" ]; }
pause() { sleep 0.05; }

# wait_for SECONDS WHAT COMMAND...: until the command succeeds; dies with WHAT when the time is over.
wait_for() {
	local seconds=$1 what=$2 deadline
	shift 2
	deadline=$(deadline_in "$seconds")
	until "$@"; do
		deadline_passed "$deadline" && die "waited $seconds s in vain for $what"
		pause
	done
}

# --- the lab's place ----------------------------------------------------------------------------------------------------

set_lab() {
	[[ $LAB =~ ^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$ ]] ||
		die "\"$LAB\" is no name for a lab: 1-32 letters, digits, - and _, starting with a letter or digit"
	LAB_DIR=$LAB_BASE/$LAB
	SWITCH=drover-$LAB-switch
}

namespace_of() { echo "drover-$LAB-node$1"; }
node_dir() { echo "$LAB_DIR/node$1"; }

lab_namespaces() {
	local ns
	for ns in "/run/netns/drover-$LAB-"*; do
		[[ ${ns##*/} =~ ^drover-$LAB-(switch|node[0-9]+)$ ]] && echo "${ns##*/}"
	done
	return 0
}

lab_pids() {
	local ns
	for ns in $(lab_namespaces); do
		ip netns pids "$ns" 2>/dev/null || true
	done
}

# Runs a command while no other lab makes or removes namespaces (iproute2 races with itself there).
locked() {
	mkdir -p "$LAB_BASE"
	(
		flock -w 60 9 || die "another lab holds $LAB_BASE/.lock"
		"$@"
	) 9>"$LAB_BASE/.lock"
}

claim_lab() {
	locked claim_lab_locked || exit $?
}

claim_lab_locked() {
	local d
	{ [ ! -e "$LAB_DIR" ] && [ -z "$(lab_namespaces)" ]; } ||
		die "lab \"$LAB\" is up already, or left over: drover-lab down --name $LAB"
	mkdir -p "$LAB_DIR"/{log,shared,rate}
	chmod 755 "$LAB_BASE" "$LAB_DIR"
	for d in "${NODE_DIRECTORIES[@]}"; do
		[ -d "$d" ] || echo "$d" >>"$LAB_BASE/.made"
		mkdir -p "$d"
	done
}

# Removes the files; the last lab also takes along the mount points that the first one had to make.
release_lab() {
	local d others
	rm -rf "$LAB_DIR"
	others=$(find "$LAB_BASE" -mindepth 1 -maxdepth 1 -type d)
	[ -z "$others" ] || return 0
	if [ -e "$LAB_BASE/.made" ]; then
		while read -r d; do rmdir "$d" 2>/dev/null || true; done <"$LAB_BASE/.made"
	fi
	rm -f "$LAB_BASE/.made" "$LAB_BASE/.lock"
	rmdir "$LAB_BASE" 2>/dev/null || true
}

# --- the lab's shape ----------------------------------------------------------------------------------------------------

parse_up_options() {
	NODES=3 COORDINATORS='' VMS=6 VM_MEMORY=128MiB FILL=random DIRTY=0 WS=0 HB=10ms HA='' KEEP=no WITH_CLUSTER=yes TOKEN=1000
	local networks=mig1,mig2,mgmt rates=() r
	while [ $# -gt 0 ]; do
		case $1 in
		--no-cluster) WITH_CLUSTER=no ;;
		--no-vms) VMS=0 ;;
		--keep) KEEP=yes ;;
		--nodes | --coordinators | --networks | --rate | --vms | --vm-memory | --fill | --dirty | --ws | --hb | --ha | --token)
			[ $# -ge 2 ] || die "$1 needs a value"
			case $1 in
			--nodes) NODES=$2 ;;
			--coordinators) COORDINATORS=$2 ;;
			--networks) networks=$2 ;;
			--rate) rates+=("$2") ;;
			--vms) VMS=$2 ;;
			--vm-memory) VM_MEMORY=$2 ;;
			--fill) FILL=$2 ;;
			--dirty) DIRTY=${2%/s} ;;
			--ws) WS=$2 ;;
			--hb) HB=$2 ;;
			--ha) HA=$2 ;;
			--token) TOKEN=$2 ;;
			esac
			shift
			;;
		*) die "up: unknown option \"$1\"; see: drover-lab help" ;;
		esac
		shift
	done
	COORDINATORS=${COORDINATORS:-$((NODES < 3 ? NODES : 3))}
	IFS=, read -ra NETWORKS <<<"$networks"
	check_shape "${rates[@]}"
	RATES=()
	for r in "${rates[@]}"; do RATES+=("$r"); done
}

check_shape() { # RATES...
	local value net r
	for value in "$NODES" "$COORDINATORS" "$VMS" "$DIRTY" "$WS" "$TOKEN"; do
		[[ $value =~ ^[0-9]{1,9}$ ]] || die "up: \"$value\" is no number"
	done
	{ [ "$NODES" -ge 1 ] && [ "$NODES" -le 32 ]; } || die "up: --nodes must be 1 to 32"
	{ [ "$COORDINATORS" -ge 1 ] && [ "$COORDINATORS" -le "$NODES" ] && [ "$COORDINATORS" -le 7 ]; } ||
		die "up: --coordinators must be 1 to 7 and not more than the nodes"
	[ "${#NETWORKS[@]}" -ge 1 ] || die "up: --networks is empty"
	for net in "${NETWORKS[@]}"; do
		[[ $net =~ ^[a-z][a-z0-9]{0,14}$ ]] || die "up: \"$net\" cannot name a network (an interface): a-z, 0-9, at most 15"
	done
	[[ $FILL =~ ^(zero|text|random)$ ]] || die "up: --fill must be zero, text or random"
	[[ $HB =~ ^[0-9]+(us|ms)?$ ]] || die "up: --hb must look like 10ms"
	[[ $VM_MEMORY =~ ^[0-9]+[KMG]iB$ ]] || die "up: --vm-memory must look like 128MiB"
	for r; do
		[[ $r == *=* ]] || die "up: --rate must look like mig1=400mbit"
		network_index "${r%%=*}" >/dev/null
	done
}

save_shape() {
	declare -p NODES COORDINATORS VMS VM_MEMORY FILL DIRTY WS HB HA TOKEN NETWORKS WITH_CLUSTER >"$LAB_DIR/shape"
	local r
	for r in ${RATES[@]+"${RATES[@]}"}; do echo "${r#*=}" >"$LAB_DIR/rate/${r%%=*}"; done
}

load_shape() {
	[ -e "$LAB_DIR/shape" ] || die "there is no lab \"$LAB\"; labs: $(lab_list | tr '\n' ' ')"
	local line
	while read -r line; do eval "${line/declare /declare -g }"; done <"$LAB_DIR/shape"
}

node_index() { # nodeI -> I
	local i=${1#node}
	{ [[ $1 =~ ^node[1-9][0-9]*$ ]] && [ "$i" -le "$NODES" ]; } || die "there is no node \"$1\" in lab \"$LAB\": node1 to node$NODES"
	echo "$i"
}

network_index() { # NET -> its number from 1
	local i
	for i in "${!NETWORKS[@]}"; do
		[ "${NETWORKS[i]}" = "$1" ] && echo $((i + 1)) && return
	done
	die "there is no network \"$1\" in lab \"$LAB\": ${NETWORKS[*]}"
}

address_of() { echo "10.77.$2.$1"; }                       # NODE-INDEX NETWORK-INDEX
management_address() { address_of "$1" "${#NETWORKS[@]}"; } # NODE-INDEX

# The build tree: $DROVER_BUILDDIR, or build/ in the source tree, or the source tree itself.
build_dir() {
	local d
	for d in ${DROVER_BUILDDIR:+"$DROVER_BUILDDIR"} "$TOP_SOURCE/build" "$TOP_SOURCE"; do
		[ -e "$d/tests/guest/Makefile" ] && (cd "$d" && pwd) && return
	done
	die "no build tree: run ./quickstart check, or configure and make, or set DROVER_BUILDDIR"
}

# The path of a built program or file, given as FOLDER/NAME.
built() {
	local path
	if [ -n "${DROVER_BINDIR:-}" ] && [ -x "$DROVER_BINDIR/${1##*/}" ]; then
		echo "$DROVER_BINDIR/${1##*/}"
		return
	fi
	path=$(build_dir)/$1 || exit
	[ -e "$path" ] || die "$path is not built: run make"
	echo "$path"
}

show_logs() {
	local f
	for f in "$LAB_DIR"/log/*; do
		[ -s "$f" ] || continue
		echo "--- last lines of ${f##*/}"
		tail -n 15 "$f"
	done
}
