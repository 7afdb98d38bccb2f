// Moving tokens about: patches out of images and back, embedding, the choice of tokens, gathering, scattering, pooling.
//
// Matrices are row-major with a stride between rows; index lists are `unsigned` without gaps. `positions` [images·tokens] says
// which patch each row of tokens is: 0 the class token, patch p = p + 1; null: all in order. Images are [images, 3, side, side] with
// side = grid·patch_size, without gaps. No dynamic shared memory unless said.
#include "reduce.h"

// Position of the token in a row.
__device__ inline int position_of(const unsigned *positions, int row, int tokens) { return positions ? (int)positions[row] : row % tokens; }

// patches [images·tokens, 3·patch_size²] (channel, line, column) = the pixels of each row's patch; rows of class tokens get zeros.
// Overwrites patches. grid (images·tokens), up to 256 threads.
KERNEL(patchify, 256)
(const float *pixels, const unsigned *positions, float *patches, int patches_stride, int tokens, int patch_size, int patch_grid) {
    int row = blockIdx.x, place = position_of(positions, row, tokens), image = row / tokens;
    int area = patch_size * patch_size, side = patch_grid * patch_size;
    int top = (place - 1) / patch_grid * patch_size, left = (place - 1) % patch_grid * patch_size;
    float *out = row_at(patches, row, patches_stride);
    for (int i = threadIdx.x; i < 3 * area; i += blockDim.x) {
        int channel = i / area, line = i % area / patch_size, column = i % patch_size;
        out[i] = place == 0 ? 0.0f : pixels[(((size_t)image * 3 + channel) * side + top + line) * side + left + column];
    }
}

// The adjoint: dpixels = dpatches, each value back in its place. Overwrites the pixels of the patches that a row represents; with
// `positions` fill dpixels with zeros before. A patch must not be named twice. grid (images·tokens), up to 256 threads.
KERNEL(patchify_backward, 256)
(const float *dpatches, int dpatches_stride, const unsigned *positions, float *dpixels, int tokens, int patch_size, int patch_grid) {
    int row = blockIdx.x, place = position_of(positions, row, tokens), image = row / tokens;
    if (place == 0) return; // the whole block
    int area = patch_size * patch_size, side = patch_grid * patch_size;
    int top = (place - 1) / patch_grid * patch_size, left = (place - 1) % patch_grid * patch_size;
    const float *from = row_at(dpatches, row, dpatches_stride);
    for (int i = threadIdx.x; i < 3 * area; i += blockDim.x) {
        int channel = i / area, line = i % area / patch_size, column = i % patch_size;
        dpixels[(((size_t)image * 3 + channel) * side + top + line) * side + left + column] = from[i];
    }
}

// tokens [images·tokens, width] += bias + position_embedding[position]; rows of class tokens become class_token +
// position_embedding[0] whatever they held. bias [width] or null, class_token [width], position_embedding [1 + patches, width].
// grid (images·tokens), up to 256 threads.
KERNEL(embed, 256)
(float *tokens, int tokens_stride, const unsigned *positions, const float *bias, const float *class_token, const float *position_embedding,
 int tokens_per_image, int width) {
    int row = blockIdx.x, place = position_of(positions, row, tokens_per_image);
    float *out = row_at(tokens, row, tokens_stride);
    const float *offset = row_at(position_embedding, place, width);
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        float value = place == 0 ? class_token[i] : out[i] + (bias ? bias[i] : 0.0f);
        out[i] = value + offset[i];
    }
}

// rows [images·(1 + keep)]: for each image of `tokens` tokens the row of its class token and the rows of the `keep` patches with the
// most attention, ascending; of equals the first stays. attention [images, tokens − 1]; with keep = 0 it is not read.
// Overwrites rows. grid (images), up to 256 threads; dynamic shared memory for tokens − 1 ints.
KERNEL(choose_rows, 256)(const float *attention, int attention_stride, int tokens, int keep, unsigned *rows) {
    SHARED_DYNAMIC(int, stays);
    int image = blockIdx.x, patches = tokens - 1;
    unsigned first = (unsigned)image * tokens;
    unsigned *out = rows + (size_t)image * (1 + keep);
    if (threadIdx.x == 0) out[0] = first;
    if (keep == 0) return; // the whole block
    const float *values = row_at(attention, image, attention_stride);
    // A patch stays where fewer than `keep` patches beat it: exact with equals, and the same whatever the order.
    for (int patch = threadIdx.x; patch < patches; patch += blockDim.x) {
        float own = values[patch];
        int beaten_by = 0;
        for (int other = 0; other < patches; other++) beaten_by += values[other] > own || (values[other] == own && other < patch);
        stays[patch] = beaten_by < keep;
    }
    __syncthreads();
    for (int patch = threadIdx.x; patch < patches; patch += blockDim.x) {
        int before = 0;
        for (int other = 0; other < patch; other++) before += stays[other];
        // NaN beats nobody and is beaten by nobody, so more than `keep` may stay: those after them are dropped.
        if (stays[patch] && before < keep) out[1 + before] = first + 1 + patch;
    }
}

