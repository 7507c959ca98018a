/* Preloaded into FRR's daemons, of which a run has many on few processors.
 *
 * They wait in whole milliseconds, and less than a timer needs: for the rest they ask ppoll() again and again without
 * waiting. That costs them a processor, and where time is virtual and computing takes none it lasts. So each wait is a
 * millisecond longer, and the timer is late by that at the most. For a timer that is due within a millisecond from the
 * beginning, one of many calls in a row that found nothing waits a little.
 *
 * They read the clock for each thing that has an age, hundreds of times in one calculation of routes. In a guest that is a
 * system call, so it is read once for many looks, and anew after each wait. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <poll.h>
#include <signal.h>
#include <time.h>

#define CALLS 50
#define LOOKS 100
#define WAIT_NS 50000
#define MS_NS 1000000
#define S_NS 1000000000

static __thread int looks_left;

int clock_gettime(clockid_t clock, struct timespec *now)
{
	static int (*real)(clockid_t, struct timespec *);
	static __thread struct timespec seen;
	int failed;

	if (!real)
		real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
	if (clock != CLOCK_MONOTONIC)
		return real(clock, now);
	if (looks_left > 0) {
		looks_left--;
		*now = seen;
		return 0;
	}
	failed = real(clock, now);
	seen = *now;
	looks_left = failed ? 0 : LOOKS;
	return failed;
}

int ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask)
{
	static int (*real)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *);
	static __thread int in_a_row;
	struct timespec wait;
	int found;

	if (!real)
		real = (int (*)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *))dlsym(RTLD_NEXT, "ppoll");
	looks_left = 0;
	if (!timeout)
		return real(fds, count, timeout, mask);
	if (timeout->tv_sec || timeout->tv_nsec) {
		in_a_row = 0;
		wait.tv_sec = timeout->tv_sec + (timeout->tv_nsec + MS_NS) / S_NS;
		wait.tv_nsec = (timeout->tv_nsec + MS_NS) % S_NS;
		return real(fds, count, &wait, mask);
	}
	wait.tv_sec = 0;
	wait.tv_nsec = in_a_row >= CALLS ? WAIT_NS : 0;
	found = real(fds, count, &wait, mask);
	in_a_row = found == 0 ? in_a_row + 1 : 0;
	return found;
}

/* What is compiled with bounds checks calls this one. */
int __ppoll_chk(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask, size_t room)
{
	(void)room;
	return ppoll(fds, count, timeout, mask);
}
