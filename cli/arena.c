#include "cli/arena.h"

#include <stdalign.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct arena_block {
	struct arena_block *next;
	alignas(max_align_t) char bytes[];
};

static void no_memory(void)
{
	fputs("drover: out of memory\n", stderr);
	exit(1);
}

void *arena_alloc(struct arena *arena, size_t size)
{
	struct arena_block *block = calloc(1, sizeof(*block) + size);

	if (block == NULL)
		no_memory();
	block->next = arena->blocks;
	arena->blocks = block;
	return block->bytes;
}

char *arena_strndup(struct arena *arena, const char *text, size_t len)
{
	char *copy = arena_alloc(arena, len + 1);

	memcpy(copy, text, len);
	return copy;
}

char *arena_strdup(struct arena *arena, const char *text)
{
	return arena_strndup(arena, text, strlen(text));
}

char *arena_printf(struct arena *arena, const char *fmt, ...)
{
	char *text = NULL;
	char *copy;
	va_list ap;
	int len;

	va_start(ap, fmt);
	len = vasprintf(&text, fmt, ap);
	va_end(ap);
	if (len < 0)
		no_memory();
	copy = arena_strndup(arena, text, (size_t)len);
	free(text);
	return copy;
}

void *arena_grow(struct arena *arena, void *array, size_t n, void *item)
{
	void **grown = arena_alloc(arena, (n + 1) * sizeof(*grown));

	if (n > 0)
		memcpy(grown, array, n * sizeof(*grown));
	grown[n] = item;
	return grown;
}

void arena_free(struct arena *arena)
{
	while (arena->blocks != NULL) {
		struct arena_block *block = arena->blocks;

		arena->blocks = block->next;
		free(block);
	}
}
