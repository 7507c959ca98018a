/* Lets a user-mode kernel restore floating-point state on a processor whose state is larger than it knows.
 *
 * Linux accepts PTRACE_SETREGSET of NT_X86_XSTATE only for the processor's full state (11,008 bytes with AMX), but
 * User-mode Linux before 6.13 has room for 2,696 bytes (AVX-512 and PKRU) and panics at its first process.
 * Preloaded into linux.uml, this pads the state with zeros to the full size. Nothing is lost: the header, which lies
 * within the first 2,696 bytes, names the components in use, and a process without permission for AMX uses none beyond.
 *
 * Source: Linux arch/x86/kernel/fpu/regset.c (xstateregs_set), arch/x86/um/os-Linux/registers.c.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

#ifndef NT_X86_XSTATE
#define NT_X86_XSTATE 0x202
#endif
#define LARGEST_XSTATE 65536

static long (*libc_ptrace)(enum __ptrace_request, ...);
static size_t full_size;

/* The size of the processor's state: what the kernel returns to a reader with room for any. */
static size_t measure(long pid)
{
	static char any[LARGEST_XSTATE];
	struct iovec iov = { any, sizeof any };

	return libc_ptrace(PTRACE_GETREGSET, pid, NT_X86_XSTATE, &iov) < 0 ? 0 : iov.iov_len;
}

long ptrace(enum __ptrace_request request, ...)
{
	static char full[LARGEST_XSTATE];
	va_list args;
	va_start(args, request);
	long pid = va_arg(args, long);
	long addr = va_arg(args, long);
	void *data = va_arg(args, void *);
	va_end(args);

	if (!libc_ptrace)
		libc_ptrace = (long (*)(enum __ptrace_request, ...))dlsym(RTLD_NEXT, "ptrace");
	if (request == PTRACE_SETREGSET && addr == NT_X86_XSTATE) {
		struct iovec *given = data;

		if (!full_size)
			full_size = measure(pid);
		if (given->iov_len < full_size) {
			struct iovec padded = { full, full_size };

			memcpy(full, given->iov_base, given->iov_len);
			return libc_ptrace(request, pid, addr, &padded);
		}
	}
	return libc_ptrace(request, pid, addr, data);
}
