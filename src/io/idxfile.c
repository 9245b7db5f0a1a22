/* SPDX-License-Identifier: Apache-2.0
 *
 * MNIST's format (yann.lecun.com/exdb/mnist): two zero bytes, a byte for the element type, a byte for the number of
 * axes, then each axis as big-endian u32, then the elements, big-endian. The first axis counts rows; all others
 * together are one row: 60,000 x 28 x 28 is read as 60,000 vectors of dimension 784.
 *
 * Inside gzip, the file is unpacked into memory: never more than its header's shape says, and that only as fast as
 * the packed bytes really yield it.
 */
#include <string.h>

#ifdef KITH_HAVE_ZLIB
#include <zlib.h>
#endif

#include "base/error.h"
#include "base/memory.h"
#include "io/vectorfile.h"

static kith_status element_type(const kith_source *source, unsigned code, kith_dtype *out) {
    switch (code) {
        case 0x08: *out = KITH_U8; return KITH_OK;
        case 0x09: *out = KITH_I8; return KITH_OK;
        case 0x0c: *out = KITH_I32; return KITH_OK;
        case 0x0d: *out = KITH_F32; return KITH_OK;
        case 0x0e: *out = KITH_F64; return KITH_OK;
        default:
            return kith_error(KITH_ERR_TYPE,
                              "%s: idx type %#x at byte 2; known are 8 (u8), 9 (i8), c (i32), d (f32), e (f64)",
                              source->path, code);
    }
}

kith_status kith_idx_layout(const kith_source *source, kith_layout *out) {
    unsigned char start[4], axis[4];
    KITH_TRY(kith_source_read(source, 0, start, sizeof start, "the idx header"));
    if (start[0] != 0 || start[1] != 0)
        return kith_error(KITH_ERR_FORMAT, "%s: not an idx file: its first two bytes are not zero", source->path);
    *out = (kith_layout){.is_big_endian = true, .dim = 1, .offset = sizeof start + 4 * (uint64_t)start[3]};
    KITH_TRY(element_type(source, start[2], &out->dtype));
    out->is_big_endian = kith_dtype_row_bytes(out->dtype, 1) > 1;
    if (start[3] == 0) return kith_error(KITH_ERR_FORMAT, "%s: no axes (byte 3)", source->path);
    for (unsigned i = 0; i < start[3]; i++) {
        uint64_t at = 4 + 4 * (uint64_t)i;
        KITH_TRY(kith_source_read(source, at, axis, sizeof axis, "an axis"));
        uint64_t length = (uint64_t)axis[0] << 24 | (uint64_t)axis[1] << 16 | (uint64_t)axis[2] << 8 | axis[3];
        if (i == 0) {
            out->count = length;
        } else if (length == 0) {
            return kith_error(KITH_ERR_FORMAT, "%s: an axis of length 0 at byte %llu", source->path,
                              (unsigned long long)at);
        } else if (__builtin_mul_overflow(out->dim, length, &out->dim)) {
            return kith_error(KITH_ERR_FORMAT, "%s: the axes up to byte %llu multiply past 64 bits", source->path,
                              (unsigned long long)at);
        }
    }
    return KITH_OK;
}

kith_status kith_source_is_gzip(const kith_source *source, bool *out) {
    unsigned char start[2] = {0};
    *out = false;
    if (source->bytes < sizeof start) return KITH_OK;
    KITH_TRY(kith_source_read(source, 0, start, sizeof start, "its start"));
    *out = start[0] == 0x1f && start[1] == 0x8b;
    return KITH_OK;
}

#ifdef KITH_HAVE_ZLIB

enum {
    PIECE_BYTES = 64 << 10,
    RATIO_MAX = 1032, /* deflate: at best 258 bytes for two bits (RFC 1951) */
};

typedef struct unpacking {
    const kith_source *source;
    z_stream stream;
    unsigned char *piece; /* of the packed bytes */
    uint64_t read_bytes;
    unsigned char *memory;
    size_t produced, capacity;
    size_t bytes_max; /* what the header allows and one more; 0 until it is there */
} unpacking;

static voidpf zlib_alloc(voidpf user, uInt count, uInt each) {
    (void)user;
    void *block;
    return kith_alloc(count, each, &block) == KITH_OK ? block : NULL;
}

static void zlib_free(voidpf user, voidpf block) {
    (void)user;
    kith_free(block);
}

