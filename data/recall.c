#include "data/recall.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/random.h"

/* Every piece of a document is a whole line, so that tokens never span two pieces and lengths add up. */
static const char *const filler_lines[] = {
    "The grass is green.\n",
    "The sky is blue.\n",
    "The sun is yellow.\n",
    "Here we go.\n",
    "There and back again.\n",
    "The river runs past the old mill.\n",
    "A cart went slowly up the hill.\n",
    "The wind turned before the evening.\n",
    "Nobody in the house was awake.\n",
    "The bread was still warm.\n",
    "Snow lay on the roofs of the town.\n",
    "She closed the book and looked out.\n",
    "The boats came home at noon.\n",
    "A dog slept in the shade of the wall.\n",
    "The road was long and dry.\n",
    "He put the lamp back on the shelf.\n",
};

enum { N_VALUES = 12 };

/* The values of a kind begin with different letters: small models take long to tell what only a later token tells apart. */
static const struct {
    const char *kind, *values[N_VALUES];
} facts[RECALL_MAX_FACTS] = {
    {"colour", {"red", "blue", "green", "yellow", "white", "pink", "orange", "violet", "ivory", "amber", "khaki", "lilac"}},
    {"city", {"Rome", "Paris", "London", "Berlin", "Madrid", "Vienna", "Oslo", "Dublin", "Athens", "Cairo", "Kyoto", "Geneva"}},
    {"animal", {"cat", "horse", "sheep", "goat", "pig", "duck", "fox", "wolf", "bear", "mouse", "lion", "eagle"}},
    {"fruit", {"apple", "pear", "lemon", "melon", "grape", "cherry", "fig", "banana", "kiwi", "date", "quince", "raspberry"}},
    {"metal", {"iron", "copper", "tin", "lead", "zinc", "nickel", "gold", "silver", "brass", "mercury", "platinum", "aluminium"}},
    {"tool", {"hammer", "saw", "axe", "drill", "knife", "rake", "wrench", "chisel", "pliers", "file", "lever", "trowel"}},
    {"country", {"Spain", "France", "Italy", "Norway", "Poland", "Greece", "Turkey", "Egypt", "Japan", "Denmark", "Wales", "Chile"}},
    {"drink", {"tea", "coffee", "milk", "water", "juice", "beer", "rum", "gin", "soda", "lemonade", "punch", "vodka"}},
    {"tree", {"oak", "pine", "birch", "elm", "ash", "maple", "willow", "cedar", "fir", "larch", "hazel", "yew"}},
    {"river", {"Rhine", "Danube", "Thames", "Seine", "Elbe", "Volga", "Nile", "Loire", "Po", "Amur", "Congo", "Indus"}},
    {"instrument", {"violin", "piano", "flute", "drum", "harp", "guitar", "cello", "organ", "lute", "trumpet", "banjo", "recorder"}},
    {"sport", {"chess", "poker", "golf", "tennis", "rugby", "football", "hockey", "darts", "bowls", "judo", "squash", "karate"}},
};

enum {
    N_FILLER = sizeof filler_lines / sizeof *filler_lines,
    DRAW_BITS = 24,        /* random numbers of one document */
};

struct recall_generator {
    const struct tokenizer *tokenizer;
    struct encoder *encoder;
    size_t filler_tokens[N_FILLER];
    int32_t *ordinary; /* (n_ordinary) ids that are not special, for mqar-tokens */
    uint32_t n_ordinary;
    bool *taken; /* (max(RECALL_MAX_KEYS, n_ordinary)) keys of the document being made, all false between documents */
    /* the document being made */
    int32_t keys[RECALL_MAX_PAIRS], values[RECALL_MAX_PAIRS];
    int order[RECALL_MAX_PAIRS];
    int queries[RECALL_MAX_QUERIES];     /* pairs that are asked for, in order */
    size_t fill[RECALL_MAX_PAIRS + 1]; /* filler in front of pair i, and of the questions */
    size_t said_at[RECALL_MAX_PAIRS];  /* byte or token where pair i begins */
    struct token_list filler;          /* numbers of lines, or token ids */
    uint64_t seed, next;               /* next: counter of the random numbers */
    uint32_t stream;
};

const char *recall_task_name(enum recall_task task)
{
    static const char *const names[RECALL_N_TASKS] = {"passkey", "mqar", "mqar-tokens", "facts"};
    return names[task];
}

