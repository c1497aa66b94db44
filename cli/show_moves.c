/* Drains, moves and plans as text. */
#include <inttypes.h>
#include <string.h>

#include "cli/show.h"
#include "cli/text.h"
#include "common/units.h"

static const char *or_dash(const char *text)
{
	return text != NULL && text[0] != '\0' ? text : "-";
}

double show_move_part(const Drover__MoveRow *m)
{
	if (strcmp(m->state, "done") == 0 || strcmp(m->state, "committed") == 0)
		return 1;
	if (m->bytes_total == 0 || m->bytes_remaining > m->bytes_total)
		return 0;
	/* QEMU has sent nothing yet: remaining and total are both 0 or the same. */
	if (m->bytes_remaining == 0 && m->bytes_guest == 0)
		return 0;
	return 1 - (double)m->bytes_remaining / (double)m->bytes_total;
}

static void networks_cell(struct text_table *t, const Drover__MoveRow *m)
{
	char text[256] = "";

	for (size_t i = 0; i < m->n_networks; i++) {
		size_t len = strlen(text);

		snprintf(text + len, sizeof(text) - len, "%s%s", len > 0 ? "," : "", m->networks[i]);
	}
	text_table_cell(t, "%s", or_dash(text));
}

static void blackout_cell(struct text_table *t, const Drover__MoveRow *m)
{
	char text[UNITS_TEXT];

	if (m->blackout_us != 0 && m->blackout_us < 100000)
		text_table_cell(t, "%.1f ms", (double)m->blackout_us / 1000);
	else if (m->blackout_ms != 0)
		text_table_cell(t, "%s", units_duration_format(text, m->blackout_ms));
	else
		text_table_cell(t, "-");
}

void show_moves(FILE *out, Drover__MoveRow *const *moves, size_t n)
{
	static const char *const headings[] = {">ID",	"VM",	     "FROM",	 "TO",
					       "STATE", "NETWORK",   ">PASSES",	 ">WIRE",
					       ">TIME", ">BLACKOUT", ">ATTEMPT", "ERROR"};
	struct text_table *t = text_table_new(headings, DR_ARRAY_SIZE(headings));
	char text[UNITS_TEXT];

	for (size_t i = 0; i < n; i++) {
		const Drover__MoveRow *m = moves[i];

		text_table_cell(t, "%" PRIu64, m->id);
		text_table_cell(t, "%s", m->vm);
		text_table_cell(t, "%s", or_dash(m->from));
		text_table_cell(t, "%s", or_dash(m->to));
		if (strcmp(m->state, "copying") == 0)
			text_table_cell(t, "copying %.0f %%", 100 * show_move_part(m));
		else
			text_table_cell(t, "%s", m->state);
		networks_cell(t, m);
		text_table_cell(t, "%u", m->passes);
		text_table_cell(t, "%s", units_bytes_format(text, m->bytes_wire));
		text_table_cell(t, "%s", units_duration_format(text, m->duration_ms));
		blackout_cell(t, m);
		text_table_cell(t, "%u", m->attempt);
		text_table_cell(t, "%s", m->error);
	}
	text_table_print(t, out);
	text_table_free(t);
}

void show_move_list(FILE *out, const struct cli_parsed *p, const Drover__Response *resp)
{
	(void)p;
	show_moves(out, resp->moves, resp->n_moves);
}

void show_move(FILE *out, const struct cli_parsed *p, const Drover__Response *resp)
{
	show_move_list(out, p, resp);
	if (resp->n_moves > 0 &&
	    (resp->moves[0]->src_phase[0] != '\0' || resp->moves[0]->dst_phase[0] != '\0'))
		fprintf(out, "phases: source %s, destination %s\n", or_dash(resp->moves[0]->src_phase),
			or_dash(resp->moves[0]->dst_phase));
}

