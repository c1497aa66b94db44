#include "agent/store.h"

#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/log.h"

struct store {
	sqlite3 *db;
	char path[256];
};

static const char schema[] =
	"CREATE TABLE IF NOT EXISTS vms (name TEXT PRIMARY KEY, uuid BLOB NOT NULL, generation INTEGER NOT "
	"NULL,"
	" spec BLOB, launch BLOB, pid INTEGER NOT NULL, start_time INTEGER NOT NULL, state INTEGER NOT NULL,"
	" error TEXT NOT NULL) STRICT, WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS words (vm TEXT PRIMARY KEY, generation INTEGER NOT NULL) STRICT, WITHOUT "
	"ROWID;"
	"CREATE TABLE IF NOT EXISTS vm_floors (vm TEXT PRIMARY KEY, generation INTEGER NOT NULL)"
	" STRICT, WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS move_floors (move INTEGER PRIMARY KEY, attempt INTEGER NOT NULL) STRICT;"
	"CREATE TABLE IF NOT EXISTS floors (one INTEGER PRIMARY KEY CHECK (one = 1), term INTEGER NOT NULL,"
	" incarnation INTEGER NOT NULL, cluster BLOB) STRICT;"
	"CREATE TABLE IF NOT EXISTS cluster_floor (one INTEGER PRIMARY KEY CHECK (one = 1),"
	" incarnation INTEGER NOT NULL) STRICT;"
	"CREATE TABLE IF NOT EXISTS moves (move INTEGER NOT NULL, attempt INTEGER NOT NULL, role INTEGER NOT "
	"NULL,"
	" phase INTEGER NOT NULL, orders BLOB NOT NULL, fact BLOB NOT NULL, committed INTEGER NOT NULL,"
	" stopped INTEGER NOT NULL, qemu_pid INTEGER NOT NULL, qemu_start INTEGER NOT NULL,"
	" relay_pid INTEGER NOT NULL, relay_start INTEGER NOT NULL, released INTEGER NOT NULL,"
	" PRIMARY KEY (move, attempt, role))"
	" STRICT, WITHOUT ROWID;";

static int failed(struct store *s, const char *what)
{
	int code = sqlite3_errcode(s->db);

	log_error("%s: %s: %s", s->path, what, sqlite3_errmsg(s->db));
	return code == SQLITE_CORRUPT || code == SQLITE_NOTADB ? -DR_ECORRUPT : -DR_EIO;
}

