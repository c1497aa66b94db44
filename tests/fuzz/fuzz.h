/*
 * Parsers of bytes that somebody else wrote, under libFuzzer (configure --enable-fuzzers with clang;
 * tests/fuzz/t-fuzz.sh). A normal build links the same functions with replay.c, which feeds them the corpus
 * once.
 */
#ifndef DROVER_TESTS_FUZZ_FUZZ_H
#define DROVER_TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* libFuzzer's entry. Returns 0; what must not be aborts. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_CHECK(condition)                                                                                \
	do {                                                                                                 \
		if (!(condition)) {                                                                          \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);              \
			abort();                                                                             \
		}                                                                                            \
	} while (0)

#endif
