#include "common/units.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/cleanup.h"

#define SIZE_FORM     "a number with B, kB, MB, GB, TB or KiB, MiB, GiB, TiB, such as 750MB or 2GiB"
#define RATE_FORM     "a size per second or bits, such as 50MB, 50MB/s or 6Gbit"
#define DURATION_FORM "a number with ms, s, m, h or d, such as 300ms, 10s or 5m"
#define TIME_FORM     "a time in UTC such as 2026-11-20T11:24:53Z"

struct unit {
	const char *word;
	uint64_t factor;
	uint64_t divisor;
};

static const struct unit size_units[] = {
	{"", 1, 1},
	{"B", 1, 1},
	{"kB", 1000, 1},
	{"KB", 1000, 1},
	{"MB", 1000000, 1},
	{"GB", 1000000000, 1},
	{"TB", 1000000000000, 1},
	{"PB", 1000000000000000, 1},
	{"KiB", 1ull << 10, 1},
	{"MiB", 1ull << 20, 1},
	{"GiB", 1ull << 30, 1},
	{"TiB", 1ull << 40, 1},
	{"PiB", 1ull << 50, 1},
};

static const struct unit bit_units[] = {
	{"bit", 1, 8},		 {"kbit", 1000, 8},	     {"Mbit", 1000000, 8},
	{"Gbit", 1000000000, 8}, {"Tbit", 1000000000000, 8},
};

static const struct unit duration_units[] = {
	{"ms", 1, 1}, {"s", 1000, 1}, {"m", 60000, 1}, {"h", 3600000, 1}, {"d", 86400000, 1},
};

static const struct unit *unit_find(const struct unit *units, size_t n, const char *word)
{
	for (size_t i = 0; i < n; i++) {
		if (strcmp(units[i].word, word) == 0)
			return &units[i];
	}
	return NULL;
}

/*
 * Splits "12.5MB" into digits scaled by 10^decimals and the unit's word. At most 18 digits in all, so that
 * the product with any factor fits 128 bits.
 */
static int number_split(const char *text, uint64_t *digits, uint64_t *scale, const char **word)
{
	const char *p = text;
	int count = 0;

	*digits = 0;
	*scale = 1;
	if (!isdigit((unsigned char)*p))
		return -DR_EUSAGE;
	for (; isdigit((unsigned char)*p); p++) {
		if (++count > 18)
			return -DR_EUSAGE;
		*digits = *digits * 10 + (uint64_t)(*p - '0');
	}
	if (*p == '.') {
		if (!isdigit((unsigned char)p[1]))
			return -DR_EUSAGE;
		for (p++; isdigit((unsigned char)*p); p++) {
			if (++count > 18)
				return -DR_EUSAGE;
			*digits = *digits * 10 + (uint64_t)(*p - '0');
			*scale *= 10;
		}
	}
	if (*p == ' ')
		p++;
	*word = p;
	return 0;
}

static int value_of(const struct unit *unit, uint64_t digits, uint64_t scale, uint64_t *value)
{
	unsigned __int128 product = (unsigned __int128)digits * unit->factor;
	unsigned __int128 result = product / ((unsigned __int128)scale * unit->divisor);

	/* Protobuf and SQLite carry it signed. */
	if (result > INT64_MAX)
		return -DR_EUSAGE;
	*value = (uint64_t)result;
	return 0;
}

static int refuse(struct dr_error *err, const char *what, const char *text, const char *form)
{
	return dr_error_set(err, DR_EUSAGE, "\"%.60s\" is no %s: give %s", text, what, form);
}

int units_size_parse(const char *text, uint64_t *bytes, struct dr_error *err)
{
	uint64_t digits, scale;
	const char *word;
	const struct unit *unit;

	if (number_split(text, &digits, &scale, &word) < 0)
		return refuse(err, "size", text, SIZE_FORM);
	unit = unit_find(size_units, DR_ARRAY_SIZE(size_units), word);
	if (unit == NULL || (word[0] == '\0' && scale != 1))
		return refuse(err, "size", text, SIZE_FORM);
	if (value_of(unit, digits, scale, bytes) < 0)
		return dr_error_set(err, DR_EUSAGE, "\"%.60s\" is too large a size", text);
	return 0;
}

