/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * beatcheck [--nodes FILE] [--window MS] [--since US] DIR VM
 *
 * Judges what beatmon recorded about a VM in DIR: prints one JSON object (INTERFACE §4) and exits with 0 when
 * the VM is intact, 1 when it is not, 2 when it cannot tell.
 *
 *   --nodes FILE   lines "INODE NAME": which network namespace is which node
 *   --window MS    how long to watch for who is running right now; default 300, 0 for files of the past
 *   --since US     judge only what was heard from this time on (CLOCK_MONOTONIC)
 *
 * Intact means: one boot, no heartbeat missing in the numbering, none twice, none going back, no wrong word
 * of memory. Two QEMUs of one VM that run at once say the same numbers: that is "repeated" and "backward". A
 * second boot while the first goes on is "backward" as well.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "beat.h"

#define DEFAULT_WINDOW_MS 300
#define MAX_NODES	  256
#define MAX_BOOTS	  1024
#define READ_RECORDS	  4096

struct node {
	uint64_t inode;
	char name[BEAT_NAME_MAX + 1];
};

struct connection {
	uint64_t inode;
	uint32_t pid;
	uint64_t beats;
	uint64_t window_first_us, window_last_us; /* its beats within the window, 0 none */
};

struct verdict {
	uint64_t beats, lost, repeated, backward, errors, noise;
	uint32_t passes;
	uint64_t first, last; /* heartbeat numbers of the latest boot */
	uint64_t max_gap_us, gap_at_us;
	uint64_t last_time_us;
	uint64_t longest_loop_us;
	uint64_t dirtied;
	uint32_t boot[MAX_BOOTS];
	size_t boots;
	uint64_t highest; /* number seen in the latest boot */
};

static struct node nodes[MAX_NODES];
static size_t n_nodes;
static struct connection connections[UINT16_MAX + 1];
static uint64_t window_start_us;

