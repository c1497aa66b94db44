#include "cli/wait.h"

#include <inttypes.h>
#include <string.h>
#include <sys/ioctl.h>

#include "cli/call.h"
#include "cli/json.h"
#include "cli/show.h"
#include "cli/text.h"
#include "common/units.h"

#define POLL_MS	       300
#define LINE_MS	       850   /* with polls every 300 ms: a line a second, nearly */
#define UNKNOWN_MS     10000 /* a coordinator that lags may not know a new object for a moment */
#define BAR_WIDTH      24
#define VIEW_MOVES_MAX 64

enum wait_what { WAIT_NOTHING, WAIT_DRAIN, WAIT_MOVE, WAIT_VM };
enum wait_end { WAIT_GOES_ON, WAIT_WELL, WAIT_BADLY };

struct wait {
	struct cli *cli;
	const struct cli_parsed *p;
	enum wait_what what;
	uint64_t id;
	char vm[NAMES_MAX + 1];
	uint64_t generation; /* a VM's: older reports do not count */
	bool vm_stops;	     /* the goal is stopped, not running */
	bool cancel;	     /* the goal is cancelled */
	uint64_t started_ms;
	uint64_t line_ms; /* when the last line was printed */
	unsigned lines;	  /* of the live view, to be drawn over */
};

static bool is(const char *text, const char *word)
{
	return strcmp(text, word) == 0;
}

static uint64_t now_ms(const struct wait *w)
{
	return w->cli->transport->ops->now_ms(w->cli->transport);
}

static bool choose(struct wait *w, const struct cli_parsed *p, const Drover__Response *resp)
{
	bool known = true;

	w->cancel = is(p->verb->name, "cancel");
	if (resp->n_drains > 0) {
		w->what = WAIT_DRAIN;
		w->id = resp->drains[0]->id;
	} else if (is(p->noun->name, "drain") && p->ids[0] != 0) {
		w->what = WAIT_DRAIN;
		w->id = p->ids[0];
	} else if (resp->n_moves == 1) {
		w->what = WAIT_MOVE;
		w->id = resp->moves[0]->id;
	} else if (is(p->noun->name, "move") && p->ids[0] != 0) {
		w->what = WAIT_MOVE;
		w->id = p->ids[0];
	} else if (is(p->noun->name, "vm") && (is(p->verb->name, "start") || is(p->verb->name, "stop"))) {
		w->what = WAIT_VM;
		w->vm_stops = is(p->verb->name, "stop");
		snprintf(w->vm, sizeof(w->vm), "%.63s", cli_arg(p, 0));
		w->generation = resp->n_vms == 1 ? resp->vms[0]->generation : 0;
	} else {
		known = false;
	}
	return known;
}

static int poll(struct wait *w, uint64_t deadline_ms, Drover__Response **resp, struct dr_error *err)
{
	Drover__Request req = DROVER__REQUEST__INIT;
	Drover__ListRequest list = DROVER__LIST_REQUEST__INIT;

	req.verb_case = DROVER__REQUEST__VERB_LIST;
	req.list = &list;
	list.id = w->id;
	switch (w->what) {
	case WAIT_NOTHING:
		return -DR_EBUG;
	case WAIT_DRAIN:
		list.what = DROVER__LIST_REQUEST__WHAT__DRAINS;
		break;
	case WAIT_MOVE:
		list.what = DROVER__LIST_REQUEST__WHAT__MOVES;
		break;
	case WAIT_VM:
		list.what = DROVER__LIST_REQUEST__WHAT__VMS;
		list.name = w->vm;
		break;
	}
	return call_request(w->cli, &req, false, deadline_ms, resp, err);
}

static enum wait_end end_of(const struct wait *w, const Drover__Response *resp)
{
	const char *state;

