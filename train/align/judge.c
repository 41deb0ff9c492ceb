#include "train/align/judge.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define JUDGE_MEMORY (INT64_C(256) << 20) /* at least: it holds its libraries and a copy of each value */
#define START_MS 120000                   /* for an interpreter, on whatever machine */
#define END_MS 2000                       /* for a program that was seen to end to have ended */

/* judge/: the judge's and the answer's side, as C arrays */
extern const unsigned char embedded_plain_py[], embedded_answer_py[], embedded_judge_py[];
extern const size_t embedded_plain_py_size, embedded_answer_py_size, embedded_judge_py_size;

/* What the answer's interpreter reads: it gets the rest, compiled, from its judge. */
static const char bootstrap[] =
    "import sys\n"
    "sys.path[:] = [p for p in sys.path if p]\n"
    "import os, marshal\n"
    "def begin():\n"
    "    def read(n):\n"
    "        data = b''\n"
    "        while len(data) < n:\n"
    "            part = os.read(3, n - len(data))\n"
    "            if not part:\n"
    "                raise SystemExit('no judge')\n"
    "            data += part\n"
    "        return data\n"
    "    exec(marshal.loads(read(int.from_bytes(read(8), 'little'))), {'__name__': 'plm_answer'})\n"
    "begin()\n";

static void put_text(FILE *f, const void *text, size_t n)
{
    const uint64_t bytes = n;
    fwrite(&bytes, sizeof bytes, 1, f);
    fwrite(text, 1, n, f);
}

/* A program's text as a Python literal. */
static void put_literal(FILE *f, const unsigned char *text, size_t n)
{
    fputc('"', f);
    for (size_t i = 0; i < n; i++)
        fprintf(f, text[i] == '\n' ? "\\n" : text[i] == '"' || text[i] == '\\' ? "\\%c" : "%c", text[i]);
    fputc('"', f);
}

/* The judge's program: both sides know plain.py; it compiles the answer's side once. */
static char *judge_program(size_t *bytes)
{
    char *program = NULL;
    FILE *f = open_memstream(&program, bytes);
    if (!f)
        return NULL;
    fputs("import sys\nsys.path[:] = [p for p in sys.path if p]\nPLAIN = ", f);
    put_literal(f, embedded_plain_py, embedded_plain_py_size);
    fputs("\nANSWER = ", f);
    put_literal(f, embedded_answer_py, embedded_answer_py_size);
    fputs("\nJUDGE = ", f);
    put_literal(f, embedded_judge_py, embedded_judge_py_size);
    fputs("\nexec(compile(PLAIN + JUDGE, '<judge>', 'exec'), {'__name__': 'plm_judge', 'ANSWER_PROGRAM': PLAIN + "
          "ANSWER})\n",
          f);
    if (ferror(f) | fclose(f)) {
        free(program);
        return NULL;
    }
    return program;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* ---- the server ---- */

/* It says so when it has begun: what is no Python is an error, not a judge by whom all answers fail. */
static int wait_for_judge(struct judge *j, int control, const char *python, struct plm_status *st)
{
    struct pollfd said = {control, POLLIN, 0};
    char byte, errors[1024];
    int ready;
    while ((ready = poll(&said, 1, START_MS)) < 0 && errno == EINTR)
        continue;
    if (ready > 0 && recv(control, &byte, 1, 0) == 1)
        return PLM_OK;
    ssize_t n = read(j->child.err, errors, sizeof errors - 1);
    while (n > 0 && errors[n - 1] == '\n')
        n--;
    errors[n > 0 ? n : 0] = 0;
    const char *last = strrchr(errors, '\n');
    child_stop(&j->child, NULL);
    return status_set(st, PLM_EIO, "the judge of programs does not start: '%.100s' is to be a Python of 3.9 or later that reads its "
                      "program from standard input (\"command\"; \"python\": false for other languages)%s%.200s", python,
                      *errors ? "; it says: " : "", last ? last + 1 : errors);
}

static int judge_start(struct judge *j, const struct judge_task *task, const struct sandbox_limits *limits,
                       struct plm_status *st)
{
    int pair[2] = {-1, -1};
    size_t bytes;
    char *program = judge_program(&bytes);
    if (!program)
        return status_no_memory(st, 0, "the judge's program");
    struct child_options o = {.argv = task->python,
                              .confine = limits->confine,
                              .paths = limits->paths,
                              .count_memory = true,
                              .limits = limits->child,
                              .n_extra = 1};
    o.limits.cpu_s = 0; /* of the server, which judges many; an answer's time is the caller's to watch */
    if (o.limits.memory_bytes > 0 && o.limits.memory_bytes < JUDGE_MEMORY)
        o.limits.memory_bytes = JUDGE_MEMORY;
    int code = child_input(program, bytes, &o.input, st);
    free(program);
    if (!code && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        code = status_set(st, PLM_EIO, "cannot make a pair of sockets: %s", strerror(errno));
    o.extra[0] = pair[1];
    if (!code)
        code = child_start(&j->child, &o, st);
    close_fd(&o.input);
    close_fd(&pair[1]);
    if (!code)
        code = wait_for_judge(j, pair[0], task->python[0], st);
    if (code)
        close_fd(&pair[0]);
    else
        j->control = pair[0];
    return code;
}

void judge_stop(struct judge *j)
{
    if (j->child.pid > 0) {
        child_stop(&j->child, NULL);
        close_fd(&j->control);
    }
}

/* Descriptors go along with one byte. False: nobody is there. */
static bool send_descriptors(int control, const int fds[4])
{
    char byte = 'j';
    struct iovec part = {&byte, 1};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(4 * sizeof(int))];
    } u = {0};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = u.space, .msg_controllen = sizeof u.space};
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(4 * sizeof(int));
    memcpy(CMSG_DATA(c), fds, 4 * sizeof(int));
    ssize_t sent;
    while ((sent = sendmsg(control, &message, MSG_NOSIGNAL)) < 0 && errno == EINTR)
        continue;
    return sent == 1;
}

