#include <inttypes.h>
#include <string.h>

#include "cli/cli.h"
#include "common/names.h"
#include "common/units.h"

/* Behind any verb, and before the noun. */
static const struct cli_option global_options[] = {
	{.name = "json", .kind = OPT_FLAG, .help = "print one JSON object instead of text"},
	{.name = "connect",
	 .kind = OPT_TEXT,
	 .value = "unix:PATH|HOST[:PORT]",
	 .help = "the coordinator to ask"},
	{.name = "timeout",
	 .kind = OPT_DURATION,
	 .value = "D",
	 .help = "give up waiting after D (30s; none with --wait)"},
	{.name = "key-file", .kind = OPT_TEXT, .value = "FILE", .help = "cluster key, for HOST addresses"},
	{.name = "config", .kind = OPT_TEXT, .value = "FILE", .help = "instead of " CONF_PATH},
	{.name = "help", .kind = OPT_FLAG, .help = "show this help"},
	{.name = "version", .kind = OPT_FLAG, .help = "show the version"},
	{0},
};

static const struct cli_option wait_option = {
	.name = "wait",
	.kind = OPT_FLAG,
	.help = "follow the work until it ends; exit 0 only if all of it went well"};
static const struct cli_option dry_run_option = {
	.name = "dry-run", .kind = OPT_FLAG, .help = "check everything, change nothing"};

const struct cli_option *cli_option_at(const struct cli_verb *verb, size_t i)
{
	if (verb != NULL) {
		for (const struct cli_option *o = verb->options; o != NULL && o->name != NULL; o++) {
			if (i-- == 0)
				return o;
		}
		if ((verb->flags & VERB_WAITS) != 0 && i-- == 0)
			return &wait_option;
		if ((verb->flags & VERB_MUTATES) != 0 && i-- == 0)
			return &dry_run_option;
	}
	return i < DR_ARRAY_SIZE(global_options) - 1 ? &global_options[i] : NULL;
}

const struct cli_noun *cli_noun_find(const char *name)
{
	for (size_t i = 0; i < cli_n_nouns; i++) {
		if (strcmp(cli_nouns[i]->name, name) == 0)
			return cli_nouns[i];
	}
	return NULL;
}

const struct cli_verb *cli_verb_find(const struct cli_noun *noun, const char *name)
{
	for (size_t i = 0; i < noun->n_verbs; i++) {
		if (strcmp(noun->verbs[i].name, name) == 0)
			return &noun->verbs[i];
	}
	return NULL;
}

#define WORDS_MAX 64

/* "unknown WHAT "word"[: did you mean "x"?] (WHERE lists them)". */
static int unknown(struct dr_error *err, const char *what, const char *word, const char *const *words,
		   size_t n, const char *where)
{
	const char *nearest = names_nearest(word, words, n);

	if (nearest != NULL)
		return dr_error_set(err, DR_EUSAGE,
				    "unknown %s \"%.60s\": did you mean \"%s\"? (\"%s\" lists them)", what,
				    word, nearest, where);
	return dr_error_set(err, DR_EUSAGE, "unknown %s \"%.60s\" (\"%s\" lists them)", what, word, where);
}

static int noun_unknown(struct dr_error *err, const char *word)
{
	const char *words[WORDS_MAX];
	size_t n = 0;

	for (size_t i = 0; i < cli_n_nouns && n < WORDS_MAX; i++)
		words[n++] = cli_nouns[i]->name;
	return unknown(err, "noun", word, words, n, "drover --help");
}

static int verb_unknown(struct dr_error *err, const struct cli_noun *noun, const char *word)
{
	const char *words[WORDS_MAX];
	char where[64];
	size_t n = 0;

	for (size_t i = 0; i < noun->n_verbs && n < WORDS_MAX; i++)
		words[n++] = noun->verbs[i].name;
	snprintf(where, sizeof(where), "drover %s --help", noun->name);
	return unknown(err, "verb", word, words, n, where);
}

static int option_unknown(struct dr_error *err, const struct cli_parsed *p, const char *word)
{
	const char *words[WORDS_MAX];
	char names[WORDS_MAX][40];
	char where[96];
	const struct cli_option *o;
	size_t n = 0;

	for (size_t i = 0; n < WORDS_MAX && (o = cli_option_at(p->verb, i)) != NULL; i++) {
		snprintf(names[n], sizeof(names[n]), "--%s", o->name);
		words[n] = names[n];
		n++;
	}
	snprintf(where, sizeof(where), "drover%s%s%s%s --help", p->noun != NULL ? " " : "",
		 p->noun != NULL ? p->noun->name : "", p->verb != NULL ? " " : "",
		 p->verb != NULL ? p->verb->name : "");
	return unknown(err, "option", word, words, n, where);
}

