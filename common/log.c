#include "common/log.h"

#include <string.h>

#include "common/cleanup.h"
#include "common/error.h"

static const struct {
	const char *word;
	int32_t priority;
} levels[] = {
	{"error", LOG_ERR}, {"warning", LOG_WARNING}, {"notice", LOG_NOTICE},
	{"info", LOG_INFO}, {"debug", LOG_DEBUG},
};

int log_set_level(const char *level)
{
	for (size_t i = 0; i < DR_ARRAY_SIZE(levels); i++) {
		if (strcmp(levels[i].word, level) != 0)
			continue;
		qb_log_filter_ctl(QB_LOG_STDERR, QB_LOG_FILTER_CLEAR_ALL, QB_LOG_FILTER_FILE, "*", LOG_TRACE);
		qb_log_filter_ctl(QB_LOG_STDERR, QB_LOG_FILTER_ADD, QB_LOG_FILTER_FILE, "*",
				  (uint8_t)levels[i].priority);
		return 0;
	}
	return -DR_EUSAGE;
}

int log_init(const char *program, const char *level)
{
	qb_log_init(program, LOG_DAEMON, LOG_DEBUG);
	qb_log_ctl(QB_LOG_SYSLOG, QB_LOG_CONF_ENABLED, QB_FALSE);
	/* The flight recorder would hold 8 MiB of shared memory per process. */
	qb_log_ctl(QB_LOG_BLACKBOX, QB_LOG_CONF_ENABLED, QB_FALSE);
	qb_log_format_set(QB_LOG_STDERR, "%T %N[%P] %7p %b");
	qb_log_ctl(QB_LOG_STDERR, QB_LOG_CONF_ENABLED, QB_TRUE);
	return log_set_level(level);
}

void log_fini(void)
{
	qb_log_fini();
}
