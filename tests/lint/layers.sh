#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# DESIGN §2: dependencies point one way, and the pure core sees the world only through struct env. Every #include of a folder
# must be allowed for it, and what the pure files include, also by way of our own headers, must not be the world.
. "$(dirname "$0")/lib.sh"

# folder: folders that it may include besides itself
declare -A may=(
	[common]=""
	[proto]="common"
	[db]="common proto"
	[coordinator]="common proto db"
	[agent]="common proto"
	[relay]="common proto"
	[cli]="common proto"
)

own_includes() { # FILE: the "…" includes
	sed -n 's/^[ \t]*#[ \t]*include[ \t]*"\([^"]*\)".*/\1/p' "$1"
}

system_includes() { # FILE: the <…> includes
	sed -n 's/^[ \t]*#[ \t]*include[ \t]*<\([^>]*\)>.*/\1/p' "$1"
}

check_folder() { # FOLDER
	local file include of
	for file in "$1"/*.[ch]; do
		[ -e "$file" ] || continue
		case $file in *.pb-c.[ch]) continue ;; esac
		while read -r include; do
			case $include in
			config.h) continue ;;
			*/*) of=${include%%/*} ;;
			*)
				complain "$file: \"$include\": write the folder in front of it"
				continue
				;;
			esac
			case " $1 ${may[$1]} " in
			*" $of "*) ;;
			*) complain "$file: includes $include, but $1 may only use: $1 ${may[$1]}" ;;
			esac
		done < <(own_includes "$file")
	done
}

pure_files() {
	local name
	for name in apply drain plan failover update lease orders reports requests rows; do
		find coordinator -maxdepth 1 -name "$name.[ch]" -o -maxdepth 1 -name "${name}_*.[ch]"
	done
	find agent -maxdepth 1 -name 'move_src*.[ch]' -o -maxdepth 1 -name 'move_dst*.[ch]' -o -maxdepth 1 -name 'move.[ch]'
}

# Headers of the world. Logging (common/log.h, which uses libqb) only writes; it is not looked into.
world='^(corosync/.*|qb/.*|sys/socket\.h|netinet/.*|arpa/.*|netdb\.h|netlink/.*|time\.h|sys/time\.h|sys/timerfd\.h|sys/random\.h|poll\.h|sys/epoll\.h|sys/select\.h|common/(net|env_real|tls)\.h|proto/conn\.h)$'
calls='(^|[^a-z_>.])(time|clock_gettime|gettimeofday|rand|random|srand|getrandom|arc4random|sleep|usleep|nanosleep)[ ]*\('

check_pure() { # FILE
	local -A seen=()
	local queue=("$1") file include
	while [ "${#queue[@]}" -gt 0 ]; do
		file=${queue[0]}
		queue=("${queue[@]:1}")
		[ -z "${seen[$file]:-}" ] || continue
		seen[$file]=1
		while read -r include; do
			if [[ $include =~ $world ]]; then
				complain "$1: is of the pure core, but includes <$include>${file:+ (in $file)}"
			fi
		done < <(system_includes "$file")
		while read -r include; do
			if [[ $include =~ $world ]]; then
				complain "$1: is of the pure core, but includes $include (in $file)"
			elif [ -e "$include" ] && [ "$include" != common/log.h ]; then
				queue+=("$include")
			fi
		done < <(own_includes "$file")
	done
	# Comments may speak of it.
	if sed 's,/\*.*\*/,,; s,^[ \t]*\*.*,,; s,//.*,,' "$1" | grep -nE "$calls"; then
		complain "$1: is of the pure core, but calls the above: use struct env"
	fi
}

for folder in "${!may[@]}"; do
	check_folder "$folder"
done
count=0
while read -r file; do
	check_pure "$file"
	count=$((count + 1))
done < <(pure_files | sort -u)
[ "$count" -gt 0 ] || complain "no file of the pure core was found: is $SRC the source tree?"
echo "$count files of the pure core looked at"
finish
