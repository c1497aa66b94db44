/* The table of the move matrix, and its mutants: see matrix.h. */
#include "matrix.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/mutant.h"
#include "sim.h"

#define PHASES	    (DROVER__MOVE_PHASE__PHASE_GONE + 1)
#define DELAYS	    6
#define SEEDS	    8
#define FIND_SEEDS  12
#define SHOW_FAILED 3 /* of a row */

static char active_mutant[64];
static bool quick; /* fewer delays */

bool dr_mutant(const char *name)
{
	return strcmp(name, active_mutant) == 0;
}

void matrix_set_mutant(const char *name)
{
	snprintf(active_mutant, sizeof(active_mutant), "%s", name);
}

static const char *const mutants[] = {
	"word_unread",		/* the source's word without reading postmigrate (R1) */
	"cont_on_completed",	/* the destination continues without a commit (R1) */
	"cont_undecided",	/* the restarted source continues in RELEASED, undecided (R4) */
	"commit_one_word",	/* MoveCommit with the destination's word alone (R1) */
	"slot_by_row",		/* slots freed by the abort, not by the hosts (R21) */
	"no_brake",		/* a hanging switch-over is left alone (R29) */
	"attempt_not_compared", /* orders of another attempt are obeyed (R5) */
	"kill_unchecked",	/* kill by pid alone (R25) */
	"nonce_unchecked",	/* any storage is good (R26) */
	NULL,
};

const char *const *matrix_mutants(void)
{
	return mutants;
}

/* ---------------------------------------------------------------- runs, in children of this process */

#define BATCH 4096

/* Shared with the children. */
struct shared {
	struct matrix_result results[BATCH];
	struct matrix_case cases[BATCH];
	/* Seeds whose move passes through a pair: what comes before the fault is the same with and without
	 * it. */
	uint64_t seeds[PHASES][PHASES][SEEDS];
	unsigned n_seeds[PHASES][PHASES];
	uint64_t seed; /* of the move that is looked at now */
};

static struct shared *shared;

static void note_pair(unsigned src, unsigned dst)
{
	unsigned *n = &shared->n_seeds[src][dst];

	if (*n < SEEDS && (*n == 0 || shared->seeds[src][dst][*n - 1] != shared->seed))
		shared->seeds[src][dst][(*n)++] = shared->seed;
}

/* Runs cases 0..n-1. */
static void run_all(unsigned n, unsigned jobs)
{
	unsigned running = 0;

	for (unsigned i = 0; i < n; i++) {
		pid_t pid;

		matrix_prepare(shared->cases[i].scene);
		while (running >= jobs && wait(NULL) > 0)
			running--;
		fflush(stdout);
		pid = fork();
		if (pid < 0)
			abort();
		if (pid == 0) {
			matrix_fork_case(&shared->cases[i], &shared->results[i]);
			sim_leave(0);
		}
		running++;
	}
	while (running > 0 && wait(NULL) > 0)
		running--;
}

static void setup(void)
{
	if (shared != NULL)
		return;
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		abort();
}

/* The pairs that a move passes through in a scene, found by running it without faults: the rows of the table.
 */
static bool find_pairs(enum matrix_scenario scene, unsigned seeds)
{
	memset(shared->n_seeds, 0, sizeof(shared->n_seeds));
	matrix_watch_pairs(note_pair);
	for (unsigned i = 0; i < seeds; i++) {
		shared->seed = 1000 + i;
		shared->cases[0] = (struct matrix_case){.scene = scene, .src = PHASES, .seed = shared->seed};
		matrix_fork_case(&shared->cases[0], &shared->results[0]);
		if (!shared->results[0].ok)
			break;
	}
	matrix_watch_pairs(NULL);
	shared->n_seeds[0][0] = 0;
	return shared->results[0].ok;
}

/* ---------------------------------------------------------------- cells */

static const char *short_name(unsigned phase)
{
	const char *name = move_phase_name((Drover__MovePhase)phase);
	const char *bar = strchr(name, '_');

	return bar != NULL ? bar + 1 : name;
}

static void print_case(const struct matrix_case *c, const struct matrix_result *r)
{
	printf("  FAILED %s: %s × %s × %s, delay %d: move %s: %s\n", matrix_scene_name(c->scene),
	       short_name(c->src), short_name(c->dst), matrix_fault_name(c->fault), c->delay, r->move_state,
	       r->why);
	printf("    again: run --case %s,%u,%u,%s,%d,%llu --trace\n", matrix_scene_name(c->scene), c->src,
	       c->dst, matrix_fault_name(c->fault), c->delay, (unsigned long long)c->seed);
}

/* All runs of a pair: every fault, every delay. Returns how many cases were written from `at` on. */
static unsigned fill_row(enum matrix_scenario scene, unsigned src, unsigned dst, unsigned seeds, unsigned at)
{
	unsigned n = 0;

	for (unsigned f = FAULT_SRC_AGENT; f < FAULT_N; f++)
		for (int delay = -1; delay < DELAYS; delay += quick && delay >= 0 ? 2 : 1)
			for (unsigned s = 0; s < seeds && at + n < BATCH; s++, n++)
				shared->cases[at + n] = (struct matrix_case){
					.scene = scene,
					.src = src,
					.dst = dst,
					.fault = (enum matrix_fault)f,
					.delay = delay,
					.seed = shared->seeds[src][dst][(n + s) % shared->n_seeds[src][dst]]};
	return n;
}

struct totals {
	unsigned cells, empty, failed_cells, runs, failed_runs;
};

