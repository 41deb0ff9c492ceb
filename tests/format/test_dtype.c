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
    assert_int_equal(dtype_by_name("q4_1"), DTYPE_COUNT);
    assert_int_equal(dtype_by_name("Q8_0"), DTYPE_Q8_0);
    assert_int_equal(dtype_by_name("q4_K"), DTYPE_Q4_K);
    assert_int_equal(dtype_by_name("BF16"), DTYPE_BF16);
    assert_int_equal(dtype_by_gguf_type(3), DTYPE_COUNT);
    assert_int_equal(dtype_by_safetensors_name("F32x", 4), DTYPE_COUNT);
    assert_int_equal(dtype_by_safetensors_name("F32x", 3), DTYPE_F32);
    assert_int_equal(dtype_by_safetensors_name("BF16", 2), DTYPE_COUNT);
    assert_int_equal(dtype_info(DTYPE_BF16)->gguf_file_type, 32);
    assert_int_equal(dtype_info(DTYPE_Q8_0)->gguf_file_type, 7);
    assert_int_equal(dtype_info(DTYPE_Q4_K)->gguf_file_type, 15);
    assert_int_equal(dtype_by_gguf_type(14), DTYPE_Q6_K);
    assert_true(dtype_is_quantized(DTYPE_Q4_0) && !dtype_is_quantized(DTYPE_BF16));
}

