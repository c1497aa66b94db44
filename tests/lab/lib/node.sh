# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# Nodes: namespaces held by lib/node-init, what runs in them, and their sudden death. A node is "on" while its first process
# lives. Its network namespace stays through a crash (as the machine's case does), everything else goes.

node_prepare() { # NODE-INDEX: once per lab
	local d ns
	d=$(node_dir "$1") ns=$(namespace_of "$1")
	mkdir -p "$d"/{etc-drover,etc-corosync/uidgid.d,lib-drover,lib-corosync,log/corosync,local,daemon}
	locked ip netns add "$ns"
	ip netns exec "$ns" sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
	echo "$(stat -L -c %i "/run/netns/$ns") node$1" >>"$LAB_DIR/nodes"
	if [ "$1" -le "$COORDINATORS" ]; then corosync_configure "$1"; fi
	drover_configure "$1"
}

node_power_on() { # NODE-INDEX
	local d ns holder
	d=$(node_dir "$1") ns=$(namespace_of "$1")
	rm -f "$d/ready" "$d"/daemon/*
	cat /proc/sys/kernel/random/uuid >"$d/boot_id"
	ip -n "$ns" link set lo up
	ports_plug "$1"
	nsenter --net="/run/netns/$ns" unshare --mount --uts --ipc --pid --fork --kill-child --propagation private \
		"$LAB_SOURCE/lib/node-init" "$LAB_DIR" "node$1" </dev/null >"$d/init.log" 2>&1 9>&- &
	holder=$!
	disown
	wait_for 20 "node$1 to come up" node_init_ready "$1" "$holder"
	pgrep -P "$holder" >"$d/init.pid"
}

node_init_ready() { # NODE-INDEX HOLDER-PID
	[ -e "$(node_dir "$1")/ready" ] && return 0
	[ -d "/proc/$2" ] || die "node$1 did not come up: $(cat "$(node_dir "$1")/init.log")"
	return 1
}

node_is_on() { # NODE-INDEX
	local pid
	pid=$(cat "$(node_dir "$1")/init.pid" 2>/dev/null) && [ -n "$pid" ] && [ -d "/proc/$pid" ]
}

node_need_on() { node_is_on "$1" || die "node$1 is switched off: drover-lab boot node$1"; }

# in_node NODE-INDEX CMD...: argv is passed on unsplit; the working directory stays, where the node has it.
in_node() {
	local pid where=$PWD
	node_need_on "$1"
	pid=$(cat "$(node_dir "$1")/init.pid")
	shift
	case $where/ in /run/* | /dev/shm/* | /srv/* | /etc/*) where=/ ;; esac
	nsenter -t "$pid" -m -u -i -n -p --wdns="$where" -- "$@" 9>&-
}

node_exec() {
	need_arguments 2 "exec NODE CMD..." "$@"
	local i
	i=$(node_index "$1")
	shift
	in_node "$i" "$@"
}

node_pids() { ip netns pids "$(namespace_of "$1")"; }

node_crash() {
	need_arguments 1 "crash NODE" "$@"
	local i pids deadline
	i=$(node_index "$1")
	node_need_on "$i"
	ports_drop "$i"
	# The first process takes all others of its pid namespace along, at once.
	kill -KILL "$(cat "$(node_dir "$i")/init.pid")" 2>/dev/null || true
	deadline=$(deadline_in 20)
	while pids=$(node_pids "$i") && [ -n "$pids" ]; do
		# shellcheck disable=SC2086 # a list of numbers
		kill -KILL $pids 2>/dev/null || true
		deadline_passed "$deadline" && die "processes $pids of $1 do not die"
		pause
	done
	ports_unplug "$i"
	ports_undrop "$i"
	rm -f "$(node_dir "$i")/init.pid"
}

node_boot() {
	need_arguments 1 "boot NODE" "$@"
	local i
	i=$(node_index "$1")
	node_is_on "$i" && die "$1 is on already"
	node_power_on "$i"
	if [ "$i" -le "$COORDINATORS" ]; then corosync_start "$i"; fi
	[ "$WITH_CLUSTER" = no ] || node_start_daemons "$i"
}

# --- daemons of a node --------------------------------------------------------------------------------------------------
# Their pid files hold the pid as the node sees it.

daemon_log() { echo "$LAB_DIR/log/node$1-$2.log"; }
daemon_pid_file() { echo "$(node_dir "$1")/daemon/$2"; }

# daemon_launch NODE-INDEX NAME CMD...: in the background, away from our terminal, files and session.
daemon_launch() {
	local i=$1 name=$2 log pid
	shift 2
	daemon_is_running "$i" "$name" && return
	log=$(daemon_log "$i" "$name")
	# shellcheck disable=SC2016 # expanded by the inner shell
	pid=$(in_node "$i" bash -c 'log=$1; shift; setsid "$@" </dev/null >>"$log" 2>&1 & echo $!' _ "$log" "$@")
	echo "$pid" >"$(daemon_pid_file "$i" "$name")"
}

daemon_signal() { # NODE-INDEX NAME SIGNAL
	local pid
	pid=$(cat "$(daemon_pid_file "$1" "$2")" 2>/dev/null) && [ -n "$pid" ] || return 1
	in_node "$1" kill -s "$3" "$pid" 2>/dev/null
}

# Running, and not a dead process that waits to be collected.
daemon_is_running() {
	local pid
	node_is_on "$1" || return 1
	pid=$(cat "$(daemon_pid_file "$1" "$2")" 2>/dev/null) && [ -n "$pid" ] || return 1
	# shellcheck disable=SC2016 # expanded by the inner shell
	in_node "$1" bash -c '[ -e "/proc/$1/exe" ]' _ "$pid"
}

daemon_is_gone() { ! daemon_is_running "$@"; }

# Stopped by a signal, which a busy machine delivers late.
daemon_stands() {
	# shellcheck disable=SC2016 # expanded by the inner shell
	in_node "$1" bash -c 'grep -q "^State:.*[Tt]" "/proc/$1/status"' _ "$(cat "$(daemon_pid_file "$1" "$2")")"
}

daemon_host_pid() { # NODE-INDEX NAME
	local pid p
	pid=$(cat "$(daemon_pid_file "$1" "$2")" 2>/dev/null) || die "node$1 has no $2"
	for p in $(node_pids "$1"); do
		if [ "$(awk '/^NSpid:/ {print (NF > 2 ? $NF : "")}' "/proc/$p/status" 2>/dev/null)" = "$pid" ]; then
			echo "$p"
			return
		fi
	done
	die "$2 of node$1 is not running"
}

daemon_verb() { # VERB NODE-INDEX NAME
	local verb=$1 i=$2 name=$3
	[[ $name =~ ^(coordinator|agent|corosync)$ ]] || die "\"$name\" is no daemon: coordinator, agent or corosync"
	node_need_on "$i"
	if [ "$verb" != start ] && ! daemon_is_running "$i" "$name"; then
		case $verb in stop | kill) return 0 ;; *) die "$name of node$i is not running" ;; esac
	fi
	case $verb in
	start)
		case $name in
		corosync) corosync_start "$i" ;;
		*) drover_start "$i" "$name" ;;
		esac
		;;
	stop)
		daemon_signal "$i" "$name" TERM || true
		wait_for 60 "the end of $name on node$i" daemon_is_gone "$i" "$name"
		;;
	kill)
		daemon_signal "$i" "$name" KILL || true
		wait_for 20 "the death of $name on node$i" daemon_is_gone "$i" "$name"
		;;
	pause)
		daemon_signal "$i" "$name" STOP
		wait_for 20 "$name on node$i to stand still" daemon_stands "$i" "$name"
		;;
	resume) daemon_signal "$i" "$name" CONT ;;
	esac
}

node_status() { # NODE-INDEX
	local name line="node$1:"
	if ! node_is_on "$1"; then
		echo "$line off"
		return
	fi
	line+=" on"
	for name in corosync coordinator agent; do
		[ -e "$(daemon_pid_file "$1" "$name")" ] || continue
		if daemon_is_running "$1" "$name"; then line+=", $name"; else line+=", $name DEAD"; fi
	done
	[ ! -e "$(daemon_pid_file "$1" corosync)" ] || line+=", quorum: $(corosync_quorum "$1")"
	echo "$line"
}
