/* A server whose schedule is known exactly, for measuring the clients that time it.
 *
 *     cc -O2 -o null_server null_server.c && ./null_server FIRST_S EACH_S LOG
 *
 * It prints its port on 127.0.0.1 and answers each request as vLLM's /v1/completions does: the head
 * at once, the first token FIRST_S after the request's last byte was read, then a token each EACH_S,
 * as many as max_tokens says. At SIGTERM it writes LOG, all doubles: the number of requests and of
 * tokens, a struct row for each request, a struct chunk for each token. Its clock is
 * CLOCK_MONOTONIC, which is Python's perf_counter.
 *
 * Stamps are taken after a read and before a write, so what the kernel takes is the client's error.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <math.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define SPIN_S 200e-6    /* an idle core may wake this late: the rest is waited for awake */
#define WRITES_A_TURN 8  /* between looks at what has arrived, so that its stamps are true */
#define READ_BYTES 65536 /* room for one read; bodies may be of any size */
#define MAX_EVENTS 256
#define MOST_MS 100 /* asleep, lest a SIGTERM just before is not seen */
#define REPLY_BYTES 2048

struct row { double request, arrived_at_s, first_at_s, last_at_s, num_tokens; };
struct chunk { double at_s, late_s; };

struct connection {
    int fd; /* -1: hung up, and freed as soon as it is not queued */
    char *in;
    size_t have, room, whole; /* bytes of the request; whole is 0 until its head is there */
    size_t row;               /* of the log */
    int asked, written, prompt_tokens;
    bool queued;
    double due_at_s;
    struct connection *next;
};

/* Every reply has the same two delays, so two queues in order of arrival are in order of time. */
struct queue { struct connection *first, *last; };

static struct queue firsts, nexts;
static double first_s, each_s;
static struct row *rows;
static struct chunk *chunks;
static size_t num_rows, num_chunks;
static int poller, listener, timer;
static volatile sig_atomic_t over;
static char token[REPLY_BYTES];

static const char HEAD[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
                           "Transfer-Encoding: chunked\r\n\r\n";
#define COMMON                                                                              \
    "data: {\"id\":\"cmpl-00000000000000000000000000000000\",\"object\":\"text_completion\"," \
    "\"created\":1700000000,\"model\":\"null\",\"choices\":["
static const char EVENT[] =
    COMMON "{\"index\":0,\"text\":\" t123\",\"logprobs\":null,\"finish_reason\":%s,"
           "\"stop_reason\":null}],\"usage\":null}\n\n";
static const char USAGE[] =
    COMMON "],\"usage\":{\"prompt_tokens\":%d,\"total_tokens\":%d,\"completion_tokens\":%d}}\n\n";

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec * 1e-9;
}

/* Room for one more in an array that doubles at each power of two. */
static void *grown(void *array, size_t number, size_t size)
{
    if (number & (number - 1)) return array;
    array = realloc(array, (number ? 2 * number : 1) * size);
    if (!array) abort();
    return array;
}

static void hang_up(struct connection *one)
{
    if (one->fd >= 0) close(one->fd);
    one->fd = -1;
    if (one->queued) return;
    free(one->in);
    free(one);
}

static void enqueue(struct queue *queue, struct connection *one, double due_at_s)
{
    one->due_at_s = due_at_s;
    one->next = NULL;
    one->queued = true;
    if (queue->first) queue->last->next = one;
    else queue->first = one;
    queue->last = one;
}

static struct queue *earliest(void)
{
    if (!nexts.first) return firsts.first ? &firsts : NULL;
    return firsts.first && firsts.first->due_at_s < nexts.first->due_at_s ? &firsts : &nexts;
}

/* A client that lets its socket's buffer run full is hung up on: waiting is not in the schedule. */
static bool sent(struct connection *one, const char *data, size_t size)
{
    if (send(one->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)size) return true;
    hang_up(one);
    return false;
}

/* One chunk of the chunked encoding, at `out`; how long it is. */
static size_t framed(char *out, const char *data)
{
    return sprintf(out, "%zx\r\n%s\r\n", strlen(data), data);
}

