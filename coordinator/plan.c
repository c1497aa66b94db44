#include "coordinator/plan.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/error.h"
#include "common/mutant.h"
#include "coordinator/msg.h"

enum verdict { VERDICT_GOOD, VERDICT_NO_SLOT, VERDICT_AWAY, VERDICT_NO };

struct candidate {
	const struct plan_input *in;
	const struct node_row *node;
	const Drover__VmSpec *spec;
	const Drover__LaunchRecord *launch;
	char why[256];
	uint64_t score[4]; /* compared in order; more is better */
};

static enum verdict reject(struct candidate *c, enum verdict verdict, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static enum verdict reject(struct candidate *c, enum verdict verdict, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(c->why, sizeof(c->why), fmt, ap);
	va_end(ap);
	return verdict;
}

static bool listed(const char *name, char *const *names, size_t n, size_t *at)
{
	for (size_t i = 0; i < n; i++) {
		if (strcmp(names[i], name) == 0) {
			*at = i;
			return true;
		}
	}
	return false;
}

/* ---------------------------------------------------------------- checks, one kind each */

static enum verdict check_state(struct candidate *c)
{
	const struct node_row *n = c->node;
	struct drain_row drain;

	if (n->quarantined)
		return reject(c, VERDICT_NO, "it is in quarantine");
	if (n->paused || rows_drain_of(c->in->db, n->name, false, &drain))
		return reject(c, VERDICT_NO, "it is %s", rows_node_state(c->in->db, n));
	if (strcmp(n->health, "up") != 0)
		return reject(c, VERDICT_AWAY, "it is %s", n->health);
	if (n->fencing != 0)
		return reject(c, VERDICT_AWAY, "it is being fenced");
	if (!n->session || n->leaving)
		return reject(c, VERDICT_AWAY, "its agent is not connected");
	return VERDICT_GOOD;
}

static enum verdict check_policy(struct candidate *c)
{
	size_t at;

	if (c->spec->n_possible_owners > 0 &&
	    !listed(c->node->name, c->spec->possible_owners, c->spec->n_possible_owners, &at))
		return reject(c, VERDICT_NO, "it is not a possible owner");
	return VERDICT_GOOD;
}

static enum verdict check_machine(struct candidate *c)
{
	Drover__HostFacts *facts;
	enum verdict verdict = VERDICT_GOOD;
	size_t at;

	if (c->launch == NULL || c->in->offline)
		return VERDICT_GOOD;
	facts = rows_facts(c->in->db, c->node->name);
	if (facts == NULL)
		verdict = reject(c, VERDICT_AWAY, "nothing is known about it yet");
	else if (strcmp(c->launch->accel, "kvm") == 0 && !facts->kvm)
		verdict = reject(c, VERDICT_NO, "it has no KVM");
	else if (c->launch->machine[0] != '\0' && facts->n_machine_types > 0 &&
		 !listed(c->launch->machine, facts->machine_types, facts->n_machine_types, &at))
		verdict = reject(c, VERDICT_NO, "its QEMU %s has no machine type %s", facts->qemu_version,
				 c->launch->machine);
	drover__host_facts__free_unpacked(facts, NULL);
	return verdict;
}

static uint64_t pending_memory(const struct plan_input *in, const char *node)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < in->n_pending; i++) {
		if (strcmp(in->pending[i].to, node) == 0)
			sum += in->pending[i].memory;
	}
	return sum;
}

static unsigned pending_slots(const struct plan_input *in, const char *node)
{
	unsigned n = 0;

	for (unsigned i = 0; i < in->n_pending; i++) {
		if (strcmp(in->pending[i].to, node) == 0 || strcmp(in->pending[i].from, node) == 0)
			n++;
	}
	return n;
}

