#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "infer/model/tensor_table.h"

static struct model_config released(void)
{
    struct model_config c = model_config_default();
    c.num_hidden_layers = 32, c.hidden_size = 2048, c.num_attention_heads = 16, c.kv_lora_rank = 512, c.qk_nope_head_dim = 128;
    c.qk_rope_head_dim = 64, c.v_head_dim = 128, c.intermediate_size = 8192, c.vocab_size = 151936;
    return c;
}

/* plm.md 1.2 and 2.2: the released model has 1,825,458,176 parameters in 290 tensors. */
static void released_model_has_its_size(void **state)
{
    (void)state;
    struct tensor_table t;
    const struct model_config c = released();
    assert_int_equal(tensor_table_build(&t, &c, 3, NULL), PLM_OK);
    assert_int_equal(t.n_tensors, 290);
    assert_int_equal(t.parameters, 1825458176);
    assert_int_equal(t.padded % 3, 0);
    int64_t end = 0;
    for (int i = 0; i < t.n_tensors; i++) {
        const struct tensor_desc *d = &t.tensors[i];
        assert_true(d->offset >= end && d->offset % 16 == 0);
        end = d->offset + tensor_elements(d);
        assert_ptr_equal(tensor_table_find(&t, d->name), d);
        assert_ptr_equal(tensor_table_find(&t, d->gguf_name), d);
        assert_ptr_equal(tensor_table_at(&t, d->role, d->layer), d);
        assert_int_equal(d->decay, d->n_dims == 2);
    }
    assert_true(end <= t.padded);
    const struct tensor_desc *q = tensor_table_find(&t, "model.layers.31.self_attn.q_proj.weight");
    assert_non_null(q);
    assert_int_equal(q->rows, 3072);
    assert_int_equal(q->cols, 2048);
    assert_string_equal(q->gguf_name, "blk.31.attn_q.weight");
    assert_null(tensor_table_find(&t, "lm_head.weight"));
    assert_null(tensor_table_at(&t, TENSOR_Q, 32));
    assert_null(tensor_table_at(&t, TENSOR_Q, -1));
    tensor_table_free(&t);
}

static void impossible_models_are_refused(void **state)
{
    (void)state;
    struct plm_status st = {0};
    struct tensor_table t;
    struct model_config c = released();
    c.qk_rope_head_dim = 63;
    assert_int_not_equal(tensor_table_build(&t, &c, 1, &st), PLM_OK);
    assert_non_null(strstr(st.message, "qk_rope_head_dim"));
    c = released();
    c.hidden_size = 0;
    assert_int_not_equal(tensor_table_build(&t, &c, 1, &st), PLM_OK);
    assert_non_null(strstr(st.message, "hidden_size"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(released_model_has_its_size), cmocka_unit_test(impossible_models_are_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
