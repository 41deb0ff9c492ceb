#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "tools/stop_text.h"

/* The text before the first stop string, found by looking at every byte. */
static size_t expected_length(const char *text, const char *const *stops, int n_stops, bool *stopped)
{
    for (size_t end = 1; end <= strlen(text); end++) { /* the stop string that ends first; of those, the one that begins first */
        size_t best = SIZE_MAX;
        for (int i = 0; i < n_stops; i++) {
            const size_t n = strlen(stops[i]);
            if (n <= end && !memcmp(text + end - n, stops[i], n) && end - n < best)
                best = end - n;
        }
        if (best != SIZE_MAX) {
            *stopped = true;
            return best;
        }
    }
    *stopped = false;
    return strlen(text);
}

/* However the text is cut into pieces, what is shown is what lies before the stop string, and no byte of it too early. */
static void pieces_do_not_matter(void **state)
{
    (void)state;
    static const char *const stops[] = {"aab", "ba", "abcab"};
    static const char *const texts[] = {"xaaab", "aaaaaac", "abcabcab", "cccabccb", "bbbcb", "aabb", "caacaacaab", "a"};
    for (int n_stops = 0; n_stops <= 3; n_stops++)
        for (size_t k = 0; k < sizeof texts / sizeof *texts; k++) {
            const size_t length = strlen(texts[k]);
            bool want;
            const size_t end = expected_length(texts[k], stops, n_stops, &want);
            for (unsigned cuts = 0; cuts < 1u << (length - 1); cuts++) {
                struct stop_text t = {.stops = stops, .n_stops = n_stops};
                char shown[32];
                size_t n_shown = 0;
                bool stopped = false, one_byte_pieces = cuts + 1 == 1u << (length - 1);
                for (size_t at = 0; at < length && !stopped;) {
                    size_t n = 1;
                    while (at + n < length && !(cuts >> (at + n - 1) & 1))
                        n++;
                    assert_int_equal(stop_text_add(&t, texts[k] + at, n, false, &stopped, NULL), PLM_OK);
                    at += n;
                    const size_t certain = stopped || at == length ? t.length : stop_text_certain(&t);
                    assert_true(certain <= t.length);
                    memcpy(shown + n_shown, t.data, certain);
                    n_shown += certain;
                    stop_text_drop(&t, certain);
                }
                assert_int_equal(stopped, want);
                /* a piece may end two stop strings: then the text ends before the one that begins first */
                assert_true(one_byte_pieces ? n_shown == end : n_shown <= end);
                assert_memory_equal(shown, texts[k], n_shown);
                stop_text_free(&t);
            }
        }
}

static void nothing_and_whole_texts(void **state)
{
    (void)state;
    static const char *const stops[] = {"stop"};
    struct stop_text t = {.stops = stops, .n_stops = 1};
    bool stopped;
    assert_int_equal(stop_text_add(&t, "", 0, false, &stopped, NULL), PLM_OK);
    assert_false(stopped);
    assert_int_equal(stop_text_add(&t, "no st", 5, false, &stopped, NULL), PLM_OK);
    assert_int_equal(stop_text_certain(&t), 3);
    assert_int_equal(stop_text_add(&t, "op", 2, false, &stopped, NULL), PLM_OK);
    assert_true(stopped);
    assert_int_equal(t.length, 3);
    assert_memory_equal(t.data, "no ", 3);
    stop_text_free(&t);
}

/* A special token that is not shown still makes or breaks a stop string, and what was held back before it can be cut. */
static void hidden_pieces(void **state)
{
    (void)state;
    static const struct {
        const char *pieces[5]; /* one that begins with '!' is hidden, without it */
        const char *shown;
        bool stopped;
    } cases[] = {
        {{"ab", "!<end>", "cd"}, "ab", true},
        {{"ab", "!<e", "nd>"}, "ab", true},
        {{"x\n", "!Q:"}, "x", true},          /* spans both kinds */
        {{"x\n", "!", "Q:"}, "x", true},
        {{"x\n", "!|", "Q:"}, "x\nQ:", false}, /* what is hidden stands between */
        {{"a<", "!b", "end>"}, "a<end>", false},
        {{"!<end", "b"}, "b", false},
    };
    static const char *const stops[] = {"<end>", "\nQ:"};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        struct stop_text t = {.stops = stops, .n_stops = 2};
        char shown[32] = "";
        bool stopped = false;
        for (int i = 0; i < 5 && cases[k].pieces[i] && !stopped; i++) {
            const bool hidden = cases[k].pieces[i][0] == '!';
            const char *text = cases[k].pieces[i] + hidden;
            assert_int_equal(stop_text_add(&t, text, strlen(text), hidden, &stopped, NULL), PLM_OK);
            const size_t certain = stopped ? t.length : stop_text_certain(&t);
            strncat(shown, t.data ? t.data : "", certain);
            stop_text_drop(&t, certain);
        }
        strncat(shown, t.data ? t.data : "", t.length);
        assert_string_equal(shown, cases[k].shown);
        assert_int_equal(stopped, cases[k].stopped);
        stop_text_clear(&t);
        assert_int_equal(t.length, 0);
        stop_text_free(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(pieces_do_not_matter), cmocka_unit_test(nothing_and_whole_texts),
                                       cmocka_unit_test(hidden_pieces)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