/* Memory by what is promised, and by what the kernel says is free: hosts run other things, too. */
static enum verdict check_memory(struct candidate *c)
{
	const struct plan_input *in = c->in;
	uint64_t promised = rows_memory_promised(in->db, c->node->name) + pending_memory(in, c->node->name);
	uint64_t incoming = db_get_u64(in->db,
				       "SELECT coalesce(sum(memory), 0) FROM move_attempt WHERE dst_gone = 0 "
				       "AND dst = ? AND decision <> 1",
				       "s", c->node->name);
	uint64_t total = c->node->memory_total;
	uint64_t need = in->vm->memory;
	uint64_t left = promised < total ? total - promised : 0;
	Drover__HostFacts *facts;
	uint64_t kernel;

	c->score[3] = left;
	if (in->offline)
		return VERDICT_GOOD;
	if (left < need)
		return reject(c, VERDICT_NO, "it has %llu MiB left and %llu MiB are needed",
			      (unsigned long long)(left >> 20), (unsigned long long)(need >> 20));
	facts = rows_facts(in->db, c->node->name);
	kernel = facts != NULL ? facts->memory_free : 0;
	drover__host_facts__free_unpacked(facts, NULL);
	incoming += pending_memory(in, c->node->name);
	if (kernel != 0 && (kernel < need || kernel - need < incoming))
		return reject(c, VERDICT_NO, "its kernel has %llu MiB free and %llu MiB are needed",
			      (unsigned long long)(kernel >> 20),
			      (unsigned long long)((need + incoming) >> 20));
	return VERDICT_GOOD;
}

/* What earlier attempts of this move found out about the node. */
static enum verdict check_history(struct candidate *c)
{
	const struct plan_input *in = c->in;
	struct db_rows rows;
	char error[ROWS_ERROR] = "";
	uint64_t failed = 0;

	if (in->offline)
		return VERDICT_GOOD;
	if (!DR_MUTANT(assign_over_remains) &&
	    db_exists(in->db,
		      "SELECT 1 FROM move_attempt WHERE vm = ? AND (src_gone = 0 AND src IN (?, ?)"
		      " OR dst_gone = 0 AND dst IN (?, ?))",
		      "sssss", in->vm->name, in->vm->owner, c->node->name, in->vm->owner, c->node->name))
		return reject(c, VERDICT_AWAY, "an earlier attempt is not cleaned up there yet");
	db_query(in->db, &rows,
		 "SELECT error_exit, iif(dst_error = '', src_error, dst_error) FROM move_attempt"
		 " WHERE move = ? AND dst = ? AND (src_error <> '' OR dst_error <> '') ORDER BY attempt",
		 "us", in->move, c->node->name);
	while (db_next(&rows)) {
		failed++;
		if (db_u64(&rows, 0) == DR_EREFUSED)
			db_copy_text(&rows, 1, error, sizeof(error));
	}
	c->score[1] = UINT64_MAX - failed;
	if (error[0] != '\0')
		return reject(c, VERDICT_NO, "it refused: %.200s", error);
	return VERDICT_GOOD;
}

static enum verdict check_paths(struct candidate *c)
{
	Drover__MoveOrder *paths;
	size_t n;

	if (c->in->offline)
		return VERDICT_GOOD;
	paths = plan_paths(c->in->db, c->in->vm->owner, c->node->name, c->in->network, NULL);
	n = paths->n_paths;
	drover__move_order__free_unpacked(paths, NULL);
	if (n == 0)
		return reject(c, VERDICT_AWAY, "%s%s",
			      c->in->network[0] != '\0'
				      ? "it is not reachable on network "
				      : "no network that is up and not excluded joins the two",
			      c->in->network);
	return VERDICT_GOOD;
}

static bool slot_free(const struct plan_input *in, const char *node)
{
	return rows_slots(in->db, node) + pending_slots(in, node) <
	       rows_limit(in->db, "node", node, "max_moves");
}

static enum verdict check_slots(struct candidate *c)
{
	const struct plan_input *in = c->in;
	uint64_t cluster = rows_limit(in->db, "cluster", "", "cluster_moves");

