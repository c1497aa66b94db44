/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * beatmon DIR: collects the heartbeats of probe guests.
 *
 * For every VM named in DIR/names (one a line; read again at SIGHUP) it listens on DIR/VM.sock. Any QEMU of
 * that VM, on any node, connects its debug console there (-chardev socket,path=...,reconnect=1); beatmon
 * notes which process it was and appends what it hears, with the time, to DIR/VM.beats (beat.h). SIGTERM ends
 * it, and so does the end of DIR: whoever started it may have been killed before he noted its pid.
 *
 * A QEMU whose console cannot be written blocks its vCPU, so beatmon must keep reading, whatever happens; it
 * never waits for anything but its sockets.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "beat.h"

#define MAX_VMS		256
#define MAX_CONNECTIONS 1024
#define MAX_LINE	256
#define MAX_PENDING	1024 /* records per write */
#define BACKLOG		64
#define PRIORITY	(-10)
/* QEMU writes its console byte by byte: look at a line when it is complete, not once per byte. */
#define GATHER_NS  300000
#define SILENCE_MS 1000

struct partial { /* a line whose end has not come yet */
	char text[MAX_LINE];
	size_t length;
};

struct vm {
	char name[BEAT_NAME_MAX + 1];
	int listener;
	int file;
	uint16_t connections;  /* ever made */
	struct partial orphan; /* what the last connection that was closed had not finished */
	struct beat_record pending[MAX_PENDING];
	size_t n_pending;
};

struct connection {
	int fd;
	struct vm *vm;
	uint16_t number;
	bool first_line_seen;
	struct partial partial;
};

static struct vm *vms[MAX_VMS];
static size_t n_vms;
static struct connection *connections[MAX_CONNECTIONS]; /* in the order in which they came */
static size_t n_connections;
static const char *directory;
static volatile sig_atomic_t stop_wanted, reread_wanted;

static void on_signal(int number)
{
	if (number == SIGHUP)
		reread_wanted = 1;
	else
		stop_wanted = 1;
}

static _Noreturn void die(const char *what, const char *object)
{
	fprintf(stderr, "beatmon: %s %s: %s\n", what, object, strerror(errno));
	exit(1);
}

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void flush_records(struct vm *vm)
{
	const char *from = (const char *)vm->pending;
	size_t left = vm->n_pending * sizeof(vm->pending[0]);

	while (left > 0) {
		ssize_t n = write(vm->file, from, left);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			die("cannot record the heartbeats of", vm->name);
		from += n;
		left -= (size_t)n;
	}
	vm->n_pending = 0;
}

static void record(struct connection *c, uint64_t time, enum beat_kind kind, uint64_t number, uint32_t value)
{
	struct vm *vm = c->vm;

	if (vm->n_pending == MAX_PENDING)
		flush_records(vm);
	vm->pending[vm->n_pending++] = (struct beat_record){.time_us = time,
							    .number = number,
							    .value = value,
							    .connection = c->number,
							    .kind = (uint16_t)kind};
}

/* Reads "NAME=VALUE" out of a line in the guest's format. */
static bool field(const char *line, const char *name, int base, uint64_t *value)
{
	const char *at = strstr(line, name);
	char *end;

	if (!at)
		return false;
	at += strlen(name);
	errno = 0;
	*value = strtoull(at, &end, base);
	return end != at && errno == 0 && (*end == ' ' || *end == '\0');
}

