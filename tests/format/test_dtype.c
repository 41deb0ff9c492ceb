#include "tests/format/files.h"

#include <math.h>
#include <string.h>

#include "infer/base/random.h"
#include "infer/format/dtype.h"

static void test_table(void **state)
{
    (void)state;
    for (int t = 0; t < DTYPE_COUNT; t++) {
        const struct dtype_info *info = dtype_info((enum dtype)t);
        assert_int_equal(dtype_by_name(info->name), t);
        assert_int_equal(dtype_by_gguf_type(info->gguf_type), t);
        if (info->safetensors_name)
            assert_int_equal(dtype_by_safetensors_name(info->safetensors_name, strlen(info->safetensors_name)), t);
    }
    assert_int_equal(dtype_by_name("q4_0"), DTYPE_COUNT);
    assert_int_equal(dtype_by_gguf_type(2), DTYPE_COUNT);
    assert_int_equal(dtype_by_safetensors_name("F32x", 4), DTYPE_COUNT);
    assert_int_equal(dtype_by_safetensors_name("F32x", 3), DTYPE_F32);
    assert_int_equal(dtype_by_safetensors_name("BF16", 2), DTYPE_COUNT);
    assert_int_equal(dtype_info(DTYPE_BF16)->gguf_file_type, 32);
    assert_int_equal(dtype_info(DTYPE_Q8_0)->gguf_file_type, 7);
}

static void test_row_bytes(void **state)
{
    (void)state;
    assert_int_equal(dtype_row_bytes(DTYPE_F32, 3), 12);
    assert_int_equal(dtype_row_bytes(DTYPE_BF16, 3), 6);
    assert_int_equal(dtype_row_bytes(DTYPE_Q8_0, 64), 68);
    assert_int_equal(dtype_row_bytes(DTYPE_Q8_0, 33), 0);
    assert_int_equal(dtype_row_bytes(DTYPE_F32, -4), 0);
    assert_int_equal(dtype_row_bytes(DTYPE_F32, INT64_MAX), 0);
}

static double f16_value(unsigned h) /* finite, from the definition of binary16 */
{
    int exponent = h >> 10 & 31;
    double magnitude = exponent ? ldexp(1.0 + (h & 1023) / 1024.0, exponent - 15) : ldexp((h & 1023) / 1024.0, -14);
    return h & 0x8000 ? -magnitude : magnitude;
}

static void test_f16(void **state)
{
    (void)state;
    for (unsigned h = 0; h < 0x7c00; h++) {
        double value = f16_value(h), next = h + 1 < 0x7c00 ? f16_value(h + 1) : 65536.0;
        float half_way = (float)((value + next) / 2); /* exact */
        unsigned even = h & 1 ? h + 1 : h;
        for (unsigned sign = 0; sign <= 0x8000; sign += 0x8000) {
            float s = sign ? -1.0f : 1.0f;
            assert_true(f16_to_f32((uint16_t)(sign | h)) == s * (float)value);
            assert_int_equal(f32_to_f16(f16_to_f32((uint16_t)(sign | h))), sign | h);
            assert_int_equal(f32_to_f16(s * half_way), sign | even);
            assert_int_equal(f32_to_f16(s * nextafterf(half_way, 0.0f)), sign | h);
            assert_int_equal(f32_to_f16(s * nextafterf(half_way, 1e6f)), sign | (h + 1));
        }
    }
    assert_int_equal(f32_to_f16(1e30f), 0x7c00);
    assert_int_equal(f32_to_f16(-INFINITY), 0xfc00);
    assert_true(isinf(f16_to_f32(0x7c00)) && f16_to_f32(0xfc00) < 0);
    for (unsigned h = 0x7c01; h <= 0x7fff; h++)
        assert_true(isnan(f16_to_f32((uint16_t)h)) && isnan(f16_to_f32(f32_to_f16(f16_to_f32((uint16_t)h)))));
}