// y[i] = x[rows[i]], width columns. Overwrites y. grid (rows of y), up to 256 threads.
KERNEL(gather, 256)(const float *x, int x_stride, const unsigned *rows, float *y, int y_stride, int width) {
    const float *from = row_at(x, rows[blockIdx.x], x_stride);
    float *to = row_at(y, blockIdx.x, y_stride);
    for (int i = threadIdx.x; i < width; i += blockDim.x) to[i] = from[i];
}

// dx[rows[i]] += dy[i], width columns, `count` rows. Adds to dx, in the order of i where a row is named more than once: the block
// of the first entry adds all of them. grid (count), 32 to 256 threads.
KERNEL(scatter_add, 256)(const float *dy, int dy_stride, const unsigned *rows, int count, float *dx, int dx_stride, int width) {
    SHARED(int, same, 2);
    int entry = blockIdx.x;
    unsigned target = rows[entry];
    if (threadIdx.x < 2) same[threadIdx.x] = entry;
    __syncthreads();
    for (int i = threadIdx.x; i < count; i += blockDim.x)
        if (rows[i] == target) {
            atomicMin(&same[0], i);
            atomicMax(&same[1], i);
        }
    __syncthreads();
    int first = same[0], last = same[1];
    if (first != entry) return; // the whole block
    float *to = row_at(dx, target, dx_stride);
    for (int column = threadIdx.x; column < width; column += blockDim.x) {
        float sum = to[column];
        for (int i = entry; i <= last; i++)
            if (rows[i] == target) sum += row_at(dy, i, dy_stride)[column];
        to[column] = sum;
    }
}

// How a feature is read from the tokens of an image.
#define POOL_CLASS 0
#define POOL_MEAN 1
#define POOL_CLASS_MEAN 2

// pooled [images, width] = the class token (kind 0), the mean of the others (kind 1); [images, 2·width] = both (kind 2).
// tokens [images·per_image, width]. Overwrites pooled. grid (images, ⌈width/threads⌉), up to 256 threads.
KERNEL(pool, 256)(const float *tokens, int tokens_stride, float *pooled, int pooled_stride, int per_image, int width, int kind) {
    int image = blockIdx.x, column = blockIdx.y * blockDim.x + threadIdx.x;
    if (column >= width) return;
    const float *from = row_at(tokens, (size_t)image * per_image, tokens_stride) + column;
    float *to = row_at(pooled, image, pooled_stride) + column;
    if (kind != POOL_MEAN) to[0] = from[0];
    if (kind == POOL_CLASS) return;
    float sum = 0.0f;
    for (int token = 1; token < per_image; token++) sum += row_at(from, token, tokens_stride)[0];
    to[kind == POOL_MEAN ? 0 : width] = sum * (1.0f / (per_image - 1));
}

// dtokens, the gradient of `tokens` of pool, from dpooled. Overwrites dtokens. grid (images·per_image), up to 256 threads.
KERNEL(pool_backward, 256)(const float *dpooled, int dpooled_stride, float *dtokens, int dtokens_stride, int per_image, int width, int kind) {
    int row = blockIdx.x, token = row % per_image;
    const float *from = row_at(dpooled, row / per_image, dpooled_stride);
    float *to = row_at(dtokens, row, dtokens_stride);
    float share = 1.0f / (per_image - 1);
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        if (token == 0) to[i] = kind == POOL_MEAN ? 0.0f : from[i];
        else to[i] = kind == POOL_CLASS ? 0.0f : share * from[kind == POOL_MEAN ? i : width + i];
    }
}

REGISTER(patchify)
REGISTER(patchify_backward)
REGISTER(embed)
REGISTER(choose_rows)
REGISTER(gather)
REGISTER(scatter_add)
REGISTER(pool)
REGISTER(pool_backward)
