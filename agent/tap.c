#include "agent/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"

int tap_check_bridge(const char *bridge, struct dr_error *err)
{
	if (bridge == NULL || strlen(bridge) >= IFNAMSIZ || strchr(bridge, '/') != NULL ||
	    if_nametoindex(bridge) == 0)
		return dr_error_set(err, DR_EREFUSED,
				    "bridge %s does not exist on this host (ip link add name %s type bridge)",
				    bridge != NULL ? bridge : "\"\"", bridge != NULL ? bridge : "BR");
	return 0;
}

static int attach(int sock, const char *tap, const char *bridge, uint32_t mtu, struct dr_error *err)
{
	struct ifreq ifr = {0};

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", tap);
	if (mtu != 0) {
		ifr.ifr_mtu = (int)mtu;
		if (ioctl(sock, SIOCSIFMTU, &ifr) != 0)
			return dr_error_errno(err, DR_EIO, errno, "tap on %s: mtu %u", bridge, mtu);
	}
	ifr = (struct ifreq){0};
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", bridge);
	ifr.ifr_ifindex = (int)if_nametoindex(tap);
	if (ioctl(sock, SIOCBRADDIF, &ifr) != 0)
		return dr_error_errno(err, DR_EIO, errno, "bridge %s does not take a tap (is it a bridge?)",
				      bridge);
	ifr = (struct ifreq){0};
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", tap);
	ifr.ifr_flags = IFF_UP;
	if (ioctl(sock, SIOCSIFFLAGS, &ifr) != 0)
		return dr_error_errno(err, DR_EIO, errno, "tap on %s: up", bridge);
	return 0;
}

int tap_open(const char *bridge, uint32_t mtu, struct dr_error *err)
{
	struct ifreq ifr = {.ifr_name = "drv%d"};
	DR_AUTO_FD int fd = -1;
	DR_AUTO_FD int sock = -1;
	int rc = tap_check_bridge(bridge, err);

	if (rc != 0)
		return rc;
	fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return dr_error_errno(err, DR_EIO, errno, "/dev/net/tun");
	ifr.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
	if (ioctl(fd, TUNSETIFF, &ifr) != 0)
		return dr_error_errno(err, DR_EIO, errno, "tap on %s", bridge);
	sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return dr_error_errno(err, DR_EIO, errno, "tap on %s: socket", bridge);
	rc = attach(sock, ifr.ifr_name, bridge, mtu, err);
	return rc != 0 ? rc : DR_TAKE_FD(fd);
}
