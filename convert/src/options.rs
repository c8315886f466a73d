//! What to convert to, and how, and what came of it.

use tern::Encoding;

/// What a model can be converted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// GGUF with I2_S tensors: what bitnet.cpp and ik_llama.cpp run.
    I2S,
    /// GGUF with TQ1_0 tensors: the smallest that llama.cpp runs.
    Tq1_0,
    /// GGUF with TQ2_0 tensors: the fastest that llama.cpp runs.
    Tq2_0,
    /// GGUF with Q2_0 tensors: what llama.cpp runs of models with a scale for 64 weights or more.
    Q2_0,
    /// GGUF with PQ2_0 tensors: what PrismML's llama.cpp runs of models with a scale for 128 weights or more.
    Pq2_0,
    /// GGUF with Tern's own I2 tensors, mapped and run as they lie: 2 bits a weight.
    I2,
    /// GGUF with Tern's own T5 tensors, mapped and run as they lie: 1.6 bits a weight.
    T5,
    /// A Hugging Face directory with packed `uint8` weights: what transformers runs.
    Hf,
}

impl Target {
    /// Every target.
    pub const ALL: [Target; 8] =
        [Self::I2, Self::T5, Self::I2S, Self::Tq1_0, Self::Tq2_0, Self::Q2_0, Self::Pq2_0, Self::Hf];

    /// The name used in options and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::I2S => "i2_s",
            Self::Tq1_0 => "tq1_0",
            Self::Tq2_0 => "tq2_0",
            Self::Q2_0 => "q2_0",
            Self::Pq2_0 => "pq2_0",
            Self::I2 => "i2",
            Self::T5 => "t5",
            Self::Hf => "hf",
        }
    }

    /// Whether an embedding or a head that is ternary is written as the matrices are: where programs run it so.
    pub(crate) fn keeps_ternary(self) -> bool {
        matches!(self, Self::I2 | Self::T5 | Self::Q2_0 | Self::Pq2_0)
    }

    /// The target of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|target| target.name() == name)
    }

    /// How ternary matrices are written.
    pub(crate) fn encoding(self) -> Encoding {
        match self {
            Self::I2S => Encoding::I2S,
            Self::Tq1_0 => Encoding::Tq1_0,
            Self::Tq2_0 => Encoding::Tq2_0,
            Self::Q2_0 => Encoding::Q2_0,
            Self::Pq2_0 => Encoding::Pq2_0,
            Self::I2 => Encoding::I2,
            Self::T5 => Encoding::T5,
            Self::Hf => Encoding::Packed,
        }
    }
}

/// A program that a GGUF is for. Each reads the same model under names of its own, and other encodings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Mainline llama.cpp: TQ1_0, TQ2_0 and Q2_0, and PrismML's with PQ2_0; BitNet is `bitnet`, with the activation in a key.
    LlamaCpp,
    /// Microsoft's bitnet.cpp: I2_S, TQ1_0 and TQ2_0; BitNet 2B4T is `bitnet-b1.58`.
    BitnetCpp,
    /// ik_llama.cpp: I2_S; BitNet 2B4T is `bitnet-b1.58`.
    IkLlamaCpp,
}

impl Engine {
    /// Every program.
    pub const ALL: [Engine; 3] = [Self::LlamaCpp, Self::BitnetCpp, Self::IkLlamaCpp];

    /// The name used in options and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::LlamaCpp => "llama.cpp",
            Self::BitnetCpp => "bitnet.cpp",
            Self::IkLlamaCpp => "ik_llama.cpp",
        }
    }

    /// The program of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|engine| engine.name() == name)
    }

    /// The formats that it reads.
    fn reads(self) -> &'static [Target] {
        match self {
            Self::LlamaCpp => &[Target::Tq1_0, Target::Tq2_0, Target::Q2_0, Target::Pq2_0],
            Self::BitnetCpp => &[Target::I2S, Target::Tq1_0, Target::Tq2_0],
            Self::IkLlamaCpp => &[Target::I2S],
        }
    }
}

