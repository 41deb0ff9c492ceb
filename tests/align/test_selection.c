/* Pairs from scored answers: by hand for each rule and filter, and by properties on many random rounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "train/align/selection.h"

#define N(a) (sizeof(a) / sizeof *(a))

/* Answers of static texts and no memory of their own: tokens 0, 1, 2, ... (never repetitive). */
static int32_t counting[4096];

static struct answer make(int64_t task, int chain, int turn, const char *text, double score, int n)
{
    return (struct answer){.task = task, .chain = chain, .turn = turn, .text = (char *)(uintptr_t)text, .tokens = counting, .n = n, .ended = true,
                           .scored = true, .score = score};
}

static const struct selection_options defaults = {.rule = SELECT_BEST_WORST, .max_pairs = 1, .require_ended = true, .max_length_ratio = 3,
                                                  .drop_repetitive = true};

static int64_t select_pairs(struct answer *a, int64_t n, struct selection_options o, struct selected_pair *out, struct selection_stats *stats)
{
    const struct answer_set set = {a, n, n};
    struct selected_pair *pairs;
    struct plm_status st = {0};
    int64_t n_pairs;
    if (selection_pairs(&pairs, &n_pairs, &set, &o, stats, &st))
        fail_msg("%s", st.message);
    assert_true(n_pairs == stats->pairs && (n_pairs > 0) == (pairs != NULL));
    if (n_pairs)
        memcpy(out, pairs, (size_t)n_pairs * sizeof *out);
    free(pairs);
    return n_pairs;
}

static void best_and_worst_of_a_task(void **state)
{
    (void)state;
    struct answer a[] = {make(0, 0, 0, "a", 0.5, 10), make(0, 0, 1, "b", 0.1, 10), make(0, 1, 0, "c", 0.9, 10), make(0, 1, 1, "d", 0.9, 10), make(0, 1, 2, "e", 0.1, 10),
                         make(2, 0, 0, "f", 1, 10), make(2, 0, 1, "g", 1, 10), make(3, 0, 0, "h", 1, 10)};
    struct selected_pair p[64];
    struct selection_stats s;
    assert_int_equal(select_pairs(a, N(a), defaults, p, &s), 1);
    assert_true(p[0].chosen == 2 && p[0].rejected == 1); /* the lower index of equals */
    assert_true(s.tasks == 3 && s.tied == 1);
    struct selection_options o = defaults;
    o.min_margin = 0.8;
    assert_int_equal(select_pairs(a, N(a), o, p, &s), 0); /* must exceed it: 0.9 - 0.1 does not, in doubles */
    assert_int_equal(s.tied, 2);
    o = defaults;
    a[2].n = 50; /* too long beside any: the equal one is taken */
    assert_int_equal(select_pairs(a, N(a), o, p, &s), 1);
    assert_true(p[0].chosen == 3 && p[0].rejected == 1 && s.length_ratio == 2);
    a[3].n = 50; /* no pair of the largest margin passes: none of a smaller one is taken in its place */
    assert_int_equal(select_pairs(a, N(a), o, p, &s), 0);
    assert_int_equal(s.length_ratio, 4);
    o.max_length_ratio = 0;
    assert_int_equal(select_pairs(a, N(a), o, p, &s), 1);
    assert_int_equal(p[0].chosen, 2);
}

static void all_pairs_by_margin(void **state)
{
    (void)state;
    struct answer a[] = {make(0, 0, 0, "a", 0, 10), make(0, 0, 1, "b", 1, 10), make(0, 0, 2, "c", 3, 10), make(1, 0, 0, "d", 1, 10), make(1, 0, 1, "e", 0, 10)};
    struct selection_options o = defaults;
    o.rule = SELECT_ALL_PAIRS;
    o.max_pairs = 3;
    struct selected_pair p[64];
    struct selection_stats s;
    assert_int_equal(select_pairs(a, N(a), o, p, &s), 4);
    assert_true(p[0].chosen == 2 && p[0].rejected == 0 && p[1].chosen == 2 && p[1].rejected == 1 && p[2].chosen == 1 && p[2].rejected == 0 && p[3].chosen == 3);
    o.max_pairs = 2;
    assert_int_equal(select_pairs(a, N(a), o, p, &s), 3);
    o.verifiable = true; /* scores are not 0 and 1 in task 0, but for one pair */
    assert_int_equal(select_pairs(a, N(a), o, p, &s), 2);
    assert_true(p[0].chosen == 1 && p[0].rejected == 0 && s.not_verified == 2);
}

