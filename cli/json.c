#include "cli/json.h"

#include <inttypes.h>
#include <string.h>

#include "common/units.h"

/* Sets a key; a value that could not be made (no memory) leaves null. */
static void put(json_t *object, const char *key, json_t *take_value)
{
	json_object_set_new(object, key, take_value != NULL ? take_value : json_null());
}

static void put_number(json_t *object, const char *key, uint64_t number)
{
	put(object, key, json_integer((json_int_t)number));
}

/* null where 0 means "none" or "unknown" */
static void put_number_or_null(json_t *object, const char *key, uint64_t number)
{
	put(object, key, number != 0 ? json_integer((json_int_t)number) : json_null());
}

static void put_text(json_t *object, const char *key, const char *text)
{
	put(object, key, json_string(text != NULL ? text : ""));
}

static void put_text_or_null(json_t *object, const char *key, const char *text)
{
	put(object, key, text != NULL && text[0] != '\0' ? json_string(text) : json_null());
}

static void put_bool(json_t *object, const char *key, bool value)
{
	put(object, key, json_boolean(value));
}

static void put_time(json_t *object, const char *key, uint64_t utc_us)
{
	char text[UNITS_TEXT];

	put(object, key, utc_us != 0 ? json_string(units_time_format(text, utc_us)) : json_null());
}

static void put_hex(json_t *object, const char *key, ProtobufCBinaryData bytes)
{
	char text[2 * 64 + 1] = "";

	for (size_t i = 0; i < bytes.len && i < 64; i++)
		snprintf(text + 2 * i, 3, "%02x", bytes.data[i]);
	put_text_or_null(object, key, text);
}

static void put_uuid(json_t *object, const char *key, ProtobufCBinaryData uuid)
{
	const uint8_t *u = uuid.data;
	char text[37] = "";

	if (uuid.len == 16)
		snprintf(text, sizeof(text),
			 "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1],
			 u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14],
			 u[15]);
	put_text_or_null(object, key, text);
}

static json_t *texts(char *const *items, size_t n)
{
	json_t *array = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(array, json_string(items[i]));
	return array;
}

/* The rows of a list, each by fn. */
#define ROWS(array_, n_, fn_)                                                                                \
	({                                                                                                   \
		json_t *rows_ = json_array();                                                                \
		for (size_t i_ = 0; i_ < (n_); i_++)                                                         \
			json_array_append_new(rows_, fn_((array_)[i_]));                                     \
		rows_;                                                                                       \
	})

static json_t *read_answer(const Drover__Response *resp, const char *key, json_t *take_value)
{
	json_t *top = json_object();

	put(top, key, take_value);
	put_bool(top, "stale", resp->stale);
	put_number(top, "index", resp->index);
	return top;
}

static json_t *coordinator(const Drover__CoordinatorRow *c)
{
	json_t *o = json_object();
	char member[24];

	/* 64 random bits: more than a double, which many JSON readers use, holds. */
	snprintf(member, sizeof(member), "%" PRIu64, c->member);
	put_text(o, "name", c->name);
	put_text(o, "member", member);
	put_text(o, "state", c->state);
	put_number(o, "index", c->index);
	put_hex(o, "digest", c->digest);
	put_text_or_null(o, "error", c->error);
	return o;
}

