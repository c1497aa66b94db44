/*
 * Who may run the VM: a model for Spin of what keeps I1, I2 and I7 (DESIGN §1, §5, §7, §10; SAFETY R1-R12).
 *
 * One VM, three hosts, one coordinator. The coordinator is its committed log: each command is one atomic step
 * on the rows, and anybody may propose anything that it could ever have a reason for, at any time, however late:
 * what keeps the promises are apply's own checks, never the proposer's. A message is
 *
 *   report, fact   a bit that is set when an agent says something and stays set: it may be applied late, often,
 *                  in any order, or never ("soup"). It is dropped when another start of that agent has a session,
 *                  because apply compares the start;
 *   orders         one set per host on its way: what the rows said when it was made. It may be obeyed late and
 *                  often, or be overtaken by a newer one (the agent compares the index, agent/reconcile.c).
 *
 * Bounded, by -D: ATTEMPTS to move, STARTS of the VM after it was found off, FAULTS: a QEMU killed, an agent
 * crashed, a host reset, a session cut, a lease run out. Not bounded: delay, loss and repetition of messages,
 * when anybody does anything, a stream that breaks, a QEMU that resumes by itself, aborts, fencings of hosts that
 * are really down. Left out: QMP's own messages (an agent asks until it knows; `cont` on its way is modelled),
 * storage, limits, stop and remove, offline and other kinds of moves, a wiped agent store.
 *
 * Progress: every step is final in some way, so there is no loop (t-model.sh has Spin prove it), and each run
 * ends where nothing more can happen. There final() must hold: decided, cleaned up, and exactly one copy runs
 * unless something was killed.
 *
 * Not modelled, since apply can refuse it by what is in the command alone: a session command of an earlier boot that
 * comes late (apply_node_session compares the boot that its proposer saw); BOOT_NOT_COMPARED lets it through.
 *
 * Seeded faults (-D), each of which Spin must find: COMMIT_ON_ONE_WORD, WORD_NOT_READ_BACK (R1), CONT_ON_COMPLETED,
 * CONT_UNDECIDED (R4), ATTEMPT_NOT_COMPARED (R5), LEASE_IS_PROOF, BOOT_NOT_COMPARED (R9), TIMEOUT_MOVES_RIGHT (R12),
 * NEVER_TOLD (a host that booted in the switch-over never hears a decision, since its side is closed already).
 */
#ifndef ATTEMPTS
#define ATTEMPTS 2
#endif
#ifndef FAULTS
#define FAULTS 1
#endif
#ifndef STARTS
#define STARTS 1
#endif

/* QEMU on a host: none, -S before its first cont, running, stopped at pre-switchover, in its device phase,
 * postmigrate, incoming, loaded and paused. */
#define Q_NONE 0
#define Q_PRE  1
#define Q_RUN  2
#define Q_STOP 3
#define Q_DEV  4
#define Q_POST 5
#define Q_INC  6
#define Q_LOAD 7

/* The phases of both sides (proto: MovePhase), those that matter here. */
#define NONE   0
#define S_COPY 1 /* SRC_ASSIGNED .. SRC_SWITCHING */
#define S_COMP 2 /* SRC_COMPLETING */
#define S_REL  3 /* SRC_RELEASED: the source's word */
#define S_FIN  4
#define S_AB   5
#define D_PREP 1 /* DST_ASSIGNED .. DST_LOADING */
#define D_COMP 2 /* DST_COMPLETED: the destination's word */
#define D_CONT 3
#define D_RUN  4
#define D_AB   5
#define GONE   6

/* MoveDecision */
#define COMMIT 1
#define ABORT  2

/* VmState in the row */
#define V_OFF	0
#define V_START 1
#define V_RUN	2

/* The start that the node row's session names: none, the present one, an earlier one. */
#define X_NONE 0
#define X_CUR  1
#define X_OLD  2

typedef attempt {
	/* the row of move_attempt */
	byte src;
	byte dst;
	byte g; /* the generation that it moves */
	byte dec;
	byte rs; /* src_phase as it matters: NONE, S_REL, GONE */
	byte rd; /* dst_phase: NONE, D_COMP, D_RUN, GONE */
	bit derr;
	/* what the two agents keep durably */
	byte ps;
	byte pd;
	/* what they were told, until they end */
	byte ds;
	byte dd;
	bit here; /* the present start entered SRC_COMPLETING: it may send migrate-continue */
	/* the stream */
	bit sent;
	bit loaded;
	/* said, on its way for ever */
	bit m_rel;
	bit m_sgone;
	bit m_dcomp;
	bit m_drun;
	bit m_dgone;
	bit m_derr;
}
attempt t[ATTEMPTS + 1]; /* [0] is not used */