static void refined_against_first(void **state)
{
    (void)state;
    struct answer a[] = {make(0, 0, 0, "a", 0, 10), make(0, 0, 1, "b", 0, 10), make(0, 0, 2, "c", 1, 10), make(0, 1, 0, "d", 1, 10), make(0, 1, 1, "e", 0, 10),
                         make(0, 2, 0, "f", 0, 10), make(1, 0, 0, "g", 0, 10), make(1, 0, 1, "h", 0, 10)};
    struct selection_options o = defaults;
    o.rule = SELECT_REFINED;
    struct selected_pair p[64];
    struct selection_stats s;
    for (size_t i = 0; i < N(a); i++)
        a[i].scored = false; /* the rule without a scorer */
    assert_int_equal(select_pairs(a, N(a), o, p, &s), 3);
    assert_true(p[0].chosen == 2 && p[0].rejected == 0 && p[1].chosen == 4 && p[1].rejected == 3 && p[2].chosen == 7);
    for (size_t i = 0; i < N(a); i++)
        a[i].scored = true;
    o.verifiable = true;
    assert_int_equal(select_pairs(a, N(a), o, p, &s), 1);
    assert_true(p[0].chosen == 2 && s.not_verified == 1 && s.tied == 1);
    a[2].scored = false;
    assert_int_equal(select_pairs(a, N(a), o, p, &s), 0);
    assert_int_equal(s.unscored, 1);
}

static void filters_are_counted(void **state)
{
    (void)state;
    int32_t loop[40];
    for (int i = 0; i < 40; i++)
        loop[i] = i % 4;
    struct answer good = make(0, 0, 0, "good answer", 1, 12), bad = make(0, 0, 1, "bad", 0, 12);
    struct selected_pair p[64];
    struct selection_stats s;
    struct answer a[2] = {good, bad};
    assert_int_equal(select_pairs(a, 2, defaults, p, &s), 1);
    a[1].text = (char *)" good \n\tanswer ";
    assert_int_equal(select_pairs(a, 2, defaults, p, &s), 0);
    assert_int_equal(s.equal, 1);
    a[1].text = (char *)"goodanswer";
    assert_int_equal(select_pairs(a, 2, defaults, p, &s), 1);
    a[1].text = (char *)" \n ";
    assert_int_equal(select_pairs(a, 2, defaults, p, &s), 0);
    assert_true(s.empty == 1 && s.tied == 0);
    a[1] = bad;
    a[1].ended = false;
    assert_int_equal(select_pairs(a, 2, defaults, p, &s), 0);
    assert_int_equal(s.not_ended, 1);
    struct selection_options o = defaults;
    o.require_ended = false;
    assert_int_equal(select_pairs(a, 2, o, p, &s), 1);
    a[1] = bad;
    a[1].scored = false;
    assert_int_equal(select_pairs(a, 2, defaults, p, &s), 0);
    assert_int_equal(s.unscored, 1);
    a[1] = bad;
    a[1].n = 36;
    assert_int_equal(select_pairs(a, 2, defaults, p, &s), 1); /* three times as long is allowed */
    a[1].n = 37;
    assert_int_equal(select_pairs(a, 2, defaults, p, &s), 0);
    assert_int_equal(s.length_ratio, 1);
    a[0].n = 36;
    a[0].tokens = loop;
    assert_int_equal(select_pairs(a, 2, defaults, p, &s), 0);
    assert_int_equal(s.repetitive, 1);
    o = defaults;
    o.drop_repetitive = false;
    assert_int_equal(select_pairs(a, 2, o, p, &s), 1);
    a[0] = good;
    a[1].tokens = loop; /* a loop in the rejected one is as it should be */
    a[1].n = 36;
    assert_int_equal(select_pairs(a, 2, defaults, p, &s), 1);
}

static void loops_are_seen(void **state)
{
    (void)state;
    int32_t t[200];
    for (int i = 0; i < 200; i++)
        t[i] = 1000 + i;
    assert_false(answer_is_repetitive(t, 200));
    assert_false(answer_is_repetitive(t, 0));
    for (int i = 100; i < 116; i++)
        t[i] = i % 4;
    assert_true(answer_is_repetitive(t, 200)); /* four copies in a row */
    t[115] = 77;
    assert_false(answer_is_repetitive(t, 200));
    assert_false(answer_is_repetitive(t + 100, 12)); /* three copies */
    for (int i = 0; i < 20; i++)
        t[i] = 5; /* one token for ever */
    assert_true(answer_is_repetitive(t, 200));
    for (int i = 0; i < 200; i++)
        t[i] = 1000 + i;
    for (int i = 0; i < 40; i++)
        t[i] = i % 7 < 4 ? i % 7 : 500 + i; /* a phrase of four that comes again and again, other words between */
    assert_true(answer_is_repetitive(t, 40));
    assert_false(answer_is_repetitive(t, 60));
}

static uint64_t next(uint64_t *x)
{
    *x ^= *x << 13, *x ^= *x >> 7, *x ^= *x << 17;
    return *x;
}

/* Whatever the round: pairs are within a task, their margins are large enough, no filter is broken, the numbers add up, and the same
 * answers give the same pairs. */
