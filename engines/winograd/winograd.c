/* 3x3 convolutions, stride 1, zero padding 1, by Winograd's minimal filtering F(6x6, 3x3), in float32; and 1x1 ones.

   A tile of 6 x 6 output pixels needs 8 x 8 input pixels. Of each channel these are transformed to 64 numbers; for each
   of the 64, the channels of all tiles times the weights are a product of matrices; 64 numbers of each channel that
   comes out are transformed back. That is 64 multiplications a tile and pair of channels, where the plain form has 324.
   Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015, section 4. The matrices are those
   of Toom and Cook for the points 0, 1, -1, 2, -2, 1/2, -1/2 and infinity.

   Feature maps are (rows, columns, channels), with one pixel of zeros around and tiles that are whole: a map of 5 x 9
   pixels has 8 x 14. SIMD vectors run along the channels, which every map has in groups of GROUP, twice SIMD_WIDTH. In
   the Winograd domain values are (point, batch, group, tile, GROUP), with a batch of TILES_AT_ONCE tiles: a product
   reads and writes them in the order of memory.

   This file holds the code for each SIMD width: it includes itself. Vectors are those of GCC and Clang. */

#ifndef SIMD_WIDTH

#include <stddef.h>
#include <string.h>

enum { TILE_PX = 6, INPUT_PX = 8, POINTS = 64, TILES_AT_ONCE = 6, FLOATS_PER_CACHE_LINE = 16, PIXELS_AT_ONCE = 96 };

/* What a second-level cache holds, about: it has 512 kB to 2 MB. */
enum { CACHED_FLOATS = 147456 };

/* What is done to the convolution's result; realesr/engines/winograd/kernel.py has the same numbers. */
enum activation { NO_ACTIVATION, LEAKY_RELU, SILU, SIGMOID };

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

/* One convolution; realesr/engines/winograd/kernel.py has the same fields. Strides are in floats. The result is
   (activation(convolution + bias) + skip_scale * skip + outer_scale * outer) * gate, where the gate, if there is any,
   is sigmoid(convolution + bias) + gate_offset. */
struct convolution {
    const float *input;  /* the pixel above and left of the first one: zero padding, or the row before */
    ptrdiff_t input_row; /* from one row to the next */
    int input_channels;
    int nearest_x2_input; /* 1: the input is enlarged 2 x 2 by repeating pixels as it is read */
    int depth;            /* channels of the Winograd-domain input workspace: all inputs of a dense block stay there */
    int offset;           /* where those of this input begin; the weights take the channels up to their end */
    int is_1x1;           /* 1: a 1x1 convolution, which needs no tiles; the input is not enlarged then */
    const float *weights; /* (64, or 1; channels out / GROUP, channels in, GROUP) */
    const float *bias;
    int activation;      /* enum activation */
    const float *slopes; /* of a leaky ReLU, for each channel */
    const float *skip;   /* a map, or none */
    float skip_scale;
    const float *outer; /* another map, or none */
    float outer_scale;
    int has_gate;
    float gate_offset;
    float *output; /* its first pixel; skip and outer point to theirs, and have its strides */
    ptrdiff_t output_row;
    int output_channels;
    int height, width; /* of the output */
    int tiles_across;
};

/* Floats from one tile, group of channels, batch of tiles or point to the next. */
struct steps {
    ptrdiff_t tile, group, batch, point;
};

/* Return how many tiles have points, of all channels in and out, that the cache holds. It pays outside of dense blocks,
   where points are read soon after they are written, and never again. */
INLINE int tiles_in_cache(const struct convolution *c) {
    int tiles = CACHED_FLOATS / (POINTS * (c->input_channels + c->output_channels)) / TILES_AT_ONCE * TILES_AT_ONCE;
    return tiles < TILES_AT_ONCE ? TILES_AT_ONCE : tiles;
}

#if defined(__x86_64__) || defined(_M_X64)
#include <cpuid.h>

#define SIMD_WIDTH 8
#define NAME(name) name##_8
#define TARGET __attribute__((target("avx2,fma")))
#include "winograd.c"
#undef SIMD_WIDTH
#undef NAME
#undef TARGET
#define SIMD_WIDTH 16
#define NAME(name) name##_16
#define TARGET __attribute__((target("avx512f")))
#include "winograd.c"

