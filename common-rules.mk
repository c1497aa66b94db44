# Included by every Makefile.am: the flags and libraries that all of them share.

AM_CPPFLAGS = \
	-I$(top_srcdir) \
	-I$(top_builddir) \
	-D_GNU_SOURCE \
	-DDROVER_SYSCONFDIR=\"$(sysconfdir)/drover\" \
	-DDROVER_LIBEXECDIR=\"$(libexecdir)\" \
	$(DR_CPPFLAGS) \
	$(NULL)
AM_CFLAGS = \
	-std=gnu17 \
	$(DR_CFLAGS) \
	$(DR_SANITIZE) \
	$(QB_CFLAGS) \
	$(COROSYNC_CFLAGS) \
	$(RAFT_CFLAGS) \
	$(PROTOBUF_C_CFLAGS) \
	$(SQLITE_CFLAGS) \
	$(OPENSSL_CFLAGS) \
	$(ZSTD_CFLAGS) \
	$(JANSSON_CFLAGS) \
	$(INIH_CFLAGS) \
	$(NL_ROUTE_CFLAGS) \
	$(SECCOMP_CFLAGS) \
	$(CAPNG_CFLAGS) \
	$(CMOCKA_CFLAGS) \
	-pthread \
	$(NULL)
AM_LDFLAGS = $(DR_SANITIZE) -pthread

LIBCOMMON = $(top_builddir)/common/libcommon.a
LIBPROTO = $(top_builddir)/proto/libproto.a
LIBDB = $(top_builddir)/db/libdb.a
LIBCOORDINATOR = $(top_builddir)/coordinator/libcoordinator.a
LIBAGENT = $(top_builddir)/agent/libagent.a
LIBRELAY = $(top_builddir)/relay/librelay.a
LIBCLI = $(top_builddir)/cli/libcli.a

# What each convenience library needs from outside, in link order.
COMMON_LIBS = $(LIBCOMMON) $(OPENSSL_LIBS) $(INIH_LIBS) $(QB_LIBS)
PROTO_LIBS = $(LIBPROTO) $(top_builddir)/proto/libgen.a $(COMMON_LIBS) $(PROTOBUF_C_LIBS)
DB_LIBS = $(LIBDB) $(PROTO_LIBS) $(SQLITE_LIBS) $(ZSTD_LIBS)
# A program in a library's own folder names the library by its bare name (its make rule) and takes X_DEPS.
COORDINATOR_DEPS = $(DB_LIBS) $(RAFT_LIBS) $(COROSYNC_LIBS)
COORDINATOR_LIBS = $(LIBCOORDINATOR) $(COORDINATOR_DEPS)
AGENT_DEPS = $(PROTO_LIBS) $(SQLITE_LIBS) $(JANSSON_LIBS) $(NL_ROUTE_LIBS) $(CAPNG_LIBS)
AGENT_LIBS = $(LIBAGENT) $(AGENT_DEPS)
RELAY_DEPS = $(PROTO_LIBS) $(ZSTD_LIBS) $(SECCOMP_LIBS) $(CAPNG_LIBS)
RELAY_LIBS = $(LIBRELAY) $(RELAY_DEPS)
CLI_DEPS = $(PROTO_LIBS) $(JANSSON_LIBS)
CLI_LIBS = $(LIBCLI) $(CLI_DEPS)
