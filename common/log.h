/*
 * Logging on libqb: one line an event, to stderr or the journal. Start a line
 * with the object it is about: "vm vm3 move 17/2: source reads postmigrate".
 */
#ifndef DROVER_COMMON_LOG_H
#define DROVER_COMMON_LOG_H

#include <stdint.h>
#include <syslog.h>
#include <qb/qblog.h>

/* program: shown in each line; level: "error", "warning", "notice", "info" or "debug". -DR_EUSAGE for another
 * word. */
int log_init(const char *program, const char *level);
int log_set_level(const char *level);
void log_fini(void);

#define log_error(...)	 qb_log(LOG_ERR, __VA_ARGS__)
#define log_warning(...) qb_log(LOG_WARNING, __VA_ARGS__)
#define log_notice(...)	 qb_log(LOG_NOTICE, __VA_ARGS__)
#define log_info(...)	 qb_log(LOG_INFO, __VA_ARGS__)
#define log_debug(...)	 qb_log(LOG_DEBUG, __VA_ARGS__)

#endif