/* Return which registers the system keeps when it switches threads. Source: Intel, "Software Developer's Manual",
   volume 1, section 13.3. macOS names those of AVX-512 only after a thread has used them: AVX2 is taken there. */
static unsigned kept_registers(void) {
    unsigned low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

/* Return the SIMD width of this processor in floats; 0 where it has no vectors that this file is written for. It is
   asked directly, for what __builtin_cpu_supports answers depends on the compiler's library: zig's has no answer. */
int winograd_simd_width(void) {
    const unsigned avx = 0x06, avx512 = 0xE6;
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_OSXSAVE)) return 0;
    unsigned has_fma = ecx & bit_FMA, kept = kept_registers();
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return 0;
    if ((ebx & bit_AVX512F) && (kept & avx512) == avx512) return 16;
    return has_fma && (ebx & bit_AVX2) && (kept & avx) == avx ? 8 : 0;
}
#elif defined(__aarch64__)
#define SIMD_WIDTH 8
#define NAME(name) name##_8
#define TARGET
#include "winograd.c"

int winograd_simd_width(void) { return 8; }
#else
int winograd_simd_width(void) { return 0; }
#endif

#else /* SIMD_WIDTH: the code for vectors of this many floats */

typedef float NAME(vector) __attribute__((vector_size(4 * SIMD_WIDTH)));
typedef int NAME(mask) __attribute__((vector_size(4 * SIMD_WIDTH)));
#define VECTOR NAME(vector)
#define MASK NAME(mask)
#define GROUP (2 * SIMD_WIDTH)

TARGET INLINE VECTOR NAME(load)(const float *from) {
    VECTOR value;
    memcpy(&value, from, sizeof value);
    return value;
}

TARGET INLINE void NAME(store)(float *to, VECTOR value) { memcpy(to, &value, sizeof value); }

TARGET INLINE VECTOR NAME(select)(MASK mask, VECTOR where_true, VECTOR where_false) {
    return (VECTOR)(((MASK)where_true & mask) | ((MASK)where_false & ~mask));
}

/* e^x, of values clamped to -87 to 88. Source: Cephes, expf. Adding 1.5 * 2^23 rounds to a whole number, which is then
   found in the lowest bits of the sum. */
TARGET INLINE VECTOR NAME(exponential)(VECTOR x) {
    const VECTOR low = (VECTOR){0} - 87.f, high = (VECTOR){0} + 88.f;
    x = NAME(select)(x < low, low, x);
    x = NAME(select)(x > high, high, x);
    VECTOR shifted = x * 1.44269504088896341f + 12582912.f, n = shifted - 12582912.f;
    MASK two_to_n = ((MASK)shifted - 0x4B400000 + 127) << 23;
    VECTOR r = x - n * 0.693359375f + n * 2.12194440e-4f;
    VECTOR p = 1.9875691500e-4f * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    return (p * r * r + r + 1.f) * (VECTOR)two_to_n;
}

TARGET INLINE VECTOR NAME(sigmoid)(VECTOR x) { return 1.f / (1.f + NAME(exponential)(-x)); }

/* The input transform of eight values of a row or column: to the points 0, 1, -1, 2, -2, 1/2, -1/2 and infinity. */
TARGET INLINE void NAME(to_points)(const VECTOR *d, VECTOR *points, int step) {
    VECTOR even = d[2] - 4.25f * d[4] + d[6], odd = d[1] - 4.25f * d[3] + d[5];
    VECTOR even_2 = 0.25f * d[2] - 1.25f * d[4] + d[6], odd_2 = d[1] - 5.f * d[3] + 4.f * d[5];
    VECTOR even_half = 4.f * d[2] - 5.f * d[4] + d[6], odd_half = 4.f * d[1] - 5.f * d[3] + d[5];
    points[0] = d[0] - d[6] + 5.25f * (d[4] - d[2]);
    points[step] = even + odd;
    points[2 * step] = even - odd;
    points[3 * step] = even_2 + 0.5f * odd_2;
    points[4 * step] = even_2 - 0.5f * odd_2;
    points[5 * step] = even_half + 0.5f * odd_half;
    points[6 * step] = even_half - 0.5f * odd_half;
    points[7 * step] = d[7] - d[1] + 5.25f * (d[3] - d[5]);
}