static size_t last_events(char *out, const struct connection *one)
{
    char data[REPLY_BYTES / 2];
    sprintf(data, EVENT, "\"length\"");
    size_t size = framed(out, data);
    sprintf(data, USAGE, one->prompt_tokens, one->prompt_tokens + one->asked, one->asked);
    size += framed(out + size, data);
    return size + sprintf(out + size, "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
}

static void write_token(struct connection *one)
{
    char last[2 * REPLY_BYTES];
    bool is_last = one->written == one->asked - 1;
    size_t size = is_last ? last_events(last, one) : strlen(token);
    double at_s = now_s(), due_at_s = one->due_at_s;
    if (!sent(one, is_last ? last : token, size)) return;

    chunks = grown(chunks, num_chunks, sizeof *chunks);
    chunks[num_chunks++] = (struct chunk){at_s, at_s - due_at_s};
    struct row *row = &rows[one->row];
    if (one->written++ == 0) row->first_at_s = at_s;
    row->num_tokens = one->written;
    if (is_last) row->last_at_s = at_s;
    else enqueue(&nexts, one, due_at_s + each_s);
}

static const char *after(const char *text, size_t size, const char *name)
{
    const char *found = memmem(text, size, name, strlen(name));
    return found ? found + strlen(name) : NULL;
}

/* The number after the last '-' of the id's line; −1 if there is none. */
static double request_number(const char *head)
{
    const char *id = strcasestr(head, "\r\nx-request-id:");
    const char *end = id ? strstr(id + 2, "\r\n") : NULL;
    const char *dash = end ? memrchr(id + 15, '-', end - id - 15) : NULL;
    return dash && isdigit((unsigned char)dash[1]) ? atof(dash + 1) : -1;
}

static int count_ids(const char *body, size_t size)
{
    const char *at = after(body, size, "\"prompt\":"), *end = body + size;
    while (at && at < end && *at == ' ') at++;
    if (!at || at == end || *at != '[') return 1; /* text: its tokens are nobody's concern */
    int commas = 0;
    for (; at < end && *at != ']'; at++) commas += *at == ',';
    return commas + 1;
}

/* The whole request is there. Its head is cut off as a string of its own. */
static void answer(struct connection *one, size_t head_size, double arrived_at_s)
{
    const char *body = one->in + head_size;
    size_t size = one->whole - head_size;
    one->in[head_size - 1] = '\0';
    one->have = one->whole = 0; /* nobody pipelines */
    const char *asked = after(body, size, "\"max_tokens\":");
    one->asked = asked && atoi(asked) > 0 ? atoi(asked) : 16;
    one->prompt_tokens = count_ids(body, size);
    one->written = 0;
    one->row = num_rows;
    rows = grown(rows, num_rows, sizeof *rows);
    rows[num_rows++] = (struct row){request_number(one->in), arrived_at_s, NAN, NAN, 0};
    if (sent(one, HEAD, sizeof HEAD - 1)) enqueue(&firsts, one, arrived_at_s + first_s);
}

static void read_some(struct connection *one)
{
    size_t wanted = one->whole > one->have ? one->whole : one->have + READ_BYTES;
    if (one->room < wanted + 1) {
        one->room = wanted + 1;
        one->in = realloc(one->in, one->room);
        if (!one->in) abort();
    }
    ssize_t size = recv(one->fd, one->in + one->have, one->room - one->have - 1, MSG_DONTWAIT);
    double arrived_at_s = now_s();
    if (size <= 0 || one->queued) { /* the end, or a request before the last one's reply */
        hang_up(one);
        return;
    }
    one->have += size;
    one->in[one->have] = '\0'; /* numbers and names are then found by string functions */
    const char *end = after(one->in, one->have < READ_BYTES ? one->have : READ_BYTES, "\r\n\r\n");
    if (!end) return;
    if (!one->whole) {
        const char *length = strcasestr(one->in, "\r\ncontent-length:");
        bool inside = length && length < end;
        one->whole = (end - one->in) + (inside ? strtoul(length + 17, NULL, 10) : 0);
    }
    if (one->have >= one->whole) answer(one, end - one->in, arrived_at_s);
}

static void watch(int fd, void *tag, uint32_t events)
{
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &(struct epoll_event){events, {.ptr = tag}});
}

static void welcome(void)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    struct connection *one = calloc(1, sizeof *one);
    if (!one) abort();
    one->fd = fd;
    watch(fd, one, EPOLLIN);
}

static void look(int timeout_ms)
{
    struct epoll_event events[MAX_EVENTS];
    int number = epoll_wait(poller, events, MAX_EVENTS, timeout_ms);
    for (int event = 0; event < number; event++) {
        void *tag = events[event].data.ptr;
        if (tag == &listener) welcome();
        else if (tag != &timer) read_some(tag);
    }
}

static void write_due(void)
{
    struct queue *queue;
    for (int writes = 1; (queue = earliest()) && queue->first->due_at_s <= now_s(); writes++) {
        struct connection *one = queue->first;
        queue->first = one->next;
        one->queued = false;
        if (one->fd < 0) hang_up(one);
        else write_token(one);
        if (writes % WRITES_A_TURN == 0) look(0);
        if (over) return;
    }
}

static void sleep_and_look(void)
{
    struct queue *queue = earliest();
    double wake_at_s = queue ? queue->first->due_at_s - SPIN_S : 0;
    if (queue && wake_at_s > now_s()) {
        struct timespec at = {.tv_sec = (time_t)wake_at_s};
        at.tv_nsec = (long)((wake_at_s - at.tv_sec) * 1e9);
        timerfd_settime(timer, TFD_TIMER_ABSTIME, &(struct itimerspec){.it_value = at}, NULL);
        queue = NULL;
    }
    look(queue ? 0 : MOST_MS);
}

static void stop(int signal) { over = signal; }

int main(int argc, char **argv)
{
    if (argc != 4) return fprintf(stderr, "usage: null_server FIRST_S EACH_S LOG\n"), 2;
    first_s = atof(argv[1]);
    each_s = atof(argv[2]);
    char data[REPLY_BYTES / 2];
    sprintf(data, EVENT, "null");
    framed(token, data);

    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    poller = epoll_create1(0);
    timer = timerfd_create(CLOCK_MONOTONIC, 0);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 4096)) return 1;
    getsockname(listener, (struct sockaddr *)&address, &size);
    watch(listener, &listener, EPOLLIN);
    watch(timer, &timer, EPOLLIN | EPOLLET);
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = stop}, NULL);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);

    while (!over) {
        write_due();
        sleep_and_look();
    }
    FILE *log = fopen(argv[3], "wb");
    if (!log) return 1;
    double numbers[2] = {num_rows, num_chunks};
    fwrite(numbers, sizeof(double), 2, log);
    fwrite(rows, sizeof *rows, num_rows, log);
    fwrite(chunks, sizeof *chunks, num_chunks, log);
    return fclose(log) != 0;
}
