#include "tools/message_input.h"

#include <errno.h>
#include <langinfo.h>
#include <locale.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifdef HAVE_LIBEDIT
#include <histedit.h>
#include <wchar.h>
#endif

#include "data/utf8.h"

struct message_input {
    bool terminal, begun;
    char *line; /* of getline */
    size_t capacity;
#ifdef HAVE_LIBEDIT
    EditLine *editor; /* NULL: plain lines */
    History *history;
#endif
};

#ifdef HAVE_LIBEDIT

static const char *prompt_of(EditLine *editor)
{
    (void)editor;
    return "> ";
}

/* What a terminal sends between ESC [200~ and ESC [201~ is text, newlines and all. Memory that runs out loses the rest
 * of it, but does not turn it into keys. */
static unsigned char paste(EditLine *editor, int key)
{
    static const wchar_t end[] = L"\033[201~";
    const size_t n_end = sizeof end / sizeof *end - 1;
    size_t n = 0, capacity = 1024, ended = 0; /* ended: characters of the end that were just read */
    wchar_t *text = malloc(capacity * sizeof *text), c, before = 0;
    bool lost = !text;
    (void)key;
    while (ended < n_end && el_wgetc(editor, &c) == 1) {
        ended = c == end[ended] ? ended + 1 : c == end[0];
        const bool one_end = c == L'\n' && before == L'\r'; /* CR and newline are one end of a line */
        before = c;
        if (!lost && !one_end && n + 1 >= capacity) {
            wchar_t *grown = realloc(text, (capacity *= 2) * sizeof *text);
            lost = !grown;
            text = grown ? grown : text;
        }
        if (!lost && !one_end)
            text[n++] = c == L'\r' ? L'\n' : c;
    }
    if (lost)
        fprintf(stderr, "warning: out of memory for what was pasted: only its beginning is there\n");
    else if (ended == n_end)
        n -= n_end;
    while (n > 0 && text[n - 1] == L'\n') /* what was copied with its last newline waits for Return like the rest */
        n--;
    if (text) {
        text[n] = 0;
        el_winsertstr(editor, text);
    }
    free(text);
    return CC_REDISPLAY;
}

#define PASTE_ON "\033[?2004h" /* the terminal marks what is pasted */
#define PASTE_OFF "\033[?2004l"

/* A signal that ends the program at the prompt: libedit has set the terminal back, all but this. */
static void leave(int number)
{
    const ssize_t written = write(STDOUT_FILENO, PASTE_OFF, sizeof PASTE_OFF - 1);
    (void)written;
    signal(number, SIG_DFL);
    raise(number);
}

/* libedit reads characters of the locale: without UTF-8 in it, it would drop what is not ASCII. */
static bool use_utf8(void)
{
    static const char *const fallbacks[] = {"C.UTF-8", "C.utf8", "en_US.UTF-8"};
    if (setlocale(LC_CTYPE, "") && !strcmp(nl_langinfo(CODESET), "UTF-8"))
        return true;
    for (int i = 0; i < 3; i++)
        if (setlocale(LC_CTYPE, fallbacks[i]))
            return true;
    return false;
}

static void open_editor(struct message_input *in)
{
    HistEvent event;
    if (!use_utf8())
        return;
    in->editor = el_init("plm", stdin, stdout, stderr);
    in->history = in->editor ? history_init() : NULL;
    if (!in->editor || !in->history) {
        fprintf(stderr, "note: no line editing here: plain lines are read\n");
        return;
    }
    history(in->history, &event, H_SETSIZE, 1000);
    el_set(in->editor, EL_PROMPT, prompt_of);
    el_set(in->editor, EL_EDITOR, "emacs");
    el_set(in->editor, EL_SIGNAL, 1);
    /* libedit lets the terminal swap CR and newline: a CR and a newline of a paste could not be told from two lines. */
    el_set(in->editor, EL_SETTY, "-d", "-icrnl", "-inlcr", NULL);
    el_set(in->editor, EL_HIST, history, in->history);
    el_source(in->editor, NULL);
    el_set(in->editor, EL_ADDFN, "plm-paste", "insert what the terminal pastes", paste);
    el_set(in->editor, EL_BIND, "\033[200~", "plm-paste", NULL);
    el_set(in->editor, EL_BIND, "\t", "ed-insert", NULL);
}