/* the rows */
byte cur;	/* attempts so far; the last one is the move's present one */
byte owner;
byte gen;
byte vstate;
byte sess[3];
bit rowboot_old[3]; /* the row's boot id is not that of the host's present boot */
bit fenced[3];	    /* the row's boot is fenced */

/* the hosts */
bit up[3];
bit agent[3];
bit lease[3];
bit ghost[3]; /* a session command of an earlier boot is on its way */
byte q[3];
byte qa[3];   /* the attempt that an incoming or sending QEMU belongs to */
bit contq[3]; /* a cont that QEMU has not carried out yet */
byte live[3]; /* generation of the VM in the host's own store, while it is not known to be off */
byte word[3]; /* highest generation that this host gave up for good */

/* vm facts on their way: by generation, each of which has one owner only */
#define GENS (ATTEMPTS + STARTS + 2)
bit m_run[GENS];
bit m_off[GENS];

/* orders: on their way, and the VM order that was obeyed last */
bit o_have[3];
byte o_vm[3]; /* generation to run, 0: none */
byte k_vm[3];
typedef codes {
	byte c[ATTEMPTS + 1]; /* 0: not named, else 1 + decision */
}
codes o[3];

byte faults;
byte starts;
bit killed; /* a QEMU or a host ended by a fault */

byte i; /* loops only; 0 between steps */

#define BOTH(a) (t[a].rs == S_REL && t[a].rd == D_COMP && t[a].derr == 0) /* rows.c: rows_both_words */
#define MINE_S(a, h) (a <= cur && t[a].src == h)
#define MINE_D(a, h) (a <= cur && t[a].dst == h)
/* orders.c: add_moves, add_vms */
#define CODE(a, h) (((MINE_S(a, h) && t[a].rs != GONE) || (MINE_D(a, h) && t[a].rd != GONE)) -> 1 + t[a].dec : 0)
#define ORDERED(h) ((owner == h && vstate == V_START) -> gen : 0)
/* agent/amove.c: amove_holds_vm */
#define HOLDS_S(a, h) (MINE_S(a, h) && t[a].ps != NONE && t[a].ps != GONE)
#define HOLDS_D(a, h) (MINE_D(a, h) && t[a].pd != NONE && t[a].pd != GONE)
#define HOLDS1(a, h) (HOLDS_S(a, h) || HOLDS_D(a, h))
/* Words and facts leave only while the session is in the rows (coordinator/agents.c: check_report). */
#define SAYS(h) (sess[h] == X_CUR)

#if ATTEMPTS == 1
#define ANY(P, h) P(1, h)
#define ALL(P, h) P(1, h)
#elif ATTEMPTS == 2
#define ANY(P, h) (P(1, h) || P(2, h))
#define ALL(P, h) (P(1, h) && P(2, h))
#else
#define ANY(P, h) (P(1, h) || P(2, h) || P(3, h))
#define ALL(P, h) (P(1, h) && P(2, h) && P(3, h))
#endif

/* I1 */
inline check_one()
{
	assert((q[0] == Q_RUN) + (q[1] == Q_RUN) + (q[2] == Q_RUN) <= 1)
}

/*
 * What can change nothing any more is made alike, so that there are fewer states. A fact is such once the row has
 * got past it, since phases only go forward (fact_allowed). Not where a seeded fault lets it count again.
 */
#if defined(ATTEMPT_NOT_COMPARED) || defined(START_NOT_COMPARED)
#define SPENT(m) skip
#define TIDY	 0
#else
#define SPENT(m) m = 0
#define TIDY	 1
#endif
inline tidy(a)
{
	if
	:: TIDY && t[a].rs == GONE -> t[a].m_rel = 0; t[a].m_sgone = 0
	:: else
	fi;
	if
	:: TIDY && t[a].rd == GONE -> t[a].m_dcomp = 0; t[a].m_drun = 0; t[a].m_dgone = 0; t[a].m_derr = 0; t[a].derr = 0
	:: else
	fi;
	if
	:: TIDY && t[a].rs == GONE && t[a].rd == GONE && t[a].ps == GONE && t[a].pd == GONE ->
		t[a].src = 0; t[a].dst = 0; t[a].g = 0; t[a].dec = ABORT
	:: else
	fi
}

/* ------------------------------------------------------------ the coordinator: apply_*.c */

/* The last attempt is settled: attempt_settle, settle_commit, settle_abort. */
#define SETTLED_C (t[cur].dec == COMMIT && t[cur].rd >= D_RUN)
#define SETTLED_A (t[cur].dec == ABORT && t[cur].rs == GONE)
#define FREE	  (cur == 0 || SETTLED_C || SETTLED_A)