static int exec(struct store *s, const char *sql)
{
	return sqlite3_exec(s->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : failed(s, sql);
}

struct blob {
	const void *bytes;
	size_t len;
};

/* fmt: s text, i uint64_t, b struct blob *. The caller steps and finalizes. */
static sqlite3_stmt *vprepare(struct store *s, const char *sql, const char *fmt, va_list ap)
{
	sqlite3_stmt *st = NULL;
	int rc = sqlite3_prepare_v2(s->db, sql, -1, &st, NULL);

	for (int i = 1; rc == SQLITE_OK && *fmt != '\0'; fmt++, i++) {
		if (*fmt == 's') {
			rc = sqlite3_bind_text(st, i, va_arg(ap, const char *), -1, SQLITE_TRANSIENT);
		} else if (*fmt == 'i') {
			rc = sqlite3_bind_int64(st, i, (sqlite3_int64)va_arg(ap, uint64_t));
		} else {
			const struct blob *b = va_arg(ap, const struct blob *);

			rc = sqlite3_bind_blob64(st, i, b->bytes, b->len, SQLITE_TRANSIENT);
		}
	}
	if (rc != SQLITE_OK) {
		failed(s, sql);
		sqlite3_finalize(st);
		return NULL;
	}
	return st;
}

static sqlite3_stmt *prepare(struct store *s, const char *sql, const char *fmt, ...)
{
	sqlite3_stmt *st;
	va_list ap;

	va_start(ap, fmt);
	st = vprepare(s, sql, fmt, ap);
	va_end(ap);
	return st;
}

static int run(struct store *s, const char *sql, const char *fmt, ...)
{
	sqlite3_stmt *st;
	va_list ap;
	int rc;

	va_start(ap, fmt);
	st = vprepare(s, sql, fmt, ap);
	va_end(ap);
	if (st == NULL)
		return -DR_EIO;
	rc = sqlite3_step(st);
	rc = rc == SQLITE_DONE || rc == SQLITE_ROW ? 0 : failed(s, sql);
	sqlite3_finalize(st);
	return rc;
}

static uint64_t col_u64(sqlite3_stmt *st, int col)
{
	return (uint64_t)sqlite3_column_int64(st, col);
}

/* The single number that a statement finds, 0 when it finds none. Finalizes st. */
static int number(struct store *s, sqlite3_stmt *st, uint64_t *value)
{
	int rc;

	*value = 0;
	if (st == NULL)
		return -DR_EIO;
	rc = sqlite3_step(st);
	if (rc == SQLITE_ROW)
		*value = col_u64(st, 0);
	sqlite3_finalize(st);
	return rc == SQLITE_ROW || rc == SQLITE_DONE ? 0 : failed(s, "read");
}

/* ------------------------------------------------ opening */

/* Which of version 1's moves had given their word is not known: they count as if (R2's exception is lost). */
static const char from_1[] = "ALTER TABLE moves ADD COLUMN released INTEGER NOT NULL DEFAULT 1";

static int prepare_file(struct store *s, struct dr_error *err)
{
	uint64_t version;

	sqlite3_busy_timeout(s->db, 2000);
	if (exec(s, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-512;"
		    "PRAGMA trusted_schema=OFF; PRAGMA journal_size_limit=1048576") != 0)
		return dr_error_set(err, DR_EIO, "%s: %s", s->path, sqlite3_errmsg(s->db));
	if (number(s, prepare(s, "PRAGMA user_version", ""), &version) != 0)
		return dr_error_set(err, DR_EIO, "%s: %s", s->path, sqlite3_errmsg(s->db));
	if (version > STORE_VERSION)
		return dr_error_set(err, DR_EREFUSED,
				    "%s was made by a newer drover (version %u, this one reads %d)", s->path,
				    (unsigned int)version, STORE_VERSION);
	if (store_begin(s) != 0 || (version == 1 && exec(s, from_1) != 0) || exec(s, schema) != 0 ||
	    exec(s, "PRAGMA user_version=2") != 0 || store_commit(s) != 0)
		return dr_error_set(err, DR_EIO, "%s: %s", s->path, sqlite3_errmsg(s->db));
	return 0;
}

int store_open(const char *path, struct store **store, struct dr_error *err)
{
	struct store *s = calloc(1, sizeof(*s));
	int rc;

	if (s == NULL)
		return dr_error_set(err, DR_ENOMEM, "out of memory");
	snprintf(s->path, sizeof(s->path), "%s", path);
	if (sqlite3_open_v2(path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_EXRESCODE,
			    NULL) != SQLITE_OK) {
		rc = dr_error_set(err, DR_EIO, "%s: %s", path,
				  s->db != NULL ? sqlite3_errmsg(s->db) : "no memory");
		store_close(s);
		return rc;
	}
	rc = prepare_file(s, err);
	if (rc != 0) {
		store_close(s);
		return rc;
	}
	*store = s;
	return 0;
}

void store_close(struct store *s)
{
	if (s == NULL)
		return;
	sqlite3_close(s->db);
	free(s);
}

int store_begin(struct store *s)
{
	return exec(s, "BEGIN IMMEDIATE");
}

int store_commit(struct store *s)
{
	int rc = exec(s, "COMMIT");

	if (rc != 0)
		store_rollback(s);
	return rc;
}

void store_rollback(struct store *s)
{
	if (!sqlite3_get_autocommit(s->db))
		exec(s, "ROLLBACK");
}

/* ------------------------------------------------ protobuf in blobs */

static int pack(const ProtobufCMessage *msg, struct blob *b)
{
	size_t size = msg != NULL ? protobuf_c_message_get_packed_size(msg) : 0;
	uint8_t *bytes;

	*b = (struct blob){0};
	if (msg == NULL)
		return 0;
	bytes = malloc(size + 1);
	if (bytes == NULL)
		return -DR_ENOMEM;
	protobuf_c_message_pack(msg, bytes);
	*b = (struct blob){.bytes = bytes, .len = size};
	return 0;
}

static void blob_free(struct blob *b)
{
	free((void *)(uintptr_t)b->bytes);
}

static ProtobufCMessage *unpack(sqlite3_stmt *st, int col, const ProtobufCMessageDescriptor *d)
{
	const void *bytes = sqlite3_column_blob(st, col);

	if (sqlite3_column_type(st, col) == SQLITE_NULL)
		return NULL;
	return protobuf_c_message_unpack(d, NULL, (size_t)sqlite3_column_bytes(st, col), bytes);
}

static void free_msg(void *msg)
{
	if (msg != NULL)
		protobuf_c_message_free_unpacked(msg, NULL);
}

/* ------------------------------------------------ VMs */

static int put_vm_row(struct store *s, const struct store_vm *vm)
{
	DR_CLEANUP(blob_free) struct blob spec = {0};
	DR_CLEANUP(blob_free) struct blob launch = {0};
	struct blob uuid = {.bytes = vm->uuid, .len = sizeof(vm->uuid)};

	if (pack((const ProtobufCMessage *)vm->spec, &spec) != 0 ||
	    pack((const ProtobufCMessage *)vm->launch, &launch) != 0)
		return -DR_ENOMEM;
	return run(s, "INSERT OR REPLACE INTO vms VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)", "sbibbiiis",
		   vm->name, &uuid, vm->generation, &spec, &launch, (uint64_t)vm->pid, vm->start_time,
		   (uint64_t)vm->state, vm->error);
}

int store_vm_put(struct store *s, const struct store_vm *vm)
{
	bool own = sqlite3_get_autocommit(s->db) != 0;
	bool ended = vm->state == DROVER__VM_STATE__VM_STOPPED || vm->state == DROVER__VM_STATE__VM_FAILED;
	int rc = own ? store_begin(s) : 0;

	if (rc == 0)
		rc = put_vm_row(s, vm);
	if (rc == 0)
		rc = store_vm_floor_raise(s, vm->name, vm->generation);
	if (rc == 0 && ended)
		rc = store_word_raise(s, vm->name, vm->generation);
	if (!own)
		return rc;
	if (rc == 0)
		return store_commit(s);
	store_rollback(s);
	return rc;
}

int store_vm_delete(struct store *s, const char *name)
{
	return run(s, "DELETE FROM vms WHERE name = ?1", "s", name);
}

int store_vms(struct store *s, store_vm_fn fn, void *data)
{
	sqlite3_stmt *st =
		prepare(s,
			"SELECT name, uuid, generation, spec, launch, pid, start_time, state, error "
			"FROM vms ORDER BY name",
			"");
	int rc;

	if (st == NULL)
		return -DR_EIO;
	while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
		struct store_vm vm = {
			.generation = col_u64(st, 2),
			.spec = (Drover__VmSpec *)unpack(st, 3, &drover__vm_spec__descriptor),
			.launch = (Drover__LaunchRecord *)unpack(st, 4, &drover__launch_record__descriptor),
			.pid = (pid_t)sqlite3_column_int64(st, 5),
			.start_time = col_u64(st, 6),
			.state = (Drover__VmState)sqlite3_column_int(st, 7),
		};

		snprintf(vm.name, sizeof(vm.name), "%s", (const char *)sqlite3_column_text(st, 0));
		snprintf(vm.error, sizeof(vm.error), "%s", (const char *)sqlite3_column_text(st, 8));
		if (sqlite3_column_bytes(st, 1) == (int)sizeof(vm.uuid))
			memcpy(vm.uuid, sqlite3_column_blob(st, 1), sizeof(vm.uuid));
		fn(&vm, data);
		free_msg(vm.spec);
		free_msg(vm.launch);
	}
	rc = rc == SQLITE_DONE ? 0 : failed(s, "reading vms");
	sqlite3_finalize(st);
	return rc;
}

