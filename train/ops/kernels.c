/* Compiled once per instruction set with TRAIN_OPS_TABLE naming the table; plain loops that the compiler vectorises. */
#include "train/ops/train_ops.h"

static void rms_norm_dx(float *dx, int64_t lddx, bool accumulate, const float *dy, int64_t lddy, const float *x, int64_t ldx,
                        const float *weight, const float *rstd, int64_t rows, int64_t n)
{
    for (int64_t r = 0; r < rows; r++, dx += lddx, dy += lddy, x += ldx) {
        float dot = 0;
        for (int64_t i = 0; i < n; i++)
            dot += weight[i] * dy[i] * x[i];
        const float s = rstd[r], c = dot * s * s * s / (float)n;
        if (accumulate)
            for (int64_t i = 0; i < n; i++)
                dx[i] += s * weight[i] * dy[i] - c * x[i];
        else
            for (int64_t i = 0; i < n; i++)
                dx[i] = s * weight[i] * dy[i] - c * x[i];
    }
}

static void rms_norm_dw(float *dw, const float *dy, int64_t lddy, const float *x, int64_t ldx, const float *rstd, int64_t rows,
                        int64_t begin, int64_t end)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = begin; i < end; i++)
            dw[i] += dy[r * lddy + i] * x[r * ldx + i] * rstd[r];
}

static void relu2_backward(float *du, const float *dm, const float *u, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        du[i] = u[i] > 0 ? 2 * u[i] * dm[i] : 0;
}

static void softmax_backward(float *ds, const float *p, const float *dp, float dot, float scale, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        ds[i] = p[i] * (dp[i] - dot) * scale;
}

#define TEXT(x) #x
#define NAME(x) TEXT(x)
const struct train_ops TRAIN_OPS_TABLE = {
    .name = NAME(TRAIN_OPS_TABLE),
    .rms_norm_dx = rms_norm_dx,
    .rms_norm_dw = rms_norm_dw,
    .relu2_backward = relu2_backward,
    .softmax_backward = softmax_backward,
};