	switch (w->what) {
	case WAIT_NOTHING:
		return WAIT_WELL;
	case WAIT_DRAIN:
		if (resp->n_drains == 0)
			return WAIT_GOES_ON;
		state = resp->drains[0]->state;
		if (is(state, "done"))
			return w->cancel ? WAIT_BADLY : WAIT_WELL;
		if (is(state, "cancelled"))
			return w->cancel ? WAIT_WELL : WAIT_BADLY;
		return is(state, "failed") ? WAIT_BADLY : WAIT_GOES_ON;
	case WAIT_MOVE:
		if (resp->n_moves == 0)
			return WAIT_GOES_ON;
		state = resp->moves[0]->state;
		if (is(state, "done"))
			return w->cancel ? WAIT_BADLY : WAIT_WELL;
		if (is(state, "cancelled"))
			return w->cancel ? WAIT_WELL : WAIT_BADLY;
		return is(state, "failed") ? WAIT_BADLY : WAIT_GOES_ON;
	case WAIT_VM:
		if (resp->n_vms == 0 || resp->vms[0]->generation < w->generation)
			return WAIT_GOES_ON;
		state = resp->vms[0]->state;
		if (is(state, "failed"))
			return WAIT_BADLY;
		if (w->vm_stops)
			return is(state, "stopped") ? WAIT_WELL : WAIT_GOES_ON;
		if (is(state, "stopped"))
			return WAIT_BADLY;
		return is(state, "running") ? WAIT_WELL : WAIT_GOES_ON;
	}
	return WAIT_BADLY;
}

static bool move_active(const Drover__MoveRow *m)
{
	return !is(m->state, "queued") && !is(m->state, "done") && !is(m->state, "failed") &&
	       !is(m->state, "cancelled");
}

/* A move may hold the switch-over token while it still copies. */
static bool move_flows(const Drover__MoveRow *m)
{
	return is(m->state, "copying") || is(m->state, "switching");
}

/* "vm3 copying 45 % 98.3 MB/s pass 2" */
static void move_words(FILE *out, const Drover__MoveRow *m)
{
	char rate[UNITS_TEXT];

	fprintf(out, "%s %s", m->vm, m->state);
	if (move_flows(m))
		fprintf(out, " %.0f %% %s pass %u", 100 * show_move_part(m), units_rate_format(rate, m->rate),
			m->passes);
}

/* One line a second for logs and pipes. */
static void line_print(struct wait *w, const Drover__Response *resp)
{
	FILE *out = w->cli->out;
	char text[UNITS_TEXT];

	fprintf(out, "%8s  ", units_duration_format(text, now_ms(w) - w->started_ms));
	if (w->what == WAIT_DRAIN && resp->n_drains > 0) {
		const Drover__DrainRow *d = resp->drains[0];

		fprintf(out, "drain %" PRIu64 " of %s %s: %u of %u done, %u failed", d->id, d->node, d->state,
			d->moves_done, d->moves_total, d->moves_failed);
		for (size_t i = 0; i < resp->n_moves; i++) {
			if (!move_active(resp->moves[i]))
				continue;
			fputs("; ", out);
			move_words(out, resp->moves[i]);
		}
	} else if (w->what == WAIT_MOVE && resp->n_moves > 0) {
		fprintf(out, "move %" PRIu64 ": ", resp->moves[0]->id);
		move_words(out, resp->moves[0]);
	} else if (w->what == WAIT_VM && resp->n_vms > 0) {
		fprintf(out, "VM %s: %s%s%s", resp->vms[0]->name, resp->vms[0]->state,
			resp->vms[0]->error[0] != '\0' ? ": " : "", resp->vms[0]->error);
	}
	fputc('\n', out);
	fflush(out);
}

/* One move of the live view: state, bar, rate, pass, time to go. */
static void bar_print(FILE *out, const Drover__MoveRow *m, unsigned columns)
{
	char bar[TEXT_BAR_MAX], rate[UNITS_TEXT] = "", eta[UNITS_TEXT] = "", line[512];
	double part = show_move_part(m);
	int len;

	if (move_flows(m) && m->rate > 0) {
		units_rate_format(rate, m->rate);
		units_duration_format(eta, m->bytes_remaining * 1000 / m->rate / 1000 * 1000);
	}
	len = snprintf(line, sizeof(line), "  %-14s -> %-12s %-10s %s %3.0f %%  %10s  pass %-2u  %s%s %s",
		       m->vm, m->to[0] != '\0' ? m->to : "?", m->state, text_bar(bar, BAR_WIDTH, part),
		       100 * part, rate, m->passes, eta[0] != '\0' ? "ETA " : "", eta, m->error);
	if (len >= (int)sizeof(line))
		len = (int)sizeof(line) - 1;
	for (int i = 0; i < len; i++) {
		if ((unsigned char)line[i] < 0x20)
			line[i] = ' ';
	}
	/* A longer line would wrap and the view could not be drawn over. */
	if ((unsigned)len >= columns)
		line[columns - 1] = '\0';
	fprintf(out, "%s\033[K\n", line);
}

