/* The relay's event loop: epoll, level-triggered, one deadline at a time. */
#ifndef DROVER_RELAY_LOOP_H
#define DROVER_RELAY_LOOP_H

#include <stdint.h>
#include <sys/epoll.h>

#define LOOP_NEVER UINT64_MAX

/* Embedded in its owner, which stays where it is while the loop runs (events of one turn may refer to it). */
struct watch {
	int fd; /* -1: nothing is watched */
	uint32_t events;
	void (*fn)(void *data, uint32_t events);
	void *data;
};

/* CLOCK_BOOTTIME in microseconds. */
uint64_t loop_now_us(void);

/* An epoll descriptor, or -DR_EIO. */
int loop_open(void);
/* Changes what is watched for; 0 takes the descriptor out (so that a hang-up is not reported for ever). */
void loop_watch(int epoll, struct watch *watch, uint32_t events);
/* Takes it out and closes the descriptor. */
void loop_close(int epoll, struct watch *watch);
/* Waits until something happens or deadline_us, and calls the watches' functions once each. */
void loop_turn(int epoll, uint64_t deadline_us);

#endif
