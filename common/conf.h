/*
 * /etc/drover/drover.conf (INTERFACE §3): what one host must know before it can talk to the cluster.
 * Everything that is the same for all hosts lives in the replicated state instead.
 */
#ifndef DROVER_COMMON_CONF_H
#define DROVER_COMMON_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/names.h"

#define CONF_PATH	  "/etc/drover/drover.conf"
#define CONF_KEY_FILE	  "/etc/drover/cluster.key"
#define CONF_TLS_IDENTITY "drover-cluster" /* of the cluster key in every TLS-PSK session on CONF_PORT */
#define CONF_DATA_DIR	  "/var/lib/drover"
#define CONF_RUN_DIR	  "/run/drover"
#define CONF_PORT	  7420 /* coordinators listen here */
#define CONF_RELAY_PORT	  7421 /* agents listen here for relay channels */
#define CONF_CONNECT_MAX  16
#define CONF_VALUE_MAX	  192 /* inih reads lines of 200 bytes */

enum conf_accel { CONF_ACCEL_AUTO, CONF_ACCEL_KVM, CONF_ACCEL_TCG };

struct dr_conf {
	/* [node] */
	char name[NAMES_MAX + 1]; /* default: the host name up to its first dot */
	bool coordinator;	  /* roles; default both */
	bool agent;
	char listen[NAMES_ADDRESS];		       /* "HOST:PORT"; default 0.0.0.0:7420 */
	char connect[CONF_CONNECT_MAX][NAMES_ADDRESS]; /* "HOST:PORT" of coordinators, as written */
	size_t n_connect;
	char key_file[CONF_VALUE_MAX];
	char data_dir[CONF_VALUE_MAX];
	char run_dir[CONF_VALUE_MAX];
	char fence_dir[CONF_VALUE_MAX]; /* of fence agents; default "": /usr/sbin, /usr/local/sbin */
	char log_level[16];		/* error, warning, notice, info (default), debug */
	/* [agent] */
	char qemu[CONF_VALUE_MAX]; /* program; default "qemu-system-x86_64" (searched in PATH) */
	enum conf_accel accel;
	uint16_t relay_port;
};

/* The values of a host without a file. */
void conf_defaults(struct dr_conf *conf);

/*
 * Fills *conf from the defaults and the file at path. -DR_EUSAGE: an unknown section, key or value, or a line
 * that is none of these (the message has file:line, the word and the right form); -DR_ENOENT: no such file;
 * -DR_EIO.
 */
int conf_read(const char *path, struct dr_conf *conf, struct dr_error *err);

/* As conf_read, from memory; path is for messages only. */
int conf_parse(const char *text, const char *path, struct dr_conf *conf, struct dr_error *err);

/* "auto", "kvm" or "tcg". */
const char *conf_accel_name(enum conf_accel accel);

#endif
