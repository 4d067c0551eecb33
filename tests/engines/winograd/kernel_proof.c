/* Compares a compiled winograd.c with the definition of a convolution, on processors and systems without a Python.

       kernel_proof LIBRARY

   prints the SIMD width that the library chooses here and the largest error of each kind of convolution. Exit code: 0
   where all are within LARGEST_ERROR, 1 where one is not, 2 where the library does not load, 3 where it has no code for
   this processor.

   The library is loaded as Python's ctypes loads it; winograd.c is included for its structures alone. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "winograd.c"

#ifdef _WIN32
#include <malloc.h>
/* windows.h has a type POINTS. */
__declspec(dllimport) void *LoadLibraryA(const char *path);
__declspec(dllimport) void *GetProcAddress(void *library, const char *name);
#define open_library LoadLibraryA
#define find_function GetProcAddress
#else
#include <dlfcn.h>
#define open_library(path) dlopen(path, RTLD_NOW)
#define find_function dlsym
#endif

typedef void convolve_function(const struct convolution *, int, int, float *, ptrdiff_t, float *, ptrdiff_t);
typedef void prepare_function(const float *, int, const int *, int, int, float, float *);

/* The library's functions for the processor's SIMD width. */
struct kernel {
    int simd_width;
    convolve_function *convolve;
    prepare_function *prepare_weights;
};

enum { HEIGHT = 10, WIDTH = 20, SLICES = 2 };

static const double LARGEST_ERROR = 2e-5;

struct kind {
    const char *name;
    int side, nearest_x2, activation, has_addends, has_gate, slices;
};

static const struct kind KINDS[] = {
    {"3x3", 3, 0, NO_ACTIVATION, 0, 0, 1},
    {"3x3, leaky ReLU, two sums", 3, 0, LEAKY_RELU, 1, 0, 1},
    {"3x3, SiLU", 3, 0, SILU, 0, 0, 1},
    {"3x3, sigmoid", 3, 0, SIGMOID, 0, 0, 1},
    {"3x3, sum and gate", 3, 0, NO_ACTIVATION, 1, 1, 1},
    {"3x3 behind an enlargement", 3, 1, LEAKY_RELU, 0, 0, 1},
    {"3x3 of two inputs, as in a dense block", 3, 0, LEAKY_RELU, 1, 0, SLICES},
    {"1x1, SiLU", 1, 0, SILU, 0, 0, 1},
};

/* A map with its zeros around: (ROWS, COLUMNS, channels). */
struct map {
    float *values;
    int channels;
};

enum { ACROSS = (WIDTH + TILE_PX - 1) / TILE_PX, DOWN = (HEIGHT + TILE_PX - 1) / TILE_PX, TILES = ACROSS * DOWN };
enum { COLUMNS = ACROSS * TILE_PX + 2, ROWS = DOWN * TILE_PX + 2 };

static float *zeros(size_t count) {
    size_t bytes = (count * sizeof(float) + 63) / 64 * 64;
#ifdef _WIN32
    float *memory = _aligned_malloc(bytes, 64);
#else
    float *memory = aligned_alloc(64, bytes);
#endif
    if (!memory) exit(2);
    memset(memory, 0, bytes);
    return memory;
}

/* Numbers between -1 and 1. Source: Numerical Recipes, section 7.1, a linear congruential generator. */
static float random_number(void) {
    static unsigned state = 1;
    state = 1664525u * state + 1013904223u;
    return (float)(state >> 8) / (1 << 23) - 1;
}

static float *random_numbers(size_t count) {
    float *numbers = zeros(count);
    for (size_t i = 0; i < count; i++) numbers[i] = random_number();
    return numbers;
}

static struct map random_map(int channels, int height, int width) {
    struct map map = {zeros((size_t)ROWS * COLUMNS * channels), channels};
    for (int y = 1; y <= height; y++)
        for (int i = channels; i < (width + 1) * channels; i++) map.values[y * COLUMNS * channels + i] = random_number();
    return map;
}

static float *pixel(struct map map, int y, int x) {
    return map.values + ((y + 1) * COLUMNS + x + 1) * (ptrdiff_t)map.channels;
}

/* Weights of filters, (out, in, side, side), of the first `known` inputs. The factor undoes the doubling. */
static float *prepared_weights(const struct kernel *kernel, const float *filters, int out, int in, int known, int side) {
    int size = side * side, inputs[] = {known};
    float *first_filters = zeros((size_t)out * known * size);
    for (int o = 0; o < out; o++)
        for (int i = 0; i < known * size; i++) first_filters[o * known * size + i] = 2 * filters[o * in * size + i];
    float *weights = zeros((size_t)(side == 3 ? POINTS : 1) * out * known);
    kernel->prepare_weights(first_filters, out, inputs, 1, side == 1, 0.5f, weights);
    return weights;
}

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