int store_word(struct store *s, const char *vm, uint64_t *generation)
{
	return number(s, prepare(s, "SELECT generation FROM words WHERE vm = ?1", "s", vm), generation);
}

int store_word_raise(struct store *s, const char *vm, uint64_t generation)
{
	return run(s,
		   "INSERT INTO words VALUES (?1, ?2) ON CONFLICT (vm) DO UPDATE SET "
		   "generation = max(generation, excluded.generation)",
		   "si", vm, generation);
}

/* ------------------------------------------------ floors */

int store_floors(struct store *s, struct store_floors *f)
{
	sqlite3_stmt *st = prepare(s, "SELECT term, incarnation, cluster FROM floors WHERE one = 1", "");
	int rc;

	*f = (struct store_floors){0};
	if (st == NULL)
		return -DR_EIO;
	rc = sqlite3_step(st);
	if (rc == SQLITE_ROW) {
		f->term = col_u64(st, 0);
		f->incarnation = col_u64(st, 1);
		f->have_cluster = sqlite3_column_bytes(st, 2) == (int)sizeof(f->cluster_uuid);
		if (f->have_cluster)
			memcpy(f->cluster_uuid, sqlite3_column_blob(st, 2), sizeof(f->cluster_uuid));
	}
	sqlite3_finalize(st);
	if (rc != SQLITE_ROW && rc != SQLITE_DONE)
		return failed(s, "reading floors");
	return number(s, prepare(s, "SELECT incarnation FROM cluster_floor WHERE one = 1", ""),
		      &f->cluster_incarnation);
}

