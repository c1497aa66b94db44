/* common/conf and common/names: defaults, every key, and every wrong word named with file and line. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/conf.h"

static void check_bad(const char *text, const char *where, const char *word)
{
	struct dr_error err = DR_ERROR_INIT;
	struct dr_conf conf;

	if (conf_parse(text, "f.conf", &conf, &err) != -DR_EUSAGE)
		fail_msg("accepted: %s", text);
	if (strstr(err.text, where) == NULL || strstr(err.text, word) == NULL)
		fail_msg("\"%s\" has neither \"%s\" nor \"%s\"", err.text, where, word);
}

static void test_defaults(void **state)
{
	struct dr_error err = DR_ERROR_INIT;
	struct dr_conf conf;

	(void)state;
	assert_int_equal(conf_parse("", "f.conf", &conf, &err), 0);
	assert_true(names_valid(conf.name));
	assert_true(conf.coordinator && conf.agent);
	assert_string_equal(conf.listen, "0.0.0.0:7420");
	assert_int_equal(conf.n_connect, 0);
	assert_string_equal(conf.key_file, "/etc/drover/cluster.key");
	assert_string_equal(conf.data_dir, "/var/lib/drover");
	assert_string_equal(conf.run_dir, "/run/drover");
	assert_string_equal(conf.log_level, "info");
	assert_int_equal(conf.accel, CONF_ACCEL_AUTO);
	assert_int_equal(conf.relay_port, 7421);
}

static void test_every_key(void **state)
{
	struct dr_error err = DR_ERROR_INIT;
	struct dr_conf conf;

	(void)state;
	assert_int_equal(conf_parse("# a comment\n"
				    "[node]\n"
				    "name = node1   ; a comment\n"
				    "roles=agent\n"
				    "listen=10.0.0.1\n"
				    "connect = 10.0.0.1:7000, node2\n"
				    "  connect = [fe80::1]:7420\n"
				    "key_file=/k\n"
				    "data_dir=/d\n"
				    "run_dir=/r\n"
				    "log_level=debug\n"
				    "\r\n"
				    "[agent]\n"
				    "qemu=/usr/bin/qemu-system-x86_64\n"
				    "accel=tcg\n"
				    "relay_port=8000\n",
				    "f.conf", &conf, &err),
			 0);
	assert_string_equal(conf.name, "node1");
	assert_false(conf.coordinator);
	assert_true(conf.agent);
	assert_string_equal(conf.listen, "10.0.0.1:7420");
	assert_int_equal(conf.n_connect, 3);
	assert_string_equal(conf.connect[0], "10.0.0.1:7000");
	assert_string_equal(conf.connect[1], "node2:7420");
	assert_string_equal(conf.connect[2], "[fe80::1]:7420");
	assert_string_equal(conf.key_file, "/k");
	assert_string_equal(conf.data_dir, "/d");
	assert_string_equal(conf.run_dir, "/r");
	assert_string_equal(conf.log_level, "debug");
	assert_string_equal(conf.qemu, "/usr/bin/qemu-system-x86_64");
	assert_int_equal(conf.accel, CONF_ACCEL_TCG);
	assert_int_equal(conf.relay_port, 8000);
}

static void test_bad(void **state)
{
	char line[300];

	(void)state;
	check_bad("[node]\nnmae=x\n", "f.conf:2:", "\"name\"");
	check_bad("\n[nodes]\n", "f.conf:2:", "[nodes]");
	check_bad("[agent\n", "f.conf:1:", "unknown section");
	check_bad("name=x\n", "f.conf:1:", "belongs into section [node]");
	check_bad("nome=x\n", "f.conf:1:", "before any section");
	check_bad("[node]\nrelay_port=1\n", "f.conf:2:", "[agent]");
	check_bad("[node]\nname=-x\n", "f.conf:2: name:", "node name");
	check_bad("[node]\nname=a\nname=b\n", "f.conf:3:", "second time");
	check_bad("[node]\nroles=witness\n", "f.conf:2: roles:", "witness");
	check_bad("[node]\nroles=agent,\n", "f.conf:2: roles:", "commas");
	check_bad("[node]\nlisten=:7420\n", "f.conf:2: listen:", "address");
	check_bad("[node]\nconnect=a:0\n", "f.conf:2: connect:", "address");
	check_bad("[node]\nkey_file=key\n", "f.conf:2: key_file:", "absolute");
	check_bad("[node]\nlog_level=loud\n", "f.conf:2: log_level:", "notice");
	check_bad("[agent]\naccel=xen\n", "f.conf:2: accel:", "auto, kvm or tcg");
	check_bad("[agent]\nrelay_port=70000\n", "f.conf:2: relay_port:", "65535");
	check_bad("[node]\nhello\n", "f.conf:2:", "key = value");
	check_bad("[node]\nname=\n", "f.conf:2: name:", "node name");
	memset(line, 'a', sizeof(line));
	memcpy(line, "[node]\nname=", 12);
	line[sizeof(line) - 1] = '\0';
	check_bad(line, "f.conf:2:", "at most");
}

static void test_file(void **state)
{
	struct dr_error err = DR_ERROR_INIT;
	char path[] = "/tmp/drover-test-conf-XXXXXX";
	int fd = mkstemp(path);
	struct dr_conf conf;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "[node]\nname=a\n", 14), 14);
	assert_int_equal(conf_read(path, &conf, &err), 0);
	assert_string_equal(conf.name, "a");
	assert_int_equal(pwrite(fd, "\0", 1, 3), 1);
	assert_int_equal(conf_read(path, &conf, &err), -DR_EUSAGE);
	close(fd);
	unlink(path);
	dr_error_clear(&err);
	assert_int_equal(conf_read(path, &conf, &err), -DR_ENOENT);
	assert_non_null(strstr(err.text, path));
}

static void test_names(void **state)
{
	static const char *const words[] = {"node", "network", "drain", "move"};
	char out[NAMES_ADDRESS];

	(void)state;
	assert_true(names_valid("a"));
	assert_true(names_valid("0.a_b-C"));
	assert_true(names_valid("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
	assert_false(names_valid("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
	assert_false(names_valid(""));
	assert_false(names_valid("-a"));
	assert_false(names_valid(".a"));
	assert_false(names_valid("a/b"));
	assert_false(names_valid("a b"));
	assert_string_equal(names_nearest("drian", words, 4), "drain");
	assert_string_equal(names_nearest("nod", words, 4), "node");
	assert_string_equal(names_nearest("net", words, 4), "network");
	assert_null(names_nearest("zzzzzz", words, 4));
	assert_int_equal(names_address("::1", 1, out, NULL), 0);
	assert_string_equal(out, "[::1]:1");
	assert_int_equal(names_address("h:65536", 1, out, NULL), -DR_EUSAGE);
	assert_int_equal(names_address("[::1", 1, out, NULL), -DR_EUSAGE);
	assert_int_equal(names_address("[::1]x", 1, out, NULL), -DR_EUSAGE);
	assert_int_equal(names_address("", 1, out, NULL), -DR_EUSAGE);
	assert_int_equal(names_address("a_b", 1, out, NULL), -DR_EUSAGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults), cmocka_unit_test(test_every_key), cmocka_unit_test(test_bad),
		cmocka_unit_test(test_file),	 cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
