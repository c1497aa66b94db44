#include "mutants.h"

#include <stdio.h>
#include <string.h>

#include "cluster.h"
#include "matrix.h"
#include "seeds.h"

#define SEEDS_MOST 2000

struct mutant {
	const char *rule;
	uint64_t first; /* seed */
	struct cluster_profile profile;
};

/*
 * To add one: DR_MUTANT(name) where the bug is, and its row here, with faults or a story that make it likely.
 * R1, R4, R5, R25, R26 and R29 are about moves: their mutants are in matrix.c. None here:
 *   R22, R23  quick moves and post-copy are not built yet
 *   R28       what an operator must know: drover-security.7
 *   R30       of its two halves the length of leases; on-isolation=stop is not built yet, so nothing can be
 *             the wrong default
 */
static const struct mutant mutants[] = {
	{"R2", 140, {.mutant = "word_without_lease", .faults = "leader-kill,leader-pause,cut-agent,late"}},
	{"R3",
	 1,
	 {.mutant = "abort_waits_for_dst",
	  .faults = "host-power,cut-host,agent-pause",
	  .least_us = 30 * SIM_S}},
	{"R6", 1, {.mutant = "ids_reused"}},
	{"R7", 1, {.mutant = "old_orders_obeyed", .faults = "again"}},
	{"R7",
	 1,
	 {.mutant = "start_without_lease",
	  .faults = "agent-pause,agent-pause,guest-off",
	  .least_us = 33 * SIM_S,
	  .vms = true}},
	{"R8", 40, {.mutant = "lease_too_long", .faults = "cut-agent,cut-host", .least_us = 40 * SIM_S}},
	{"R8", 1, {.mutant = "new_leader_forgets", .faults = "leader-kill"}},
	{"R9",
	 1,
	 {.mutant = "expired_lease_is_death", .faults = "cut-agent,cut-host", .least_us = 40 * SIM_S}},
	{"R10", 1, {.mutant = "leaving_is_death", .faults = "agent-leave"}},
	{"R11",
	 1,
	 {.mutant = "lease_while_fencing", .faults = "cut-agent,cut-host,agent-pause", .story = STORY_FENCE}},
	{"R12", 70, {.mutant = "word_forgotten", .faults = "qemu-kill,guest-off,late,late", .vms = true}},
	{"R13",
	 1,
	 {.mutant = "book_outlives_term", .faults = "leader-pause,cut-coords", .least_us = 20 * SIM_S}},
	{"R14", 1, {.mutant = "leads_at_once", .faults = "leader-kill"}},
	{"R14", 1, {.mutant = "older_term_counted", .faults = "leader-kill,cut-coords,disk-slow"}},
	{"R15", 1, {.mutant = "chain_unchecked", .faults = "disk-flip"}},
	{"R15", 700, {.mutant = "mark_unchecked", .faults = "disk-flip"}},
	{"R15", 1, {.mutant = "old_log_votes", .faults = "disk-old,relay-kill,late"}},
	{"R15",
	 1,
	 {.mutant = "vote_not_kept", .faults = "leader-kill,coord-kill,cut-coords,cut-one-way,bad-net"}},
	{"R15", 1, {.mutant = "ack_before_fsync", .faults = "coord-power,leader-power"}},
	{"R16", 1, {.mutant = "left_is_removed", .faults = "coord-kill,leader-kill"}},
	{"R15", 1, {.mutant = "learner_votes", .faults = "disk-wipe,replace,leader-kill,leader-power"}},
	{"R15", 1, {.mutant = "snapshot_unverified", .faults = "disk-flip"}},
	{"R17",
	 1,
	 {.mutant = "alone_unfenced",
	  .faults = "cut-coords",
	  .least_us = 25 * SIM_S,
	  .n_coords = 2,
	  .story = STORY_FENCE}},
	{"R18", 1, {.mutant = "no_audit", .story = STORY_RESTORE}},
	{"R18", 1, {.mutant = "old_incarnation_goes_on", .story = STORY_FORCE}},
	{"R20", 1, {.mutant = "raised_early", .story = STORY_UPGRADE}},
	{"R20", 1, {.mutant = "newer_applied", .story = STORY_UPGRADE}},
	{"R20", 1, {.mutant = "version_by_program", .faults = "host-power", .story = STORY_UPGRADE}},
	{"R30", 1, {.mutant = "short_leases"}},
	{"R19", 1, {.mutant = "apply_error_ignored", .faults = "state-db"}},
	{"R21",
	 1,
	 {.mutant = "assign_over_remains", .faults = "agent-pause,cut-agent,relay-kill,cut-relays"}},
	{"R24", 1, {.mutant = "no_announce"}},
	{"R27", 1, {.mutant = "utc_durations", .faults = "utc-jump,leader-kill"}},
	{"I3", 1, {.mutant = "answer_before_commit", .faults = "leader-kill,leader-power,cut-coords"}},
	{"I4", 1, {.mutant = "slot_freed_twice"}},
	{"I4", 1, {.mutant = "incoming_free"}},
	{"I4", 1, {.mutant = "two_tokens"}},
	{"I6", 1, {.mutant = "apply_reads_clock"}},
	{"R13", 1, {.mutant = "request_twice", .faults = "leader-kill,cut-coords,bad-net"}},
};

#define N_MUTANTS (sizeof(mutants) / sizeof(mutants[0]))

const struct cluster_profile *mutants_profile(const char *name)
{
	for (size_t i = 0; i < N_MUTANTS; i++)
		if (strcmp(mutants[i].profile.mutant, name) == 0)
			return &mutants[i].profile;
	return NULL;
}

static int run_one(const struct mutant *m, unsigned most, unsigned jobs)
{
	const char *why;
	uint64_t seed;

	if (!seeds_hunt(&m->profile, m->first, m->first + most - 1, jobs, &seed, &why)) {
		printf("mutant %s (%s) SURVIVES %u seeds\n", m->profile.mutant, m->rule, most);
		fflush(stdout);
		return 1;
	}
	printf("mutant %s (%s) caught by seed %llu: %s\n", m->profile.mutant, m->rule,
	       (unsigned long long)seed, why);
	fflush(stdout);
	return 0;
}

int mutants_run(const char *name, unsigned most, unsigned jobs)
{
	bool all = strcmp(name, "all") == 0;
	unsigned n = 0;
	int survived = 0;

	if (most == 0)
		most = SEEDS_MOST;

	for (size_t i = 0; i < N_MUTANTS; i++)
		if (all || strcmp(mutants[i].profile.mutant, name) == 0) {
			survived += run_one(&mutants[i], most, jobs);
			n++;
		}
	for (const char *const *m = matrix_mutants(); *m != NULL; m++)
		if (all || strcmp(*m, name) == 0) {
			survived += matrix_run_mutant(*m, jobs);
			fflush(stdout);
			n++;
		}
	if (n == 0)
		printf("no mutant '%s'\n", name);
	printf("%u passed, %u failed, 0 skipped\n", n - (unsigned)survived, (unsigned)survived);
	return n == 0 ? 1 : survived;
}

void mutants_list(void)
{
	for (size_t i = 0; i < N_MUTANTS; i++)
		printf("%s %s\n", mutants[i].profile.mutant, mutants[i].rule);
	for (const char *const *m = matrix_mutants(); *m != NULL; m++)
		printf("%s moves\n", *m);
}
