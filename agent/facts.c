#include "agent/facts.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netlink/cache.h>
#include <netlink/route/addr.h>
#include <netlink/route/link.h>
#include <netlink/route/route.h>
#include <netlink/socket.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/move_real.h"
#include "common/cleanup.h"
#include "common/log.h"

#define ADDRESSES_MAX 128
#define MEMORY_STEP   (UINT64_C(256) << 20) /* smaller changes of free memory are not worth a report */

struct facts {
	struct agent *agent;
	struct nl_sock *watch;
	struct nl_sock *ask;
	uint64_t settle_timer;
	uint64_t refresh_timer;
	Drover__HostFacts host;
	Drover__HostAddress *list[ADDRESSES_MAX];
	char cpu_model[128];
	char text[INET6_ADDRSTRLEN];
	char corosync[8192]; /* of corosync.conf: which addresses are its own */
};

static uint64_t meminfo(const char *field)
{
	DR_AUTO_FILE FILE *f = fopen("/proc/meminfo", "re");
	char line[128];
	size_t len = strlen(field);

	while (f != NULL && fgets(line, sizeof(line), f) != NULL)
		if (strncmp(line, field, len) == 0 && line[len] == ':')
			return strtoull(line + len + 1, NULL, 10) * 1024;
	return 0;
}

uint64_t facts_memory_available(void)
{
	return meminfo("MemAvailable");
}

bool facts_interface_wanted(const char *name)
{
	static const char *const others[] = {"lo",   "docker", "virbr", "vnet", "podman", "cni", "flannel",
					     "cali", "lxc",    "lxdbr", "drv",	"tap",	  "br-", "veth"};

	for (size_t i = 0; i < DR_ARRAY_SIZE(others); i++) {
		size_t len = strlen(others[i]);

		/* "lo" alone, not "lokal0"; the rest are prefixes. */
		if (strncmp(name, others[i], len) == 0 && (i != 0 || name[len] == '\0'))
			return false;
	}
	return true;
}

static void read_cpu(struct facts *f)
{
	DR_AUTO_FILE FILE *in = fopen("/proc/cpuinfo", "re");
	char line[256];

	f->host.cpus = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
	while (in != NULL && fgets(line, sizeof(line), in) != NULL) {
		char *colon = strchr(line, ':');

		if (strncmp(line, "model name", 10) != 0 || colon == NULL)
			continue;
		colon[strcspn(colon, "\n")] = '\0';
		snprintf(f->cpu_model, sizeof(f->cpu_model), "%.120s",
			 colon[1] == ' ' ? colon + 2 : colon + 1);
		break;
	}
	f->host.cpu_model = f->cpu_model;
}

/* ------------------------------------------------ addresses */

/* Bytes per second, 0 unknown. */
static uint64_t link_speed(const char *name)
{
	struct ethtool_cmd cmd = {.cmd = ETHTOOL_GSET};
	struct ifreq ifr = {0};
	DR_AUTO_FD int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	uint32_t mbit;

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	ifr.ifr_data = (char *)&cmd;
	if (fd < 0 || ioctl(fd, SIOCETHTOOL, &ifr) != 0)
		return 0;
	mbit = (uint32_t)cmd.speed_hi << 16 | cmd.speed; /* the header's own helper shifts a signed number */
	return mbit == 0 || mbit == (uint32_t)SPEED_UNKNOWN ? 0 : (uint64_t)mbit * 1000000 / 8;
}

static bool is_rdma(const char *name)
{
	char path[96];

	snprintf(path, sizeof(path), "/sys/class/net/%s/device/infiniband", name);
	return access(path, F_OK) == 0;
}

static void read_corosync(struct facts *f)
{
	DR_AUTO_FILE FILE *in = fopen("/etc/corosync/corosync.conf", "re");
	size_t n = in != NULL ? fread(f->corosync, 1, sizeof(f->corosync) - 1, in) : 0;

	f->corosync[n] = '\0';
}

/* Does corosync.conf name the address as one of its links? */
static bool in_corosync(const struct facts *f, const char *address)
{
	size_t len = strlen(address);

	for (const char *p = strstr(f->corosync, address); p != NULL; p = strstr(p + 1, address)) {
		char after = p[len];
		char before = p > f->corosync ? p[-1] : ' ';

		if (strchr(" \t:", before) != NULL && (after == '\0' || strchr(" \t\r\n", after) != NULL))
			return true;
	}
	return false;
}

