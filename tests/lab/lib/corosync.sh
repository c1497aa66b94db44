# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# Corosync on the coordinators' nodes, encrypted, over the last two networks.

corosync_configure() { # NODE-INDEX
	local d
	d=$(node_dir "$1")/etc-corosync
	[ -e "$LAB_DIR/authkey" ] || (umask 077 && head -c 256 /dev/urandom >"$LAB_DIR/authkey")
	cp -p "$LAB_DIR/authkey" "$d/authkey"
	corosync_conf >"$d/corosync.conf"
}

# libknet looks at its links every 200 ms whatever the token is: shorter ping timeouts than that tear healthy links down.
corosync_conf() {
	local count=${#NETWORKS[@]} first l i
	first=$((count > 1 ? count - 1 : 1))
	cat <<-END
		totem {
		  version: 2
		  cluster_name: $LAB
		  transport: knet
		  ip_version: ipv4
		  config_version: 1
		  crypto_model: openssl
		  crypto_cipher: aes256
		  crypto_hash: sha256
		  keyfile: /etc/corosync/authkey
		  token: $TOKEN
		  token_coefficient: 0
	END
	for ((l = first; l <= count; l++)); do
		echo "  interface { "
		echo "    linknumber: $((l - first))"
		echo "    knet_ping_interval: 200"
		echo "    knet_ping_timeout: 1000"
		echo "  }"
	done
	echo "}"
	echo "nodelist {"
	for ((i = 1; i <= COORDINATORS; i++)); do
		echo "  node {"
		echo "    name: node$i"
		echo "    nodeid: $i"
		for ((l = first; l <= count; l++)); do echo "    ring$((l - first))_addr: $(address_of "$i" "$l")"; done
		echo "  }"
	done
	echo "}"
	echo "quorum {"
	echo "  provider: corosync_votequorum"
	# Both halves of a split stay quorate: Drover must not rely on it.
	[ "$COORDINATORS" != 2 ] || echo "  two_node: 1"
	cat <<-'END'
		}
		system {
		  sched_rr: no
		  move_to_root_cgroup: no
		  allow_knet_handle_fallback: yes
		}
		logging {
		  to_stderr: no
		  to_syslog: no
		  to_logfile: yes
		  logfile: /var/log/corosync/corosync.log
		  timestamp: hires
		}
	END
}

corosync_start() { # NODE-INDEX
	[ "$1" -le "$COORDINATORS" ] || die "node$1 is no coordinator, it has no corosync"
	daemon_launch "$1" corosync corosync -f -c /etc/corosync/corosync.conf
}

# "MEMBERS Yes|No", "0" when corosync does not answer.
corosync_quorum() { # NODE-INDEX
	# Its exit status says "not quorate", which is no failure here.
	{ in_node "$1" corosync-quorumtool -s 2>/dev/null || true; } |
		awk '/^Nodes:/ {n = $2} /^Quorate:/ {q = $2} END {print n + 0, q}'
}

corosync_has() { # NODE-INDEX MEMBERS
	if ! daemon_is_running "$1" corosync; then
		die "corosync on node$1 has died: $(tail -n 3 "$(node_dir "$1")/log/corosync/corosync.log" 2>/dev/null)"
	fi
	[ "$(corosync_quorum "$1")" = "$2 Yes" ]
}

corosync_wait_quorate() { # MEMBERS SECONDS
	local i
	for ((i = 1; i <= COORDINATORS; i++)); do
		wait_for "$2" "corosync on node$i to see $1 members and quorum" corosync_has "$i" "$1"
	done
}
