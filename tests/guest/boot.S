/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Start of the probe guest: from the multiboot entry (32 bit, no paging) to guest_main() in 64-bit ring 3.
 *
 * Why ring 3: under nested "PVM" KVM only ring 3 runs natively, ring 0 is emulated instruction by instruction. There,
 * IN/OUT with IOPL 3, INT n and SYSCALL do not work from ring 3 either; the invalid opcode UD2 does, everywhere. So UD2
 * is our system call: the #UD handler below does the port I/O and the halt, everything else happens in ring 3.
 */
#define MULTIBOOT_MAGIC		0x1BADB002
#define MULTIBOOT_FLAGS		0x00000003	/* aligned modules, memory map */

#define IDENTITY_GIB		16		/* memory reachable by the guest; see guest.c IDENTITY_LIMIT */

#define PTE_TABLE		0x007		/* present, writable, user */
#define PTE_LARGE		0x087		/* the same, 2 MiB page */
#define CR0_CLEAR_EM		(~0x4)
#define CR0_PG_MP		0x80000002
#define CR4_PAE_SSE		0x620		/* PAE, OSFXSR, OSXMMEXCPT */
#define MSR_EFER		0xC0000080
#define EFER_LME		0x100

#define SEL_KCODE		0x08
#define SEL_KDATA		0x10
#define SEL_UDATA		0x1B
#define SEL_UCODE		0x23
#define SEL_TSS			0x28

#define GATE_INTERRUPT		0x8E00
#define VECTOR_UD		6
#define VECTOR_TIMER		0x20
#define IDT_ENTRIES		0x21

	.section .multiboot, "a"
	.align 4
	.long MULTIBOOT_MAGIC
	.long MULTIBOOT_FLAGS
	.long -(MULTIBOOT_MAGIC + MULTIBOOT_FLAGS)

	.section .text
	.code32
	.globl _start
_start:
	cli
	cld
	movl	$stack_top, %esp
	movl	%ebx, multiboot_info

	/* Identity map: PML4[0] -> PDPT[0..15] -> 16 page directories of 2 MiB pages. */
	movl	$pdpt, %eax
	orl	$PTE_TABLE, %eax
	movl	%eax, pml4
	movl	$page_dirs, %eax
	orl	$PTE_TABLE, %eax
	movl	$pdpt, %edi
	movl	$IDENTITY_GIB, %ecx
1:	movl	%eax, (%edi)
	addl	$4096, %eax
	addl	$8, %edi
	loop	1b
	movl	$page_dirs, %edi
	movl	$PTE_LARGE, %eax
	xorl	%edx, %edx
	movl	$(IDENTITY_GIB * 512), %ecx
2:	movl	%eax, (%edi)
	movl	%edx, 4(%edi)
	addl	$0x200000, %eax
	adcl	$0, %edx
	addl	$8, %edi
	loop	2b

	movl	%cr4, %eax
	orl	$CR4_PAE_SSE, %eax
	movl	%eax, %cr4
	movl	$pml4, %eax
	movl	%eax, %cr3
	movl	$MSR_EFER, %ecx
	rdmsr
	orl	$EFER_LME, %eax
	wrmsr
	movl	%cr0, %eax
	andl	$CR0_CLEAR_EM, %eax
	orl	$CR0_PG_MP, %eax
	movl	%eax, %cr0

	/* The address of the TSS goes into its descriptor in three pieces. */
	movl	$tss, %eax
	movw	%ax, gdt_tss + 2
	shrl	$16, %eax
	movb	%al, gdt_tss + 4
	movb	%ah, gdt_tss + 7
	lgdt	gdt_pointer
	ljmp	$SEL_KCODE, $long_mode

	.code64
long_mode:
	movw	$SEL_KDATA, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	xorl	%eax, %eax
	movw	%ax, %fs
	movw	%ax, %gs

	movl	$service, %eax
	movl	$(idt + VECTOR_UD * 16), %edi
	call	set_gate
	movl	$timer_interrupt, %eax
	movl	$(idt + VECTOR_TIMER * 16), %edi
	call	set_gate
	lidt	idt_pointer
	movw	$SEL_TSS, %ax
	ltr	%ax

	/* Ring 3, interrupts off: a timer interrupt is taken only inside the halt service. */
	pushq	$SEL_UDATA
	pushq	$(stack_top - 64)
	pushq	$0x2
	pushq	$SEL_UCODE
	pushq	$user_start
	iretq
user_start:
	movl	multiboot_info, %edi
	call	guest_main
3:	xorl	%eax, %eax			/* guest_main() never returns; if it does: halt for ever */
	ud2
	jmp	3b

	/* set_gate: an interrupt gate at %edi for the handler at %eax (below 4 GiB). */
set_gate:
	movw	%ax, (%rdi)
	movw	$SEL_KCODE, 2(%rdi)
	movw	$GATE_INTERRUPT, 4(%rdi)
	shrl	$16, %eax
	movw	%ax, 6(%rdi)
	ret

	/*
	 * Ring 0 is dear (every instruction is an exit under PVM), so both handlers are as short as can be: the interrupt
	 * controller acknowledges by itself (automatic EOI, see guest.c), the service is chosen by a table.
	 */
timer_interrupt:
	iretq

	/*
	 * The service call. rax = number (guest.c: enum service), rdx = port, rsi = buffer, r8 = value or length.
	 * Answer in rax. rcx is clobbered.
	 */
service:
	addq	$2, (%rsp)			/* go on behind the ud2 */
	jmp	*service_table(, %rax, 8)
service_halt:
	sti
	hlt
	cli
	iretq
service_out_string:
	movq	%r8, %rcx
	rep outsb
	iretq
service_flush_tlb:
	movq	%cr3, %rcx
	movq	%rcx, %cr3
	iretq
service_out8:
	movb	%r8b, %al
	outb	%al, %dx
	iretq
service_in8:
	inb	%dx, %al
	movzbl	%al, %eax
	iretq

	.data
	.align 16
gdt:	.quad	0
	.quad	0x00AF9A000000FFFF		/* 0x08 kernel code, 64 bit */
	.quad	0x00CF92000000FFFF		/* 0x10 kernel data */
	.quad	0x00CFF2000000FFFF		/* 0x18 user data */
	.quad	0x00AFFA000000FFFF		/* 0x20 user code, 64 bit */
gdt_tss: .quad	0x0000890000000067		/* 0x28 TSS, 16 bytes */
	.quad	0
gdt_pointer:
	.word	gdt_pointer - gdt - 1
	.long	gdt
	.align 16
tss:	.long	0
	.quad	kernel_stack_top		/* rsp0 */
	.skip	92
idt_pointer:
	.word	IDT_ENTRIES * 16 - 1
	.quad	idt
multiboot_info:
	.long	0
	.align	8
service_table:
	.quad	service_halt
	.quad	service_out_string
	.quad	service_flush_tlb
	.quad	service_out8
	.quad	service_in8

	.bss
	.align 4096
idt:	.skip	4096
pml4:	.skip	4096
pdpt:	.skip	4096
page_dirs:
	.skip	4096 * IDENTITY_GIB
	.skip	16384
stack_top:
	.skip	4096
kernel_stack_top:
	.section .note.GNU-stack, "", @progbits
