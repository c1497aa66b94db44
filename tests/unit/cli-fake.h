/* A transport for tests of the command: answers from a function, virtual time, losses on demand. */
#ifndef DROVER_TESTS_UNIT_CLI_FAKE_H
#define DROVER_TESTS_UNIT_CLI_FAKE_H

#include "cli/cli.h"

#define FAKE_MAX 256

struct fake;
typedef void (*fake_answer_fn)(struct fake *fake, const Drover__Request *request, Drover__Response *response);

struct fake {
	struct transport base;
	struct cli cli;
	char *out_text, *err_text;
	size_t out_size, err_size;
	uint64_t now_ms;
	fake_answer_fn answer;
	const char *dead;     /* substring of addresses where nobody answers */
	const char *refusing; /* substring of addresses that refuse the key */
	/* Exchange i is answered (0), or the connection breaks before (negative code of the exchange). */
	int losses[FAKE_MAX];
	size_t n_exchanges;
	Drover__Request *requests[FAKE_MAX];
	char opened[FAKE_MAX][64];
	size_t n_opened;
};

void fake_init(struct fake *fake, fake_answer_fn answer);
void fake_fini(struct fake *fake);

/* Runs the command with the words of a line (blanks between them); returns the exit status. */
int fake_run(struct fake *fake, const char *line);

/* The request of exchange i, NULL when there was none. */
const Drover__Request *fake_request(const struct fake *fake, size_t i);

#endif
