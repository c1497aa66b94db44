-- The replicated state (DESIGN §4). Rules: STRICT; no REAL; no implicit or automatic row ids; foreign keys
-- immediate; no triggers. Ids come from commands' log indexes and are never reused (SAFETY R6).
-- Enumerations of drover.proto are stored by number, our own states by name.

CREATE TABLE meta (
	key TEXT NOT NULL PRIMARY KEY,
	value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The last id given to each kind of object, and the last log index.
CREATE TABLE counter (
	name TEXT NOT NULL PRIMARY KEY,
	value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE request (
	id BLOB NOT NULL PRIMARY KEY,
	idx INTEGER NOT NULL,
	exit INTEGER NOT NULL,
	message TEXT NOT NULL,
	changed INTEGER NOT NULL,
	object_kind TEXT NOT NULL,
	object_id INTEGER NOT NULL,
	object_name TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX request_idx ON request (idx);

CREATE TABLE event (
	idx INTEGER NOT NULL,
	seq INTEGER NOT NULL,
	utc_us INTEGER NOT NULL,
	kind TEXT NOT NULL,
	node TEXT NOT NULL,
	vm TEXT NOT NULL,
	move INTEGER NOT NULL,
	drain INTEGER NOT NULL,
	text TEXT NOT NULL,
	PRIMARY KEY (idx, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX event_move ON event (move, text);

CREATE TABLE history (
	idx INTEGER NOT NULL PRIMARY KEY,
	utc_us INTEGER NOT NULL,
	who TEXT NOT NULL,
	what TEXT NOT NULL,
	exit INTEGER NOT NULL,
	message TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE member (
	id INTEGER NOT NULL PRIMARY KEY,
	node TEXT NOT NULL,
	corosync_id INTEGER NOT NULL,
	removed INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE token (
	hash BLOB NOT NULL PRIMARY KEY,
	used INTEGER NOT NULL           -- id of the member that joined with it; 0 = none yet
) STRICT, WITHOUT ROWID;

-- Limits: scope 'cluster' (name ''), 'node' or 'network'. Only what an operator has set.
CREATE TABLE setting (
	scope TEXT NOT NULL,
	name TEXT NOT NULL,
	key TEXT NOT NULL,
	value TEXT NOT NULL,
	PRIMARY KEY (scope, name, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE node (
	name TEXT NOT NULL PRIMARY KEY,
	incarnation INTEGER NOT NULL,
	boot_id BLOB NOT NULL,
	start_id BLOB NOT NULL,         -- of the present session; '' without one
	coordinator TEXT NOT NULL,      -- that holds the session; '' = lost
	fenced_boot BLOB NOT NULL,      -- a boot that was fenced may not come back
	leaving BLOB NOT NULL,          -- start id of an agent that said good-bye (SAFETY R10)
	paused INTEGER NOT NULL,
	quarantined INTEGER NOT NULL,
	health TEXT NOT NULL CHECK (health IN ('up', 'isolated', 'down')),
	health_why TEXT NOT NULL,
	memory_total INTEGER NOT NULL,
	facts BLOB NOT NULL,            -- HostFacts
	changed INTEGER NOT NULL,       -- log index of the last change that its agent must hear of
	audited INTEGER NOT NULL DEFAULT 0 -- in an audit: 0 waited for, 1 has reported, 2 fenced
) STRICT, WITHOUT ROWID;

CREATE TABLE network (
	name TEXT NOT NULL PRIMARY KEY,
	subnet TEXT NOT NULL UNIQUE,
	rank INTEGER NOT NULL,
	rank_set INTEGER NOT NULL,      -- the operator's word: discovery leaves it alone
	excluded INTEGER NOT NULL,
	renamed INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE node_address (
	node TEXT NOT NULL REFERENCES node (name),
	subnet TEXT NOT NULL REFERENCES network (subnet),
	address TEXT NOT NULL,
	interface TEXT NOT NULL,
	speed INTEGER NOT NULL,
	mtu INTEGER NOT NULL,
	up INTEGER NOT NULL,
	rdma INTEGER NOT NULL,
	default_gateway INTEGER NOT NULL,
	corosync INTEGER NOT NULL,
	PRIMARY KEY (node, subnet, address)
) STRICT, WITHOUT ROWID;

CREATE TABLE vm (
	name TEXT NOT NULL PRIMARY KEY,
	uuid BLOB NOT NULL UNIQUE,
	owner TEXT NOT NULL REFERENCES node (name),
	generation INTEGER NOT NULL,
	state INTEGER NOT NULL,         -- VmState
	want INTEGER NOT NULL,          -- VmWant
	priority INTEGER NOT NULL,
	memory INTEGER NOT NULL,
	move INTEGER NOT NULL,          -- its open move, 0 = none
	error TEXT NOT NULL,
	spec BLOB NOT NULL,             -- VmSpec
	launch BLOB NOT NULL,           -- LaunchRecord; '' before the first start
	changed INTEGER NOT NULL        -- log index of the last change by anyone but its own report
) STRICT, WITHOUT ROWID;
CREATE INDEX vm_owner ON vm (owner);

CREATE TABLE drain (
	id INTEGER NOT NULL PRIMARY KEY,
	node TEXT NOT NULL,             -- no reference: the record outlives the node
	state TEXT NOT NULL CHECK (state IN ('running', 'paused', 'done', 'failed', 'cancelled')),
	best_effort INTEGER NOT NULL,
	shutdown_unmovable INTEGER NOT NULL,
	plan INTEGER NOT NULL,
	was_paused INTEGER NOT NULL,
	started_utc_us INTEGER NOT NULL,
	ended_utc_us INTEGER NOT NULL,
	error TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX drain_node ON drain (node, state);

CREATE TABLE move (
	id INTEGER NOT NULL PRIMARY KEY,
	vm TEXT NOT NULL,               -- no reference: the record outlives the VM
	drain INTEGER NOT NULL,         -- 0 = none
	kind TEXT NOT NULL,
	mode TEXT NOT NULL,
	network TEXT NOT NULL,          -- asked for; '' = ranked
	want_to TEXT NOT NULL,          -- asked for; '' = best target
	priority INTEGER NOT NULL,
	memory INTEGER NOT NULL,
	src TEXT NOT NULL,
	dst TEXT NOT NULL,              -- of the last attempt
	state TEXT NOT NULL CHECK (state IN ('queued', 'assigned', 'preparing', 'copying', 'switching',
		'committed', 'done', 'cancelling', 'cancelled', 'failed')),
	attempt INTEGER NOT NULL,       -- the last attempt's number
	failures INTEGER NOT NULL,      -- attempts that failed; those taken back by the leader do not count
	cancelled INTEGER NOT NULL,     -- the operator asked for it
	predicted_ms INTEGER NOT NULL,
	predicted_blackout_ms INTEGER NOT NULL,
	created_utc_us INTEGER NOT NULL,
	started_utc_us INTEGER NOT NULL,
	ended_utc_us INTEGER NOT NULL,
	exit INTEGER NOT NULL,
	error TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX move_state ON move (state);
CREATE INDEX move_drain ON move (drain);
CREATE INDEX move_vm ON move (vm);

CREATE TABLE move_attempt (
	move INTEGER NOT NULL REFERENCES move (id),
	attempt INTEGER NOT NULL,
	vm TEXT NOT NULL,
	generation INTEGER NOT NULL,
	src TEXT NOT NULL,              -- no reference: the record outlives the node
	dst TEXT NOT NULL,
	memory INTEGER NOT NULL,
	mode TEXT NOT NULL,
	key BLOB NOT NULL,
	paths BLOB NOT NULL,            -- a MoveOrder with nothing but paths
	network TEXT NOT NULL,          -- in use, as far as known
	src_phase INTEGER NOT NULL,     -- MovePhase, forward only
	dst_phase INTEGER NOT NULL,
	src_gone INTEGER NOT NULL,      -- its slot is free (SAFETY R21)
	dst_gone INTEGER NOT NULL,
	decision INTEGER NOT NULL,      -- MoveDecision
	outcome INTEGER NOT NULL,       -- CmdMoveAbort.Outcome, once aborted
	proofs BLOB NOT NULL,           -- a MoveFact with nothing but proofs
	relay_port INTEGER NOT NULL,
	token_request INTEGER NOT NULL,
	token_granted INTEGER NOT NULL,
	token_returned INTEGER NOT NULL,
	token_held INTEGER NOT NULL,
	src_error TEXT NOT NULL,
	dst_error TEXT NOT NULL,
	error_exit INTEGER NOT NULL,
	error_fatal INTEGER NOT NULL,
	stats BLOB NOT NULL,            -- MoveStats, the source's latest
	reason TEXT NOT NULL,           -- of the abort
	PRIMARY KEY (move, attempt)
) STRICT, WITHOUT ROWID;
CREATE INDEX move_attempt_src ON move_attempt (src_gone, src);
CREATE INDEX move_attempt_dst ON move_attempt (dst_gone, dst);
CREATE INDEX move_attempt_vm ON move_attempt (vm);
