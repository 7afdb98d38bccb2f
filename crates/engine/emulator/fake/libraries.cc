// libcublas and libnvrtc as far as the CUDA backend needs them: products in column-major order as cuBLAS defines them, and a compiler
// whose output names the file of kernels that the emulator has built in.
#include "../registry.h"
#include "device.h"
#include <algorithm>
#include <cstdio>
#include <cstring>

using namespace fake;

namespace {
enum Status { OK = 0, NOT_INITIALIZED = 1, INVALID = 7, EXECUTION_FAILED = 13, UNSUPPORTED = 15 };
struct Handle {
    void *stream = nullptr;
    bool tf32 = false;
};

float rounded(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if ((bits & 0x7f800000u) != 0x7f800000u) bits = (bits + 0x1000u) & 0xffffe000u;
    memcpy(&value, &bits, 4);
    return value;
}

struct Product {
    int transposed_a, transposed_b, m, n, k, lda, ldb, ldc;
    float alpha, beta;
    bool tf32;
};

// Values of an operand from its first to its last.
size_t extent(int rows, int columns, int leading) { return rows && columns ? (size_t)leading * (size_t)(columns - 1) + (size_t)rows : 0; }

// c [m, n] = alpha·op(a)·op(b) + beta·c, column-major. Sums run in k order over 8 lanes.
void multiply(const Product &p, const float *a, const float *b, float *c) {
    std::vector<float> rows((size_t)p.m * (size_t)p.k), columns((size_t)p.n * (size_t)p.k);
    auto pack = [&](std::vector<float> &out, const float *from, int count, int leading, bool along) {
        for (int i = 0; i < count; i++)
            for (int l = 0; l < p.k; l++) {
                float value = along ? from[(size_t)i * (size_t)leading + (size_t)l] : from[(size_t)l * (size_t)leading + (size_t)i];
                out[(size_t)i * (size_t)p.k + (size_t)l] = p.tf32 ? rounded(value) : value;
            }
    };
    pack(rows, a, p.m, p.lda, p.transposed_a);
    pack(columns, b, p.n, p.ldb, !p.transposed_b);
    for (int j = 0; j < p.n; j++)
        for (int i = 0; i < p.m; i++) {
            const float *x = rows.data() + (size_t)i * (size_t)p.k, *y = columns.data() + (size_t)j * (size_t)p.k;
            float lanes[8] = {}, sum = 0.0f;
            int l = 0;
            for (; l + 8 <= p.k; l += 8)
                for (int lane = 0; lane < 8; lane++) lanes[lane] += x[l + lane] * y[l + lane];
            for (; l < p.k; l++) sum += x[l] * y[l];
            for (float lane : lanes) sum += lane;
            float &out = c[(size_t)j * (size_t)p.ldc + (size_t)i];
            out = p.alpha * sum + (p.beta != 0.0f ? p.beta * out : 0.0f); // with beta 0 c is not read
        }
}

int enqueue(void *handle, Product p, const float *a, long long step_a, const float *b, long long step_b, float *c, long long step_c, int count) {
    Entry entry;
    auto refuse = [&](const char *why) {
        fprintf(stderr, "emulated cuBLAS: %s (m %d, n %d, k %d, lda %d, ldb %d, ldc %d)\n", why, p.m, p.n, p.k, p.lda, p.ldb, p.ldc);
        return INVALID;
    };
    if (!handle) return NOT_INITIALIZED;
    if (p.m < 0 || p.n < 0 || p.k < 0 || count < 0) return refuse("a size below zero");
    int rows_a = p.transposed_a ? p.k : p.m, columns_a = p.transposed_a ? p.m : p.k, rows_b = p.transposed_b ? p.n : p.k,
        columns_b = p.transposed_b ? p.k : p.n;
    if (p.lda < std::max(1, rows_a) || p.ldb < std::max(1, rows_b) || p.ldc < std::max(1, p.m))
        return refuse("a leading dimension shorter than a column");
    if (p.m == 0 || p.n == 0 || count == 0) return OK;
    auto inside = [&](const float *at, long long step, size_t values) {
        return values == 0 || (device().holds((uint64_t)at, 4 * values) && device().holds((uint64_t)(at + step * (count - 1)), 4 * values));
    };
    if (!inside(a, step_a, extent(rows_a, columns_a, p.lda))) return refuse("a goes past its memory");
    if (!inside(b, step_b, extent(rows_b, columns_b, p.ldb))) return refuse("b goes past its memory");
    if (!inside(c, step_c, extent(p.m, p.n, p.ldc))) return refuse("c goes past its memory");
    Result result = device().enqueue(((Handle *)handle)->stream, [=] {
        device().counts[PRODUCTS]++;
        for (int i = 0; i < count; i++) multiply(p, a + step_a * i, b + step_b * i, c + step_c * i);
    });
    return result ? EXECUTION_FAILED : OK;
}

// FP32 operands alone; products of FP32 or TF32, sums in FP32.
bool supported(int a, int b, int c, int compute) { return a == 0 && b == 0 && c == 0 && (compute == 68 || compute == 69 || compute == 77); }
} // namespace

