/* drover-agent: owns the QEMU processes of its host and their moves (DESIGN §2). */
#include <cap-ng.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/daemon.h"
#include "common/cleanup.h"
#include "common/crashpoint.h"
#include "common/log.h"

static struct agent agent;
static const char *conf_path = CONF_PATH;

static int32_t on_term(int32_t signum, void *data)
{
	(void)data;
	log_notice("signal %d: leaving; VMs run on", signum);
	agent_leave(&agent);
	return 0;
}

/* Only the log level is read again (INTERFACE §3). */
static int32_t on_hup(int32_t signum, void *data)
{
	struct dr_conf conf;
	struct dr_error err = DR_ERROR_INIT;

	(void)signum;
	(void)data;
	if (conf_read(conf_path, &conf, &err) != 0 || log_set_level(conf.log_level) != 0)
		log_error("log level not changed: %s", err.text);
	else
		log_notice("log level: %s", conf.log_level);
	return 0;
}

/*
 * What neither the agent nor a QEMU or relay that it starts ever needs (DESIGN §11). Kept: network and taps,
 * signals to other users' processes, changing users, files of any owner, memory and scheduling limits.
 */
static void drop_capabilities(void)
{
	static const unsigned int never[] = {CAP_SYS_MODULE,	  CAP_SYS_RAWIO,
					     CAP_SYS_BOOT,	  CAP_SYS_TIME,
					     CAP_SYS_PACCT,	  CAP_SYS_PTRACE,
					     CAP_SYS_TTY_CONFIG,  CAP_MAC_ADMIN,
					     CAP_MAC_OVERRIDE,	  CAP_SYSLOG,
					     CAP_AUDIT_CONTROL,	  CAP_AUDIT_READ,
					     CAP_LINUX_IMMUTABLE, CAP_WAKE_ALARM,
					     CAP_BLOCK_SUSPEND,	  CAP_BPF,
					     CAP_PERFMON,	  CAP_CHECKPOINT_RESTORE,
					     CAP_MKNOD,		  CAP_LEASE};

	if (capng_get_caps_process() != 0)
		return;
	for (size_t i = 0; i < DR_ARRAY_SIZE(never); i++)
		capng_update(CAPNG_DROP,
			     CAPNG_EFFECTIVE | CAPNG_PERMITTED | CAPNG_INHERITABLE | CAPNG_BOUNDING_SET,
			     never[i]);
	if (capng_apply(CAPNG_SELECT_BOTH) != 0)
		log_notice("capabilities could not be reduced (not started as root?)");
}

static void usage(FILE *out)
{
	fprintf(out, "usage: drover-agent [-c FILE]\n"
		     "Runs the virtual machines of this host for a Drover cluster; see drover-agent(8).\n");
}

static int parse(int argc, char **argv)
{
	static const struct option options[] = {{"config", required_argument, NULL, 'c'},
						{"help", no_argument, NULL, 'h'},
						{"version", no_argument, NULL, 'V'},
						{NULL, 0, NULL, 0}};
	int opt;

	while ((opt = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
		if (opt == 'c') {
			conf_path = optarg;
		} else if (opt == 'h') {
			usage(stdout);
			exit(0);
		} else if (opt == 'V') {
			printf("drover-agent 0.1.0\n");
			exit(0);
		} else {
			return -DR_EUSAGE;
		}
	}
	return optind == argc ? 0 : -DR_EUSAGE;
}

static int run(const struct dr_conf *conf)
{
	struct dr_error err = DR_ERROR_INIT;
	qb_loop_t *loop = qb_loop_create();
	qb_loop_signal_handle handle;
	int rc;

	if (loop == NULL)
		return DR_EFAILED;
	qb_loop_signal_add(loop, QB_LOOP_HIGH, SIGTERM, NULL, on_term, &handle);
	qb_loop_signal_add(loop, QB_LOOP_HIGH, SIGINT, NULL, on_term, &handle);
	qb_loop_signal_add(loop, QB_LOOP_LOW, SIGHUP, NULL, on_hup, &handle);
	rc = agent_init(&agent, conf, loop, &err);
	if (rc == 0) {
		log_notice("drover-agent of node %s is ready", conf->name);
		qb_loop_run(loop);
		log_notice("drover-agent ends; VMs run on");
	} else {
		log_error("%s", err.text);
	}
	agent_fini(&agent);
	qb_loop_destroy(loop);
	return dr_err_exit(rc);
}

int main(int argc, char **argv)
{
	struct dr_error err = DR_ERROR_INIT;
	struct dr_conf conf;
	int rc;

	if (parse(argc, argv) != 0) {
		usage(stderr);
		return DR_EUSAGE;
	}
	rc = conf_read(conf_path, &conf, &err);
	if (rc != 0) {
		fprintf(stderr, "drover-agent: %s\n", err.text);
		return dr_err_exit(rc);
	}
	umask(0027);
	signal(SIGPIPE, SIG_IGN);
	log_init("drover-agent", conf.log_level);
	crash_point_init();
	drop_capabilities();
	rc = run(&conf);
	log_fini();
	return rc;
}
