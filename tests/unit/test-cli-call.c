/* cli: lost connections, deadlines, addresses and --wait, on a fake transport with virtual time (SAFETY R13).
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "tests/unit/cli-fake.h"

static char conf_path[] = "/tmp/drover-test-cli-XXXXXX";

static int conf_write(void **state)
{
	int fd = mkstemp(conf_path);
	FILE *f = fdopen(fd, "w");

	(void)state;
	fputs("[node]\nrun_dir=/r\nconnect=10.0.0.1,10.0.0.2\n", f);
	fclose(f);
	return 0;
}

static int conf_remove(void **state)
{
	(void)state;
	return unlink(conf_path);
}

static void answer_ok(struct fake *fake, const Drover__Request *request, Drover__Response *response)
{
	(void)fake;
	(void)request;
	response->changed = true;
}

static int run(struct fake *f, const char *words)
{
	char line[256];

	snprintf(line, sizeof(line), "--config %s %s", conf_path, words);
	return fake_run(f, line);
}

static void test_same_id(void **state)
{
	struct fake f;

	(void)state;
	fake_init(&f, answer_ok);
	f.losses[0] = f.losses[1] = -DR_ECLOSED;
	assert_int_equal(run(&f, "node pause n1"), 0);
	assert_int_equal(f.n_exchanges, 3);
	for (size_t i = 1; i < 3; i++)
		assert_memory_equal(fake_request(&f, 0)->id.data, fake_request(&f, i)->id.data, 16);
	assert_string_equal(f.opened[0], "unix:/r/coordinator.sock");
	assert_string_equal(f.opened[1], "10.0.0.1:7420");
	assert_string_equal(f.opened[2], "10.0.0.2:7420");
	fake_fini(&f);
}

static void test_new_id(void **state)
{
	struct fake f;

	(void)state;
	fake_init(&f, answer_ok);
	run(&f, "node pause n1");
	run(&f, "node pause n1");
	assert_memory_not_equal(fake_request(&f, 0)->id.data, fake_request(&f, 1)->id.data, 16);
	fake_fini(&f);
}

static void answer_with_boot(struct fake *fake, const Drover__Request *request, Drover__Response *response)
{
	static uint8_t boot[16]; /* the answer is copied */
	static Drover__NodeRow row;
	static Drover__NodeRow *rows[] = {&row};

	(void)fake;
	response->changed = true;
	if (request->verb_case != DROVER__REQUEST__VERB_LIST)
		return;
	drover__node_row__init(&row);
	memset(boot, 7, sizeof(boot));
	row.boot_id.data = boot;
	row.boot_id.len = sizeof(boot);
	response->nodes = rows;
	response->n_nodes = 1;
}

static void answer_unread(struct fake *fake, const Drover__Request *request, Drover__Response *response)
{
	(void)fake;
	if (request->verb_case == DROVER__REQUEST__VERB_LIST) {
		response->exit = 1;
		response->message = (char *)(uintptr_t) "the state can't be read";
	}
}

/* Without the boot the order would be for whatever boot there is when it arrives. */
static void test_unknown_boot(void **state)
{
	struct fake f;

	(void)state;
	fake_init(&f, answer_unread);
	assert_int_equal(run(&f, "node fence n1 --confirmed"), 1);
	assert_int_equal(f.n_exchanges, 1);
	fake_fini(&f);
}

/* What was seen to be off is that boot, however late the order arrives (SAFETY R9). */
static void test_confirmed_boot(void **state)
{
	static const uint8_t boot[16] = {7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7};
	const Drover__NodeVerb *verb;
	struct fake f;

	(void)state;
	fake_init(&f, answer_with_boot);
	f.losses[1] = -DR_ECLOSED;
	assert_int_equal(run(&f, "node fence n1 --confirmed"), 0);
	assert_int_equal(f.n_exchanges, 3);
	assert_int_equal(fake_request(&f, 0)->verb_case, DROVER__REQUEST__VERB_LIST);
	assert_string_equal(fake_request(&f, 0)->list->name, "n1");
	for (size_t i = 1; i < 3; i++) {
		verb = fake_request(&f, i)->node_verb;
		assert_int_equal(verb->boot_id.len, sizeof(boot));
		assert_memory_equal(verb->boot_id.data, boot, sizeof(boot));
	}
	fake_fini(&f);

	fake_init(&f, answer_with_boot);
	assert_int_equal(run(&f, "node fence n1"), 0); /* by its agent: nothing was seen */
	assert_int_equal(f.n_exchanges, 1);
	fake_fini(&f);
}

