/* tests/sim/run --seeds, --seed, --mutant: runs of whole clusters (cluster.h), in children of this process.
 */
#ifndef DROVER_TESTS_SEEDS_H
#define DROVER_TESTS_SEEDS_H

#include <stdbool.h>
#include <stdint.h>

/* One seed in this process; 0 when all invariants hold. */
int seeds_one(uint64_t seed, bool trace);
/* Seeds first..last; prints what fails, how to run it again, and faults by phase. Number of failed seeds and,
 * over enough of them, of phases that a fault never met. */
int seeds_run(uint64_t first, uint64_t last, unsigned jobs);

#endif
