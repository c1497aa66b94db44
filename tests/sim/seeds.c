/* tests/sim/run --seeds: see seeds.h and cluster.h. */
#include "seeds.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cluster.h"
#include "matrix.h"
#include "mutants.h"

#define HOSTS	    3
#define VMS	    4
#define SEED_CPU_S  60 /* a run that takes longer does not end */
#define SHOW_FAILED 20
#define FULL_SEEDS  10000 /* from here on an empty cell of the table is a failure */
#define WORKERS	    64
#define SIZES	    6

extern bool sim_log_on;

struct totals {
	uint64_t runs, failed, steps, virtual_us, commits, moves, drains, commands, elections, snapshots,
		faults;
	uint64_t phase_faults[F_N][PHASES];
};

/* Shared with the children. */
struct shared {
	uint64_t next; /* seed */
	uint64_t last;
	struct cluster_result results[WORKERS];
	struct totals totals[WORKERS];
	struct {
		uint64_t seed;
		char why[512];
	} failed[WORKERS][SHOW_FAILED];
	/* Hunting a mutant. */
	uint64_t caught; /* seed + 1; 0 = not yet */
	char why[512];
};

static struct shared *shared;
static struct cluster *templates[SIZES][VERSION_NEW + 1]; /* of this worker */

static unsigned version_of(uint64_t seed, const struct cluster_profile *profile)
{
	return cluster_story(seed, profile) == STORY_UPGRADE ? VERSION_OLD : VERSION_NEW;
}

static void setup(void)
{
	if (shared == NULL)
		shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
			      0);
	if (shared == MAP_FAILED)
		abort();
	memset(shared, 0, sizeof(*shared));
}

static void say(uint64_t seed, const struct cluster_result *r)
{
	printf("seed %llu %s: %u events, %.1f s, %u faults, %u drains, %u moves, %u commits, %u "
	       "elections%s%s\n",
	       (unsigned long long)seed, r->ok ? "ok" : "FAILED", r->steps, (double)r->virtual_us / 1e6,
	       r->faults, r->drains, r->moves, r->commits, r->elections, r->ok ? "" : ": ",
	       r->ok ? "" : r->why);
}

int seeds_one(uint64_t seed, const char *mutant, bool trace)
{
	static struct cluster_result r;
	const struct cluster_profile *profile = mutant != NULL ? mutants_profile(mutant) : NULL;
	struct cluster *cl = cluster_new(cluster_size(seed, profile), HOSTS, VMS, version_of(seed, profile));

	cl->sim->opt.trace = trace;
	sim_log_on = trace;
	if (mutant != NULL)
		matrix_set_mutant(mutant);
	cluster_run(cl, seed, profile, &r);
	say(seed, &r);
	fflush(stdout);
	sim_leave(r.ok ? 0 : 1);
}

/* ---------------------------------------------------------------- workers */

