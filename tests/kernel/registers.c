/* Whether floating-point registers survive system calls, faults, switches, signals, copies: says "right", or what not. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS 5
#define TURNS 500

typedef double values __attribute__((vector_size(16)));
static volatile int handled;

static void fail(const char *when)
{
	puts(when);
	fflush(stdout);
	_exit(1);
}

/* A system call with a value in one register and twice that in another; it must be three times itself afterwards. */
static long call_with(double of, long number, const char *when)
{
	values v = {of, of + 1}, found = v, thrice = v + v + v;
	long result;
	__asm__ volatile("movapd %[v], %%xmm7\n\t addpd %[v], %%xmm7\n\t movapd %[v], %%xmm15\n\t syscall\n\t"
			 "addpd %%xmm7, %%xmm15\n\t movapd %%xmm15, %[found]"
			 : "=a"(result), [found] "=x"(found)
			 : "0"(number), "D"(0), [v] "x"(v)
			 : "rcx", "r11", "memory", "xmm7", "xmm15");
	if (memcmp(&found, &thrice, sizeof found))
		fail(when);
	return result;
}

static void handle(int signal)
{
	call_with(1e9, SYS_getpid, "in a handler");
	handled += signal == SIGUSR1;
}

static void *turn(void *number)
{
	double own = 100 * (1 + (long)number);
	char *pages = mmap(0, TURNS << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (int i = 0; i < TURNS; i++) {
		values v = {own, own + i}, found;
		call_with(own + i, SYS_sched_yield, "after another thread's turn");
		__asm__ volatile("movapd %1, %%xmm9\n\t movb $1, (%2)\n\t movapd %%xmm9, %0"
				 : "=x"(found) : "x"(v), "r"(pages + (i << 12)) : "xmm9", "memory");
		if (memcmp(&found, &v, sizeof v))
			fail("after a fault");
		if (i % 10 == 0)
			pthread_kill(pthread_self(), SIGUSR1);
	}
	return 0;
}

int main(int count, char **words)
{
	pthread_t threads[THREADS];
	int status;

	if (count > 1)
		return call_with(3, SYS_getpid, "after exec") <= 0;
	signal(SIGUSR1, handle);
	for (long i = 0; i < THREADS; i++)
		pthread_create(threads + i, 0, turn, (void *)i);
	for (int i = 0; i < 20; i++) {
		if (!call_with(7 + i, SYS_fork, "after a fork")) {
			call_with(8, SYS_sched_yield, "in a child");
			_exit(0);
		}
		if (wait(&status) < 0 || status)
			fail("in a child");
		raise(SIGUSR1);
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], 0);
	if (!vfork()) {
		execl(words[0], words[0], "again", (char *)0);
		_exit(1);
	}
	if (wait(&status) < 0 || status)
		fail("after vfork and exec");
	puts(handled == 20 + THREADS * TURNS / 10 ? "right" : "signals were lost");
	return 0;
}