/* ---- one answer ---- */

static int job_file(const struct judge_task *task, int *fd, struct plm_status *st)
{
    char *text = NULL;
    size_t bytes;
    FILE *f = open_memstream(&text, &bytes);
    if (!f)
        return status_no_memory(st, 0, "a job");
    put_text(f, task->answer, task->answer_bytes);
    put_text(f, task->tests, strlen(task->tests));
    put_text(f, task->prompt, strlen(task->prompt));
    const int code = ferror(f) | fclose(f) ? status_no_memory(st, bytes, "a job") : child_input(text, bytes, fd, st);
    free(text);
    return code;
}

/* What the judge said, which is one write; an empty text when it said nothing. */
static void read_verdict(int fd, char text[512])
{
    struct pollfd said = {fd, POLLIN, 0};
    const ssize_t n = poll(&said, 1, 0) > 0 ? read(fd, text, 511) : 0;
    text[n > 0 ? n : 0] = 0;
}

enum { FROM_ANSWER, TO_ANSWER, VERDICT, N_PIPES };

static int judge_with(struct judge *j, const struct judge_task *task, const struct sandbox_limits *limits, int job,
                      int pipes[N_PIPES][2], struct judgement *out, struct plm_status *st)
{
    for (int tries = 0;; tries++) { /* a judge may have died since */
        int code = j->child.pid > 0 ? PLM_OK : judge_start(j, task, limits, st);
        if (code)
            return code;
        if (send_descriptors(j->control, (int[4]){job, pipes[FROM_ANSWER][0], pipes[TO_ANSWER][1], pipes[VERDICT][1]}))
            break;
        judge_stop(j);
        if (tries > 0)
            return status_set(st, PLM_EIO, "the judge of programs does not run: is '%s' a Python of 3.9 or later?",
                              task->python[0]);
    }
    struct sandbox *s;
    const struct sandbox_program program = {.argv = task->python,
                                            .input = bootstrap,
                                            .input_bytes = sizeof bootstrap - 1,
                                            .n_extra = 2,
                                            .extra = {pipes[TO_ANSWER][0], pipes[FROM_ANSWER][1]}};
    int code = sandbox_start(&s, &program, limits, st);
    for (int i = 0; i < N_PIPES; i++) { /* the two processes have theirs: the end of either is the end of the pipe */
        if (i != VERDICT)
            close_fd(&pipes[i][0]);
        close_fd(&pipes[i][1]);
    }
    if (code) {
        judge_stop(j);
        return code;
    }
    char verdict[512];
    sandbox_follow(s, pipes[VERDICT][0]);
    read_verdict(pipes[VERDICT][0], verdict);
    out->passed = !strcmp(verdict, "passed");
    out->program_ended = !strncmp(verdict, "failed the answer's program ended", 33);
    if (out->program_ended)
        sandbox_wait_end(s, END_MS);
    sandbox_finish(s, &out->result);
    if (!*verdict) /* it runs on, or is no more */
        judge_stop(j);
    snprintf(out->why, sizeof out->why, "%s",
             out->passed ? ""
             : *verdict  ? verdict + strlen("failed ")
                         : "the judge has ended");
    return PLM_OK;
}

int judge_answer(struct judge *j, const struct judge_task *task, const struct sandbox_limits *limits,
                 struct judgement *out, struct plm_status *st)
{
    *out = (struct judgement){0};
    int job = -1, pipes[N_PIPES][2] = {{-1, -1}, {-1, -1}, {-1, -1}};
    int code = job_file(task, &job, st);
    for (int i = 0; i < N_PIPES && !code; i++)
        if (pipe2(pipes[i], O_CLOEXEC))
            code = status_set(st, PLM_EIO, "cannot make a pipe: %s", strerror(errno));
    if (!code)
        code = judge_with(j, task, limits, job, pipes, out, st);
    close_fd(&job);
    for (int i = 0; i < N_PIPES; i++) {
        close_fd(&pipes[i][0]);
        close_fd(&pipes[i][1]);
    }
    return code;
}
