/* Writes lines of 1 KiB to its standard output, so many megabytes each second, evenly:
 * what is due is written every millisecond. A reader that is slower slows it down; what
 * was missed then is not made up for.
 *
 * usage: flood MEGABYTES
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LINE = 1024, TICK = 1000000, MOST = 64 * 1024 };

int main(int argc, char **argv)
{
	long rate = argc == 2 ? atol(argv[1]) : 0;
	if (rate <= 0) {
		fprintf(stderr, "usage: flood MEGABYTES\n");
		return 2;
	}
	static char text[MOST];
	memset(text, 'x', sizeof text);
	for (int end = LINE; end <= MOST; end += LINE)
		text[end - 1] = '\n';
	struct timespec next, now;
	clock_gettime(CLOCK_MONOTONIC, &next);
	for (long due = 0;;) {
		due += rate * 1000;
		while (due >= LINE) {
			long whole = due - due % LINE;
			ssize_t took = write(1, text, whole < MOST ? whole : MOST);
			if (took < 0)
				return 1;
			due -= took;
		}
		next.tv_nsec += TICK;
		if (next.tv_nsec >= 1000000000) {
			next.tv_nsec -= 1000000000;
			next.tv_sec++;
		}
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec > next.tv_sec ||
		    (now.tv_sec == next.tv_sec && now.tv_nsec > next.tv_nsec + 100 * TICK))
			next = now;
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
	}
}