int recall_task_parse(enum recall_task *task, const char *name, struct plm_status *st)
{
    for (int i = 0; i < RECALL_N_TASKS; i++)
        if (!strcmp(name, recall_task_name((enum recall_task)i))) {
            *task = (enum recall_task)i;
            return PLM_OK;
        }
    return status_set(st, PLM_EINVAL, "the task is '%.40s', expected passkey, mqar, mqar-tokens or facts", name);
}

void recall_document_free(struct recall_document *d)
{
    free(d->text);
    free(d->tokens.data);
    free(d->answers);
    *d = (struct recall_document){0};
}

static int collect_ordinary(struct recall_generator *g, struct plm_status *st)
{
    const int32_t vocab = tokenizer_vocab_size(g->tokenizer);
    const size_t n = (size_t)vocab > RECALL_MAX_KEYS ? (size_t)vocab : RECALL_MAX_KEYS;
    g->ordinary = malloc((size_t)vocab * sizeof *g->ordinary);
    g->taken = calloc(n, sizeof *g->taken);
    if (!g->ordinary || !g->taken)
        return status_no_memory(st, n * sizeof *g->ordinary, "a list of tokens");
    for (int32_t id = 0; id < vocab; id++) {
        size_t length;
        const enum tokenizer_kind kind = tokenizer_kind(g->tokenizer, id);
        if (tokenizer_token(g->tokenizer, id, &length, NULL) && (kind == TOKEN_NORMAL || kind == TOKEN_BYTE))
            g->ordinary[g->n_ordinary++] = id;
    }
    return PLM_OK;
}

static int count_tokens(struct recall_generator *g, const char *text, size_t length, struct token_list *scratch, size_t *n,
                        struct plm_status *st)
{
    scratch->length = 0;
    int code = encoder_encode(g->encoder, text, length, false, scratch, st);
    *n = scratch->length;
    return code;
}

int recall_generator_create(struct recall_generator **out, const struct tokenizer *t, struct plm_status *st)
{
    *out = NULL;
    struct recall_generator *g = calloc(1, sizeof *g);
    if (!g)
        return status_no_memory(st, sizeof *g, "a generator of recall tasks");
    g->tokenizer = t;
    struct token_list scratch = {0};
    int code = encoder_create(&g->encoder, t, st);
    for (int i = 0; !code && i < N_FILLER; i++)
        code = count_tokens(g, filler_lines[i], strlen(filler_lines[i]), &scratch, &g->filler_tokens[i], st);
    free(scratch.data);
    if (!code)
        code = collect_ordinary(g, st);
    if (code) {
        recall_generator_free(g);
        return code;
    }
    *out = g;
    return PLM_OK;
}

void recall_generator_free(struct recall_generator *g)
{
    if (!g)
        return;
    encoder_free(g->encoder);
    free(g->ordinary);
    free(g->taken);
    free(g->filler.data);
    free(g);
}

/* A whole number below n. */
static uint32_t draw(struct recall_generator *g, uint32_t n)
{
    const uint64_t r = random_u64(g->seed, RANDOM_RECALL, g->stream, g->next++);
    return (uint32_t)((r >> 32) * n >> 32);
}

static int push(struct token_list *l, int32_t id, struct plm_status *st)
{
    if (l->length == l->capacity) {
        const size_t capacity = l->capacity ? 2 * l->capacity : 256;
        int32_t *grown = realloc(l->data, capacity * sizeof *grown);
        if (!grown)
            return status_no_memory(st, capacity * sizeof *grown, "a document");
        l->data = grown;
        l->capacity = capacity;
    }
    l->data[l->length++] = id;
    return PLM_OK;
}

static int start_document(struct recall_document *d, int n_answers, struct plm_status *st)
{
    free(d->text);
    d->text = NULL;
    d->text_length = d->tokens.length = 0;
    struct recall_answer *answers = realloc(d->answers, (size_t)n_answers * sizeof *answers);
    if (!answers)
        return status_no_memory(st, (size_t)n_answers * sizeof *answers, "the answers of a document");
    d->answers = answers;
    d->n_answers = n_answers;
    return PLM_OK;
}

