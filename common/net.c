#include "common/net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/cleanup.h"

#define BACKLOG	   128
#define BIG_BUFFER (512 << 10) /* the kernel doubles it */

int net_parse_host(const char *host, uint16_t port, struct net_addr *out, struct dr_error *err)
{
	struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
	struct addrinfo *found;
	char text[8];

	snprintf(text, sizeof(text), "%u", port);
	if (getaddrinfo(host, text, &hints, &found) != 0)
		return dr_error_set(err, DR_EUSAGE, "'%s' is not a numeric IPv4 or IPv6 address", host);
	memset(out, 0, sizeof(*out));
	memcpy(&out->ss, found->ai_addr, found->ai_addrlen);
	out->len = found->ai_addrlen;
	freeaddrinfo(found);
	return 0;
}

int net_parse(const char *address, struct net_addr *out, struct dr_error *err)
{
	const char *colon = strrchr(address, ':');
	char host[NET_TEXT];
	unsigned long port;
	size_t len;
	char *end;

	if (colon == NULL || colon[1] < '0' || colon[1] > '9')
		goto bad;
	errno = 0;
	port = strtoul(colon + 1, &end, 10);
	if (*end != '\0' || errno != 0 || port > UINT16_MAX)
		goto bad;
	len = (size_t)(colon - address);
	if (len >= 2 && address[0] == '[' && colon[-1] == ']') {
		address++;
		len -= 2;
	} else if (memchr(address, ':', len) != NULL) {
		goto bad; /* a bare IPv6 address: its last group is no port */
	}
	if (len == 0 || len >= sizeof(host))
		goto bad;
	memcpy(host, address, len);
	host[len] = '\0';
	return net_parse_host(strcmp(host, "*") == 0 ? "0.0.0.0" : host, (uint16_t)port, out, err);
bad:
	return dr_error_set(err, DR_EUSAGE, "'%s' is not an address; write 10.0.0.1:7420 or [fd00::1]:7420",
			    address);
}

char *net_format(const struct net_addr *addr, char text[NET_TEXT])
{
	char host[INET6_ADDRSTRLEN + 18], port[8];

	if (getnameinfo((const struct sockaddr *)&addr->ss, addr->len, host, sizeof(host), port, sizeof(port),
			NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		snprintf(text, NET_TEXT, "unknown");
	else
		snprintf(text, NET_TEXT, addr->ss.ss_family == AF_INET6 ? "[%.52s]:%s" : "%.52s:%s", host,
			 port);
	return text;
}

int net_listen_tcp(const struct net_addr *addr, struct dr_error *err)
{
	char text[NET_TEXT];
	DR_AUTO_FD int fd = socket(addr->ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int one = 1;

	if (fd < 0)
		return dr_error_errno(err, DR_EIO, errno, "cannot make a TCP socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (const struct sockaddr *)&addr->ss, addr->len) != 0 || listen(fd, BACKLOG) != 0)
		return dr_error_errno(err, DR_EIO, errno, "cannot listen on %s", net_format(addr, text));
	return DR_TAKE_FD(fd);
}

static int unix_address(const char *path, struct sockaddr_un *sun, struct dr_error *err)
{
	memset(sun, 0, sizeof(*sun));
	sun->sun_family = AF_UNIX;
	if (path[0] == '\0' || strlen(path) >= sizeof(sun->sun_path))
		return dr_error_set(err, DR_EUSAGE, "socket path '%s': 1 to %zu characters are possible",
				    path, sizeof(sun->sun_path) - 1);
	memcpy(sun->sun_path, path, strlen(path) + 1);
	return 0;
}

/* Removes the socket that a dead program left at the path; refuses when somebody answers there. */
static int clear_path(const char *path, int type, const struct sockaddr_un *sun, struct dr_error *err)
{
	DR_AUTO_FD int probe = -1;
	struct stat st;

	if (lstat(path, &st) != 0)
		return errno == ENOENT ? 0 : dr_error_errno(err, DR_EIO, errno, "cannot look at %s", path);
	if (!S_ISSOCK(st.st_mode))
		return dr_error_set(err, DR_EREFUSED, "%s exists and is not a socket; remove it", path);
	probe = socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (probe < 0)
		return dr_error_errno(err, DR_EIO, errno, "cannot make a unix socket");
	if (connect(probe, (const struct sockaddr *)sun, sizeof(*sun)) == 0 || errno != ECONNREFUSED)
		return dr_error_set(err, DR_EREFUSED, "%s is in use by a running program", path);
	if (unlink(path) != 0 && errno != ENOENT)
		return dr_error_errno(err, DR_EIO, errno, "cannot remove the abandoned %s", path);
	return 0;
}

int net_listen_unix(const char *path, int type, mode_t mode, gid_t gid, struct dr_error *err)
{
	DR_AUTO_FD int fd = -1;
	struct sockaddr_un sun;
	int r;

	r = unix_address(path, &sun, err);
	if (r == 0)
		r = clear_path(path, type, &sun, err);
	if (r != 0)
		return r;
	fd = socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return dr_error_errno(err, DR_EIO, errno, "cannot make a unix socket");
	/* The path is made with the permissions of the socket: nobody gets in before chown and chmod are
	 * done. */
	fchmod(fd, 0600);
	if (bind(fd, (const struct sockaddr *)&sun, sizeof(sun)) != 0)
		return dr_error_errno(err, DR_EIO, errno, "cannot bind %s", path);
	if ((gid != (gid_t)-1 && lchown(path, (uid_t)-1, gid) != 0) || chmod(path, mode) != 0 ||
	    listen(fd, BACKLOG) != 0) {
		int e = errno;

		unlink(path);
		return dr_error_errno(err, DR_EIO, e, "cannot listen on %s", path);
	}
	return DR_TAKE_FD(fd);
}

int net_connect_tcp(const struct net_addr *to, const struct net_addr *src, struct dr_error *err)
{
	char text[NET_TEXT];
	DR_AUTO_FD int fd = socket(to->ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return dr_error_errno(err, DR_EIO, errno, "cannot make a TCP socket");
	if (src != NULL && bind(fd, (const struct sockaddr *)&src->ss, src->len) != 0)
		return dr_error_errno(err, DR_EIO, errno, "cannot use the address %s", net_format(src, text));
	if (connect(fd, (const struct sockaddr *)&to->ss, to->len) != 0 && errno != EINPROGRESS)
		return dr_error_errno(err, DR_EIO, errno, "cannot connect to %s", net_format(to, text));
	return DR_TAKE_FD(fd);
}

int net_connect_result(int fd, struct dr_error *err)
{
	struct net_addr peer = {.len = sizeof(peer.ss)};
	socklen_t len = sizeof(int);
	int e = 0;

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &len) != 0)
		e = errno;
	if (e != 0)
		return dr_error_errno(err, DR_EIO, e, "cannot connect");
	if (getpeername(fd, (struct sockaddr *)&peer.ss, &peer.len) != 0)
		return errno == ENOTCONN ? -DR_EAGAIN : dr_error_errno(err, DR_EIO, errno, "cannot connect");
	return 0;
}

int net_connect_unix(const char *path, int type, struct dr_error *err)
{
	DR_AUTO_FD int fd = -1;
	struct sockaddr_un sun;
	int r = unix_address(path, &sun, err);

	if (r != 0)
		return r;
	fd = socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return dr_error_errno(err, DR_EIO, errno, "cannot make a unix socket");
	if (connect(fd, (const struct sockaddr *)&sun, sizeof(sun)) != 0)
		return dr_error_errno(err, DR_ENODAEMON, errno, "cannot connect to %s", path);
	return DR_TAKE_FD(fd);
}

void net_tune_tcp(int fd, unsigned dead_ms)
{
	int one = 1, idle = 5, interval = 2, count = 3;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5);
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &dead_ms, sizeof(dead_ms));
}

void net_big_buffers(int fd)
{
	int size = BIG_BUFFER;

	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) != 0)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