/* apply_move_assign: assign_matches, assign_target; vm.state, node.session. */
#define CLEAN(a, h) (a > cur || ((t[a].src != h || t[a].rs == GONE) && (t[a].dst != h || t[a].rd == GONE)))
inline assign(d)
{
	cur++;
	t[cur].src = owner;
	t[cur].dst = d;
	t[cur].g = gen
}

/* attempt_commit. I2: the one change of owner by this attempt. */
inline commit(a)
{
	assert(t[a].dec == NONE && owner == t[a].src && gen == t[a].g);
	t[a].dec = COMMIT;
	owner = t[a].dst;
	gen++;
	vstate = V_RUN
}

/* decide_for_dead, for one attempt; attempt_host_died calls it for each open one. */
inline dead_side(a, h)
{
	if
	:: a <= cur && t[a].src == h && t[a].rs != GONE ->
		if
		:: t[a].dec == NONE && BOTH(a) -> commit(a)
		:: t[a].dec == NONE && !BOTH(a) -> t[a].dec = ABORT
		:: else
		fi;
		t[a].rs = GONE;
		tidy(a)
	:: a <= cur && t[a].dst == h && t[a].rd != GONE ->
		if
		:: t[a].dec == NONE -> t[a].dec = ABORT
		:: else
		fi;
		t[a].rd = GONE;
		tidy(a)
	:: else
	fi
}

inline host_died(h)
{
	i = 1;
	do
	:: i <= ATTEMPTS -> dead_side(i, h); i++
	:: else -> break
	od;
	i = 0;
	if
	:: owner == h -> vstate = V_OFF
	:: else
	fi
}

/* Another start of that host's agent has the session: what the last one said is refused from here on. */
inline forget_said(h)
{
#ifndef START_NOT_COMPARED
	i = 1;
	do
	:: i <= cur ->
		if
		:: t[i].src == h -> t[i].m_rel = 0; t[i].m_sgone = 0
		:: t[i].dst == h -> t[i].m_dcomp = 0; t[i].m_drun = 0; t[i].m_dgone = 0; t[i].m_derr = 0
		:: else
		fi;
		i++
	:: else -> break
	od;
	i = 0;
	if
	:: owner == h -> m_run[gen] = 0; m_off[gen] = 0
	:: else
	fi
#endif
}

/* The agent's first report in a session says all that is true (session.c: whole reports). */
inline say_all(h)
{
	i = 1;
	do
	:: i <= cur ->
		if
		:: t[i].src == h && t[i].ps == S_REL && t[i].rs < S_REL -> t[i].m_rel = 1
		:: t[i].src == h && t[i].ps == GONE && t[i].rs != GONE -> t[i].m_sgone = 1
		:: t[i].dst == h && t[i].pd == D_COMP && t[i].rd < D_COMP -> t[i].m_dcomp = 1
		:: t[i].dst == h && t[i].pd == D_RUN && t[i].rd < D_RUN -> t[i].m_drun = 1
		:: t[i].dst == h && t[i].pd == GONE && t[i].rd != GONE -> t[i].m_dgone = 1
		:: else
		fi;
		i++
	:: else -> break
	od;
	i = 0;
	if
	:: owner == h && word[h] >= gen -> m_off[gen] = 1
	:: else
	fi
}

/* What the sides' facts change: apply_move_fact (fact_allowed, fact_source, fact_destination). Under
 * ATTEMPT_NOT_COMPARED the fact of attempt a counts for the move's present attempt. */
#ifdef ATTEMPT_NOT_COMPARED
#define AT(a, side) ((t[a].side == t[cur].side) -> cur : a)
#else
#define AT(a, side) a
#endif
#define FACT_REL(a) t[a].m_rel && sess[t[a].src] != X_NONE && t[AT(a, src)].rs < S_REL
#define FACT_SGONE(a)                                                                                                 \
	t[a].m_sgone && sess[t[a].src] != X_NONE && t[a].rs != GONE && !(t[a].rs == S_REL && t[a].dec == NONE)
#define FACT_DCOMP(a) t[a].m_dcomp && sess[t[a].dst] != X_NONE && t[AT(a, dst)].rd < D_COMP
#define FACT_DRUN(a)  t[a].m_drun && sess[t[a].dst] != X_NONE && t[a].rd < D_RUN && t[a].dec == COMMIT
#define FACT_DGONE(a) t[a].m_dgone && sess[t[a].dst] != X_NONE && t[a].rd != GONE
#define FACT_DERR(a)  t[a].m_derr && sess[t[a].dst] != X_NONE && t[a].rd != GONE && t[a].derr == 0

