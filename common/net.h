/*
 * Sockets: numeric addresses, listeners, connects without waiting, options that every TCP connection of
 * Drover gets, and passing of file descriptors. All sockets made here are non-blocking and close-on-exec.
 */
#ifndef DROVER_COMMON_NET_H
#define DROVER_COMMON_NET_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "common/error.h"

#define NET_TEXT    64 /* "[IPv6%scope]:PORT" with its end */
#define NET_FDS_MAX 4  /* file descriptors in one message */

struct net_addr {
	struct sockaddr_storage ss;
	socklen_t len;
};

/* "10.77.1.2:7420", "[fd00::1]:7420", "*:7420" (= 0.0.0.0). No names: nothing here asks a name server.
 * -DR_EUSAGE. */
int net_parse(const char *address, struct net_addr *out, struct dr_error *err);

/* As net_parse for a numeric host alone ("10.77.1.2", "fd00::1") with a port beside it. */
int net_parse_host(const char *host, uint16_t port, struct net_addr *out, struct dr_error *err);

/* "10.77.1.2:7420" into text; returns text. */
char *net_format(const struct net_addr *addr, char text[NET_TEXT]);

/* A listening TCP socket, or a negative code (-DR_EIO; the message says when the port is taken). */
int net_listen_tcp(const struct net_addr *addr, struct dr_error *err);

/*
 * A listening unix socket of type SOCK_STREAM or SOCK_SEQPACKET. An abandoned socket at path is replaced; a
 * live one is an error (-DR_EREFUSED). mode: permissions of the path; gid: (gid_t)-1 leaves the group.
 */
int net_listen_unix(const char *path, int type, mode_t mode, gid_t gid, struct dr_error *err);

/*
 * Begins a TCP connect from src (NULL: any). The socket becomes writable when it is over; ask
 * net_connect_result then. Returns the socket or a negative code.
 */
int net_connect_tcp(const struct net_addr *to, const struct net_addr *src, struct dr_error *err);
/* 0, -DR_EAGAIN while it goes on, or -DR_EIO with the reason. */
int net_connect_result(int fd, struct dr_error *err);

/* A connected unix socket. -DR_ENODAEMON when nobody listens there. */
int net_connect_unix(const char *path, int type, struct dr_error *err);

/*
 * What every TCP connection gets: no delay, cubic (the host's default may be one that halves a LAN; DESIGN
 * §8), keepalive, and TCP_USER_TIMEOUT, so that a dead peer is noticed within dead_ms. Refused options are
 * not errors.
 */
void net_tune_tcp(int fd, unsigned dead_ms);

/* Gives a unix socket buffers of about a MiB (both ends of QEMU's pair: larger writes, fewer wake-ups). Needs
 * root. */
void net_big_buffers(int fd);

/*
 * Sends one message with n file descriptors (n may be 0), without waiting. The descriptors stay the caller's.
 * 0, -DR_EAGAIN (nothing was sent), -DR_ECLOSED or -DR_EIO.
 */
int net_send_fds(int sock, const void *data, size_t size, const int *fds, size_t n, struct dr_error *err);

/*
 * Receives one message without waiting and up to NET_FDS_MAX descriptors (close-on-exec, now the caller's; *n
 * says how many). Returns its size, 0 at the end of the connection, -DR_EAGAIN, -DR_EPROTO when the message
 * or its descriptors did not fit (those are closed), or -DR_EIO.
 */
ssize_t net_recv_fds(int sock, void *data, size_t size, int fds[NET_FDS_MAX], size_t *n,
		     struct dr_error *err);

#endif
