#include "common/conf.h"

#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/units.h"

#define CONF_FILE_MAX (256u << 10)
#define CONF_LINE_MAX 197 /* inih's buffer of 200 holds CR, LF and the final 0 too */

struct reader {
	const char *next;
	const char *path;
	int line;
	struct dr_conf *conf;
	struct dr_error *err;
	unsigned seen; /* bit per key */
};

typedef int (*key_set_fn)(struct dr_conf *conf, const char *value, struct dr_error *err);

static int refuse(struct dr_error *err, const char *value, const char *form)
{
	return dr_error_set(err, DR_EUSAGE, "\"%s\" is not possible: %s", value, form);
}

static int text_set(char *out, size_t size, const char *value, struct dr_error *err)
{
	size_t len = strlen(value);

	if (len == 0 || len >= size)
		return dr_error_set(err, DR_EUSAGE, "the value must have 1 to %zu characters", size - 1);
	memcpy(out, value, len + 1);
	return 0;
}

static int path_set(char *out, const char *value, struct dr_error *err)
{
	if (value[0] != '/')
		return refuse(err, value, "give an absolute path");
	return text_set(out, CONF_VALUE_MAX, value, err);
}

static int name_set(struct dr_conf *conf, const char *value, struct dr_error *err)
{
	int rc = names_check(value, "node", err);

	return rc < 0 ? rc : text_set(conf->name, sizeof(conf->name), value, err);
}

/* Calls fn for each word of a comma-separated list; empty words are refused. */
static int list_each(const char *value, key_set_fn fn, struct dr_conf *conf, struct dr_error *err)
{
	const char *p = value;

	for (;;) {
		char word[CONF_VALUE_MAX];
		size_t len = strcspn(p, ",");
		size_t from = strspn(p, " \t");
		size_t to = len;
		int rc;

		while (to > from && (p[to - 1] == ' ' || p[to - 1] == '\t'))
			to--;
		if (to <= from)
			return refuse(err, value, "give words with commas between them");
		memcpy(word, p + from, to - from);
		word[to - from] = '\0';
		rc = fn(conf, word, err);
		if (rc < 0)
			return rc;
		if (p[len] == '\0')
			return 0;
		p += len + 1;
	}
}

static int role_add(struct dr_conf *conf, const char *word, struct dr_error *err)
{
	if (strcmp(word, "coordinator") == 0)
		conf->coordinator = true;
	else if (strcmp(word, "agent") == 0)
		conf->agent = true;
	else
		return refuse(err, word, "give coordinator, agent, or coordinator,agent");
	return 0;
}

static int roles_set(struct dr_conf *conf, const char *value, struct dr_error *err)
{
	conf->coordinator = false;
	conf->agent = false;
	return list_each(value, role_add, conf, err);
}

static int listen_set(struct dr_conf *conf, const char *value, struct dr_error *err)
{
	return names_address(value, CONF_PORT, conf->listen, err);
}

static int connect_add(struct dr_conf *conf, const char *word, struct dr_error *err)
{
	int rc;

	if (conf->n_connect == CONF_CONNECT_MAX)
		return dr_error_set(err, DR_EUSAGE, "at most %d addresses are possible", CONF_CONNECT_MAX);
	rc = names_address(word, CONF_PORT, conf->connect[conf->n_connect], err);
	if (rc == 0)
		conf->n_connect++;
	return rc;
}

static int connect_set(struct dr_conf *conf, const char *value, struct dr_error *err)
{
	return list_each(value, connect_add, conf, err);
}

static int key_file_set(struct dr_conf *conf, const char *value, struct dr_error *err)
{
	return path_set(conf->key_file, value, err);
}

static int data_dir_set(struct dr_conf *conf, const char *value, struct dr_error *err)
{
	return path_set(conf->data_dir, value, err);
}

static int run_dir_set(struct dr_conf *conf, const char *value, struct dr_error *err)
{
	/* Unix socket addresses hold 107 characters, and names of VMs come behind it. */
	if (strlen(value) > 60)
		return refuse(err, value,
			      "give a path of at most 60 characters (socket addresses are short)");
	return path_set(conf->run_dir, value, err);
}

static int fence_dir_set(struct dr_conf *conf, const char *value, struct dr_error *err)
{
	return path_set(conf->fence_dir, value, err);
}