json_t *json_cluster_status(const struct cli_parsed *p, const Drover__Response *resp)
{
	static const Drover__ClusterStatus nothing = DROVER__CLUSTER_STATUS__INIT;
	const Drover__ClusterStatus *c = resp->cluster != NULL ? resp->cluster : &nothing;
	json_t *top = json_object();

	(void)p;
	put_text_or_null(top, "cluster", c->cluster);
	put_uuid(top, "cluster_uuid", c->cluster_uuid);
	put_text(top, "mode", c->mode);
	put_bool(top, "quorate", c->quorate);
	put_text_or_null(top, "leader", c->leader);
	put_number(top, "term", c->term);
	put_number(top, "index", c->index);
	put(top, "coordinators", ROWS(c->coordinators, c->n_coordinators, coordinator));
	put(top, "nodes",
	    json_pack("{s:I,s:I,s:I}", "up", (json_int_t)c->nodes_up, "paused", (json_int_t)c->nodes_paused,
		      "down", (json_int_t)c->nodes_down));
	put(top, "vms",
	    json_pack("{s:I,s:I,s:I}", "running", (json_int_t)c->vms_running, "stopped",
		      (json_int_t)c->vms_stopped, "moving", (json_int_t)c->vms_moving));
	put(top, "drains", json_pack("{s:I}", "active", (json_int_t)c->drains_active));
	put_bool(top, "stale", resp->stale);
	return top;
}

json_t *json_token(const struct cli_parsed *p, const Drover__Response *resp)
{
	json_t *top = json_object();

	(void)p;
	put_text(top, "token", resp->token);
	put_bool(top, "changed", resp->changed);
	return top;
}

static json_t *finding(const Drover__Finding *f)
{
	json_t *o = json_object();

	put_text(o, "severity", f->severity);
	put_text(o, "object", f->object);
	put_text(o, "measured", f->measured);
	put_text(o, "why", f->why);
	put_text(o, "mend", f->mend);
	return o;
}

json_t *json_findings(const struct cli_parsed *p, const Drover__Response *resp)
{
	(void)p;
	return read_answer(resp, "findings", ROWS(resp->findings, resp->n_findings, finding));
}

static json_t *host_address(const Drover__HostAddress *a)
{
	json_t *o = json_object();

	put_text(o, "interface", a->interface);
	put_text(o, "address", a->address);
	put_number(o, "prefix", a->prefix);
	put_number_or_null(o, "speed", a->speed);
	put_number(o, "mtu", a->mtu);
	put_bool(o, "up", a->up);
	put_bool(o, "rdma", a->rdma);
	put_bool(o, "default_gateway", a->default_gateway);
	put_bool(o, "corosync", a->corosync);
	return o;
}

static json_t *node(const Drover__NodeRow *n)
{
	json_t *o = json_object();

	put_text(o, "name", n->name);
	put_text(o, "state", n->state);
	put_text(o, "agent", n->agent);
	put_number(o, "vms", n->vms);
	put_number(o, "memory_total", n->memory_total);
	put_number(o, "memory_free", n->memory_free);
	put_number(o, "moves_out", n->moves_out);
	put_number(o, "moves_in", n->moves_in);
	put_number(o, "lease_ms", n->lease_ms);
	put_number(o, "incarnation", n->incarnation);
	put_bool(o, "fencing", n->fencing);
	if (n->facts != NULL) {
		const Drover__HostFacts *f = n->facts;

		put_number(o, "cpus", f->cpus);
		put_text(o, "cpu_model", f->cpu_model);
		put_bool(o, "kvm", f->kvm);
		put_text(o, "qemu_version", f->qemu_version);
		put(o, "machine_types", texts(f->machine_types, f->n_machine_types));
		put(o, "addresses", ROWS(f->addresses, f->n_addresses, host_address));
		put_number(o, "relay_port", f->relay_port);
		put_number_or_null(o, "watchdog_timeout_ms", f->watchdog_timeout_ms);
		put_text(o, "version", f->version);
		put_text_or_null(o, "fence", n->fence);
	}
	return o;
}

json_t *json_node_list(const struct cli_parsed *p, const Drover__Response *resp)
{
	(void)p;
	return read_answer(resp, "nodes", ROWS(resp->nodes, resp->n_nodes, node));
}

json_t *json_node_show(const struct cli_parsed *p, const Drover__Response *resp)
{
	(void)p;
	return read_answer(resp, "node", resp->n_nodes > 0 ? node(resp->nodes[0]) : NULL);
}