/* Records what a complete line says. False: it is none of the guest's lines (guest.c describes them). */
static bool understand(struct connection *c, uint64_t time, const char *line)
{
	uint64_t number, boot, dirtied, passes, bad, loop, pages;

	if (line[0] == 'h') {
		char *end;
		errno = 0;
		if (line[1] != ' ')
			return false;
		number = strtoull(line + 2, &end, 10);
		if (errno || end == line + 2 || *end != ' ' || strlen(end + 1) != 4)
			return false;
		boot = strtoull(end + 1, &end, 16);
		if (*end)
			return false;
		record(c, time, BEAT_BEAT, number, (uint32_t)boot);
		return true;
	}
	if (line[0] == 'H') {
		if (!field(line, " n=", 10, &number) || !field(line, " b=", 16, &boot) ||
		    !field(line, " d=", 10, &dirtied) || !field(line, " v=", 10, &passes) ||
		    !field(line, " e=", 10, &bad) || !field(line, " g=", 10, &loop))
			return false;
		record(c, time, BEAT_BEAT, number, (uint32_t)boot);
		record(c, time, BEAT_STATUS, bad, (uint32_t)passes);
		record(c, time, BEAT_LOOP, dirtied, loop > UINT32_MAX ? UINT32_MAX : (uint32_t)loop);
		return true;
	}
	if (!strncmp(line, "BOOT", 4)) {
		if (!field(line, " b=", 16, &boot) || !field(line, " pages=", 10, &pages))
			return false;
		record(c, time, BEAT_BOOT, pages, (uint32_t)boot);
		return true;
	}
	return !strncmp(line, "FILLED", 6);
}

/*
 * A VM can be moved in the middle of a line: its head was written by the old QEMU, its tail comes as the
 * first line of the new one. Finds the head, puts both together and records the whole.
 */
static bool understand_joined(struct connection *c, uint64_t time, const char *tail)
{
	struct partial *head = c->vm->orphan.length ? &c->vm->orphan : NULL;
	char line[2 * MAX_LINE];

	for (size_t i = 0; i < n_connections; i++)
		if (connections[i]->vm == c->vm && connections[i] != c && connections[i]->partial.length)
			head = &connections[i]->partial; /* the youngest but this one */
	if (!head)
		return false;
	snprintf(line, sizeof(line), "%.*s%s", (int)head->length, head->text, tail);
	if (!understand(c, time, line))
		return false;
	head->length = 0;
	return true;
}

static void hear(struct connection *c, uint64_t time, const char *bytes, size_t n)
{
	struct partial *p = &c->partial;

	for (size_t i = 0; i < n; i++) {
		if (bytes[i] != '\n') {
			if (p->length < sizeof(p->text) - 1)
				p->text[p->length++] = bytes[i];
			continue;
		}
		p->text[p->length] = '\0';
		if (!understand(c, time, p->text) &&
		    (c->first_line_seen || !understand_joined(c, time, p->text)))
			record(c, time, BEAT_NOISE, p->length, 0);
		c->first_line_seen = true;
		p->length = 0;
	}
}

static void add_vm(const char *name)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char path[sizeof(address.sun_path)];

	for (size_t i = 0; i < n_vms; i++)
		if (!strcmp(vms[i]->name, name))
			return;
	if (n_vms == MAX_VMS) {
		errno = ENOSPC;
		die("too many VMs, cannot listen for", name);
	}
	struct vm *vm = calloc(1, sizeof(*vm));
	if (!vm)
		die("no memory for", name);
	memcpy(vm->name, name, strnlen(name, BEAT_NAME_MAX));

	if (snprintf(path, sizeof(path), "%s/%s" BEAT_FILE_SUFFIX, directory, name) >= (int)sizeof(path)) {
		errno = ENAMETOOLONG;
		die("cannot listen for", name);
	}
	vm->file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (vm->file < 0)
		die("cannot open", path);

	snprintf(path, sizeof(path), "%s/%s" BEAT_SOCKET_SUFFIX, directory, name);
	memcpy(address.sun_path, path, sizeof(path));
	if (unlink(path) && errno != ENOENT)
		die("cannot replace", path);
	vm->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* QEMU runs as another user, so everybody may connect. */
	if (vm->listener < 0 || bind(vm->listener, (struct sockaddr *)&address, sizeof(address)) ||
	    chmod(path, 0666) || listen(vm->listener, BACKLOG))
		die("cannot listen on", path);
	vms[n_vms++] = vm;
}