/* A value of the result by definition, in double precision. */
static double expected(const struct kind *kind, const struct convolution *c, const struct map *inputs,
                       const float *filters, struct map skip, struct map outer, int y, int x, int o) {
    int channels = inputs[0].channels, all = channels * kind->slices, reach = kind->side / 2;
    double linear = c->bias[o];
    for (int dy = -reach; dy <= reach; dy++)
        for (int dx = -reach; dx <= reach; dx++)
            for (int i = 0; i < all; i++) {
                int row = y + dy, column = x + dx;
                if (row < 0 || row >= HEIGHT || column < 0 || column >= WIDTH) continue;
                if (kind->nearest_x2) row /= 2, column /= 2;
                int tap = (dy + reach) * kind->side + dx + reach;
                linear += (double)filters[((ptrdiff_t)o * all + i) * kind->side * kind->side + tap] *
                          pixel(inputs[i / channels], row, column)[i % channels];
            }
    double value = linear;
    if (kind->activation == LEAKY_RELU && value < 0) value *= c->slopes[o];
    if (kind->activation == SILU) value = linear * sigmoid(linear);
    if (kind->activation == SIGMOID) value = sigmoid(linear);
    if (c->skip) value += c->skip_scale * pixel(skip, y, x)[o] + c->outer_scale * pixel(outer, y, x)[o];
    return c->has_gate ? value * (sigmoid(linear) + c->gate_offset) : value;
}

/* The largest error of one kind of convolution. */
static double largest_error(const struct kind *kind, const struct kernel *kernel) {
    int unit = 2 * kernel->simd_width, in = 2 * unit, out = unit, all = in * kind->slices, side = kind->side;
    int source_height = kind->nearest_x2 ? HEIGHT / 2 : HEIGHT, source_width = kind->nearest_x2 ? WIDTH / 2 : WIDTH;
    float *filters = random_numbers((size_t)out * all * side * side);
    for (int i = 0; i < out * all * side * side; i++) filters[i] /= (float)(side * sqrt(all));
    struct map inputs[SLICES], target = random_map(out, 0, 0);
    struct map skip = random_map(out, HEIGHT, WIDTH), outer = random_map(out, HEIGHT, WIDTH);
    struct convolution c = {
        .input_row = (ptrdiff_t)COLUMNS * in, .input_channels = in, .nearest_x2_input = kind->nearest_x2, .depth = all,
        .is_1x1 = side == 1, .bias = random_numbers(out), .activation = kind->activation, .slopes = random_numbers(out),
        .skip = kind->has_addends ? pixel(skip, 0, 0) : NULL, .skip_scale = 0.5f,
        .outer = kind->has_addends ? pixel(outer, 0, 0) : NULL, .outer_scale = -0.25f,
        .has_gate = kind->has_gate, .gate_offset = -0.5f, .output = pixel(target, 0, 0),
        .output_row = (ptrdiff_t)COLUMNS * out, .output_channels = out, .height = HEIGHT, .width = WIDTH,
        .tiles_across = ACROSS,
    };
    int count = side == 1 ? HEIGHT : TILES, half = count / 2;
    ptrdiff_t input_step = (ptrdiff_t)(TILES + TILES_AT_ONCE) * all + 48, output_step = (ptrdiff_t)PIXELS_AT_ONCE * out;
    float *input_points[2], *output_points = zeros((size_t)POINTS * output_step);
    for (int part = 0; part < 2; part++) input_points[part] = zeros((size_t)POINTS * input_step);
    for (int slice = 0; slice < kind->slices; slice++) {
        inputs[slice] = random_map(in, source_height, source_width);
        c.input = inputs[slice].values;
        c.offset = slice * in;
        int known = c.offset + in; /* of the convolutions before the last only the transformed input is kept */
        c.weights = prepared_weights(kernel, filters, out, all, known, side);
        kernel->convolve(&c, 0, half, input_points[0], input_step, output_points, output_step);
        kernel->convolve(&c, half, count, input_points[1], input_step, output_points, output_step);
    }
    double largest = 0;
    for (int y = 0; y < HEIGHT; y++)
        for (int x = 0; x < WIDTH; x++)
            for (int o = 0; o < out; o++) {
                double error = fabs(pixel(target, y, x)[o] - expected(kind, &c, inputs, filters, skip, outer, y, x, o));
                if (!(error <= largest)) largest = error; /* what is no number counts too */
            }
    return largest;
}

/* The library's function of this name for a SIMD width, or NULL. */
static void *function_for(void *library, const char *name, int width) {
    char full_name[64];
    snprintf(full_name, sizeof full_name, "%s_%d", name, width);
    return (void *)find_function(library, full_name);
}

int main(int count, char **arguments) {
    void *library = count == 2 ? open_library(arguments[1]) : NULL;
    int (*simd_width)(void) = library ? (int (*)(void))find_function(library, "winograd_simd_width") : NULL;
    if (!simd_width) {
        fprintf(stderr, "kernel_proof: %s does not load\n", count == 2 ? arguments[1] : "no library was named, which");
        return 2;
    }
    int width = simd_width(), wrong = 0;
    printf("SIMD width %d\n", width);
    if (width == 0) return 3;
    struct kernel kernel = {width, (convolve_function *)function_for(library, "winograd_convolve_tiles", width),
                            (prepare_function *)function_for(library, "winograd_prepare_weights", width)};
    if (!kernel.convolve || !kernel.prepare_weights) return 2;
    for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++) {
        double error = largest_error(&KINDS[i], &kernel);
        printf("%.1e %s\n", error, KINDS[i].name);
        wrong |= !(error <= LARGEST_ERROR);
    }
    return wrong;
}
