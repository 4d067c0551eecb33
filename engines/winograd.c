/* 3x3 convolutions, stride 1, zero padding 1, by Winograd's minimal filtering F(4x4, 3x3), in float32.

   A tile of 4 x 4 output pixels needs 6 x 6 input pixels. Of each channel these are transformed to 36 numbers; for each
   of the 36, the channels of all tiles times the weights are a product of matrices; 36 numbers of each channel that
   comes out are transformed back. That is 36 multiplications a tile and pair of channels, where the plain form has 144.
   Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015, section 4.3.

   Feature maps are (rows, columns, channels), with one pixel of zeros around and tiles that are whole: a map of 5 x 9
   pixels has 10 x 14. Vectors go over channels, so their numbers are multiples of LANES, or of twice that for outputs.

   This file holds the code for each kind of processor: it includes itself. Vectors are those of GCC and Clang. */

#ifndef LANES

#include <stddef.h>
#include <string.h>

enum { POINTS = 36, TILES_AT_ONCE = 6, NUMBERS_A_LINE = 16 };

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

/* One convolution; realesr/engines/winograd_kernel.py has the same fields. Strides are in numbers. */
struct convolution {
    const float *input;  /* its padding's first pixel */
    ptrdiff_t input_row; /* from one row to the next */
    int input_channels;
    int doubled;         /* 1: the input is read with every pixel twice, in either direction */
    int depth;           /* channels of the transformed tiles, in all: a dense block's inputs stay there */
    int offset;          /* where those of this input begin; the weights take the channels up to their end */
    const float *weights; /* (36, channels out / (2 LANES), channels in, 2 LANES) */
    const float *bias;
    const float *slopes; /* of a leaky ReLU, for each channel; or none */
    const float *skip;   /* map to which the result is added, times skip_scale; or none */
    float skip_scale;
    const float *outer;  /* likewise, times 1 */
    float *output;       /* its first pixel; skip and outer point to theirs, and have its strides */
    ptrdiff_t output_row;
    int output_channels;
    int height, width;   /* of the output */
    int tiles_across;
};

#if defined(__x86_64__) || defined(_M_X64)
#define LANES 8
#define NAME(name) name##_8
#define TARGET __attribute__((target("avx2,fma")))
#include "winograd.c"
#undef LANES
#undef NAME
#undef TARGET
#define LANES 16
#define NAME(name) name##_16
#define TARGET __attribute__((target("avx512f")))
#include "winograd.c"

/* Numbers in this processor's vectors; 0 where it has none that this file is written for. */
int winograd_lanes(void) {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f")) return 16;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? 8 : 0;
}
#elif defined(__aarch64__)
#define LANES 8
#define NAME(name) name##_8
#define TARGET
#include "winograd.c"

int winograd_lanes(void) { return 8; }
#else
int winograd_lanes(void) { return 0; }
#endif

#else /* LANES: the code for vectors of this many numbers */

typedef float NAME(vector) __attribute__((vector_size(4 * LANES)));
typedef int NAME(mask) __attribute__((vector_size(4 * LANES)));
#define VECTOR NAME(vector)

TARGET INLINE VECTOR NAME(load)(const float *from) {
    VECTOR value;
    memcpy(&value, from, sizeof value);
    return value;
}

TARGET INLINE void NAME(store)(float *to, VECTOR value) { memcpy(to, &value, sizeof value); }

/* Six numbers of a row or column to the six points 0, 1, -1, 2, -2 and infinity. */
TARGET INLINE void NAME(to_points)(const VECTOR *d, VECTOR *points, int step) {
    VECTOR even = d[4] - 4.f * d[2], odd = d[3] - 4.f * d[1];
    VECTOR even_2 = d[4] - d[2], odd_2 = 2.f * (d[3] - d[1]);
    points[0] = 4.f * (d[0] - d[2]) + even_2;
    points[step] = even + odd;
    points[2 * step] = even - odd;
    points[3 * step] = even_2 + odd_2;
    points[4 * step] = even_2 - odd_2;
    points[5 * step] = (d[5] - d[3]) - 2.f * odd_2;
}

/* And from there to four outputs. */
TARGET INLINE void NAME(from_points)(const VECTOR *points, VECTOR *y, int step) {
    VECTOR sum = points[1] + points[2], difference = points[1] - points[2];
    VECTOR sum_2 = points[3] + points[4], difference_2 = points[3] - points[4];
    y[0] = points[0] + sum + sum_2;
    y[step] = difference + 2.f * difference_2;
    y[2 * step] = sum + 4.f * sum_2;
    y[3 * step] = difference + 8.f * difference_2 + points[5];
}

/* One tile's 6 x 6 pixels, all channels of the input, to 36 points that lie `step` numbers apart. */
TARGET INLINE void NAME(transform)(const struct convolution *c, int tile, float *points, ptrdiff_t step) {
    int top = tile / c->tiles_across * 4, left = tile % c->tiles_across * 4;
    for (int channel = 0; channel < c->input_channels; channel += LANES) {
        VECTOR columns[POINTS], rows[6];
        UNROLL for (int x = 0; x < 6; x++) {
            VECTOR pixels[6];
            int column = c->doubled ? (left + x + 1) / 2 : left + x;
            const float *from = c->input + (ptrdiff_t)column * c->input_channels + channel;
            UNROLL for (int y = 0; y < 6; y++) {
                int row = c->doubled ? (top + y + 1) / 2 : top + y;
                pixels[y] = NAME(load)(from + row * c->input_row);
            }
            NAME(to_points)(pixels, columns + x, 6);
        }
        UNROLL for (int y = 0; y < 6; y++) {
            NAME(to_points)(columns + 6 * y, rows, 1);
            UNROLL for (int x = 0; x < 6; x++) NAME(store)(points + (6 * y + x) * step + channel, rows[x]);
        }
    }
}