static void terminal_size(FILE *out, unsigned *rows, unsigned *columns)
{
	struct winsize size = {0};

	*rows = 24;
	*columns = 80;
	if (ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_row > 0 && size.ws_col > 0) {
		*rows = size.ws_row;
		*columns = size.ws_col;
	}
}

static unsigned head_print(struct wait *w, const Drover__Response *resp, unsigned columns)
{
	FILE *out = w->cli->out;
	char elapsed[UNITS_TEXT], eta[UNITS_TEXT];

	units_duration_format(elapsed, (now_ms(w) - w->started_ms) / 1000 * 1000);
	if (w->what == WAIT_DRAIN && resp->n_drains > 0) {
		const Drover__DrainRow *d = resp->drains[0];

		fprintf(out, "drain %" PRIu64 " of %s: %s, %u of %u done, %u failed, %s%s%s\033[K\n", d->id,
			d->node, d->state, d->moves_done, d->moves_total, d->moves_failed, elapsed,
			d->eta_ms != 0 ? ", ETA " : "",
			d->eta_ms != 0 ? units_duration_format(eta, d->eta_ms) : "");
		return 1;
	}
	if (w->what == WAIT_VM && resp->n_vms > 0) {
		fprintf(out, "VM %s: %s, %s%s%.*s\033[K\n", resp->vms[0]->name, resp->vms[0]->state, elapsed,
			resp->vms[0]->error[0] != '\0' ? ": " : "", (int)columns / 2, resp->vms[0]->error);
		return 1;
	}
	return 0;
}

/* Draws over what it drew before. Active moves come first when the terminal is too small for all. */
static void view_print(struct wait *w, const Drover__Response *resp)
{
	FILE *out = w->cli->out;
	unsigned rows, columns, lines;

	terminal_size(out, &rows, &columns);
	if (w->lines > 0)
		fprintf(out, "\033[%uA", w->lines);
	lines = head_print(w, resp, columns);
	for (int pass = 0; pass < 2; pass++) {
		for (size_t i = 0; i < resp->n_moves && lines + 2 < rows && lines < VIEW_MOVES_MAX; i++) {
			if (move_active(resp->moves[i]) == (pass == 1))
				continue;
			bar_print(out, resp->moves[i], columns);
			lines++;
		}
	}
	fputs("\033[J", out);
	w->lines = lines;
	fflush(out);
}

static void progress(struct wait *w, const Drover__Response *resp, bool last)
{
	if (w->cli->json)
		return;
	if (w->cli->out_tty) {
		view_print(w, resp);
	} else if (last || w->line_ms == 0 || now_ms(w) - w->line_ms >= LINE_MS) {
		line_print(w, resp);
		w->line_ms = now_ms(w);
	}
}

/* Why it did not end well, with the exit status that stands for it. */
static void failure(const struct wait *w, const Drover__Response *resp, struct dr_error *err)
{
	if (w->what == WAIT_DRAIN) {
		const Drover__DrainRow *d = resp->drains[0];

		dr_error_set(err, DR_EFAILED, "drain %" PRIu64 " of %s ended %s: %s", d->id, d->node,
			     d->state, d->error[0] != '\0' ? d->error : "see its moves");
	} else if (w->what == WAIT_MOVE) {
		const Drover__MoveRow *m = resp->moves[0];

		dr_error_set(err, m->exit == DR_EREFUSED ? DR_EREFUSED : DR_EFAILED,
			     "move %" PRIu64 " of %s ended %s%s%s", m->id, m->vm, m->state,
			     m->error[0] != '\0' ? ": " : "", m->error);
	} else {
		const Drover__VmRow *v = resp->vms[0];

		dr_error_set(err, DR_EFAILED, "VM %s is %s%s%s", v->name, v->state,
			     v->error[0] != '\0' ? ": " : "", v->error);
	}
}

