/* drover-relay: see relay.h. Started by the agent with a listening SOCK_SEQPACKET socket as descriptor 3. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "config.h"
#include "relay/relay.h"
#include "relay/sandbox.h"

#define CONTROL_FD 3

static struct relay relay; /* some ten KiB: not for the stack */

static int check_control(struct dr_error *err)
{
	int type = 0, listening = 0;
	socklen_t len = sizeof(int);

	if (getsockopt(CONTROL_FD, SOL_SOCKET, SO_TYPE, &type, &len) != 0 || type != SOCK_SEQPACKET ||
	    getsockopt(CONTROL_FD, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) != 0 || listening == 0)
		return dr_error_set(
			err, DR_EUSAGE,
			"descriptor %d is no listening SOCK_SEQPACKET socket; drover-relay is started by "
			"drover-agent, not by hand",
			CONTROL_FD);
	return 0;
}

int main(int argc, char **argv)
{
	struct dr_error err = DR_ERROR_INIT;
	int r;

	if (argc == 2 && strcmp(argv[1], "--version") == 0) {
		puts(PACKAGE_STRING);
		return 0;
	}
	signal(SIGPIPE, SIG_IGN);
	r = check_control(&err);
	if (r == 0)
		r = sandbox_limits(CONTROL_FD, &err);
	if (r == 0)
		r = relay_init(&relay, CONTROL_FD, &err);
	if (r == 0)
		r = sandbox_warm_up(&err);
	if (r == 0)
		r = sandbox_drop(&err);
	if (r == 0)
		r = sandbox_seccomp(&err);
	if (r != 0) {
		fprintf(stderr, "drover-relay: %s\n", err.text);
		return dr_err_exit(r);
	}
	while (!relay.quit)
		relay_turn(&relay);
	relay_fini(&relay);
	return 0;
}