/* Looks whether the header has come out, and what it allows. */
static kith_status learn_size(unpacking *work) {
    if (work->bytes_max != 0 || work->produced < 4 || work->produced < 4 + 4 * (size_t)work->memory[3])
        return KITH_OK;
    kith_source head = {.path = work->source->path, .memory = work->memory, .bytes = work->produced};
    kith_layout layout;
    KITH_TRY(kith_idx_layout(&head, &layout));
    uint64_t bytes;
    bool wraps = __builtin_mul_overflow(layout.count, layout.dim, &bytes) ||
                 __builtin_mul_overflow(bytes, kith_dtype_row_bytes(layout.dtype, 1), &bytes) ||
                 __builtin_add_overflow(bytes, layout.offset + 1, &bytes);
    if (wraps || bytes > SIZE_MAX || bytes / RATIO_MAX > work->source->bytes)
        return kith_error(KITH_ERR_FORMAT,
                          "%s: its header says %llu rows of dimension %llu; %llu packed bytes cannot be that",
                          work->source->path, (unsigned long long)layout.count, (unsigned long long)layout.dim,
                          (unsigned long long)work->source->bytes);
    work->bytes_max = (size_t)bytes;
    return KITH_OK;
}

static kith_status make_room(unpacking *work) {
    if (work->produced < work->capacity) return KITH_OK;
    if (work->bytes_max != 0 && work->produced >= work->bytes_max)
        return kith_error(KITH_ERR_FORMAT, "%s: unpacks to more than the %zu bytes that its header says",
                          work->source->path, work->bytes_max - 1);
    size_t wanted = kith_max_size(PIECE_BYTES, 2 * work->capacity);
    if (work->bytes_max != 0) wanted = kith_min_size(wanted, work->bytes_max);
    KITH_TRY(kith_realloc(&work->memory, work->produced, wanted, 1));
    work->capacity = wanted;
    return KITH_OK;
}

static kith_status refill(unpacking *work) {
    if (work->stream.avail_in != 0) return KITH_OK;
    uint64_t left = work->source->bytes - work->read_bytes;
    size_t count = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;
    if (count == 0)
        return kith_error(KITH_ERR_FORMAT, "%s: its gzip stream is cut off at byte %llu", work->source->path,
                          (unsigned long long)work->source->bytes);
    KITH_TRY(kith_source_read(work->source, work->read_bytes, work->piece, count, "gzip"));
    work->read_bytes += count;
    work->stream.next_in = work->piece;
    work->stream.avail_in = (uInt)count;
    return KITH_OK;
}

/* One step; *ended when the last member of the file has ended. */
static kith_status unpack_piece(unpacking *work, bool *ended) {
    KITH_TRY(refill(work));
    KITH_TRY(make_room(work));
    size_t room = kith_min_size(work->capacity - work->produced, (size_t)1 << 30);
    work->stream.next_out = work->memory + work->produced;
    work->stream.avail_out = (uInt)room;
    int result = inflate(&work->stream, Z_NO_FLUSH);
    work->produced += room - work->stream.avail_out;
    if (result == Z_MEM_ERROR) return KITH_ERR_NO_MEMORY; /* the message is kith_alloc's */
    if (result != Z_OK && result != Z_BUF_ERROR && result != Z_STREAM_END)
        return kith_error(KITH_ERR_FORMAT, "%s: gzip, before byte %llu: %s", work->source->path,
                          (unsigned long long)(work->read_bytes - work->stream.avail_in),
                          work->stream.msg != NULL ? work->stream.msg : "bad data");
    KITH_TRY(learn_size(work));
    if (result != Z_STREAM_END) return KITH_OK;
    *ended = work->stream.avail_in == 0 && work->read_bytes == work->source->bytes;
    if (!*ended) (void)inflateReset(&work->stream); /* another member follows */
    return KITH_OK;
}

kith_status kith_idx_unpack(const kith_source *source, unsigned char **memory, size_t *bytes) {
    *memory = NULL;
    *bytes = 0;
    unpacking work = {.source = source};
    work.stream.zalloc = zlib_alloc;
    work.stream.zfree = zlib_free;
    KITH_TRY(kith_alloc(PIECE_BYTES, 1, &work.piece));
    kith_status status = KITH_OK;
    bool started = inflateInit2(&work.stream, 15 + 16) == Z_OK; /* a window of 2^15, and gzip's header */
    if (!started) status = KITH_ERR_NO_MEMORY;
    for (bool ended = false; status == KITH_OK && !ended;) status = unpack_piece(&work, &ended);
    if (started) (void)inflateEnd(&work.stream);
    kith_free(work.piece);
    if (status != KITH_OK) {
        kith_free(work.memory);
        return status;
    }
    *memory = work.memory;
    *bytes = work.produced;
    return KITH_OK;
}

#else

kith_status kith_idx_unpack(const kith_source *source, unsigned char **memory, size_t *bytes) {
    *memory = NULL;
    *bytes = 0;
    return kith_error(KITH_ERR_UNSUPPORTED, "%s: this build has no zlib to unpack it with; run gunzip first",
                      source->path);
}

#endif