/* Distinct keys below n_keys, values in [first_value, first_value + n_values), and which pairs are asked for. */
static void draw_pairs(struct recall_generator *g, int pairs, int queries, uint32_t n_keys, int32_t first_value, uint32_t n_values)
{
    for (int i = 0; i < pairs; i++) {
        do
            g->keys[i] = (int32_t)draw(g, n_keys);
        while (g->taken[g->keys[i]]);
        g->taken[g->keys[i]] = true;
        g->values[i] = first_value + (int32_t)draw(g, n_values);
        g->order[i] = i;
    }
    for (int i = 0; i < queries; i++) { /* rounds of a Fisher-Yates shuffle: every pair once, then every pair again */
        const int at = i % pairs, j = at + (int)draw(g, (uint32_t)(pairs - at)), swap = g->order[at];
        g->queries[i] = g->order[at] = g->order[j];
        g->order[j] = swap;
    }
}

static void release_keys(struct recall_generator *g, int pairs)
{
    for (int i = 0; i < pairs; i++)
        g->taken[g->keys[i]] = false;
}

/* Spread the filler over the places in front of the pairs and of the questions. */
static void spread_filler(struct recall_generator *g, int pairs)
{
    memset(g->fill, 0, (size_t)(pairs + 1) * sizeof *g->fill);
    for (size_t i = 0; i < g->filler.length; i++)
        g->fill[draw(g, (uint32_t)pairs + 1)]++;
}

/* --- text --- */

struct plan {
    const struct recall_options *o;
    int pairs, queries, keys;
    double depth; /* of the passkey */
};

static void write_filler(const struct recall_generator *g, FILE *f, size_t *at, size_t n)
{
    for (size_t end = *at + n; *at < end; ++*at)
        fputs(filler_lines[g->filler.data[*at]], f);
}

static void print_key(FILE *f, const char *before, int32_t key, int keys, const char *after)
{
    fputs(before, f);
    if (keys > 260)
        fputc('a' + key / 260, f);
    fputc('a' + (keys > 26 ? key / 10 % 26 : key), f);
    if (keys > 26)
        fputc('0' + key % 10, f);
    fputs(after, f);
}

static void write_pair(const struct recall_generator *g, const struct plan *p, FILE *f, int pair)
{
    const int32_t key = g->keys[pair], value = g->values[pair];
    if (p->o->task == RECALL_PASSKEY)
        fprintf(f, "The pass key is %d. Remember it. %d is the pass key.\n", value, value);
    else if (p->o->task == RECALL_FACTS)
        fprintf(f, "The %s is %s.\n", facts[key].kind, facts[key].values[value]);
    else
        print_key(f, "key ", key, p->keys, " is "), fprintf(f, "%d.\n", value);
}

static void write_question(const struct recall_generator *g, const struct plan *p, FILE *f, int pair, struct recall_answer *answer)
{
    const int32_t key = g->keys[pair], value = g->values[pair];
    if (p->o->task == RECALL_PASSKEY)
        fputs("What is the pass key? The pass key is ", f);
    else if (p->o->task == RECALL_FACTS)
        fprintf(f, "What is the %s? The %s is ", facts[key].kind, facts[key].kind);
    else
        print_key(f, "What is key ", key, p->keys, "?"), print_key(f, " key ", key, p->keys, " is ");
    answer->begin = (size_t)ftello(f);
    if (p->o->task == RECALL_FACTS)
        fputs(facts[key].values[value], f);
    else
        fprintf(f, "%d", value);
    answer->end = (size_t)ftello(f);
    fputs(".\n", f);
}

/* The document with g->fill lines of filler; *questions and the answers get bytes. */
static void write_text(struct recall_generator *g, const struct plan *p, FILE *f, size_t *questions_at, struct recall_answer *answers)
{
    const bool passkey = p->o->task == RECALL_PASSKEY;
    size_t at = 0;
    if (passkey)
        fputs("There is a pass key in the text below. Remember it.\n", f);
    for (int i = 0; i < p->pairs; i++) {
        write_filler(g, f, &at, g->fill[i]);
        g->said_at[i] = (size_t)ftello(f);
        write_pair(g, p, f, i);
    }
    write_filler(g, f, &at, g->fill[p->pairs]);
    *questions_at = (size_t)ftello(f);
    const double questions = (double)*questions_at;
    for (int i = 0; i < p->queries; i++) {
        const int pair = g->queries[i];
        write_question(g, p, f, pair, &answers[i]);
        answers[i].depth = passkey ? p->depth : (double)g->said_at[pair] / questions;
    }
}

