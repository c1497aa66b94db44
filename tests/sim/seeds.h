/* tests/sim/run --seeds, --seed, --mutant: runs of whole clusters (cluster.h), in children of this process.
 */
#ifndef DROVER_TESTS_SEEDS_H
#define DROVER_TESTS_SEEDS_H

#include <stdbool.h>
#include <stdint.h>

/* One seed in this process; 0 when all invariants hold. */
int seeds_one(uint64_t seed, const char *mutant, bool trace);
/* Seeds first..last; prints what fails, how to run it again, and faults by phase. Number of failed seeds and,
 * over enough of them, of phases that a fault never met. */
int seeds_run(uint64_t first, uint64_t last, unsigned jobs);

struct cluster_profile;
/* Runs seeds until one fails with the profile's mutant and holds without it. why: until the next call. */
bool seeds_hunt(const struct cluster_profile *profile, uint64_t first, uint64_t last, unsigned jobs,
		uint64_t *seed, const char **why);

#endif
