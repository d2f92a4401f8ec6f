// A delay line between two network namespaces, for kernels without tc-netem; scripts/bench.d/link
// builds and runs it. One TUN device per namespace; every packet that enters one side leaves the
// other side DELAY later, in order. Optional rate cap with a drop-tail queue in front of it.
//
//   cc -O2 -pthread -o delayline delayline.c
//   delayline NS_A DEV_A NS_B DEV_B ONE_WAY_DELAY_US RATE_MBIT QUEUE_KIB
//
// RATE_MBIT 0 = no cap. QUEUE_KIB 0 = default (one bandwidth-delay product,
// at least 256 KiB; unlimited when there is no cap).
// The devices exist as long as this process runs. Addresses and routes are the
// caller's business. GSO packets (up to 64 KiB) pass through as they are (vnet
// header copied), so one core carries several Gbit/s.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define BIG (sizeof(struct virtio_net_hdr) + 65536 + 64)
#define SMALL 2048
#define BATCH 64

struct pkt {
	struct pkt *next;
	uint64_t release;
	uint32_t len, cap;
	unsigned char data[];
};

struct dir {
	int in, out;
	uint64_t delay_ns, rate_bps, queue_bytes, busy_until;
	struct pkt *head, *tail, *free_small, *free_big;
	uint64_t packets, bytes, drops;
};

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void die(const char *what)
{
	fprintf(stderr, "delayline: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int open_tun(const char *ns, const char *dev)
{
	char path[256];
	snprintf(path, sizeof path, "/run/netns/%s", ns);
	int nsfd = open(path, O_RDONLY | O_CLOEXEC);
	if (nsfd < 0) die(path);
	if (setns(nsfd, CLONE_NEWNET) < 0) die("setns");
	close(nsfd);
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0) die("/dev/net/tun");
	struct ifreq ifr;
	memset(&ifr, 0, sizeof ifr);
	ifr.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;
	strncpy(ifr.ifr_name, dev, IFNAMSIZ - 1);
	if (ioctl(fd, TUNSETIFF, &ifr) < 0) die("TUNSETIFF");
	if (ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6) < 0) die("TUNSETOFFLOAD");
	return fd;
}

static struct pkt *pkt_get(struct pkt **list, uint32_t cap)
{
	struct pkt *p = *list;
	if (p) { *list = p->next; return p; }
	p = malloc(sizeof *p + cap);
	if (!p) die("malloc");
	p->cap = cap;
	return p;
}

static void *run(void *arg)
{
	struct dir *d = arg;
	unsigned char *buf = malloc(BIG);
	if (!buf) die("malloc");
	prctl(PR_SET_TIMERSLACK, 1UL, 0, 0, 0);
	for (;;) {
		uint64_t now = now_ns();
		while (d->head && d->head->release <= now) {
			struct pkt *p = d->head;
			if (write(d->out, p->data, p->len) < 0) {
				if (errno == EAGAIN) {
					struct pollfd pf = { d->out, POLLOUT, 0 };
					poll(&pf, 1, 10);
					continue;
				}
				d->drops++; // EIO while a device is down
			}
			d->head = p->next;
			if (!d->head) d->tail = NULL;
			struct pkt **list = p->cap == SMALL ? &d->free_small : &d->free_big;
			p->next = *list;
			*list = p;
		}
		struct timespec ts, *tp = NULL;
		if (d->head) {
			now = now_ns();
			uint64_t wait = d->head->release > now ? d->head->release - now : 0;
			ts.tv_sec = wait / 1000000000ull;
			ts.tv_nsec = wait % 1000000000ull;
			tp = &ts;
		}
		struct pollfd pf = { d->in, POLLIN, 0 };
		int r = ppoll(&pf, 1, tp, NULL);
		if (r < 0 && errno != EINTR) die("ppoll");
		if (r <= 0) continue;
		for (int i = 0; i < BATCH; i++) {
			ssize_t n = read(d->in, buf, BIG);
			if (n <= 0) {
				if (n < 0 && errno != EAGAIN && errno != EINTR && errno != EIO) die("read tun");
				break;
			}
			now = now_ns();
			uint64_t release = now + d->delay_ns;
			if (d->rate_bps) {
				struct virtio_net_hdr *h = (void *)buf;
				uint64_t wire = n - sizeof *h, seg = 1;
				if (h->gso_type != VIRTIO_NET_HDR_GSO_NONE && h->gso_size)
					seg = (wire + h->gso_size - 1) / h->gso_size;
				wire += (seg - 1) * h->hdr_len + seg * 38; // Ethernet framing
				uint64_t start = d->busy_until > now ? d->busy_until : now;
				uint64_t backlog = (start - now) * d->rate_bps / 8000000000ull;
				if (backlog + wire > d->queue_bytes) { d->drops++; continue; }
				d->busy_until = start + wire * 8000000000ull / d->rate_bps;
				release = d->busy_until + d->delay_ns;
			}
			struct pkt *p = n <= SMALL ? pkt_get(&d->free_small, SMALL) : pkt_get(&d->free_big, BIG);
			memcpy(p->data, buf, n);
			p->len = n;
			p->release = release;
			p->next = NULL;
			if (d->tail) d->tail->next = p; else d->head = p;
			d->tail = p;
			d->packets++;
			d->bytes += n;
		}
	}
	return NULL;
}

int main(int argc, char **argv)
{
	if (argc != 8) {
		fprintf(stderr, "usage: delayline NS_A DEV_A NS_B DEV_B ONE_WAY_DELAY_US RATE_MBIT QUEUE_KIB\n");
		return 2;
	}
	int a = open_tun(argv[1], argv[2]), b = open_tun(argv[3], argv[4]);
	uint64_t delay = strtoull(argv[5], 0, 10) * 1000, rate = strtoull(argv[6], 0, 10) * 1000000;
	uint64_t queue = strtoull(argv[7], 0, 10) * 1024;
	if (rate && !queue) {
		queue = rate / 8 * 2 * delay / 1000000000ull;
		if (queue < 256 * 1024) queue = 256 * 1024;
	}
	static struct dir ab, ba;
	ab = (struct dir){ .in = a, .out = b, .delay_ns = delay, .rate_bps = rate, .queue_bytes = queue };
	ba = (struct dir){ .in = b, .out = a, .delay_ns = delay, .rate_bps = rate, .queue_bytes = queue };
	sigset_t s;
	sigemptyset(&s);
	sigaddset(&s, SIGTERM);
	sigaddset(&s, SIGINT);
	pthread_sigmask(SIG_BLOCK, &s, NULL);
	pthread_t t;
	if (pthread_create(&t, 0, run, &ab) || pthread_create(&t, 0, run, &ba)) die("pthread_create");
	printf("ready\n");
	fflush(stdout);
	int sig;
	sigwait(&s, &sig);
	printf("a->b packets %lu bytes %lu drops %lu; b->a packets %lu bytes %lu drops %lu\n",
	       ab.packets, ab.bytes, ab.drops, ba.packets, ba.bytes, ba.drops);
	return 0;
}
