/*
 * Named points at which a test lets a daemon die or freeze (DESIGN §12, move matrix).
 *
 *   DROVER_CRASH_POINT=NAME    SIGKILL to itself at that point
 *   DROVER_STOP_POINT=NAME     SIGSTOP to itself at that point
 *   DROVER_POINTS_FILE=PATH    lines "crash NAME" or "stop NAME", re-read at each point: arms a running
 * daemon. A line is used once: the file is emptied before the signal.
 *
 * Without these variables a point costs one comparison.
 */
#ifndef DROVER_COMMON_CRASHPOINT_H
#define DROVER_COMMON_CRASHPOINT_H

/* Reads the environment; call once at the start of a daemon. */
void crash_point_init(void);

/* name: "src.released.before", "dst.prepared.after", ... Usually returns. */
void crash_point(const char *name);

#endif