int net_send_fds(int sock, const void *data, size_t size, const int *fds, size_t n, struct dr_error *err)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * NET_FDS_MAX)];
		struct cmsghdr align;
	} control;
	struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (n > NET_FDS_MAX)
		return dr_error_set(err, DR_EBUG, "%zu file descriptors in one message", n);
	if (n > 0) {
		struct cmsghdr *c;

		memset(&control, 0, sizeof(control));
		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * n);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * n);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * n);
	}
	if (sendmsg(sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
		return 0;
	if (errno == EAGAIN || errno == EINTR || errno == ENOBUFS)
		return -DR_EAGAIN;
	if (errno == EPIPE || errno == ECONNRESET)
		return dr_error_errno(err, DR_ECLOSED, errno, "cannot send");
	return dr_error_errno(err, DR_EIO, errno, "cannot send");
}

static size_t take_fds(struct msghdr *msg, int fds[NET_FDS_MAX])
{
	size_t n = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c != NULL; c = CMSG_NXTHDR(msg, c)) {
		size_t count;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count && n < NET_FDS_MAX; i++)
			memcpy(&fds[n++], CMSG_DATA(c) + i * sizeof(int), sizeof(int));
	}
	return n;
}

ssize_t net_recv_fds(int sock, void *data, size_t size, int fds[NET_FDS_MAX], size_t *n, struct dr_error *err)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * NET_FDS_MAX)];
		struct cmsghdr align;
	} control;
	struct iovec iov = {.iov_base = data, .iov_len = size};
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};
	ssize_t got = recvmsg(sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	*n = 0;
	if (got < 0) {
		if (errno == EAGAIN || errno == EINTR)
			return -DR_EAGAIN;
		if (errno == ECONNRESET)
			return 0;
		return dr_error_errno(err, DR_EIO, errno, "cannot receive");
	}
	*n = take_fds(&msg, fds);
	if ((msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0)
		return got;
	while (*n > 0)
		close(fds[--*n]);
	return dr_error_set(err, DR_EPROTO, "a message of more than %zu bytes or %d descriptors", size,
			    NET_FDS_MAX);
}