/* The output transform: from the eight points to six values. */
TARGET INLINE void NAME(from_points)(const VECTOR *points, VECTOR *y, int step) {
    VECTOR sum = points[1] + points[2], difference = points[1] - points[2];
    VECTOR sum_2 = points[3] + points[4], difference_2 = points[3] - points[4];
    VECTOR sum_half = points[5] + points[6], difference_half = points[5] - points[6];
    y[0] = points[0] + sum + sum_2 + sum_half;
    y[step] = difference + 2.f * difference_2 + 0.5f * difference_half;
    y[2 * step] = sum + 4.f * sum_2 + 0.25f * sum_half;
    y[3 * step] = difference + 8.f * difference_2 + 0.125f * difference_half;
    y[4 * step] = sum + 16.f * sum_2 + 0.0625f * sum_half;
    y[5 * step] = difference + 32.f * difference_2 + 0.03125f * difference_half + points[7];
}

/* One tile's 8 x 8 pixels, all channels of the input, to the points of the Winograd domain. `enlarged` is a constant:
   whether pixels are read twice in either direction. */
TARGET INLINE void NAME(transform)(const struct convolution *c, int tile, float *points, struct steps steps,
                                   int enlarged) {
    int top = tile / c->tiles_across * TILE_PX, left = tile % c->tiles_across * TILE_PX;
    const float *corner = c->input + (enlarged ? top / 2 * c->input_row + (ptrdiff_t)(left / 2) * c->input_channels
                                               : top * c->input_row + (ptrdiff_t)left * c->input_channels);
    for (int channel = 0; channel < c->input_channels; channel += SIMD_WIDTH) {
        VECTOR columns[POINTS], row[INPUT_PX];
        float *to = points + channel / GROUP * steps.group + channel % GROUP;
        UNROLL for (int x = 0; x < INPUT_PX; x++) {
            VECTOR pixels[INPUT_PX];
            const float *from = corner + (ptrdiff_t)(enlarged ? (x + 1) / 2 : x) * c->input_channels + channel;
            UNROLL for (int y = 0; y < INPUT_PX; y++)
                pixels[y] = NAME(load)(from + (enlarged ? (y + 1) / 2 : y) * c->input_row);
            NAME(to_points)(pixels, columns + x, INPUT_PX);
        }
        UNROLL for (int y = 0; y < INPUT_PX; y++) {
            NAME(to_points)(columns + INPUT_PX * y, row, 1);
            UNROLL for (int x = 0; x < INPUT_PX; x++) NAME(store)(to + (INPUT_PX * y + x) * steps.point, row[x]);
        }
    }
}

/* (tiles, channels in) times (channels in, GROUP), for up to six tiles, of which the channels lie in so many groups.
   Those at `next` are prefetched, if it is not null. */
