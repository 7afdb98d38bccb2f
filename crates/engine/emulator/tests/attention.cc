// Attention forward and backward against plain loops, and these against slopes.
#include "test.h"
using namespace test;

namespace {
// Row numbers where the lists of the images begin.
struct Lists {
    std::vector<int> queries, tokens;
    int images() const { return (int)queries.size() - 1; }
    int longest(const std::vector<int> &starts) const {
        int most = 0;
        for (size_t i = 1; i < starts.size(); i++) most = std::max(most, starts[i] - starts[i - 1]);
        return most;
    }
};

Lists equal_lists(int images, int queries, int tokens) {
    Lists lists;
    for (int i = 0; i <= images; i++) {
        lists.queries.push_back(i * queries);
        lists.tokens.push_back(i * tokens);
    }
    return lists;
}

struct Plain {
    Doubles context, log_sum, dquery, dkey_value;
};

// All without gaps. Loops over images, heads, queries, tokens and values.
Plain plain_attention(const Lists &lists, int heads, int head_width, const Doubles &query, const Doubles &key_value, const Doubles &query_bias,
                      const Doubles &value_bias, const Doubles &dcontext) {
    int width = heads * head_width;
    Plain out{Doubles(query.size()), Doubles((size_t)lists.queries.back() * (size_t)heads), Doubles(query.size()), Doubles(key_value.size())};
    double scale = 1.0 / sqrt((double)head_width);
    for (int image = 0; image < lists.images(); image++)
        for (int head = 0; head < heads; head++)
            for (int i = lists.queries[(size_t)image]; i < lists.queries[(size_t)image + 1]; i++) {
                int first = lists.tokens[(size_t)image], last = lists.tokens[(size_t)image + 1], columns = head * head_width;
                auto q = [&](int c) { return (query[(size_t)(i * width + columns + c)] + query_bias[(size_t)(columns + c)]) * scale; };
                auto key = [&](int j, int c) { return key_value[(size_t)(j * 2 * width + columns + c)]; };
                auto value = [&](int j, int c) { return key_value[(size_t)(j * 2 * width + width + columns + c)]; };
                auto dout = [&](int c) { return dcontext[(size_t)(i * width + columns + c)]; };
                Doubles p((size_t)(last - first)), dp(p.size());
                double largest = -INFINITY, sum = 0.0, along = 0.0;
                for (int j = first; j < last; j++) {
                    double &score = p[(size_t)(j - first)];
                    for (int c = 0; c < head_width; c++) score += q(c) * key(j, c);
                    largest = fmax(largest, score);
                }
                for (double &own : p) sum += own = exp(own - largest);
                out.log_sum[(size_t)(i * heads + head)] = largest + log(sum);
                for (int c = 0; c < head_width; c++) out.context[(size_t)(i * width + columns + c)] = value_bias[(size_t)(columns + c)];
                for (int j = first; j < last; j++) {
                    double &own = p[(size_t)(j - first)], &down = dp[(size_t)(j - first)];
                    own /= sum;
                    for (int c = 0; c < head_width; c++) {
                        out.context[(size_t)(i * width + columns + c)] += own * value(j, c);
                        down += dout(c) * value(j, c);
                    }
                    along += own * down;
                }
                for (int j = first; j < last; j++) {
                    double own = p[(size_t)(j - first)], ds = own * (dp[(size_t)(j - first)] - along);
                    for (int c = 0; c < head_width; c++) {
                        out.dquery[(size_t)(i * width + columns + c)] += ds * key(j, c) * scale;
                        out.dkey_value[(size_t)(j * 2 * width + columns + c)] += ds * q(c);
                        out.dkey_value[(size_t)(j * 2 * width + width + columns + c)] += own * dout(c);
                    }
                }
            }
    return out;
}

void compare(const Lists &lists, bool with_starts, int heads, int head_width, const std::string &variant, double tolerance) {
    int width = heads * head_width, queries = lists.longest(lists.queries), tokens = lists.longest(lists.tokens);
    int query_rows = lists.queries.back(), token_rows = lists.tokens.back();
    Matrix query = draw_matrix(query_rows, width, 1), key_value = draw_matrix(token_rows, 2 * width, 3), dcontext = draw_matrix(query_rows, width, 2);
    Matrix context = empty_matrix(query_rows, width, 5), log_sum = empty_matrix(query_rows, heads, 1), along = empty_matrix(query_rows, heads, 2);
    Matrix dquery = empty_matrix(query_rows, width, 4), dkey_value = empty_matrix(token_rows, 2 * width, 6);
    Floats query_bias = draw((size_t)width), value_bias = draw((size_t)width);
    const int *query_starts = with_starts ? lists.queries.data() : nullptr, *token_starts = with_starts ? lists.tokens.data() : nullptr;
    unsigned images = (unsigned)lists.images(), blocks = (unsigned)(queries + 63) / 64;
    launch("attention_forward_" + variant, {blocks, (unsigned)heads, images}, 128, query.read(), query.stride, key_value.read(), key_value.stride,
           (const float *)query_bias.data(), (const float *)value_bias.data(), context.data(), context.stride, log_sum.data(), log_sum.stride,
           query_starts, token_starts, queries, tokens, heads, head_width);
    launch("attention_backward_query_" + variant, {blocks, (unsigned)heads, images}, 128, query.read(), query.stride, key_value.read(),
           key_value.stride, (const float *)query_bias.data(), log_sum.read(), log_sum.stride, dcontext.read(), dcontext.stride, dquery.data(),
           dquery.stride, along.data(), along.stride, query_starts, token_starts, queries, tokens, heads, head_width);
    launch("attention_backward_key_" + variant, {(unsigned)(tokens + 63) / 64, (unsigned)heads, images}, 128, query.read(), query.stride,
           key_value.read(), key_value.stride, (const float *)query_bias.data(), log_sum.read(), log_sum.stride, dcontext.read(), dcontext.stride,
           along.read(), along.stride, dkey_value.data(), dkey_value.stride, query_starts, token_starts, queries, tokens, heads, head_width);
    // Gradients are products of products, so they may be off twice as far.
    Plain expected =
        plain_attention(lists, heads, head_width, query.plain(), key_value.plain(), widen(query_bias), widen(value_bias), dcontext.plain());
    near("context", context, expected.context, tolerance);
    near("log_sum", log_sum, expected.log_sum, tolerance);
    near("dquery", dquery, expected.dquery, 2.0 * tolerance);
    near("dkey_value", dkey_value, expected.dkey_value, 2.0 * tolerance);
}

// Splitting operands leaves 2^-22 of each product.
const double SPLIT = 1.5e-6;
} // namespace

