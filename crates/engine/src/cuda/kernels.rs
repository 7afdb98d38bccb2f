//! The kernels with the types of their arguments, so that a launch cannot pass what a kernel does not take.

use super::compile::{Compiler, Source};
use super::driver::{Context, Function, Module};
use super::error::{CudaError, text};
use rayon::prelude::*;
use std::ffi::c_void;
use std::sync::Arc;

/// `const float *x, int x_stride`: rows to read.
#[derive(Clone, Copy)]
pub struct Rows(pub u64, pub i32);
/// `float *y, int y_stride`: rows to write.
#[derive(Clone, Copy)]
pub struct RowsMut(pub u64, pub i32);
/// `const float *values`: values without gaps to read; 0 for none.
#[derive(Clone, Copy)]
pub struct Values(pub u64);
/// `float *values`: values without gaps to write; 0 for none.
#[derive(Clone, Copy)]
pub struct ValuesMut(pub u64);
/// `const unsigned *rows`: indices to read; 0 for none.
#[derive(Clone, Copy)]
pub struct Indices(pub u64);
/// `unsigned *rows`: indices to write.
#[derive(Clone, Copy)]
pub struct IndicesMut(pub u64);
/// `const int *values`; 0 for none.
#[derive(Clone, Copy)]
pub struct Ints(pub u64);
/// `int *values`.
#[derive(Clone, Copy)]
pub struct IntsMut(pub u64);
/// `const unsigned char *values`.
#[derive(Clone, Copy)]
pub struct Bytes(pub u64);
/// `const double *values`.
#[derive(Clone, Copy)]
pub struct Doubles(pub u64);
/// `double *values`.
#[derive(Clone, Copy)]
pub struct DoublesMut(pub u64);

/// Most arguments of a kernel.
const MOST_ARGUMENTS: usize = 24;

/// Arguments of a launch, each at the start of its slot.
#[derive(Default, Clone, Copy, PartialEq)]
pub struct Arguments {
    slots: [[u8; 8]; MOST_ARGUMENTS],
    count: usize,
}

impl Arguments {
    fn add<const BYTES: usize>(&mut self, value: [u8; BYTES]) {
        self.slots[self.count][..BYTES].copy_from_slice(&value);
        self.count += 1;
    }

    /// Pointers to the arguments, and how many there are.
    pub fn pointers(&mut self) -> ([*mut c_void; MOST_ARGUMENTS], usize) {
        (
            self.slots.each_mut().map(|s| s.as_mut_ptr().cast()),
            self.count,
        )
    }
}

/// What a kernel takes for one or two of its arguments.
pub trait Argument: Copy {
    /// The types in CUDA C++.
    const TYPES: &'static [&'static str];
    /// Appends it.
    fn push(self, arguments: &mut Arguments);
}

macro_rules! argument {
    ($($kind:ty: [$($c:literal),+], |$own:ident, $all:ident| $push:block;)+) => {$(
        impl Argument for $kind {
            const TYPES: &'static [&'static str] = &[$($c),+];
            fn push(self, $all: &mut Arguments) {
                let $own = self;
                $push
            }
        }
    )+};
}

argument! {
    Rows: ["const float *", "int"], |own, all| { own.0.push(all); own.1.push(all); };
    RowsMut: ["float *", "int"], |own, all| { own.0.push(all); own.1.push(all); };
    Values: ["const float *"], |own, all| { own.0.push(all); };
    ValuesMut: ["float *"], |own, all| { own.0.push(all); };
    Indices: ["const unsigned *"], |own, all| { own.0.push(all); };
    IndicesMut: ["unsigned *"], |own, all| { own.0.push(all); };
    Ints: ["const int *"], |own, all| { own.0.push(all); };
    IntsMut: ["int *"], |own, all| { own.0.push(all); };
    Bytes: ["const unsigned char *"], |own, all| { own.0.push(all); };
    Doubles: ["const double *"], |own, all| { own.0.push(all); };
    DoublesMut: ["double *"], |own, all| { own.0.push(all); };
    u64: ["unsigned long long"], |own, all| { all.add(own.to_ne_bytes()); };
    i64: ["long long"], |own, all| { all.add(own.to_ne_bytes()); };
    i32: ["int"], |own, all| { all.add(own.to_ne_bytes()); };
    f64: ["double"], |own, all| { all.add(own.to_ne_bytes()); };
    f32: ["float"], |own, all| { all.add(own.to_ne_bytes()); };
}

/// The arguments of a kernel, or of several that differ in nothing else.
pub trait Kernel {
    /// Names of the kernels.
    const NAMES: &'static [Name];
    /// Names and types of the arguments.
    const ARGUMENTS: &'static [(&'static str, &'static [&'static str])];
    /// Appends the arguments.
    fn push(&self, arguments: &mut Arguments);
}

