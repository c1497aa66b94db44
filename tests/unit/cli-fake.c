#include "tests/unit/cli-fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct fake *self(struct transport *t)
{
	return (struct fake *)t;
}

static int fake_open(struct transport *t, const char *address, uint64_t deadline_ms, struct dr_error *err)
{
	struct fake *f = self(t);

	(void)deadline_ms;
	if (f->n_opened < FAKE_MAX)
		snprintf(f->opened[f->n_opened++], sizeof(f->opened[0]), "%.63s", address);
	if (f->dead != NULL && strstr(address, f->dead) != NULL)
		return dr_error_set(err, DR_ENODAEMON, "no coordinator answers at %s", address);
	if (f->refusing != NULL && strstr(address, f->refusing) != NULL)
		return dr_error_set(err, DR_EAUTH, "%s: keys differ", address);
	return 0;
}

static void *copy(const ProtobufCMessage *msg)
{
	size_t size = protobuf_c_message_get_packed_size(msg);
	uint8_t *bytes = malloc(size + 1);
	void *made;

	protobuf_c_message_pack(msg, bytes);
	made = protobuf_c_message_unpack(msg->descriptor, NULL, size, bytes);
	free(bytes);
	return made;
}

static int fake_exchange(struct transport *t, const Drover__Request *request, uint64_t deadline_ms,
			 Drover__Response **response, struct dr_error *err)
{
	struct fake *f = self(t);
	Drover__Response answer = DROVER__RESPONSE__INIT;
	size_t i = f->n_exchanges++;

	if (i >= FAKE_MAX)
		return dr_error_set(err, DR_EFAILED, "the test's script is over");
	f->requests[i] = copy(&request->base);
	if (f->losses[i] == -DR_ETIMEOUT)
		f->now_ms = deadline_ms;
	if (f->losses[i] != 0)
		return dr_error_set(err, (enum dr_err) - f->losses[i], "lost");
	answer.id = request->id;
	f->answer(f, request, &answer);
	*response = copy(&answer.base);
	return 0;
}

static void fake_close(struct transport *t)
{
	(void)t;
}

static uint64_t fake_now(struct transport *t)
{
	return self(t)->now_ms;
}

static uint64_t fake_utc(struct transport *t)
{
	return 1795173893000000 + self(t)->now_ms * 1000;
}

static void fake_pause(struct transport *t, uint64_t ms)
{
	self(t)->now_ms += ms;
}

static void fake_random(struct transport *t, void *buf, size_t len)
{
	static uint8_t next = 1;

	(void)t;
	memset(buf, next++, len);
}

static const struct transport_ops fake_ops = {
	.open = fake_open,
	.exchange = fake_exchange,
	.close = fake_close,
	.now_ms = fake_now,
	.utc_us = fake_utc,
	.pause_ms = fake_pause,
	.random = fake_random,
};

void fake_init(struct fake *fake, fake_answer_fn answer)
{
	*fake = (struct fake){.base.ops = &fake_ops, .answer = answer, .now_ms = 1000};
	fake->cli.transport = &fake->base;
	fake->cli.out = open_memstream(&fake->out_text, &fake->out_size);
	fake->cli.err = open_memstream(&fake->err_text, &fake->err_size);
}

void fake_fini(struct fake *fake)
{
	fclose(fake->cli.out);
	fclose(fake->cli.err);
	free(fake->out_text);
	free(fake->err_text);
	for (size_t i = 0; i < fake->n_exchanges && i < FAKE_MAX; i++)
		drover__request__free_unpacked(fake->requests[i], NULL);
	arena_free(&fake->cli.arena);
}

int fake_run(struct fake *fake, const char *line)
{
	char *rest = arena_strdup(&fake->cli.arena, line);
	const char *argv[128];
	char *word;
	int argc = 0;
	int exit;

	while ((word = strsep(&rest, " ")) != NULL && argc < 128) {
		if (word[0] != '\0')
			argv[argc++] = word;
	}
	exit = cli_run(&fake->cli, argc, argv);
	fflush(fake->cli.out);
	fflush(fake->cli.err);
	return exit;
}

const Drover__Request *fake_request(const struct fake *fake, size_t i)
{
	return i < fake->n_exchanges && i < FAKE_MAX ? fake->requests[i] : NULL;
}
