#include "common/crashpoint.h"

#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"

static bool armed;
static const char *crash_name;
static const char *stop_name;
static const char *points_file;

void crash_point_init(void)
{
	crash_name = getenv("DROVER_CRASH_POINT");
	stop_name = getenv("DROVER_STOP_POINT");
	points_file = getenv("DROVER_POINTS_FILE");
	armed = crash_name != NULL || stop_name != NULL || points_file != NULL;
}

static void act(const char *name, int signum)
{
	log_warning("crash point %s: %s", name, signum == SIGKILL ? "dying" : "stopping");
	kill(getpid(), signum);
}

/* 0, SIGKILL or SIGSTOP. */
static int ask_file(const char *name)
{
	DR_AUTO_FILE FILE *f = fopen(points_file, "re");
	char verb[16];
	char point[80];
	int signum = 0;

	if (f == NULL)
		return 0;
	while (signum == 0 && fscanf(f, "%15s %79s", verb, point) == 2) {
		if (strcmp(point, name) != 0)
			continue;
		if (strcmp(verb, "crash") == 0)
			signum = SIGKILL;
		else if (strcmp(verb, "stop") == 0)
			signum = SIGSTOP;
	}
	/* Used once: a daemon that is started again passes the point. */
	if (signum != 0 && truncate(points_file, 0) != 0)
		return 0;
	return signum;
}

void crash_point(const char *name)
{
	if (!armed)
		return;
	if (crash_name != NULL && strcmp(crash_name, name) == 0)
		act(name, SIGKILL);
	if (stop_name != NULL && strcmp(stop_name, name) == 0)
		act(name, SIGSTOP);
	if (points_file != NULL) {
		int signum = ask_file(name);

		if (signum != 0)
			act(name, signum);
	}
}
