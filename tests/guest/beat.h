/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What beatmon records about the heartbeats of one VM, and beatcheck reads: a file of fixed records, only
 * ever appended to. 24 bytes a record: 100 beats/s of 6 VMs are 52 MB an hour. Host byte order; the files
 * never leave the machine.
 */
#ifndef DROVER_TESTS_BEAT_H
#define DROVER_TESTS_BEAT_H

#include <stdint.h>

#define BEAT_NAME_MAX	   63 /* a VM's name, INTERFACE §2 */
#define BEAT_SOCKET_SUFFIX ".sock"
#define BEAT_FILE_SUFFIX   ".beats"
#define BEAT_NAMES_FILE	   "names" /* one VM name per line: whom beatmon listens for */

enum beat_kind {
	BEAT_CONNECT = 1, /* number: inode of the peer's network namespace (0 unknown), value: its pid */
	BEAT_DISCONNECT,
	BEAT_BOOT,   /* number: pages under test, value: boot id */
	BEAT_BEAT,   /* number: heartbeat number, value: boot id */
	BEAT_STATUS, /* with a full beat; number: bad words, value: complete passes of the check */
	BEAT_LOOP,   /* with a full beat; number: pages dirtied, value: longest loop in us */
	BEAT_NOISE,  /* a line that nobody could make sense of; number: its length */
};

struct beat_record {
	uint64_t time_us; /* CLOCK_MONOTONIC */
	uint64_t number;
	uint32_t value;
	uint16_t connection; /* counted from 1 per VM: which QEMU process */
	uint16_t kind;
};

_Static_assert(sizeof(struct beat_record) == 24, "the record is a file format");

#endif