int store_floors_put(struct store *s, const struct store_floors *f)
{
	struct blob cluster = {.bytes = f->cluster_uuid, .len = sizeof(f->cluster_uuid)};

	if (!f->have_cluster)
		cluster = (struct blob){0};
	/* First: a crash in between leaves floors that are too high for a while, never too low. */
	if (run(s, "INSERT OR REPLACE INTO cluster_floor VALUES (1, ?1)", "i", f->cluster_incarnation) != 0)
		return -DR_EIO;
	return run(s, "INSERT OR REPLACE INTO floors VALUES (1, ?1, ?2, ?3)", "iib", f->term, f->incarnation,
		   &cluster);
}

int store_vm_floor(struct store *s, const char *vm, uint64_t *generation)
{
	return number(s, prepare(s, "SELECT generation FROM vm_floors WHERE vm = ?1", "s", vm), generation);
}

int store_vm_floor_raise(struct store *s, const char *vm, uint64_t generation)
{
	return run(s,
		   "INSERT INTO vm_floors VALUES (?1, ?2) ON CONFLICT (vm) DO UPDATE SET "
		   "generation = max(generation, excluded.generation)",
		   "si", vm, generation);
}

int store_move_floor(struct store *s, uint64_t move, uint32_t *attempt)
{
	uint64_t value;
	int rc = number(s, prepare(s, "SELECT attempt FROM move_floors WHERE move = ?1", "i", move), &value);

	*attempt = (uint32_t)value;
	return rc;
}

int store_move_floor_raise(struct store *s, uint64_t move, uint32_t attempt)
{
	return run(s,
		   "INSERT INTO move_floors VALUES (?1, ?2) ON CONFLICT (move) DO UPDATE SET "
		   "attempt = max(attempt, excluded.attempt)",
		   "ii", move, (uint64_t)attempt);
}

/* ------------------------------------------------ moves */

/* The record's words and figures ride in a MoveFact: one encoding for wire and disk. */
static int pack_fact(const struct move_record *r, struct blob *b)
{
	Drover__MoveFact fact = DROVER__MOVE_FACT__INIT;
	Drover__MoveStats stats = DROVER__MOVE_STATS__INIT;

	stats.passes = r->stats.passes;
	stats.bytes_guest = r->stats.bytes_guest;
	stats.bytes_wire = r->stats.bytes_wire;
	stats.bytes_remaining = r->stats.bytes_remaining;
	stats.bytes_total = r->stats.bytes_total;
	stats.duration_ms = r->stats.duration_ms;
	stats.blackout_ms = r->stats.blackout_ms;
	stats.blackout_us = r->stats.blackout_us;
	fact.stats = &stats;
	fact.error = (char *)(uintptr_t)r->error;
	fact.error_exit = r->error_exit;
	fact.error_fatal = r->error_fatal;
	fact.n_proofs = r->n_proofs;
	fact.proofs = r->proofs;
	return pack(&fact.base, b);
}