static void read_names(void)
{
	char path[4096], line[BEAT_NAME_MAX + 2]; /* with the newline */

	snprintf(path, sizeof(path), "%s/" BEAT_NAMES_FILE, directory);
	FILE *f = fopen(path, "re");
	if (!f)
		die("cannot open", path);
	while (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		if (line[0] && !strchr(line, '/'))
			add_vm(line);
	}
	fclose(f);
}

static uint64_t network_namespace(pid_t pid)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)pid);
	return stat(path, &st) ? 0 : st.st_ino;
}

static void accept_connection(struct vm *vm, uint64_t time)
{
	int fd = accept4(vm->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct ucred peer = {0};
	socklen_t length = sizeof(peer);

	if (fd < 0)
		return;
	struct connection *c = n_connections < MAX_CONNECTIONS ? calloc(1, sizeof(*c)) : NULL;
	if (!c) {
		fprintf(stderr, "beatmon: no room for another connection of %s\n", vm->name);
		close(fd);
		return;
	}
	*c = (struct connection){.fd = fd, .vm = vm, .number = ++vm->connections};
	connections[n_connections++] = c;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length))
		peer.pid = 0;
	record(c, time, BEAT_CONNECT, network_namespace(peer.pid), (uint32_t)peer.pid);
}

/* Returns false when the connection has ended. */
static bool read_connection(struct connection *c, uint64_t time)
{
	char bytes[16384];

	for (;;) {
		ssize_t n = read(c->fd, bytes, sizeof(bytes));
		if (n > 0)
			hear(c, time, bytes, (size_t)n);
		else if (n < 0 && errno == EINTR)
			continue;
		else if (n < 0 && errno == EAGAIN)
			return true;
		else
			break;
	}
	record(c, time, BEAT_DISCONNECT, 0, 0);
	if (c->partial.length)
		c->vm->orphan = c->partial;
	close(c->fd);
	return false;
}

/* Older connections first: what a VM said before it moved comes before what it said after. */
static void read_connections(uint64_t time)
{
	size_t kept = 0;

	for (size_t i = 0; i < n_connections; i++) {
		if (read_connection(connections[i], time))
			connections[kept++] = connections[i];
		else
			free(connections[i]);
	}
	n_connections = kept;
}

static void turn(void)
{
	static struct pollfd polled[MAX_VMS + MAX_CONNECTIONS];
	const struct timespec gather = {.tv_nsec = GATHER_NS};
	nfds_t n = 0;

	for (size_t i = 0; i < n_vms; i++)
		polled[n++] = (struct pollfd){.fd = vms[i]->listener, .events = POLLIN};
	for (size_t i = 0; i < n_connections; i++)
		polled[n++] = (struct pollfd){.fd = connections[i]->fd, .events = POLLIN};
	int ready = poll(polled, n, SILENCE_MS);
	if (ready == 0 && access(directory, F_OK) != 0)
		stop_wanted = 1;
	if (ready <= 0)
		return;

	uint64_t time = now_us();
	size_t listeners = n_vms;
	nanosleep(&gather, NULL);
	read_connections(time);
	for (size_t i = 0; i < listeners; i++)
		if (polled[i].revents)
			accept_connection(vms[i], time);
	for (size_t i = 0; i < n_vms; i++)
		flush_records(vms[i]);
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_handler = on_signal};

	if (argc != 2) {
		fprintf(stderr, "usage: beatmon DIR\n");
		return 2;
	}
	directory = argv[1];
	sigaction(SIGHUP, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
	(void)setpriority(PRIO_PROCESS, 0, PRIORITY); /* late time stamps would look like gaps */
	read_names();
	while (!stop_wanted) {
		if (reread_wanted) {
			reread_wanted = 0;
			read_names();
		}
		turn();
	}
	for (size_t i = 0; i < n_connections; i++) {
		close(connections[i]->fd);
		free(connections[i]);
	}
	for (size_t i = 0; i < n_vms; i++) {
		close(vms[i]->listener);
		close(vms[i]->file);
		free(vms[i]);
	}
	return 0;
}
