/* A write-ahead log as a disk may give it back. */
#include <sys/mman.h>
#include <unistd.h>

#include "coordinator/logdb_wal.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct dr_error err = DR_ERROR_INIT;
	char path[64];
	int fd = memfd_create("wal", MFD_CLOEXEC);
	int ret;

	FUZZ_CHECK(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ret = logdb_wal_check(path, &err);
	FUZZ_CHECK(ret == 0 || (ret == -DR_ECORRUPT && err.text[0] != '\0'));
	close(fd);
	return 0;
}
