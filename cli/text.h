/* Aligned tables for people: columns as wide as their widest cell, UTF-8 counted by characters. */
#ifndef DROVER_CLI_TEXT_H
#define DROVER_CLI_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct text_table;

/* headings: "NAME", or ">SIZE" for a column that is aligned to the right. */
struct text_table *text_table_new(const char *const *headings, size_t n);
/* The next cell of the present row, printf-like; a row ends by itself after n cells. */
void text_table_cell(struct text_table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void text_table_print(const struct text_table *t, FILE *out);
void text_table_free(struct text_table *t);

/* Characters, not bytes. */
size_t text_width(const char *text);

/* "[#####-----]" of width cells for part of whole, into buf. */
#define TEXT_BAR_MAX 64
char *text_bar(char buf[TEXT_BAR_MAX], unsigned width, double part);

#endif