/* A child of its own: the template stays as it is, and whatever breaks breaks only that run. */
static void run_forked(uint64_t seed, const struct cluster_profile *profile, struct cluster_result *out)
{
	unsigned size = cluster_size(seed, profile);
	unsigned version = version_of(seed, profile);
	struct cluster **template = &templates[size][version];
	int status = 0;
	pid_t pid;

	if (*template == NULL)
		*template = cluster_new(size, HOSTS, VMS, version);
	memset(out, 0, sizeof(*out));
	pid = fork();
	if (pid == 0) {
		alarm(SEED_CPU_S);
		if (profile != NULL && profile->mutant != NULL)
			matrix_set_mutant(profile->mutant);
		cluster_run(*template, seed, profile, out);
		sim_leave(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) {
		out->ok = false;
		snprintf(out->why, sizeof(out->why), "the run ended with signal %d, status %d",
			 WIFSIGNALED(status) ? WTERMSIG(status) : 0,
			 WIFEXITED(status) ? WEXITSTATUS(status) : 0);
	}
}

static void add(struct totals *t, const struct cluster_result *r)
{
	t->runs++;
	t->failed += r->ok ? 0 : 1;
	t->steps += r->steps;
	t->virtual_us += r->virtual_us;
	t->commits += r->commits;
	t->moves += r->moves;
	t->drains += r->drains;
	t->commands += r->commands;
	t->elections += r->elections;
	t->snapshots += r->snapshots;
	t->faults += r->faults;
	for (unsigned i = 0; i < F_N; i++)
		for (unsigned k = 0; k < PHASES; k++)
			t->phase_faults[i][k] += r->phase_faults[i][k];
}

static void worker(unsigned id)
{
	struct totals *t = &shared->totals[id];

	for (;;) {
		uint64_t seed = __atomic_fetch_add(&shared->next, 1, __ATOMIC_SEQ_CST);
		struct cluster_result *r = &shared->results[id];

		if (seed > shared->last)
			return;
		run_forked(seed, NULL, r);
		if (!r->ok && t->failed < SHOW_FAILED) {
			shared->failed[id][t->failed].seed = seed;
			memcpy(shared->failed[id][t->failed].why, r->why, sizeof(r->why));
			printf("seed %llu FAILED: %s\n  again: run --seed %llu --trace\n",
			       (unsigned long long)seed, r->why, (unsigned long long)seed);
			fflush(stdout);
		}
		add(t, r);
	}
}

/* ---------------------------------------------------------------- the table */

static const char *short_name(unsigned phase)
{
	const char *name = move_phase_name((Drover__MovePhase)phase);
	const char *bar = strchr(name, '_');

	return bar != NULL ? bar + 1 : name;
}

static unsigned print_table(const struct totals *t)
{
	static const unsigned phases[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 20, 21, 22, 23, 24, 25, 26, 27};
	unsigned empty = 0;

	printf("faults by phase      none");
	for (unsigned k = 0; k < sizeof(phases) / sizeof(phases[0]); k++)
		printf(" %c-%.5s", phases[k] < 20 ? 's' : 'd', short_name(phases[k]));
	printf("\n");
	for (unsigned i = 0; i < F_N; i++) {
		printf("%-18s %6llu", fault_name((enum fault_kind)i),
		       (unsigned long long)t->phase_faults[i][0]);
		for (unsigned k = 0; k < sizeof(phases) / sizeof(phases[0]); k++) {
			printf(" %7llu", (unsigned long long)t->phase_faults[i][phases[k]]);
			empty += t->phase_faults[i][phases[k]] == 0 ? 1 : 0;
		}
		printf("\n");
	}
	return empty;
}

int seeds_run(uint64_t first, uint64_t last, unsigned jobs)
{
	struct totals t = {0};
	unsigned empty;
	struct timespec a, b;

	setup();
	if (jobs > WORKERS)
		jobs = WORKERS;
	shared->next = first;
	shared->last = last;
	clock_gettime(CLOCK_MONOTONIC, &a);
	for (unsigned i = 0; i < jobs; i++) {
		fflush(stdout);
		if (fork() == 0) {
			worker(i);
			fflush(stdout);
			sim_leave(0);
		}
	}
	while (wait(NULL) > 0)
		continue;
	clock_gettime(CLOCK_MONOTONIC, &b);
	for (unsigned i = 0; i < jobs; i++) {
		const struct totals *w = &shared->totals[i];

		for (size_t k = 0; k < sizeof(t) / sizeof(uint64_t); k++)
			((uint64_t *)&t)[k] += ((const uint64_t *)w)[k];
	}
	empty = print_table(&t);
	printf("%llu seeds in %.1f s: %llu events, %.0f s of their time, %llu faults, %llu drains, %llu "
	       "moves, %llu "
	       "commits, %llu elections, %llu snapshots, %llu commands\n",
	       (unsigned long long)t.runs,
	       (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9,
	       (unsigned long long)t.steps, (double)t.virtual_us / 1e6, (unsigned long long)t.faults,
	       (unsigned long long)t.drains, (unsigned long long)t.moves, (unsigned long long)t.commits,
	       (unsigned long long)t.elections, (unsigned long long)t.snapshots,
	       (unsigned long long)t.commands);
	if (t.runs < FULL_SEEDS)
		empty = 0;
	if (empty > 0)
		printf("%u cells of the table are empty\n", empty);
	printf("%llu passed, %llu failed, 0 skipped\n", (unsigned long long)(t.runs - t.failed),
	       (unsigned long long)t.failed + empty);
	return (int)t.failed + (int)empty;
}

/* ---------------------------------------------------------------- mutants */

static void hunter(unsigned id, const struct cluster_profile *profile)
{
	struct cluster_profile sound = *profile;
	struct cluster_result *r = &shared->results[id];

	sound.mutant = NULL;
	while (__atomic_load_n(&shared->caught, __ATOMIC_SEQ_CST) == 0) {
		uint64_t seed = __atomic_fetch_add(&shared->next, 1, __ATOMIC_SEQ_CST);
		uint64_t none = 0;
		char why[sizeof(r->why)];

		if (seed > shared->last)
			return;
		run_forked(seed, profile, r);
		if (r->ok)
			continue;
		/* What fails without the mutant as well says nothing about it. */
		memcpy(why, r->why, sizeof(why));
		run_forked(seed, &sound, r);
		if (r->ok && __atomic_compare_exchange_n(&shared->caught, &none, seed + 1, false,
							 __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
			memcpy(shared->why, why, sizeof(why));
	}
}

bool seeds_hunt(const struct cluster_profile *profile, uint64_t first, uint64_t last, unsigned jobs,
		uint64_t *seed, const char **why)
{
	setup();
	shared->next = first;
	shared->last = last;
	for (unsigned i = 0; i < jobs && i < WORKERS; i++) {
		fflush(stdout);
		if (fork() == 0) {
			hunter(i, profile);
			sim_leave(0);
		}
	}
	while (wait(NULL) > 0)
		continue;
	*seed = shared->caught - 1;
	*why = shared->why;
	return shared->caught != 0;
}
