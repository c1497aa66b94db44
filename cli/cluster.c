/* drover cluster …: the cluster itself, its members and its key. */
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/backup.h"
#include "cli/json.h"
#include "cli/show.h"
#include "cli/verbs.h"
#include "common/tls.h"

static const struct cli_option init_options[] = {
	{.name = "name",
	 .kind = OPT_OBJECT,
	 .object = OBJ_TEXT,
	 .value = "N",
	 .help = "the cluster's name (drover)"},
	{.name = "standalone", .kind = OPT_FLAG, .help = "one coordinator without corosync"},
	{0},
};
static const struct cli_option join_options[] = {
	{.name = "token",
	 .kind = OPT_TEXT,
	 .value = "T",
	 .help = "from \"drover cluster token\" on a member"},
	{0},
};
static const struct cli_option keygen_options[] = {
	{.name = "force",
	 .kind = OPT_FLAG,
	 .help = "replace the key that is there: every node needs the new one"},
	{0},
};
static const struct cli_option quorum_options[] = {
	{.name = "dead", .kind = OPT_TEXT, .value = "N,…", .help = "every member that is gone for good"},
	{.name = "confirmed",
	 .kind = OPT_FLAG,
	 .help = "their hosts are off and stay off: do not ask for the names again"},
	{0},
};
static const struct cli_option restore_options[] = {
	{.name = "standalone", .kind = OPT_FLAG, .help = "one coordinator without corosync"},
	{0},
};

/* On a terminal the names are typed once more. */
static bool typed_again(struct cli *cli, const char *names)
{
	char line[512];

	if (!isatty(STDIN_FILENO))
		return false;
	fprintf(cli->err,
		"%s will never be members of this cluster again, and what runs there must be off.\n"
		"Type the names once more to confirm: ",
		names);
	if (fgets(line, sizeof(line), stdin) == NULL)
		return false;
	line[strcspn(line, "\n")] = '\0';
	return strcmp(line, names) == 0;
}

static int quorum_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req,
			struct dr_error *err)
{
	Drover__ForceQuorum *force = VERB_NEW(cli, req, force_quorum, FORCE_QUORUM, drover__force_quorum);
	char *names = arena_printf(&cli->arena, "%s", cli_text(p, "dead"));
	char *save = NULL;

	force->dead = arena_alloc(&cli->arena, (strlen(names) + 1) * sizeof(*force->dead));
	force->confirmed = cli_flag(p, "confirmed") || cli_flag(p, "dry-run") ||
			   (names[0] != '\0' && typed_again(cli, names));
	for (char *n = strtok_r(names, ",", &save); n != NULL; n = strtok_r(NULL, ",", &save)) {
		if (names_check(n, "node", err) < 0)
			return -DR_EUSAGE;
		force->dead[force->n_dead++] = n;
	}
	if (force->n_dead == 0)
		return dr_error_set(err, DR_EUSAGE,
				    "force-quorum needs --dead N,…: every coordinator that does not answer");
	return 0;
}

static int init_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req, struct dr_error *err)
{
	Drover__ClusterInit *init = VERB_NEW(cli, req, cluster_init, CLUSTER_INIT, drover__cluster_init);
	const char *name = cli_text(p, "name");

	if (name[0] != '\0' && names_check(name, "cluster", err) < 0)
		return -DR_EUSAGE;
	init->name = verb_text(name[0] != '\0' ? name : "drover");
	init->standalone = cli_flag(p, "standalone");
	return 0;
}

static int token_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req,
		       struct dr_error *err)
{
	(void)p;
	(void)err;
	VERB_NEW(cli, req, cluster_token, CLUSTER_TOKEN, drover__empty);
	return 0;
}

static int join_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req, struct dr_error *err)
{
	Drover__ClusterJoin *join = VERB_NEW(cli, req, cluster_join, CLUSTER_JOIN, drover__cluster_join);
	char *address = arena_alloc(&cli->arena, NAMES_ADDRESS);

	if (names_address(cli_arg(p, 0), CONF_PORT, address, err) < 0)
		return -DR_EUSAGE;
	if (cli_value(p, "token") == NULL)
		return dr_error_set(
			err, DR_EUSAGE,
			"joining needs --token T: get one with \"drover cluster token\" on a member");
	join->address = address;
	join->token = verb_text(cli_text(p, "token"));
	return 0;
}

static int status_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req,
			struct dr_error *err)
{
	(void)p;
	(void)err;
	VERB_NEW(cli, req, cluster_status, CLUSTER_STATUS, drover__empty);
	return 0;
}

static int check_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req,
		       struct dr_error *err)
{
	(void)p;
	(void)err;
	VERB_NEW(cli, req, cluster_check, CLUSTER_CHECK, drover__empty);
	return 0;
}

