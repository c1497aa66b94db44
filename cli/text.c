#include "cli/text.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

struct text_table {
	size_t n_columns;
	size_t n_cells;
	size_t room;
	char **cells; /* the headings are the first row */
	bool *right;
};

static void no_memory(void)
{
	fputs("drover: out of memory\n", stderr);
	exit(1);
}

static void take_cell(struct text_table *t, char *text)
{
	if (text == NULL)
		no_memory();
	/* What others wrote (errors, descriptions) must not steer the terminal. */
	for (char *p = text; *p != '\0'; p++) {
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = ' ';
	}
	if (t->n_cells == t->room) {
		size_t room = t->room == 0 ? 64 : 2 * t->room;
		char **cells = reallocarray(t->cells, room, sizeof(*cells));

		if (cells == NULL)
			no_memory();
		t->cells = cells;
		t->room = room;
	}
	t->cells[t->n_cells++] = text;
}

struct text_table *text_table_new(const char *const *headings, size_t n)
{
	struct text_table *t = calloc(1, sizeof(*t));

	if (t == NULL)
		no_memory();
	t->n_columns = n;
	t->right = calloc(n, sizeof(*t->right));
	if (t->right == NULL)
		no_memory();
	for (size_t i = 0; i < n; i++) {
		t->right[i] = headings[i][0] == '>';
		take_cell(t, strdup(headings[i] + (t->right[i] ? 1 : 0)));
	}
	return t;
}

void text_table_cell(struct text_table *t, const char *fmt, ...)
{
	char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		no_memory();
	va_end(ap);
	take_cell(t, text);
}

size_t text_width(const char *text)
{
	size_t width = 0;

	for (; *text != '\0'; text++)
		width += ((unsigned char)*text & 0xc0) != 0x80;
	return width;
}

static size_t column_width(const struct text_table *t, size_t column)
{
	size_t widest = 0;

	for (size_t i = column; i < t->n_cells; i += t->n_columns) {
		size_t width = text_width(t->cells[i]);

		if (width > widest)
			widest = width;
	}
	return widest;
}

void text_table_print(const struct text_table *t, FILE *out)
{
	size_t *widths = calloc(t->n_columns, sizeof(*widths));

	if (widths == NULL)
		no_memory();
	for (size_t c = 0; c < t->n_columns; c++)
		widths[c] = column_width(t, c);
	for (size_t row = 0; row + t->n_columns <= t->n_cells; row += t->n_columns) {
		size_t blanks = 0; /* only written when something follows */

		for (size_t c = 0; c < t->n_columns; c++) {
			const char *cell = t->cells[row + c];
			size_t pad = widths[c] - text_width(cell);

			blanks += t->right[c] ? pad : 0;
			if (cell[0] != '\0') {
				fprintf(out, "%*s%s", (int)blanks, "", cell);
				blanks = 0;
			}
			blanks += (t->right[c] ? 0 : pad) + 2;
		}
		fputc('\n', out);
	}
	free(widths);
}

void text_table_free(struct text_table *t)
{
	if (t == NULL)
		return;
	for (size_t i = 0; i < t->n_cells; i++)
		free(t->cells[i]);
	free(t->cells);
	free(t->right);
	free(t);
}

char *text_bar(char buf[TEXT_BAR_MAX], unsigned width, double part)
{
	unsigned full;

	if (width > TEXT_BAR_MAX - 3)
		width = TEXT_BAR_MAX - 3;
	if (!(part > 0))
		part = 0;
	if (part > 1)
		part = 1;
	full = (unsigned)(part * width + 0.5);
	buf[0] = '[';
	memset(buf + 1, '#', full);
	memset(buf + 1 + full, '-', width - full);
	buf[width + 1] = ']';
	buf[width + 2] = '\0';
	return buf;
}
