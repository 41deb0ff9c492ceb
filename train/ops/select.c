#include "train/ops/train_ops.h"

#include <string.h>

const struct train_ops *train_ops_select(const struct ops *ops)
{
#ifdef __x86_64__
    if (!strncmp(ops->name, "avx512", 6)) /* avx512vnni, avx512bf16: the same vectors */
        return &train_ops_avx512;
    if (!strcmp(ops->name, "avx2"))
        return &train_ops_avx2;
#endif
    (void)ops;
    return &train_ops_portable;
}