static int make_text(struct recall_generator *g, const struct plan *p, struct recall_document *d, struct plm_status *st)
{
    free(d->text);
    d->text = NULL;
    FILE *f = open_memstream(&d->text, &d->text_length);
    if (!f)
        return status_no_memory(st, BUFSIZ, "a document");
    write_text(g, p, f, &d->questions, d->answers);
    const bool failed = ferror(f);
    if (fclose(f) || failed)
        return status_no_memory(st, d->text_length, "a document");
    d->tokens.length = 0;
    return encoder_encode(g->encoder, d->text, d->text_length, false, &d->tokens, st);
}

/* Go on from *token, whose first byte is *begin, to the token that holds `byte`. */
static size_t seek_token(const struct recall_generator *g, const struct recall_document *d, size_t byte, size_t *token, size_t *begin)
{
    for (size_t length; *token < d->tokens.length; ++*token, *begin += length) {
        tokenizer_token(g->tokenizer, d->tokens.data[*token], &length, NULL);
        if (*begin + length > byte)
            break;
    }
    return *token;
}

/* From bytes to tokens: an answer is all tokens that hold a byte of it. The text is ASCII, so the tokens' bytes are the text. */
static void locate_answers(const struct recall_generator *g, struct recall_document *d)
{
    size_t token = 0, begin = 0;
    d->questions = seek_token(g, d, d->questions, &token, &begin);
    for (int i = 0; i < d->n_answers; i++) {
        struct recall_answer *a = &d->answers[i];
        a->begin = seek_token(g, d, a->begin, &token, &begin);
        a->end = seek_token(g, d, a->end - 1, &token, &begin) + 1;
    }
}

static int too_long(const struct recall_options *o, size_t needed, struct plm_status *st)
{
    return status_set(
        st, PLM_ELIMIT, "a document of task %s needs %zu tokens without any filler, the length is %d: ask for a greater length%s",
        recall_task_name(o->task), needed, o->length, o->task == RECALL_PASSKEY ? "" : " or for fewer pairs or queries");
}

static int generate_text(struct recall_generator *g, const struct recall_options *o, struct recall_document *d,
                         struct plm_status *st)
{
    const bool words = o->task == RECALL_FACTS;
    struct plan p = {.o = o, .pairs = o->pairs, .queries = o->queries, .keys = o->keys ? o->keys : words ? RECALL_MAX_FACTS : RECALL_MAX_KEYS};
    int32_t least = 1;
    for (int i = 1; i < (o->digits ? o->digits : o->task == RECALL_PASSKEY ? 5 : 4); i++)
        least *= 10;
    if (o->task == RECALL_PASSKEY) {
        p.pairs = p.queries = 1;
        p.depth = o->depth < 0 ? (double)draw(g, 1 << 20) / ((1 << 20) - 1) : o->depth;
        draw_pairs(g, 1, 1, 1, least, 9 * (uint32_t)least);
    } else {
        draw_pairs(g, p.pairs, p.queries, (uint32_t)p.keys, words ? 0 : least, words ? N_VALUES : 9 * (uint32_t)least);
    }
    release_keys(g, p.pairs);
    g->filler.length = 0;
    spread_filler(g, p.pairs);
    int code = make_text(g, &p, d, st);
    if (code)
        return code;
    if (d->tokens.length > (size_t)o->length)
        return too_long(o, d->tokens.length, st);
    for (size_t room = (size_t)o->length - d->tokens.length; !code;) {
        const uint32_t line = draw(g, N_FILLER);
        if (g->filler_tokens[line] > room)
            break;
        room -= g->filler_tokens[line];
        code = push(&g->filler, (int32_t)line, st);
    }
    while (!code) {
        if (o->task == RECALL_PASSKEY) {
            g->fill[0] = (size_t)llround(p.depth * (double)g->filler.length);
            g->fill[1] = g->filler.length - g->fill[0];
        } else {
            spread_filler(g, p.pairs);
        }
        code = make_text(g, &p, d, st);
        if (d->tokens.length <= (size_t)o->length || g->filler.length == 0)
            break;
        g->filler.length--; /* this tokenizer's tokens span lines: the counts do not add up */
    }
    if (!code)
        locate_answers(g, d);
    return code;
}

/* --- tokens --- */

