/*
 * Sizes, rates, durations and times as people write them (INTERFACE §2) and as they like to read them.
 * Parsers accept the whole text or nothing, never overflow, and name the right form when they refuse.
 */
#ifndef DROVER_COMMON_UNITS_H
#define DROVER_COMMON_UNITS_H

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

#define UNITS_TEXT 40 /* room for every formatted value */

/* "750MB" = 750·10⁶, "2GiB" = 2·2³⁰, "1.5GiB", plain number = bytes. 0 or -DR_EUSAGE. */
int units_size_parse(const char *text, uint64_t *bytes, struct dr_error *err);

/* Bytes per second: a size with optional "/s", or bits: "6Gbit", "400Mbit/s". 0 or -DR_EUSAGE. */
int units_rate_parse(const char *text, uint64_t *bytes_per_s, struct dr_error *err);

/* Milliseconds: "300ms", "10s", "5m", "2h", "1d". A number without unit is refused. 0 or -DR_EUSAGE. */
int units_duration_parse(const char *text, uint64_t *ms, struct dr_error *err);

/* A decimal integer within [least, most]. 0 or -DR_EUSAGE. */
int units_number_parse(const char *text, uint64_t least, uint64_t most, uint64_t *value,
		       struct dr_error *err);

/* RFC 3339 in UTC ("2026-11-20T11:24:53Z", fraction and offset allowed) to microseconds since 1970. */
int units_time_parse(const char *text, uint64_t *utc_us, struct dr_error *err);

/* Each writes at most UNITS_TEXT bytes into buf and returns buf. */
char *units_size_format(char buf[UNITS_TEXT], uint64_t bytes);	     /* "2.0 GiB" */
char *units_bytes_format(char buf[UNITS_TEXT], uint64_t bytes);	     /* "750.0 MB": what went over a wire */
char *units_rate_format(char buf[UNITS_TEXT], uint64_t bytes_per_s); /* "50.0 MB/s" */
char *units_duration_format(char buf[UNITS_TEXT], uint64_t ms);	     /* "300 ms", "12.3 s", "5 m 10 s" */
char *units_time_format(char buf[UNITS_TEXT], uint64_t utc_us);
char *units_time_format_s(char buf[UNITS_TEXT], uint64_t utc_us); /* "2026-11-20T11:24:53Z" */
#endif