extern "C" {
int cublasCreate_v2(void **handle) { return *handle = new Handle, OK; }
int cublasDestroy_v2(void *handle) { return delete (Handle *)handle, OK; }
int cublasGetVersion_v2(void *, int *version) { return *version = 130000, OK; }
int cublasSetStream_v2(void *handle, void *stream) { return ((Handle *)handle)->stream = stream, OK; }
int cublasGetStream_v2(void *handle, void **stream) { return *stream = ((Handle *)handle)->stream, OK; }
int cublasSetWorkspace_v2(void *, void *, size_t) { return OK; }
int cublasSetPointerMode_v2(void *, int mode) { return mode == 0 ? OK : UNSUPPORTED; }
int cublasGetPointerMode_v2(void *, int *mode) { return *mode = 0, OK; }
// 3: CUBLAS_TF32_TENSOR_OP_MATH.
int cublasSetMathMode(void *handle, int mode) { return ((Handle *)handle)->tf32 = (mode & 3) == 3, OK; }

int cublasGemmStridedBatchedEx(void *handle, int ta, int tb, int m, int n, int k, const void *alpha, const void *a, int type_a, int lda,
                               long long step_a, const void *b, int type_b, int ldb, long long step_b, const void *beta, void *c, int type_c, int ldc,
                               long long step_c, int count, int compute, int) {
    if (!supported(type_a, type_b, type_c, compute)) return UNSUPPORTED;
    Product p{ta != 0, tb != 0, m, n, k, lda, ldb, ldc, *(const float *)alpha, *(const float *)beta, compute == 77};
    return enqueue(handle, p, (const float *)a, step_a, (const float *)b, step_b, (float *)c, step_c, count);
}
int cublasGemmEx(void *handle, int ta, int tb, int m, int n, int k, const void *alpha, const void *a, int type_a, int lda, const void *b, int type_b,
                 int ldb, const void *beta, void *c, int type_c, int ldc, int compute, int algorithm) {
    return cublasGemmStridedBatchedEx(handle, ta, tb, m, n, k, alpha, a, type_a, lda, 0, b, type_b, ldb, 0, beta, c, type_c, ldc, 0, 1, compute,
                                      algorithm);
}
int cublasSgemmStridedBatched(void *handle, int ta, int tb, int m, int n, int k, const float *alpha, const float *a, int lda, long long step_a,
                              const float *b, int ldb, long long step_b, const float *beta, float *c, int ldc, long long step_c, int count) {
    int compute = handle && ((Handle *)handle)->tf32 ? 77 : 68;
    return cublasGemmStridedBatchedEx(handle, ta, tb, m, n, k, alpha, a, 0, lda, step_a, b, 0, ldb, step_b, beta, c, 0, ldc, step_c, count, compute,
                                      -1);
}
int cublasSgemm_v2(void *handle, int ta, int tb, int m, int n, int k, const float *alpha, const float *a, int lda, const float *b, int ldb,
                   const float *beta, float *c, int ldc) {
    return cublasSgemmStridedBatched(handle, ta, tb, m, n, k, alpha, a, lda, 0, b, ldb, 0, beta, c, ldc, 0, 1);
}

// ---- nvrtc: the file's name is all that is compiled ----

struct Program {
    std::string image;
};
int nvrtcVersion(int *major, int *minor) { return *major = 13, *minor = 0, 0; }
int nvrtcCreateProgram(void **program, const char *, const char *name, int, const char *const *, const char *const *) {
    *program = new Program{std::string("emulated ") + (name ? name : "")};
    return 0;
}
int nvrtcDestroyProgram(void **program) {
    delete (Program *)*program;
    return *program = nullptr, 0;
}
// 6: NVRTC_ERROR_COMPILATION, for a file that the emulator does not have.
int nvrtcCompileProgram(void *program, int, const char *const *) {
    for (const std::string &name : emulator::kernel_names())
        if ("emulated " + emulator::find_kernel(name)->file == ((Program *)program)->image) return 0;
    return 6;
}
int nvrtcGetProgramLogSize(void *, size_t *size) { return *size = 1, 0; }
int nvrtcGetProgramLog(void *, char *log) { return *log = 0, 0; }
int nvrtcGetCUBINSize(void *program, size_t *size) { return *size = ((Program *)program)->image.size() + 1, 0; }
int nvrtcGetCUBIN(void *program, char *image) {
    return memcpy(image, ((Program *)program)->image.c_str(), ((Program *)program)->image.size() + 1), 0;
}
int nvrtcGetPTXSize(void *program, size_t *size) { return nvrtcGetCUBINSize(program, size); }
int nvrtcGetPTX(void *program, char *image) { return nvrtcGetCUBIN(program, image); }
int nvrtcGetNumSupportedArchs(int *count) { return *count = 6, 0; }
int nvrtcGetSupportedArchs(int *all) {
    const int known[] = {80, 86, 89, 90, 100, 120};
    return memcpy(all, known, sizeof known), 0;
}
const char *nvrtcGetErrorString(int error) { return error ? "the emulator has no such file of kernels" : "success"; }
}
