#include "relay/loop.h"

#include <errno.h>
#include <stdbool.h>
#include <time.h>
#include <unistd.h>

#include "common/error.h"

#define EVENTS_MAX   16
#define COARSE_MAX_S 3600

uint64_t loop_now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

int loop_open(void)
{
	int fd = epoll_create1(EPOLL_CLOEXEC);

	return fd < 0 ? -DR_EIO : fd;
}

void loop_watch(int epoll, struct watch *watch, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = watch};

	if (watch->fd < 0 || events == watch->events)
		return;
	epoll_ctl(epoll,
		  watch->events == 0 ? EPOLL_CTL_ADD
		  : events == 0	     ? EPOLL_CTL_DEL
				     : EPOLL_CTL_MOD,
		  watch->fd, &event);
	watch->events = events;
}

void loop_close(int epoll, struct watch *watch)
{
	if (watch->fd < 0)
		return;
	loop_watch(epoll, watch, 0);
	close(watch->fd);
	watch->fd = -1;
}

static int wait_for(int epoll, struct epoll_event events[EVENTS_MAX], const struct timespec *timeout)
{
	/* A kernel before 5.11, or valgrind: whole milliseconds, rather late than in vain. */
	static bool coarse;
	int n = -1, ms = -1;

	if (!coarse)
		n = epoll_pwait2(epoll, events, EVENTS_MAX, timeout, NULL);
	if (n >= 0 || (!coarse && errno != ENOSYS))
		return n;
	coarse = true;
	if (timeout != NULL)
		ms = timeout->tv_sec >= COARSE_MAX_S
			     ? COARSE_MAX_S * 1000
			     : (int)(timeout->tv_sec * 1000 + (timeout->tv_nsec + 999999) / 1000000);
	return epoll_pwait(epoll, events, EVENTS_MAX, ms, NULL);
}

void loop_turn(int epoll, uint64_t deadline_us)
{
	struct epoll_event events[EVENTS_MAX];
	struct timespec wait, *timeout = NULL;
	int n;

	if (deadline_us != LOOP_NEVER) {
		uint64_t now = loop_now_us(), us = deadline_us > now ? deadline_us - now : 0;

		wait.tv_sec = (time_t)(us / 1000000);
		wait.tv_nsec = (long)(us % 1000000) * 1000;
		timeout = &wait;
	}
	n = wait_for(epoll, events, timeout);
	for (int i = 0; i < n; i++) {
		struct watch *watch = events[i].data.ptr;

		if (watch->fd >= 0 && watch->events != 0)
			watch->fn(watch->data, events[i].events);
	}
}