static json_t *disk(const Drover__VmDisk *d)
{
	json_t *o = json_object();

	put_text(o, "path", d->path);
	put_text(o, "format", d->format);
	put_text(o, "bus", d->bus);
	put_text(o, "cache", d->cache);
	put_text_or_null(o, "discard", d->discard);
	put_text_or_null(o, "serial", d->serial);
	put_bool(o, "readonly", d->readonly);
	put_bool(o, "cdrom", d->cdrom);
	return o;
}

static json_t *nic(const Drover__VmNic *n)
{
	json_t *o = json_object();

	put_text(o, "bridge", n->bridge);
	put_text(o, "model", n->model);
	put_text(o, "mac", n->mac);
	put_number_or_null(o, "vlan", n->vlan);
	put_number_or_null(o, "mtu", n->mtu);
	return o;
}

static json_t *spec(const Drover__VmSpec *s)
{
	json_t *o = json_object();

	put_number(o, "memory", s->memory);
	put_number(o, "cpus", s->cpus);
	put_number_or_null(o, "sockets", s->sockets);
	put_number_or_null(o, "cores", s->cores);
	put_number_or_null(o, "threads", s->threads);
	put_text_or_null(o, "machine", s->machine);
	put_text(o, "cpu", s->cpu[0] != '\0' ? s->cpu : "baseline");
	put_text(o, "accel", s->accel);
	put_bool(o, "allow_tcg_live", s->allow_tcg_live);
	put_text(o, "firmware", s->firmware);
	put_text(o, "memory_backing", s->memory_backing);
	put_bool(o, "prealloc", s->prealloc);
	put(o, "disks", ROWS(s->disks, s->n_disks, disk));
	put(o, "nics", ROWS(s->nics, s->n_nics, nic));
	put_text_or_null(o, "kernel", s->kernel);
	put_text_or_null(o, "initrd", s->initrd);
	put_text_or_null(o, "append", s->append);
	put(o, "qemu_args", texts(s->qemu_args, s->n_qemu_args));
	put_bool(o, "vnc", s->vnc);
	put_bool(o, "agent", s->guest_agent);
	put_number(o, "priority", s->priority);
	put_bool(o, "ha", s->ha == DROVER__HA_MODE__HA_ON);
	put_bool(o, "autostart", s->autostart);
	put_text(o, "on_isolation", s->on_isolation == DROVER__ON_ISOLATION__ISOLATION_STOP ? "stop" : "run");
	put(o, "possible_owners", texts(s->possible_owners, s->n_possible_owners));
	put(o, "preferred_owners", texts(s->preferred_owners, s->n_preferred_owners));
	put(o, "anti_affinity", texts(s->anti_affinity, s->n_anti_affinity));
	put_number_or_null(o, "blackout_ms", s->blackout_ms);
	put_bool(o, "no_move", s->no_move);
	put(o, "hostdevs", texts(s->hostdevs, s->n_hostdevs));
	return o;
}

static json_t *launch(const Drover__LaunchRecord *l)
{
	json_t *o = json_object();

	put_text(o, "machine", l->machine);
	put_text(o, "cpu", l->cpu);
	put_text(o, "accel", l->accel);
	put(o, "argv", texts(l->argv, l->n_argv));
	put_number(o, "qemu_major", l->qemu_major);
	put_number(o, "qemu_minor", l->qemu_minor);
	return o;
}

static json_t *vm(const Drover__VmRow *v)
{
	json_t *o = json_object();

	put_text(o, "name", v->name);
	put_text(o, "state", v->state);
	put_text_or_null(o, "node", v->node);
	put_number(o, "generation", v->generation);
	put_number(o, "memory", v->memory);
	put_number(o, "cpus", v->cpus);
	put_number(o, "priority", v->priority);
	put_bool(o, "ha", v->ha);
	put_number_or_null(o, "move", v->move);
	put_uuid(o, "uuid", v->uuid);
	put_text_or_null(o, "error", v->error);
	if (v->spec != NULL)
		put(o, "spec", spec(v->spec));
	if (v->launch != NULL)
		put(o, "launch", launch(v->launch));
	return o;
}