macro_rules! kernels {
    ($($file:literal: { $($($name:ident)|+ => $kernel:ident { $($argument:ident: $kind:ty,)+ })+ })+) => {
        /// A kernel by its name.
        #[allow(non_camel_case_types, reason = "as the kernels are called")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Name { $($($($name,)+)+)+ }

        impl Name {
            const ALL: &'static [(Self, &'static str, &'static str)] =
                &[$($($((Self::$name, stringify!($name), $file),)+)+)+];
        }

        const SOURCES: &[Source] = &[$(Source { name: $file, text: include_str!(concat!("kernels/", $file)) },)+];

        $($(
            #[doc = concat!("Arguments of `", stringify!($($name)|+), "`, as ", $file, " says.")]
            #[allow(missing_docs, reason = "the source of the kernel says what each is")]
            pub struct $kernel { $(pub $argument: $kind,)+ }

            impl Kernel for $kernel {
                const NAMES: &'static [Name] = &[$(Name::$name,)+];
                const ARGUMENTS: &'static [(&'static str, &'static [&'static str])] =
                    &[$((stringify!($argument), <$kind>::TYPES),)+];
                fn push(&self, arguments: &mut Arguments) {
                    $(self.$argument.push(arguments);)+
                }
            }
        )+)+

        #[cfg(test)]
        const DECLARED: &[(&str, &[Name], &[(&str, &[&str])])] =
            &[$($(($file, $kernel::NAMES, $kernel::ARGUMENTS),)+)+];
    };
}

