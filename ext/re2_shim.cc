/* RE2 behind a C ABI: see re2_shim.h. Bytes are Latin-1: a path is bytes, whatever a client sends. */
#include "re2_shim.h"

#include <re2/re2.h>

#include <cstdio>
#include <cstring>
#include <new>

namespace {

constexpr int kGroupsMax = 10;

void say(char *message, size_t message_bytes, const char *text) {
    if (message_bytes) std::snprintf(message, message_bytes, "%s", text);
}

}  // namespace

extern "C" void *scrubber_re2_compile(const char *pattern, size_t pattern_bytes, int64_t memory_max, int *groups, char *message,
                                      size_t message_bytes) {
    try {
        re2::RE2::Options options;
        options.set_log_errors(false);
        options.set_encoding(re2::RE2::Options::EncodingLatin1);
        options.set_max_mem(memory_max);
        re2::RE2 *compiled = new re2::RE2(re2::StringPiece(pattern, pattern_bytes), options);
        if (!compiled->ok()) {
            say(message, message_bytes, compiled->error().c_str());
            delete compiled;
            return nullptr;
        }
        *groups = compiled->NumberOfCapturingGroups();
        return compiled;
    } catch (...) {
        say(message, message_bytes, "out of memory");
        return nullptr;
    }
}

extern "C" int scrubber_re2_match(const void *compiled, const uint8_t *text, size_t text_bytes, uint32_t *places, int n) {
    const re2::RE2 *pattern = static_cast<const re2::RE2 *>(compiled);
    const char *data = reinterpret_cast<const char *>(text);
    re2::StringPiece found[kGroupsMax];
    if (n > kGroupsMax) n = kGroupsMax;
    try {
        if (!pattern->Match(re2::StringPiece(data, text_bytes), 0, text_bytes, re2::RE2::UNANCHORED, found, n)) return 0;
    } catch (...) {
        return 0;
    }
    for (int i = 0; i < n; i++) {
        const bool took_part = found[i].data() != nullptr;
        places[2 * i] = took_part ? static_cast<uint32_t>(found[i].data() - data) : 0;
        places[2 * i + 1] = took_part ? static_cast<uint32_t>(found[i].size()) : 0;
    }
    return 1;
}

extern "C" void scrubber_re2_free(void *compiled) { delete static_cast<re2::RE2 *>(compiled); }