json_t *json_vm_list(const struct cli_parsed *p, const Drover__Response *resp)
{
	(void)p;
	return read_answer(resp, "vms", ROWS(resp->vms, resp->n_vms, vm));
}

json_t *json_vm_show(const struct cli_parsed *p, const Drover__Response *resp)
{
	(void)p;
	return read_answer(resp, "vm", resp->n_vms > 0 ? vm(resp->vms[0]) : NULL);
}

static json_t *network_node(const Drover__NetworkNodeRow *n)
{
	json_t *o = json_object();

	put_text(o, "node", n->node);
	put_text(o, "address", n->address);
	put_number_or_null(o, "speed", n->speed);
	put_number(o, "mtu", n->mtu);
	put_bool(o, "up", n->up);
	return o;
}

static json_t *network(const Drover__NetworkRow *n)
{
	json_t *o = json_object();

	put_text(o, "name", n->name);
	put_text(o, "subnet", n->subnet);
	put_number(o, "rank", n->rank);
	put_bool(o, "excluded", n->excluded);
	put_bool(o, "rdma", n->rdma);
	put(o, "nodes", ROWS(n->nodes, n->n_nodes, network_node));
	return o;
}

json_t *json_network_list(const struct cli_parsed *p, const Drover__Response *resp)
{
	(void)p;
	return read_answer(resp, "networks", ROWS(resp->networks, resp->n_networks, network));
}

json_t *json_network_show(const struct cli_parsed *p, const Drover__Response *resp)
{
	(void)p;
	return read_answer(resp, "network", resp->n_networks > 0 ? network(resp->networks[0]) : NULL);
}

static bool limit_own(const Drover__Limits *l, const char *field)
{
	for (size_t i = 0; i < l->n_own; i++) {
		if (strcmp(l->own[i], field) == 0)
			return true;
	}
	return false;
}

/* own_only: null for what is not set on this object itself. */
static void limits_put(json_t *o, const Drover__Limits *l, bool own_only, bool network_only)
{
#define WANTED(field_) (!own_only || limit_own(l, field_))
	if (!network_only) {
		put(o, "max_moves", WANTED("max_moves") ? json_integer(l->max_moves) : NULL);
		put(o, "max_storage_moves",
		    WANTED("max_storage_moves") ? json_integer(l->max_storage_moves) : NULL);
	}
	put_number_or_null(o, "bandwidth", WANTED("bandwidth") ? l->bandwidth : 0);
	put_text_or_null(o, "mode", WANTED("mode") ? l->mode : "");
	put(o, "encrypt", WANTED("encrypt") ? json_boolean(l->encrypt) : NULL);
	if (!network_only)
		put_text_or_null(o, "on_shutdown", WANTED("on_shutdown") ? l->on_shutdown : "");
#undef WANTED
}

static json_t *limits_default(const Drover__Limits *l)
{
	json_t *o = json_object();

	limits_put(o, l, false, false);
	put_number_or_null(o, "cluster_moves", l->cluster_moves);
	put_number_or_null(o, "quick_below", l->quick_below);
	put_number(o, "blackout_ms", l->blackout_ms);
	put_number(o, "drain_attempts", l->drain_attempts);
	return o;
}

static json_t *limits_node(const Drover__Limits *l)
{
	json_t *o = json_object();
	json_t *effective = json_object();

	put_text(o, "node", l->node);
	limits_put(o, l, true, false);
	limits_put(effective, l, false, false);
	put(o, "effective", effective);
	return o;
}

static json_t *limits_network(const Drover__Limits *l)
{
	json_t *o = json_object();

	put_text(o, "network", l->node);
	limits_put(o, l, false, true);
	return o;
}

