/* A request in the words of the command line, for history. */
#ifndef DROVER_COORDINATOR_REQUESTS_WORDS_H
#define DROVER_COORDINATOR_REQUESTS_WORDS_H

#include "proto/drover.pb-c.h"

/* Sets *what (a heap message's string field), e.g. to "node drain node1". Never secrets. */
void request_words(const Drover__Request *request, char **what);

#endif