static uint64_t clock_us(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static int read_nodes(const char *path)
{
	FILE *f = fopen(path, "re");

	if (!f) {
		fprintf(stderr, "beatcheck: cannot open %s: %s\n", path, strerror(errno));
		return -1;
	}
	while (n_nodes < MAX_NODES &&
	       fscanf(f, "%" SCNu64 " %63s", &nodes[n_nodes].inode, nodes[n_nodes].name) == 2)
		n_nodes++;
	fclose(f);
	return 0;
}

static const char *node_name(uint64_t inode)
{
	for (size_t i = 0; i < n_nodes; i++)
		if (nodes[i].inode == inode)
			return nodes[i].name;
	return "unknown";
}

/* Is this the latest boot, a new one, or an old one that should be dead? */
static bool boot_is_current(struct verdict *v, uint32_t boot)
{
	if (v->boots && v->boot[v->boots - 1] == boot)
		return true;
	for (size_t i = 0; i < v->boots; i++)
		if (v->boot[i] == boot)
			return false;
	if (v->boots < MAX_BOOTS)
		v->boot[v->boots++] = boot;
	v->highest = 0;
	v->last = 0;
	v->last_time_us = 0;
	return true;
}

static void judge_beat(struct verdict *v, const struct beat_record *r)
{
	struct connection *c = &connections[r->connection];

	v->beats++;
	c->beats++;
	if (r->time_us >= window_start_us) {
		if (!c->window_first_us)
			c->window_first_us = r->time_us;
		c->window_last_us = r->time_us;
	}
	if (!boot_is_current(v, r->value)) {
		v->backward++;
		return;
	}
	if (!v->highest)
		v->first = r->number;
	else if (r->number > v->highest)
		v->lost += r->number - v->highest - 1;
	else if (r->number < v->last)
		v->backward++;
	else
		v->repeated++; /* heard before, though perhaps not just before */
	if (r->number > v->highest)
		v->highest = r->number;
	v->last = r->number;
	if (v->last_time_us && r->time_us - v->last_time_us > v->max_gap_us) {
		v->max_gap_us = r->time_us - v->last_time_us;
		v->gap_at_us = v->last_time_us;
	}
	v->last_time_us = r->time_us;
}

static void judge(struct verdict *v, const struct beat_record *r, uint64_t since_us)
{
	struct connection *c = &connections[r->connection];

	if (r->kind == BEAT_CONNECT) {
		c->inode = r->number;
		c->pid = r->value;
	}
	if (r->time_us < since_us)
		return;
	switch ((enum beat_kind)r->kind) {
	case BEAT_CONNECT:
	case BEAT_DISCONNECT:
		break;
	case BEAT_BOOT:
		(void)boot_is_current(v, r->value);
		break;
	case BEAT_BEAT:
		judge_beat(v, r);
		break;
	case BEAT_STATUS:
		if (r->number > v->errors)
			v->errors = r->number;
		v->passes = r->value;
		break;
	case BEAT_LOOP:
		v->dirtied = r->number;
		if (r->value > v->longest_loop_us)
			v->longest_loop_us = r->value;
		break;
	case BEAT_NOISE:
		v->noise++;
		break;
	}
}

static int judge_file(struct verdict *v, const char *path, uint64_t since_us)
{
	static struct beat_record records[READ_RECORDS];
	FILE *f = fopen(path, "re");
	size_t n;

	if (!f) {
		fprintf(stderr, "beatcheck: cannot open %s: %s\n", path, strerror(errno));
		return -1;
	}
	while ((n = fread(records, sizeof(records[0]), READ_RECORDS, f)) > 0)
		for (size_t i = 0; i < n; i++)
			judge(v, &records[i], since_us);
	fclose(f);
	return 0;
}

/* A connection that fell silent before another one began to beat has handed over; it does not run any more.
 */
static bool is_running(const struct connection *c)
{
	if (!c->window_first_us)
		return false;
	for (size_t i = 0; i <= UINT16_MAX; i++)
		if (connections[i].window_first_us > c->window_last_us)
			return false;
	return true;
}

static void print_time(const char *name, uint64_t monotonic_us)
{
	uint64_t us = clock_us(CLOCK_REALTIME) - (clock_us(CLOCK_MONOTONIC) - monotonic_us);
	time_t seconds = (time_t)(us / 1000000);
	struct tm tm;
	char text[32];

	gmtime_r(&seconds, &tm);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
	printf(",\"%s\":\"%s.%03uZ\"", name, text, (unsigned)(us % 1000000 / 1000));
}

static void print_verdict(const char *vm, const struct verdict *v)
{
	const char *comma = "";

	printf("{\"vm\":\"%s\",\"nodes_running\":[", vm);
	for (size_t i = 0; i <= UINT16_MAX; i++)
		if (is_running(&connections[i])) {
			printf("%s\"%s\"", comma, node_name(connections[i].inode));
			comma = ",";
		}
	printf("],\"boots\":%zu,\"first\":%" PRIu64 ",\"last\":%" PRIu64 ",\"beats\":%" PRIu64, v->boots,
	       v->first, v->last, v->beats);
	printf(",\"lost\":%" PRIu64 ",\"repeated\":%" PRIu64 ",\"backward\":%" PRIu64, v->lost, v->repeated,
	       v->backward);
	printf(",\"max_gap_ms\":%" PRIu64 ".%03u", v->max_gap_us / 1000, (unsigned)(v->max_gap_us % 1000));
	if (v->max_gap_us)
		print_time("gap_at", v->gap_at_us);
	else
		printf(",\"gap_at\":null");
	printf(",\"gap_at_us\":%" PRIu64 ",\"errors\":%" PRIu64 ",\"passes\":%" PRIu32, v->gap_at_us,
	       v->errors, v->passes);
	printf(",\"dirtied\":%" PRIu64 ",\"longest_loop_us\":%" PRIu64 ",\"noise\":%" PRIu64, v->dirtied,
	       v->longest_loop_us, v->noise);

	printf(",\"connections\":[");
	comma = "";
	for (size_t i = 0; i <= UINT16_MAX; i++) {
		const struct connection *c = &connections[i];
		if (!c->pid && !c->beats)
			continue;
		printf("%s{\"node\":\"%s\",\"pid\":%" PRIu32 ",\"beats\":%" PRIu64 "}", comma,
		       node_name(c->inode), c->pid, c->beats);
		comma = ",";
	}
	printf("]}\n");
}

static int usage(void)
{
	fprintf(stderr, "usage: beatcheck [--nodes FILE] [--window MS] [--since US] DIR VM\n");
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"nodes", required_argument, NULL, 'n'},
						{"window", required_argument, NULL, 'w'},
						{"since", required_argument, NULL, 's'},
						{NULL, 0, NULL, 0}};
	static struct verdict v;
	uint64_t window_ms = DEFAULT_WINDOW_MS, since_us = 0;
	char path[4096];
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'n') {
			if (read_nodes(optarg))
				return 2;
		} else if (c == 'w') {
			window_ms = strtoull(optarg, NULL, 10);
		} else if (c == 's') {
			since_us = strtoull(optarg, NULL, 10);
		} else {
			return usage();
		}
	}
	if (argc - optind != 2)
		return usage();

	window_start_us = window_ms ? clock_us(CLOCK_MONOTONIC) : UINT64_MAX;
	const struct timespec window = {.tv_sec = (time_t)(window_ms / 1000),
					.tv_nsec = (long)(window_ms % 1000) * 1000000};
	nanosleep(&window, NULL);
	snprintf(path, sizeof(path), "%s/%s" BEAT_FILE_SUFFIX, argv[optind], argv[optind + 1]);
	if (judge_file(&v, path, since_us))
		return 2;
	print_verdict(argv[optind + 1], &v);
	return v.beats && v.boots == 1 && !v.lost && !v.repeated && !v.backward && !v.errors ? 0 : 1;
}
