#include "coordinator/logdb_wal.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"

#define WAL_MAGIC     0x377f0682U /* the last bit: checksums are of big-endian words */
#define WAL_PAGE_MIN  512U
#define WAL_PAGE_MAX  65536U
#define WAL_SALT_SIZE 8
#define SECTOR	      512U /* a disk writes one whole or not at all */

struct wal_header {
	uint32_t magic;
	uint32_t version;
	uint32_t page_size;
	uint32_t checkpoint;
	uint8_t salt[WAL_SALT_SIZE];
	uint32_t sum[2];
};

struct wal_frame {
	uint32_t page;
	uint32_t database_pages; /* not 0: the last frame of a transaction */
	uint8_t salt[WAL_SALT_SIZE];
	uint32_t sum[2];
	uint8_t data[];
};

_Static_assert(sizeof(struct wal_header) == 32, "as in the file");
_Static_assert(sizeof(struct wal_frame) == 24, "as in the file");

struct wal {
	const char *path;
	int fd;
	struct wal_header header;
	size_t frame_size;
	struct wal_frame *frame;
	uint32_t sum[2]; /* over everything so far */
};

static void sum_add(struct wal *w, const void *bytes, size_t size)
{
	bool big = (be32toh(w->header.magic) & 1) != 0;

	for (size_t at = 0; at < size; at += 2 * sizeof(uint32_t)) {
		uint32_t word[2];

		memcpy(word, (const uint8_t *)bytes + at, sizeof(word));
		w->sum[0] += (big ? be32toh(word[0]) : le32toh(word[0])) + w->sum[1];
		w->sum[1] += (big ? be32toh(word[1]) : le32toh(word[1])) + w->sum[0];
	}
}

static bool sum_is(const struct wal *w, const uint32_t sum[2])
{
	return be32toh(sum[0]) == w->sum[0] && be32toh(sum[1]) == w->sum[1];
}

static int read_at(const struct wal *w, void *buf, size_t size, off_t at, struct dr_error *err)
{
	ssize_t n = pread(w->fd, buf, size, at);

	if (n < 0)
		return dr_error_errno(err, DR_EIO, errno, "%s: read", w->path);
	return n == (ssize_t)size;
}

/* 1: there is one to go by, 0: the file has no frames. A header fits into a sector, so no crash leaves half
 * of one, and it is synced before the first frame. */
static int read_header(struct wal *w, struct dr_error *err)
{
	uint32_t page;
	uint8_t first;
	int ret = read_at(w, &w->header, sizeof(w->header), 0, err);

	if (ret > 0)
		ret = read_at(w, &first, sizeof(first), sizeof(w->header), err);
	if (ret <= 0)
		return ret;
	page = be32toh(w->header.page_size);
	sum_add(w, &w->header, offsetof(struct wal_header, sum));
	if ((be32toh(w->header.magic) & ~1U) != WAL_MAGIC || !sum_is(w, w->header.sum) ||
	    page < WAL_PAGE_MIN || page > WAL_PAGE_MAX || (page & (page - 1)) != 0)
		return dr_error_set(err, DR_ECORRUPT, "%s: its header fails its checksum", w->path);
	w->frame_size = sizeof(struct wal_frame) + page;
	return 1;
}

static bool frame_is_next(struct wal *w)
{
	const struct wal_frame *f = w->frame;

	sum_add(w, f, offsetof(struct wal_frame, salt));
	sum_add(w, f->data, w->frame_size - sizeof(*f));
	return f->page != 0 && sum_is(w, f->sum);
}

/* The header of a frame that was torn by a crash may be half an old one: where a sector ends in it. */
static bool is_split(off_t at)
{
	return (size_t)at % SECTOR > SECTOR - sizeof(struct wal_frame);
}

static int read_frames(struct wal *w, struct dr_error *err)
{
	bool dropped = false; /* SQLite reads no further than to here */
	bool ended = false;   /* the transaction that it drops is over */
	off_t at = (off_t)sizeof(w->header);
	unsigned long n = 1;
	int ret;

	for (; (ret = read_at(w, w->frame, w->frame_size, at, err)) > 0; at += (off_t)w->frame_size, n++) {
		bool ours = memcmp(w->frame->salt, w->header.salt, WAL_SALT_SIZE) == 0;

		if (!dropped && ours && frame_is_next(w))
			continue;
		dropped = true;
		if (ours && ended)
			return dr_error_set(
				err, DR_ECORRUPT,
				"%s: a frame before number %lu fails its checksum, and is not the torn "
				"end",
				w->path, n);
		ended = ended || (ours && w->frame->database_pages != 0 && !is_split(at));
	}
	return ret;
}

int logdb_wal_check(const char *path, struct dr_error *err)
{
	DR_AUTO_FREE struct wal_frame *frame = NULL;
	DR_AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct wal w = {.path = path, .fd = fd};
	int ret;

	if (fd < 0)
		return errno == ENOENT ? 0 : dr_error_errno(err, DR_EIO, errno, "%s", path);
	ret = read_header(&w, err);
	if (ret <= 0)
		return ret;
	frame = malloc(w.frame_size);
	if (frame == NULL)
		return dr_error_set(err, DR_ENOMEM, "%s: out of memory", path);
	w.frame = frame;
	return read_frames(&w, err);
}
