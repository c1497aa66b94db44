/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The probe guest: a kernel that does nothing but prove that it was moved correctly.
 *
 * It fills all of its memory with known content, dirties a working set at a known rate, checks all of its
 * memory against what it should hold, over and over, and writes a numbered heartbeat line to the debug
 * console (I/O port 0xe9). Whoever reads these lines (beatmon.c) sees from inside the VM how long it stood
 * still, whether it ran twice, and whether a single word of its memory is wrong.
 *
 * Parameters on the kernel command line (QEMU -append "..."), all optional:
 *   mem=MiB        memory under test; 0 (default) = all there is
 *   fill=KIND      zero, text (compresses about 4:1) or random; default zero
 *   ws=MiB         working set that is dirtied; default 0 = nothing
 *   rate=PAGES/s   how fast it is dirtied; default 0
 *   hb=N[us|ms]    time between heartbeats, plain = us, at least 1 ms; default 10 ms
 *   verify=MiB/s   pace of the check, 0 = no check; default 32
 *   khz=KHZ        TSC frequency; default: measured against the timer at boot (takes 0.2 s)
 *   flush=0|1      drop the TLB on every tick. QEMU 7.2 under TCG loses dirty bits of pages whose TLB entry
 * is older than its last bitmap synchronisation, i.e. live migration corrupts memory; with flush=1 it does
 * not idle=0|1       1 (default): halt between timer ticks; 0: spin
 *
 * Lines (numbers in decimal unless said otherwise):
 *   BOOT b=ID khz= pages= fill= ws= rate= hb=      once at start; ID (4 hex digits) is drawn anew at each
 * boot FILLED us=                                     once, when the memory holds its first content H
 * n=NUMBER b=ID t=US d=DIRTIED v=PASSES e=BADWORDS g=GAPUS     a full heartbeat, once a second and when e
 * changed h NUMBER ID                                    the other heartbeats; short, each byte costs the
 * host a system call t = us of guest time since the first beat, d = pages dirtied so far, v = complete passes
 * of the check, e = wrong words found so far, g = longest time between two turns of the main loop since the
 * last full beat.
 */
#include <stddef.h>
#include <stdint.h>

#define PAGE_SIZE      4096u
#define PAGE_WORDS     (PAGE_SIZE / 8)
#define BLOCK_WORDS    8u /* content is made and compared in blocks of this many words */
#define MIB	       (1ull << 20)
#define GIB	       (1ull << 30)
#define LARGE_PAGE     (2 * MIB)
#define IDENTITY_LIMIT (16 * GIB) /* boot.S maps this much */
#define HIGH_MEMORY    (4 * GIB)  /* RAM above the PCI hole starts here */

#define PORT_DEBUGCON	     0xe9
#define PORT_PIC1	     0x20
#define PORT_PIC2	     0xa0
#define PORT_PIT_CHANNEL0    0x40
#define PORT_PIT_MODE	     0x43
#define PORT_CMOS_INDEX	     0x70
#define PORT_CMOS_DATA	     0x71
#define TIMER_VECTOR	     0x20
#define PIT_HZ		     1193182u
#define PIT_RATE_GENERATOR   0x34 /* channel 0, both bytes, mode 2 */
#define CMOS_CLOCK_REGISTERS 10	  /* seconds .. year */

#define LAPIC_SPURIOUS ((volatile uint32_t *)0xFEE000F0ull)
#define LAPIC_LINT0    ((volatile uint32_t *)0xFEE00350ull)
#define LAPIC_ENABLE   0x1FFu
#define LAPIC_EXTINT   0x700u

#define MULTIBOOT_HAS_MEMORY  (1u << 0)
#define MULTIBOOT_HAS_CMDLINE (1u << 2)
#define MULTIBOOT_HAS_MMAP    (1u << 6)
#define MMAP_USABLE	      1u