/* Keys are ordinary tokens of the first half of the list, values of the second. */
static int generate_tokens(struct recall_generator *g, const struct recall_options *o, struct recall_document *d,
                           struct plm_status *st)
{
    const size_t needed = 2 * ((size_t)o->pairs + (size_t)o->queries);
    const uint32_t half = g->n_ordinary / 2;
    if (needed > (size_t)o->length)
        return too_long(o, needed, st);
    if (half / 2 < (uint32_t)o->pairs)
        return status_set(st, PLM_ELIMIT, "%d pairs of random tokens need %d ordinary tokens, the tokenizer has %u", o->pairs,
                          4 * o->pairs, (unsigned)g->n_ordinary);
    draw_pairs(g, o->pairs, o->queries, half, (int32_t)half, g->n_ordinary - half);
    int code = PLM_OK;
    g->filler.length = 0;
    for (size_t i = needed; i < (size_t)o->length && !code; i++) {
        uint32_t id;
        do
            id = draw(g, g->n_ordinary);
        while (g->taken[id]); /* filler that is no key */
        code = push(&g->filler, g->ordinary[id], st);
    }
    release_keys(g, o->pairs);
    spread_filler(g, o->pairs);
    size_t at = 0;
    for (int i = 0; i <= o->pairs && !code; i++) {
        for (size_t n = g->fill[i]; n > 0 && !code; n--)
            code = push(&d->tokens, g->filler.data[at++], st);
        if (i == o->pairs)
            break;
        g->said_at[i] = d->tokens.length;
        if (!code)
            code = push(&d->tokens, g->ordinary[g->keys[i]], st);
        if (!code)
            code = push(&d->tokens, g->ordinary[g->values[i]], st);
    }
    const double questions = (double)d->tokens.length;
    d->questions = d->tokens.length;
    for (int i = 0; i < o->queries && !code; i++) {
        const int pair = g->queries[i];
        code = push(&d->tokens, g->ordinary[g->keys[pair]], st);
        d->answers[i] = (struct recall_answer){d->tokens.length, d->tokens.length + 1, (double)g->said_at[pair] / questions};
        if (!code)
            code = push(&d->tokens, g->ordinary[g->values[pair]], st);
    }
    return code;
}

int recall_generate(struct recall_generator *g, const struct recall_options *o, uint64_t index, struct recall_document *d,
                    struct plm_status *st)
{
    const bool passkey = o->task == RECALL_PASSKEY;
    const int keys = o->task == RECALL_FACTS ? RECALL_MAX_FACTS : RECALL_MAX_KEYS;
    if (o->length < 1 || o->length > RECALL_MAX_LENGTH)
        return status_set(st, PLM_EINVAL, "the length is %d tokens, expected 1 to %d", o->length, RECALL_MAX_LENGTH);
    const int pairs = keys < RECALL_MAX_PAIRS ? keys : RECALL_MAX_PAIRS;
    if (!passkey && (o->pairs < 1 || o->pairs > pairs))
        return status_set(st, PLM_EINVAL, "%d pairs, expected 1 to %d", o->pairs, pairs);
    if (!passkey && (o->queries < 1 || o->queries > RECALL_MAX_QUERIES))
        return status_set(st, PLM_EINVAL, "%d queries, expected 1 to %d", o->queries, RECALL_MAX_QUERIES);
    if (!passkey && (o->keys < 0 || o->keys > keys || (o->keys && o->keys < o->pairs)))
        return status_set(st, PLM_EINVAL, "%d keys for %d pairs, expected at least as many and at most %d", o->keys, o->pairs, keys);
    if (o->digits < 0 || o->digits > 9)
        return status_set(st, PLM_EINVAL, "numbers of %d digits, expected 1 to 9", o->digits);
    if (passkey && !(o->depth <= 1))
        return status_set(st, PLM_EINVAL, "the depth is %g, expected 0 (first) to 1 (last)", o->depth);
    if (index >> (64 - DRAW_BITS))
        return status_set(st, PLM_EINVAL, "document number %llu, expected a number below 2^%d", (unsigned long long)index,
                          64 - DRAW_BITS);
    g->seed = o->seed;
    g->stream = (uint32_t)o->task << 1 | o->held_out;
    g->next = index << DRAW_BITS;
    int code = start_document(d, passkey ? 1 : o->queries, st);
    if (code)
        return code;
    return o->task == RECALL_MQAR_TOKENS ? generate_tokens(g, o, d, st) : generate_text(g, o, d, st);
}
