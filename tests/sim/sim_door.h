/* Included before everything else where the coordinator is compiled for the simulator: its log lines
 * become lines of the trace. */
#ifndef DROVER_TESTS_SIM_DOOR_H
#define DROVER_TESTS_SIM_DOOR_H

#define DROVER_COMMON_LOG_H
#include <stdbool.h>
#include <stdint.h>
#include <syslog.h>

/* False: nobody reads it. */
extern bool sim_log_on;
void sim_log(int priority, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#ifdef DROVER_COVERAGE /* no branch that isn't in the program */
#define SIM_LOG(priority, ...) sim_log(priority, __VA_ARGS__)
#else
#define SIM_LOG(priority, ...)                                                                               \
	do {                                                                                                 \
		if (sim_log_on)                                                                              \
			sim_log(priority, __VA_ARGS__);                                                      \
	} while (0)
#endif
#define log_error(...)	 SIM_LOG(LOG_ERR, __VA_ARGS__)
#define log_warning(...) SIM_LOG(LOG_WARNING, __VA_ARGS__)
#define log_notice(...)	 SIM_LOG(LOG_NOTICE, __VA_ARGS__)
#define log_info(...)	 SIM_LOG(LOG_INFO, __VA_ARGS__)
#define log_debug(...)	 SIM_LOG(LOG_DEBUG, __VA_ARGS__)

#endif