#define CALIBRATION_HZ	  100u
#define CALIBRATION_TICKS 20u
#define TICK_MIN_US	  1000u
#define TICK_MAX_US	  50000u  /* the PIT cannot count further than 54.9 ms */
#define DEBT_LIMIT_US	  100000u /* dirtying that could not be done for longer than this is forgiven */
#define DIRTY_BURST	  64u	  /* pages dirtied between two looks at the clock */
#define FULL_BEAT_US	  1000000u

/* As laid out by the multiboot 1 specification. */
struct multiboot_info {
	uint32_t flags;
	uint32_t mem_lower;
	uint32_t mem_upper; /* KiB from 1 MiB up */
	uint32_t boot_device;
	uint32_t cmdline;
	uint32_t mods_count;
	uint32_t mods_addr;
	uint32_t syms[4];
	uint32_t mmap_length;
	uint32_t mmap_addr;
};

struct mmap_entry {
	uint32_t size; /* of what follows */
	uint64_t base;
	uint64_t length;
	uint32_t type;
} __attribute__((packed));

enum fill { FILL_ZERO, FILL_TEXT, FILL_RANDOM };

enum service { /* see service_table in boot.S */
	       SERVICE_HALT,
	       SERVICE_OUT_STRING,
	       SERVICE_FLUSH_TLB,
	       SERVICE_OUT8,
	       SERVICE_IN8,
};

/* The pages under test: numbered 0..pages-1, at most two runs of memory (below and above the PCI hole). */
static struct {
	uint64_t pages;
	uint64_t low_pages;
	uint8_t *low;
	uint8_t *high;
	uint32_t *generation; /* per page: how often it was written */
} memory;

static struct {
	enum fill fill;
	uint64_t mem_mib;
	uint64_t ws_pages;
	uint64_t rate;
	uint64_t hb_us;
	uint64_t verify_mib;
	uint64_t khz;
	uint64_t flush;
	uint64_t idle;
} option;

static struct {
	uint16_t boot_id;
	uint64_t beats;
	uint64_t dirtied;
	uint64_t passes;
	uint64_t bad_words;
	uint64_t longest_loop; /* ticks of the TSC */
} count;

static char cmdline[512];
static uint64_t dictionary[64]; /* eight-letter words, FILL_TEXT is made of them */

extern char image_end[]; /* guest.ld */

void guest_main(const struct multiboot_info *info);
void *memset(void *to, int byte, size_t length);
void *memcpy(void *to, const void *from, size_t length);

/* The compiler may call these two even in freestanding code. */
void *memset(void *to, int byte, size_t length)
{
	void *at = to;
	__asm__ volatile("rep stosb" : "+D"(at), "+c"(length) : "a"(byte) : "memory");
	return to;
}

void *memcpy(void *to, const void *from, size_t length)
{
	void *at = to;
	__asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(length) : : "memory");
	return to;
}

/* --- services of ring 0
 * ------------------------------------------------------------------------------------------- */

static uint64_t service(enum service number, uint16_t port, uint64_t value, const void *buffer)
{
	uint64_t answer = number;
	register uint64_t r8 __asm__("r8") = value;
	__asm__ volatile("ud2" : "+a"(answer), "+S"(buffer), "+r"(r8) : "d"(port) : "rcx", "memory", "cc");
	return answer;
}

static void out8(uint16_t port, uint8_t value)
{
	service(SERVICE_OUT8, port, value, NULL);
}

static uint8_t in8(uint16_t port)
{
	return (uint8_t)service(SERVICE_IN8, port, 0, NULL);
}

static uint64_t rdtsc(void)
{
	uint32_t low, high;
	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return (uint64_t)high << 32 | low;
}

/* --- lines
 * -------------------------------------------------------------------------------------------------------- */

static char line[256];
static size_t line_length;

static void put_char(char c)
{
	if (line_length < sizeof(line))
		line[line_length++] = c;
}

static void put_string(const char *s)
{
	while (*s)
		put_char(*s++);
}