TEST(attention_plain_loops_have_the_slopes_that_they_say) {
    Lists lists{{0, 2, 3}, {0, 3, 5}};
    int heads = 2, head_width = 3, width = 6;
    Doubles query = widen(draw(3 * (size_t)width)), key_value = widen(draw(5 * 2 * (size_t)width)), query_bias = widen(draw((size_t)width)),
            value_bias = widen(draw((size_t)width)), dcontext = widen(draw(query.size()));
    auto value = [&](const Doubles &at_query, const Doubles &at_key_value) {
        return dot(plain_attention(lists, heads, head_width, at_query, at_key_value, query_bias, value_bias, dcontext).context, dcontext);
    };
    Plain found = plain_attention(lists, heads, head_width, query, key_value, query_bias, value_bias, dcontext);
    near("dquery", found.dquery, slopes(query, [&](const Doubles &at) { return value(at, key_value); }), 1e-8);
    near("dkey_value", found.dkey_value, slopes(key_value, [&](const Doubles &at) { return value(query, at); }), 1e-8);
}

TEST(attention_of_narrow_heads_equals_plain_loops) {
    compare(equal_lists(2, 5, 37), false, 2, 5, "32_fp32", SPLIT);
    compare(equal_lists(1, 70, 33), false, 1, 32, "32_fp32", SPLIT);
    compare(equal_lists(1, 70, 66), false, 1, 32, "32", TF32);
}

