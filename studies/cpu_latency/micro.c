// Inner loops of products on one core: int8 with 32- and 16-bit sums, and look-ups of 2-bit pairs.
//
// Every loop multiplies a block of MR rows by NR columns along K from L1: what a kernel of a library
// spends its time in. Built and timed by micro.py; results are checked there against plain C.
#include <immintrin.h>
#include <stdint.h>

enum { ROWS = 4, K = 256 };

// acc32 without VNNI (FBGEMM on AVX2, QNNPACK alike): pairs are multiplied into 16 bits and widened.
void acc32(const uint8_t *a, const int8_t *b, int32_t *c) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sum[ROWS][2];
    for (int r = 0; r < ROWS; r++) sum[r][0] = sum[r][1] = _mm256_setzero_si256();
    for (int k = 0; k < K / 4; k++) {
        __m256i b0 = _mm256_load_si256((const __m256i *)(b + 64 * k));
        __m256i b1 = _mm256_load_si256((const __m256i *)(b + 64 * k + 32));
        for (int r = 0; r < ROWS; r++) {
            __m256i x = _mm256_set1_epi32(*(const int32_t *)(a + r * K + 4 * k));
            __m256i p0 = _mm256_madd_epi16(_mm256_maddubs_epi16(x, b0), ones);
            __m256i p1 = _mm256_madd_epi16(_mm256_maddubs_epi16(x, b1), ones);
            sum[r][0] = _mm256_add_epi32(sum[r][0], p0);
            sum[r][1] = _mm256_add_epi32(sum[r][1], p1);
        }
    }
    for (int r = 0; r < ROWS; r++) {
        _mm256_storeu_si256((__m256i *)(c + 16 * r), sum[r][0]);
        _mm256_storeu_si256((__m256i *)(c + 16 * r + 8), sum[r][1]);
    }
}

// acc16 (FBGEMM): sums stay in 16 bits and saturate; weights must be small (the study's are).
void acc16(const uint8_t *a, const int8_t *b, int16_t *c) {
    __m256i sum[ROWS][2];
    for (int r = 0; r < ROWS; r++) sum[r][0] = sum[r][1] = _mm256_setzero_si256();
    for (int k = 0; k < K / 2; k++) {
        __m256i b0 = _mm256_load_si256((const __m256i *)(b + 64 * k));
        __m256i b1 = _mm256_load_si256((const __m256i *)(b + 64 * k + 32));
        for (int r = 0; r < ROWS; r++) {
            __m256i x = _mm256_set1_epi16(*(const int16_t *)(a + r * K + 2 * k));
            sum[r][0] = _mm256_adds_epi16(sum[r][0], _mm256_maddubs_epi16(x, b0));
            sum[r][1] = _mm256_adds_epi16(sum[r][1], _mm256_maddubs_epi16(x, b1));
        }
    }
    for (int r = 0; r < ROWS; r++) {
        _mm256_storeu_si256((__m256i *)(c + 32 * r), sum[r][0]);
        _mm256_storeu_si256((__m256i *)(c + 32 * r + 16), sum[r][1]);
    }
}

// The same without saturation.
void acc16_wrap(const uint8_t *a, const int8_t *b, int16_t *c) {
    __m256i sum[ROWS][2];
    for (int r = 0; r < ROWS; r++) sum[r][0] = sum[r][1] = _mm256_setzero_si256();
    for (int k = 0; k < K / 2; k++) {
        __m256i b0 = _mm256_load_si256((const __m256i *)(b + 64 * k));
        __m256i b1 = _mm256_load_si256((const __m256i *)(b + 64 * k + 32));
        for (int r = 0; r < ROWS; r++) {
            __m256i x = _mm256_set1_epi16(*(const int16_t *)(a + r * K + 2 * k));
            sum[r][0] = _mm256_add_epi16(sum[r][0], _mm256_maddubs_epi16(x, b0));
            sum[r][1] = _mm256_add_epi16(sum[r][1], _mm256_maddubs_epi16(x, b1));
        }
    }
    for (int r = 0; r < ROWS; r++) {
        _mm256_storeu_si256((__m256i *)(c + 32 * r), sum[r][0]);
        _mm256_storeu_si256((__m256i *)(c + 32 * r + 16), sum[r][1]);
    }
}

