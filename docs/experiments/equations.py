"""Each equation of docs/METHOD.md and the line of code that computes it. A line that is no longer there, word for word and once in its file, is an error."""

CORE = "crates/core/src"

# Equation, file below CORE, line.
EQUATIONS = [
    ("**Features and classification**",),
    ("positions: Keys' cubic convolution", "backbone/position.rs", "let weights = [outer(t + 1.0), inner(t), inner(1.0 - t), outer(2.0 - t)];"),
    ("`g(v) = v / |v|`", "recycle/prototype.rs", "*value /= length;"),
    ("`p_c = mean of g(f(x))`", "recycle/prototype.rs", "let mean = sum.into_iter().map(|sum| (sum / count) as f32).collect();"),
    ("`d_c = 1 − p_c · g(f(q))`", "recycle/prototype.rs", "Self::Cosine => (1.0 - dot(a, b)).max(0.0),"),
    ("`d_c = |p_c − f(q)|²`", "recycle/prototype.rs", "Self::SquaredEuclidean => a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>(),"),
    ("`P(c) = exp(−d_c / T) / Σ_k exp(−d_k / T)`", "recycle/prototype.rs", ".map(|distance| (-(distance - nearest) / temperature).exp())"),
    ("linear probe: features of length 20", "recycle/evaluate/linear_probe.rs", "into.extend(unit.iter().map(|value| value * FEATURE_LENGTH));"),
    ("interval `1.96·s/√n`", "recycle/evaluate/mod.rs", "1.96 * (squares / (count - 1.0)).sqrt() / count.sqrt()"),
    ("**Adapters and merges**",),
    ("`ΔW = s·B·A`", "adapter/apply.rs", "values.extend(row.iter().map(|&sum| (sum * f64::from(self.scale)) as f32));"),
    ("`u = s·A x` while it is used", "engine/cpu/low_rank.rs", "*u = scale * sum(sums);"),
    ("`y += B u` while it is used", "engine/cpu/low_rank.rs", "out[lane] = weight.mul_add(factor[lane], out[lane]);"),
    ("`Σ w_i·ΔW_i`", "adapter/merge/subspace.rs", "core += faer::Scale(f64::from(part.weight)) * own;"),
    ("nearest change of a rank: `(U·S, V)` of the first values", "adapter/merge/spaces.rs", "let scaled = |row, j| self.u[(row, j)] * self.values[j];"),
    ("TIES: the largest `density·n` values", "adapter/merge/ties.rs", "let kept = ((density * values.len() as f64) as usize).max(1);"),
    ("TIES: what has the sign of the sum", "adapter/merge/ties.rs", "if sign(value) == elected {"),
    ("TIES: its mean", "adapter/merge/ties.rs", "means.map(|(sum, count)| sum / count.max(1.0)).collect()"),
    ("KnOTS: TIES on `S·V_iᵀ = Uᵀ·ΔW_i`", "adapter/merge/subspace.rs", "let merged = ties.merge(|index| coordinates(&(u.transpose() * &cores[index] * right)));"),
    ("KnOTS: `U·` what TIES made of them", "adapter/merge/subspace.rs", "let b = &spaces.left * u;"),
    ("TSV-M: `U⊥`, nearest to `U`", "adapter/merge/singular_vectors.rs", "Ok(svd.U() * svd.V().transpose())"),
    ("TSV-M: `U⊥·diag(w_i·S_i)·V⊥ᵀ`", "adapter/merge/singular_vectors.rs", "u[(row, order[j])] * columns[order[j]].2"),
    ("Core Space: `U_B`", "adapter/merge/subspace.rs", "let left = decompose(site, spaces.b.as_ref())?.u;"),
    ("Core Space, Compress-then-Merge: TIES on `U_Bᵀ·ΔW_i·V_A`", "adapter/merge/subspace.rs", "let merged = ties.merge(|index| coordinates(&(left.transpose() * &cores[index] * right)));"),
    ("Compress-then-Merge: the shared spaces", "adapter/merge/subspace.rs", "Ok(u.subcols(0, rank.min(u.ncols())).to_owned())"),
    ("**Quality of images**",),
    ("`diversity = mean of 1 − cos`", "recycle/quality.rs", "sum += f64::from(Distance::Cosine.between(a, b));"),
    ("`|μ − μ'|²`", "recycle/quality.rs", "let between: f64 = means.map(|(a, b)| (a - b) * (a - b)).sum();"),
    ("`tr(Σ + Σ' − 2 (Σ Σ')^½)`", "recycle/quality.rs", "let spread = a.squared_norm_l2() + b.squared_norm_l2() - 2.0 * root;"),
    ("precision and recall: to the third neighbour", "recycle/quality.rs", "distances[NEIGHBOURS - 1]"),
    ("precision and recall: within a sphere", "recycle/quality.rs", "spheres.any(|(centre, radius)| distance(point, centre) <= *radius)"),
    ("`⟨ΔW, ΔW'⟩ / (|ΔW|·|ΔW'|)`", "adapter/similarity.rs", "let cosine = inner_product(self, other) / lengths.sqrt();"),
    ("**Tuning**",),
    ("`A` uniform to `1/√inputs`", "recycle/fresh_adapter.rs", "let bound = (1.0 / (inputs as f64).sqrt()) as f32;"),
    ("the head reads `f(x)·20/R`", "recycle/tune/mod.rs", "(FEATURE_LENGTH / mean) as f32"),
    ("cross-entropy", "engine/loss/classification.rs", "loss += log_sum_exp(row, 1.0) - f64::from(row[label]);"),
    ("Adam", "engine/optimise/adam.rs", "*value += step_size * *first / root;"),
    ("**Inversion**",),
    ("`CE + w·Σ priors − hard`", "recycle/inversion/objective.rs", "total: cross_entropy + prior - hard,"),
    ("`hard = β·min(CE of bare features, cap)`", "recycle/inversion/objective.rs", "(Some(hard), Some(bare)) => hard.weight * bare.min(hard.cap),"),
    ("its scores: squared distances times 20", "recycle/inversion/objective.rs", "temperature: (1.0 / score_scale) as f32,"),
    ("leave-one-out mean of a class", "engine/loss/leave_one_out.rs", "*slot = (total - own) * share;"),
    ("total variation", "engine/loss/pixels.rs", "sum += pair.map(|(a, b)| f64::from((a - b).abs())).sum::<f64>();"),
    ("statistics of tokens, BatchNorm: `|μ − μ'| + |σ² − σ'²|`", "engine/loss/statistics.rs", "self.loss = mean_norm + variance_norm;"),
    ("spectrum scaled by 1/f", "engine/image_parameters/fourier.rs", ".map(|frequency| (AMPLITUDE / frequency.max(lowest) / normalisation) as f32)"),
    ("**Meta-training**",),
    ("score `−|f(q) − p_c|²`", "engine/loss/prototype.rs", "Metric::SquaredEuclidean => -squared_distance(query, prototype),"),
    ("`· σ`, which is 1 / temperature", "engine/loss/prototype.rs", "score / f64::from(self.temperature)"),
    ("`KL(softmax(t / T) ‖ softmax(score / T))`", "engine/loss/classification.rs", "loss += log_t.exp() * (log_t - log_s);"),
    ("learning rate: half a cosine", "engine/optimise/schedule.rs", "(1.0 + (PI * done).cos()) / 2.0"),
    ("int(patches·share) patches left out", "recycle/meta_train/recipe.rs", "Self::Share(share) => Some((patches as f64 * share) as usize),"),
    ("those least looked at", "recycle/kept_tokens.rs", "order.truncate(attention.len().saturating_sub(dropped));"),
    ("negative, gain and offset of channels", "engine/augment/colour.rs", "(factor, grey * (1.0 - factor) + offset)"),
    ("factor of the sum `min(1, 4/n)`", "recycle/meta_train/start.rs", "let factor = factor.unwrap_or_else(|| (STUDIED_SUM / adapters as f64).min(1.0));"),
    ("`Σ_i f_il·ΔW_il`", "recycle/meta_train/factors.rs", "*slot = factor * value;"),
    ("`∂L/∂f_il = Σ dB_il ⊙ s_i·B_il`", "recycle/meta_train/factors.rs", "sums[block.source * self.layers + site.layer] += products.sum::<f64>();"),
    ("moving average", "recycle/meta_train/learn.rs", "*average = (f64::from(*average) * decay + f64::from(value) * (1.0 - decay)) as f32;"),
]


class NoSuchLine(Exception):
    pass


def lines_of_equations(root):
    """A row for each equation, with a link to its file as seen from docs/.

    Raises NoSuchLine, which names it, for a line that is not there, or there more than once.
    """
    found = []
    for equation, *place in EQUATIONS:
        if not place:
            found.append([equation, "", ""])
            continue
        file, line = place
        lines = [own.strip() for own in (root / CORE / file).read_text(encoding="utf-8").splitlines()]
        if lines.count(line) != 1:
            raise NoSuchLine(f"{CORE}/{file} has {lines.count(line)} lines `{line}`; it should be the one of {equation}")
        found.append([equation, f"`{line}`", f"[{file}](../{CORE}/{file})"])
    # A bar would end a cell.
    return [[cell.replace("|", "\\|") for cell in row] for row in found]
