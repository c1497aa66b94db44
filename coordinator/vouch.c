#include "coordinator/vouch.h"

#include <string.h>

int vouch_init(struct vouch *v, struct logdb *log, uint64_t self, struct dr_error *err)
{
	uint64_t vote = 0;
	int n;

	memset(v, 0, sizeof(*v));
	v->own.member = self;
	v->own.index = logdb_last(log);
	v->mute = true;
	n = logdb_vote_get(log, &v->own.term, &vote, err);
	if (n == 0)
		n = logdb_seen_get(log, v->seen, VOUCH_MEMBERS, err);
	if (n < 0)
		return n;
	v->n_seen = (unsigned)n;
	return 0;
}

static uint64_t larger(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static struct logdb_seen *find(struct vouch *v, uint64_t member)
{
	for (unsigned i = 0; i < v->n_seen; i++)
		if (v->seen[i].member == member)
			return &v->seen[i];
	return NULL;
}

bool vouch_note(struct vouch *v, struct logdb_seen *seen)
{
	struct logdb_seen *known = find(v, seen->member);

	if (seen->index == 0 || seen->member == v->own.member)
		return false;
	if (known == NULL) {
		if (v->n_seen == VOUCH_MEMBERS)
			return false;
		known = &v->seen[v->n_seen++];
		*known = *seen;
		return true;
	}
	if (seen->index <= known->index && seen->term <= known->term)
		return false;
	known->index = larger(known->index, seen->index);
	known->term = larger(known->term, seen->term);
	*seen = *known;
	return true;
}

void vouch_hint(struct vouch *v, const struct logdb_seen *hint)
{
	struct logdb_seen *known = find(v, hint->member);
	struct logdb_seen *h;

	if (hint->member == 0 || hint->member == v->own.member)
		return;
	if (known == NULL) {
		if (v->n_seen == VOUCH_MEMBERS)
			return;
		known = &v->seen[v->n_seen++];
		*known = (struct logdb_seen){.member = hint->member};
	}
	h = &v->hint[known - v->seen];
	h->index = larger(h->index, hint->index);
	h->term = larger(h->term, hint->term);
}

struct logdb_seen vouch_known(const struct vouch *v, unsigned i)
{
	return (struct logdb_seen){.member = v->seen[i].member,
				   .index = larger(v->seen[i].index, v->hint[i].index),
				   .term = larger(v->seen[i].term, v->hint[i].term)};
}

static bool has_heard(const struct vouch *v, uint64_t member)
{
	for (unsigned i = 0; i < v->n_heard; i++)
		if (v->heard[i] == member)
			return true;
	return false;
}

bool vouch_heard(struct vouch *v, uint64_t from, const struct logdb_seen *about)
{
	if (!v->mute)
		return true;
	if (about != NULL && (about->index > v->own.index || about->term > v->own.term))
		return false;
	if (!has_heard(v, from) && v->n_heard < VOUCH_MEMBERS)
		v->heard[v->n_heard++] = from;
	return true;
}

bool vouch_enough(const struct vouch *v, const struct consensus_member *members, unsigned n)
{
	unsigned voters = 0, heard = 0;
	bool votes = false;

	for (unsigned i = 0; i < n; i++) {
		bool self = members[i].id == v->own.member;

		if (members[i].role != MEMBER_VOTER)
			continue;
		voters++;
		votes = votes || self;
		heard += self || has_heard(v, members[i].id);
	}
	return votes && heard * 2 > voters;
}
