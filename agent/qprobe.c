#include "agent/qprobe.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent/qmp.h"
#include "common/cleanup.h"
#include "common/log.h"

#define ALIVE_MS   200 /* a machine that runs this long after `cont` is live */
#define STDERR_MAX 4096

struct child {
	pid_t pid;
	int in;	 /* its stdin */
	int out; /* its stdout */
	int err;
	struct qmp_lines lines;
	json_t *answer; /* of the command that is waited for */
	char status[32];
	bool ended;
	uint64_t deadline_ms;
	char words[STDERR_MAX];
	size_t n_words;
};

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static int start(struct child *c, const char *const *argv)
{
	int in[2], out[2], err[2];

	memset(c, 0, sizeof(*c));
	c->deadline_ms = now_ms() + QPROBE_DEADLINE_MS;
	if (pipe2(in, O_CLOEXEC) != 0)
		return -DR_EIO;
	if (pipe2(out, O_CLOEXEC) != 0) {
		close(in[0]);
		close(in[1]);
		return -DR_EIO;
	}
	if (pipe2(err, O_CLOEXEC) != 0) {
		close(in[0]);
		close(in[1]);
		close(out[0]);
		close(out[1]);
		return -DR_EIO;
	}
	c->pid = fork();
	if (c->pid == 0) {
		dup2(in[0], STDIN_FILENO);
		dup2(out[1], STDOUT_FILENO);
		dup2(err[1], STDERR_FILENO);
		execv(argv[0], (char *const *)(uintptr_t)argv);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	close(err[1]);
	c->in = in[1];
	c->out = out[0];
	c->err = err[0];
	fcntl(c->err, F_SETFL, O_NONBLOCK);
	return c->pid > 0 ? 0 : -DR_EIO;
}

static void finish(struct child *c)
{
	if (c->pid > 0) {
		kill(c->pid, SIGKILL); /* our own unreaped child: the pid cannot be another's */
		waitpid(c->pid, NULL, 0);
	}
	close(c->in);
	close(c->out);
	close(c->err);
	qmp_lines_fini(&c->lines);
	json_decref(c->answer);
}

static int on_line(const char *line, size_t len, void *data)
{
	struct child *c = data;
	json_error_t jerr;
	json_t *msg = qmp_depth_ok(line, len) ? json_loadb(line, len, 0, &jerr) : NULL;
	json_t *ret = json_object_get(msg, "return");

	if (ret != NULL) {
		json_decref(c->answer);
		c->answer = json_incref(ret);
	} else if (json_object_get(msg, "error") != NULL) {
		json_decref(c->answer);
		c->answer = json_null();
	}
	json_decref(msg);
	return 0;
}

static void read_words(struct child *c)
{
	ssize_t n = read(c->err, c->words + c->n_words, sizeof(c->words) - 1 - c->n_words);

	if (n > 0)
		c->n_words += (size_t)n;
	c->words[c->n_words] = '\0';
}

/* Reads until an answer is there, the child ended, or until_ms. */
static void pump(struct child *c, uint64_t until_ms)
{
	char buf[8192];

	while (c->answer == NULL && !c->ended) {
		struct pollfd pfd = {.fd = c->out, .events = POLLIN};
		uint64_t now = now_ms();
		ssize_t n;

		if (now >= until_ms)
			return;
		if (poll(&pfd, 1, (int)(until_ms - now)) <= 0)
			continue;
		n = read(c->out, buf, sizeof(buf));
		if (n <= 0 || qmp_lines_push(&c->lines, buf, (size_t)n, on_line, c) != 0)
			c->ended = true;
	}
}

/* The value of "return" (borrowed until the next call), NULL when it failed. */
static json_t *ask(struct child *c, const char *command)
{
	char line[128];
	int n = snprintf(line, sizeof(line), "{\"execute\":\"%s\"}\n", command);

	json_decref(c->answer);
	c->answer = NULL;
	if (c->ended || write(c->in, line, (size_t)n) != n)
		return NULL;
	pump(c, c->deadline_ms);
	return json_is_null(c->answer) ? NULL : c->answer;
}

/* ------------------------------------------------ machine types */

static void add_machine(struct qcaps *caps, const json_t *m)
{
	const char *name = json_string_value(json_object_get(m, "name"));
	const char *alias = json_string_value(json_object_get(m, "alias"));

	if (name == NULL || strlen(name) >= sizeof(caps->pc))
		return;
	if (strncmp(name, "pc-i440fx-", 10) != 0 && strncmp(name, "pc-q35-", 7) != 0)
		return;
	if (alias != NULL && strcmp(alias, "pc") == 0)
		snprintf(caps->pc, sizeof(caps->pc), "%s", name);
	if (alias != NULL && strcmp(alias, "q35") == 0)
		snprintf(caps->q35, sizeof(caps->q35), "%s", name);
	if (caps->n_machines < QPROBE_MACHINES) {
		caps->machines[caps->n_machines] = strdup(name);
		if (caps->machines[caps->n_machines] != NULL)
			caps->n_machines++;
	}
}

static int ask_machines(struct qcaps *caps, struct dr_error *err)
{
	const char *argv[] = {caps->path, "-machine", "none", "-nodefaults", "-no-user-config",
			      "-display", "none",     "-S",   "-qmp",	     "stdio",
			      NULL};
	struct child c;
	const json_t *v;
	const json_t *list;
	size_t i;
	json_t *m;
	int rc = 0;

	if (start(&c, argv) != 0)
		return dr_error_set(err, DR_EIO, "%s cannot be started", caps->path);
	ask(&c, "qmp_capabilities");
	v = json_object_get(ask(&c, "query-version"), "qemu");
	caps->major = (unsigned int)json_integer_value(json_object_get(v, "major"));
	caps->minor = (unsigned int)json_integer_value(json_object_get(v, "minor"));
	snprintf(caps->version, sizeof(caps->version), "%u.%u.%u", caps->major, caps->minor,
		 (unsigned int)json_integer_value(json_object_get(v, "micro")));
	list = ask(&c, "query-machines");
	json_array_foreach((json_t *)(uintptr_t)list, i, m) add_machine(caps, m);
	if (caps->major == 0 || caps->n_machines == 0) {
		read_words(&c);
		rc = dr_error_set(err, DR_EFAILED, "%s does not answer: %.200s", caps->path, c.words);
	}
	finish(&c);
	return rc;
}

/* ------------------------------------------------ KVM, by trying */

static bool try_kvm(const struct qcaps *caps, const char *cpu, char *words, size_t size)
{
	const char *argv[] = {
		caps->path,    "-accel",	  "kvm",      "-cpu", cpu,  "-machine", caps->pc, "-m", "16",
		"-nodefaults", "-no-user-config", "-display", "none", "-S", "-qmp",	"stdio",  NULL};
	struct child c;
	const char *status;
	bool live = false;

	if (start(&c, argv) != 0)
		return false;
	ask(&c, "qmp_capabilities");
	if (json_is_true(json_object_get(ask(&c, "query-kvm"), "enabled")) && ask(&c, "cont") != NULL) {
		json_decref(c.answer);
		c.answer = NULL;
		pump(&c, now_ms() + ALIVE_MS); /* a CPU model that the host can't run ends QEMU within this */
		status = json_string_value(json_object_get(ask(&c, "query-status"), "status"));
		live = status != NULL && strcmp(status, "running") == 0;
	}
	read_words(&c);
	snprintf(words, size, "%.*s", (int)strcspn(c.words, "\n"), c.words);
	finish(&c);
	return live;
}

static void ask_kvm(struct qcaps *caps, enum conf_accel accel)
{
	char words[160];

	if (accel == CONF_ACCEL_TCG) {
		snprintf(caps->kvm_why, sizeof(caps->kvm_why), "configured accel=tcg");
		return;
	}
	if (access("/dev/kvm", R_OK | W_OK) != 0) {
		snprintf(caps->kvm_why, sizeof(caps->kvm_why), "/dev/kvm: %s", strerror(errno));
		return;
	}
	caps->kvm = try_kvm(caps, "qemu64", words, sizeof(words));
	caps->kvm_sse3 = caps->kvm && strstr(words, "host doesn't support") == NULL;
	if (!caps->kvm)
		caps->kvm = try_kvm(caps, "qemu64,-sse3", words, sizeof(words));
	if (!caps->kvm) {
		snprintf(caps->kvm_why, sizeof(caps->kvm_why), "a test machine did not run: %.100s", words);
		return;
	}
	caps->kvm_host = try_kvm(caps, "host", words, sizeof(words));
}

/* ------------------------------------------------ remembering the answers */

static void cache_key(const char *path, enum conf_accel accel, char *key, size_t size)
{
	DR_AUTO_FILE FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
	struct stat st = {0};
	char boot[64] = "";

	if (f != NULL && fgets(boot, sizeof(boot), f) == NULL)
		boot[0] = '\0';
	boot[strcspn(boot, "\n")] = '\0';
	stat(path, &st);
	snprintf(key, size, "1 %s %lld.%09ld %lld %s %s", path, (long long)st.st_mtim.tv_sec,
		 st.st_mtim.tv_nsec, (long long)st.st_size, conf_accel_name(accel), boot);
}

static void cache_write(const char *cache_path, const char *key, const struct qcaps *caps)
{
	json_t *machines = json_array();
	json_t *o;

	for (size_t i = 0; i < caps->n_machines; i++)
		json_array_append_new(machines, json_string(caps->machines[i]));
	o = json_pack("{s:s, s:s, s:i, s:i, s:s, s:s, s:b, s:b, s:b, s:s, s:o}", "key", key, "version",
		      caps->version, "major", (int)caps->major, "minor", (int)caps->minor, "pc", caps->pc,
		      "q35", caps->q35, "kvm", caps->kvm, "sse3", caps->kvm_sse3, "host", caps->kvm_host,
		      "why", caps->kvm_why, "machines", machines);
	/* A cache that cannot be written only costs the next start some time. */
	if (o == NULL || json_dump_file(o, cache_path, JSON_INDENT(1)) != 0)
		log_info("%s cannot be written", cache_path);
	json_decref(o);
}

static void copy(char *to, size_t size, const json_t *o, const char *name)
{
	const char *text = json_string_value(json_object_get(o, name));

	snprintf(to, size, "%s", text != NULL ? text : "");
}

static bool cache_read(const char *cache_path, const char *key, struct qcaps *caps)
{
	json_error_t jerr;
	json_t *o = json_load_file(cache_path, 0, &jerr);
	const char *have = json_string_value(json_object_get(o, "key"));
	size_t i;
	json_t *m;

	if (have == NULL || strcmp(have, key) != 0) {
		json_decref(o);
		return false;
	}
	copy(caps->version, sizeof(caps->version), o, "version");
	copy(caps->pc, sizeof(caps->pc), o, "pc");
	copy(caps->q35, sizeof(caps->q35), o, "q35");
	copy(caps->kvm_why, sizeof(caps->kvm_why), o, "why");
	caps->major = (unsigned int)json_integer_value(json_object_get(o, "major"));
	caps->minor = (unsigned int)json_integer_value(json_object_get(o, "minor"));
	caps->kvm = json_is_true(json_object_get(o, "kvm"));
	caps->kvm_sse3 = json_is_true(json_object_get(o, "sse3"));
	caps->kvm_host = json_is_true(json_object_get(o, "host"));
	json_array_foreach(json_object_get(o, "machines"), i, m)
	{
		if (caps->n_machines < QPROBE_MACHINES && json_is_string(m))
			caps->machines[caps->n_machines++] = strdup(json_string_value(m));
	}
	json_decref(o);
	return caps->n_machines > 0;
}

/* ------------------------------------------------ all of it */

static int find_program(const char *program, char *path, size_t size)
{
	DR_AUTO_FREE char *dirs = strdup(getenv("PATH") != NULL ? getenv("PATH") : "/usr/bin:/bin");
	char *save = NULL;

	if (strchr(program, '/') != NULL) {
		snprintf(path, size, "%s", program);
		return access(path, X_OK) == 0 ? 0 : -DR_ENOENT;
	}
	for (char *d = dirs != NULL ? strtok_r(dirs, ":", &save) : NULL; d != NULL;
	     d = strtok_r(NULL, ":", &save)) {
		snprintf(path, size, "%s/%s", d, program);
		if (access(path, X_OK) == 0)
			return 0;
	}
	return -DR_ENOENT;
}

int qprobe(const char *program, enum conf_accel accel, const char *cache_path, struct qcaps *caps,
	   struct dr_error *err)
{
	char key[512];
	int rc;

	memset(caps, 0, sizeof(*caps));
	if (find_program(program, caps->path, sizeof(caps->path)) != 0)
		return dr_error_set(err, DR_ENOENT,
				    "%s: no such program (install qemu-system-x86, or set qemu= in [agent])",
				    program);
	caps->machines = calloc(QPROBE_MACHINES + 1, sizeof(*caps->machines));
	if (caps->machines == NULL)
		return dr_error_set(err, DR_ENOMEM, "out of memory");
	cache_key(caps->path, accel, key, sizeof(key));
	if (cache_path[0] != '\0' && cache_read(cache_path, key, caps))
		return 0;
	rc = ask_machines(caps, err);
	if (rc != 0) {
		qcaps_fini(caps);
		return rc;
	}
	ask_kvm(caps, accel);
	if (cache_path[0] != '\0')
		cache_write(cache_path, key, caps);
	return 0;
}

void qcaps_fini(struct qcaps *caps)
{
	for (size_t i = 0; i < caps->n_machines; i++)
		free(caps->machines[i]);
	free(caps->machines);
	caps->machines = NULL;
	caps->n_machines = 0;
}

bool qcaps_has_machine(const struct qcaps *caps, const char *machine)
{
	for (size_t i = 0; i < caps->n_machines; i++)
		if (strcmp(caps->machines[i], machine) == 0)
			return true;
	return false;
}
