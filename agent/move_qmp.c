/* The move machines' commands to QEMU and its answers. */
#include <stdlib.h>
#include <string.h>

#include "agent/amove.h"
#include "common/cleanup.h"

#define ANNOUNCE_ROUNDS 5

enum move_mig amove_mig_status(const char *status)
{
	static const struct {
		const char *word;
		enum move_mig mig;
	} words[] = {
		{"none", MOVE_MIG_NONE},
		{"setup", MOVE_MIG_SETUP},
		{"wait-unplug", MOVE_MIG_SETUP},
		{"active", MOVE_MIG_ACTIVE},
		{"pre-switchover", MOVE_MIG_PRE_SWITCHOVER},
		{"device", MOVE_MIG_DEVICE},
		{"completed", MOVE_MIG_COMPLETED},
		{"failed", MOVE_MIG_FAILED},
		{"cancelling", MOVE_MIG_CANCELLING},
		{"cancelled", MOVE_MIG_CANCELLED},
	};

	if (status == NULL)
		return MOVE_MIG_NONE;
	for (size_t i = 0; i < DR_ARRAY_SIZE(words); i++)
		if (strcmp(words[i].word, status) == 0)
			return words[i].mig;
	return MOVE_MIG_OTHER;
}

struct asked {
	struct asked *next;
	struct amove *am; /* NULL: the move was forgotten meanwhile */
	enum move_qmp cmd;
	uint64_t seq;
};

static uint64_t number(const json_t *o, const char *name)
{
	const json_t *v = json_object_get(o, name);

	if (json_is_real(v))
		return json_real_value(v) > 0 ? (uint64_t)json_real_value(v) : 0;
	return json_integer_value(v) > 0 ? (uint64_t)json_integer_value(v) : 0;
}

static void fill_figures(const json_t *v, struct move_figures *f)
{
	const json_t *ram = json_object_get(v, "ram");
	const json_t *mbps = json_object_get(ram, "mbps");
	uint64_t page = number(ram, "page-size");

	f->total = number(ram, "total");
	f->remaining = number(ram, "remaining");
	f->transferred = number(ram, "transferred");
	f->dirty_rate = number(ram, "dirty-pages-rate") * (page != 0 ? page : 4096);
	f->rate = json_is_number(mbps) && json_number_value(mbps) > 0
			  ? (uint64_t)(json_number_value(mbps) * 1e6 / 8)
			  : 0;
	f->passes = (uint32_t)number(ram, "dirty-sync-count");
	f->total_time_ms = number(v, "total-time");
}

static void unlink_asked(struct asked *q)
{
	struct asked **at = &q->am->asked;

	while (*at != q)
		at = &(*at)->next;
	*at = q->next;
}

static void on_reply(const struct qmp_reply *reply, void *data)
{
	struct asked *q = data;
	struct move_event ev = {.type = MOVE_EV_QMP,
				.qmp = q->cmd,
				.seq = q->seq,
				.ok = reply->code == 0,
				.text = reply->text};
	struct amove *am = q->am;

	if (am == NULL) {
		free(q);
		return;
	}
	unlink_asked(q);
	if (ev.ok && q->cmd == MOVE_QMP_QUERY_STATUS) {
		ev.text = json_string_value(json_object_get(reply->value, "status"));
		ev.run = vm_run_state(ev.text);
		if (am->vm != NULL)
			am->vm->run = ev.run;
	} else if (ev.ok && q->cmd == MOVE_QMP_QUERY_MIGRATE) {
		ev.mig = amove_mig_status(json_string_value(json_object_get(reply->value, "status")));
		fill_figures(reply->value, &ev.figures);
		ev.text = json_string_value(json_object_get(reply->value, "error-desc"));
	}
	free(q);
	move_event(am->m, &ev);
}

/* getfd was answered: the socket is QEMU's now, we keep the dup for the brake. */
static void on_getfd(const struct qmp_reply *reply, void *data)
{
	struct asked *q = data;
	struct amove *am = q->am;
	bool src = am != NULL && am->role == DROVER__MOVE_ROLE__MOVE_SRC;

	if (reply->code != 0 || am == NULL) {
		on_reply(reply, q);
		return;
	}
	am->brake_fd = DR_TAKE_FD(am->qemu_fd);
	if (qmp_exec(am->vm->qmp, src ? "migrate" : "migrate-incoming", json_pack("{s:s}", "uri", "fd:mig"),
		     AMOVE_QMP_US, on_reply, q) != 0) {
		struct qmp_reply lost = {.code = -DR_ECLOSED, .class = "", .text = "the monitor is closed"};

		on_reply(&lost, q);
	}
}

