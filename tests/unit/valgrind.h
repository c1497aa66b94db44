/*
 * What a unit test must know of valgrind: it lacks some calls of the kernel, and it is slow. Whoever skips a
 * part under it says why; the rest of the test runs.
 */
#ifndef DROVER_TESTS_UNIT_VALGRIND_H
#define DROVER_TESTS_UNIT_VALGRIND_H

#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#define UNDER_VALGRIND (RUNNING_ON_VALGRIND != 0)
#else
#define UNDER_VALGRIND 0
#endif

#endif