/* apply_vm_start: start_allowed. */
#ifdef TIMEOUT_MOVES_RIGHT
#define IS_OFF (vstate == V_OFF || vstate == V_START)
#else
#define IS_OFF (vstate == V_OFF)
#endif
#define STARTABLE(a, h) (a > cur || (t[a].rs == GONE && (t[a].rd == GONE || (t[a].dec == ABORT && t[a].dst != h))))
inline vm_start(h)
{
	starts++;
	gen++;
	owner = h;
	vstate = V_START
}

/* ------------------------------------------------------------ the agents: agent/ */

inline src_gone(a, h)
{
	t[a].ps = GONE;
	t[a].ds = NONE;
	t[a].here = 0;
	t[a].loaded = 0;
	if
	:: SAYS(h) && t[a].rs != GONE -> t[a].m_sgone = 1
	:: else
	fi;
	tidy(a)
}

inline dst_gone(a, h)
{
	t[a].pd = GONE;
	t[a].dd = NONE;
	t[a].sent = 0;
	if
	:: SAYS(h) && t[a].rd != GONE -> t[a].m_dgone = 1
	:: else
	fi;
	tidy(a)
}

inline obey(a, h) /* amove_order, take_order: a decision once seen stays */
{
	if
	:: o[h].c[a] != 0 && t[a].src == h ->
		if
		:: t[a].ps == NONE -> /* src_assigned: only a running VM moves live */
			if
			:: q[h] == Q_RUN && live[h] == t[a].g && o[h].c[a] == 1 -> t[a].ps = S_COPY; qa[h] = a
			:: else -> src_gone(a, h)
			fi
		:: else
		fi;
		if
		:: t[a].ds == NONE && t[a].ps != GONE -> t[a].ds = o[h].c[a] - 1
		:: else
		fi
	:: o[h].c[a] != 0 && t[a].dst == h ->
		if
		:: t[a].pd == NONE -> /* vm_incoming_start: no other QEMU of that VM is here */
			if
			:: q[h] == Q_NONE && live[h] == 0 && o[h].c[a] == 1 -> t[a].pd = D_PREP; q[h] = Q_INC; qa[h] = a
			:: else -> dst_gone(a, h)
			fi
		:: else
		fi;
		if
		:: t[a].dd == NONE && t[a].pd != GONE -> t[a].dd = o[h].c[a] - 1
		:: else
		fi
	:: else
	fi
}

#define NEWS_S(a, h)                                                                                                  \
	(o[h].c[a] != 0 && t[a].src == h &&                                                                           \
	 (t[a].ps == NONE || (t[a].ps != GONE && t[a].ds == NONE && o[h].c[a] > 1)))
#define NEWS_D(a, h)                                                                                                  \
	(o[h].c[a] != 0 && t[a].dst == h &&                                                                           \
	 (t[a].pd == NONE || (t[a].pd != GONE && t[a].dd == NONE && o[h].c[a] > 1)))
#define NEWS(a, h)    (NEWS_S(a, h) || NEWS_D(a, h))
/* At or below its own word a host starts nothing (R12). */
#define VM_NEWS(h) (o_vm[h] > word[h] -> o_vm[h] : 0)
#define CHANGED(a, h) (o[h].c[a] != CODE(a, h))

inline agent_ends(h)
{
	agent[h] = 0;
	lease[h] = 0;
	o_have[h] = 0;
	k_vm[h] = 0;
	o_vm[h] = 0;
	i = 1;
	do
	:: i <= ATTEMPTS ->
		o[h].c[i] = 0;
		/* R4: move_restore forgets what the last process was told */
		if
		:: i <= cur && t[i].src == h -> t[i].ds = NONE; t[i].here = 0
		:: i <= cur && t[i].dst == h -> t[i].dd = NONE
		:: else
		fi;
		i++
	:: else -> break
	od;
	i = 0;
	if
	:: sess[h] == X_CUR -> sess[h] = X_OLD
	:: else
	fi
}

/* The VM is off here for good: vm_end, store_word_raise. */
inline off_here(h)
{
	word[h] = live[h];
	if
	:: SAYS(h) -> m_off[live[h]] = 1
	:: else
	fi;
	live[h] = 0
}

inline fault(kills)
{
	faults++;
	killed = killed || kills
}

/* What must hold where nothing more can happen. */
#define CLOSED(a, h) (a > cur || (t[a].dec != NONE && t[a].rs == GONE && t[a].rd == GONE))
inline final()
{
	assert(ALL(CLOSED, 0));
	assert(killed || vstate == V_RUN);
	assert(vstate != V_START);
	assert(vstate == V_OFF || q[owner] == Q_RUN);
	assert((q[0] != Q_NONE) + (q[1] != Q_NONE) + (q[2] != Q_NONE) == (vstate == V_RUN -> 1 : 0))
}

/* -------------------------------------------------------------------------------------------- the steps */

