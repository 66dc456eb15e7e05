/*
 * The switch for x86-64 under the System V ABI: what a called function must
 * preserve is rbx, rbp, r12 to r15, rsp, and the control bits of mxcsr and the
 * x87 control word (System V AMD64 psABI 1.0, 3.2.1 and 3.2.3).
 *
 * A suspended context is its stack pointer; above it lie
 *
 *    sp + 0   mxcsr (4 bytes), x87 control word (2 bytes), 2 bytes unused
 *    sp + 8   r15, r14, r13, r12, rbx, rbp
 *    sp + 56  the address to go on at
 *
 * Both sides of the switch have this layout, so one set of unwind information
 * is true before and after rsp changes, and for a suspended context:
 * `set $rsp = g->sp`, `set $rip = context_resume` and gdb walks it.
 */
    .text

/* void context_switch(void **save: rdi, void *load: rsi) */
    .globl context_switch
    .hidden context_switch
    .type context_switch, @function
    .p2align 4
context_switch:
    .cfi_startproc
    pushq %rbp
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbp, 0
    pushq %rbx
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbx, 0
    pushq %r12
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r12, 0
    pushq %r13
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r13, 0
    pushq %r14
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r14, 0
    pushq %r15
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r15, 0
    leaq -8(%rsp), %rsp
    .cfi_adjust_cfa_offset 8
    stmxcsr (%rsp)
    fnstcw 4(%rsp)
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    .globl context_resume
    .hidden context_resume
context_resume:
    ldmxcsr (%rsp)
    fldcw 4(%rsp)
    leaq 8(%rsp), %rsp
    .cfi_adjust_cfa_offset -8
    popq %r15
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r15
    popq %r14
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r14
    popq %r13
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r13
    popq %r12
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r12
    popq %rbx
    .cfi_adjust_cfa_offset -8
    .cfi_restore %rbx
    popq %rbp
    .cfi_adjust_cfa_offset -8
    .cfi_restore %rbp
    /* `ret` and not an indirect jump: both sides came here by the same calls, so
    ** the processor's return stack predicts this return and the callers' after
    ** it. A jump wins a bare ping-pong (0.5) and loses two calls deep (1.4). */
    ret
    .cfi_endproc
    .size context_switch, . - context_switch

/* void context_start(save: rdi, low: rsi, top: rdx, entry: rcx, arg: r8) */
    .globl context_start
    .hidden context_start
    .type context_start, @function
    .p2align 4
context_start:
    .cfi_startproc
    pushq %rbp
    .cfi_adjust_cfa_offset 8
    pushq %rbx
    .cfi_adjust_cfa_offset 8
    pushq %r12
    .cfi_adjust_cfa_offset 8
    pushq %r13
    .cfi_adjust_cfa_offset 8
    pushq %r14
    .cfi_adjust_cfa_offset 8
    pushq %r15
    .cfi_adjust_cfa_offset 8
    leaq -8(%rsp), %rsp
    .cfi_adjust_cfa_offset 8
    stmxcsr (%rsp)
    fnstcw 4(%rsp)
    movq %rsp, (%rdi)
    andq $-16, %rdx
    movq %r8, %rdi
    jmp context_entry
    .cfi_endproc
    .size context_start, . - context_start

/* The base of a new context, rdx its top, rcx its entry, rdi its argument.
** Nothing called this, which is what `.cfi_undefined rip` tells gdb and perf
** (D23), and the 0 in rbp walkers of frame pointers. Then rax is who goes on. */
    .type context_entry, @function
    .p2align 4
context_entry:
    .cfi_startproc
    .cfi_undefined %rip
    movq %rdx, %rsp
    xorl %ebp, %ebp
    callq *%rcx
    movq %rax, %rsp
    ldmxcsr (%rsp)
    fldcw 4(%rsp)
    leaq 8(%rsp), %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .cfi_endproc
    .size context_entry, . - context_entry

    .section .note.GNU-stack, "", @progbits
