/* No simulated host has a fence agent yet: the operator's word is the proof there (cluster_operator.c). */
#include <stdlib.h>

#include "coordinator/fence.h"

struct fence_runner {
	char none;
};

struct fence_runner *fence_runner_new(qb_loop_t *loop, struct env *env, const char *dir, unsigned deadline_ms)
{
	(void)loop;
	(void)env;
	(void)dir;
	(void)deadline_ms;
	return calloc(1, sizeof(struct fence_runner));
}

void fence_runner_free(struct fence_runner *r)
{
	free(r);
}

int fence_off(struct fence_runner *r, const char *node, const char *spec, fence_done_fn done, void *data,
	      struct dr_error *err)
{
	(void)r;
	(void)spec;
	(void)done;
	(void)data;
	return dr_error_set(err, DR_ENOENT, "%s: no fence agents here", node);
}

void fence_cancel(struct fence_runner *r, const char *node)
{
	(void)r;
	(void)node;
}