kernels! {
    "norm.cu": {
        norm_forward => NormForward {
            x: Rows, weight: Values, bias: Values, epsilon: f32, y: RowsMut, statistics: ValuesMut, width: i32,
        }
        norm_backward => NormBackward {
            dy: Rows, x: Rows, statistics: Values, weight: Values, dx: RowsMut, width: i32,
        }
        residual => Residual {
            x: Rows, rows: Indices, branch: Rows, bias: Values, scale: Values, sum: RowsMut, width: i32,
        }
        residual_norm => ResidualNorm {
            x: Rows, rows: Indices, branch: Rows, bias: Values, scale: Values, sum: RowsMut, weight: Values, norm_bias: Values,
            epsilon: f32, y: RowsMut, statistics: ValuesMut, width: i32,
        }
    }
    "activation.cu": {
        gelu_forward | quick_gelu_forward => ActivationForward { x: Rows, bias: Values, y: RowsMut, columns: i32, }
        gelu_backward | quick_gelu_backward => ActivationBackward { x: Rows, bias: Values, dy: RowsMut, columns: i32, }
    }
    "attention.cu": {
        attention_forward_32 | attention_forward_64 | attention_forward_32_fp32 | attention_forward_64_fp32 => AttentionForward {
            query: Rows, key_value: Rows, query_bias: Values, value_bias: Values, context: RowsMut, log_sum: RowsMut,
            query_starts: Ints, token_starts: Ints, queries: i32, tokens: i32, heads: i32, head_width: i32,
        }
        class_attention => ClassAttention {
            class_query: Rows, key_value: Rows, query_bias: Values, attention: RowsMut, token_starts: Ints, all_tokens: i32,
            heads: i32, head_width: i32,
        }
    }
    "attention_backward.cu": {
        attention_backward_query_32 | attention_backward_query_64 | attention_backward_query_32_fp32
        | attention_backward_query_64_fp32 => AttentionBackwardQuery {
            query: Rows, key_value: Rows, query_bias: Values, log_sum: Rows, dcontext: Rows, dquery: RowsMut, along: RowsMut,
            query_starts: Ints, token_starts: Ints, queries: i32, tokens: i32, heads: i32, head_width: i32,
        }
        attention_backward_key_32 | attention_backward_key_64 | attention_backward_key_32_fp32
        | attention_backward_key_64_fp32 => AttentionBackwardKey {
            query: Rows, key_value: Rows, query_bias: Values, log_sum: Rows, dcontext: Rows, along: Rows, dkey_value: RowsMut,
            query_starts: Ints, token_starts: Ints, queries: i32, tokens: i32, heads: i32, head_width: i32,
        }
    }
    "tokens.cu": {
        patchify => Patchify {
            pixels: Values, positions: Indices, patches: RowsMut, tokens: i32, patch_size: i32, patch_grid: i32,
        }
        patchify_backward => PatchifyBackward {
            dpatches: Rows, positions: Indices, dpixels: ValuesMut, tokens: i32, patch_size: i32, patch_grid: i32,
        }
        embed => Embed {
            tokens: RowsMut, positions: Indices, bias: Values, class_token: Values, position_embedding: Values,
            tokens_per_image: i32, width: i32,
        }
        choose_rows => ChooseRows { attention: Rows, tokens: i32, keep: i32, rows: IndicesMut, }
        gather => Gather { x: Rows, rows: Indices, y: RowsMut, width: i32, }
        scatter_add => ScatterAdd { dy: Rows, rows: Indices, count: i32, dx: RowsMut, width: i32, }
        pool => Pool { tokens: Rows, pooled: RowsMut, per_image: i32, width: i32, kind: i32, }
        pool_backward => PoolBackward { dpooled: Rows, dtokens: RowsMut, per_image: i32, width: i32, kind: i32, }
    }
    "elementwise.cu": {
        fill => Fill { target: RowsMut, columns: i32, value: f32, }
        scale => Scale { x: Rows, factor: f32, y: RowsMut, columns: i32, }
        add_scaled => AddScaled { x: Rows, factor: f32, y: RowsMut, columns: i32, }
        scale_columns => ScaleColumns { x: Rows, scales: Values, y: RowsMut, columns: i32, }
        add_affine => AddAffine { x: Rows, offset: Values, slope: Values, dx: RowsMut, columns: i32, }
        flag_not_finite => FlagNotFinite { x: Values, count: i64, bit: i32, flags: IntsMut, }
    }
    "optimise.cu": {
        adam => AdamStep {
            values: ValuesMut, gradient: Values, first: ValuesMut, second: ValuesMut, count: i64, step: Values, first_share: f32,
            decay: f32, second_share: f32, epsilon: f32, weight_decay: f32, flags: Ints, limits: Values, plane: i32, channels: i32,
        }
    }
    "augment.cu": {
        roll_flip => RollFlip {
            source: Values, draw: Ints, target: ValuesMut, count: i64, height: i32, width: i32,
        }
        roll_flip_adjoint => RollFlipAdjoint {
            dtarget: Values, draw: Ints, dsource: ValuesMut, count: i64, height: i32, width: i32,
        }
        warp => Warp { source: Values, maps: Doubles, target: ValuesMut, channels: i32, height: i32, width: i32, }
        warp_adjoint => WarpAdjoint { dtarget: Values, maps: Doubles, dsource: ValuesMut, channels: i32, height: i32, width: i32, }
        recolour => Recolour { source: Values, lines: Values, adjoint: i32, target: ValuesMut, area: i32, }
    }
    "spectrum.cu": {
        scale_spectrum => ScaleSpectrum {
            spectrum: Values, scale: Values, stacked: ValuesMut, count: i64, height: i32, half: i32,
        }
        scale_spectrum_backward => ScaleSpectrumBackward {
            dstacked: Values, scale: Values, dspectrum: ValuesMut, count: i64, height: i32, half: i32,
        }
        levels_forward => LevelsForward {
            values: Values, mean: Values, deviation: Values, levels: ValuesMut, images: ValuesMut, count: i64, plane: i32,
        }
        levels_backward => LevelsBackward {
            dimages: Values, levels: Values, deviation: Values, dvalues: ValuesMut, count: i64, plane: i32,
        }
    }
    "pixels.cu": {
        normalise_levels => NormaliseLevels {
            levels: Bytes, indices: Indices, flips: Ints, table: Values, pixels: ValuesMut, side: i32,
        }
        total_variation => TotalVariation {
            pixels: Values, planes: i32, height: i32, width: i32, shares: Doubles, steps: Values, dpixels: ValuesMut, partial: DoublesMut,
        }
        sum_parts => SumParts { partial: Doubles, count: i32, out: DoublesMut, }
        image_squares => ImageSquares { pixels: Values, length: i32, per_part: i32, partial: DoublesMut, }
        norm_slopes => NormSlopes { partial: Doubles, images: i32, parts: i32, weight: f32, loss: DoublesMut, slopes: ValuesMut, }
        add_images_scaled => AddImagesScaled { pixels: Values, slopes: Values, dpixels: ValuesMut, length: i32, }
    }
    "moments.cu": {
        column_sums => ColumnSums { x: Rows, rows: i32, columns: i32, rows_per_part: i32, partial: DoublesMut, }
        add_column_sums => AddColumnSums { partial: Doubles, parts: i32, columns: i32, sums: DoublesMut, }
        statistics_term => StatisticsTerm {
            sums: Doubles, count: f64, mean: Values, variance: Values, weight: f32, columns: i32, loss: DoublesMut, offset: ValuesMut,
            slope: ValuesMut,
        }
    }
    "convolution.cu": {
        unfold => Unfold {
            x: Values, image_stride: i32, line_stride: i32, pixel_stride: i32, channel_stride: i32, patches: ValuesMut, height: i32,
            width: i32, channels: i32, kernel: i32, step: i32,
        }
        fold => Fold {
            dpatches: Values, dx: ValuesMut, image_stride: i32, line_stride: i32, pixel_stride: i32, channel_stride: i32, height: i32,
            width: i32, channels: i32, kernel: i32, step: i32,
        }
    }
    "resnet.cu": {
        batch_norm => BatchNorm {
            x: Values, scale: Values, shift: Values, shortcut: Values, relu: i32, y: ValuesMut, channels: i32,
        }
        batch_norm_backward => BatchNormBackward {
            x: Values, scale: Values, shift: Values, masked: i32, offset: Values, slope: Values, dy: ValuesMut, channels: i32,
        }
        relu_backward => ReluBackward { y: Values, dy: ValuesMut, count: i64, }
        max_pool => MaxPool { x: Values, y: ValuesMut, height: i32, width: i32, channels: i32, }
        max_pool_backward => MaxPoolBackward { x: Values, dy: Values, dx: ValuesMut, height: i32, width: i32, channels: i32, }
    }
}