static void put_decimal(const char *name, uint64_t value)
{
	char digit[20];
	int n = 0;

	put_string(name);
	do {
		digit[n++] = (char)('0' + value % 10);
		value /= 10;
	} while (value);
	while (n)
		put_char(digit[--n]);
}

static void put_boot_id(const char *name)
{
	put_string(name);
	for (int shift = 12; shift >= 0; shift -= 4)
		put_char("0123456789abcdef"[count.boot_id >> shift & 15]);
}

static void end_line(void)
{
	put_char('\n');
	service(SERVICE_OUT_STRING, PORT_DEBUGCON, line_length, line);
	line_length = 0;
}

/* --- parameters
 * --------------------------------------------------------------------------------------------------- */

/* The text behind "name=" on the command line, or NULL. */
static const char *parameter(const char *name)
{
	for (const char *at = cmdline; *at; at++) {
		if (at != cmdline && at[-1] != ' ')
			continue;
		const char *a = at, *n = name;
		while (*n && *a == *n) {
			a++;
			n++;
		}
		if (!*n && *a == '=')
			return a + 1;
	}
	return NULL;
}

static uint64_t number_parameter(const char *name, uint64_t otherwise)
{
	const char *s = parameter(name);
	uint64_t value = 0;

	if (!s || *s < '0' || *s > '9')
		return otherwise;
	for (; *s >= '0' && *s <= '9'; s++)
		value = value * 10 + (uint64_t)(*s - '0');
	return value;
}

static uint64_t hb_parameter(void)
{
	uint64_t us = number_parameter("hb", 10000);
	const char *s = parameter("hb");

	while (s && *s >= '0' && *s <= '9')
		s++;
	if (s && s[0] == 'm' && s[1] == 's')
		us *= 1000;
	return us < TICK_MIN_US ? TICK_MIN_US : us;
}

static void read_parameters(const struct multiboot_info *info)
{
	if (info->flags & MULTIBOOT_HAS_CMDLINE) {
		const char *from = (const char *)(uintptr_t)info->cmdline;
		for (size_t i = 0; i < sizeof(cmdline) - 1 && from[i]; i++)
			cmdline[i] = from[i];
	}
	const char *fill = parameter("fill");
	option.fill = !fill ? FILL_ZERO : *fill == 't' ? FILL_TEXT : *fill == 'r' ? FILL_RANDOM : FILL_ZERO;
	option.mem_mib = number_parameter("mem", 0);
	option.ws_pages = number_parameter("ws", 0) * (MIB / PAGE_SIZE);
	option.rate = number_parameter("rate", 0);
	option.hb_us = hb_parameter();
	option.verify_mib = number_parameter("verify", 32);
	option.khz = number_parameter("khz", 0);
	option.flush = number_parameter("flush", 0);
	option.idle = number_parameter("idle", 1);
}

/* --- memory under test
 * -------------------------------------------------------------------------------------------- */

static uint64_t align_up(uint64_t value, uint64_t to)
{
	return (value + to - 1) / to * to;
}

/* End of the RAM that begins at or below `address`, 0 if there is none. */
static uint64_t ram_end(const struct multiboot_info *info, uint64_t address)
{
	if (!(info->flags & MULTIBOOT_HAS_MMAP)) {
		uint64_t end = MIB + (uint64_t)info->mem_upper * 1024;
		return (info->flags & MULTIBOOT_HAS_MEMORY) && end > address ? end : 0;
	}
	for (uint32_t at = 0; at < info->mmap_length;) {
		const struct mmap_entry *e = (const void *)((uintptr_t)info->mmap_addr + at);
		if (e->type == MMAP_USABLE && e->base <= address && e->base + e->length > address)
			return e->base + e->length;
		at += e->size + (uint32_t)sizeof(e->size);
	}
	return 0;
}