static int log_level_set(struct dr_conf *conf, const char *value, struct dr_error *err)
{
	static const char *const levels[] = {"error", "warning", "notice", "info", "debug"};

	for (size_t i = 0; i < DR_ARRAY_SIZE(levels); i++) {
		if (strcmp(levels[i], value) == 0)
			return text_set(conf->log_level, sizeof(conf->log_level), value, err);
	}
	return refuse(err, value, "give error, warning, notice, info or debug");
}

static int qemu_set(struct dr_conf *conf, const char *value, struct dr_error *err)
{
	return text_set(conf->qemu, sizeof(conf->qemu), value, err);
}

static int accel_set(struct dr_conf *conf, const char *value, struct dr_error *err)
{
	for (int a = CONF_ACCEL_AUTO; a <= CONF_ACCEL_TCG; a++) {
		if (strcmp(conf_accel_name((enum conf_accel)a), value) == 0) {
			conf->accel = (enum conf_accel)a;
			return 0;
		}
	}
	return refuse(err, value, "give auto, kvm or tcg");
}

static int relay_port_set(struct dr_conf *conf, const char *value, struct dr_error *err)
{
	uint64_t port;
	int rc = units_number_parse(value, 1, 65535, &port, err);

	if (rc == 0)
		conf->relay_port = (uint16_t)port;
	return rc;
}

static const struct key {
	const char *section;
	const char *name;
	key_set_fn set;
	bool repeats; /* may stand more than once: the values are joined */
} keys[] = {
	{"node", "name", name_set, false},	     {"node", "roles", roles_set, false},
	{"node", "listen", listen_set, false},	     {"node", "connect", connect_set, true},
	{"node", "key_file", key_file_set, false},   {"node", "data_dir", data_dir_set, false},
	{"node", "run_dir", run_dir_set, false},     {"node", "log_level", log_level_set, false},
	{"node", "fence_dir", fence_dir_set, false}, {"agent", "qemu", qemu_set, false},
	{"agent", "accel", accel_set, false},	     {"agent", "relay_port", relay_port_set, false},
};

const char *conf_accel_name(enum conf_accel accel)
{
	switch (accel) {
	case CONF_ACCEL_AUTO:
		return "auto";
	case CONF_ACCEL_KVM:
		return "kvm";
	case CONF_ACCEL_TCG:
		return "tcg";
	}
	return "?";
}

/* Says what is wrong in the present line; the first one counts. */
static void line_error(struct reader *r, const struct dr_error *why)
{
	dr_error_set(r->err, DR_EUSAGE, "%s:%d: %s", r->path, r->line, why->text);
}

static void section_check(struct reader *r, const char *line, size_t len)
{
	struct dr_error why = DR_ERROR_INIT;
	const char *end = memchr(line, ']', len);
	size_t word = end != NULL ? (size_t)(end - line - 1) : 0;

	for (size_t i = 0; end != NULL && i < DR_ARRAY_SIZE(keys); i++) {
		if (strlen(keys[i].section) == word && strncmp(keys[i].section, line + 1, word) == 0)
			return;
	}
	dr_error_set(&why, DR_EUSAGE, "unknown section \"%.*s\": the sections are [node] and [agent]",
		     (int)len, line);
	line_error(r, &why);
}

/*
 * inih's door to the text: one whole line a call. It counts lines (Debian's inih does not tell them), takes
 * leading blanks away (they would continue the line before) and refuses what inih would cut in two.
 */
static char *line_read(char *buf, int size, void *data)
{
	struct reader *r = data;
	const char *line = r->next;
	size_t len;

	if (*line == '\0' || r->err->code != DR_OK)
		return NULL;
	r->line++;
	len = strcspn(line, "\n");
	r->next = line + len + (line[len] == '\n');
	while (len > 0 && (*line == ' ' || *line == '\t')) {
		line++;
		len--;
	}
	if (len > 0 && (*line == '#' || *line == ';'))
		len = 0;
	if (len > CONF_LINE_MAX || (int)len + 2 > size) {
		struct dr_error why = DR_ERROR_INIT;

		dr_error_set(&why, DR_EUSAGE, "the line has %zu characters, at most %d are possible", len,
			     CONF_LINE_MAX);
		line_error(r, &why);
		return NULL;
	}
	if (len > 0 && *line == '[')
		section_check(r, line, len);
	memcpy(buf, line, len);
	buf[len] = '\n';
	buf[len + 1] = '\0';
	return buf;
}