/* "vm3: reason" of each move of a drain that failed. */
static char **failed_moves(const struct wait *w, const Drover__Response *resp, size_t *n)
{
	struct arena *arena = &w->cli->arena;
	char **texts = NULL;

	*n = 0;
	for (size_t i = 0; i < resp->n_moves && w->what == WAIT_DRAIN; i++) {
		const Drover__MoveRow *m = resp->moves[i];

		if (!is(m->state, "failed"))
			continue;
		texts = arena_grow(arena, texts, *n, arena_printf(arena, "%s: %s", m->vm, m->error));
		(*n)++;
	}
	return texts;
}

static void result_show(struct wait *w, const Drover__Response *resp)
{
	FILE *out = w->cli->out;

	if (resp->n_moves == 0)
		return;
	if (w->cli->out_tty && w->lines > 0)
		fprintf(out, "\033[%uA\033[J", w->lines);
	if (w->what == WAIT_DRAIN)
		show_drain(out, w->p, resp);
	else
		show_move(out, w->p, resp);
}

/* The result as text or JSON; a failure with its reasons. */
static int finish(struct wait *w, const Drover__Response *resp, enum wait_end end)
{
	struct dr_error err = DR_ERROR_INIT;
	struct cli *cli = w->cli;
	size_t n_failed = 0;
	char **failed = failed_moves(w, resp, &n_failed);
	json_t *object, *error;

	if (end != WAIT_WELL)
		failure(w, resp, &err);
	if (!cli->json) {
		result_show(w, resp);
		return end == WAIT_WELL ? DR_OK : cli_fail(cli, &err, failed, n_failed);
	}
	object = w->what == WAIT_DRAIN	? json_drain_show(w->p, resp)
		 : w->what == WAIT_MOVE ? json_move_show(w->p, resp)
					: json_vm_show(w->p, resp);
	if (end != WAIT_WELL) {
		error = json_error(dr_err_exit((int)err.code), err.text, failed, n_failed);
		json_object_update(object, error);
		json_decref(error);
	}
	cli_print_json(cli, object);
	return dr_err_exit((int)err.code);
}

static int over(struct cli *cli)
{
	struct dr_error err = DR_ERROR_INIT;

	dr_error_set(&err, DR_ETIMEOUT, "--timeout passed; the work goes on");
	return cli_fail(cli, &err, NULL, 0);
}

int wait_run(struct cli *cli, const struct cli_parsed *p, const Drover__Response *resp, uint64_t deadline_ms)
{
	struct wait w = {.cli = cli, .p = p};

	if (!choose(&w, p, resp))
		return DR_OK;
	w.started_ms = now_ms(&w);
	for (;;) {
		struct dr_error err = DR_ERROR_INIT;
		Drover__Response *state = NULL;
		enum wait_end end = WAIT_GOES_ON;

		if (poll(&w, deadline_ms, &state, &err) < 0) {
			if (err.code == DR_ETIMEOUT)
				return over(cli);
			return cli_fail(cli, &err, NULL, 0);
		}
		if (state->exit == 0) {
			end = end_of(&w, state);
			progress(&w, state, end != WAIT_GOES_ON);
		} else if (state->exit != DR_ENOQUORUM &&
			   (state->exit != DR_ENOENT || now_ms(&w) - w.started_ms > UNKNOWN_MS)) {
			dr_error_set(&err, (enum dr_err)state->exit, "%s", state->message);
			drover__response__free_unpacked(state, NULL);
			return cli_fail(cli, &err, NULL, 0);
		}
		if (end != WAIT_GOES_ON) {
			int exit = finish(&w, state, end);

			drover__response__free_unpacked(state, NULL);
			return exit;
		}
		drover__response__free_unpacked(state, NULL);
		if (now_ms(&w) >= deadline_ms)
			return over(cli);
		cli->transport->ops->pause_ms(cli->transport, POLL_MS);
	}
}
