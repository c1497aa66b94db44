/* Scope cleanup: the attribute frees, closes or unlocks when the variable leaves its scope. */
#ifndef DROVER_COMMON_CLEANUP_H
#define DROVER_COMMON_CLEANUP_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define DR_CLEANUP(fn) __attribute__((cleanup(fn)))

static inline void dr_cleanup_free(void *p)
{
	free(*(void **)p);
}

static inline void dr_cleanup_fd(const int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void dr_cleanup_file(FILE **f)
{
	if (*f != NULL)
		fclose(*f);
}

#define DR_AUTO_FREE DR_CLEANUP(dr_cleanup_free)
#define DR_AUTO_FD   DR_CLEANUP(dr_cleanup_fd)
#define DR_AUTO_FILE DR_CLEANUP(dr_cleanup_file)

/* Hands the value on and leaves nothing to clean up. */
#define DR_TAKE_PTR(p)                                                                                       \
	({                                                                                                   \
		__typeof__(p) dr_taken = (p);                                                                \
		(p) = NULL;                                                                                  \
		dr_taken;                                                                                    \
	})
#define DR_TAKE_FD(fd)                                                                                       \
	({                                                                                                   \
		int dr_taken = (fd);                                                                         \
		(fd) = -1;                                                                                   \
		dr_taken;                                                                                    \
	})

#define DR_ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#endif