static void test_deadline(void **state)
{
	struct fake f;

	(void)state;
	fake_init(&f, answer_ok);
	for (size_t i = 0; i < FAKE_MAX; i++)
		f.losses[i] = -DR_ECLOSED;
	assert_int_equal(run(&f, "--timeout 5s node pause n1"), 5);
	assert_in_range(f.now_ms, 6000, 6500);
	assert_non_null(strstr(f.err_text, "may go on"));
	fake_fini(&f);

	fake_init(&f, answer_ok);
	f.losses[0] = -DR_ETIMEOUT;
	assert_int_equal(run(&f, "--json node pause n1"), 5);
	assert_non_null(strstr(f.out_text, "\"code\": \"timeout\""));
	fake_fini(&f);
}

static void test_nobody(void **state)
{
	struct fake f;

	(void)state;
	fake_init(&f, answer_ok);
	f.dead = "";
	assert_int_equal(run(&f, "node list"), 7);
	assert_int_equal(f.n_opened, 3);
	fake_fini(&f);

	fake_init(&f, answer_ok);
	f.dead = "unix:";
	assert_int_equal(run(&f, "node list"), 0);
	assert_int_equal(f.n_opened, 2);
	fake_fini(&f);

	/* A named coordinator is the only one that is asked. */
	fake_init(&f, answer_ok);
	f.dead = "unix:";
	assert_int_equal(run(&f, "--connect unix:/x node list"), 7);
	assert_int_equal(f.n_opened, 1);
	fake_fini(&f);

	fake_init(&f, answer_ok);
	f.dead = "unix:";
	f.refusing = "10.0.0";
	assert_int_equal(run(&f, "node list"), 8);
	fake_fini(&f);
}

static void answer_refused(struct fake *fake, const Drover__Request *request, Drover__Response *response)
{
	static char *objects[] = {(char *)(uintptr_t) "vm3: no node has 64 GiB free"};

	(void)fake;
	(void)request;
	response->exit = 6;
	response->message = (char *)(uintptr_t) "vm3 has no target";
	response->objects = objects;
	response->n_objects = 1;
}

static void test_refusal(void **state)
{
	struct fake f;

	(void)state;
	fake_init(&f, answer_refused);
	assert_int_equal(run(&f, "node drain n1 --wait"), 6);
	assert_string_equal(f.err_text, "drover: vm3 has no target\n  vm3: no node has 64 GiB free\n");
	assert_int_equal(f.n_exchanges, 1);
	fake_fini(&f);

	fake_init(&f, answer_refused);
	assert_int_equal(run(&f, "node drain n1 --json"), 6);
	assert_non_null(strstr(f.out_text, "\"vm3: no node has 64 GiB free\""));
	fake_fini(&f);
}

/* A drain of two moves that ends after some polls as `last` says. */
static const char *last = "done";
static unsigned polls;

static char *word(const char *text)
{
	return (char *)(uintptr_t)text;
}

static void answer_drain(struct fake *fake, const Drover__Request *request, Drover__Response *response)
{
	static Drover__DrainRow drain, *drains[1] = {&drain};
	static Drover__MoveRow moves[2], *rows[2] = {&moves[0], &moves[1]};
	bool over;

	(void)fake;
	if (request->verb_case == DROVER__REQUEST__VERB_LIST)
		polls++;
	over = polls > 10;
	drover__drain_row__init(&drain);
	drain.id = 17;
	drain.node = word("n1");
	drain.state = word(over ? last : "running");
	drain.moves_total = 2;
	drain.moves_done = over ? 2 : polls / 5;
	for (int i = 0; i < 2; i++) {
		drover__move_row__init(&moves[i]);
		moves[i].id = 20 + (uint64_t)i;
		moves[i].vm = word(i == 0 ? "vm1" : "vm2");
		moves[i].from = word("n1");
		moves[i].to = word("n2");
		moves[i].state = word(over ? last : "copying");
		moves[i].bytes_total = 1000000;
		moves[i].bytes_guest = 1;
		moves[i].bytes_remaining = 500000;
		moves[i].rate = 50000000;
		moves[i].error = word(over && strcmp(last, "failed") == 0 ? "the disk is not the same" : "");
	}
	response->changed = true;
	response->drains = drains;
	response->n_drains = 1;
	if (request->verb_case == DROVER__REQUEST__VERB_LIST) {
		response->moves = rows;
		response->n_moves = 2;
	}
}