#define PRODUCT(TILES)                                                                                                 \
    TARGET INLINE void NAME(product_##TILES)(const float *from, struct steps in, int groups, const float *weights,     \
                                             float *to, ptrdiff_t to_tile, const float *next) {                        \
        VECTOR sums[TILES][2];                                                                                         \
        UNROLL for (int i = 0; i < TILES; i++) sums[i][0] = sums[i][1] = (VECTOR){0};                                  \
        for (; groups; groups--, from += in.group) {                                                                   \
            if (next) {                                                                                                \
                for (int line = 0; line < GROUP; line += FLOATS_PER_CACHE_LINE)                                        \
                    UNROLL for (int i = 0; i < TILES; i++) __builtin_prefetch(next + i * in.tile + line);              \
                next += in.group;                                                                                      \
            }                                                                                                          \
            for (int k = 0; k < GROUP; k++, weights += GROUP) {                                                        \
                VECTOR low = NAME(load)(weights), high = NAME(load)(weights + SIMD_WIDTH);                             \
                UNROLL for (int i = 0; i < TILES; i++) {                                                               \
                    sums[i][0] += from[i * in.tile + k] * low;                                                         \
                    sums[i][1] += from[i * in.tile + k] * high;                                                        \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
        UNROLL for (int i = 0; i < TILES; i++) {                                                                       \
            NAME(store)(to + i * to_tile, sums[i][0]);                                                                 \
            NAME(store)(to + i * to_tile + SIMD_WIDTH, sums[i][1]);                                                    \
        }                                                                                                              \
    }
PRODUCT(1) PRODUCT(2) PRODUCT(3) PRODUCT(4) PRODUCT(5) PRODUCT(6)
#undef PRODUCT

/* A product of matrices: so many tiles (or pixels), all channels. `next` is what will be multiplied after these tiles,
   or null. */
TARGET INLINE void NAME(multiply)(const float *from, struct steps in, int groups, const float *weights, float *to,
                                  struct steps out, int out_groups, int tiles, const float *next) {
    for (; tiles > 0; tiles -= TILES_AT_ONCE, from += in.batch, to += out.batch) {
        const float *prefetched = tiles > TILES_AT_ONCE ? from + in.batch : next;
        for (int group = 0; group < out_groups; group++, prefetched = NULL) {
            const float *filters = weights + (ptrdiff_t)group * groups * GROUP * GROUP;
            float *sums = to + group * out.group;
            switch (tiles) {
                case 1: NAME(product_1)(from, in, groups, filters, sums, out.tile, prefetched); break;
                case 2: NAME(product_2)(from, in, groups, filters, sums, out.tile, prefetched); break;
                case 3: NAME(product_3)(from, in, groups, filters, sums, out.tile, prefetched); break;
                case 4: NAME(product_4)(from, in, groups, filters, sums, out.tile, prefetched); break;
                case 5: NAME(product_5)(from, in, groups, filters, sums, out.tile, prefetched); break;
                default: NAME(product_6)(from, in, groups, filters, sums, out.tile, prefetched);
            }
        }
    }
}

/* A vector of the result: all that follows a convolution and its bias. `at` is its place in the maps. Exponentials take
   so many registers that code which may need them is slower where none are taken: `exponentials` is a constant. */
TARGET INLINE VECTOR NAME(finished)(const struct convolution *c, VECTOR linear, VECTOR slope, ptrdiff_t at,
                                    int exponentials) {
    VECTOR value = linear;
    if (c->activation == LEAKY_RELU) value = NAME(select)(value > 0.f, value, value * slope);
    if (exponentials && c->activation == SILU) value = linear * NAME(sigmoid)(linear);
    if (exponentials && c->activation == SIGMOID) value = NAME(sigmoid)(linear);
    if (c->skip) value += c->skip_scale * NAME(load)(c->skip + at);
    if (c->outer) value += c->outer_scale * NAME(load)(c->outer + at);
    if (exponentials && c->has_gate) value *= NAME(sigmoid)(linear) + c->gate_offset;
    return value;
}

/* The points of each channel to one tile of the output, with all that follows the convolution. */
TARGET INLINE void NAME(transform_back)(const struct convolution *c, int tile, const float *points, struct steps steps,
                                        int exponentials) {
    int top = tile / c->tiles_across * TILE_PX, left = tile % c->tiles_across * TILE_PX;
    int rows = c->height - top < TILE_PX ? c->height - top : TILE_PX;
    int columns = c->width - left < TILE_PX ? c->width - left : TILE_PX;
    for (int channel = 0; channel < c->output_channels; channel += SIMD_WIDTH) {
        VECTOR half[TILE_PX * INPUT_PX], bias = NAME(load)(c->bias + channel), slope = bias;
        const float *from = points + channel / GROUP * steps.group + channel % GROUP;
        if (c->activation == LEAKY_RELU) slope = NAME(load)(c->slopes + channel);
        UNROLL for (int x = 0; x < INPUT_PX; x++) {
            VECTOR column[INPUT_PX];
            UNROLL for (int y = 0; y < INPUT_PX; y++)
                column[y] = NAME(load)(from + (INPUT_PX * y + x) * steps.point);
            NAME(from_points)(column, half + x, INPUT_PX);
        }
        for (int y = 0; y < rows; y++) {
            VECTOR row[TILE_PX];
            NAME(from_points)(half + INPUT_PX * y, row, 1);
            ptrdiff_t at = (top + y) * c->output_row + (ptrdiff_t)left * c->output_channels + channel;
            UNROLL for (int x = 0; x < TILE_PX; x++, at += c->output_channels)
                if (x < columns) NAME(store)(c->output + at, NAME(finished)(c, row[x] + bias, slope, at, exponentials));
        }
    }
}

/* A 1x1 convolution of some rows: the channels of each pixel times the weights. `products` has room for some pixels. */
TARGET INLINE void NAME(convolve_1x1)(const struct convolution *c, int first, int last, float *products) {
    for (int row = first; row < last; row++) {
        for (int left = 0; left < c->width; left += PIXELS_AT_ONCE) {
            int count = c->width - left < PIXELS_AT_ONCE ? c->width - left : PIXELS_AT_ONCE;
            const float *from = c->input + (row + 1) * c->input_row + (ptrdiff_t)(left + 1) * c->input_channels;
            const struct steps in = {c->input_channels, GROUP, TILES_AT_ONCE * c->input_channels, 0};
            const struct steps out = {c->output_channels, GROUP, TILES_AT_ONCE * c->output_channels, 0};
            NAME(multiply)(from, in, c->input_channels / GROUP, c->weights, products, out, c->output_channels / GROUP,
                           count, NULL);
            for (int at = 0; at < count * c->output_channels; at += SIMD_WIDTH) {
                int channel = at % c->output_channels;
                VECTOR bias = NAME(load)(c->bias + channel), slope = bias;
                if (c->activation == LEAKY_RELU) slope = NAME(load)(c->slopes + channel);
                ptrdiff_t place = row * c->output_row + (ptrdiff_t)left * c->output_channels + at;
                NAME(store)(c->output + place, NAME(finished)(c, NAME(load)(products + at) + bias, slope, place, 1));
            }
        }
    }
}

/* The filter transform of three values of a row or column: to the points 0, 1, -1, 2, -2, 1/2, -1/2 and infinity. */
TARGET INLINE void NAME(filter_to_points)(const VECTOR *g, int from_step, VECTOR *points, int step) {
    VECTOR first = g[0], middle = g[from_step], last = g[2 * from_step];
    VECTOR even = (first + last) * (-2.f / 9), odd = middle * (-2.f / 9);
    VECTOR even_2 = first * (1.f / 90) + last * (4.f / 90), odd_2 = middle * (2.f / 90);
    VECTOR even_half = first * (32.f / 45) + last * (8.f / 45), odd_half = middle * (16.f / 45);
    points[0] = first;
    points[step] = even + odd;
    points[2 * step] = even - odd;
    points[3 * step] = even_2 + odd_2;
    points[4 * step] = even_2 - odd_2;
    points[5 * step] = even_half + odd_half;
    points[6 * step] = even_half - odd_half;
    points[7 * step] = last;
}

/* The 3x3 filters from one channel to GROUP others, (9, GROUP), to 64 points, `step` floats apart. */
TARGET INLINE void NAME(transform_filters)(const VECTOR *taps, float *weights, ptrdiff_t step) {
    VECTOR columns[6 * INPUT_PX], points[2 * POINTS];
    UNROLL for (int i = 0; i < 6; i++) NAME(filter_to_points)(taps + i, 6, columns + i, 6);
    UNROLL for (int y = 0; y < INPUT_PX; y++)
        UNROLL for (int half = 0; half < 2; half++)
            NAME(filter_to_points)(columns + 6 * y + half, 2, points + 2 * INPUT_PX * y + half, 2);
    UNROLL for (int point = 0; point < POINTS; point++) {
        NAME(store)(weights + point * step, points[2 * point]);
        NAME(store)(weights + point * step + SIMD_WIDTH, points[2 * point + 1]);
    }
}

/* The filters, of `size` values, from one channel to `count` others, `row` floats apart, times a factor: to
   (9, GROUP), with zeros. */
TARGET INLINE void NAME(gather_filters)(const float *filters, ptrdiff_t row, int count, int size, float factor,
                                        VECTOR *taps) {
    float values[9][GROUP] = {{0}};
    for (int i = 0; i < count; i++)
        for (int tap = 0; tap < size; tap++) values[tap][i] = filters[i * row + tap] * factor;
    memcpy(taps, values, sizeof values);
}

/* The channels of a map that holds so many. */
TARGET INLINE int NAME(padded)(int channels) {
    return (channels + GROUP - 1) / GROUP * GROUP;
}

/* Write `weights` of `struct convolution`: filters, (channels out, channels in, 3, 3), or of a 1x1 convolution
   (channels out, channels in), times a factor. `inputs` has the channels of each map that is joined to the input; the
   weights of those that pad the maps are 0. */
TARGET void NAME(winograd_prepare_weights)(const float *filters, int channels_out, const int *inputs, int input_count,
                                           int is_1x1, float factor, float *weights) {
    int channels_in = 0, padded_in = 0, size = is_1x1 ? 1 : 9;
    for (int input = 0; input < input_count; input++) {
        channels_in += inputs[input];
        padded_in += NAME(padded)(inputs[input]);
    }
    ptrdiff_t row = (ptrdiff_t)channels_in * size, step = (ptrdiff_t)NAME(padded)(channels_out) * padded_in;
    for (int out = 0; out < channels_out; out += GROUP) {
        int count = channels_out - out < GROUP ? channels_out - out : GROUP;
        const float *from = filters + out * row;
        for (int input = 0; input < input_count; input++) {
            for (int channel = 0; channel < NAME(padded)(inputs[input]); channel++) {
                VECTOR taps[18] = {{0}};
                if (channel < inputs[input]) {
                    NAME(gather_filters)(from, row, count, size, factor, taps);
                    from += size;
                }
                if (is_1x1) memcpy(weights, taps, 2 * sizeof *taps);
                else NAME(transform_filters)(taps, weights, step);
                weights += GROUP;
            }
        }
    }
}

/* Return where a tile lies. */
TARGET INLINE ptrdiff_t NAME(tile_offset)(int tile, struct steps steps) {
    return tile / TILES_AT_ONCE * steps.batch + tile % TILES_AT_ONCE * steps.tile;
}

/* Compute some tiles, whose points begin at `input_points` and `output_points`. */
TARGET INLINE void NAME(convolve_tiles)(const struct convolution *c, int first, int last, float *input_points,
                                        struct steps in, float *output_points, struct steps out) {
    int groups = (c->offset + c->input_channels) / GROUP, out_groups = c->output_channels / GROUP;
    for (int tile = first; tile < last; tile++) {
        float *to = input_points + c->offset / GROUP * in.group + NAME(tile_offset)(tile - first, in);
        if (c->nearest_x2_input) NAME(transform)(c, tile, to, in, 1);
        else NAME(transform)(c, tile, to, in, 0);
    }
    for (int point = 0; point < POINTS; point++) {
        const float *from = input_points + point * in.point;
        NAME(multiply)(from, in, groups, c->weights + (ptrdiff_t)point * c->output_channels * groups * GROUP,
                       output_points + point * out.point, out, out_groups, last - first,
                       point + 1 < POINTS ? from + in.point : NULL);
    }
    int exponentials = c->has_gate || c->activation == SILU || c->activation == SIGMOID;
    for (int tile = first; tile < last; tile++) {
        const float *from = output_points + NAME(tile_offset)(tile - first, out);
        if (exponentials) NAME(transform_back)(c, tile, from, out, 1);
        else NAME(transform_back)(c, tile, from, out, 0);
    }
}

/* Compute the tiles from `first` to before `last`, or these rows of a 1x1 convolution. `input_points`, which has `depth`
   channels, is kept from one convolution of a dense block to the next; `output_points` is not. The steps are those from
   point to point. */
TARGET void NAME(winograd_convolve_tiles)(const struct convolution *c, int first, int last, float *input_points,
                                          ptrdiff_t input_step, float *output_points, ptrdiff_t output_step) {
    if (c->is_1x1) {
        NAME(convolve_1x1)(c, first, last, output_points);
        return;
    }
    const ptrdiff_t group = TILES_AT_ONCE * GROUP;
    const struct steps in = {GROUP, group, (ptrdiff_t)TILES_AT_ONCE * c->depth, input_step};
    const struct steps out = {GROUP, group, (ptrdiff_t)TILES_AT_ONCE * c->output_channels, output_step};
    int at_once = c->depth == c->input_channels ? tiles_in_cache(c) : last - first;
    for (; first < last; first += at_once) {
        int end = last - first < at_once ? last : first + at_once;
        NAME(convolve_tiles)(c, first, end, input_points, in, output_points, out);
    }
}

#undef VECTOR
#undef MASK
#undef GROUP
#endif
