#include "coordinator/figures.h"

#include <stdlib.h>

#include "common/cleanup.h"

struct figure {
	Drover__MoveFact *fact;
	uint64_t heard_us;
};

struct figures {
	struct figure all[FIGURES_MAX];
	unsigned n;
};

struct figures *figures_new(void)
{
	return calloc(1, sizeof(struct figures));
}

void figures_free(struct figures *f)
{
	if (f == NULL)
		return;
	for (unsigned i = 0; i < f->n; i++)
		drover__move_fact__free_unpacked(f->all[i].fact, NULL);
	free(f);
}

static Drover__MoveFact *copy_fact(const Drover__MoveFact *fact)
{
	size_t size = drover__move_fact__get_packed_size(fact);
	DR_AUTO_FREE uint8_t *bytes = malloc(size + 1);

	if (bytes == NULL)
		return NULL;
	drover__move_fact__pack(fact, bytes);
	return drover__move_fact__unpack(NULL, size, bytes);
}

/* The place of a side of an attempt; else a new one; else that of the one heard longest ago. */
static struct figure *place_of(struct figures *f, const Drover__MoveFact *fact)
{
	struct figure *oldest = &f->all[0];

	for (unsigned i = 0; i < f->n; i++) {
		const Drover__MoveFact *have = f->all[i].fact;

		if (have->move == fact->move && have->attempt == fact->attempt && have->role == fact->role)
			return &f->all[i];
		if (f->all[i].heard_us < oldest->heard_us)
			oldest = &f->all[i];
	}
	return f->n < FIGURES_MAX ? &f->all[f->n++] : oldest;
}

void figures_progress(struct figures *f, const Drover__Progress *progress, uint64_t now_us)
{
	for (size_t i = 0; i < progress->n_moves; i++) {
		Drover__MoveFact *copy = copy_fact(progress->moves[i]);
		struct figure *place;

		if (copy == NULL)
			return;
		place = place_of(f, copy);
		if (place->fact != NULL)
			drover__move_fact__free_unpacked(place->fact, NULL);
		place->fact = copy;
		place->heard_us = now_us;
	}
}

const Drover__MoveFact *figures_move(const struct figures *f, uint64_t move, uint32_t attempt,
				     Drover__MoveRole role)
{
	for (unsigned i = 0; i < f->n; i++) {
		const Drover__MoveFact *fact = f->all[i].fact;

		if (fact->move == move && fact->attempt == attempt && fact->role == role)
			return fact;
	}
	return NULL;
}
