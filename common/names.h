/* Names of nodes, VMs and networks, network addresses, and help for words that are nearly right. */
#ifndef DROVER_COMMON_NAMES_H
#define DROVER_COMMON_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

#define NAMES_MAX     63 /* characters of a name, without the final 0 */
#define NAMES_HOST    253
#define NAMES_ADDRESS (NAMES_HOST + 9) /* "[HOST]:65535" and the final 0 */

/* 1–63 of a-z A-Z 0-9 . _ -, starting with a letter or digit (INTERFACE §2). */
bool names_valid(const char *name);

/* As names_valid, with words: what is "node", "VM" or "network". 0 or -DR_EUSAGE. */
int names_check(const char *name, const char *what, struct dr_error *err);

/*
 * "HOST[:PORT]", HOST a name, IPv4 or IPv6 ("[::1]:7420"; a bare IPv6 has no port). Writes "HOST:PORT" (IPv6
 * in brackets) into out, with default_port where none is given. 0 or -DR_EUSAGE.
 */
int names_address(const char *text, uint16_t default_port, char out[NAMES_ADDRESS], struct dr_error *err);

/* The most similar of n words to the given one, NULL when none is near. */
const char *names_nearest(const char *word, const char *const *words, size_t n);

#endif