	if (in->offline || in->any_slot)
		return VERDICT_GOOD;
	if (!slot_free(in, in->vm->owner) || !slot_free(in, c->node->name) ||
	    (cluster != 0 && rows_slots_cluster(in->db) + in->n_pending >= cluster))
		return reject(c, VERDICT_NO_SLOT, "no free move slot");
	return VERDICT_GOOD;
}

/* VMs of a class that this one shares, on or on their way to the node: other nodes are better. */
static uint64_t affinity_conflicts(const struct candidate *c)
{
	struct db_rows rows;
	uint64_t n = 0;

	if (c->spec->n_anti_affinity == 0)
		return 0;
	db_query(c->in->db, &rows,
		 "SELECT name FROM vm WHERE name <> ? AND (owner = ? OR name IN"
		 " (SELECT vm FROM move_attempt WHERE dst_gone = 0 AND dst = ? AND decision <> 2)) ORDER BY "
		 "name",
		 "sss", c->in->vm->name, c->node->name, c->node->name);
	while (db_next(&rows)) {
		Drover__VmSpec *other = rows_spec(c->in->db, db_text(&rows, 0));
		size_t at;

		for (size_t i = 0; other != NULL && i < c->spec->n_anti_affinity; i++) {
			if (listed(c->spec->anti_affinity[i], other->anti_affinity, other->n_anti_affinity,
				   &at)) {
				n++;
				break;
			}
		}
		drover__vm_spec__free_unpacked(other, NULL);
	}
	return n;
}

static void score(struct candidate *c)
{
	size_t at;

	c->score[0] = UINT64_MAX - affinity_conflicts(c);
	c->score[2] = listed(c->node->name, c->spec->preferred_owners, c->spec->n_preferred_owners, &at)
			      ? UINT64_MAX - at
			      : 0;
}

static enum verdict judge(struct candidate *c)
{
	static enum verdict (*const checks[])(struct candidate *) = {
		check_policy,  check_state, check_machine, check_memory,
		check_history, check_paths, check_slots,
	};

	for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
		enum verdict verdict = checks[i](c);

		if (verdict != VERDICT_GOOD)
			return verdict;
	}
	score(c);
	return VERDICT_GOOD;
}

/* ---------------------------------------------------------------- choosing */

static void add_why(struct plan_choice *out, const char *node, const char *why)
{
	size_t used = strlen(out->why);

	if (used < sizeof(out->why) - 1)
		snprintf(out->why + used, sizeof(out->why) - used, "%s%s: %s", used > 0 ? ", " : "", node,
			 why);
}

static bool better(const struct candidate *a, const uint64_t best[4])
{
	for (int i = 0; i < 4; i++) {
		if (a->score[i] != best[i])
			return a->score[i] > best[i];
	}
	return false; /* the first by name stays */
}

/* False: no network, though one was found a moment ago: the state can't be read. */
static bool finish(const struct plan_input *in, struct plan_choice *out)
{
	uint64_t speed = 0;
	uint64_t budget;

	snprintf(out->mode, sizeof(out->mode), "%s", in->mode);
	if (in->mode[0] == '\0')
		rows_limit_text(in->db, "node", in->vm->owner, "mode", out->mode, sizeof(out->mode));
	if (in->offline)
		return true;
	out->paths = plan_paths(in->db, in->vm->owner, out->to, in->network, &speed);
	budget = rows_limit(in->db, "node", in->vm->owner, "bandwidth");
	if (budget != 0 && (speed == 0 || budget < speed))
		speed = budget;
	if (speed > 0)
		out->predicted_ms = (in->vm->memory / 1000 + 1) * 1000 / (speed / 1000 + 1);
	return out->paths->n_paths > 0;
}