#define A_FACTS(a)                                                                                                    \
	:: d_step { a <= cur && FACT_REL(a) -> t[AT(a, src)].rs = S_REL; SPENT(t[a].m_rel) }                          \
	:: d_step { a <= cur && FACT_SGONE(a) -> t[a].rs = GONE; tidy(a) }                                            \
	:: d_step { a <= cur && FACT_DCOMP(a) -> t[AT(a, dst)].rd = D_COMP; SPENT(t[a].m_dcomp) }                     \
	:: d_step { a <= cur && FACT_DRUN(a) -> t[a].rd = D_RUN; SPENT(t[a].m_drun) }                                 \
	:: d_step { a <= cur && FACT_DGONE(a) -> t[a].rd = GONE; tidy(a) }                                            \
	:: d_step { a <= cur && FACT_DERR(a) -> t[a].derr = 1; SPENT(t[a].m_derr) }

/* apply_move_commit, apply_move_abort: open_attempt, and what the rows must say. */
#define A_DECIDE(a)                                                                                                   \
	:: d_step { a == cur && t[a].dec == NONE && owner == t[a].src && gen == t[a].g && WORDS(a) -> commit(a) }     \
	:: d_step { a == cur && t[a].dec == NONE && !BOTH(a) -> t[a].dec = ABORT }
#ifdef COMMIT_ON_ONE_WORD /* R1 */
#define WORDS(a) (t[a].rd == D_COMP)
#else
#define WORDS(a) BOTH(a)
#endif

#ifdef NEVER_TOLD
#define NOT_NAMED(a, h) false
#else
#define NOT_NAMED(a, h) (o_have[h] && o[h].c[a] == 0 && q[h] == Q_NONE)
#endif

/* agent/move_src.c, move_src_end.c, for the source h of attempt a */
#ifdef WORD_NOT_READ_BACK /* R1 */
#define MAY_GIVE_WORD(h) (q[h] == Q_POST || q[h] == Q_DEV)
#else
#define MAY_GIVE_WORD(h) (q[h] == Q_POST)
#endif
#ifdef CONT_UNDECIDED /* R4 */
#define MAY_ABORT_REL(a) (t[a].ds == ABORT || (t[a].ds == NONE && !t[a].here))
#else
#define MAY_ABORT_REL(a) (t[a].ds == ABORT)
#endif
#define SRC(a, h) agent[h] && MINE_S(a, h)
#define A_SOURCE(a, h)                                                                                                \
	/* QEMU has converged and stops the VM: pre-switchover */                                                     \
	:: d_step {                                                                                                   \
		MINE_S(a, h) && t[a].ps == S_COPY && q[h] == Q_RUN && qa[h] == a && q[t[a].dst] == Q_INC &&           \
			qa[t[a].dst] == a ->                                                                          \
		q[h] = Q_STOP                                                                                         \
	}                                                                                                             \
	/* pre_switchover: recorded, then src_completing: migrate-continue */                                         \
	:: d_step { SRC(a, h) && t[a].ps == S_COPY && q[h] == Q_STOP && lease[h] -> t[a].ps = S_COMP; t[a].here = 1 } \
	:: d_step { SRC(a, h) && t[a].ps == S_COMP && q[h] == Q_STOP && t[a].here -> q[h] = Q_DEV; t[a].sent = (t[a].pd != GONE) } \
	/* QEMU: the destination's answer came */                                                                     \
	:: d_step { MINE_S(a, h) && q[h] == Q_DEV && qa[h] == a && t[a].loaded -> q[h] = Q_POST }                     \
	/* QEMU: the stream broke; it resumes by itself. Or migrate_cancel, or the brake (src_abort, src_r29) */      \
	:: d_step {                                                                                                   \
		MINE_S(a, h) && qa[h] == a && (q[h] == Q_DEV || q[h] == Q_STOP) -> q[h] = Q_RUN; qa[h] = 0;           \
		check_one()                                                                                           \
	}                                                                                                             \
	/* give_word */                                                                                               \
	:: d_step {                                                                                                   \
		SRC(a, h) && t[a].ps == S_COMP && MAY_GIVE_WORD(h) && lease[h] -> t[a].ps = S_REL;                    \
		if                                                                                                    \
		:: SAYS(h) -> t[a].m_rel = 1                                                                          \
		:: else                                                                                               \
		fi                                                                                                    \
	}                                                                                                             \
	/* gave_up, before the word: for any reason, without anybody (R2) */                                          \
	:: d_step { SRC(a, h) && (t[a].ps == S_COPY || t[a].ps == S_COMP) -> t[a].ps = S_AB }                         \
	/* src_released */                                                                                            \
	:: d_step {                                                                                                   \
		SRC(a, h) && t[a].ps == S_REL && t[a].ds == COMMIT -> t[a].ps = S_FIN;                                \
		word[h] = t[a].g; /* vm_leave_record */                                                               \
		live[h] = 0                                                                                           \
	}                                                                                                             \
	:: d_step { SRC(a, h) && t[a].ps == S_REL && MAY_ABORT_REL(a) -> t[a].ps = S_AB }                             \
	/* The orders do not name it: its host has booted since, and its QEMU is gone with the last boot */           \
	:: d_step { SRC(a, h) && t[a].ps == S_REL && NOT_NAMED(a, h) -> t[a].ps = S_AB }                              \
	/* src_finishing: quit */                                                                                     \
	:: d_step {                                                                                                   \
		SRC(a, h) && t[a].ps == S_FIN -> assert(owner != h || gen > t[a].g + 1);                              \
		q[h] = Q_NONE; contq[h] = 0; qa[h] = 0; src_gone(a, h)                                                \
	}                                                                                                             \
	/* resume_by_cont */                                                                                          \
	:: d_step {                                                                                                   \
		SRC(a, h) && t[a].ps == S_AB && q[h] == Q_POST && !contq[h] && lease[h] -> contq[h] = 1               \
	}                                                                                                             \
	/* vm_back */                                                                                                 \
	:: d_step { SRC(a, h) && t[a].ps == S_AB && q[h] == Q_RUN && !contq[h] -> qa[h] = 0; src_gone(a, h) }         \
	:: d_step { SRC(a, h) && t[a].ps == S_AB && q[h] == Q_NONE -> qa[h] = 0; off_here(h); src_gone(a, h) }