static json_t *capabilities(void)
{
	static const char *const names[] = {"events", "return-path", "pause-before-switchover",
					    "late-block-activate"};
	json_t *list = json_array();

	for (size_t i = 0; i < DR_ARRAY_SIZE(names); i++)
		json_array_append_new(list, json_pack("{s:s, s:b}", "capability", names[i], "state", 1));
	return json_pack("{s:o}", "capabilities", list);
}

static json_t *parameters(const struct amove *am, const struct move_qmp_args *args)
{
	if (am->role == DROVER__MOVE_ROLE__MOVE_DST || args == NULL)
		return json_pack("{s:i}", "announce-rounds", 0);
	return json_pack("{s:I, s:I}", "max-bandwidth", (json_int_t)args->max_bandwidth, "downtime-limit",
			 (json_int_t)args->downtime_limit_ms);
}

static int send_qmp(struct amove *am, enum move_qmp cmd, const struct move_qmp_args *args, struct asked *q)
{
	struct qmp *mon = am->vm != NULL ? am->vm->qmp : NULL;

	if (mon == NULL || !am->vm->up)
		return -DR_ECLOSED;
	switch (cmd) {
	case MOVE_QMP_CAPABILITIES:
		return qmp_exec(mon, "migrate-set-capabilities", capabilities(), AMOVE_QMP_US, on_reply, q);
	case MOVE_QMP_PARAMETERS:
		return qmp_exec(mon, "migrate-set-parameters", parameters(am, args), AMOVE_QMP_US, on_reply,
				q);
	case MOVE_QMP_MIGRATE:
		return am->qemu_fd < 0 ? -DR_ECLOSED : qmp_getfd(mon, "mig", am->qemu_fd, on_getfd, q);
	case MOVE_QMP_MIGRATE_CONTINUE:
		return qmp_exec(mon, "migrate-continue", json_pack("{s:s}", "state", "pre-switchover"),
				AMOVE_QMP_US, on_reply, q);
	case MOVE_QMP_MIGRATE_CANCEL:
		return qmp_exec(mon, "migrate_cancel", NULL, AMOVE_QMP_US, on_reply, q);
	case MOVE_QMP_MIGRATE_UNPAUSE:
		return qmp_exec(mon, "migrate-continue", json_pack("{s:s}", "state", "cancelling"),
				AMOVE_QMP_US, on_reply, q);
	case MOVE_QMP_CONT:
		return qmp_exec(mon, "cont", NULL, AMOVE_QMP_US, on_reply, q);
	case MOVE_QMP_QUIT:
		return qmp_exec(mon, "quit", NULL, AMOVE_QMP_US, on_reply, q);
	case MOVE_QMP_QUERY_STATUS:
		return qmp_exec(mon, "query-status", NULL, AMOVE_QMP_US, on_reply, q);
	case MOVE_QMP_QUERY_MIGRATE:
		return qmp_exec(mon, "query-migrate", NULL, AMOVE_QMP_US, on_reply, q);
	case MOVE_QMP_ANNOUNCE:
		return qmp_exec(mon, "announce-self",
				json_pack("{s:i, s:i, s:i, s:i}", "initial", 50, "max", 550, "rounds",
					  ANNOUNCE_ROUNDS, "step", 50),
				AMOVE_QMP_US, on_reply, q);
	case MOVE_QMP_N:
		break;
	}
	return -DR_EBUG;
}

uint64_t amove_qmp(struct move_env *me, enum move_qmp cmd, const struct move_qmp_args *args)
{
	struct amove *am = me->impl;
	struct asked *q = calloc(1, sizeof(*q));

	if (q == NULL)
		abort();
	*q = (struct asked){.next = am->asked, .am = am, .cmd = cmd, .seq = ++am->last_seq};
	am->asked = q;
	if (send_qmp(am, cmd, args, q) != 0) {
		struct move_event ev = {.type = MOVE_EV_QMP,
					.qmp = cmd,
					.seq = q->seq,
					.text = "the monitor is not connected"};

		unlink_asked(q);
		free(q);
		amove_post(am, &ev);
	}
	return am->last_seq;
}

void amove_forget_asked(struct amove *am)
{
	while (am->asked != NULL) {
		struct asked *q = am->asked;

		am->asked = q->next;
		q->am = NULL; /* its monitor answers or is closed some time */
	}
}