static void random_rounds_keep_the_rules(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "a", " a", "b", "c d", "c  d", "e"};
    uint64_t x = 88172645463325252u;
    for (int round = 0; round < 3000; round++) {
        struct answer a[60];
        struct selection_options o = defaults;
        int64_t n = 0;
        o.rule = (enum selection_rule)(next(&x) % 3);
        o.max_pairs = 1 + (int)(next(&x) % 4);
        o.min_margin = (double)(next(&x) % 3) / 4;
        o.verifiable = next(&x) % 3 == 0;
        o.require_ended = next(&x) % 2;
        for (int task = 0; task < 4; task++)
            for (int chain = 0; chain < (int)(next(&x) % 4); chain++)
                for (int turn = 0; turn < (int)(next(&x) % 4); turn++) {
                    a[n] = make(task, chain, turn, texts[next(&x) % N(texts)], (double)(next(&x) % 3) / 2, 1 + (int)(next(&x) % 12));
                    a[n].ended = next(&x) % 5 != 0;
                    a[n++].scored = next(&x) % 5 != 0;
                }
        struct selected_pair p[4000], q[4000];
        struct selection_stats s, again;
        const int64_t pairs = select_pairs(a, n, o, p, &s);
        assert_true(select_pairs(a, n, o, q, &again) == pairs && !memcmp(&s, &again, sizeof s) && !memcmp(p, q, (size_t)pairs * sizeof *p));
        int64_t of_task[4] = {0};
        for (int64_t i = 0; i < pairs; i++) {
            const struct answer *c = &a[p[i].chosen], *r = &a[p[i].rejected];
            assert_true(c->task == r->task && p[i].chosen != p[i].rejected && strcmp(c->text, r->text) != 0);
            assert_true(strpbrk(c->text, "abcde") && strpbrk(r->text, "abcde"));
            assert_true(c->n <= 3 * r->n && r->n <= 3 * c->n);
            assert_true(!o.require_ended || (c->ended && r->ended));
            assert_true(!o.verifiable || (c->score == 1 && r->score == 0 && c->scored && r->scored));
            if (o.rule == SELECT_REFINED)
                assert_true(c->chain == r->chain && r->turn == 0 && c->turn > 0);
            else
                assert_true(c->scored && r->scored && c->score - r->score > o.min_margin);
            of_task[c->task]++;
            for (int64_t j = 0; o.rule == SELECT_BEST_WORST && j < n; j++) /* none that may be used is better than the best */
                if (a[j].task == c->task && a[j].scored && strpbrk(a[j].text, "abcde") && (a[j].ended || !o.require_ended))
                    assert_true(a[j].score <= c->score && a[j].score >= r->score);
        }
        for (int t = 0; t < 4; t++)
            assert_true(o.rule == SELECT_REFINED ? of_task[t] <= 3 : of_task[t] <= (o.rule == SELECT_BEST_WORST ? 1 : o.max_pairs));
    }
}

static void disorder_is_refused(void **state)
{
    (void)state;
    struct answer a[] = {make(1, 0, 0, "a", 0, 1), make(0, 0, 0, "b", 0, 1)}, twice[] = {make(0, 0, 0, "a", 0, 1), make(0, 0, 0, "b", 0, 1)};
    const struct answer_set sets[] = {{a, 2, 2}, {twice, 2, 2}};
    for (int i = 0; i < 2; i++) {
        struct selected_pair *pairs;
        struct selection_stats s;
        struct plm_status st = {0};
        int64_t n;
        assert_int_equal(selection_pairs(&pairs, &n, &sets[i], &defaults, &s, &st), PLM_EINVAL);
        assert_non_null(strstr(st.message, "out of order"));
        assert_null(pairs);
    }
}

static void settings_are_read(void **state)
{
    (void)state;
    static const char text[] = "{\"rule\": \"all_pairs\", \"max_pairs\": 4, \"min_margin\": 0.25, \"verifiable\": true, \"max_length_ratio\": 0}";
    struct settings *settings;
    struct plm_status st = {0};
    assert_int_equal(settings_parse(&settings, text, strlen(text), "s", &st), PLM_OK);
    struct section root = settings_root(settings);
    const struct selection_options o = selection_read(&root);
    assert_int_equal(settings_finish(settings, &st), PLM_OK);
    assert_true(o.rule == SELECT_ALL_PAIRS && o.max_pairs == 4 && o.min_margin == 0.25 && o.verifiable && o.max_length_ratio == 0 && o.require_ended &&
                o.drop_repetitive);
    settings_close(settings);
    assert_int_equal(settings_parse(&settings, "{\"max_length_ratio\": 0.5}", 25, "s", &st), PLM_OK);
    root = settings_root(settings);
    selection_read(&root);
    assert_int_equal(settings_finish(settings, &st), PLM_EINVAL);
    assert_non_null(strstr(st.message, "max_length_ratio"));
    settings_close(settings);
}

int main(void)
{
    for (int i = 0; i < 4096; i++)
        counting[i] = i;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(best_and_worst_of_a_task), cmocka_unit_test(all_pairs_by_margin), cmocka_unit_test(refined_against_first),
        cmocka_unit_test(filters_are_counted), cmocka_unit_test(loops_are_seen), cmocka_unit_test(random_rounds_keep_the_rules),
        cmocka_unit_test(disorder_is_refused), cmocka_unit_test(settings_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