/* agent/move_dst.c, for the destination h of attempt a */
#ifdef CONT_ON_COMPLETED /* R4 */
#define TOLD(a) (t[a].dd != ABORT)
#else
#define TOLD(a) (t[a].dd == COMMIT)
#endif
#define DST(a, h) agent[h] && MINE_D(a, h)
#define A_DESTINATION(a, h)                                                                                           \
	/* QEMU has loaded everything that was sent */                                                                \
	:: d_step { MINE_D(a, h) && q[h] == Q_INC && qa[h] == a && t[a].sent -> q[h] = Q_LOAD; t[a].loaded = (t[a].ps != GONE) } \
	/* dst_loading: the word */                                                                                   \
	:: d_step {                                                                                                   \
		DST(a, h) && t[a].pd == D_PREP && q[h] == Q_LOAD -> t[a].pd = D_COMP;                                 \
		if                                                                                                    \
		:: SAYS(h) -> t[a].m_dcomp = 1                                                                        \
		:: else                                                                                               \
		fi                                                                                                    \
	}                                                                                                             \
	/* gave_up: a deadline, a broken stream, an incoming QEMU that exited, an abort */                            \
	:: d_step { DST(a, h) && t[a].pd == D_PREP -> t[a].pd = D_AB }                                                \
	/* dst_completed */                                                                                           \
	:: d_step { DST(a, h) && t[a].pd == D_COMP && q[h] == Q_NONE && SAYS(h) && !t[a].m_derr -> t[a].m_derr = 1 }  \
	:: d_step { DST(a, h) && t[a].pd == D_COMP && (t[a].dd == ABORT || NOT_NAMED(a, h)) -> t[a].pd = D_AB }       \
	:: d_step { DST(a, h) && t[a].pd == D_COMP && TOLD(a) -> t[a].pd = D_CONT; live[h] = t[a].g + 1 }             \
	/* dst_continuing */                                                                                          \
	:: d_step { DST(a, h) && t[a].pd == D_CONT && q[h] == Q_LOAD && !contq[h] && lease[h] -> contq[h] = 1 }       \
	:: d_step {                                                                                                   \
		DST(a, h) && t[a].pd == D_CONT && q[h] == Q_RUN && !contq[h] -> t[a].pd = D_RUN;                      \
		if                                                                                                    \
		:: SAYS(h) -> t[a].m_drun = 1                                                                         \
		:: else                                                                                               \
		fi                                                                                                    \
	}                                                                                                             \
	:: d_step { DST(a, h) && t[a].pd == D_CONT && q[h] == Q_NONE -> qa[h] = 0; off_here(h); dst_gone(a, h) }      \
	:: d_step { DST(a, h) && t[a].pd == D_RUN -> qa[h] = 0; dst_gone(a, h) }                                      \
	/* dst_aborting: kill, whatever state it is in; R25: only the process that this attempt started */             \
	:: d_step {                                                                                                   \
		DST(a, h) && t[a].pd == D_AB ->                                                                       \
		if                                                                                                    \
		:: qa[h] == a ->                                                                                      \
			assert(q[h] == Q_NONE || owner != h || vstate == V_OFF || gen <= t[a].g);                     \
			q[h] = Q_NONE; contq[h] = 0; qa[h] = 0                                                        \
		:: else                                                                                               \
		fi;                                                                                                   \
		dst_gone(a, h)                                                                                        \
	}

