// Random changes of images and their adjoints. What is drawn comes from the host into device memory, so that a captured graph can
// be replayed with other draws.
//
// Images are [images, channels, height, width] without gaps. Source and target must not overlap. No shared memory.
#include "dialect.h"

__device__ inline int wrapped(int value, int side) {
    int rest = value % side;
    return rest < 0 ? rest + side : rest;
}

// target = source rolled down by draw[0] and right by draw[1], then lines mirrored where draw[2] is not 0; the same draw [3] for the
// whole batch. Overwrites target. count = planes·height·width; grid (⌈count/threads⌉), up to 256 threads.
KERNEL(roll_flip, 256)(const float *source, const int *draw, float *target, long long count, int height, int width) {
    size_t index = global_index(), area = (size_t)height * width;
    if (index >= (size_t)count) return;
    int y = (int)(index % area) / width, x = (int)(index % area) % width;
    if (draw[2]) x = width - 1 - x;
    target[index] = source[index / area * area + (size_t)wrapped(y - draw[0], height) * width + wrapped(x - draw[1], width)];
}

// dsource, the gradient of roll_flip's source, from dtarget: each value comes back from where it went. As roll_flip.
KERNEL(roll_flip_adjoint, 256)(const float *dtarget, const int *draw, float *dsource, long long count, int height, int width) {
    size_t index = global_index(), area = (size_t)height * width;
    if (index >= (size_t)count) return;
    int y = wrapped((int)(index % area) / width + draw[0], height), x = wrapped((int)(index % area) % width + draw[1], width);
    if (draw[2]) x = width - 1 - x;
    dsource[index] = dtarget[index / area * area + (size_t)y * width + x];
}

// Where the pixels of one image come from: from_y = sine·x + cosine·y + down and from_x = cosine·x − sine·y + right about the centre,
// with sine and cosine times the scale and the shift in pixels. maps [images, 4]: sine, cosine, down, right. Fused by hand, so that
// warp and its adjoint find the same places to the last bit.
struct Map {
    double sine, cosine, down, right, centre_y, centre_x;
    __device__ inline Map(const double *maps, int image, int height, int width) {
        sine = maps[4 * image];
        cosine = maps[4 * image + 1];
        down = maps[4 * image + 2];
        right = maps[4 * image + 3];
        centre_y = (height - 1) / 2.0;
        centre_x = (width - 1) / 2.0;
    }
    __device__ inline double from_y(int row, int column) const { return fma(sine, column - centre_x, fma(cosine, row - centre_y, down + centre_y)); }
    __device__ inline double from_x(int row, int column) const { return fma(cosine, column - centre_x, fma(-sine, row - centre_y, right + centre_x)); }
};

// Which mirrored copy of an axis of `side` pixels a position lies in: 0 the axis itself, odd numbers mirrored.
__device__ inline int copy_of(double position, int side) { return (int)floor((position + 0.5) / side); }

// The two pixels around a position of a copy, and the weight of the second. Pixel centres are whole numbers, so the border at which
// the picture is mirrored lies half a pixel outside.
struct Taps {
    int first, second;
    double along;
    __device__ inline Taps(double position, int copy, int side) {
        double offset = position - (double)copy * side;
        double inside = copy & 1 ? side - 1 - offset : offset;
        inside = inside < 0.0 ? 0.0 : inside > side - 1 ? side - 1 : inside;
        first = (int)inside;
        second = first + 1 < side ? first + 1 : side - 1;
        along = inside - first;
    }
    // Weight of pixel `place`; at the border both taps are the same pixel.
    __device__ inline double weight(int place) const { return (first == place ? 1.0 - along : 0.0) + (second == place ? along : 0.0); }
};

// target = source sampled bilinearly at each pixel's place by `maps`, mirrored at the border. Overwrites target.
// grid (⌈height·width/threads⌉, images), up to 256 threads.
KERNEL(warp, 256)(const float *source, const double *maps, float *target, int channels, int height, int width) {
    int area = height * width, pixel = blockIdx.x * blockDim.x + threadIdx.x, image = blockIdx.y;
    if (pixel >= area) return;
    Map map(maps, image, height, width);
    double from_y = map.from_y(pixel / width, pixel % width), from_x = map.from_x(pixel / width, pixel % width);
    Taps y(from_y, copy_of(from_y, height), height), x(from_x, copy_of(from_x, width), width);
    float weights[4] = {(float)((1.0 - y.along) * (1.0 - x.along)), (float)((1.0 - y.along) * x.along), (float)(y.along * (1.0 - x.along)),
                        (float)(y.along * x.along)};
    for (int channel = 0; channel < channels; channel++) {
        size_t start = ((size_t)image * channels + channel) * area;
        const float *plane = source + start;
        target[start + pixel] = weights[0] * plane[y.first * width + x.first] + weights[1] * plane[y.first * width + x.second] +
                                weights[2] * plane[y.second * width + x.first] + weights[3] * plane[y.second * width + x.second];
    }
}