/* The coordinator, which runs as user drover, must read the key that root made. */
static int key_owner(int fd, const char *path, struct dr_error *err)
{
	const struct passwd *user = geteuid() == 0 ? getpwnam("drover") : NULL;

	if (user != NULL && fchown(fd, user->pw_uid, user->pw_gid) < 0)
		return dr_error_errno(err, DR_EFAILED, errno, "cannot give %s to user drover", path);
	return 0;
}

/* Writes beside the file and renames: a key is never half there, nor readable by others for a moment. */
static int key_write(struct cli *cli, const char *path, bool force, struct dr_error *err)
{
	const char *beside = arena_printf(&cli->arena, "%s.new", path);
	uint8_t key[TLS_KEY_SIZE];
	DR_AUTO_FD int fd = -1;
	int rc = 0;

	unlink(beside);
	fd = open(beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return dr_error_errno(err, DR_EFAILED, errno, "cannot write %s", beside);
	rc = key_owner(fd, beside, err);
	cli->transport->ops->random(cli->transport, key, sizeof(key));
	if (rc == 0 && (write(fd, key, sizeof(key)) != (ssize_t)sizeof(key) || fsync(fd) < 0))
		rc = dr_error_errno(err, DR_EFAILED, errno, "cannot write %s", beside);
	explicit_bzero(key, sizeof(key));
	/* link(2) fails where a file is, rename(2) replaces it. */
	if (rc == 0 && (force ? rename(beside, path) : link(beside, path)) < 0) {
		if (errno == EEXIST)
			rc = dr_error_set(err, DR_EREFUSED,
					  "%s is there already: every node of a cluster needs the same key. "
					  "--force replaces it",
					  path);
		else
			rc = dr_error_errno(err, DR_EFAILED, errno, "cannot write %s", path);
	}
	unlink(beside);
	return rc;
}

static int keygen_run(struct cli *cli, const struct cli_parsed *p, struct dr_error *err)
{
	const char *path = cli->key_file != NULL ? cli->key_file : cli->conf.key_file;
	bool dry = cli_flag(p, "dry-run");
	int rc = 0;

	if (dry && !cli_flag(p, "force") && access(path, F_OK) == 0)
		rc = dr_error_set(err, DR_EREFUSED, "%s is there already. --force replaces it", path);
	else if (!dry)
		rc = key_write(cli, path, cli_flag(p, "force"), err);
	if (rc < 0)
		return rc;
	if (cli->json)
		cli_print_json(cli, json_pack("{s:b,s:s}", "changed", !dry, "key_file", path));
	else if (dry)
		fprintf(cli->out, "would write %s\n", path);
	else
		fprintf(cli->out, "wrote %s: copy it to every node, mode 0600\n", path);
	return 0;
}

static const struct cli_verb verbs[] = {
	{.name = "init",
	 .summary = "Make a new cluster of which this coordinator is the first member.",
	 .options = init_options,
	 .flags = VERB_MUTATES,
	 .build = init_build,
	 .example = "drover cluster init --name prod"},
	{.name = "token",
	 .summary = "Make a token with which one coordinator can join.",
	 .flags = VERB_MUTATES,
	 .build = token_build,
	 .json = json_token,
	 .show = show_token},
	{.name = "join",
	 .summary = "Make this coordinator a member of a cluster.",
	 .args = {{.name = "ADDR", .object = OBJ_ADDRESS}},
	 .options = join_options,
	 .flags = VERB_MUTATES,
	 .build = join_build,
	 .example = "drover cluster join 10.0.0.1 --token T"},
	{.name = "keygen",
	 .summary = "Write a new cluster key on this host.",
	 .options = keygen_options,
	 .flags = VERB_MUTATES,
	 .local = keygen_run},
	{.name = "status",
	 .summary = "Quorum, leader, coordinators, and what the cluster does.",
	 .build = status_build,
	 .json = json_cluster_status,
	 .show = show_cluster_status},
	{.name = "check",
	 .summary = "Look for what makes moves slow or unsafe, and say how to mend it.",
	 .build = check_build,
	 .json = json_findings,
	 .show = show_findings},
	{.name = "backup",
	 .summary = "Write the cluster's state into a file.",
	 .args = {{.name = "FILE", .object = OBJ_FILE}},
	 .local = backup_run,
	 .example = "drover cluster backup /root/drover.backup"},
	{.name = "restore",
	 .summary = "Make this coordinator, which is in no cluster, the first of a cluster that is restored "
		    "from a backup.",
	 .args = {{.name = "FILE", .object = OBJ_FILE}},
	 .options = restore_options,
	 .flags = VERB_MUTATES,
	 .local = restore_run},
	{.name = "force-quorum",
	 .summary = "Go on without members that are gone for good, when they were the majority.",
	 .options = quorum_options,
	 .flags = VERB_MUTATES,
	 .build = quorum_build,
	 .example = "drover cluster force-quorum --dead node2,node3"},
};

const struct cli_noun cluster_noun = {"cluster", "the cluster, its coordinators and its key", verbs,
				      DR_ARRAY_SIZE(verbs)};
