/*
 * The command `drover`: nouns, verbs and options are tables (INTERFACE §2). A verb turns its parsed words
 * into a drover.Request and a drover.Response into JSON or text; everything between is the same for all of
 * them.
 */
#ifndef DROVER_CLI_CLI_H
#define DROVER_CLI_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "cli/arena.h"
#include "cli/transport.h"
#include "common/cleanup.h"
#include "common/conf.h"
#include "common/error.h"
#include "proto/drover.pb-c.h"

#define CLI_TIMEOUT_MS	  30000 /* of one request, unless --timeout says otherwise */
#define CLI_ADDRESSES_MAX (CONF_CONNECT_MAX + 1)

/* What a word stands for: its form is checked and bash completes it. */
enum cli_object {
	OBJ_TEXT,
	OBJ_NODE,
	OBJ_VM,
	OBJ_NETWORK,
	OBJ_DRAIN,
	OBJ_MOVE,
	OBJ_PLAN,
	OBJ_DRAIN_OR_NODE,
	OBJ_RANK, /* NET=RANK */
	OBJ_FILE,
	OBJ_ADDRESS,
};

enum cli_kind {
	OPT_FLAG, /* --x; also --x=on, --x=off */
	OPT_TEXT,
	OPT_OBJECT, /* checked as .object says */
	OPT_SIZE,
	OPT_RATE,
	OPT_RATE_OR_NONE, /* none = 0 */
	OPT_DURATION,
	OPT_NUMBER,	    /* from .least to .most */
	OPT_NUMBER_OR_NONE, /* none = 0 */
	OPT_PRIORITY,
	OPT_CHOICE,
	OPT_ONOFF, /* number = 1 or 0 */
	OPT_SINCE, /* a time, or a duration before now; number = UTC µs, or ms back with .text */
};

struct cli_word {
	const char *word;
	bool later; /* right, but not supported yet */
};

struct cli_option {
	const char *name;
	enum cli_kind kind;
	const char *value; /* how help calls it: "SIZE" */
	const char *help;
	enum cli_object object;
	uint64_t least, most;
	const struct cli_word *words; /* OPT_CHOICE: ends with a NULL word */
	bool repeats;
	bool later; /* not supported yet */
};

struct cli_arg {
	const char *name; /* as help shows it */
	enum cli_object object;
	bool optional;
	bool repeats; /* the last one only */
};

struct cli_value {
	const struct cli_option *option;
	const char *text;
	uint64_t number;
};

struct cli;
struct cli_parsed;

typedef int (*cli_build_fn)(struct cli *cli, const struct cli_parsed *p, Drover__Request *req,
			    struct dr_error *err);
typedef json_t *(*cli_json_fn)(const struct cli_parsed *p, const Drover__Response *resp);
typedef void (*cli_show_fn)(FILE *out, const struct cli_parsed *p, const Drover__Response *resp);
typedef int (*cli_local_fn)(struct cli *cli, const struct cli_parsed *p, struct dr_error *err);

enum {
	VERB_MUTATES =
		1,	/* takes --dry-run; repeated with the same id after a lost connection (SAFETY R13) */
	VERB_WAITS = 2, /* takes --wait */
	VERB_LATER = 4, /* not supported yet */
};

#define CLI_ARGS_MAX 3

struct cli_verb {
	const char *name; /* "": the noun stands alone */
	const char *summary;
	struct cli_arg args[CLI_ARGS_MAX]; /* ends with a NULL name */
	const struct cli_option *options;  /* ends with a NULL name */
	unsigned flags;
	cli_build_fn build;
	cli_json_fn json;   /* NULL: json_changed */
	cli_show_fn show;   /* NULL: show_changed */
	cli_local_fn local; /* runs instead of a request */
	const char *example;
	uint64_t timeout_ms; /* without --timeout; 0: CLI_TIMEOUT_MS */
};

struct cli_noun {
	const char *name;
	const char *summary;
	const struct cli_verb *verbs;
	size_t n_verbs;
};

struct cli_parsed {
	const struct cli_noun *noun;
	const struct cli_verb *verb;
	const char **args;
	uint64_t *ids; /* of arguments that are ids */
	size_t n_args;
	struct cli_value *values;
	size_t n_values;
	bool help;
	bool version;
};

struct cli {
	FILE *out;
	FILE *err;
	bool out_tty;
	bool json;
	const char *connect;
	const char *key_file;
	const char *config;
	uint64_t timeout_ms; /* 0: not given */
	struct arena arena;
	struct dr_conf conf;
	struct transport *transport;
	/* call.c */
	char addresses[CLI_ADDRESSES_MAX][CONF_VALUE_MAX + NAMES_ADDRESS];
	size_t n_addresses;
	size_t address; /* tried first */
	bool connected;
	bool ever_connected;
};

extern const struct cli_noun *const cli_nouns[];
extern const size_t cli_n_nouns;
extern const struct cli_noun cluster_noun, node_noun, vm_noun, network_noun, limit_noun, drain_noun,
	move_noun, update_noun, event_noun, history_noun, top_noun;

/* parse.c: words to *p (arrays in cli's arena). 0 or -DR_EUSAGE. argv without the program's name. */
int cli_parse(struct cli *cli, int argc, const char *const *argv, struct cli_parsed *p, struct dr_error *err);
const struct cli_noun *cli_noun_find(const char *name);
const struct cli_verb *cli_verb_find(const struct cli_noun *noun, const char *name);
/* The i-th option that can stand behind this verb (its own, then the common ones); NULL after the last. */
const struct cli_option *cli_option_at(const struct cli_verb *verb, size_t i);

/* The value of an option, NULL when it was not given (the last one counts). */
const struct cli_value *cli_value(const struct cli_parsed *p, const char *name);
const char *cli_text(const struct cli_parsed *p, const char *name); /* "" when not given */
uint64_t cli_number(const struct cli_parsed *p, const char *name);  /* 0 when not given */
bool cli_flag(const struct cli_parsed *p, const char *name);
/* Every value of an option that may repeat, as protobuf's repeated string. */
char **cli_texts(struct cli *cli, const struct cli_parsed *p, const char *name, size_t *n);
const char *cli_arg(const struct cli_parsed *p, size_t i); /* "" when not given */

/* help.c */
void cli_help(FILE *out, const struct cli_parsed *p);

/* run.c: one whole run; what to print goes to cli->out and cli->err. Returns the exit status. */
int cli_run(struct cli *cli, int argc, const char *const *argv);
/* As cli_run, on the real machine. */
int cli_main(int argc, char **argv);
/* Prints a failure (text or JSON) and returns its exit status. */
int cli_fail(struct cli *cli, const struct dr_error *err, char *const *objects, size_t n_objects);
void cli_print_json(struct cli *cli, json_t *take_json);

/* complete.c: `drover __complete WORDS…` prints what can stand for the last word, a line each. */
int cli_complete(struct cli *cli, int argc, const char *const *argv);

#endif
