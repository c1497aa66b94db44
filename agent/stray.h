/*
 * QEMUs of this agent's run_dir that its store does not know: data_dir/agent.db was deleted, or restored from
 * an older copy, while they ran on. The agent cannot speak for such a VM (SAFETY R9, R12): its reports are
 * not complete, and nothing is started, recorded or said of that VM, until the process has ended.
 */
#ifndef DROVER_AGENT_STRAY_H
#define DROVER_AGENT_STRAY_H

#include "agent/agent.h"

/*
 * Looks through the processes, once, after what the store knows has been restored and before anything is said
 * of it. -DR_EIO: the processes cannot be read; the agent must not start then.
 */
int stray_scan(struct agent *a, struct dr_error *err);
void stray_free_all(struct agent *a);

bool stray_any(const struct agent *a);
/* Is a process of that VM among them? */
bool stray_has(const struct agent *a, const char *vm);

#endif
