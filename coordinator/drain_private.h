/* Shared by drain.c and drain_attempt.c. */
#ifndef DROVER_COORDINATOR_DRAIN_PRIVATE_H
#define DROVER_COORDINATOR_DRAIN_PRIVATE_H

#include "coordinator/drain.h"
#include "coordinator/rows.h"

#define PENDING_MAX 64
#define DRAIN_MEMO  (UINT64_C(1) << 63) /* marks the memo of a drain */

/* What this leader remembers about a move (or drain): times by its own clock, and what it has proposed. */
struct memo {
	uint64_t move;
	bool seen;
	char state[16];
	uint32_t attempt;
	uint64_t since_us; /* in that state, as far as this leader knows */
	bool proposed;
	Drover__Command__BodyCase proposed_case;
	uint32_t proposed_extra;
	uint64_t proposed_us;
	uint64_t hold_until_us; /* for what was refused, not for anything else */
	Drover__Command__BodyCase held_case;
	uint32_t held_extra;
	char token_network[ROWS_NAME]; /* of a grant under way; else "" */
	bool pending;		       /* an assignment under way: its room is taken */
	char from[ROWS_NAME];
	char to[ROWS_NAME];
	uint64_t memory;
	uint64_t no_target_us; /* since when there is no target; 0: there is one */
	unsigned unready;      /* what its VM waits for in the queue (drain.c) */
	uint64_t unready_us;   /* since when */
	uint64_t src_lost_us;
	uint64_t dst_lost_us;
	uint64_t released_us; /* when this leader first saw the source's word; 0: not yet */
	uint64_t progress;    /* bytes seen */
	uint64_t progress_us;
};

struct drain_scheduler {
	struct env *env;
	struct memo *memos;
	size_t n_memos;
	size_t room;
	uint64_t trim_us; /* when the records are looked at next */
};

/* One call of drain_decide. */
struct pass {
	struct drain_scheduler *s;
	struct db *db;
	const struct volatile_view *view;
	command_emit_fn emit;
	void *data;
	uint64_t now;
};

/* Valid until the next call. */
struct memo *drain_memo(struct drain_scheduler *s, uint64_t move);
/* Emits unless the same is under way; extra tells commands of one kind apart. */
bool drain_emit(struct pass *p, struct memo *m, const Drover__Command *cmd, uint32_t extra);
void drain_fail_move(struct pass *p, struct memo *m, const struct move_row *move, uint32_t exit,
		     const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* A move that has an attempt. */
void drain_decide_attempt(struct pass *p, const struct move_row *move);

#endif