static int id_refuse(const char *text, struct dr_error *err)
{
	return dr_error_set(err, DR_EUSAGE, "\"%.60s\" is no id: give a positive whole number, such as 17",
			    text);
}

/* Checks the form of a word that stands for an object; *id is set for ids. */
static int object_check(enum cli_object object, const char *text, uint64_t *id, struct dr_error *err)
{
	bool digits = text[0] != '\0' && strspn(text, "0123456789") == strlen(text);

	*id = 0;
	switch (object) {
	case OBJ_NODE:
		return names_check(text, "node", err);
	case OBJ_VM:
		return names_check(text, "VM", err);
	case OBJ_NETWORK:
		return names_check(text, "network", err);
	case OBJ_DRAIN_OR_NODE:
		if (!digits)
			return names_check(text, "node", err);
		return units_number_parse(text, 1, INT64_MAX, id, NULL) < 0 ? id_refuse(text, err) : 0;
	case OBJ_DRAIN:
	case OBJ_MOVE:
	case OBJ_PLAN:
		if (!digits || units_number_parse(text, 1, INT64_MAX, id, NULL) < 0)
			return id_refuse(text, err);
		return 0;
	case OBJ_TEXT:
	case OBJ_RANK:
	case OBJ_FILE:
	case OBJ_ADDRESS:
		if (text[0] == '\0')
			return dr_error_set(err, DR_EUSAGE, "an empty word is not possible here");
		return 0;
	}
	return -DR_EBUG;
}

static int choice_check(const struct cli_option *o, const char *text, struct dr_error *err)
{
	char forms[256] = "";

	for (const struct cli_word *w = o->words; w->word != NULL; w++) {
		size_t len = strlen(forms);

		if (strcmp(w->word, text) == 0) {
			if (w->later)
				return dr_error_set(err, DR_EUSAGE, "\"%s\" is not supported yet", text);
			return 0;
		}
		snprintf(forms + len, sizeof(forms) - len, "%s%s", len > 0 ? "|" : "", w->word);
	}
	return dr_error_set(err, DR_EUSAGE, "\"%.60s\" is not possible: give %s", text, forms);
}

static int priority_check(const char *text, uint64_t *number, struct dr_error *err)
{
	static const struct {
		const char *word;
		uint64_t number;
	} words[] = {{"none", 0}, {"low", 1000}, {"medium", 2000}, {"high", 3000}};

	for (size_t i = 0; i < DR_ARRAY_SIZE(words); i++) {
		if (strcmp(words[i].word, text) == 0) {
			*number = words[i].number;
			return 0;
		}
	}
	if (units_number_parse(text, 0, 3000, number, NULL) < 0)
		return dr_error_set(err, DR_EUSAGE,
				    "\"%.60s\" is no priority: give 0..3000, low, medium, high or none",
				    text);
	return 0;
}

static int onoff_check(const char *text, uint64_t *number, struct dr_error *err)
{
	*number = strcmp(text, "on") == 0;
	if (*number == 0 && strcmp(text, "off") != 0)
		return dr_error_set(err, DR_EUSAGE, "\"%.60s\" is not possible: give on or off", text);
	return 0;
}

static int value_check(const struct cli_option *o, const char *text, uint64_t *number, struct dr_error *err)
{
	bool none = strcmp(text, "none") == 0;

	*number = 0;
	if (o->later)
		return dr_error_set(err, DR_EUSAGE, "not supported yet");
	switch (o->kind) {
	case OPT_FLAG:
	case OPT_ONOFF:
		return onoff_check(text, number, err);
	case OPT_TEXT:
		return object_check(OBJ_TEXT, text, number, err);
	case OPT_OBJECT:
		return object_check(o->object, text, number, err);
	case OPT_SIZE:
		return units_size_parse(text, number, err);
	case OPT_RATE:
		return units_rate_parse(text, number, err);
	case OPT_RATE_OR_NONE:
		if (none)
			return 0;
		if (units_rate_parse(text, number, err) < 0)
			return -DR_EUSAGE;
		if (*number == 0)
			return dr_error_set(err, DR_EUSAGE,
					    "\"%s\" would stop every move: give a rate, or none", text);
		return 0;
	case OPT_DURATION:
		return units_duration_parse(text, number, err);
	case OPT_NUMBER:
		return units_number_parse(text, o->least, o->most, number, err);
	case OPT_NUMBER_OR_NONE:
		return none ? 0 : units_number_parse(text, o->least, o->most, number, err);
	case OPT_PRIORITY:
		return priority_check(text, number, err);
	case OPT_CHOICE:
		return choice_check(o, text, err);
	case OPT_SINCE:
		if (units_time_parse(text, number, NULL) == 0 ||
		    units_duration_parse(text, number, NULL) == 0)
			return 0;
		return dr_error_set(
			err, DR_EUSAGE,
			"\"%.60s\" is no time: give 2026-11-20T11:24:53Z, or how long ago, such as 10m",
			text);
	}
	return -DR_EBUG;
}