/* (tiles, channels in) times (channels in, 2 LANES), for up to six tiles. The next six are on their way meanwhile. */
#define PRODUCT(TILES)                                                                                                 \
    TARGET INLINE void NAME(product_##TILES)(const float *points, int depth, int channels, const float *weights,       \
                                             float *to, int width) {                                                   \
        VECTOR sums[TILES][2];                                                                                         \
        UNROLL for (int i = 0; i < TILES; i++) sums[i][0] = sums[i][1] = (VECTOR){0};                                  \
        for (int line = 0; line < channels; line += NUMBERS_A_LINE) {                                                  \
            UNROLL for (int i = 0; i < TILES; i++) __builtin_prefetch(points + (i + TILES) * depth + line);            \
            for (int k = line; k < line + NUMBERS_A_LINE; k++) {                                                       \
                VECTOR low = NAME(load)(weights + k * 2 * LANES), high = NAME(load)(weights + (k * 2 + 1) * LANES);    \
                UNROLL for (int i = 0; i < TILES; i++) {                                                               \
                    sums[i][0] += points[i * depth + k] * low;                                                         \
                    sums[i][1] += points[i * depth + k] * high;                                                        \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
        UNROLL for (int i = 0; i < TILES; i++) {                                                                       \
            NAME(store)(to + i * width, sums[i][0]);                                                                   \
            NAME(store)(to + i * width + LANES, sums[i][1]);                                                           \
        }                                                                                                              \
    }
PRODUCT(1) PRODUCT(2) PRODUCT(3) PRODUCT(4) PRODUCT(5) PRODUCT(6)
#undef PRODUCT

/* At one of the 36 points: all tiles, all channels. */
TARGET INLINE void NAME(multiply)(const float *points, int depth, int channels, const float *weights, float *to,
                                  int width, int tiles) {
    for (int column = 0; column < width; column += 2 * LANES, weights += channels * 2 * LANES, to += 2 * LANES) {
        int tile = 0;
        for (; tile + TILES_AT_ONCE <= tiles; tile += TILES_AT_ONCE)
            NAME(product_6)(points + tile * depth, depth, channels, weights, to + tile * width, width);
        const float *from = points + tile * depth;
        switch (tiles - tile) {
            case 1: NAME(product_1)(from, depth, channels, weights, to + tile * width, width); break;
            case 2: NAME(product_2)(from, depth, channels, weights, to + tile * width, width); break;
            case 3: NAME(product_3)(from, depth, channels, weights, to + tile * width, width); break;
            case 4: NAME(product_4)(from, depth, channels, weights, to + tile * width, width); break;
            case 5: NAME(product_5)(from, depth, channels, weights, to + tile * width, width); break;
        }
    }
}

/* 36 points that lie `step` numbers apart to one tile of the output, with all that comes behind the convolution. */
TARGET INLINE void NAME(transform_back)(const struct convolution *c, int tile, const float *points, ptrdiff_t step) {
    int top = tile / c->tiles_across * 4, left = tile % c->tiles_across * 4;
    int rows = c->height - top < 4 ? c->height - top : 4, columns = c->width - left < 4 ? c->width - left : 4;
    for (int channel = 0; channel < c->output_channels; channel += LANES) {
        VECTOR half[24], bias = NAME(load)(c->bias + channel), slope = bias;
        if (c->slopes) slope = NAME(load)(c->slopes + channel);
        UNROLL for (int x = 0; x < 6; x++) {
            VECTOR column[6];
            UNROLL for (int y = 0; y < 6; y++) column[y] = NAME(load)(points + (6 * y + x) * step + channel);
            NAME(from_points)(column, half + x, 6);
        }
        for (int y = 0; y < rows; y++) {
            VECTOR row[4];
            NAME(from_points)(half + 6 * y, row, 1);
            for (int x = 0; x < columns; x++) {
                ptrdiff_t at = (top + y) * c->output_row + (ptrdiff_t)(left + x) * c->output_channels + channel;
                VECTOR value = row[x] + bias;
                if (c->slopes) {
                    NAME(mask) positive = value > 0.f;
                    VECTOR less = value * slope;
                    value = (VECTOR)(((NAME(mask))value & positive) | ((NAME(mask))less & ~positive));
                }
                if (c->skip) value += c->skip_scale * NAME(load)(c->skip + at);
                if (c->outer) value += NAME(load)(c->outer + at);
                NAME(store)(c->output + at, value);
            }
        }
    }
}

/* The tiles from `first` to before `last`. `input_points` keeps (36, tiles, depth) from one convolution of a dense block
   to the next, `output_points` is for (36, tiles, channels out); from one point to the next it is their step. */
TARGET void NAME(winograd_convolve)(const struct convolution *c, int first, int last, float *input_points,
                                    ptrdiff_t input_step, float *output_points, ptrdiff_t output_step) {
    int channels = c->offset + c->input_channels;
    for (int tile = first; tile < last; tile++)
        NAME(transform)(c, tile, input_points + (ptrdiff_t)(tile - first) * c->depth + c->offset, input_step);
    for (int point = 0; point < POINTS; point++)
        NAME(multiply)(input_points + point * input_step, c->depth, channels,
                       c->weights + (ptrdiff_t)point * c->output_channels * channels,
                       output_points + point * output_step, c->output_channels, last - first);
    for (int tile = first; tile < last; tile++)
        NAME(transform_back)(c, tile, output_points + (ptrdiff_t)(tile - first) * c->output_channels, output_step);
}

#undef VECTOR
#endif