int units_rate_parse(const char *text, uint64_t *bytes_per_s, struct dr_error *err)
{
	uint64_t digits, scale;
	const char *word;
	const struct unit *unit;
	char bare[8];
	size_t len;

	if (number_split(text, &digits, &scale, &word) < 0)
		return refuse(err, "rate", text, RATE_FORM);
	len = strlen(word);
	if (len >= 2 && strcmp(word + len - 2, "/s") == 0)
		len -= 2;
	if (len >= sizeof(bare))
		return refuse(err, "rate", text, RATE_FORM);
	memcpy(bare, word, len);
	bare[len] = '\0';
	unit = unit_find(bit_units, DR_ARRAY_SIZE(bit_units), bare);
	if (unit == NULL)
		unit = unit_find(size_units, DR_ARRAY_SIZE(size_units), bare);
	if (unit == NULL || (bare[0] == '\0' && scale != 1))
		return refuse(err, "rate", text, RATE_FORM);
	if (value_of(unit, digits, scale, bytes_per_s) < 0)
		return dr_error_set(err, DR_EUSAGE, "\"%.60s\" is too large a rate", text);
	return 0;
}

int units_duration_parse(const char *text, uint64_t *ms, struct dr_error *err)
{
	uint64_t digits, scale;
	const char *word;
	const struct unit *unit;

	if (number_split(text, &digits, &scale, &word) < 0)
		return refuse(err, "duration", text, DURATION_FORM);
	unit = unit_find(duration_units, DR_ARRAY_SIZE(duration_units), word);
	if (unit == NULL)
		return refuse(err, "duration", text, DURATION_FORM);
	if (value_of(unit, digits, scale, ms) < 0)
		return dr_error_set(err, DR_EUSAGE, "\"%.60s\" is too long a duration", text);
	return 0;
}

int units_number_parse(const char *text, uint64_t least, uint64_t most, uint64_t *value, struct dr_error *err)
{
	uint64_t number = 0;
	const char *p = text;

	for (; isdigit((unsigned char)*p) && number <= (UINT64_MAX - 9) / 10; p++)
		number = number * 10 + (uint64_t)(*p - '0');
	if (p == text || *p != '\0' || number < least || number > most)
		return dr_error_set(err, DR_EUSAGE,
				    "\"%.60s\" is not possible: give a whole number from %" PRIu64
				    " to %" PRIu64,
				    text, least, most);
	*value = number;
	return 0;
}

/* Reads exactly n digits at *p and moves on; -1 when they are not there. */
static int digits_take(const char **p, int n)
{
	int value = 0;

	for (int i = 0; i < n; i++) {
		if (!isdigit((unsigned char)**p))
			return -1;
		value = value * 10 + (*(*p)++ - '0');
	}
	return value;
}

/* "Z", "+01:00" or "-01:00": seconds to subtract. */
static int offset_take(const char **p, int *seconds)
{
	int sign, hours, minutes;

	*seconds = 0;
	if (**p == 'Z' || **p == 'z') {
		(*p)++;
		return 0;
	}
	if (**p != '+' && **p != '-')
		return -DR_EUSAGE;
	sign = *(*p)++ == '-' ? -1 : 1;
	hours = digits_take(p, 2);
	if (hours < 0 || hours > 23 || *(*p)++ != ':')
		return -DR_EUSAGE;
	minutes = digits_take(p, 2);
	if (minutes < 0 || minutes > 59)
		return -DR_EUSAGE;
	*seconds = sign * (hours * 3600 + minutes * 60);
	return 0;
}

static int time_take(const char *p, struct tm *tm, uint64_t *fraction_us, int *offset)
{
	uint64_t weight = 100000;

	tm->tm_year = digits_take(&p, 4);
	if (tm->tm_year < 1970 || *p++ != '-')
		return -DR_EUSAGE;
	tm->tm_mon = digits_take(&p, 2);
	if (tm->tm_mon < 1 || tm->tm_mon > 12 || *p++ != '-')
		return -DR_EUSAGE;
	tm->tm_mday = digits_take(&p, 2);
	if (tm->tm_mday < 1 || tm->tm_mday > 31 || (*p != 'T' && *p != 't' && *p != ' '))
		return -DR_EUSAGE;
	p++;
	tm->tm_hour = digits_take(&p, 2);
	if (tm->tm_hour < 0 || tm->tm_hour > 23 || *p++ != ':')
		return -DR_EUSAGE;
	tm->tm_min = digits_take(&p, 2);
	if (tm->tm_min < 0 || tm->tm_min > 59 || *p++ != ':')
		return -DR_EUSAGE;
	tm->tm_sec = digits_take(&p, 2);
	if (tm->tm_sec < 0 || tm->tm_sec > 60)
		return -DR_EUSAGE;
	if (*p == '.') {
		if (!isdigit((unsigned char)p[1]))
			return -DR_EUSAGE;
		for (p++; isdigit((unsigned char)*p); p++, weight /= 10)
			*fraction_us += (uint64_t)(*p - '0') * weight;
	}
	if (offset_take(&p, offset) < 0 || *p != '\0')
		return -DR_EUSAGE;
	tm->tm_year -= 1900;
	tm->tm_mon -= 1;
	return 0;
}

