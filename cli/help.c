/* Help at each level, made from the same tables that the parser reads. */
#include <string.h>

#include "cli/cli.h"
#include "cli/text.h"

#define HELP_COLUMN 32

static void options_print(FILE *out, const struct cli_verb *verb, bool own)
{
	const struct cli_option *o;
	size_t n_global = 0;
	size_t n_all = 0;

	while (cli_option_at(NULL, n_global) != NULL)
		n_global++;
	while (cli_option_at(verb, n_all) != NULL)
		n_all++;
	for (size_t i = 0; (o = cli_option_at(verb, i)) != NULL; i++) {
		char left[80];

		if ((i < n_all - n_global) != own)
			continue;
		snprintf(left, sizeof(left), "--%s%s%s", o->name, o->value != NULL ? " " : "",
			 o->value != NULL ? o->value : "");
		fprintf(out, "  %s", left);
		if (text_width(left) > HELP_COLUMN)
			fprintf(out, "\n%*s", HELP_COLUMN + 3, "");
		else
			fprintf(out, "%*s", (int)(HELP_COLUMN + 1 - text_width(left)), "");
		fprintf(out, "%s%s%s\n", o->help, o->repeats ? " (may repeat)" : "",
			o->later ? " (not supported yet)" : "");
	}
}

static void verb_line(FILE *out, const struct cli_noun *noun, const struct cli_verb *verb)
{
	fprintf(out, "drover %s", noun->name);
	if (verb->name[0] != '\0')
		fprintf(out, " %s", verb->name);
	for (size_t i = 0; i < CLI_ARGS_MAX && verb->args[i].name != NULL; i++) {
		fprintf(out, verb->args[i].optional ? " [%s]" : " %s", verb->args[i].name);
		if (verb->args[i].repeats)
			fputs("…", out);
	}
}

static void verb_help(FILE *out, const struct cli_noun *noun, const struct cli_verb *verb)
{
	verb_line(out, noun, verb);
	fprintf(out, " [OPTIONS]\n\n%s%s\n", verb->summary,
		(verb->flags & VERB_LATER) != 0 ? " (not supported yet)" : "");
	if (verb->example != NULL)
		fprintf(out, "\nExample:\n  %s\n", verb->example);
	if (cli_option_at(verb, 0) != cli_option_at(NULL, 0)) {
		fputs("\nOptions:\n", out);
		options_print(out, verb, true);
	}
	fputs("\nCommon options:\n", out);
	options_print(out, verb, false);
}

static void noun_help(FILE *out, const struct cli_noun *noun)
{
	fprintf(out, "drover %s VERB\n\n%s\n\n", noun->name, noun->summary);
	for (size_t i = 0; i < noun->n_verbs; i++) {
		const struct cli_verb *verb = &noun->verbs[i];

		fputs("  ", out);
		verb_line(out, noun, verb);
		fprintf(out, "\n        %s%s\n", verb->summary,
			(verb->flags & VERB_LATER) != 0 ? " (not supported yet)" : "");
	}
	fprintf(out, "\n\"drover %s VERB --help\" shows the options of a verb.\n", noun->name);
}

static void top_help(FILE *out)
{
	fputs("drover [OPTIONS] NOUN VERB [ARGS] [OPTIONS]\n\n"
	      "Moves running virtual machines between hosts and empties hosts for maintenance.\n\n"
	      "  drover node drain node1 --wait     move every VM off node1\n"
	      "  drover node resume node1           let node1 take VMs again\n"
	      "  drover vm list                     what runs where\n\nNouns:\n",
	      out);
	for (size_t i = 0; i < cli_n_nouns; i++)
		fprintf(out, "  %-10s %s\n", cli_nouns[i]->name, cli_nouns[i]->summary);
	fputs("\nOptions:\n", out);
	options_print(out, NULL, false);
	fputs("\n\"drover NOUN --help\" lists the verbs of a noun.\n"
	      "Exit: 0 done, 1 failed, 2 usage, 3 no quorum, 4 not found, 5 timeout, 6 refused, 7 no daemon, "
	      "8 authentication.\n",
	      out);
}

void cli_help(FILE *out, const struct cli_parsed *p)
{
	if (p->verb != NULL)
		verb_help(out, p->noun, p->verb);
	else if (p->noun != NULL)
		noun_help(out, p->noun);
	else
		top_help(out);
}