/// How the embedding or the output head is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Floats {
    /// As the input has it, where the target can hold that; else as f32, which loses nothing. A Hugging Face directory
    /// gets f32 for f16 too, which PyTorch does not multiply on a CPU.
    #[default]
    Keep,
    /// 32 bits a number.
    F32,
    /// 16 bits a number with 11 significant ones; numbers below 6e-5 lose some.
    F16,
    /// 16 bits a number with 8 significant ones.
    Bf16,
    /// 8.5 bits a number.
    Q8_0,
    /// 11 bits a number: the head as the engine uses it, so that it is mapped and not made at every start. Tern's own
    /// formats only. A head changes no result by it; an embedding is rounded.
    Int8,
}

impl Floats {
    /// Every choice.
    pub const ALL: [Floats; 6] = [Self::Keep, Self::F32, Self::F16, Self::Bf16, Self::Q8_0, Self::Int8];

    /// The name used in options and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Int8 => "int8",
        }
    }

    /// The choice of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|floats| floats.name() == name)
    }

    /// The encoding asked for; `None` to keep what there is.
    pub(crate) fn encoding(self) -> Option<Encoding> {
        match self {
            Self::Keep => None,
            Self::F32 => Some(Encoding::F32),
            Self::F16 => Some(Encoding::F16),
            Self::Bf16 => Some(Encoding::Bf16),
            Self::Q8_0 => Some(Encoding::Q8_0),
            Self::Int8 => Some(Encoding::H8),
        }
    }
}

/// What to convert to, and how.
#[derive(Clone, Copy, Debug)]
pub struct ConvertOptions {
    /// The format of the output.
    pub to: Target,
    /// Round the float weights of a model that was not trained ternary.
    pub lossy: bool,
    /// The input's I2_S tensors are in the 64-weight order of ARM builds.
    pub i2s_arm: bool,
    /// How the embedding is written.
    pub embedding: Floats,
    /// How the output head is written, where it is not the embedding; [`Floats::Int8`] writes one of these as well.
    pub head: Floats,
    /// The program whose names a GGUF gets; [the usual one of the format](Self::engine) if `None`.
    pub engine: Option<Engine>,
}

impl ConvertOptions {
    /// To this format, losing nothing.
    pub fn new(to: Target) -> Self {
        Self { to, lossy: false, i2s_arm: false, embedding: Floats::Keep, head: Floats::Keep, engine: None }
    }

    /// The program that the output is for: llama.cpp where nobody else's format is asked for, bitnet.cpp for I2_S, none
    /// for Tern's own formats and for Hugging Face's.
    pub fn engine(&self) -> Option<Engine> {
        self.engine.or(match self.to {
            Target::Tq1_0 | Target::Tq2_0 | Target::Q2_0 | Target::Pq2_0 => Some(Engine::LlamaCpp),
            Target::I2S => Some(Engine::BitnetCpp),
            Target::I2 | Target::T5 | Target::Hf => None,
        })
    }

    /// Why the program that was asked for cannot read the format.
    pub(crate) fn misfit(&self) -> Option<String> {
        let engine = self.engine.filter(|engine| !engine.reads().contains(&self.to))?;
        let names: Vec<&str> = engine.reads().iter().map(|target| target.name()).collect();
        Some(format!("{} does not read {}: expected {}", engine.name(), self.to.name(), names.join(" or ")))
    }
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The family of the model.
    pub family: &'static str,
    /// Tensors in the output.
    pub tensors: usize,
    /// Ternary matrices among them.
    pub ternary: usize,
    /// Ternary weights in these.
    pub weights: u64,
    /// Bytes of the model file.
    pub bytes: u64,
    /// What the user should know: sentences without a full stop.
    pub notes: Vec<String>,
}