static void test_bf16(void **state)
{
    (void)state;
    for (unsigned b = 0; b < 0x7f80; b++) {
        float value = bf16_to_f32((uint16_t)b), half_way;
        uint32_t bits = b << 16;
        assert_memory_equal(&value, &bits, 4);
        bits |= 0x8000;
        memcpy(&half_way, &bits, 4);
        assert_int_equal(f32_to_bf16(value), b);
        assert_int_equal(f32_to_bf16(-value), b | 0x8000);
        assert_int_equal(f32_to_bf16(half_way), b & 1 ? b + 1 : b);
        assert_int_equal(f32_to_bf16(nextafterf(half_way, 0.0f)), b);
        assert_int_equal(f32_to_bf16(nextafterf(half_way, INFINITY)), b + 1);
    }
    uint32_t low_nan = 0x7f800001; /* truncated it would be infinity */
    float f;
    memcpy(&f, &low_nan, 4);
    assert_true(isnan(bf16_to_f32(f32_to_bf16(f))));
    assert_true(isnan(bf16_to_f32(f32_to_bf16(-NAN))));
    assert_int_equal(f32_to_bf16(INFINITY), 0x7f80);
}

static void test_rows(void **state)
{
    (void)state;
    float in[96], out[96];
    unsigned char row[96 * 4] __attribute__((aligned(4)));
    for (int i = 0; i < 96; i++)
        in[i] = (float)random_normal(1, RANDOM_TEST, 0, (uint64_t)i);
    static const float error[DTYPE_COUNT] = {0, 0x1p-11f, 0x1p-8f, 0};
    for (int t = 0; t < DTYPE_COUNT; t++) {
        dtype_from_f32((enum dtype)t, row, in, 96);
        dtype_to_f32((enum dtype)t, out, row, 96);
        for (int b = 0; b < 96; b += 32) {
            float largest = 0;
            for (int i = b; i < b + 32; i++)
                largest = fmaxf(largest, fabsf(in[i]));
            for (int i = b; i < b + 32; i++) /* half a step, and the rounding of the scale to f16 */
                assert_true(fabsf(in[i] - out[i]) <=
                            (t == DTYPE_Q8_0 ? largest / 127 * 0.5f * 1.001f + largest * 0x1p-11f : error[t] * fabsf(in[i])));
        }
    }
}

static void test_q8_0_block(void **state)
{
    (void)state;
    float x[32] = {127.0f, -127.0f, 0.5f, -0.5f, 1.5f, 2.49f, 64.0f}, back[32];
    struct block_q8_0 block;
    dtype_from_f32(DTYPE_Q8_0, &block, x, 32); /* d = 1; halves away from zero, as ggml */
    static const int8_t q[32] = {127, -127, 1, -1, 2, 2, 64};
    assert_int_equal(block.d, 0x3c00);
    assert_memory_equal(block.q, q, 32);

    memset(x, 0, sizeof x);
    dtype_from_f32(DTYPE_Q8_0, &block, x, 32);
    dtype_to_f32(DTYPE_Q8_0, back, &block, 32);
    assert_memory_equal(x, back, sizeof x);

    x[3] = 0x1p-149f; /* the scale's reciprocal would overflow */
    dtype_from_f32(DTYPE_Q8_0, &block, x, 32);
    dtype_to_f32(DTYPE_Q8_0, back, &block, 32);
    assert_true(back[3] == 0.0f && back[0] == 0.0f);

    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        x[7] = bad[i];
        dtype_from_f32(DTYPE_Q8_0, &block, x, 32);
        dtype_to_f32(DTYPE_Q8_0, back, &block, 32);
        assert_true(isnan(back[0]) && isnan(back[7]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table), cmocka_unit_test(test_row_bytes), cmocka_unit_test(test_f16),
        cmocka_unit_test(test_bf16),  cmocka_unit_test(test_rows),      cmocka_unit_test(test_q8_0_block),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