void show_drain_list(FILE *out, const struct cli_parsed *p, const Drover__Response *resp)
{
	static const char *const headings[] = {">ID",	 "NODE",    "STATE", ">DONE", ">FAILED",
					       ">TOTAL", "STARTED", "ENDED", "ERROR"};
	struct text_table *t = text_table_new(headings, DR_ARRAY_SIZE(headings));
	char text[UNITS_TEXT];

	(void)p;
	for (size_t i = 0; i < resp->n_drains; i++) {
		const Drover__DrainRow *d = resp->drains[i];

		text_table_cell(t, "%" PRIu64, d->id);
		text_table_cell(t, "%s", d->node);
		text_table_cell(t, "%s", d->state);
		text_table_cell(t, "%u", d->moves_done);
		text_table_cell(t, "%u", d->moves_failed);
		text_table_cell(t, "%u", d->moves_total);
		text_table_cell(t, "%s",
				d->started_utc_us != 0 ? units_time_format_s(text, d->started_utc_us) : "-");
		text_table_cell(t, "%s",
				d->ended_utc_us != 0 ? units_time_format_s(text, d->ended_utc_us) : "-");
		text_table_cell(t, "%s", d->error);
	}
	text_table_print(t, out);
	text_table_free(t);
}

void show_drain(FILE *out, const struct cli_parsed *p, const Drover__Response *resp)
{
	show_drain_list(out, p, resp);
	if (resp->n_moves > 0) {
		fputc('\n', out);
		show_moves(out, resp->moves, resp->n_moves);
	}
}

static void plan_print(FILE *out, const Drover__PlanRow *plan)
{
	static const char *const headings[] = {"VM", "FROM", "TO", "KIND", "NETWORK", ">TIME"};
	struct text_table *t = text_table_new(headings, DR_ARRAY_SIZE(headings));
	char text[UNITS_TEXT];

	for (size_t i = 0; i < plan->n_moves; i++) {
		const Drover__MoveRow *m = plan->moves[i];

		text_table_cell(t, "%s", m->vm);
		text_table_cell(t, "%s", or_dash(m->from));
		text_table_cell(t, "%s", or_dash(m->to));
		text_table_cell(t, "%s", m->kind);
		networks_cell(t, m);
		text_table_cell(t, "%s",
				m->predicted_ms != 0 ? units_duration_format(text, m->predicted_ms) : "-");
	}
	if (plan->n_moves > 0)
		text_table_print(t, out);
	text_table_free(t);
	for (size_t i = 0; i < plan->n_unmovable; i++)
		fprintf(out, "cannot be moved: %s\n", plan->unmovable[i]);
}

void show_plan(FILE *out, const struct cli_parsed *p, const Drover__Response *resp)
{
	char text[UNITS_TEXT];

	(void)p;
	if (resp->message != NULL && resp->message[0] != '\0')
		fprintf(out, "%s\n", resp->message);
	if (resp->plan == NULL)
		return;
	plan_print(out, resp->plan);
	if (resp->plan->predicted_ms != 0)
		fprintf(out, "about %s\n", units_duration_format(text, resp->plan->predicted_ms));
}

/* What was made, in a line that says how to look at it. */
static void show_created(FILE *out, const Drover__Response *resp)
{
	if (resp->n_drains > 0)
		fprintf(out, "drain %" PRIu64 " of %s: %s, %u VMs (drover drain show %" PRIu64 ")\n",
			resp->drains[0]->id, resp->drains[0]->node, resp->drains[0]->state,
			resp->drains[0]->moves_total, resp->drains[0]->id);
	else if (resp->n_moves == 1)
		fprintf(out, "move %" PRIu64 " of %s: %s (drover move show %" PRIu64 ")\n",
			resp->moves[0]->id, resp->moves[0]->vm, resp->moves[0]->state, resp->moves[0]->id);
	else if (resp->n_vms == 1)
		fprintf(out, "VM %s: %s on %s\n", resp->vms[0]->name, resp->vms[0]->state,
			or_dash(resp->vms[0]->node));
}

void show_changed(FILE *out, const struct cli_parsed *p, const Drover__Response *resp)
{
	bool dry = cli_flag(p, "dry-run");

	if (resp->message != NULL && resp->message[0] != '\0')
		fprintf(out, "%s\n", resp->message);
	else if (dry)
		fputs("possible; nothing was changed\n", out);
	else if (!resp->changed)
		fputs("already so; nothing was changed\n", out);
	else if (resp->n_drains + resp->n_moves + resp->n_vms == 0)
		fputs("done\n", out);
	if (!dry && resp->changed)
		show_created(out, resp);
	if (resp->plan != NULL)
		plan_print(out, resp->plan);
	for (size_t i = 0; i < resp->n_objects; i++)
		fprintf(out, "  %s\n", resp->objects[i]);
}