json_t *json_limit_show(const struct cli_parsed *p, const Drover__Response *resp)
{
	static const Drover__LimitTable nothing = DROVER__LIMIT_TABLE__INIT;
	const Drover__LimitTable *t = resp->limits != NULL ? resp->limits : &nothing;
	json_t *top = json_object();

	(void)p;
	put(top, "defaults", t->defaults != NULL ? limits_default(t->defaults) : NULL);
	put(top, "nodes", ROWS(t->nodes, t->n_nodes, limits_node));
	put(top, "networks", ROWS(t->networks, t->n_networks, limits_network));
	put_bool(top, "stale", resp->stale);
	return top;
}

static json_t *drain(const Drover__DrainRow *d)
{
	json_t *o = json_object();

	put_number(o, "id", d->id);
	put_text(o, "node", d->node);
	put_text(o, "state", d->state);
	put_number_or_null(o, "plan", d->plan);
	put_time(o, "started", d->started_utc_us);
	put_time(o, "ended", d->ended_utc_us);
	put_number(o, "moves_total", d->moves_total);
	put_number(o, "moves_done", d->moves_done);
	put_number(o, "moves_failed", d->moves_failed);
	put_number_or_null(o, "eta_ms", d->eta_ms);
	put_number_or_null(o, "predicted_ms", d->predicted_ms);
	put_text_or_null(o, "error", d->error);
	return o;
}

static json_t *channel(const Drover__RelayNetwork *c)
{
	json_t *o = json_object();

	put_text(o, "network", c->network);
	put_bool(o, "up", c->up);
	put_number(o, "bytes_wire", c->bytes_wire);
	put_number(o, "bytes_again", c->bytes_again);
	put_number(o, "rate", c->rate);
	put_number(o, "stall_ms", c->stall_ms);
	put_number(o, "lost", c->lost);
	return o;
}

static json_t *move(const Drover__MoveRow *m)
{
	json_t *o = json_object();

	put_number(o, "id", m->id);
	put_text(o, "vm", m->vm);
	put_number_or_null(o, "drain", m->drain);
	put_text(o, "kind", m->kind);
	put_text(o, "from", m->from);
	put_text_or_null(o, "to", m->to);
	put_text(o, "state", m->state);
	put_number(o, "attempt", m->attempt);
	put_text(o, "mode", m->mode);
	put(o, "networks", texts(m->networks, m->n_networks));
	put_number(o, "passes", m->passes);
	put_number(o, "bytes_guest", m->bytes_guest);
	put_number(o, "bytes_wire", m->bytes_wire);
	put_number(o, "duration_ms", m->duration_ms);
	put_number(o, "blackout_ms", m->blackout_ms);
	put_number(o, "blackout_us", m->blackout_us);
	put_number_or_null(o, "predicted_ms", m->predicted_ms);
	put_number_or_null(o, "predicted_blackout_ms", m->predicted_blackout_ms);
	put_time(o, "started", m->started_utc_us);
	put_time(o, "ended", m->ended_utc_us);
	put_text_or_null(o, "error", m->error);
	put_number_or_null(o, "exit", m->exit);
	put_number(o, "bytes_total", m->bytes_total);
	put_number(o, "bytes_remaining", m->bytes_remaining);
	put_number(o, "rate", m->rate);
	put_number(o, "dirty_rate", m->dirty_rate);
	put_text_or_null(o, "src_phase", m->src_phase);
	put_text_or_null(o, "dst_phase", m->dst_phase);
	if (m->n_channels > 0)
		put(o, "channels", ROWS(m->channels, m->n_channels, channel));
	return o;
}

json_t *json_drain_list(const struct cli_parsed *p, const Drover__Response *resp)
{
	(void)p;
	return read_answer(resp, "drains", ROWS(resp->drains, resp->n_drains, drain));
}

json_t *json_drain_show(const struct cli_parsed *p, const Drover__Response *resp)
{
	json_t *top = read_answer(resp, "drain", resp->n_drains > 0 ? drain(resp->drains[0]) : NULL);

	(void)p;
	put(top, "moves", ROWS(resp->moves, resp->n_moves, move));
	return top;
}

