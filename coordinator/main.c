/* drover-coordinator: reads its configuration, owns its data directory, runs the loop. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/env_real.h"
#include "common/log.h"
#include "config.h"
#include "coordinator/server.h"

/* A snapshot is tens of megabytes for a moment. glibc would raise its threshold to that size after the first
 * one, keep the next ones on the heap, and this process as big as its biggest moment. */
#define MMAP_THRESHOLD (256 << 10)

static const char *conf_path = CONF_PATH;
static struct server *the_server;

static void usage(FILE *to)
{
	fprintf(to, "usage: drover-coordinator [-c FILE]\n"
		    "\n"
		    "Keeps the cluster's state and decides for it. Runs in the foreground, logs to stderr.\n"
		    "\n"
		    "  -c, --config FILE  configuration (default " CONF_PATH ")\n"
		    "  -h, --help         this text\n"
		    "  -V, --version      version\n"
		    "\n"
		    "SIGTERM ends it cleanly, SIGHUP reads the log level anew.\n");
}

static int32_t on_term(int32_t signal, void *data)
{
	(void)signal;
	server_stop(data);
	return 0;
}

static int32_t on_hup(int32_t signal, void *data)
{
	struct dr_error err = DR_ERROR_INIT;
	struct dr_conf conf;

	(void)signal;
	(void)data;
	if (conf_read(conf_path, &conf, &err) < 0)
		log_error("SIGHUP: %s", err.text);
	else
		log_set_level(conf.log_level);
	return 0;
}

static int make_dir(const char *path, struct dr_error *err)
{
	if (mkdir(path, 0755) != 0 && errno != EEXIST)
		return dr_error_errno(err, DR_EIO, errno, "%s", path);
	return 0;
}

/* One coordinator per data directory. The lock lives as long as the process. */
static int lock_data_dir(const struct dr_conf *conf, struct dr_error *err)
{
	char path[sizeof(conf->data_dir) + 32];
	int fd;

	if (make_dir(conf->data_dir, err) < 0 || make_dir(conf->run_dir, err) < 0)
		return -DR_EIO;
	umask(S_IRWXG | S_IRWXO); /* log and state hold the passwords of fence agents */
	snprintf(path, sizeof(path), "%s/coordinator.lock", conf->data_dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return dr_error_errno(err, DR_EIO, errno, "%s", path);
	if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
		close(fd);
		return dr_error_set(
			err, DR_EREFUSED,
			"another drover-coordinator uses %s: end it first, or give this one another data_dir",
			conf->data_dir);
	}
	return fd;
}

/* After a fault that may pass (a full disk, no memory) everything begins anew, from what is on the disk: a
 * new program image holds nothing of what went wrong. The variable tells it that a daemon that ran asks. */
#define RESTARTED      "DROVER_COORDINATOR_RESTARTED"
#define RESTART_WAIT_S 2

static bool may_restart(enum dr_err code)
{
	return getenv(RESTARTED) != NULL &&
	       (code == DR_ENOSPC || code == DR_EIO || code == DR_ESYNC || code == DR_ENOMEM);
}

static void restart(char **argv)
{
	log_notice("tries again in %d s", RESTART_WAIT_S);
	signal(SIGTERM, SIG_DFL);
	signal(SIGINT, SIG_DFL);
	sleep(RESTART_WAIT_S);
	if (setenv(RESTARTED, "1", 1) == 0)
		execv("/proc/self/exe", argv);
	log_error("restart: %s", strerror(errno));
}

static int run(const struct dr_conf *conf, bool *again)
{
	struct dr_error err = DR_ERROR_INIT;
	qb_loop_t *loop = qb_loop_create();
	struct env *env = loop != NULL ? env_real_new(loop) : NULL;
	qb_loop_signal_handle handle;
	int code;

	if (env == NULL) {
		fprintf(stderr, "drover-coordinator: out of memory\n");
		return 1;
	}
	signal(SIGPIPE, SIG_IGN);
	the_server = server_new(conf, loop, env, &err);
	if (the_server == NULL) {
		log_error("%s", err.text);
		*again = may_restart(err.code);
		env_real_free(env);
		qb_loop_destroy(loop);
		return err.code == DR_ECORRUPT ? 1 : dr_err_exit((int)err.code);
	}
	qb_loop_signal_add(loop, QB_LOOP_HIGH, SIGTERM, the_server, on_term, &handle);
	qb_loop_signal_add(loop, QB_LOOP_HIGH, SIGINT, the_server, on_term, &handle);
	qb_loop_signal_add(loop, QB_LOOP_HIGH, SIGHUP, the_server, on_hup, &handle);
	qb_loop_run(loop);
	code = the_server->exit_code;
	*again = the_server->restart;
	server_free(the_server);
	env_real_free(env);
	qb_loop_destroy(loop);
	return code;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"config", required_argument, NULL, 'c'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{NULL, 0, NULL, 0},
	};
	struct dr_error err = DR_ERROR_INIT;
	struct dr_conf conf;
	int option, lock, code;
	bool again = false;

	while ((option = getopt_long(argc, argv, "c:hV", options, NULL)) != -1) {
		switch (option) {
		case 'c':
			conf_path = optarg;
			break;
		case 'h':
			usage(stdout);
			return 0;
		case 'V':
			printf("drover-coordinator %s\n", PACKAGE_VERSION);
			return 0;
		default:
			usage(stderr);
			return DR_EUSAGE;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "drover-coordinator: unexpected word '%s'\n", argv[optind]);
		usage(stderr);
		return DR_EUSAGE;
	}
	if (conf_read(conf_path, &conf, &err) < 0) {
		fprintf(stderr, "drover-coordinator: %s\n", err.text);
		return dr_err_exit((int)err.code);
	}
	lock = lock_data_dir(&conf, &err);
	if (lock < 0) {
		fprintf(stderr, "drover-coordinator: %s\n", err.text);
		return dr_err_exit((int)err.code);
	}
	mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD);
	log_init("drover-coordinator", conf.log_level);
	code = run(&conf, &again);
	if (again)
		restart(argv);
	log_fini();
	close(lock);
	return code;
}
