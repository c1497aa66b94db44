/* Gives each file that is named, and each file of each folder that is named, to the fuzzed function once. */
#include <dirent.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/fuzz/fuzz.h"

static unsigned count;

static void replay_file(const char *path)
{
	struct stat st;
	uint8_t *bytes;
	size_t size;
	FILE *in = fopen(path, "rb");

	FUZZ_CHECK(in != NULL && stat(path, &st) == 0);
	/* Not one byte more, so that a sanitizer or valgrind sees what is read behind it. */
	bytes = malloc((size_t)st.st_size > 0 ? (size_t)st.st_size : 1);
	FUZZ_CHECK(bytes != NULL);
	size = fread(bytes, 1, (size_t)st.st_size, in);
	fclose(in);
	LLVMFuzzerTestOneInput(bytes, size);
	free(bytes);
	count++;
}

static void replay_folder(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	char name[4096];

	FUZZ_CHECK(dir != NULL);
	while ((entry = readdir(dir)) != NULL) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		replay_file(name);
	}
	closedir(dir);
}

int main(int argc, char **argv)
{
	struct stat st;

	for (int i = 1; i < argc; i++) {
		FUZZ_CHECK(stat(argv[i], &st) == 0);
		if (S_ISDIR(st.st_mode))
			replay_folder(argv[i]);
		else
			replay_file(argv[i]);
	}
	printf("%u inputs\n", count);
	return count > 0 ? 0 : 1;
}