int plan_choose(const struct plan_input *in, struct plan_choice *out)
{
	Drover__VmSpec *spec = rows_spec(in->db, in->vm->name);
	Drover__LaunchRecord *launch = rows_launch(in->db, in->vm->name);
	struct db_rows rows;
	uint64_t best[4] = {0};
	bool no_slot = false;
	bool away = false;

	memset(out, 0, sizeof(*out));
	db_query(in->db, &rows,
		 "SELECT " NODE_COLUMNS " FROM node WHERE name <> ? AND (? = '' OR name = ?) ORDER BY name",
		 "sss", in->vm->owner, in->want_to, in->want_to);
	while (spec != NULL && db_next(&rows)) {
		struct node_row node;
		struct candidate c = {.in = in, .node = &node, .spec = spec, .launch = launch};

		rows_node_get(&rows, &node);
		switch (judge(&c)) {
		case VERDICT_GOOD:
			if (out->to[0] == '\0' || better(&c, best)) {
				snprintf(out->to, sizeof(out->to), "%s", node.name);
				memcpy(best, c.score, sizeof(best));
			}
			break;
		case VERDICT_NO_SLOT:
			no_slot = true;
			break;
		case VERDICT_AWAY:
			away = true;
			add_why(out, node.name, c.why);
			break;
		case VERDICT_NO:
			add_why(out, node.name, c.why);
			break;
		}
	}
	db_done(&rows);
	drover__vm_spec__free_unpacked(spec, NULL);
	drover__launch_record__free_unpacked(launch, NULL);
	out->waits = away;
	if (out->to[0] != '\0') {
		if (finish(in, out))
			return 0;
		plan_choice_fini(out);
		out->to[0] = '\0';
	}
	if (no_slot)
		return -DR_EAGAIN;
	if (out->why[0] == '\0')
		snprintf(out->why, sizeof(out->why), "there is no other node");
	return -DR_EREFUSED;
}

void plan_choice_fini(struct plan_choice *choice)
{
	drover__move_order__free_unpacked(choice->paths, NULL);
	choice->paths = NULL;
}

/* ---------------------------------------------------------------- what can't be moved */

static unsigned qemu_major(struct db *db, const struct vm_row *vm, const Drover__LaunchRecord *launch)
{
	Drover__HostFacts *facts;
	unsigned major;

	if (launch->qemu_major != 0)
		return launch->qemu_major;
	facts = rows_facts(db, vm->owner);
	major = facts != NULL ? (unsigned)strtoul(facts->qemu_version, NULL, 10) : 0;
	drover__host_facts__free_unpacked(facts, NULL);
	return major;
}

bool plan_unmovable(struct db *db, const struct vm_row *vm, char *why, size_t size)
{
	Drover__VmSpec *spec = rows_spec(db, vm->name);
	Drover__LaunchRecord *launch = rows_launch(db, vm->name);
	bool stuck = true;

	if (spec == NULL)
		snprintf(why, size, "its definition can't be read");
	else if (spec->no_move)
		snprintf(why, size, "it is marked as not to be moved (--no-move)");
	else if (spec->n_hostdevs > 0)
		snprintf(why, size, "it uses a device of the host (--hostdev)");
	else if (launch != NULL && strcmp(launch->accel, "tcg") == 0 && qemu_major(db, vm, launch) < 9 &&
		 !spec->allow_tcg_live)
		snprintf(why, size,
			 "live moves of emulated (TCG) guests corrupt their memory on QEMU before 9.0:"
			 " stop it, or allow it with drover vm set %s --allow-tcg-live",
			 vm->name);
	else
		stuck = false;
	drover__vm_spec__free_unpacked(spec, NULL);
	drover__launch_record__free_unpacked(launch, NULL);
	return stuck;
}

/* ---------------------------------------------------------------- paths */

static bool encrypted(struct db *db, const char *from, const char *network)
{
	if (rows_limit_own(db, "network", network, "encrypt"))
		return rows_limit(db, "network", network, "encrypt") != 0;
	return rows_limit(db, "node", from, "encrypt") != 0;
}