/* apply_vm_fact; a repeated "runs" after "off" is put right by the next report (reports.c: vm_differs) */
#define A_VM_FACTS(g)                                                                                                 \
	:: d_step { m_run[g] && gen == g && sess[owner] != X_NONE && vstate == V_START -> vstate = V_RUN }            \
	:: d_step { m_off[g] && gen == g && sess[owner] != X_NONE && vstate != V_OFF -> vstate = V_OFF }

#ifdef LEASE_IS_PROOF /* R9 */
#define DEAD(h) (!up[h] || rowboot_old[h] || !lease[h])
#else
#define DEAD(h) (!up[h] || rowboot_old[h])
#endif
/* A host without any part in it may fail, too, but that changes nothing. */
#define PART(a, h)  (HOLDS1(a, h) || CODE(a, h) != 0)
#define MAY_FAIL(h) (faults < FAULTS && (owner == h || q[h] != Q_NONE || live[h] != 0 || ANY(PART, h)))
#define A_HOST(h)                                                                                                     \
	/* apply_node_session: begins, perhaps after a new boot */                                                    \
	:: d_step {                                                                                                   \
		agent[h] && sess[h] == X_NONE && (rowboot_old[h] || !fenced[h]) ->                                    \
		if                                                                                                    \
		:: rowboot_old[h] -> host_died(h); rowboot_old[h] = 0; fenced[h] = 0                                  \
		:: else                                                                                               \
		fi;                                                                                                   \
		sess[h] = X_CUR;                                                                                      \
		forget_said(h);                                                                                       \
		say_all(h)                                                                                            \
	}                                                                                                             \
	/* session_lost */                                                                                            \
	:: d_step { sess[h] == X_OLD -> sess[h] = X_NONE }                                                            \
	:: d_step { MAY_FAIL(h) && sess[h] == X_CUR -> fault(0); sess[h] = X_NONE }                                   \
	GHOST(h)                                                                                                      \
	/* apply_node_fenced: a fence agent, a watchdog, the operator's word; attempt_host_died */                    \
	:: d_step { DEAD(h) && !fenced[h] -> host_died(h); fenced[h] = 1; sess[h] = X_NONE }                          \
	/* lease.c: grant_one; lease_valid, lease_age_us */                                                           \
	:: d_step { agent[h] && sess[h] == X_CUR && !lease[h] -> lease[h] = 1 }                                       \
	:: d_step { lease[h] && sess[h] != X_CUR -> lease[h] = 0 }                                                    \
	:: d_step { MAY_FAIL(h) && lease[h] && sess[h] == X_CUR -> fault(0); lease[h] = 0 }                       \
	/* orders_build, send_orders */                                                                               \
	:: d_step {                                                                                                   \
		agent[h] && sess[h] == X_CUR && (!o_have[h] || ANY(CHANGED, h) || o_vm[h] != ORDERED(h)) ->           \
		o_have[h] = 1;                                                                                        \
		i = 1;                                                                                                \
		do                                                                                                    \
		:: i <= ATTEMPTS -> o[h].c[i] = CODE(i, h); i++                                                       \
		:: else -> break                                                                                      \
		od;                                                                                                   \
		i = 0;                                                                                                \
		o_vm[h] = ORDERED(h)                                                                                  \
	}                                                                                                             \
	/* reconcile_orders, apply */                                                                                 \
	:: d_step {                                                                                                   \
		agent[h] && (ANY(NEWS, h) || k_vm[h] != VM_NEWS(h)) ->                                                   \
		i = 1;                                                                                                \
		do                                                                                                    \
		:: i <= cur -> obey(i, h); i++                                                                        \
		:: else -> break                                                                                      \
		od;                                                                                                   \
		i = 0;                                                                                                \
		k_vm[h] = VM_NEWS(h)                                                                                  \
	}                                                                                                             \
	/* vm_order_run, start */                                                                                     \
	:: d_step {                                                                                                   \
		agent[h] && k_vm[h] > word[h] && live[h] == 0 && q[h] == Q_NONE && !ANY(HOLDS1, h) && lease[h] ->     \
		live[h] = k_vm[h];                                                                                    \
		q[h] = Q_PRE                                                                                          \
	}                                                                                                             \
	/* first_cont */                                                                                              \
	:: d_step { agent[h] && q[h] == Q_PRE && !contq[h] && lease[h] -> contq[h] = 1 }                              \
	/* QEMU carries out a cont */                                                                                 \
	:: d_step { contq[h] -> contq[h] = 0; q[h] = Q_RUN; check_one() }                                             \
	/* set_running, and the report of it */                                                                       \
	:: d_step {                                                                                                   \
		agent[h] && live[h] != 0 && live[h] == ORDERED(h) && q[h] == Q_RUN && !ANY(HOLDS1, h) && SAYS(h) && !m_run[live[h]] -> \
		m_run[live[h]] = 1                                                                                    \
	}                                                                                                             \
	/* on_exit, vm_adopt: its QEMU has ended. After the word only a decision says what that means (VM_P_LOST) */  \
	:: d_step { agent[h] && live[h] != 0 && q[h] == Q_NONE && !ANY(HOLDS1, h) -> off_here(h) }                    \
	/* faults */                                                                                                  \
	:: d_step { MAY_FAIL(h) && agent[h] -> fault(0); agent_ends(h) }                                          \
	:: d_step { faults < FAULTS && q[h] != Q_NONE -> fault(q[h] != Q_INC); q[h] = Q_NONE; contq[h] = 0 }          \
	:: d_step {                                                                                                   \
		MAY_FAIL(h) && up[h] -> fault(1); agent_ends(h); up[h] = 0;                                       \
		q[h] = Q_NONE; contq[h] = 0; qa[h] = 0; rowboot_old[h] = 1; ghost[h] = 1                              \
	}                                                                                                             \
	/* what comes back; a QEMU may have had a cont on its way, carried out or dropped with the connection */      \
	:: d_step { !up[h] -> up[h] = 1 }                                                                             \
	:: d_step { up[h] && !agent[h] && !contq[h] -> agent[h] = 1 }                                                 \
	:: d_step { up[h] && !agent[h] && contq[h] -> contq[h] = 0 }

