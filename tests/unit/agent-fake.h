/*
 * A coordinator for tests of the agent: speaks the session protocol over real TLS,
 * grants every lease, keeps the newest report of each agent, sends what the test
 * tells it to. The agents are real processes with real QEMUs.
 */
#ifndef DROVER_TESTS_UNIT_AGENT_FAKE_H
#define DROVER_TESTS_UNIT_AGENT_FAKE_H

#include <qb/qbloop.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/conn.h"

#define FAKE_AGENTS 2

struct fake_agent {
	struct fake *fake;
	char name[16];
	char dir[128];
	uint16_t relay_port;
	pid_t pid;
	struct conn *conn;
	uint8_t start_id[16];
	uint8_t boot_id[16];
	Drover__AgentReport *report; /* newest; NULL after a new session until one comes */
	uint64_t last_grant;
	char events[4096]; /* MoveFact.events so far, one a line */
};

struct fake {
	qb_loop_t *loop;
	struct listener *listener;
	struct tls_psk *tls;
	char address[64];
	char dir[96];
	uint8_t uuid[16];
	uint64_t term, index, incarnation;
	bool grant;
	struct fake_agent agents[FAKE_AGENTS];
};

int fake_setup(struct fake *f);
void fake_teardown(struct fake *f);

/* Starts (again) the agent's process. env: "NAME=VALUE" or NULL. */
void fake_agent_start(struct fake_agent *a, const char *env);
/* SIGKILL or SIGTERM and wait. Returns its wait status. */
int fake_agent_end(struct fake_agent *a, int signum);

/* Runs the loop until done(data) or the deadline; false: deadline. */
bool fake_until(struct fake *f, bool (*done)(void *data), void *data, unsigned int ms);

/* Sends orders: fills term, index, incarnation, start id, cluster. */
void fake_orders(struct fake_agent *a, Drover__AgentOrders *orders);

/* Of the newest report; NULL: none. */
const Drover__VmFact *fake_vm(const struct fake_agent *a, const char *name);
const Drover__MoveFact *fake_move(const struct fake_agent *a, uint64_t move, uint32_t attempt);

/* Does a process with that mark on its command line live? Returns its pid, else 0. */
pid_t fake_process(const char *mark, const char *mark2);

#endif