// acc32 with VNNI at 256 bits, as acc32 but one instruction.
void vnni(const uint8_t *a, const int8_t *b, int32_t *c) {
    __m256i sum[ROWS][2];
    for (int r = 0; r < ROWS; r++) sum[r][0] = sum[r][1] = _mm256_setzero_si256();
    for (int k = 0; k < K / 4; k++) {
        __m256i b0 = _mm256_load_si256((const __m256i *)(b + 64 * k));
        __m256i b1 = _mm256_load_si256((const __m256i *)(b + 64 * k + 32));
        for (int r = 0; r < ROWS; r++) {
            __m256i x = _mm256_set1_epi32(*(const int32_t *)(a + r * K + 4 * k));
            sum[r][0] = _mm256_dpbusd_epi32(sum[r][0], x, b0);
            sum[r][1] = _mm256_dpbusd_epi32(sum[r][1], x, b1);
        }
    }
    for (int r = 0; r < ROWS; r++) {
        _mm256_storeu_si256((__m256i *)(c + 16 * r), sum[r][0]);
        _mm256_storeu_si256((__m256i *)(c + 16 * r + 8), sum[r][1]);
    }
}

// Look-ups (DeepGEMM, arXiv:2304.09049): a byte has four 2-bit weights, or activations, along K; each
// pair is an index into 16 products. One output a call; products are unsigned, offset by 2.
int32_t lookup(const uint8_t *a, const uint8_t *w, const uint8_t *products) {
    const __m256i table = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)products));
    const __m256i low = _mm256_set1_epi8(3), high = _mm256_set1_epi8(12);
    __m256i total = _mm256_setzero_si256();
    for (int k = 0; k < K / 128; k++) {
        __m256i x = _mm256_loadu_si256((const __m256i *)(a + 32 * k));
        __m256i y = _mm256_loadu_si256((const __m256i *)(w + 32 * k));
        __m256i i0 = _mm256_or_si256(_mm256_and_si256(x, low),
                                     _mm256_and_si256(_mm256_slli_epi16(y, 2), high));
        __m256i i1 = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(x, 2), low),
                                     _mm256_and_si256(y, high));
        __m256i i2 = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(x, 4), low),
                                     _mm256_and_si256(_mm256_srli_epi16(y, 2), high));
        __m256i i3 = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(x, 6), low),
                                     _mm256_and_si256(_mm256_srli_epi16(y, 4), high));
        __m256i s = _mm256_add_epi8(
            _mm256_add_epi8(_mm256_shuffle_epi8(table, i0), _mm256_shuffle_epi8(table, i1)),
            _mm256_add_epi8(_mm256_shuffle_epi8(table, i2), _mm256_shuffle_epi8(table, i3)));
        total = _mm256_add_epi64(total, _mm256_sad_epu8(s, _mm256_setzero_si256()));
    }
    int64_t out[4];
    _mm256_storeu_si256((__m256i *)out, total);
    return (int32_t)(out[0] + out[1] + out[2] + out[3]);
}

// Calls in a row, so that a timer can see them.
void many_acc32(const uint8_t *a, const int8_t *b, int32_t *c, int n) { for (int i = 0; i < n; i++) acc32(a, b, c); }
void many_acc16(const uint8_t *a, const int8_t *b, int16_t *c, int n) { for (int i = 0; i < n; i++) acc16(a, b, c); }
void many_acc16_wrap(const uint8_t *a, const int8_t *b, int16_t *c, int n) { for (int i = 0; i < n; i++) acc16_wrap(a, b, c); }
void many_vnni(const uint8_t *a, const int8_t *b, int32_t *c, int n) { for (int i = 0; i < n; i++) vnni(a, b, c); }
void many_lookup(const uint8_t *a, const uint8_t *w, const uint8_t *t, int32_t *c, int n) {
    for (int i = 0; i < n; i++) c[i & 63] = lookup(a, w + (i & 15) * (K / 4), t);
}
