#include "relay/sandbox.h"

#include <cap-ng.h>
#include <errno.h>
#include <grp.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <pwd.h>
#include <seccomp.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/tls.h"

static int limit(int what, rlim_t value, struct dr_error *err)
{
	struct rlimit rl = {.rlim_cur = value, .rlim_max = value};

	if (setrlimit((__rlimit_resource_t)what, &rl) != 0)
		return dr_error_errno(err, DR_EIO, errno, "cannot set resource limit %d", what);
	return 0;
}

int sandbox_limits(int last, struct dr_error *err)
{
	int r;

	if (close_range((unsigned)last + 1, ~0u, 0) != 0)
		return dr_error_errno(err, DR_EIO, errno, "cannot close inherited descriptors");
	r = limit(RLIMIT_NOFILE, SANDBOX_FILES, err);
	if (r == 0)
		r = limit(RLIMIT_CORE, 0, err);
	if (r == 0)
		r = limit(RLIMIT_NPROC, 0, err);
#ifndef __SANITIZE_ADDRESS__
	if (r == 0)
		r = limit(RLIMIT_AS, SANDBOX_MEMORY, err);
#endif
	return r;
}

int sandbox_drop(struct dr_error *err)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return dr_error_errno(err, DR_EIO, errno, "cannot forbid new privileges");
	capng_clear(CAPNG_SELECT_ALL);
	if (geteuid() == 0) {
		const struct passwd *user = getpwnam(SANDBOX_USER);
		uid_t uid = user != NULL ? user->pw_uid : SANDBOX_NOBODY;
		gid_t gid = user != NULL ? user->pw_gid : SANDBOX_NOBODY;
		int r = capng_change_id((int)uid, (int)gid, CAPNG_DROP_SUPP_GRP | CAPNG_CLEAR_BOUNDING);

		if (r != 0)
			return dr_error_set(err, DR_EIO, "cannot become user %d: step %d of libcap-ng failed",
					    (int)uid, -r);
	} else if (capng_apply(CAPNG_SELECT_CAPS) != 0) {
		return dr_error_set(err, DR_EIO, "cannot drop the capabilities");
	}
	if (capng_get_caps_process() != 0 || capng_have_capabilities(CAPNG_SELECT_CAPS) != CAPNG_NONE)
		return dr_error_set(err, DR_EIO, "some capability is left");
	/* Changing the user has set this back; nobody shall read keys out of this process. */
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
		return dr_error_errno(err, DR_EIO, errno, "cannot become undumpable");
	return 0;
}

int sandbox_warm_up(struct dr_error *err)
{
	uint8_t key[TLS_KEY_SIZE], digest[EVP_MAX_MD_SIZE];
	struct tls_psk *psk;
	unsigned len;
	SSL *ssl;

	if (RAND_bytes(key, sizeof(key)) != 1 ||
	    EVP_Digest(key, sizeof(key), digest, &len, EVP_sha256(), NULL) != 1)
		return dr_error_set(err, DR_EIO, "OpenSSL does not start");
	psk = tls_psk_new(key, "warm-up", err);
	if (psk == NULL)
		return -DR_ENOMEM;
	ssl = tls_psk_ssl(psk, -1, false, err);
	if (ssl != NULL)
		SSL_do_handshake(ssl); /* goes as far as its first message */
	SSL_free(ssl);
	tls_psk_free(psk);
	return ssl != NULL ? 0 : -DR_ENOMEM;
}

/* Calls without conditions on their arguments. */
static const int allowed[] = {
	/* descriptors that are open */
	SCMP_SYS(read),
	SCMP_SYS(write),
	SCMP_SYS(writev),
	SCMP_SYS(close),
	SCMP_SYS(recvfrom),
	SCMP_SYS(recvmsg),
	SCMP_SYS(sendto),
	SCMP_SYS(sendmsg),
	SCMP_SYS(accept4),
	SCMP_SYS(shutdown),
	SCMP_SYS(getsockopt),
	SCMP_SYS(setsockopt),
	SCMP_SYS(epoll_ctl),
	SCMP_SYS(epoll_pwait2),
	SCMP_SYS(epoll_pwait), /* where the kernel lacks the former */
	SCMP_SYS(newfstatat),  /* OpenSSL and stdio look at open descriptors with an empty path */
	SCMP_SYS(fstat),
	/* memory, time, random numbers, the end */
	SCMP_SYS(brk),
	SCMP_SYS(munmap),
	SCMP_SYS(mremap),
	SCMP_SYS(madvise),
	SCMP_SYS(futex),
	SCMP_SYS(clock_gettime),
	SCMP_SYS(gettimeofday),
	SCMP_SYS(time), /* these three where there is no vDSO */
	SCMP_SYS(getrusage),
	SCMP_SYS(getrandom),
	SCMP_SYS(getpid),
	SCMP_SYS(gettid),
	SCMP_SYS(rt_sigaction), /* SIGPIPE */
	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(restart_syscall),
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
};

int sandbox_seccomp(struct dr_error *err)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int r = ctx == NULL ? -ENOMEM : 0;

	for (size_t i = 0; i < DR_ARRAY_SIZE(allowed) && r == 0; i++)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, allowed[i], 0);
	/* No memory that can be executed. */
	if (r == 0)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
				     SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	if (r == 0)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
				     SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	if (r == 0)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1,
				     SCMP_A1(SCMP_CMP_EQ, 3)); /* F_GETFL */
	if (r == 0)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1,
				     SCMP_A1(SCMP_CMP_EQ, 4)); /* F_SETFL */
	if (r == 0)
		r = seccomp_load(ctx);
	if (ctx != NULL)
		seccomp_release(ctx);
	return r == 0 ? 0 : dr_error_errno(err, DR_EIO, -r, "cannot install the system call filter");
}
