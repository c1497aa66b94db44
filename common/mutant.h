/*
 * Bugs on purpose, for the simulator (tests/sim, --mutant NAME): DR_MUTANT(name)
 * is false in everything that is installed; in the simulator's build it is true
 * while that mutant is switched on. Each stands for one rule of SAFETY.md. A coverage
 * build has none of them: they would count as code that nothing reaches.
 */
#ifndef DROVER_COMMON_MUTANT_H
#define DROVER_COMMON_MUTANT_H

#include <stdbool.h>

#ifdef DROVER_MUTANTS
/* Defined by the simulator. */
bool dr_mutant(const char *name);
#endif
#if defined(DROVER_MUTANTS) && !defined(DROVER_COVERAGE)
#define DR_MUTANT(name) dr_mutant(#name)
#else
#define DR_MUTANT(name) false
#endif

#endif