TEST(attention_of_wide_heads_equals_plain_loops) {
    compare(equal_lists(2, 1, 1), false, 1, 64, "64_fp32", SPLIT);
    compare(equal_lists(1, 35, 40), false, 1, 47, "64_fp32", SPLIT);
    compare(equal_lists(1, 66, 70), false, 2, 64, "64", TF32);
    // As a backbone with 16-pixel patches at 224 pixels has them.
    compare(equal_lists(1, 197, 197), false, 1, 64, "64", TF32);
}

TEST(attention_of_lists_of_unequal_length_equals_plain_loops) {
    Lists lists{{0, 3, 3, 69, 70}, {0, 34, 35, 102, 109}};
    compare(lists, true, 2, 16, "32_fp32", SPLIT);
    compare(Lists{{0, 65, 70}, {0, 33, 40}}, true, 1, 64, "64_fp32", SPLIT);
}

TEST(attention_of_large_scores_neither_overflows_nor_loses_them) {
    int tokens = 40, width = 8;
    Matrix query = draw_matrix(4, width, 0, 40.0), key_value = draw_matrix(tokens, 2 * width, 0, 10.0), context = empty_matrix(4, width),
           log_sum = empty_matrix(4, 1);
    Floats zeros((size_t)width, 0.0f);
    launch("attention_forward_32_fp32", {1, 1, 1}, 128, query.read(), query.stride, key_value.read(), key_value.stride, (const float *)zeros.data(),
           (const float *)zeros.data(), context.data(), context.stride, log_sum.data(), log_sum.stride, (const int *)nullptr, (const int *)nullptr, 4,
           tokens, 1, width);
    Plain expected =
        plain_attention(equal_lists(1, 4, tokens), 1, width, query.plain(), key_value.plain(), widen(zeros), widen(zeros), query.plain());
    // Scores of some thousand are good to 1e-4, which a softmax turns into as much.
    near("context", context, expected.context, 1e-3);
    near("log_sum", log_sum, expected.log_sum, FP32);
}

TEST(class_attention_equals_the_mean_over_heads_of_the_plain_softmax) {
    Lists lists{{0, 1, 2, 3}, {0, 37, 39, 46}};
    for (int with_starts = 0; with_starts < 2; with_starts++) {
        if (!with_starts) lists.tokens = {0, 11, 22, 33};
        else lists.tokens = {0, 37, 39, 46};
        int heads = 3, head_width = 37, width = heads * head_width, tokens = lists.longest(lists.tokens);
        Matrix query = draw_matrix(3, width, 2), key_value = draw_matrix(lists.tokens.back(), 2 * width, 1),
               attention = empty_matrix(3, tokens - 1, 2);
        Floats bias = draw((size_t)width);
        launch_shared("class_attention", {3}, 96, sizeof(float) * (size_t)(2 * tokens + head_width), query.read(), query.stride, key_value.read(),
                      key_value.stride, (const float *)bias.data(), attention.data(), attention.stride,
                      with_starts ? (const int *)lists.tokens.data() : nullptr, tokens, heads, head_width);
        for (int image = 0; image < 3; image++) {
            int first = lists.tokens[(size_t)image], count = lists.tokens[(size_t)image + 1] - first;
            Doubles expected((size_t)count - 1), found;
            for (int head = 0; head < heads; head++) {
                Doubles p((size_t)count);
                double sum = 0.0;
                for (int j = 0; j < count; j++) {
                    double score = 0.0;
                    for (int c = head * head_width; c < (head + 1) * head_width; c++)
                        score +=
                            ((double)query.at(image, c) + (double)bias[(size_t)c]) * (double)key_value.at(first + j, c) / sqrt((double)head_width);
                    sum += p[(size_t)j] = exp(score);
                }
                for (int j = 1; j < count; j++) expected[(size_t)j - 1] += p[(size_t)j] / sum / heads;
            }
            for (int j = 1; j < count; j++) found.push_back((double)attention.at(image, j - 1));
            near("attention", found, expected, FP32);
        }
    }
}
