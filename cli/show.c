#include "cli/show.h"

#include <inttypes.h>
#include <string.h>

#include "cli/text.h"
#include "common/units.h"

static const char *or_dash(const char *text)
{
	return text != NULL && text[0] != '\0' ? text : "-";
}

/* Why the figures may be old: once, above the table. */
static void stale_note(FILE *out, const Drover__Response *resp)
{
	if (resp->stale)
		fputs("(this coordinator is not in touch with the leader: what it shows may be old)\n", out);
}

static struct text_table *table_new(const char *const *headings, size_t n)
{
	return text_table_new(headings, n);
}

#define TABLE(...)                                                                                           \
	table_new((const char *const[]){__VA_ARGS__},                                                        \
		  sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

static void table_end(struct text_table *t, FILE *out)
{
	text_table_print(t, out);
	text_table_free(t);
}

/* Rows of a list shown one below the other: "Memory   2.0 GiB". */
static void field(FILE *out, const char *name, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void field(FILE *out, const char *name, const char *fmt, ...)
{
	va_list ap;

	fprintf(out, "%-14s", name);
	va_start(ap, fmt);
	vfprintf(out, fmt, ap);
	va_end(ap);
	fputc('\n', out);
}

static const char *joined(char *buf, size_t size, char *const *items, size_t n)
{
	size_t len = 0;

	buf[0] = '\0';
	for (size_t i = 0; i < n && len < size; i++)
		len += (size_t)snprintf(buf + len, size - len, "%s%s", i > 0 ? "," : "", items[i]);
	return or_dash(buf);
}

void show_cluster_status(FILE *out, const struct cli_parsed *p, const Drover__Response *resp)
{
	const Drover__ClusterStatus *c = resp->cluster;
	struct text_table *t;

	(void)p;
	stale_note(out, resp);
	if (c == NULL || c->cluster[0] == '\0') {
		fputs("This coordinator belongs to no cluster yet: run \"drover cluster init\" here, or "
		      "\"drover cluster join ADDRESS --token T\" with a token of a member.\n",
		      out);
		return;
	}
	field(out, "Cluster", "%s (%s)", c->cluster, c->mode);
	field(out, "Quorum", "%s", c->quorate ? "yes" : "NO: nothing can be changed");
	field(out, "Leader", "%s, term %" PRIu64 ", index %" PRIu64, or_dash(c->leader), c->term, c->index);
	field(out, "Nodes", "%u up, %u paused, %u down", c->nodes_up, c->nodes_paused, c->nodes_down);
	field(out, "VMs", "%u running, %u stopped, %u moving", c->vms_running, c->vms_stopped, c->vms_moving);
	field(out, "Drains", "%u active", c->drains_active);
	fputc('\n', out);
	t = TABLE("COORDINATOR", "STATE", ">INDEX", "DIGEST", "ERROR");
	for (size_t i = 0; i < c->n_coordinators; i++) {
		const Drover__CoordinatorRow *row = c->coordinators[i];
		char digest[17] = "";

		for (size_t b = 0; b < row->digest.len && b < 8; b++)
			snprintf(digest + 2 * b, 3, "%02x", row->digest.data[b]);
		text_table_cell(t, "%s", row->name);
		text_table_cell(t, "%s", row->state);
		text_table_cell(t, "%" PRIu64, row->index);
		text_table_cell(t, "%s", or_dash(digest));
		text_table_cell(t, "%s", row->error);
	}
	table_end(t, out);
}

void show_token(FILE *out, const struct cli_parsed *p, const Drover__Response *resp)
{
	(void)p;
	fprintf(out, "%s\n", resp->token);
}

void show_findings(FILE *out, const struct cli_parsed *p, const Drover__Response *resp)
{
	(void)p;
	stale_note(out, resp);
	if (resp->n_findings == 0)
		fputs("nothing to mend was found\n", out);
	for (size_t i = 0; i < resp->n_findings; i++) {
		const Drover__Finding *f = resp->findings[i];

		fprintf(out, "%s: %s: %s\n", f->severity, f->object, f->measured);
		if (f->why[0] != '\0')
			fprintf(out, "    why:  %s\n", f->why);
		if (f->mend[0] != '\0')
			fprintf(out, "    mend: %s\n", f->mend);
	}
}

void show_node_list(FILE *out, const struct cli_parsed *p, const Drover__Response *resp)
{
	struct text_table *t = TABLE("NODE", "STATE", "AGENT", ">VMS", ">MEMORY", ">FREE", ">OUT", ">IN");
	char text[UNITS_TEXT];

	(void)p;
	stale_note(out, resp);
	for (size_t i = 0; i < resp->n_nodes; i++) {
		const Drover__NodeRow *n = resp->nodes[i];

		text_table_cell(t, "%s", n->name);
		text_table_cell(t, "%s", n->state);
		text_table_cell(t, "%s", n->agent);
		text_table_cell(t, "%u", n->vms);
		text_table_cell(t, "%s", units_size_format(text, n->memory_total));
		text_table_cell(t, "%s", units_size_format(text, n->memory_free));
		text_table_cell(t, "%u", n->moves_out);
		text_table_cell(t, "%u", n->moves_in);
	}
	table_end(t, out);
}

static void show_addresses(FILE *out, const Drover__HostFacts *f)
{
	struct text_table *t = TABLE("INTERFACE", "ADDRESS", ">SPEED", ">MTU", "STATE", "USE");
	char text[UNITS_TEXT];

	fputc('\n', out);
	for (size_t i = 0; i < f->n_addresses; i++) {
		const Drover__HostAddress *a = f->addresses[i];

		text_table_cell(t, "%s", a->interface);
		text_table_cell(t, "%s/%u", a->address, a->prefix);
		text_table_cell(t, "%s", a->speed != 0 ? units_rate_format(text, a->speed) : "-");
		text_table_cell(t, "%u", a->mtu);
		text_table_cell(t, "%s", a->up ? "up" : "down");
		text_table_cell(t, "%s%s%s", a->rdma ? "rdma " : "", a->default_gateway ? "gateway " : "",
				a->corosync ? "corosync" : "");
	}
	table_end(t, out);
}

void show_node(FILE *out, const struct cli_parsed *p, const Drover__Response *resp)
{
	const Drover__NodeRow *n = resp->n_nodes > 0 ? resp->nodes[0] : NULL;
	char total[UNITS_TEXT], unused[UNITS_TEXT];

	(void)p;
	stale_note(out, resp);
	if (n == NULL)
		return;
	field(out, "Node", "%s", n->name);
	field(out, "State", "%s%s", n->state, n->fencing ? ", being fenced" : "");
	field(out, "Agent", "%s", n->agent);
	field(out, "VMs", "%u", n->vms);
	field(out, "Moves", "%u out, %u in", n->moves_out, n->moves_in);
	field(out, "Memory", "%s, %s free", units_size_format(total, n->memory_total),
	      units_size_format(unused, n->memory_free));
	if (n->lease_ms != 0)
		field(out, "Lease", "%s left", units_duration_format(total, n->lease_ms));
	if (n->facts == NULL)
		return;
	field(out, "CPUs", "%u × %s", n->facts->cpus, or_dash(n->facts->cpu_model));
	field(out, "QEMU", "%s, %s", or_dash(n->facts->qemu_version), n->facts->kvm ? "KVM" : "no KVM");
	if (n->facts->watchdog_timeout_ms != 0)
		field(out, "Watchdog", "%s", units_duration_format(total, n->facts->watchdog_timeout_ms));
	else
		field(out, "Watchdog", "not armed");
	field(out, "Fence agent", "%s", n->fence[0] != '\0' ? n->fence : "none");
	show_addresses(out, n->facts);
}

static const char *priority_text(char buf[UNITS_TEXT], uint32_t priority)
{
	switch (priority) {
	case 0:
		return "none";
	case 1000:
		return "low";
	case 2000:
		return "medium";
	case 3000:
		return "high";
	}
	snprintf(buf, UNITS_TEXT, "%u", priority);
	return buf;
}

void show_vm_list(FILE *out, const struct cli_parsed *p, const Drover__Response *resp)
{
	struct text_table *t = TABLE("VM", "STATE", "NODE", ">CPUS", ">MEMORY", "PRIORITY", "HA", "MOVE");
	char text[UNITS_TEXT];

	(void)p;
	stale_note(out, resp);
	for (size_t i = 0; i < resp->n_vms; i++) {
		const Drover__VmRow *v = resp->vms[i];

		text_table_cell(t, "%s", v->name);
		text_table_cell(t, "%s", v->state);
		text_table_cell(t, "%s", or_dash(v->node));
		text_table_cell(t, "%u", v->cpus);
		text_table_cell(t, "%s", units_size_format(text, v->memory));
		text_table_cell(t, "%s", priority_text(text, v->priority));
		text_table_cell(t, "%s", v->ha ? "on" : "off");
		if (v->move != 0)
			text_table_cell(t, "%" PRIu64, v->move);
		else
			text_table_cell(t, "-");
	}
	table_end(t, out);
}

/* A word of a command line as a shell would take it back. */
static void show_quoted(FILE *out, const char *word)
{
	static const char plain[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./,:=+@%";

	if (word[0] != '\0' && strspn(word, plain) == strlen(word)) {
		fputs(word, out);
		return;
	}
	fputc('\'', out);
	for (; *word != '\0'; word++) {
		if (*word == '\'')
			fputs("'\\''", out);
		else
			fputc(*word, out);
	}
	fputc('\'', out);
}

static void show_command(FILE *out, const Drover__VmRow *v)
{
	if (v->launch == NULL || v->launch->n_argv == 0) {
		fprintf(out, "%s has not been started yet: its command line is made at the first start\n",
			v->name);
		return;
	}
	for (size_t i = 0; i < v->launch->n_argv; i++) {
		if (i > 0)
			fputs(v->launch->argv[i][0] == '-' ? " \\\n  " : " ", out);
		show_quoted(out, v->launch->argv[i]);
	}
	fputc('\n', out);
}

static void show_devices(FILE *out, const Drover__VmSpec *s)
{
	for (size_t i = 0; i < s->n_disks; i++) {
		const Drover__VmDisk *d = s->disks[i];

		field(out, d->cdrom ? "CD-ROM" : "Disk", "%s (%s, %s%s%s)", d->path, or_dash(d->format),
		      or_dash(d->bus), d->cache[0] != '\0' ? ", cache " : "", d->cache);
	}
	for (size_t i = 0; i < s->n_nics; i++) {
		const Drover__VmNic *n = s->nics[i];

		field(out, "Network card", "%s on bridge %s, %s", or_dash(n->mac), n->bridge,
		      or_dash(n->model));
	}
	for (size_t i = 0; i < s->n_hostdevs; i++)
		field(out, "Host device", "%s (the VM cannot be moved)", s->hostdevs[i]);
}

static void show_policy(FILE *out, const Drover__VmSpec *s)
{
	char text[512];
	char ms[UNITS_TEXT];

	field(out, "HA", "%s, %s when isolated", s->ha == DROVER__HA_MODE__HA_ON ? "on" : "off",
	      s->on_isolation == DROVER__ON_ISOLATION__ISOLATION_STOP ? "stop" : "run on");
	if (s->blackout_ms != 0)
		field(out, "Blackout", "at most %s", units_duration_format(ms, s->blackout_ms));
	if (s->no_move)
		field(out, "Moves", "never (--no-move)");
	if (s->n_possible_owners > 0)
		field(out, "May run on", "%s",
		      joined(text, sizeof(text), s->possible_owners, s->n_possible_owners));
	if (s->n_preferred_owners > 0)
		field(out, "Prefers", "%s",
		      joined(text, sizeof(text), s->preferred_owners, s->n_preferred_owners));
	if (s->n_anti_affinity > 0)
		field(out, "Apart from", "%s",
		      joined(text, sizeof(text), s->anti_affinity, s->n_anti_affinity));
}

void show_vm(FILE *out, const struct cli_parsed *p, const Drover__Response *resp)
{
	const Drover__VmRow *v = resp->n_vms > 0 ? resp->vms[0] : NULL;
	char text[UNITS_TEXT];

	if (v != NULL && cli_flag(p, "command")) {
		show_command(out, v);
		return;
	}
	stale_note(out, resp);
	if (v == NULL)
		return;
	field(out, "VM", "%s", v->name);
	field(out, "State", "%s%s%s", v->state, v->error[0] != '\0' ? ": " : "", v->error);
	field(out, "Node", "%s (generation %" PRIu64 ")", or_dash(v->node), v->generation);
	if (v->move != 0)
		field(out, "Move", "%" PRIu64, v->move);
	field(out, "Memory", "%s", units_size_format(text, v->memory));
	field(out, "CPUs", "%u", v->cpus);
	field(out, "Priority", "%s", priority_text(text, v->priority));
	if (v->launch != NULL)
		field(out, "Machine", "%s, %s, CPU %s", v->launch->machine, v->launch->accel,
		      or_dash(v->launch->cpu));
	if (v->spec != NULL) {
		show_policy(out, v->spec);
		show_devices(out, v->spec);
	}
}

void show_network_list(FILE *out, const struct cli_parsed *p, const Drover__Response *resp)
{
	struct text_table *t =
		TABLE("NETWORK", "SUBNET", ">RANK", "USE", "NODE", "ADDRESS", ">SPEED", ">MTU", "STATE");
	char text[UNITS_TEXT];

	(void)p;
	stale_note(out, resp);
	for (size_t i = 0; i < resp->n_networks; i++) {
		const Drover__NetworkRow *n = resp->networks[i];

		for (size_t k = 0; k == 0 || k < n->n_nodes; k++) {
			const Drover__NetworkNodeRow *a = k < n->n_nodes ? n->nodes[k] : NULL;

			text_table_cell(t, "%s", k == 0 ? n->name : "");
			text_table_cell(t, "%s", k == 0 ? n->subnet : "");
			if (k == 0)
				text_table_cell(t, "%u", n->rank);
			else
				text_table_cell(t, "%s", "");
			text_table_cell(t, "%s",
					k > 0	      ? ""
					: n->excluded ? "excluded"
					: n->rdma     ? "rdma"
						      : "yes");
			text_table_cell(t, "%s", a != NULL ? a->node : "-");
			text_table_cell(t, "%s", a != NULL ? a->address : "-");
			text_table_cell(t, "%s",
					a != NULL && a->speed != 0 ? units_rate_format(text, a->speed) : "-");
			text_table_cell(t, "%u", a != NULL ? a->mtu : 0);
			text_table_cell(t, "%s", a == NULL ? "-" : a->up ? "up" : "DOWN");
		}
	}
	table_end(t, out);
}

static void limit_row(struct text_table *t, const char *kind, const char *name, const Drover__Limits *l,
		      bool network)
{
	char text[UNITS_TEXT];

	text_table_cell(t, "%s%s%s", kind, name[0] != '\0' ? " " : "", name);
	if (network) {
		text_table_cell(t, "-");
		text_table_cell(t, "-");
	} else {
		text_table_cell(t, "%u", l->max_moves);
		text_table_cell(t, "%u", l->max_storage_moves);
	}
	text_table_cell(t, "%s", l->bandwidth != 0 ? units_rate_format(text, l->bandwidth) : "none");
	text_table_cell(t, "%s", or_dash(l->mode));
	text_table_cell(t, "%s", l->encrypt ? "on" : "off");
	text_table_cell(t, "%s", network ? "-" : or_dash(l->on_shutdown));
}

void show_limits(FILE *out, const struct cli_parsed *p, const Drover__Response *resp)
{
	const Drover__LimitTable *limits = resp->limits;
	struct text_table *t;
	char text[UNITS_TEXT];

	(void)p;
	stale_note(out, resp);
	if (limits == NULL || limits->defaults == NULL)
		return;
	t = TABLE("WHERE", ">MOVES", ">STORAGE MOVES", ">BANDWIDTH", "MODE", "ENCRYPT", "ON SHUTDOWN");
	limit_row(t, "every node", "", limits->defaults, false);
	for (size_t i = 0; i < limits->n_nodes; i++)
		limit_row(t, "node", limits->nodes[i]->node, limits->nodes[i], false);
	for (size_t i = 0; i < limits->n_networks; i++)
		limit_row(t, "network", limits->networks[i]->node, limits->networks[i], true);
	table_end(t, out);
	fputc('\n', out);
	if (limits->defaults->cluster_moves != 0)
		field(out, "Cluster", "%u moves at once", limits->defaults->cluster_moves);
	else
		field(out, "Cluster", "any number of moves");
	field(out, "Blackout", "at most %s", units_duration_format(text, limits->defaults->blackout_ms));
	field(out, "Attempts", "%u per VM in a drain", limits->defaults->drain_attempts);
}

void show_event(FILE *out, const Drover__EventRow *e)
{
	char text[UNITS_TEXT];

	fprintf(out, "%s  %-16s %s\n", units_time_format_s(text, e->time_utc_us), e->kind, e->text);
}

void show_event_list(FILE *out, const struct cli_parsed *p, const Drover__Response *resp)
{
	(void)p;
	stale_note(out, resp);
	for (size_t i = 0; i < resp->n_events; i++)
		show_event(out, resp->events[i]);
}

void show_history_list(FILE *out, const struct cli_parsed *p, const Drover__Response *resp)
{
	struct text_table *t = TABLE("TIME", "WHO", "WHAT", ">EXIT", "MESSAGE");
	char text[UNITS_TEXT];

	(void)p;
	stale_note(out, resp);
	for (size_t i = 0; i < resp->n_history; i++) {
		const Drover__HistoryRow *h = resp->history[i];

		text_table_cell(t, "%s", units_time_format_s(text, h->time_utc_us));
		text_table_cell(t, "%s", h->who);
		text_table_cell(t, "%s", h->what);
		text_table_cell(t, "%u", h->exit);
		text_table_cell(t, "%s", h->message);
	}
	table_end(t, out);
}