static int value_add(struct cli *cli, struct cli_parsed *p, const struct cli_option *o, const char *text,
		     struct dr_error *err)
{
	struct cli_value *grown;
	struct cli_value value = {.option = o, .text = text};
	int rc = value_check(o, text, &value.number, err);

	if (rc < 0) {
		dr_error_prefix(err, "--%s", o->name);
		return rc;
	}
	if (!o->repeats && cli_value(p, o->name) != NULL)
		return dr_error_set(err, DR_EUSAGE, "--%s was given twice", o->name);
	grown = arena_alloc(&cli->arena, (p->n_values + 1) * sizeof(*grown));
	if (p->n_values > 0)
		memcpy(grown, p->values, p->n_values * sizeof(*grown));
	grown[p->n_values++] = value;
	p->values = grown;
	return 0;
}

/* argv[*i] begins with "--"; takes its value too. */
static int option_take(struct cli *cli, int argc, const char *const *argv, int *i, struct cli_parsed *p,
		       struct dr_error *err)
{
	const char *word = argv[*i] + 2;
	const char *equals = strchr(word, '=');
	const char *name = equals != NULL ? arena_strndup(&cli->arena, word, (size_t)(equals - word)) : word;
	const struct cli_option *o;

	for (size_t n = 0; (o = cli_option_at(p->verb, n)) != NULL; n++) {
		if (strcmp(o->name, name) == 0)
			break;
	}
	if (o == NULL)
		return option_unknown(err, p, arena_printf(&cli->arena, "--%s", name));
	if (equals != NULL)
		return value_add(cli, p, o, equals + 1, err);
	if (o->kind == OPT_FLAG)
		return value_add(cli, p, o, "on", err);
	if (o->later)
		return dr_error_set(err, DR_EUSAGE, "--%s: not supported yet", o->name);
	if (*i + 1 >= argc)
		return dr_error_set(err, DR_EUSAGE, "--%s needs a value: --%s %s", o->name, o->name,
				    o->value);
	return value_add(cli, p, o, argv[++*i], err);
}

/* A word that is no option: noun, verb or argument. */
static int word_take(struct cli *cli, const char *word, struct cli_parsed *p, struct dr_error *err)
{
	if (p->noun == NULL) {
		p->noun = cli_noun_find(word);
		if (p->noun == NULL)
			return noun_unknown(err, word);
		p->verb = cli_verb_find(p->noun, "");
		return 0;
	}
	if (p->verb == NULL) {
		p->verb = cli_verb_find(p->noun, word);
		return p->verb == NULL ? verb_unknown(err, p->noun, word) : 0;
	}
	p->args = arena_grow(&cli->arena, (void *)p->args, p->n_args, (void *)(uintptr_t)word);
	p->n_args++;
	return 0;
}

static int usage(struct dr_error *err, const struct cli_parsed *p, const char *problem, const char *word)
{
	char form[160] = "";

	for (const struct cli_arg *a = p->verb->args; a < p->verb->args + CLI_ARGS_MAX && a->name != NULL;
	     a++) {
		size_t len = strlen(form);

		snprintf(form + len, sizeof(form) - len, a->optional ? " [%s]%s" : " %s%s", a->name,
			 a->repeats ? "…" : "");
	}
	return dr_error_set(err, DR_EUSAGE, "%s%.60s: the form is drover %s%s%s%s", problem, word,
			    p->noun->name, p->verb->name[0] != '\0' ? " " : "", p->verb->name, form);
}

