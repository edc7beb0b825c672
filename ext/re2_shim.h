/* RE2 behind a C ABI: what the engine calls without knowing C++. Owned by ext/pattern.pyx. No exception leaves these functions. */
#ifndef SCRUBBER_RE2_SHIM_H
#define SCRUBBER_RE2_SHIM_H
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A pattern that never takes more than memory_max bytes for its program and its states; NULL: refused, and message says why in RE2's
   own words (NUL-terminated, cut to message_bytes). groups: how many capturing groups it has. */
void *scrubber_re2_compile(const char *pattern, size_t pattern_bytes, int64_t memory_max, int *groups, char *message, size_t message_bytes);
/* 1: found anywhere in text, 0: not. The first n groups (0: the whole match) as pairs of offset and length in text; one
   that took no part is empty. */
int scrubber_re2_match(const void *compiled, const uint8_t *text, size_t text_bytes, uint32_t *places, int n);
void scrubber_re2_free(void *compiled);

#ifdef __cplusplus
}
#endif
#endif