Drover__MoveOrder *plan_paths(struct db *db, const char *from, const char *to, const char *network,
			      uint64_t *speed)
{
	Drover__MoveOrder *order = MSG_NEW(drover__move_order, Drover__MoveOrder);
	struct db_rows rows;

	db_query(db, &rows,
		 "SELECT n.name, n.rank, s.address, d.address, min(s.mtu, d.mtu), min(s.speed, d.speed)"
		 " FROM network n JOIN node_address s ON s.subnet = n.subnet JOIN node_address d ON d.subnet "
		 "= n.subnet"
		 " WHERE s.node = ? AND d.node = ? AND s.up = 1 AND d.up = 1"
		 " AND (n.name = ? OR (? = '' AND n.excluded = 0))"
		 " AND s.address = (SELECT min(x.address) FROM node_address x WHERE x.node = s.node AND "
		 "x.subnet = n.subnet"
		 "   AND x.up = 1)"
		 " AND d.address = (SELECT min(y.address) FROM node_address y WHERE y.node = d.node AND "
		 "y.subnet = n.subnet"
		 "   AND y.up = 1)"
		 " ORDER BY n.rank, min(s.speed, d.speed) DESC, n.name LIMIT 16",
		 "ssss", from, to, network, network);
	while (db_next(&rows)) {
		Drover__NetworkPath *path = MSG_NEW(drover__network_path, Drover__NetworkPath);

		msg_set(&path->network, db_text(&rows, 0));
		path->rank = (uint32_t)db_u64(&rows, 1);
		msg_set(&path->src_address, db_text(&rows, 2));
		msg_set(&path->dst_address, db_text(&rows, 3));
		path->mtu = (uint32_t)db_u64(&rows, 4);
		if (speed != NULL && order->n_paths == 0)
			*speed = db_u64(&rows, 5);
		path->encrypt = encrypted(db, from, path->network);
		msg_push(&order->paths, &order->n_paths, path);
	}
	return order;
}

/* ---------------------------------------------------------------- first placement */

bool plan_place(struct db *db, const Drover__VmSpec *spec, bool start, char node_name[ROWS_NAME], char *why,
		size_t size)
{
	struct db_rows rows;
	struct plan_choice reasons = {0};
	uint64_t best = 0;
	size_t best_pref = SIZE_MAX;

	node_name[0] = '\0';
	db_query(db, &rows, "SELECT " NODE_COLUMNS " FROM node ORDER BY name", "");
	while (db_next(&rows)) {
		struct node_row node;
		uint64_t promised;
		uint64_t left;
		size_t at = SIZE_MAX;

		rows_node_get(&rows, &node);
		promised = rows_memory_promised(db, node.name);
		left = promised < node.memory_total ? node.memory_total - promised : 0;
		if (spec->n_possible_owners > 0 &&
		    !listed(node.name, spec->possible_owners, spec->n_possible_owners, &at)) {
			add_why(&reasons, node.name, "it is not a possible owner");
			continue;
		}
		if (start && (!rows_node_works(&node) || node.paused)) {
			add_why(&reasons, node.name,
				node.session ? rows_node_state(db, &node) : "its agent is lost");
			continue;
		}
		if (start && left < spec->memory) {
			add_why(&reasons, node.name, "it has not enough free memory");
			continue;
		}
		at = SIZE_MAX;
		listed(node.name, spec->preferred_owners, spec->n_preferred_owners, &at);
		if (node_name[0] == '\0' || at < best_pref || (at == best_pref && left > best)) {
			snprintf(node_name, ROWS_NAME, "%s", node.name);
			best = left;
			best_pref = at;
		}
	}
	snprintf(why, size, "%s", reasons.why[0] != '\0' ? reasons.why : "there is no node");
	return node_name[0] != '\0';
}
