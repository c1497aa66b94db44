#include "cluster.h"
uint64_t faults_begin(struct cluster *cl)
{
	return cl->sim->now + 20 * SIM_S;
}
void faults_heal(struct cluster *cl)
{
	(void)cl;
}
