//! Which instruction set the kernels use: found once at run time, or chosen by the caller so that tests can run every
//! set the machine has. A [`Kernels`] value is the proof that its set is present, so all kernels take one.

use super::simd::Simd;
use super::simd_portable::Portable;

/// The instruction sets for which the kernels have code, slowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Plain Rust on small arrays; the reference for the others, and the only choice on other processors.
    Portable,
    /// x86-64 with AVX2 and FMA: 8 lanes, integers as pairs of 16 bits.
    Avx2,
    /// AVX-512 F, BW, DQ and VL: 16 lanes, integers as pairs of 16 bits.
    Avx512,
    /// AVX-512 with VNNI: four 8-bit products per lane and instruction.
    Avx512Vnni,
}

impl Isa {
    /// All sets, slowest first.
    pub const ALL: [Isa; 4] = [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Avx512Vnni];

    /// The name used in reports.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Vnni => "avx512vnni",
        }
    }

    /// Whether this machine can run it.
    pub fn available(self) -> bool {
        match self {
            Isa::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                Isa::Avx2.available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => Isa::Avx512.available() && is_x86_feature_detected!("avx512vnni"),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }
}

/// The chosen instruction set. Cheap to copy; every kernel and plan is made from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernels {
    // Private: a value exists only for a set that `available` has confirmed.
    isa: Isa,
}

impl Kernels {
    /// The fastest set of this machine.
    pub fn detect() -> Kernels {
        let isa = Isa::ALL.into_iter().rev().find(|isa| isa.available()).unwrap_or(Isa::Portable);
        Kernels { isa }
    }

    /// A given set, or `None` if this machine lacks it.
    pub fn with(isa: Isa) -> Option<Kernels> {
        isa.available().then_some(Kernels { isa })
    }

    /// Every set this machine has, slowest first.
    pub fn all() -> Vec<Kernels> {
        Isa::ALL.into_iter().filter_map(Kernels::with).collect()
    }

    /// The set in use.
    pub fn isa(self) -> Isa {
        self.isa
    }

    /// Lanes of 32 bits in a vector of this set.
    pub(super) fn lanes(self) -> usize {
        self.run(Sizes).0
    }

    /// Quantised codes in a 32-bit word of an integer product.
    pub(super) fn codes_per_word(self) -> usize {
        self.run(Sizes).1
    }

    /// Runs `job` compiled for the chosen set.
    pub(super) fn run<J: Job>(self, job: J) -> J::Out {
        match self.isa {
            Isa::Portable => job.run(Portable),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a `Kernels` with this set exists only after `available` found its features.
            Isa::Avx2 => unsafe { x86::avx2(job) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx512 => unsafe { x86::avx512(job) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx512Vnni => unsafe { x86::avx512_vnni(job) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => job.run(Portable),
        }
    }
}

struct Sizes;

impl Job for Sizes {
    type Out = (usize, usize);

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> (usize, usize) {
        (S::LANES, S::CODES_PER_WORD)
    }
}

/// A piece of work written once over the vector operations `S`. `run`, and all it calls down to the operations
/// themselves, is `#[inline(always)]`: only then is it compiled with the features of the function that calls it.
pub(super) trait Job {
    type Out;
    fn run<S: Simd>(self, s: S) -> Self::Out;
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Job;
    use crate::simd_avx2::Avx2;
    use crate::simd_avx512::Avx512;

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2<J: Job>(job: J) -> J::Out {
        // SAFETY: the token stands for the features this function is compiled with.
        job.run(unsafe { Avx2::new() })
    }

    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn avx512<J: Job>(job: J) -> J::Out {
        // SAFETY: as above.
        job.run(unsafe { Avx512::<false>::new() })
    }

    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub(super) fn avx512_vnni<J: Job>(job: J) -> J::Out {
        // SAFETY: as above.
        job.run(unsafe { Avx512::<true>::new() })
    }
}
