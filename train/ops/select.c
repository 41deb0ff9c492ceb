#include "train/ops/train_ops.h"

#include <string.h>

const struct train_ops *train_ops_select(const struct ops *ops)
{
#ifdef __x86_64__
    if (!strcmp(ops->name, "avx512"))
        return &train_ops_avx512;
    if (!strcmp(ops->name, "avx2"))
        return &train_ops_avx2;
#endif
    (void)ops;
    return &train_ops_portable;
}