static void test_row_bytes(void **state)
{
    (void)state;
    assert_int_equal(dtype_row_bytes(DTYPE_F32, 3), 12);
    assert_int_equal(dtype_row_bytes(DTYPE_BF16, 3), 6);
    assert_int_equal(dtype_row_bytes(DTYPE_Q8_0, 64), 68);
    assert_int_equal(dtype_row_bytes(DTYPE_Q8_0, 33), 0);
    assert_int_equal(dtype_row_bytes(DTYPE_Q4_0, 64), 36);
    assert_int_equal(dtype_row_bytes(DTYPE_Q4_K, 512), 288);
    assert_int_equal(dtype_row_bytes(DTYPE_Q6_K, 512), 420);
    assert_int_equal(dtype_row_bytes(DTYPE_Q6_K, 128), 0);
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
    for (int t = 0; t <= DTYPE_Q8_0; t++) {
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

/* Blocks of the bytes 37 i + 11 with the given scales, read by another implementation (the gguf package's reference): 16 of the
 * values, and the sum of all weighted by their place. */
static void test_golden_blocks(void **state)
{
    (void)state;
    static const struct {
        enum dtype type;
        int scale_at[2];
        uint16_t scale[2];
        double weighted;
        int place[16];
        float value[16];
    } golden[] = {
        {DTYPE_Q4_0, {0, 0}, {0x2a66, 0x2a66}, -25.8936767578125,
         {0, 4, 9, 13, 18, 22, 27, 31, 4, 8, 13, 17, 22, 26, 31, 3},
         {-0x1.332p-3f, 0x1.998p-5f, -0x1.332p-2f, -0x1.998p-4f, 0x1.998p-5f, -0x1.ffep-3f, 0x1.332p-2f, 0, 0x1.998p-5f, 0x1.ffep-3f,
          -0x1.998p-4f, -0x1.998p-5f, -0x1.ffep-3f, 0x1.998p-3f, 0, -0x1.998p-3f}},
        {DTYPE_Q4_K, {0, 2}, {0x2a66, 0x211f}, 392813.07861328125,
         {0, 29, 58, 87, 116, 145, 174, 203, 232, 5, 34, 63, 92, 121, 150, 179},
         {0x1.089258p+4f, 0x1.215d98p+4f, -0x1.488p-5f, 0x1.c15368p+4f, 0x1.183f2p+3f, -0x1.ebap-4f, 0x1.db14fp+4f, 0x1.2ea42p+2f,
          0x1.73118p+0f, 0x1.6c0e6p+2f, 0x1.c26cp+0f, 0x1.2dfep+1f, 0x1.b7905p+3f, 0x1.7d564p+2f, 0x1.16cfap+4f, 0x1.d647ep+3f}},
        {DTYPE_Q6_K, {208, 208}, {0x1c29, 0x1c29}, 3186.825942993164,
         {0, 29, 58, 87, 116, 145, 174, 203, 232, 5, 34, 63, 92, 121, 150, 179},
         {-0x1.7412fp+2f, 0x1.4cdp+0f, 0x1.b5562p+2f, 0x1.62a74p+2f, 0x1.a004p+0f, -0x1.8f6p+1f, -0x1.ebadbp+2f, 0x1.1b269p+3f,
          0x1.6e9d2p+1f, 0x1.81dacp+2f, -0x1.e07f8p-1f, -0x1.2d9c8p+1f, 0x1.e39e4p+2f, 0x1.6c038p+2f, -0x1.5d74p-1f, 0x1.fd9e8p+1f}},
    };
    for (int t = 0; t < 3; t++) {
        const struct dtype_info *info = dtype_info(golden[t].type);
        _Alignas(4) unsigned char block[256];
        float out[256];
        double weighted = 0;
        for (int i = 0; i < info->block_bytes; i++)
            block[i] = (unsigned char)(i * 37 + 11);
        for (int s = 0; s < 2; s++)
            memcpy(block + golden[t].scale_at[s], &golden[t].scale[s], 2);
        dtype_to_f32(golden[t].type, out, block, info->block_elements);
        for (int i = 0; i < 16; i++)
            assert_true(out[golden[t].place[i]] == golden[t].value[i]);
        for (int i = 0; i < info->block_elements; i++)
            weighted += (double)out[i] * (i + 1);
        assert_true(weighted == golden[t].weighted);
    }
}

static void test_q4_0_block(void **state)
{
    (void)state;
    float x[32], back[32];
    struct block_q4_0 block;
    static const unsigned char expected[18] = {0, 193, 153, 88, 189, 72, 145, 120, 198, 122, 5, 141, 88, 155, 71, 206, 121, 167};
    for (int i = 0; i < 32; i++)
        x[i] = (float)((i * 29 + 7) % 64 - 31) * 0.125f * (float)(1 + i % 5);
    dtype_from_f32(DTYPE_Q4_0, &block, x, 32); /* as the gguf package quantises it */
    assert_memory_equal(&block, expected, sizeof block);
    x[9] = -INFINITY;
    dtype_from_f32(DTYPE_Q4_0, &block, x, 32);
    dtype_to_f32(DTYPE_Q4_0, back, &block, 32);
    assert_true(isnan(back[0]) && isnan(back[9]));
}

/* Quantising values that a type can hold exactly gives them back; others are as close as the digits and scales allow, and closer than
 * with the range alone; what no scale can hold becomes NaN. */
static void test_k_quants(void **state)
{
    (void)state;
    static const enum dtype types[] = {DTYPE_Q4_K, DTYPE_Q6_K};
    static const double most[2] = {0.075, 0.019}; /* of the root mean square, for normal numbers; measured: 0.071, 0.0174 */
    enum { N = 4096 };
    static float x[N], back[N];
    static _Alignas(4) unsigned char row[N];
    for (int t = 0; t < 2; t++) {
        double error = 0, size = 0;
        for (int i = 0; i < N; i++)
            x[i] = (float)random_normal(2, RANDOM_TEST, 0, (uint64_t)i);
        dtype_from_f32(types[t], row, x, N);
        dtype_to_f32(types[t], back, row, N);
        for (int i = 0; i < N; i++) {
            error += (double)(x[i] - back[i]) * (x[i] - back[i]);
            size += (double)x[i] * x[i];
        }
        assert_true(sqrt(error / size) < most[t]);
        for (int i = 0; i < 256; i++) /* powers of two as scales, every sub-block with the whole range of digits */
            x[i] = types[t] == DTYPE_Q4_K ? (float)(i * 7 % 16) - 8 : (float)((i * 7 % 16 == 0) ? -32 : i * 11 % 63 - 31);
        dtype_from_f32(types[t], row, x, 256);
        dtype_to_f32(types[t], back, row, 256);
        for (int i = 0; i < 256; i++)
            assert_true(fabsf(x[i] - back[i]) <= (types[t] == DTYPE_Q4_K ? 2e-2f : 0.26f));
        for (int v = 0; v < 4; v++) {
            static const float flat[] = {0, 3.0f, -3.0f, 1e-38f};
            for (int i = 0; i < 256; i++)
                x[i] = flat[v];
            dtype_from_f32(types[t], row, x, 256);
            dtype_to_f32(types[t], back, row, 256);
            for (int i = 0; i < 256; i++)
                assert_true(fabsf(back[i] - flat[v]) <= 0.01f * fabsf(flat[v]) + 1e-30f);
        }
        for (int v = 0; v < 3; v++) {
            static const float bad[] = {NAN, INFINITY, 3e38f};
            x[100] = bad[v];
            dtype_from_f32(types[t], row, x, 256);
            dtype_to_f32(types[t], back, row, 256);
            assert_true(isnan(back[100]) || isinf(back[100]));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table), cmocka_unit_test(test_row_bytes), cmocka_unit_test(test_f16),
        cmocka_unit_test(test_bf16),  cmocka_unit_test(test_rows),      cmocka_unit_test(test_q8_0_block),
        cmocka_unit_test(test_golden_blocks), cmocka_unit_test(test_q4_0_block), cmocka_unit_test(test_k_quants),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
