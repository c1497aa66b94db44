/* tests/sim/run: see sim.h and matrix.h for the method, --help for the words. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "matrix.h"
#include "mutants.h"
#include "seeds.h"

static void usage(FILE *out)
{
	fputs("usage: run --seeds A..B [--jobs N]     whole clusters under faults, a seed each\n"
	      "       run --seed N [--mutant NAME] [--trace]   one of them\n"
	      "       run --matrix [--quick] [--seeds N] [--jobs N]   every pair of phases × every fault\n"
	      "       run --mutant NAME|all          a bug on purpose: seeds or the matrix must catch it\n"
	      "       run --mutants                  their names\n"
	      "       run --case SCENE,SRC,DST,FAULT,DELAY,SEED [--trace]   one run (as a failure prints "
	      "it)\n",
	      out);
}

static int one_case(char *words, bool trace)
{
	struct matrix_case c = {0};
	struct matrix_result r;
	char scene[32];
	char fault[32];
	unsigned long long seed;
	bool found = false;

	if (sscanf(words, "%31[^,],%u,%u,%31[^,],%d,%llu", scene, &c.src, &c.dst, fault, &c.delay, &seed) !=
	    6) {
		usage(stderr);
		return 2;
	}
	c.seed = seed;
	for (unsigned i = 0; i < SCENE_N; i++)
		if (strcmp(scene, matrix_scene_name((enum matrix_scenario)i)) == 0)
			c.scene = (enum matrix_scenario)i;
	for (unsigned i = 0; i < FAULT_N; i++)
		if (strcmp(fault, matrix_fault_name((enum matrix_fault)i)) == 0) {
			c.fault = (enum matrix_fault)i;
			found = true;
		}
	if (!found) {
		fprintf(stderr, "no fault '%s'\n", fault);
		return 2;
	}
	matrix_run_case(&c, trace, &r);
	printf("%s, fault %s, move %s, longest blackout %llu ms, %llu steps%s%s\n", r.ok ? "ok" : "FAILED",
	       r.reached ? "happened" : "never happened", r.move_state,
	       (unsigned long long)(r.darkest_us / 1000), (unsigned long long)r.steps,
	       r.why[0] != '\0' ? ": " : "", r.why);
	return r.ok ? 0 : 1;
}

/* "A..B" or "N" */
static int seeds_of(const char *range, unsigned jobs)
{
	char *end;
	uint64_t first = strtoull(range, &end, 10);
	uint64_t last = strncmp(end, "..", 2) == 0 ? strtoull(end + 2, NULL, 10) : first;

	return seeds_run(first, last, jobs) == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
	const char *mutant = NULL;
	char *words = NULL;
	const char *seed = NULL;
	const char *range = NULL;
	bool matrix = false;
	bool trace = false;
	bool quick = false;
	unsigned jobs = 2;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--matrix") == 0) {
			matrix = true;
		} else if (strcmp(argv[i], "--quick") == 0) {
			quick = true;
		} else if (strcmp(argv[i], "--trace") == 0) {
			trace = true;
		} else if (strcmp(argv[i], "--seeds") == 0 && i + 1 < argc) {
			range = argv[++i];
		} else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
			seed = argv[++i];
		} else if (strcmp(argv[i], "--jobs") == 0 && i + 1 < argc) {
			jobs = (unsigned)strtoul(argv[++i], NULL, 10);
		} else if (strcmp(argv[i], "--mutant") == 0 && i + 1 < argc) {
			mutant = argv[++i];
		} else if (strcmp(argv[i], "--case") == 0 && i + 1 < argc) {
			words = argv[++i];
		} else if (strcmp(argv[i], "--mutants") == 0) {
			mutants_list();
			return 0;
		} else {
			usage(strcmp(argv[i], "--help") == 0 ? stdout : stderr);
			return strcmp(argv[i], "--help") == 0 ? 0 : 2;
		}
	}
	if (seed != NULL)
		return seeds_one(strtoull(seed, NULL, 10), mutant, trace);
	if (words != NULL)
		return one_case(words, trace);
	if (mutant != NULL)
		return mutants_run(mutant, range != NULL ? (unsigned)strtoul(range, NULL, 10) : 0, jobs) == 0
			       ? 0
			       : 1;
	if (matrix)
		return matrix_run(range != NULL ? (unsigned)strtoul(range, NULL, 10) : 1, jobs, quick) == 0
			       ? 0
			       : 1;
	if (range != NULL)
		return seeds_of(range, jobs);
	usage(stderr);
	return 2;
}