static void find_memory(const struct multiboot_info *info)
{
	uint64_t low = align_up((uint64_t)(uintptr_t)image_end, PAGE_SIZE);
	uint64_t low_end = ram_end(info, low) / PAGE_SIZE * PAGE_SIZE;
	uint64_t high_end = ram_end(info, HIGH_MEMORY) / PAGE_SIZE * PAGE_SIZE;

	if (high_end > IDENTITY_LIMIT)
		high_end = IDENTITY_LIMIT;
	uint64_t low_pages = low_end > low ? (low_end - low) / PAGE_SIZE : 0;
	uint64_t high_pages = high_end > HIGH_MEMORY ? (high_end - HIGH_MEMORY) / PAGE_SIZE : 0;
	uint64_t wanted = option.mem_mib * (MIB / PAGE_SIZE);

	/* The table of generations lies in front of the pages, one word of 32 bits for each page there can
	 * be. */
	uint64_t table_pages = align_up((low_pages + high_pages) * sizeof(uint32_t), PAGE_SIZE) / PAGE_SIZE;
	memory.generation = (uint32_t *)(uintptr_t)low;
	memory.low = (uint8_t *)(uintptr_t)(low + table_pages * PAGE_SIZE);
	memory.high = (uint8_t *)(uintptr_t)HIGH_MEMORY;
	memory.low_pages = low_pages > table_pages ? low_pages - table_pages : 0;
	memory.pages = memory.low_pages + high_pages;
	if (wanted && wanted < memory.pages)
		memory.pages = wanted;
	if (option.ws_pages > memory.pages)
		option.ws_pages = memory.pages;
}

static uint64_t *page_address(uint64_t page)
{
	uint8_t *at = page < memory.low_pages ? memory.low + page * PAGE_SIZE
					      : memory.high + (page - memory.low_pages) * PAGE_SIZE;
	return (uint64_t *)(void *)at;
}

static uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ull;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

static void make_dictionary(void)
{
	for (unsigned i = 0; i < sizeof(dictionary) / sizeof(dictionary[0]); i++) {
		uint64_t seed = mix(i + 77), word = (uint64_t)' ' << 56;
		for (unsigned letter = 0; letter < 7; letter++) {
			word |= ('a' + seed % 26) << (8 * letter);
			seed /= 26;
		}
		dictionary[i] = word;
	}
}

/*
 * What a page holds is a function of its number and its generation, made in blocks from a running seed. With
 * fill=zero a page is zero until it is dirtied for the first time and random from then on.
 */
struct content {
	enum fill fill;
	uint64_t seed;
};

static struct content content_of(uint64_t page, uint32_t generation)
{
	struct content c = {option.fill, mix((page << 32) + generation + 1)};

	if (c.fill == FILL_ZERO && generation > 0)
		c.fill = FILL_RANDOM;
	return c;
}

static inline void next_block(struct content *c, uint64_t block[BLOCK_WORDS])
{
	uint64_t s = c->seed;

	switch (c->fill) {
	case FILL_ZERO:
		for (unsigned i = 0; i < BLOCK_WORDS; i++)
			block[i] = 0;
		return;
	case FILL_TEXT:
		s = s * 6364136223846793005ull + 1442695040888963407ull;
		for (unsigned i = 0; i < BLOCK_WORDS; i++)
			block[i] = dictionary[s >> (16 + 6 * i) & 63];
		break;
	case FILL_RANDOM:
		for (unsigned i = 0; i < BLOCK_WORDS; i++) {
			s ^= s << 13;
			s ^= s >> 7;
			s ^= s << 17;
			block[i] = s;
		}
		break;
	}
	c->seed = s;
}

/* Two different text pages may not look alike, so their first word is the seed itself. */
static void first_block(struct content *c, uint64_t block[BLOCK_WORDS])
{
	uint64_t seed = c->seed;

	next_block(c, block);
	if (c->fill == FILL_TEXT)
		block[0] = seed;
}