static void test_wait_drain(void **state)
{
	struct fake f;

	(void)state;
	polls = 0;
	last = "done";
	fake_init(&f, answer_drain);
	/* The coordinator is lost twice in the middle; 60 s without anybody are no end either. */
	f.losses[3] = f.losses[6] = -DR_ECLOSED;
	assert_int_equal(run(&f, "node drain n1 --wait"), 0);
	assert_true(polls > 10);
	assert_int_equal(fake_request(&f, 1)->list->id, 17);
	assert_non_null(strstr(f.out_text,
			       "drain 17 of n1 running: 0 of 2 done, 0 failed; vm1 copying 50 % 50.0 MB/s"));
	assert_null(strstr(f.out_text, "\033"));
	fake_fini(&f);

	polls = 0;
	last = "failed";
	fake_init(&f, answer_drain);
	assert_int_equal(run(&f, "node drain n1 --wait"), 1);
	assert_non_null(strstr(f.err_text, "vm2: the disk is not the same"));
	fake_fini(&f);

	polls = 0;
	last = "cancelled";
	fake_init(&f, answer_drain);
	assert_int_equal(run(&f, "drain cancel 17 --wait"), 0);
	fake_fini(&f);

	polls = 0;
	fake_init(&f, answer_drain);
	assert_int_equal(run(&f, "node drain n1 --wait --timeout 1s"), 5);
	assert_non_null(strstr(f.err_text, "the work goes on"));
	fake_fini(&f);
}

/* A node that was drained long ago, and badly: there is nothing to wait for. */
static void answer_drained(struct fake *fake, const Drover__Request *request, Drover__Response *response)
{
	polls = 11;
	last = "failed";
	answer_drain(fake, request, response);
	response->changed = false;
}

static void test_wait_nothing(void **state)
{
	struct fake f;

	(void)state;
	fake_init(&f, answer_drained);
	assert_int_equal(run(&f, "node drain n1 --wait"), 0);
	assert_int_equal(f.n_exchanges, 1);
	fake_fini(&f);

	polls = 0;
	last = "done";
	fake_init(&f, answer_drain);
	assert_int_equal(run(&f, "node drain n1 --wait --dry-run"), 0);
	assert_int_equal(f.n_exchanges, 1);
	assert_true(fake_request(&f, 0)->dry_run);
	fake_fini(&f);
}

static void test_wait_json(void **state)
{
	struct fake f;
	json_t *answer;

	(void)state;
	polls = 0;
	last = "done";
	fake_init(&f, answer_drain);
	assert_int_equal(run(&f, "node drain n1 --wait --json"), 0);
	answer = json_loads(f.out_text, 0, NULL);
	assert_non_null(answer);
	assert_string_equal(json_string_value(json_object_get(json_object_get(answer, "drain"), "state")),
			    "done");
	assert_int_equal(json_array_size(json_object_get(answer, "moves")), 2);
	json_decref(answer);
	fake_fini(&f);
}

static void test_wait_json_failed(void **state)
{
	struct fake f;
	json_t *answer, *error;

	(void)state;
	polls = 0;
	last = "failed";
	fake_init(&f, answer_drain);
	assert_int_equal(run(&f, "node drain n1 --wait --json"), 1);
	answer = json_loads(f.out_text, 0, NULL);
	error = json_object_get(answer, "error");
	assert_int_equal(json_integer_value(json_object_get(error, "exit")), 1);
	assert_int_equal(json_array_size(json_object_get(error, "objects")), 2);
	assert_non_null(json_object_get(answer, "drain"));
	json_decref(answer);
	fake_fini(&f);
}

static void answer_move(struct fake *fake, const Drover__Request *request, Drover__Response *response)
{
	static Drover__MoveRow move, *moves[1] = {&move};

	(void)fake;
	drover__move_row__init(&move);
	move.id = 9;
	move.vm = word("v");
	move.state = word(request->verb_case == DROVER__REQUEST__VERB_LIST ? "failed" : "queued");
	move.error = word("disk /x is not the same storage on both hosts");
	move.exit = 6;
	response->changed = true;
	response->moves = moves;
	response->n_moves = 1;
}

static void test_wait_move_refused(void **state)
{
	struct fake f;

	(void)state;
	fake_init(&f, answer_move);
	assert_int_equal(run(&f, "vm move v --wait"), 6);
	assert_non_null(strstr(f.err_text, "not the same storage"));
	fake_fini(&f);
}

static void test_wait_view(void **state)
{
	struct fake f;

	(void)state;
	polls = 0;
	last = "done";
	fake_init(&f, answer_drain);
	f.cli.out_tty = true;
	assert_int_equal(run(&f, "node drain n1 --wait"), 0);
	assert_non_null(strstr(f.out_text, "[############------------]  50 %"));
	assert_non_null(strstr(f.out_text, "\033[3A"));
	fake_fini(&f);
}

static void answer_vm(struct fake *fake, const Drover__Request *request, Drover__Response *response)
{
	static Drover__VmRow vm, *vms[1] = {&vm};

	(void)fake;
	if (request->verb_case == DROVER__REQUEST__VERB_LIST)
		polls++;
	drover__vm_row__init(&vm);
	vm.name = word("v");
	vm.generation = 3;
	vm.state = word(polls > 3 ? last : "starting");
	vm.error = word("QEMU ended");
	response->changed = true;
	response->vms = vms;
	response->n_vms = 1;
}

