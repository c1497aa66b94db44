#include "common/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int dr_error_set(struct dr_error *e, enum dr_err code, const char *fmt, ...)
{
	va_list ap;

	if (e == NULL || e->code != DR_OK)
		return -(int)code;
	e->code = code;
	va_start(ap, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	return -(int)code;
}

int dr_error_errno(struct dr_error *e, enum dr_err code, int errnum, const char *fmt, ...)
{
	char text[DR_ERROR_TEXT];
	char why[128];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return dr_error_set(e, code, "%s: %s", text, strerror_r(errnum, why, sizeof(why)));
}

void dr_error_prefix(struct dr_error *e, const char *fmt, ...)
{
	char context[DR_ERROR_TEXT];
	char old[DR_ERROR_TEXT];
	va_list ap;

	if (e == NULL || e->code == DR_OK)
		return;
	va_start(ap, fmt);
	vsnprintf(context, sizeof(context), fmt, ap);
	va_end(ap);
	memcpy(old, e->text, sizeof(old));
	if (snprintf(e->text, sizeof(e->text), "%s: %s", context, old) >= (int)sizeof(e->text))
		memcpy(e->text + sizeof(e->text) - 4, "...", 4);
}

void dr_error_clear(struct dr_error *e)
{
	e->code = DR_OK;
	e->text[0] = '\0';
}

int dr_err_exit(int code)
{
	code = abs(code);
	return code <= DR_EAUTH ? code : DR_EFAILED;
}

const char *dr_err_name(int code)
{
	switch ((enum dr_err)abs(code)) {
	case DR_OK:
		return "ok";
	case DR_EFAILED:
		return "failed";
	case DR_EUSAGE:
		return "usage";
	case DR_ENOQUORUM:
		return "no quorum";
	case DR_ENOENT:
		return "not found";
	case DR_ETIMEOUT:
		return "timeout";
	case DR_EREFUSED:
		return "refused";
	case DR_ENODAEMON:
		return "no daemon reachable";
	case DR_EAUTH:
		return "authentication refused";
	case DR_ENOMEM:
		return "out of memory";
	case DR_EIO:
		return "input/output error";
	case DR_EPROTO:
		return "protocol error";
	case DR_EAGAIN:
		return "try again";
	case DR_ECLOSED:
		return "connection closed";
	case DR_ECORRUPT:
		return "corrupt data";
	case DR_EBUG:
		return "internal error";
	case DR_ENOSPC:
		return "no room";
	case DR_ESYNC:
		return "fsync failed";
	}
	return "unknown error";
}