static void write_page(uint64_t page)
{
	struct content c = content_of(page, memory.generation[page]);
	uint64_t *at = page_address(page);

	first_block(&c, at);
	for (unsigned i = BLOCK_WORDS; i < PAGE_WORDS; i += BLOCK_WORDS)
		next_block(&c, at + i);
}

/* Returns the number of words that are not what they should be. */
static uint64_t check_page(uint64_t page)
{
	struct content c = content_of(page, memory.generation[page]);
	const uint64_t *at = page_address(page);
	uint64_t want[BLOCK_WORDS], bad = 0;

	first_block(&c, want);
	for (unsigned i = 0;;) {
		for (unsigned j = 0; j < BLOCK_WORDS; j++)
			bad += at[i + j] != want[j];
		i += BLOCK_WORDS;
		if (i == PAGE_WORDS)
			return bad;
		next_block(&c, want);
	}
}

/* --- time
 * ---------------------------------------------------------------------------------------------------------
 */

static void set_timer(uint32_t hz)
{
	uint32_t divisor = PIT_HZ / hz;

	out8(PORT_PIT_MODE, PIT_RATE_GENERATOR);
	out8(PORT_PIT_CHANNEL0, (uint8_t)(divisor & 255));
	out8(PORT_PIT_CHANNEL0, (uint8_t)(divisor >> 8));
}

static void wait_tick(void)
{
	service(SERVICE_HALT, 0, 0, NULL);
}

static void start_interrupts(void)
{
	/* The four initialisation words: cascaded, vectors, wiring, 8086 mode with automatic end of
	 * interrupt. */
	static const uint8_t master[] = {0x11, TIMER_VECTOR, 4, 3}, slave[] = {0x11, TIMER_VECTOR + 8, 2, 3};

	for (uint16_t i = 0; i < sizeof(master); i++) {
		out8(i ? PORT_PIC1 + 1 : PORT_PIC1, master[i]);
		out8(i ? PORT_PIC2 + 1 : PORT_PIC2, slave[i]);
	}
	out8(PORT_PIC1 + 1, 0xfe); /* all masked but the timer */
	out8(PORT_PIC2 + 1, 0xff);
	/* SeaBIOS routes the PIC through the local APIC, qboot does not. */
	*LAPIC_SPURIOUS = LAPIC_ENABLE;
	*LAPIC_LINT0 = LAPIC_EXTINT;
}

static void calibrate(void)
{
	if (option.khz)
		return;
	set_timer(CALIBRATION_HZ);
	wait_tick();
	uint64_t start = rdtsc();
	for (unsigned i = 0; i < CALIBRATION_TICKS; i++)
		wait_tick();
	option.khz = (rdtsc() - start) * CALIBRATION_HZ / CALIBRATION_TICKS / 1000;
	if (!option.khz)
		option.khz = 1;
}

static uint64_t tsc_us(uint64_t ticks)
{
	/* Whole milliseconds first: ticks * 1000 would overflow after some weeks. */
	return ticks / option.khz * 1000 + ticks % option.khz * 1000 / option.khz;
}

/* Wall clock and the jitter of the TSC: two boots of one VM never have the same. */
static void draw_boot_id(void)
{
	uint64_t seed = 0;

	for (uint8_t i = 0; i < CMOS_CLOCK_REGISTERS; i++) {
		out8(PORT_CMOS_INDEX, i);
		seed = mix(seed + in8(PORT_CMOS_DATA) + 1);
	}
	count.boot_id = (uint16_t)mix(seed + rdtsc());
}

/* --- the work
 * ----------------------------------------------------------------------------------------------------- */

static void say_boot(void)
{
	static const char *const fill_name[] = {"zero", "text", "random"};

	put_boot_id("BOOT b=");
	put_decimal(" khz=", option.khz);
	put_decimal(" pages=", memory.pages);
	put_string(" fill=");
	put_string(fill_name[option.fill]);
	put_decimal(" ws=", option.ws_pages);
	put_decimal(" rate=", option.rate);
	put_decimal(" hb=", option.hb_us);
	end_line();
}

