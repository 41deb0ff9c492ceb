/* Which keys of config.json may be there. */
#ifndef INFER_MODEL_CONFIG_KEYS_H
#define INFER_MODEL_CONFIG_KEYS_H

#include "infer/format/json.h"
#include "infer/model/config.h"

/* PLM_EUNSUPPORTED, naming the key, when one asks for what a PLM does not have. null is absent. Keys that are known to change nothing
 * are passed over, others are told in the log. */
int config_check_keys(const struct json_value *root, const char *where, struct plm_status *st);

#endif
