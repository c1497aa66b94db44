/* common/units: what people write becomes exactly the number, everything else is refused. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/units.h"

struct sample {
	const char *text;
	uint64_t value;
};

typedef int (*parse_fn)(const char *text, uint64_t *value, struct dr_error *err);

static void check_good(parse_fn parse, const struct sample *samples, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct dr_error err = DR_ERROR_INIT;
		uint64_t value = 0;

		if (parse(samples[i].text, &value, &err) != 0)
			fail_msg("%s: %s", samples[i].text, err.text);
		assert_int_equal(value, samples[i].value);
	}
}

static void check_bad(parse_fn parse, const char *const *texts, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct dr_error err = DR_ERROR_INIT;
		uint64_t value = 77;

		if (parse(texts[i], &value, &err) != -DR_EUSAGE)
			fail_msg("\"%s\" was taken as %lu", texts[i], (unsigned long)value);
		assert_int_equal(err.code, DR_EUSAGE);
		assert_non_null(strstr(err.text, texts[i]));
		assert_int_equal(value, 77);
	}
}

static void test_size(void **state)
{
	static const struct sample good[] = {
		{"0", 0},
		{"4096", 4096},
		{"750MB", 750000000},
		{"2GiB", 2ull << 30},
		{"1.5GiB", 3ull << 29},
		{"128 MiB", 128ull << 20},
		{"1kB", 1000},
		{"8PiB", 8ull << 50},
		{"8191PiB", 8191ull << 50},
		{"9223PB", 9223000000000000000ull},
		{"0.5KiB", 512},
	};
	static const char *const bad[] = {
		"",
		"MB",
		"-1",
		"1.5",
		"2gib",
		"2GiBs",
		"1e9",
		"0x10",
		"8192PiB",
		"1 000",
		"9999999999999999999",
		"1.GiB",
		"+1",
		"2  GiB",
		"50MB/s",
		"6Gbit",
	};

	(void)state;
	check_good(units_size_parse, good, DR_ARRAY_SIZE(good));
	check_bad(units_size_parse, bad, DR_ARRAY_SIZE(bad));
}

static void test_rate(void **state)
{
	static const struct sample good[] = {
		{"50MB", 50000000},	{"50MB/s", 50000000},  {"6Gbit", 750000000},
		{"6Gbit/s", 750000000}, {"400Mbit", 50000000}, {"2.5Gbit", 312500000},
		{"1000", 1000},		{"1000/s", 1000},      {"12bit", 1},
	};
	static const char *const bad[] = {"",	      "fast",	      "6gbit", "50MB/m", "none",
					  "50MB/s/s", "99999999Tbit", "/s",    "6Gbits"};

	(void)state;
	check_good(units_rate_parse, good, DR_ARRAY_SIZE(good));
	check_bad(units_rate_parse, bad, DR_ARRAY_SIZE(bad));
}

static void test_duration(void **state)
{
	static const struct sample good[] = {
		{"300ms", 300},	   {"10s", 10000},    {"5m", 300000},
		{"1.5h", 5400000}, {"2d", 172800000}, {"0s", 0},
	};
	static const char *const bad[] = {"", "10", "10sec", "-5s", "s", "5M", "999999999999999999d"};

	(void)state;
	check_good(units_duration_parse, good, DR_ARRAY_SIZE(good));
	check_bad(units_duration_parse, bad, DR_ARRAY_SIZE(bad));
}

static void test_number(void **state)
{
	struct dr_error err = DR_ERROR_INIT;
	uint64_t value = 0;

	(void)state;
	assert_int_equal(units_number_parse("3000", 0, 3000, &value, &err), 0);
	assert_int_equal(value, 3000);
	assert_int_equal(units_number_parse("18446744073709551615", 0, UINT64_MAX, &value, NULL), -DR_EUSAGE);
	assert_int_equal(units_number_parse("3001", 0, 3000, &value, &err), -DR_EUSAGE);
	assert_non_null(strstr(err.text, "from 0 to 3000"));
	assert_int_equal(units_number_parse("", 0, 9, &value, NULL), -DR_EUSAGE);
	assert_int_equal(units_number_parse("7x", 0, 9, &value, NULL), -DR_EUSAGE);
	assert_int_equal(units_number_parse("-1", 0, 9, &value, NULL), -DR_EUSAGE);
	assert_int_equal(units_number_parse("0", 1, 9, &value, NULL), -DR_EUSAGE);
}

static void test_time(void **state)
{
	static const struct sample good[] = {
		{"1970-01-01T00:00:00Z", 0},
		{"2026-11-20T11:24:53Z", 1795173893000000},
		{"2026-11-20T11:24:53.25Z", 1795173893250000},
		{"2026-11-20T11:24:53.123456789Z", 1795173893123456},
		{"2026-11-20T12:24:53+01:00", 1795173893000000},
		{"2026-11-20T05:54:53-05:30", 1795173893000000},
		{"2026-11-20 11:24:53Z", 1795173893000000},
	};
	static const char *const bad[] = {"",
					  "now",
					  "2026-11-20",
					  "2026-11-20T11:24:53",
					  "2026-13-20T11:24:53Z",
					  "2026-11-20T24:00:00Z",
					  "2026-11-20T11:24:53.Z",
					  "2026-11-20T11:24:53Zx"};
	char buf[UNITS_TEXT];
	uint64_t back;

	(void)state;
	check_good(units_time_parse, good, DR_ARRAY_SIZE(good));
	check_bad(units_time_parse, bad, DR_ARRAY_SIZE(bad));
	assert_string_equal(units_time_format(buf, 1795173893250000), "2026-11-20T11:24:53.250000Z");
	assert_int_equal(units_time_parse(buf, &back, NULL), 0);
	assert_int_equal(back, 1795173893250000);
	assert_string_equal(units_time_format_s(buf, back), "2026-11-20T11:24:53Z");
}

static void test_format(void **state)
{
	char buf[UNITS_TEXT];

	(void)state;
	assert_string_equal(units_size_format(buf, 0), "0 B");
	assert_string_equal(units_size_format(buf, 1023), "1023 B");
	assert_string_equal(units_size_format(buf, 512), "512 B");
	assert_string_equal(units_size_format(buf, 2ull << 30), "2.0 GiB");
	assert_string_equal(units_size_format(buf, (1ull << 30) - 1), "1.0 GiB");
	assert_string_equal(units_size_format(buf, 5000ull << 40), "5000.0 TiB");
	assert_string_equal(units_bytes_format(buf, 750000000), "750.0 MB");
	assert_string_equal(units_rate_format(buf, 50000000), "50.0 MB/s");
	assert_string_equal(units_duration_format(buf, 0), "0 ms");
	assert_string_equal(units_duration_format(buf, 999), "999 ms");
	assert_string_equal(units_duration_format(buf, 12345), "12.3 s");
	assert_string_equal(units_duration_format(buf, 310000), "5 m 10 s");
	assert_string_equal(units_duration_format(buf, 7500000), "2 h 05 m");
	assert_string_equal(units_duration_format(buf, 90000000), "1 d 01 h");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_size),   cmocka_unit_test(test_rate), cmocka_unit_test(test_duration),
		cmocka_unit_test(test_number), cmocka_unit_test(test_time), cmocka_unit_test(test_format),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
