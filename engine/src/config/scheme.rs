//! How the inputs of projections are rounded, as the weights were trained: in eight bits everywhere (BitNet b1.58), or in four
//! where that can be (BitNet a4.8, arXiv 2411.04965; BitNet v2, arXiv 2504.18415).

use tern_kernels::{Intake, Rounding, hadamard_block};

/// What the inputs of all projections of a model are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheme {
    /// int8.
    #[default]
    A8,
    /// int4 for q, k, v, gate and up; the larger half in int8 for o; int8 for down.
    A48,
    /// int8, behind a Hadamard transform for o and down.
    V2A8,
    /// int4, behind a Hadamard transform for o and down.
    V2A4,
    /// int4 without a transform: what v2 was made against, for comparisons.
    A4,
}

/// Projections that share their input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inlet {
    /// q, k and v.
    Qkv,
    /// The attention's output.
    O,
    /// gate and up.
    GateUp,
    /// The way down.
    Down,
}

impl Inlet {
    /// Every one, in the order of a block.
    pub const ALL: [Inlet; 4] = [Inlet::Qkv, Inlet::O, Inlet::GateUp, Inlet::Down];
}

/// The longest block of a Hadamard transform.
const BLOCK: usize = 1024;

impl Scheme {
    /// Every one.
    pub const ALL: [Scheme; 5] = [Scheme::A8, Scheme::A48, Scheme::V2A8, Scheme::V2A4, Scheme::A4];

    /// The name in files and options.
    pub fn name(self) -> &'static str {
        match self {
            Self::A8 => "a8",
            Self::A48 => "a4.8",
            Self::V2A8 => "v2-a8",
            Self::V2A4 => "v2-a4",
            Self::A4 => "a4",
        }
    }

    /// The one of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scheme| scheme.name() == name)
    }

    /// The scheme in eight bits that training begins with.
    pub fn in_eight_bits(self) -> Self {
        match self {
            Self::A8 | Self::A48 | Self::A4 => Self::A8,
            Self::V2A8 | Self::V2A4 => Self::V2A8,
        }
    }

    /// What becomes of an input of `width` numbers.
    pub fn intake(self, inlet: Inlet, width: usize) -> Intake {
        let rounding = match (self, inlet) {
            (Self::A8 | Self::V2A8, _) | (Self::A48, Inlet::Down) => Rounding::Token,
            (Self::A48, Inlet::O) => Rounding::TopHalf,
            (Self::A48 | Self::V2A4 | Self::A4, _) => Rounding::Int4,
        };
        let transforms = matches!(self, Self::V2A8 | Self::V2A4) && matches!(inlet, Inlet::O | Inlet::Down);
        Intake { rounding, block: if transforms { hadamard_block(width, BLOCK) } else { 1 } }
    }
}