static void key_unknown(const char *section, const char *name, struct dr_error *why)
{
	const char *words[DR_ARRAY_SIZE(keys)];
	const char *nearest;
	size_t n = 0;

	for (size_t i = 0; i < DR_ARRAY_SIZE(keys); i++) {
		if (strcmp(keys[i].section, section) == 0)
			words[n++] = keys[i].name;
		else if (strcmp(keys[i].name, name) == 0) {
			dr_error_set(why, DR_EUSAGE, "key \"%s\" belongs into section [%s]", name,
				     keys[i].section);
			return;
		}
	}
	if (n == 0) {
		dr_error_set(why, DR_EUSAGE, "key \"%s\" stands before any section: begin with [node]", name);
		return;
	}
	nearest = names_nearest(name, words, n);
	dr_error_set(why, DR_EUSAGE, "unknown key \"%s\" in section [%s]%s%s%s", name, section,
		     nearest != NULL ? ": did you mean \"" : "", nearest != NULL ? nearest : "",
		     nearest != NULL ? "\"?" : " (drover.conf(5) lists the keys)");
}

static int on_key(void *data, const char *section, const char *name, const char *value)
{
	struct reader *r = data;
	struct dr_error why = DR_ERROR_INIT;

	if (r->err->code != DR_OK)
		return 1;
	for (size_t i = 0; i < DR_ARRAY_SIZE(keys); i++) {
		if (strcmp(keys[i].section, section) != 0 || strcmp(keys[i].name, name) != 0)
			continue;
		if ((r->seen & (1u << i)) != 0 && !keys[i].repeats)
			dr_error_set(&why, DR_EUSAGE, "key \"%s\" stands here for the second time", name);
		else if (keys[i].set(r->conf, value, &why) < 0)
			dr_error_prefix(&why, "%s", name);
		r->seen |= 1u << i;
		if (why.code != DR_OK)
			line_error(r, &why);
		return 1;
	}
	key_unknown(section, name, &why);
	line_error(r, &why);
	return 1;
}

void conf_defaults(struct dr_conf *conf)
{
	char host[256] = "";

	*conf = (struct dr_conf){
		.coordinator = true,
		.agent = true,
		.listen = "0.0.0.0:7420",
		.key_file = CONF_KEY_FILE,
		.data_dir = CONF_DATA_DIR,
		.run_dir = CONF_RUN_DIR,
		.log_level = "info",
		.qemu = "qemu-system-x86_64",
		.accel = CONF_ACCEL_AUTO,
		.relay_port = CONF_RELAY_PORT,
	};
	gethostname(host, sizeof(host) - 1);
	host[strcspn(host, ".")] = '\0';
	text_set(conf->name, sizeof(conf->name), names_valid(host) ? host : "localhost", NULL);
}

int conf_parse(const char *text, const char *path, struct dr_conf *conf, struct dr_error *err)
{
	struct dr_error local = DR_ERROR_INIT;
	struct reader r = {.next = text, .path = path, .conf = conf, .err = &local};
	int rc;

	conf_defaults(conf);
	rc = ini_parse_stream(line_read, &r, on_key, &r);
	/* Our own words know the line and come first. */
	if (local.code == DR_OK && rc > 0)
		dr_error_set(&local, DR_EUSAGE, "%s:%d: neither \"[section]\" nor \"key = value\"", path, rc);
	else if (local.code == DR_OK && rc < 0)
		dr_error_set(&local, DR_ENOMEM, "%s: out of memory", path);
	if (local.code != DR_OK)
		return dr_error_set(err, local.code, "%s", local.text);
	return 0;
}

int conf_read(const char *path, struct dr_conf *conf, struct dr_error *err)
{
	DR_AUTO_FILE FILE *file = fopen(path, "re");
	DR_AUTO_FREE char *text = NULL;
	size_t len;

	if (file == NULL)
		return dr_error_errno(err, errno == ENOENT ? DR_ENOENT : DR_EIO, errno, "cannot read %s",
				      path);
	text = malloc(CONF_FILE_MAX + 1);
	if (text == NULL)
		return dr_error_set(err, DR_ENOMEM, "out of memory");
	len = fread(text, 1, CONF_FILE_MAX + 1, file);
	if (ferror(file))
		return dr_error_errno(err, DR_EIO, errno, "cannot read %s", path);
	if (len > CONF_FILE_MAX)
		return dr_error_set(err, DR_EUSAGE, "%s: larger than %u bytes, this is no configuration file",
				    path, CONF_FILE_MAX);
	text[len] = '\0';
	if (strlen(text) != len)
		return dr_error_set(err, DR_EUSAGE, "%s: holds a zero byte, this is no text file", path);
	return conf_parse(text, path, conf, err);
}