/// Static shared memory of the kernels that have dynamic shared memory, at most; `resources.md` has it.
const STATIC_SHARED: i32 = 64;

/// All kernels, loaded.
pub struct Kernels {
    functions: Vec<Function>,
    _modules: Vec<Module>,
}

impl Kernels {
    /// Compiles and loads all of them.
    pub fn load(context: &Arc<Context>, compiler: &Compiler<'_>) -> Result<Self, CudaError> {
        let cubins = SOURCES.par_iter().map(|&source| compiler.cubin(source));
        let cubins: Vec<Vec<u8>> = cubins.collect::<Result<_, _>>()?;
        let most_shared = context.most_shared_memory()? - STATIC_SHARED;
        let failed = |file| {
            move |error| CudaError::Load {
                file,
                reason: text(error),
            }
        };
        let mut modules = Vec::new();
        let mut functions = Vec::new();
        for (source, cubin) in SOURCES.iter().zip(&cubins) {
            let module = Module::load(context, cubin).map_err(failed(source.name))?;
            for &(name, called, _) in Name::ALL.iter().filter(|own| own.2 == source.name) {
                let dynamic = matches!(name, Name::class_attention | Name::choose_rows);
                let shared = if dynamic { most_shared } else { 0 };
                let function = module.function(called, shared);
                functions.push(function.map_err(failed(source.name))?);
            }
            modules.push(module);
        }
        Ok(Self {
            functions,
            _modules: modules,
        })
    }

    /// The kernel of a name, and that name as text.
    pub fn get(&self, name: Name) -> (Function, &'static str) {
        (self.functions[name as usize], Name::ALL[name as usize].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parameters after `KERNEL(name, ...)`, each as type and name. Some kernels are made by a macro of their file, whose
    /// parameter `name` stands for theirs.
    fn parameters(text: &str, name: &str) -> Vec<(String, String)> {
        let text = text.replace('\\', " ");
        let own = format!("KERNEL({name},");
        let start = text.find(&own).unwrap_or_else(|| {
            let call = text.find(&format!("({name}, ")).unwrap();
            let called = text[..call].rsplit(|c: char| !c.is_alphanumeric() && c != '_');
            let define = format!("#define {}(", called.into_iter().next().unwrap());
            let define = text.find(&define).unwrap();
            define + text[define..].find("KERNEL(name,").unwrap()
        });
        let rest = &text[start..];
        let rest = &rest[rest.find(')').unwrap() + 1..];
        let rest = &rest[rest.find('(').unwrap() + 1..rest.find(')').unwrap()];
        let parameters = rest.split(',').map(|parameter| {
            let words = parameter.split_whitespace().collect::<Vec<_>>().join(" ");
            let at = words.rfind([' ', '*']).unwrap() + 1;
            (words[..at].trim().to_owned(), words[at..].to_owned())
        });
        parameters.collect()
    }

    #[test]
    fn arguments_have_the_names_order_and_types_that_the_sources_declare() {
        for (file, names, arguments) in DECLARED {
            let source = SOURCES.iter().find(|source| source.name == *file).unwrap();
            for name in *names {
                let (_, called, _) = Name::ALL[*name as usize];
                let declared = parameters(source.text, called);
                let own: Vec<(String, String)> = arguments
                    .iter()
                    .flat_map(|(argument, types)| {
                        types.iter().enumerate().map(move |(place, kind)| {
                            let stride = if *argument == "target" {
                                "stride".into()
                            } else {
                                format!("{argument}_stride")
                            };
                            let name = if place == 0 {
                                (*argument).to_owned()
                            } else {
                                stride
                            };
                            ((*kind).to_owned(), name)
                        })
                    })
                    .collect();
                assert_eq!(own, declared, "{called}");
                assert!(own.len() <= MOST_ARGUMENTS, "{called}");
            }
        }
    }

    #[test]
    fn a_name_is_the_place_of_its_kernel() {
        for (place, (name, called, _)) in Name::ALL.iter().enumerate() {
            assert_eq!(*name as usize, place, "{called}");
        }
    }
}