json_t *json_move_list(const struct cli_parsed *p, const Drover__Response *resp)
{
	(void)p;
	return read_answer(resp, "moves", ROWS(resp->moves, resp->n_moves, move));
}

json_t *json_move_show(const struct cli_parsed *p, const Drover__Response *resp)
{
	(void)p;
	return read_answer(resp, "move", resp->n_moves > 0 ? move(resp->moves[0]) : NULL);
}

static json_t *plan(const Drover__PlanRow *row)
{
	json_t *o = json_object();

	put_number_or_null(o, "id", row->id);
	put_text(o, "node", row->node);
	put(o, "moves", ROWS(row->moves, row->n_moves, move));
	put_number_or_null(o, "predicted_ms", row->predicted_ms);
	put(o, "unmovable", texts(row->unmovable, row->n_unmovable));
	return o;
}

json_t *json_event(const Drover__EventRow *e)
{
	json_t *o = json_object();

	put_time(o, "time", e->time_utc_us);
	put_number(o, "index", e->index);
	put_text(o, "kind", e->kind);
	put_text_or_null(o, "node", e->node);
	put_text_or_null(o, "vm", e->vm);
	put_number_or_null(o, "move", e->move);
	put_number_or_null(o, "drain", e->drain);
	put_text(o, "text", e->text);
	return o;
}

json_t *json_event_list(const struct cli_parsed *p, const Drover__Response *resp)
{
	(void)p;
	return read_answer(resp, "events", ROWS(resp->events, resp->n_events, json_event));
}

static json_t *history(const Drover__HistoryRow *h)
{
	json_t *o = json_object();

	put_time(o, "time", h->time_utc_us);
	put_number(o, "index", h->index);
	put_text(o, "who", h->who);
	put_text(o, "what", h->what);
	put_number(o, "exit", h->exit);
	put_text_or_null(o, "message", h->message);
	return o;
}

json_t *json_history_list(const struct cli_parsed *p, const Drover__Response *resp)
{
	(void)p;
	return read_answer(resp, "history", ROWS(resp->history, resp->n_history, history));
}

json_t *json_changed(const struct cli_parsed *p, const Drover__Response *resp)
{
	json_t *top = json_object();

	if (resp->n_drains > 0)
		put(top, "drain", drain(resp->drains[0]));
	else if (resp->n_moves == 1)
		put(top, "move", move(resp->moves[0]));
	else if (resp->plan != NULL)
		put(top, "plan", plan(resp->plan));
	else if (resp->n_vms == 1)
		put(top, "vm", vm(resp->vms[0]));
	else if (resp->n_nodes == 1)
		put(top, "node", node(resp->nodes[0]));
	if (resp->n_drains > 0 && resp->n_moves > 0)
		put(top, "moves", ROWS(resp->moves, resp->n_moves, move));
	put_bool(top, "changed", resp->changed);
	if (cli_flag(p, "dry-run"))
		put_bool(top, "dry_run", true);
	if (resp->message != NULL && resp->message[0] != '\0')
		put_text(top, "message", resp->message);
	return top;
}

json_t *json_error(int exit, const char *message, char *const *objects, size_t n_objects)
{
	static const char *const codes[] = {"ok",      "failed",  "usage",     "no_quorum", "not_found",
					    "timeout", "refused", "no_daemon", "auth"};
	json_t *o = json_object();
	json_t *top = json_object();

	put_number(o, "exit", (uint64_t)exit);
	put_text(o, "code", exit >= 0 && exit < (int)DR_ARRAY_SIZE(codes) ? codes[exit] : "failed");
	/* json_string refuses bytes that are no UTF-8; the words of an argument may be any. */
	json_t *text = json_string(message);
	put(o, "message", text != NULL ? text : json_string("the message is no UTF-8"));
	put(o, "objects", texts(objects, n_objects));
	put(top, "error", o);
	return top;
}