static void test_wait_vm(void **state)
{
	struct fake f;

	(void)state;
	polls = 0;
	last = "running";
	fake_init(&f, answer_vm);
	assert_int_equal(run(&f, "vm start v --wait"), 0);
	fake_fini(&f);

	polls = 0;
	last = "failed";
	fake_init(&f, answer_vm);
	assert_int_equal(run(&f, "vm start v --wait"), 1);
	assert_non_null(strstr(f.err_text, "QEMU ended"));
	fake_fini(&f);
}

static void answer_stop(struct fake *fake, const Drover__Request *request, Drover__Response *response)
{
	static Drover__VmRow vm, *vms[1] = {&vm};

	(void)fake;
	if (request->verb_case != DROVER__REQUEST__VERB_LIST)
		return; /* asked for before: nothing changed, nothing reached */
	drover__vm_row__init(&vm);
	vm.name = word("v");
	vm.state = word(++polls > 3 ? "stopped" : "running");
	vm.error = word(polls > 3 ? "" : "does not react");
	response->vms = vms;
	response->n_vms = 1;
}

static void test_wait_stop_again(void **state)
{
	struct fake f;

	(void)state;
	polls = 0;
	fake_init(&f, answer_stop);
	assert_int_equal(run(&f, "vm stop v --wait"), 0);
	assert_int_equal(polls, 4);
	assert_non_null(strstr(f.out_text, "running: does not react"));
	assert_non_null(strstr(f.out_text, "VM v: stopped"));
	fake_fini(&f);
}

static void answer_events(struct fake *fake, const Drover__Request *request, Drover__Response *response)
{
	static Drover__EventRow rows[3], *events[3] = {&rows[0], &rows[1], &rows[2]};
	uint64_t newest = fake->n_exchanges >= 4 ? 12 : 10;

	response->index = newest;
	for (uint64_t i = request->list->since_index + 1; i <= newest && response->n_events < 3; i++) {
		Drover__EventRow *e = &rows[response->n_events];

		if (request->list->most == 1)
			i = newest;
		drover__event_row__init(e);
		e->index = i;
		e->time_utc_us = 1795173893000000;
		e->kind = word("move");
		e->text = word("something");
		response->n_events++;
	}
	response->events = events;
}

static void test_follow(void **state)
{
	struct fake f;

	(void)state;
	fake_init(&f, answer_events);
	assert_int_equal(run(&f, "event follow --json --timeout 3s"), 5);
	/* Only what came after the start, each once, an object a line. */
	assert_ptr_equal(strstr(f.out_text, "{"), f.out_text);
	assert_non_null(strstr(f.out_text, "\"index\":11"));
	assert_non_null(strstr(f.out_text, "\"index\":12"));
	assert_null(strstr(f.out_text, "\"index\":10"));
	assert_null(strstr(strstr(f.out_text, "\"index\":12") + 1, "\"index\":12"));
	fake_fini(&f);
}

static void test_complete(void **state)
{
	struct fake f;

	(void)state;
	fake_init(&f, answer_ok);
	assert_int_equal(fake_run(&f, "__complete no"), 0);
	assert_string_equal(f.out_text, "node\n");
	fake_fini(&f);

	fake_init(&f, answer_vm);
	assert_int_equal(fake_run(&f, "__complete vm show v"), 0);
	assert_string_equal(f.out_text, "v\n");
	assert_int_equal(fake_request(&f, 0)->list->what, DROVER__LIST_REQUEST__WHAT__VMS);
	fake_fini(&f);

	fake_init(&f, answer_ok);
	assert_int_equal(fake_run(&f, "__complete node drain n1 --wa"), 0);
	assert_string_equal(f.out_text, "--wait\n");
	fake_fini(&f);

	fake_init(&f, answer_ok);
	assert_int_equal(fake_run(&f, "__complete vm add v --accel t"), 0);
	assert_string_equal(f.out_text, "tcg\n");
	fake_fini(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_id),		  cmocka_unit_test(test_new_id),
		cmocka_unit_test(test_deadline),	  cmocka_unit_test(test_nobody),
		cmocka_unit_test(test_refusal),		  cmocka_unit_test(test_wait_drain),
		cmocka_unit_test(test_wait_json),	  cmocka_unit_test(test_wait_nothing),
		cmocka_unit_test(test_wait_view),	  cmocka_unit_test(test_wait_json_failed),
		cmocka_unit_test(test_wait_move_refused), cmocka_unit_test(test_wait_vm),
		cmocka_unit_test(test_wait_stop_again),	  cmocka_unit_test(test_follow),
		cmocka_unit_test(test_complete),	  cmocka_unit_test(test_confirmed_boot),
		cmocka_unit_test(test_unknown_boot),
	};

	return cmocka_run_group_tests(tests, conf_write, conf_remove);
}
