// One translation unit: every kernel is compiled by one call of the compiler.
#include "common.h"

#include "attention.c"
#include "head.c"
#include "layers.c"
#include "optimizer.c"
