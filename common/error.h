/*
 * Errors: every function that can fail returns 0 or a negative enum dr_err, and
 * fills a struct dr_error with words for the operator. Foreign codes (errno,
 * SQLite, corosync, OpenSSL, QMP) are converted at the edge where they arise.
 */
#ifndef DROVER_COMMON_ERROR_H
#define DROVER_COMMON_ERROR_H

#include <stdarg.h>

/* The first nine are the exit statuses of the command line (INTERFACE §2). */
enum dr_err {
	DR_OK = 0,
	DR_EFAILED = 1,	  /* the operation failed */
	DR_EUSAGE = 2,	  /* wrong word or value */
	DR_ENOQUORUM = 3, /* no quorum: nothing was changed */
	DR_ENOENT = 4,	  /* no such node, VM, network, move, drain or run */
	DR_ETIMEOUT = 5,  /* deadline passed; the work goes on */
	DR_EREFUSED = 6,  /* would break a limit, a rule or an invariant */
	DR_ENODAEMON = 7, /* no daemon reachable */
	DR_EAUTH = 8,	  /* authentication refused */
	/* Never leave a process: */
	DR_ENOMEM = 20,
	DR_EIO,	     /* the kernel or a disk said no */
	DR_EPROTO,   /* bytes from outside that break the protocol or a limit */
	DR_EAGAIN,   /* not now; try again when told or later */
	DR_ECLOSED,  /* the peer ended the connection */
	DR_ECORRUPT, /* stored bytes that fail their checksum */
	DR_EBUG,     /* an invariant of the program is broken */
	DR_ENOSPC,   /* no room, or a file system that may not be written: nothing was changed */
	DR_ESYNC,    /* fsync failed: what is on the disk is unknown */
};

#define DR_ERROR_TEXT 512

struct dr_error {
	enum dr_err code;
	char text[DR_ERROR_TEXT];
};

#define DR_ERROR_INIT                                                                                        \
	{                                                                                                    \
		.code = DR_OK, .text = ""                                                                    \
	}

/* Fills *e (may be NULL) unless it already holds an error (first error wins); returns -code. */
int dr_error_set(struct dr_error *e, enum dr_err code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* As dr_error_set, with ": " and strerror(errnum) behind the text. */
int dr_error_errno(struct dr_error *e, enum dr_err code, int errnum, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* Puts context in front of the text: "context: text". No effect on an empty error. */
void dr_error_prefix(struct dr_error *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

void dr_error_clear(struct dr_error *e);

/* The exit status (0–8) that stands for a code; internal codes become 1. */
int dr_err_exit(int code);

/* A short English word for a code, for logs. Accepts negative codes. */
const char *dr_err_name(int code);

#endif