/* The interfaces that default routes go out of. */
static bool has_default_route(struct nl_cache *routes, int ifindex)
{
	for (struct nl_object *o = nl_cache_get_first(routes); o != NULL; o = nl_cache_get_next(o)) {
		struct rtnl_route *r = (struct rtnl_route *)o;

		if (nl_addr_get_prefixlen(rtnl_route_get_dst(r)) != 0 ||
		    rtnl_route_get_type(r) != RTN_UNICAST)
			continue;
		for (int i = 0; i < rtnl_route_get_nnexthops(r); i++)
			if (rtnl_route_nh_get_ifindex(rtnl_route_nexthop_n(r, i)) == ifindex)
				return true;
	}
	return false;
}

static bool usable_address(struct rtnl_addr *addr, char *text, size_t size)
{
	struct nl_addr *local = rtnl_addr_get_local(addr);
	const uint8_t *bytes = local != NULL ? nl_addr_get_binary_addr(local) : NULL;
	int family = local != NULL ? nl_addr_get_family(local) : AF_UNSPEC;

	if (family == AF_INET && (bytes[0] == 127 || (bytes[0] == 169 && bytes[1] == 254)))
		return false;
	if (family == AF_INET6 &&
	    (rtnl_addr_get_scope(addr) != 0 || (bytes[0] == 0xfe && (bytes[1] & 0xc0) == 0x80)))
		return false;
	if (family != AF_INET && family != AF_INET6)
		return false;
	return inet_ntop(family, bytes, text, (socklen_t)size) != NULL;
}

static void free_addresses(struct facts *f)
{
	for (size_t i = 0; i < f->host.n_addresses; i++)
		drover__host_address__free_unpacked(f->list[i], NULL);
	f->host.n_addresses = 0;
	f->host.addresses = f->list;
}

static void add_address(struct facts *f, struct rtnl_addr *addr, struct nl_cache *links,
			struct nl_cache *routes)
{
	struct rtnl_link *link = rtnl_link_get(links, rtnl_addr_get_ifindex(addr));
	const char *name = link != NULL ? rtnl_link_get_name(link) : NULL;
	Drover__HostAddress *h;
	char text[INET6_ADDRSTRLEN];

	if (name != NULL && facts_interface_wanted(name) && f->host.n_addresses < ADDRESSES_MAX &&
	    usable_address(addr, text, sizeof(text)) && (h = calloc(1, sizeof(*h))) != NULL) {
		unsigned int flags = rtnl_link_get_flags(link);

		drover__host_address__init(h);
		h->interface = strdup(name);
		h->address = strdup(text);
		h->prefix = (uint32_t)rtnl_addr_get_prefixlen(addr);
		h->mtu = rtnl_link_get_mtu(link);
		h->up = (flags & IFF_UP) != 0 && (flags & IFF_RUNNING) != 0;
		h->speed = link_speed(name);
		h->rdma = is_rdma(name);
		h->default_gateway = has_default_route(routes, rtnl_link_get_ifindex(link));
		h->corosync = in_corosync(f, text);
		f->list[f->host.n_addresses++] = h;
	}
	if (link != NULL)
		rtnl_link_put(link);
}

static int by_interface(const void *a, const void *b)
{
	const Drover__HostAddress *x = *(Drover__HostAddress *const *)a;
	const Drover__HostAddress *y = *(Drover__HostAddress *const *)b;
	int d = strcmp(x->interface, y->interface);

	return d != 0 ? d : strcmp(x->address, y->address);
}

static void read_addresses(struct facts *f)
{
	struct nl_cache *links = NULL;
	struct nl_cache *addrs = NULL;
	struct nl_cache *routes = NULL;

	read_corosync(f);
	if (rtnl_link_alloc_cache(f->ask, AF_UNSPEC, &links) < 0 ||
	    rtnl_addr_alloc_cache(f->ask, &addrs) < 0 ||
	    rtnl_route_alloc_cache(f->ask, AF_UNSPEC, 0, &routes) < 0) {
		log_warning("netlink: the host's addresses cannot be read; the last known are kept");
	} else {
		free_addresses(f);
		for (struct nl_object *o = nl_cache_get_first(addrs); o != NULL; o = nl_cache_get_next(o))
			add_address(f, (struct rtnl_addr *)o, links, routes);
		qsort(f->list, f->host.n_addresses, sizeof(f->list[0]), by_interface);
	}
	if (links != NULL)
		nl_cache_free(links);
	if (addrs != NULL)
		nl_cache_free(addrs);
	if (routes != NULL)
		nl_cache_free(routes);
}