int store_move_put(struct store *s, const struct store_move *m)
{
	DR_CLEANUP(blob_free) struct blob orders = {0};
	DR_CLEANUP(blob_free) struct blob fact = {0};
	const Drover__MoveOrder *o = m->order;

	if (pack(&o->base, &orders) != 0 || pack_fact(&m->record, &fact) != 0)
		return -DR_ENOMEM;
	return run(s,
		   "INSERT OR REPLACE INTO moves VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, "
		   "?13)",
		   "iiiibbiiiiiii", o->move, (uint64_t)o->attempt, (uint64_t)o->role,
		   (uint64_t)m->record.phase, &orders, &fact, (uint64_t)m->record.committed,
		   (uint64_t)m->record.stopped, (uint64_t)m->qemu.pid, m->qemu.start_time,
		   (uint64_t)m->relay.pid, m->relay.start_time, (uint64_t)m->record.released);
}

int store_move_procs(struct store *s, const struct store_move *m)
{
	const Drover__MoveOrder *o = m->order;

	return run(s,
		   "UPDATE moves SET qemu_pid = ?4, qemu_start = ?5, relay_pid = ?6, relay_start = ?7 "
		   "WHERE move = ?1 AND attempt = ?2 AND role = ?3",
		   "iiiiiii", o->move, (uint64_t)o->attempt, (uint64_t)o->role, (uint64_t)m->qemu.pid,
		   m->qemu.start_time, (uint64_t)m->relay.pid, m->relay.start_time);
}

int store_move_delete(struct store *s, uint64_t move, uint32_t attempt, Drover__MoveRole role)
{
	return run(s, "DELETE FROM moves WHERE move = ?1 AND attempt = ?2 AND role = ?3", "iii", move,
		   (uint64_t)attempt, (uint64_t)role);
}

static void fill_record(struct move_record *r, const Drover__MoveFact *fact)
{
	snprintf(r->error, sizeof(r->error), "%s", fact->error != NULL ? fact->error : "");
	r->error_exit = fact->error_exit;
	r->error_fatal = fact->error_fatal;
	if (fact->stats != NULL)
		r->stats = *fact->stats;
	r->n_proofs = fact->n_proofs;
	r->proofs = fact->proofs;
}

int store_moves(struct store *s, store_move_fn fn, void *data)
{
	sqlite3_stmt *st =
		prepare(s,
			"SELECT phase, orders, fact, committed, stopped, qemu_pid, qemu_start, relay_pid, "
			"relay_start, released FROM moves ORDER BY move, attempt, role",
			"");
	int rc;

	if (st == NULL)
		return -DR_EIO;
	while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
		Drover__MoveFact *fact = (Drover__MoveFact *)unpack(st, 2, &drover__move_fact__descriptor);
		struct store_move m = {
			.order = (Drover__MoveOrder *)unpack(st, 1, &drover__move_order__descriptor),
		};

		if (fact == NULL || m.order == NULL) {
			free_msg(fact);
			free_msg(m.order);
			sqlite3_finalize(st);
			return -DR_ECORRUPT;
		}
		drover__move_stats__init(&m.record.stats);
		fill_record(&m.record, fact);
		m.record.phase = (Drover__MovePhase)sqlite3_column_int(st, 0);
		m.record.committed = sqlite3_column_int(st, 3) != 0;
		m.record.stopped = sqlite3_column_int(st, 4) != 0;
		m.qemu.pid = (pid_t)sqlite3_column_int64(st, 5);
		m.qemu.start_time = col_u64(st, 6);
		m.relay.pid = (pid_t)sqlite3_column_int64(st, 7);
		m.relay.start_time = col_u64(st, 8);
		m.record.released = sqlite3_column_int(st, 9) != 0;
		fn(&m, data);
		free_msg(fact);
		free_msg(m.order);
	}
	rc = rc == SQLITE_DONE ? 0 : failed(s, "reading moves");
	sqlite3_finalize(st);
	return rc;
}