__device__ inline int limited(double value, int most) { return value < 0.0 ? 0 : value > most ? most : (int)value; }

// Copies that the positions of an image reach: those of its corners bound all others, since a map is affine.
__device__ inline void copies_reached(const double (&corners)[4], int side, int &first, int &last) {
    double least = corners[0], most = corners[0];
    for (int i = 1; i < 4; i++) {
        least = corners[i] < least ? corners[i] : least;
        most = corners[i] > most ? corners[i] : most;
    }
    first = copy_of(least, side);
    last = copy_of(most, side);
}

// dsource, the gradient of warp's source, from dtarget. A source pixel gathers, copy by copy, from the targets whose taps it is: those
// whose place in that copy is less than one pixel away. They lie in a box about the inverse image of its place, so nothing is
// added twice and nothing is shared between threads. The scale must not be zero. Overwrites dsource.
// grid (⌈height·width/threads⌉, images), up to 256 threads.
KERNEL(warp_adjoint, 256)(const float *dtarget, const double *maps, float *dsource, int channels, int height, int width) {
    int area = height * width, pixel = blockIdx.x * blockDim.x + threadIdx.x, image = blockIdx.y;
    if (pixel >= area) return;
    Map map(maps, image, height, width);
    int row = pixel / width, column = pixel % width, bottom = height - 1, end = width - 1;
    double corners_y[4] = {map.from_y(0, 0), map.from_y(0, end), map.from_y(bottom, 0), map.from_y(bottom, end)};
    double corners_x[4] = {map.from_x(0, 0), map.from_x(0, end), map.from_x(bottom, 0), map.from_x(bottom, end)};
    int first_y, last_y, first_x, last_x;
    copies_reached(corners_y, height, first_y, last_y);
    copies_reached(corners_x, width, first_x, last_x);
    // The inverse of [cosine sine; −sine cosine] is its transposed over the squared scale.
    double squared = map.sine * map.sine + map.cosine * map.cosine;
    double reach = (fabs(map.sine) + fabs(map.cosine)) / squared + 1e-3;
    for (int channel = 0; channel < channels; channel++) dsource[((size_t)image * channels + channel) * area + pixel] = 0.0f;
    for (int copy_y = first_y; copy_y <= last_y; copy_y++)
        for (int copy_x = first_x; copy_x <= last_x; copy_x++) {
            double place_y = (double)copy_y * height + (copy_y & 1 ? bottom - row : row) - map.centre_y - map.down;
            double place_x = (double)copy_x * width + (copy_x & 1 ? end - column : column) - map.centre_x - map.right;
            double middle_y = (map.cosine * place_y - map.sine * place_x) / squared + map.centre_y;
            double middle_x = (map.sine * place_y + map.cosine * place_x) / squared + map.centre_x;
            if (middle_y + reach < 0.0 || middle_y - reach > bottom || middle_x + reach < 0.0 || middle_x - reach > end) continue;
            for (int y = limited(ceil(middle_y - reach), bottom); y <= limited(floor(middle_y + reach), bottom); y++)
                for (int x = limited(ceil(middle_x - reach), end); x <= limited(floor(middle_x + reach), end); x++) {
                    double from_y = map.from_y(y, x), from_x = map.from_x(y, x);
                    if (copy_of(from_y, height) != copy_y || copy_of(from_x, width) != copy_x) continue;
                    float weight = (float)(Taps(from_y, copy_y, height).weight(row) * Taps(from_x, copy_x, width).weight(column));
                    if (weight == 0.0f) continue;
                    for (int channel = 0; channel < channels; channel++) {
                        size_t start = ((size_t)image * channels + channel) * area;
                        dsource[start + pixel] += weight * dtarget[start + y * width + x];
                    }
                }
        }
}

// target = gain·source + constant, by image and channel. lines [images, channels, 2]: gain, constant. With `adjoint` the constant is
// left out: target then is the gradient at the source. Overwrites target, which may be source.
// grid (⌈height·width/threads⌉, images·channels), up to 256 threads.
KERNEL(recolour, 256)(const float *source, const float *lines, int adjoint, float *target, int area) {
    int pixel = blockIdx.x * blockDim.x + threadIdx.x, plane = blockIdx.y;
    if (pixel >= area) return;
    float constant = adjoint ? 0.0f : lines[2 * plane + 1];
    target[(size_t)plane * area + pixel] = lines[2 * plane] * source[(size_t)plane * area + pixel] + constant;
}

REGISTER(roll_flip)
REGISTER(roll_flip_adjoint)
REGISTER(warp)
REGISTER(warp_adjoint)
REGISTER(recolour)