/* ------------------------------------------------ watching */

static void on_settled(void *data)
{
	struct facts *f = data;

	f->settle_timer = 0;
	read_addresses(f);
	amove_carriers(f->agent);
	agent_dirty(f->agent);
}

static int32_t on_netlink(int32_t fd, int32_t revents, void *data)
{
	struct facts *f = data;
	char buf[16384];

	(void)revents;
	/* What changed is not read from the messages: everything is asked for anew. Lost ones do not matter.
	 */
	for (int i = 0; i < 32 && (recv(fd, buf, sizeof(buf), MSG_DONTWAIT) > 0 || errno == ENOBUFS); i++)
		errno = 0;
	if (f->settle_timer == 0)
		f->settle_timer = env_timer_start(f->agent->env, FACTS_SETTLE_US, on_settled, f);
	return 0;
}

static void on_refresh(void *data)
{
	struct facts *f = data;
	uint64_t now = facts_memory_available();
	uint64_t d = now > f->host.memory_free ? now - f->host.memory_free : f->host.memory_free - now;

	if (d >= MEMORY_STEP) {
		f->host.memory_free = now;
		agent_dirty(f->agent);
	}
	f->refresh_timer = env_timer_start(f->agent->env, FACTS_REFRESH_US, on_refresh, f);
}

static int open_sockets(struct facts *f)
{
	f->ask = nl_socket_alloc();
	f->watch = nl_socket_alloc();
	if (f->ask == NULL || f->watch == NULL || nl_connect(f->ask, NETLINK_ROUTE) < 0)
		return -DR_EIO;
	nl_socket_disable_seq_check(f->watch);
	if (nl_connect(f->watch, NETLINK_ROUTE) < 0 ||
	    nl_socket_add_memberships(f->watch, RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR,
				      RTNLGRP_IPV4_ROUTE, 0) < 0 ||
	    nl_socket_set_nonblocking(f->watch) < 0)
		return -DR_EIO;
	return qb_loop_poll_add(f->agent->loop, QB_LOOP_LOW, nl_socket_get_fd(f->watch), POLLIN, f,
				on_netlink) == 0
		       ? 0
		       : -DR_EIO;
}

struct facts *facts_new(struct agent *a, struct dr_error *err)
{
	struct facts *f = calloc(1, sizeof(*f));

	if (f == NULL) {
		dr_error_set(err, DR_ENOMEM, "out of memory");
		return NULL;
	}
	f->agent = a;
	drover__host_facts__init(&f->host);
	f->host.addresses = f->list;
	if (open_sockets(f) != 0) {
		dr_error_set(err, DR_EIO, "netlink: no socket");
		facts_free(f);
		return NULL;
	}
	f->host.memory_total = meminfo("MemTotal");
	f->host.memory_free = facts_memory_available();
	read_cpu(f);
	f->host.kvm = a->caps.kvm;
	f->host.qemu_version = a->caps.version;
	f->host.machine_types = a->caps.machines;
	f->host.n_machine_types = a->caps.n_machines;
	f->host.relay_port = a->conf.relay_port;
	f->host.version = (char *)(uintptr_t) "0.1.0";
	read_addresses(f);
	f->refresh_timer = env_timer_start(a->env, FACTS_REFRESH_US, on_refresh, f);
	return f;
}

void facts_free(struct facts *f)
{
	if (f == NULL)
		return;
	env_timer_stop(f->agent->env, &f->settle_timer);
	env_timer_stop(f->agent->env, &f->refresh_timer);
	if (f->watch != NULL && nl_socket_get_fd(f->watch) >= 0)
		qb_loop_poll_del(f->agent->loop, nl_socket_get_fd(f->watch));
	nl_socket_free(f->watch);
	nl_socket_free(f->ask);
	free_addresses(f);
	free(f);
}

const Drover__HostFacts *facts_get(const struct facts *f)
{
	return &f->host;
}
