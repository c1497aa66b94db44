/* Memory that lives as long as one run of the command: requests are built from it and never freed piece by
 * piece. */
#ifndef DROVER_CLI_ARENA_H
#define DROVER_CLI_ARENA_H

#include <stddef.h>

struct arena {
	struct arena_block *blocks;
};

/* Zeroed memory. Ends the program with exit 1 when there is none: nothing has been asked of the cluster yet.
 */
void *arena_alloc(struct arena *arena, size_t size);
char *arena_strndup(struct arena *arena, const char *text, size_t len);
char *arena_strdup(struct arena *arena, const char *text);
char *arena_printf(struct arena *arena, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* An array of n pointers with one more at its end, the old ones copied: for protobuf's repeated fields. */
void *arena_grow(struct arena *arena, void *array, size_t n, void *item);

void arena_free(struct arena *arena);

#endif
