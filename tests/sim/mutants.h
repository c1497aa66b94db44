/* Bugs on purpose (common/mutant.h): those that whole clusters must catch; those of moves are in matrix.c. */
#ifndef DROVER_TESTS_MUTANTS_H
#define DROVER_TESTS_MUTANTS_H

struct cluster_profile;

/* What makes that mutant show soon; NULL: the matrix's, or unknown. */
const struct cluster_profile *mutants_profile(const char *name);
/* Runs one, or "all" of both kinds, each for at most so many seeds (0: as many as it may take); prints what
 * caught each. Number of survivors. */
int mutants_run(const char *name, unsigned most, unsigned jobs);
void mutants_list(void);

#endif
