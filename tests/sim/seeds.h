#ifndef DROVER_TESTS_SEEDS_H
#define DROVER_TESTS_SEEDS_H
#include <stdbool.h>
#include <stdint.h>
extern bool sim_log_on;
int seeds_one(uint64_t seed, bool trace);
#endif