/* A NodeSession of an earlier boot, proposed then and applied now, when no session is in the row. */
#ifdef BOOT_NOT_COMPARED
#define GHOST(h)                                                                                                      \
	:: d_step {                                                                                                   \
		ghost[h] && sess[h] == X_NONE && !rowboot_old[h] ->                                                   \
		ghost[h] = 0; host_died(h); rowboot_old[h] = 1; fenced[h] = 0; sess[h] = X_OLD                        \
	}
#else
#define GHOST(h)
#endif

/* apply_move_assign. The two other hosts are alike: the first attempt goes to 1. */
#define A_ASSIGN(d)                                                                                                   \
	:: d_step {                                                                                                   \
		cur < ATTEMPTS && FREE && vstate == V_RUN && owner != d && sess[owner] != X_NONE &&                   \
			sess[d] != X_NONE && ALL(CLEAN, owner) && ALL(CLEAN, d) && (cur > 0 || d == 1) ->             \
		assign(d)                                                                                             \
	}
#define A_START(h)                                                                                                    \
	:: d_step {                                                                                                   \
		starts < STARTS && IS_OFF && FREE && ALL(STARTABLE, h) && sess[h] != X_NONE -> vm_start(h)            \
	}

#if ATTEMPTS == 1
#define EACH_ATTEMPT(X)	    X(1)
#define EACH_ATTEMPT_H(X, h) X(1, h)
#elif ATTEMPTS == 2
#define EACH_ATTEMPT(X)	    X(1) X(2)
#define EACH_ATTEMPT_H(X, h) X(1, h) X(2, h)
#else
#define EACH_ATTEMPT(X)	    X(1) X(2) X(3)
#define EACH_ATTEMPT_H(X, h) X(1, h) X(2, h) X(3, h)
#endif

init
{
	d_step {
		owner = 0;
		gen = 1;
		vstate = V_RUN;
		i = 0;
		do
		:: i < 3 -> up[i] = 1; agent[i] = 1; sess[i] = X_CUR; lease[i] = 1; i++
		:: else -> break
		od;
		i = 0;
		q[0] = Q_RUN;
		live[0] = 1
	}
	do
	A_ASSIGN(0) A_ASSIGN(1) A_ASSIGN(2)
	A_START(0) A_START(1) A_START(2)
	EACH_ATTEMPT(A_FACTS)
	EACH_ATTEMPT(A_DECIDE)
	A_VM_FACTS(1) A_VM_FACTS(2) A_VM_FACTS(3)
#if GENS > 4
	A_VM_FACTS(4)
#endif
#if GENS > 5
	A_VM_FACTS(5)
#endif
	EACH_ATTEMPT_H(A_SOURCE, 0) EACH_ATTEMPT_H(A_SOURCE, 1) EACH_ATTEMPT_H(A_SOURCE, 2)
	EACH_ATTEMPT_H(A_DESTINATION, 0) EACH_ATTEMPT_H(A_DESTINATION, 1) EACH_ATTEMPT_H(A_DESTINATION, 2)
	A_HOST(0) A_HOST(1) A_HOST(2)
	:: else -> break
	od;
	final()
}