static int args_check(struct cli *cli, struct cli_parsed *p, struct dr_error *err)
{
	const struct cli_arg *a = p->verb->args;

	p->ids = arena_alloc(&cli->arena, (p->n_args + 1) * sizeof(*p->ids));
	for (size_t i = 0; i < p->n_args; i++) {
		int rc;

		if (a == p->verb->args + CLI_ARGS_MAX || a->name == NULL)
			return usage(err, p, "one word too many: ", p->args[i]);
		rc = object_check(a->object, p->args[i], &p->ids[i], err);
		if (rc < 0)
			return rc;
		if (!a->repeats || i + 1 == p->n_args)
			a++;
	}
	if (a < p->verb->args + CLI_ARGS_MAX && a->name != NULL && !a->optional)
		return usage(err, p, "missing ", a->name);
	return 0;
}

static void globals_take(struct cli *cli, struct cli_parsed *p)
{
	const struct cli_value *v;

	cli->json = cli->json || cli_flag(p, "json");
	p->help = cli_flag(p, "help");
	p->version = cli_flag(p, "version");
	if ((v = cli_value(p, "connect")) != NULL)
		cli->connect = v->text;
	if ((v = cli_value(p, "key-file")) != NULL)
		cli->key_file = v->text;
	if ((v = cli_value(p, "config")) != NULL)
		cli->config = v->text;
	cli->timeout_ms = cli_number(p, "timeout");
}

int cli_parse(struct cli *cli, int argc, const char *const *argv, struct cli_parsed *p, struct dr_error *err)
{
	bool words_only = false;
	int rc = 0;

	*p = (struct cli_parsed){0};
	for (int i = 0; i < argc && rc == 0; i++) {
		const char *word = argv[i];

		if (!words_only && strcmp(word, "--") == 0)
			words_only = true;
		else if (!words_only && strcmp(word, "-h") == 0)
			rc = value_add(cli, p, cli_option_at(NULL, 5), "on", err);
		else if (!words_only && strncmp(word, "--", 2) == 0)
			rc = option_take(cli, argc, argv, &i, p, err);
		else if (!words_only && word[0] == '-' && word[1] != '\0')
			rc = option_unknown(err, p, word);
		else
			rc = word_take(cli, word, p, err);
	}
	globals_take(cli, p);
	if (rc < 0 || p->help || p->version)
		return rc;
	if (p->noun == NULL)
		return dr_error_set(err, DR_EUSAGE,
				    "say what to do: drover NOUN VERB (\"drover --help\" lists them)");
	if (p->verb == NULL)
		return dr_error_set(
			err, DR_EUSAGE,
			"say what to do with it: drover %s VERB (\"drover %s --help\" lists them)",
			p->noun->name, p->noun->name);
	if ((p->verb->flags & VERB_LATER) != 0)
		return dr_error_set(err, DR_EUSAGE, "drover %s%s%s is not supported yet", p->noun->name,
				    p->verb->name[0] != '\0' ? " " : "", p->verb->name);
	if (cli_value(p, "timeout") != NULL && cli->timeout_ms == 0)
		return dr_error_set(err, DR_EUSAGE, "--timeout: give more than 0, such as 30s");
	return args_check(cli, p, err);
}

const struct cli_value *cli_value(const struct cli_parsed *p, const char *name)
{
	for (size_t i = p->n_values; i > 0; i--) {
		if (strcmp(p->values[i - 1].option->name, name) == 0)
			return &p->values[i - 1];
	}
	return NULL;
}

const char *cli_text(const struct cli_parsed *p, const char *name)
{
	const struct cli_value *v = cli_value(p, name);

	return v != NULL ? v->text : "";
}

uint64_t cli_number(const struct cli_parsed *p, const char *name)
{
	const struct cli_value *v = cli_value(p, name);

	return v != NULL ? v->number : 0;
}

bool cli_flag(const struct cli_parsed *p, const char *name)
{
	return cli_number(p, name) != 0;
}

char **cli_texts(struct cli *cli, const struct cli_parsed *p, const char *name, size_t *n)
{
	char **texts = NULL;

	*n = 0;
	for (size_t i = 0; i < p->n_values; i++) {
		if (strcmp(p->values[i].option->name, name) == 0) {
			texts = arena_grow(&cli->arena, texts, *n,
					   arena_strdup(&cli->arena, p->values[i].text));
			(*n)++;
		}
	}
	return texts;
}

const char *cli_arg(const struct cli_parsed *p, size_t i)
{
	return i < p->n_args ? p->args[i] : "";
}
