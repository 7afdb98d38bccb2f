//! Kernels from source to a cubin for one architecture, by NVRTC. A folder keeps what was compiled.

use super::error::CudaError;
use cudarc::nvrtc::{result, sys};
use sha2::{Digest, Sha256};
use std::ffi::{CStr, CString, c_char};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A source file of kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// Of the file.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
}

/// What the sources include.
const HEADERS: [Source; 3] = [
    Source {
        name: "dialect.h",
        text: include_str!("kernels/dialect.h"),
    },
    Source {
        name: "reduce.h",
        text: include_str!("kernels/reduce.h"),
    },
    Source {
        name: "attention.h",
        text: include_str!("kernels/attention.h"),
    },
];

const STANDARD: &str = "--std=c++17";

/// Length of a SHA-256 digest.
const DIGEST: usize = 32;

/// Compiles for one device.
pub struct Compiler<'a> {
    /// As NVRTC names it, such as `sm_90`.
    pub architecture: String,
    /// Of NVRTC, major and minor.
    pub version: (i32, i32),
    /// Keeps cubins; without it everything is compiled again.
    pub cache: Option<&'a Path>,
}

/// Version of NVRTC, major and minor. The libraries have been checked.
pub fn version() -> Result<(i32, i32), CudaError> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: writes to the two integers that it is given.
    unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) }
        .result()
        .map_err(|error| CudaError::Call {
            call: "nvrtcVersion",
            reason: format!("{error:?}"),
        })?;
    Ok((major, minor))
}

impl Compiler<'_> {
    /// The cubin of `source`, from the cache where it is there and whole.
    pub fn cubin(&self, source: Source) -> Result<Vec<u8>, CudaError> {
        let kept = self.cache.map(|folder| folder.join(self.file(source)));
        if let Some(cubin) = kept.as_deref().and_then(read) {
            return Ok(cubin);
        }
        let cubin = self.compile(source)?;
        if let Some(path) = kept {
            // A folder that cannot be written costs time at the next start and nothing else.
            let _ = write(&path, &cubin);
        }
        Ok(cubin)
    }

    /// Name in the cache: of all that the cubin depends on.
    fn file(&self, source: Source) -> PathBuf {
        let (major, minor) = self.version;
        let mut digest = Sha256::new();
        let mut add = |part: &str| {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        };
        add(&format!("{} {STANDARD} {major}.{minor}", self.architecture));
        for Source { name, text } in HEADERS.into_iter().chain([source]) {
            add(name);
            add(text);
        }
        let digest: String = digest
            .finalize()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        PathBuf::from(format!("{digest}.cubin"))
    }

    fn compile(&self, source: Source) -> Result<Vec<u8>, CudaError> {
        let failed = |log: String| CudaError::Compile {
            file: source.name,
            architecture: self.architecture.clone(),
            log,
        };
        let plain = |error: result::NvrtcError| failed(format!("{error:?}"));
        let program = Program::new(source).map_err(plain)?;
        let options = [
            format!("--gpu-architecture={}", self.architecture),
            STANDARD.into(),
        ];
        // SAFETY: the program lives.
        if let Err(error) = unsafe { result::compile_program(program.raw, &options) } {
            return Err(failed(format!("{error:?} {}", program.log())));
        }
        program.cubin().map_err(plain)
    }
}

/// A program of NVRTC, and the text that it points to.
struct Program {
    raw: sys::nvrtcProgram,
    _texts: Vec<CString>,
}

impl Program {
    fn new(source: Source) -> Result<Self, result::NvrtcError> {
        // The files have no zeros.
        let text = |text: &str| CString::new(text).unwrap_or_default();
        let mut texts = vec![text(source.text), text(source.name)];
        texts.extend(HEADERS.map(|header| text(header.text)));
        texts.extend(HEADERS.map(|header| text(header.name)));
        let pointers: Vec<*const c_char> = texts.iter().map(|text| text.as_ptr()).collect();
        let (headers, names) = pointers[2..].split_at(HEADERS.len());
        let mut raw = std::ptr::null_mut();
        // SAFETY: texts end with a zero and live as long as the program; there are as many headers as names.
        unsafe {
            sys::nvrtcCreateProgram(
                &raw mut raw,
                pointers[0],
                pointers[1],
                HEADERS.len() as i32,
                headers.as_ptr(),
                names.as_ptr(),
            )
        }
        .result()?;
        Ok(Self { raw, _texts: texts })
    }

    fn log(&self) -> String {
        // SAFETY: the program lives.
        let Ok(log) = (unsafe { result::get_program_log(self.raw) }) else {
            return String::new();
        };
        let bytes: Vec<u8> = log.iter().map(|&c| c as u8).collect();
        let text = CStr::from_bytes_until_nul(&bytes);
        text.map_or_else(|_| String::new(), |t| t.to_string_lossy().into_owned())
    }

    fn cubin(&self) -> Result<Vec<u8>, result::NvrtcError> {
        let mut size = 0;
        // SAFETY: the program lives and was compiled; writes one size.
        unsafe { sys::nvrtcGetCUBINSize(self.raw, &raw mut size) }.result()?;
        let mut cubin = vec![0u8; size];
        // SAFETY: as above; writes as many bytes as it has said.
        unsafe { sys::nvrtcGetCUBIN(self.raw, cubin.as_mut_ptr().cast()) }.result()?;
        Ok(cubin)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: created by `new` and destroyed once.
        let _ = unsafe { result::destroy_program(self.raw) };
    }
}

/// A kept cubin, if the file is there and its content has the digest before it.
fn read(path: &Path) -> Option<Vec<u8>> {
    let bytes = fs::read(path).ok()?;
    let (digest, cubin) = bytes.split_at_checked(DIGEST)?;
    (Sha256::digest(cubin).as_slice() == digest).then(|| cubin.to_vec())
}

/// Whole or not at all, also where two programs write the same.
fn write(path: &Path, cubin: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let unfinished = path.with_extension(format!("{}.unfinished", std::process::id()));
    let mut file = fs::File::create(&unfinished)?;
    file.write_all(&Sha256::digest(cubin))?;
    file.write_all(cubin)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: Source = Source {
        name: "norm.cu",
        text: "text",
    };

    fn compiler(cache: &Path) -> Compiler<'_> {
        Compiler {
            architecture: "sm_80".into(),
            version: (13, 0),
            cache: Some(cache),
        }
    }

    #[test]
    fn a_kept_cubin_is_read_back_and_one_that_was_changed_or_cut_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("below").join("a.cubin");
        write(&path, b"cubin").unwrap();
        assert_eq!(read(&path).as_deref(), Some(&b"cubin"[..]));
        let whole = fs::read(&path).unwrap();
        let mut changed = whole.clone();
        changed[DIGEST] ^= 1;
        for broken in [&changed[..], &whole[..whole.len() - 1], &whole[..7], b""] {
            fs::write(&path, broken).unwrap();
            assert_eq!(read(&path), None);
        }
    }

    #[test]
    fn another_text_architecture_or_compiler_is_kept_under_another_name() {
        let own = compiler(Path::new("."));
        let name = own.file(SOURCE);
        assert_eq!(name, compiler(Path::new("elsewhere")).file(SOURCE));
        let text = Source {
            text: "other text",
            ..SOURCE
        };
        assert_ne!(name, own.file(text));
        let mut other = compiler(Path::new("."));
        other.version = (13, 1);
        assert_ne!(name, other.file(SOURCE));
        other = compiler(Path::new("."));
        other.architecture = "sm_90".into();
        assert_ne!(name, other.file(SOURCE));
    }
}