int units_time_parse(const char *text, uint64_t *utc_us, struct dr_error *err)
{
	struct tm tm = {0};
	uint64_t fraction_us = 0;
	int offset = 0;
	time_t seconds;

	if (time_take(text, &tm, &fraction_us, &offset) < 0)
		return refuse(err, "time", text, TIME_FORM);
	seconds = timegm(&tm) - offset;
	if (seconds < 0)
		return refuse(err, "time", text, TIME_FORM);
	*utc_us = (uint64_t)seconds * 1000000 + fraction_us;
	return 0;
}

/* Three significant places of value in the greatest of the units that is not above it. */
static char *scaled(char buf[UNITS_TEXT], uint64_t value, uint64_t base, const char *const words[5],
		    const char *behind)
{
	double number = (double)value;
	int step = 0;

	/* 1023.96 would be shown as 1024.0 of the smaller unit. */
	while (number >= (double)base - 0.05 && step < 4) {
		number /= (double)base;
		step++;
	}
	if (step == 0)
		snprintf(buf, UNITS_TEXT, "%" PRIu64 " %s%s", value, words[0], behind);
	else
		snprintf(buf, UNITS_TEXT, "%.1f %s%s", number, words[step], behind);
	return buf;
}

static const char *const binary_words[5] = {"B", "KiB", "MiB", "GiB", "TiB"};
static const char *const decimal_words[5] = {"B", "kB", "MB", "GB", "TB"};

char *units_size_format(char buf[UNITS_TEXT], uint64_t bytes)
{
	return scaled(buf, bytes, 1024, binary_words, "");
}

char *units_bytes_format(char buf[UNITS_TEXT], uint64_t bytes)
{
	return scaled(buf, bytes, 1000, decimal_words, "");
}

char *units_rate_format(char buf[UNITS_TEXT], uint64_t bytes_per_s)
{
	return scaled(buf, bytes_per_s, 1000, decimal_words, "/s");
}

char *units_duration_format(char buf[UNITS_TEXT], uint64_t ms)
{
	uint64_t s = ms / 1000;

	if (ms < 1000)
		snprintf(buf, UNITS_TEXT, "%" PRIu64 " ms", ms);
	else if (ms < 60000)
		snprintf(buf, UNITS_TEXT, "%" PRIu64 ".%" PRIu64 " s", s, ms % 1000 / 100);
	else if (s < 3600)
		snprintf(buf, UNITS_TEXT, "%" PRIu64 " m %02" PRIu64 " s", s / 60, s % 60);
	else if (s < 86400)
		snprintf(buf, UNITS_TEXT, "%" PRIu64 " h %02" PRIu64 " m", s / 3600, s % 3600 / 60);
	else
		snprintf(buf, UNITS_TEXT, "%" PRIu64 " d %02" PRIu64 " h", s / 86400, s % 86400 / 3600);
	return buf;
}

char *units_time_format_s(char buf[UNITS_TEXT], uint64_t utc_us)
{
	time_t seconds = (time_t)(utc_us / 1000000);
	struct tm tm = {0};

	gmtime_r(&seconds, &tm);
	strftime(buf, UNITS_TEXT, "%Y-%m-%dT%H:%M:%SZ", &tm);
	return buf;
}

char *units_time_format(char buf[UNITS_TEXT], uint64_t utc_us)
{
	time_t seconds = (time_t)(utc_us / 1000000);
	struct tm tm = {0};
	size_t len;

	gmtime_r(&seconds, &tm);
	len = strftime(buf, UNITS_TEXT, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(buf + len, UNITS_TEXT - len, ".%06" PRIu64 "Z", utc_us % 1000000);
	return buf;
}
