/* What debug, ASan and fuzz builds do and a release does not: assertions, and free objects of pools that nobody may touch. */
#ifndef SCRUBBER_CHECK_H
#define SCRUBBER_CHECK_H

#include <assert.h>

#ifdef NDEBUG
#define SCRUBBER_CHECKS 0
#else
#define SCRUBBER_CHECKS 1
#endif

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define SCRUBBER_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(SCRUBBER_ASAN)
#include <sanitizer/asan_interface.h>
#define SCRUBBER_SPARES 0       /* what is freed stays forbidden */
#define scrubber_forbid(at, bytes) ASAN_POISON_MEMORY_REGION(at, bytes)
#define scrubber_permit(at, bytes) ASAN_UNPOISON_MEMORY_REGION(at, bytes)
#else
#define SCRUBBER_SPARES 1
#define scrubber_forbid(at, bytes) ((void)(at), (void)(bytes))
#define scrubber_permit(at, bytes) ((void)(at), (void)(bytes))
#endif

#endif