static void print_row(enum matrix_scenario scene, unsigned src, unsigned dst, unsigned n, struct totals *t)
{
	unsigned runs[FAULT_N] = {0};
	unsigned failed[FAULT_N] = {0};
	unsigned shown = 0;

	for (unsigned i = 0; i < n; i++) {
		unsigned f = shared->cases[i].fault;

		runs[f] += shared->results[i].reached || !shared->results[i].ok ? 1 : 0;
		failed[f] += shared->results[i].ok ? 0 : 1;
	}
	printf("%-13s %-11s %-11s", matrix_scene_name(scene), short_name(src), short_name(dst));
	for (unsigned f = FAULT_SRC_AGENT; f < FAULT_N; f++) {
		t->cells++;
		t->runs += runs[f];
		t->failed_runs += failed[f];
		t->failed_cells += failed[f] > 0 ? 1 : 0;
		t->empty += runs[f] == 0 ? 1 : 0;
		if (failed[f] > 0)
			printf(" %2u!", failed[f]);
		else
			printf(" %3u", runs[f]);
	}
	printf("\n");
	for (unsigned i = 0; i < n; i++)
		if (!shared->results[i].ok && shown++ < SHOW_FAILED)
			print_case(&shared->cases[i], &shared->results[i]);
}

static void run_scene(enum matrix_scenario scene, unsigned seeds, unsigned jobs, bool done[PHASES][PHASES],
		      struct totals *t)
{
	if (!find_pairs(scene, scene == SCENE_PLAIN || scene == SCENE_CANCEL ? 3 * FIND_SEEDS : FIND_SEEDS)) {
		printf("%s, without any fault:\n", matrix_scene_name(scene));
		print_case(&shared->cases[0], &shared->results[0]);
		t->cells++;
		t->failed_cells++;
		return;
	}
	for (unsigned src = 0; src < PHASES; src++)
		for (unsigned dst = 0; dst < PHASES; dst++) {
			unsigned n;

			if (shared->n_seeds[src][dst] == 0 || done[src][dst])
				continue;
			done[src][dst] = true;
			n = fill_row(scene, src, dst, seeds, 0);
			run_all(n, jobs);
			print_row(scene, src, dst, n, t);
		}
}

int matrix_run(unsigned seeds, unsigned jobs, bool be_quick)
{
	bool done[PHASES][PHASES] = {{false}};
	struct totals t = {0};
	unsigned bad;

	setup();
	quick = be_quick;
	printf("faults:");
	for (unsigned f = FAULT_SRC_AGENT; f < FAULT_N; f++)
		printf(" %s", matrix_fault_name((enum matrix_fault)f));
	printf("\nscene         source      destination  runs per fault\n");
	for (unsigned scene = 0; scene < SCENE_N; scene++)
		run_scene((enum matrix_scenario)scene, seeds, jobs, done, &t);
	printf("%u cells (%u never reached), %u runs, %u failed\n", t.cells, t.empty, t.runs, t.failed_runs);
	bad = t.failed_cells + t.empty;
	printf("%u passed, %u failed, 0 skipped\n", t.cells > bad ? t.cells - bad : 0, bad);
	return (int)bad;
}

/* ---------------------------------------------------------------- mutants */

/* The rows of a scene, in one batch per row, until something is found. */
static bool hunt(enum matrix_scenario scene, unsigned jobs, struct matrix_case *bad,
		 struct matrix_result *why)
{
	if (!find_pairs(scene, 8)) {
		*bad = shared->cases[0];
		*why = shared->results[0];
		return true;
	}
	/* From the word backwards, then what comes after it: most bugs show around the word. */
	for (unsigned k = 0; k < PHASES * PHASES; k++) {
		unsigned src = (DROVER__MOVE_PHASE__SRC_RELEASED + PHASES - k / PHASES) % PHASES;
		unsigned dst = PHASES - 1 - k % PHASES;
		unsigned n;

		if (shared->n_seeds[src][dst] == 0)
			continue;
		n = fill_row(scene, src, dst, 1, 0);
		run_all(n, jobs);
		for (unsigned i = 0; i < n; i++)
			if (!shared->results[i].ok) {
				*bad = shared->cases[i];
				*why = shared->results[i];
				return true;
			}
	}
	return false;
}

int matrix_run_mutant(const char *name, unsigned jobs)
{
	static const enum matrix_scenario scenes[] = {SCENE_OTHER_STORAGE, SCENE_PLAIN, SCENE_CANCEL,
						      SCENE_LARGE};
	struct matrix_case bad;
	struct matrix_result why;
	bool caught = false;

	setup();
	quick = true;
	/* What fails without the mutant as well says nothing about it. */
	for (unsigned i = 0; i < sizeof(scenes) / sizeof(scenes[0]); i++) {
		if (!find_pairs(scenes[i], 1)) {
			printf("mutant %s: %s fails without it: %s\n", name, matrix_scene_name(scenes[i]),
			       shared->results[0].why);
			return 1;
		}
	}
	matrix_set_mutant(name);
	for (unsigned i = 0; i < sizeof(scenes) / sizeof(scenes[0]) && !caught; i++)
		caught = hunt(scenes[i], jobs, &bad, &why);
	matrix_set_mutant("");
	if (!caught) {
		printf("mutant %s SURVIVED\n", name);
		return 1;
	}
	printf("mutant %s caught by %s: %s × %s × %s, delay %d, seed %llu: %s\n", name,
	       matrix_scene_name(bad.scene), short_name(bad.src), short_name(bad.dst),
	       matrix_fault_name(bad.fault), bad.delay, (unsigned long long)bad.seed, why.why);
	return 0;
}
