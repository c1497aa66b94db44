/*
 * Preloaded into a coordinator by tests/bench/commit: counts its fsyncs, as a 64-bit number in the file that
 * DROVER_SYNCS_FILE names.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static _Atomic uint64_t *count;

__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("DROVER_SYNCS_FILE");
	int fd = path != NULL ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
	void *at;

	if (fd < 0)
		return;
	if (ftruncate(fd, sizeof(*count)) == 0) {
		at = mmap(NULL, sizeof(*count), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		count = at != MAP_FAILED ? at : NULL;
	}
	close(fd);
}

static int counted(const char *name, int fd)
{
	int (*real)(int) = (int (*)(int))(uintptr_t)dlsym(RTLD_NEXT, name);

	if (count != NULL)
		atomic_fetch_add(count, 1);
	return real(fd);
}

int fsync(int fd)
{
	return counted("fsync", fd);
}

int fdatasync(int fd)
{
	return counted("fdatasync", fd);
}