static void fill_memory(void)
{
	uint64_t start = rdtsc();

	for (uint64_t page = 0; page < memory.pages; page++) {
		memory.generation[page] = 0;
		write_page(page);
	}
	put_decimal("FILLED us=", tsc_us(rdtsc() - start));
	end_line();
}

static void beat(uint64_t since_start_us)
{
	static uint64_t last_full_us, last_bad;
	int full = count.beats == 0 || since_start_us - last_full_us >= FULL_BEAT_US ||
		   count.bad_words != last_bad;

	count.beats++;
	put_decimal(full ? "H n=" : "h ", count.beats);
	put_boot_id(full ? " b=" : " ");
	if (full) {
		put_decimal(" t=", since_start_us);
		put_decimal(" d=", count.dirtied);
		put_decimal(" v=", count.passes);
		put_decimal(" e=", count.bad_words);
		put_decimal(" g=", tsc_us(count.longest_loop));
		count.longest_loop = 0;
		last_full_us = since_start_us;
		last_bad = count.bad_words;
	}
	end_line();
}

/* Dirties what is due after `us` of work at option.rate. Returns whether more is due. */
static int dirty(uint64_t us)
{
	static uint64_t next, forgiven_us;

	if (!option.rate || !option.ws_pages)
		return 0;
	us -= forgiven_us;
	uint64_t due = us / 1000000 * option.rate + us % 1000000 * option.rate / 1000000;
	for (unsigned n = 0; n < DIRTY_BURST && count.dirtied < due; n++) {
		memory.generation[next]++;
		write_page(next);
		next = next + 1 == option.ws_pages ? 0 : next + 1;
		count.dirtied++;
	}
	uint64_t debt_us = due > count.dirtied ? (due - count.dirtied) * 1000000 / option.rate : 0;
	if (debt_us > DEBT_LIMIT_US)
		forgiven_us +=
			debt_us -
			DEBT_LIMIT_US; /* too slow for this rate, or stood still: do not rush after it */
	return debt_us > 0;
}

static void verify(uint64_t pages)
{
	static uint64_t next;

	for (; pages; pages--) {
		count.bad_words += check_page(next);
		if (++next == memory.pages) {
			next = 0;
			count.passes++;
		}
	}
}

static _Noreturn void work(uint64_t tick_us)
{
	uint64_t hb_ticks = option.hb_us * option.khz / 1000;
	uint64_t verify_per_tick = (option.verify_mib * (MIB / PAGE_SIZE) * tick_us + 999999) / 1000000;
	uint64_t start = rdtsc(), last = start, next_beat = start;

	for (;;) {
		uint64_t now = rdtsc();
		if (now > last && now - last > count.longest_loop)
			count.longest_loop = now - last;
		last = now;
		/* A tick comes a little early or late; half a tick of tolerance keeps one beat for one
		 * interval. */
		if (now + tick_us * option.khz / 2000 >= next_beat) {
			beat(tsc_us(now - start));
			next_beat += hb_ticks;
			if (next_beat < now)
				next_beat = now + hb_ticks;
		}
		if (dirty(tsc_us(now - start)))
			continue;
		verify(verify_per_tick);
		if (option.flush)
			service(SERVICE_FLUSH_TLB, 0, 0, NULL);
		if (option.idle)
			wait_tick();
	}
}

void guest_main(const struct multiboot_info *info)
{
	read_parameters(info);
	find_memory(info);
	start_interrupts();
	draw_boot_id();
	calibrate();
	make_dictionary();
	say_boot();
	fill_memory();

	uint64_t tick_us = option.hb_us > TICK_MAX_US ? TICK_MAX_US : option.hb_us;
	set_timer((uint32_t)(1000000 / tick_us));
	work(tick_us);
}
