/* Preloaded into FRR's daemons. For the last fraction of a millisecond before a timer they ask ppoll() again and again
 * without waiting: that costs many daemons a CPU, and where time is virtual and computing takes none it lasts. After some
 * such calls in a row that found nothing, one waits a little: the timer is then late by that at the most. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <poll.h>
#include <signal.h>
#include <time.h>

#define CALLS 50
#define WAIT_NS 50000

int ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask)
{
	static int (*real)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *);
	static __thread int in_a_row;
	const struct timespec a_little = { 0, WAIT_NS };
	int found;

	if (!real)
		real = (int (*)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *))dlsym(RTLD_NEXT, "ppoll");
	if (timeout && !timeout->tv_sec && !timeout->tv_nsec) {
		found = real(fds, count, in_a_row >= CALLS ? &a_little : timeout, mask);
		in_a_row = found == 0 ? in_a_row + 1 : 0;
		return found;
	}
	in_a_row = 0;
	return real(fds, count, timeout, mask);
}

/* What is compiled with bounds checks calls this one. */
int __ppoll_chk(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask, size_t room)
{
	(void)room;
	return ppoll(fds, count, timeout, mask);
}