static int read_edited(struct message_input *in, char **line, size_t *n, struct plm_status *st)
{
    int count = 0;
    HistEvent event;
    static const int ends[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    struct sigaction before[4];
    const struct sigaction on = {.sa_handler = leave};
    for (int i = 0; i < 4; i++)
        if (sigaction(ends[i], NULL, &before[i]) == 0 && before[i].sa_handler == SIG_DFL)
            sigaction(ends[i], &on, NULL);
    el_set(in->editor, EL_PREP_TERM, 1); /* before the prompt: what is typed at it is no line of the terminal */
    fputs(PASTE_ON, stdout);
    fflush(stdout);
    const char *text = el_gets(in->editor, &count);
    fputs(PASTE_OFF, stdout);
    fflush(stdout);
    for (int i = 0; i < 4; i++)
        sigaction(ends[i], &before[i], NULL);
    if (!text || count <= 0)
        return PLM_OK;
    *n = strlen(text);
    *line = malloc(*n + 1);
    if (!*line)
        return status_no_memory(st, *n + 1, "a message");
    memcpy(*line, text, *n + 1);
    if (*n > 1)
        history(in->history, &event, H_ENTER, text);
    return PLM_OK;
}

#endif

int message_input_open(struct message_input **out, struct plm_status *st)
{
    struct message_input *in = *out = calloc(1, sizeof *in);
    if (!in)
        return status_no_memory(st, sizeof *in, "the input");
    in->terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
#ifdef HAVE_LIBEDIT
    if (in->terminal)
        open_editor(in);
#endif
    return PLM_OK;
}

void message_input_close(struct message_input *in)
{
    if (!in)
        return;
#ifdef HAVE_LIBEDIT
    if (in->editor)
        el_end(in->editor);
    if (in->history)
        history_end(in->history);
#endif
    free(in->line);
    free(in);
}

/* A line with its end, malloc'ed; NULL at the end of the input. */
static int read_line(struct message_input *in, char **line, size_t *n, struct plm_status *st)
{
    *line = NULL;
    *n = 0;
#ifdef HAVE_LIBEDIT
    if (in->editor && in->history)
        return read_edited(in, line, n, st);
#endif
    if (in->terminal) {
        fputs("> ", stdout);
        fflush(stdout);
    }
    errno = 0;
    const ssize_t got = getline(&in->line, &in->capacity, stdin);
    if (got < 0)
        return ferror(stdin) ? status_set(st, PLM_EIO, "standard input cannot be read: %s", strerror(errno)) : PLM_OK;
    *n = (size_t)got;
    *line = malloc(*n + 1);
    if (!*line)
        return status_no_memory(st, *n + 1, "a message");
    memcpy(*line, in->line, *n);
    (*line)[*n] = 0;
    if (!in->begun && *n >= 3 && !memcmp(*line, "\xEF\xBB\xBF", 3))
        memmove(*line, *line + 3, (*n -= 3) + 1);
    in->begun = true;
    return PLM_OK;
}

static size_t without_end(const char *line, size_t n)
{
    n -= n > 0 && line[n - 1] == '\n';
    return n - (n > 0 && line[n - 1] == '\r');
}

/* Append a line to the message. */
static int join(char **message, size_t *length, const char *line, size_t n, struct plm_status *st)
{
    char *grown = realloc(*message, *length + n + 1);
    if (!grown)
        return status_no_memory(st, *length + n + 1, "a message");
    memcpy(grown + *length, line, n);
    *length += n;
    grown[*length] = 0;
    *message = grown;
    return PLM_OK;
}

/* From three quotes to three quotes; what stands on their lines is part of the message. */
static int read_quoted(struct message_input *in, char **message, size_t *length, struct plm_status *st)
{
    int code = PLM_OK;
    memmove(*message, *message + 3, (*length -= 3) + 1);
    for (bool first = true;; first = false) {
        const size_t n = *length;
        if (n >= 3 && !memcmp(*message + n - 3, "\"\"\"", 3)) {
            (*message)[*length = n - 3] = 0;
            if (*length > 0 && (*message)[*length - 1] == '\n')
                (*message)[--*length] = 0;
            return PLM_OK;
        }
        char *line;
        size_t got;
        code = read_line(in, &line, &got, st);
        if (code || !line)
            return code;
        if (!first || n > 0)
            code = join(message, length, "\n", 1, st);
        if (!code)
            code = join(message, length, line, without_end(line, got), st);
        free(line);
        if (code)
            return code;
    }
}

int message_input_next(struct message_input *in, char **message, struct plm_status *st)
{
    size_t length, n;
    char *text = NULL;
    *message = NULL;
    int code = read_line(in, &text, &n, st);
    if (code || !text)
        return code;
    length = without_end(text, n);
    text[length] = 0;
    if (length >= 3 && !memcmp(text, "\"\"\"", 3))
        code = read_quoted(in, &text, &length, st);
    char *clean = code ? NULL : malloc(3 * length + 1);
    int64_t replaced = 0;
    if (!code && !clean)
        code = status_no_memory(st, 3 * length + 1, "a message");
    if (!code)
        clean[utf8_repair(text, length, clean, &replaced)] = 0;
    if (replaced)
        fprintf(stderr, "note: %lld characters of the message are not UTF-8, or NUL: they became U+FFFD\n", (long long)replaced);
    free(text);
    *message = clean;
    return code;
}
